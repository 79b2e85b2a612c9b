//! `synod … | head`: whoever has read enough may go, and the command still ends as it would have.

use std::process::{Command, Stdio};

/// The exit status of a command whose output nobody reads.
fn unread(arguments: &[&str]) -> Option<i32> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("synod runs");
    drop((child.stdout.take(), child.stderr.take()));
    child.wait().expect("synod ends").code()
}

#[test]
fn a_reader_who_has_gone_stops_no_command() {
    for arguments in [
        "sim --nodes 3 --for 5s",
        "sim --nodes 3 --for 2s --seeds 2",
        "sim matrix --protocols raft --faults crash --nodes 3 --seeds 1 --for 1s",
        "sim bank --seed 1 --trace",
        "sim bank --seeds 2",
        "sim costs --protocols raft --nodes 3 --commands 20",
        "sim failover --protocols raft --nodes 3 --seeds 2",
        "sim weak --seed 7 --story",
        "sim weak --level eventual --seeds 2",
        "sim cap --calm 2s --partition 1s",
        "bench --help",
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        assert_eq!(unread(&arguments), Some(0), "synod {}", arguments.join(" "));
    }
    // What is wrong is told by the status, though nobody reads why.
    assert_eq!(unread(&["sim", "costs", "--protocols", "gossip"]), Some(2));
    assert_eq!(unread(&["bench", "--endpoints", "127.0.0.1:1"]), Some(3));
}
