//! A campaign of swarm scripts: `cargo run --release -p synod-sim --example swarm -- 1000 60s`.
//!
//! Arguments: how many seeds (1000), how much virtual time each (10s), how many members (5), the
//! first seed (0), and the protocol (raft).

use std::time::Instant;
use synod_sim::{Campaign, Span, Swarm};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let seeds: u64 = args.next().map_or(Ok(1000), |text| text.parse())?;
    let until =
        args.next().map_or(Some(Span::secs(10)), |text| Span::parse(&text)).ok_or("a length such as 60s")?;
    let nodes: u8 = args.next().map_or(Ok(5), |text| text.parse())?;
    let first: u64 = args.next().map_or(Ok(0), |text| text.parse())?;
    let protocol = args.next().unwrap_or_else(|| "raft".into());
    let began = Instant::now();
    let campaign = Campaign::new(Swarm { protocol, nodes, until, ..Swarm::default() }, first..first + seeds);
    let report = campaign.run(&|_| true)?;
    let took = began.elapsed().as_secs_f64();
    for failure in &report.failures {
        println!("{failure}");
    }
    println!("{}", serde_json::to_string_pretty(&report.counts)?);
    println!(
        "{} runs, {} failures, {} histories undecided; {:.2} s: {:.1} seeds/s, {:.0} steps/s, {:.0} times real time",
        report.runs,
        report.failures.len(),
        report.unknown,
        took,
        report.runs as f64 / took,
        report.counts.steps as f64 / took,
        report.virtual_nanos as f64 / 1e9 / took,
    );
    Ok(())
}
