//! Members that join and leave while the world is hostile, and reads under a lease.

use synod_sim::{Campaign, Fault, Linearizable, NoTrace, Outcome, Script, Span, Swarm};

fn run(lines: &str) -> Outcome {
    let script: Script =
        format!("synod-script 1\n{lines}\n").parse().unwrap_or_else(|error| panic!("{error}\n{lines}"));
    synod_sim::run(&script, &mut NoTrace).expect("the protocol is known")
}

const BUSY: &str = "for 8s\nclients 3 every 20ms keys 3\nexpect progress within 15 elections";

/// The protocols that let members change.
const CHANGING: [&str; 4] = ["raft", "multi-paxos", "zab", "viewstamped"];

/// The protocols whose reads can rest on leases.
const LEASED: [&str; 2] = ["raft", "viewstamped"];

fn done(outcome: &Outcome) -> Vec<&str> {
    let is_done = |label: &&str| label.ends_with(": done");
    outcome.marks.iter().map(|mark| mark.label.as_str()).filter(is_done).collect()
}

#[test]
fn a_cluster_grows_and_shrinks_while_it_serves() {
    for protocol in CHANGING {
        let outcome = run(&format!(
            "protocol {protocol}\nnodes 3\n{BUSY}\nat 1s add n4\nat 1500ms add n5\nat 2s remove n1\nat 2500ms remove n2"
        ));
        assert!(outcome.passed(), "{outcome}");
        assert_eq!(done(&outcome), ["add n4: done", "add n5: done", "remove n1: done", "remove n2: done"]);
    }
}

#[test]
fn a_cluster_of_one_becomes_one_of_three() {
    for protocol in CHANGING {
        let outcome =
            run(&format!("protocol {protocol}\nnodes 1\n{BUSY}\nat 1s add n2\nat 1s add n3\nat 3s crash n1"));
        assert!(outcome.passed(), "{outcome}");
        assert_eq!(outcome.counts.changes, 2, "{outcome}");
    }
}

#[test]
fn a_learner_votes_only_once_it_is_promoted() {
    let lines = |more: &str| {
        format!(
            "nodes 2\nfor 8s\nclients 2 every 50ms keys 2\nexpect progress within 20 elections\nat 1s add n3 learner\n{more}at 3s crash n2"
        )
    };
    let learner = run(&lines(""));
    assert_eq!(
        (learner.verdict.safe, learner.verdict.live),
        (true, Some(false)),
        "one of two voters is down"
    );
    let promoted = run(&lines("at 2s promote n3\n"));
    assert!(promoted.passed(), "{promoted}");
}

#[test]
fn leadership_is_handed_over_by_name_in_every_protocol() {
    for protocol in synod_sim::PROTOCOLS {
        let outcome = run(&format!(
            "protocol {protocol}\n{BUSY}\nat 1s transfer n3\nat 2s transfer n1\nat 3s transfer n4"
        ));
        assert!(outcome.passed(), "{outcome}");
        assert_eq!(outcome.counts.changes, 3, "{outcome}");
        assert!(
            outcome
                .marks
                .iter()
                .rfind(|mark| mark.kind == "leader")
                .expect("one leads")
                .label
                .starts_with("n4")
        );
    }
}

#[test]
fn a_lost_disk_comes_back_under_a_new_name() {
    for protocol in CHANGING {
        let outcome = run(&format!(
            "protocol {protocol}\nnodes 3\n{BUSY}\nat 1s disk n2 wipe\nat 1500ms restart n2\nat 2s remove n2\nat 2s add n4\nat 4s crash n1"
        ));
        assert!(outcome.passed(), "{outcome}");
        assert_eq!((outcome.counts.refused, outcome.counts.changes), (1, 2), "{outcome}");
    }
}

#[test]
fn a_change_that_waits_for_a_quorum_is_made_when_there_is_one() {
    let outcome = run(&format!(
        "nodes 3\n{BUSY}\nat 1s crash n1\nat 1s crash n2\nat 1100ms add n4\nat 2s restart all\nat 4s crash leader"
    ));
    assert!(outcome.passed(), "{outcome}");
    assert_eq!(done(&outcome), ["add n4: done"]);
}

#[test]
fn reads_rest_on_leases_only_where_a_script_says_so() {
    for protocol in LEASED {
        let run = |more: &str| run(&format!("protocol {protocol}\n{BUSY}{more}"));
        let (without, with) = (run(""), run("\nlease 1%"));
        assert!(without.passed() && with.passed(), "{with}");
        assert_eq!(without.counts.leased_reads, 0);
        assert!(with.counts.leased_reads > 50, "{with}");
    }
}

#[test]
fn leases_bear_clocks_that_differ_by_what_they_allow() {
    for protocol in LEASED {
        let swarm = Swarm {
            protocol: protocol.into(),
            until: Span::secs(4),
            only: Some(Fault::LeaseDrift),
            ..Swarm::default()
        };
        let mut campaign = Campaign::new(swarm, 0..40);
        campaign.threads = 2;
        let report = campaign.run(&|_| true).expect("the protocol is known");
        let failures: Vec<String> = report.failures.iter().map(|failure| failure.to_string()).collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        assert!(report.counts.leased_reads > 100, "{:?}", report.counts);
    }
}

#[test]
fn a_clock_that_is_slower_than_its_leases_allow_serves_a_stale_read() {
    for protocol in LEASED {
        let stale = (0..40).any(|seed| {
            let only = Some(Fault::LeaseBroken);
            let swarm = Swarm { protocol: protocol.into(), only, until: Span::secs(4), ..Swarm::default() };
            let outcome = synod_sim::run(&synod_sim::swarm(seed, &swarm), &mut NoTrace).expect("it is known");
            // What is broken is what clients see, and nothing else.
            assert_eq!(outcome.verdict.violations, [], "{outcome}");
            outcome.verdict.linearizable == Linearizable::No
        });
        assert!(stale, "{protocol}");
    }
}

#[test]
fn changing_members_keep_their_promises() {
    for protocol in CHANGING {
        for only in [Fault::Churn, Fault::Replaced] {
            let swarm = Swarm {
                protocol: protocol.into(),
                until: Span::secs(4),
                only: Some(only),
                ..Swarm::default()
            };
            let mut campaign = Campaign::new(swarm, 0..40);
            campaign.threads = 2;
            let report = campaign.run(&|_| true).expect("the protocol is known");
            let failures: Vec<String> = report.failures.iter().map(|failure| failure.to_string()).collect();
            assert!(failures.is_empty(), "{}", failures.join("\n"));
            assert!(report.counts.changes > 30, "{:?}", report.counts);
        }
    }
}
