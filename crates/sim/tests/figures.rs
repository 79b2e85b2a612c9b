//! The figures of docs/measurements.md: what they must be for each protocol, whatever the seeds.

use synod_sim::costs::{Costs, costs};
use synod_sim::failover::{Failovers, Loss, failovers, script};
use synod_sim::{PROTOCOLS, UnknownProtocol};

fn measured(protocol: &str, nodes: u8) -> Costs {
    costs(protocol, nodes, 50).expect("the protocol is known")
}

#[test]
fn a_command_costs_one_round_trip_and_one_sync_in_sequence_at_the_least() {
    for (protocol, nodes) in PROTOCOLS.iter().flat_map(|protocol| [(protocol, 3), (protocol, 5)]) {
        let found = measured(protocol, nodes);
        let others = f64::from(nodes - 1);
        println!("{found:?}");
        assert_eq!(found.delays, 2, "a request and an answer of a quorum: {found:?}");
        assert!((1..=2).contains(&found.syncs_in_sequence), "{found:?}");
        // A request to each of the others, an answer of each, and at the most the news and its answer.
        assert!((2.0 * others..=4.0 * others).contains(&found.alone.messages), "{found:?}");
        assert!(found.alone.syncs >= f64::from(nodes), "everybody syncs every command: {found:?}");
        let value = synod_sim::costs::VALUE_BYTES as f64;
        assert!(found.alone.bytes >= others * value && found.together.bytes >= others * value, "{found:?}");
        assert_eq!(found.alone.kinds.values().sum::<f64>(), found.alone.messages);
    }
}

#[test]
fn many_commands_share_messages_and_syncs() {
    for protocol in PROTOCOLS {
        let Costs { alone, together, .. } = costs(protocol, 3, 500).expect("the protocol is known");
        assert!(together.syncs < alone.syncs / 5.0, "{protocol}: {together:?}");
        assert!(together.messages < alone.messages, "{protocol}: {together:?}");
    }
}

#[test]
fn one_member_sends_nothing() {
    let found = measured("raft", 1);
    assert_eq!((found.delays, found.alone.messages, found.alone.syncs), (0, 0.0, 1.0), "{found:?}");
}

fn lost(protocol: &str, loss: Loss, threads: usize) -> Failovers {
    failovers(protocol, 5, loss, 0..12, threads, &|| {}).expect("the protocol is known")
}

#[test]
fn every_protocol_finds_another_leader() {
    for (protocol, loss) in PROTOCOLS.iter().flat_map(|protocol| Loss::ALL.map(|loss| (protocol, loss))) {
        let found = lost(protocol, loss, 2);
        assert_eq!((found.times.len(), found.failed.as_slice()), (12, [].as_slice()), "{protocol} {loss}");
        // Nobody leads before a message went there and back.
        assert!(found.percentile(0) > Some(2_000_000), "{protocol} {loss}: {found:?}");
    }
}

#[test]
fn silence_takes_an_election_timeout_and_a_broken_connection_does_not() {
    let election = script("raft", 5, Loss::Hang, 0).election.0;
    for protocol in PROTOCOLS {
        let (crash, hang) = (lost(protocol, Loss::Crash, 1), lost(protocol, Loss::Hang, 1));
        assert!(crash.percentile(50) < hang.percentile(50), "{protocol}: {crash:?} {hang:?}");
        assert!(hang.percentile(50) > Some(election / 2), "{protocol}: {hang:?}");
    }
}

#[test]
fn figures_do_not_depend_on_threads() {
    assert_eq!(lost("zab", Loss::Crash, 1), lost("zab", Loss::Crash, 3));
}

#[test]
fn an_unknown_protocol_is_refused() {
    let unknown = || UnknownProtocol("gossip".into());
    assert_eq!(costs("gossip", 3, 1).expect_err("there is none"), unknown());
    assert_eq!(failovers("gossip", 3, Loss::Crash, 0..3, 2, &|| {}).expect_err("there is none"), unknown());
}
