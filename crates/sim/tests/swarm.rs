//! Random faults from seeds: safety always, progress once they end.

use synod_sim::{Campaign, CampaignReport, Span, Swarm};

fn campaign(nodes: u8, seeds: std::ops::Range<u64>) -> CampaignReport {
    let swarm = Swarm { nodes, until: Span::secs(4), ..Swarm::default() };
    let mut campaign = Campaign::new(swarm, seeds);
    campaign.threads = 2;
    let report = campaign.run(&|_| true).expect("the protocol is known");
    let failures: Vec<String> = report.failures.iter().map(|failure| failure.to_string()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(report.unknown, 0, "the histories are short enough to be judged");
    report
}

#[test]
fn five_members_keep_their_promises() {
    let report = campaign(5, 0..200);
    let counts = report.counts;
    // The campaign is worth something only if things happen in it.
    assert!(counts.elections > 400 && counts.crashes > 400 && counts.commits > 20_000, "{counts:?}");
    assert!(counts.unknown > 50 && counts.refused > 10 && counts.lost > 10_000, "{counts:?}");
}

#[test]
fn three_members_keep_their_promises() {
    campaign(3, 1000..1070);
}

#[test]
fn one_two_four_and_seven_members_keep_their_promises() {
    for (nodes, seeds) in [(1, 2000..2008), (2, 2100..2108), (4, 2200..2208), (7, 2300..2306)] {
        campaign(nodes, seeds);
    }
}
