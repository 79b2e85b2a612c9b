//! A real file system that runs full below a running member.
//!
//! Where the log finds no room, the member refuses writes until there is some. Where the state finds none it stops: it
//! could not cut the log either. Which of the two comes first depends on sizes, so the tests take both.
//!
//! The file system is a small one in memory, mounted for the test, which takes a superuser.

mod common;

use common::*;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Of the file system: room for a few segments of the log, and for the state.
const DISK_BYTES: u64 = 48 << 20;
const VALUE_BYTES: usize = 64 << 10;

/// A mounted file system, until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one at `path`, or says that it cannot.
    fn mount(path: &Path) -> Option<SmallDisk> {
        fs::create_dir_all(path).expect("a directory to mount at");
        let size = format!("size={DISK_BYTES}");
        let output =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "synod-test"]).arg(path).output();
        let why = match output {
            Ok(output) if output.status.success() => return Some(SmallDisk(path.to_owned())),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        let required =
            std::env::var_os("SYNOD_REQUIRE_TOOLS").is_some() && rustix::process::geteuid().is_root();
        assert!(!required, "a superuser can mount a file system, but: {why}");
        eprintln!("\n*** SKIPPED: nothing can be mounted here ({why}), so full disks were NOT tested ***\n");
        None
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).expect("a file");
        for size in [1 << 20, 4 << 10, 1] {
            let piece = vec![0xB5; size];
            let error = loop {
                if let Err(error) = ballast.write_all(&piece) {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        }
    }

    /// Gives it back.
    fn free(&self) {
        fs::remove_file(self.ballast()).expect("removed");
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a failed test may still have a member in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A value that can be told from others of its size.
fn value(i: usize) -> String {
    format!("{i:08}").repeat(VALUE_BYTES / 8)
}

#[test]
fn a_member_whose_disk_is_full_says_so_and_the_others_go_on_and_it_catches_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(disk) = SmallDisk::mount(&directory.path().join("disk")) else { return };
    let mut cluster = Cluster::stopped(3);
    cluster.configs[0].data_dir = disk.0.join("data");
    (0..3).for_each(|i| cluster.up(i));
    cluster.leader();
    let mut written = 0;
    let mut write = |cluster: &Cluster, through: usize, count: usize| {
        for _ in 0..count {
            put_surely(&cluster.endpoint(through), &format!("k{written:04}"), &value(written));
            written += 1;
        }
        written
    };
    write(&cluster, 0, 40);
    disk.fill();
    // More than the log has room for that was made before.
    let written_while_full = write(&cluster, 1, 80);
    until("the member says that its disk is full, or stops for it", || {
        let stopped = !cluster.servers[0].as_ref().expect("it was started").is_running();
        (stopped || cluster.said("n1: the disk is full: writes are refused until there is room"))
            .then_some(())
    });
    let leader = until("another leads", || leader_name(&cluster.endpoint(1)).filter(|name| name != "n1"));
    assert_ne!(leader, "n1", "who cannot write does not lead");
    let refused = put(&cluster.endpoint(0), "k", "v").expect_err("it cannot take it");
    assert!([8, 14].contains(&refused.code), "full, or not there: {refused:?}");

    disk.free();
    resume(&mut cluster, 0);
    put_surely(&cluster.endpoint(0), "later", "too");
    for i in [0, 39, 40, written_while_full - 1] {
        assert_eq!(get_surely(&cluster.endpoint(0), &format!("k{i:04}")), Some(value(i)));
    }
}

#[test]
fn a_cluster_of_one_on_a_full_disk_loses_nothing_that_it_acknowledged() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(disk) = SmallDisk::mount(&directory.path().join("disk")) else { return };
    let mut cluster = Cluster::stopped(1);
    cluster.configs[0].data_dir = disk.0.join("data");
    cluster.configs[0].request_timeout = Duration::from_secs(2);
    cluster.up(0);
    cluster.leader();
    let mut acknowledged = Vec::new();
    let mut refusals = Vec::new();
    for i in 0..200 {
        if i == 60 {
            disk.fill();
        }
        match put(&cluster.endpoint(0), &format!("k{i:04}"), &value(i)) {
            Ok(_) => acknowledged.push(i),
            Err(refused) => refusals.push(refused),
        }
        if refusals.len() == 3 {
            break;
        }
    }
    assert!(
        acknowledged.len() >= 60 && refusals.len() == 3,
        "{} were taken: {refusals:?}",
        acknowledged.len()
    );
    let goes_on = until("it says so, or has stopped for it", || {
        let said = cluster.said("the disk is full: writes are refused until there is room; free some");
        let stopped = !cluster.servers[0].as_ref().expect("it was started").is_running();
        (said || stopped).then_some(!stopped)
    });
    if goes_on {
        let full =
            refusals.iter().any(|refused| refused.message == "etcdserver: mvcc: database space exceeded");
        assert!(full, "{refusals:?}");
    }
    // Neither does a start on the full disk harm anything, whether it succeeds or says why it does not.
    stop(&mut cluster, 0);
    if let Err(error) = cluster.try_up(0) {
        assert!(!error.to_string().contains('\n') && error.to_string().contains("No space left"), "{error}");
    }
    disk.free();
    resume(&mut cluster, 0);
    for i in acknowledged {
        assert_eq!(get_surely(&cluster.endpoint(0), &format!("k{i:04}")), Some(value(i)), "k{i:04}");
    }
    put_surely(&cluster.endpoint(0), "later", "too");
}

/// Stops a member, which may have stopped by itself: then it has said why.
fn stop(cluster: &mut Cluster, i: usize) {
    if let Some(server) = cluster.servers[i].take()
        && let Err(error) = server.stop()
    {
        let said = error.to_string();
        assert!(said.contains("this member stopped") && said.contains("No space left"), "{said}");
    }
}

/// After there is room again: a member that runs says so by itself, one that has stopped is started.
fn resume(cluster: &mut Cluster, i: usize) {
    let running = cluster.servers[i].as_ref().is_some_and(|server| server.is_running());
    if !running {
        stop(cluster, i);
        cluster.up(i);
    }
}
