//! Partial connectivity: whoever reaches a quorum leads, and whoever reaches the leader catches up.

use synod_sim::{Campaign, Fault, NoTrace, Outcome, PROTOCOLS, Script, Span, Swarm};

fn run(protocol: &str, lines: &str) -> Outcome {
    let text = format!(
        "synod-script 1\nprotocol {protocol}\nfor 7s\nclients 3 every 20ms keys 3\nexpect progress within 20 elections\n{lines}\n"
    );
    let script: Script = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    synod_sim::run(&script, &mut NoTrace).expect("the protocol is known")
}

/// Who came into office last, such as `n2`.
fn leader(outcome: &Outcome) -> &str {
    let mark = outcome.marks.iter().rfind(|mark| mark.kind == "leader").expect("somebody led");
    mark.label.split(' ').next().expect("the label names it first")
}

#[test]
fn the_only_member_that_reaches_a_quorum_leads_although_its_log_is_behind() {
    for protocol in PROTOCOLS {
        let outcome = run(protocol, "at 1s isolate n2\nat 2s topology constrained n2");
        assert!(outcome.passed(), "{outcome}");
        assert_eq!(leader(&outcome), "n2", "{outcome}");
    }
}

#[test]
fn the_hub_of_a_topology_that_cuts_off_the_leader_is_somebody_else() {
    for protocol in PROTOCOLS {
        let first = leader(&run(protocol, "")).to_owned();
        for topology in ["constrained", "bridge"] {
            let outcome = run(protocol, &format!("at 2s topology {topology} {first}"));
            assert!(outcome.passed(), "{outcome}");
        }
    }
}

#[test]
fn a_campaign_about_each_topology_elects_whoever_reaches_a_quorum() {
    for fault in [Fault::QuorumLoss, Fault::Constrained, Fault::Chained, Fault::Bridge] {
        for protocol in PROTOCOLS {
            let swarm =
                Swarm { protocol: (*protocol).into(), only: Some(fault), until: Span::secs(6), nodes: 5 };
            let report = Campaign::new(swarm, 0..6).run(&|_| true).expect("the protocol is known");
            let failures: Vec<String> = report.failures.iter().map(|failure| failure.to_string()).collect();
            assert!(failures.is_empty(), "{fault}: {}", failures.join("\n"));
        }
    }
}

#[test]
fn a_learner_is_asked_to_catch_up() {
    let lines = "nodes 3\nat 1s add n4 learner";
    assert_eq!(run("raft", lines).verdict.live, Some(true));
    let behind = run("raft", &format!("{lines}\nat 2s disk n4 stall 10s"));
    assert_eq!((behind.verdict.safe, behind.verdict.live), (true, Some(false)), "{behind}");
}

#[test]
fn while_links_are_cut_whoever_reaches_the_leader_is_asked_to_catch_up() {
    let first = leader(&run("raft", "")).to_owned();
    let others: Vec<String> = (1..=5).map(|n| format!("n{n}")).filter(|name| *name != first).collect();
    let cut = format!("at 2s cut {} {}", others[0], others[1]);
    assert_eq!(run("raft", &cut).verdict.live, Some(true));
    let stalled = run("raft", &format!("{cut}\nat 2s disk {} stall 10s", others[2]));
    assert_eq!((stalled.verdict.safe, stalled.verdict.live), (true, Some(false)), "{stalled}");
    // Who is cut off is not asked.
    let isolated = run("raft", &format!("at 2s isolate {}\nat 2s disk {0} stall 10s", others[2]));
    assert_eq!(isolated.verdict.live, Some(true), "{isolated}");
}
