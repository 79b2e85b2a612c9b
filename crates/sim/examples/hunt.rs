//! How long the simulator needs to find each planted bug: seeds and processor time to detection.
//!
//! ```text
//! cargo run --release -p synod-sim --example hunt -- --seeds 3000
//! cargo run --release -p synod-sim --example hunt -- vote_forgotten --from 100
//! ```

use std::time::Instant;
use synod_mutants as bugs;
use synod_protocols::log::ReplicatedLog;
use synod_sim::{Failure, NoTrace, Span, Swarm, run_with, swarm};

fn main() {
    let mut names = Vec::new();
    let (mut from, mut seeds, mut nodes) = (0, 3000, 5);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let text = arguments.next().unwrap_or_default();
            text.parse().unwrap_or_else(|_| panic!("{argument} takes a number, found `{text}`"))
        };
        match argument.as_str() {
            "--from" => from = number(),
            "--seeds" => seeds = number(),
            "--nodes" => nodes = number() as u8,
            name => names.push(name.to_owned()),
        }
    }
    macro_rules! hunt {
        ($($bug:ident),*) => {
            $(if names.is_empty() || names.iter().any(|name| name == stringify!($bug)) {
                hunt::<bugs::$bug::Raft>(stringify!($bug), nodes, from, seeds);
            })*
        };
    }
    hunt!(
        acknowledged_before_sync,
        old_term_counted,
        own_disk_not_awaited,
        pre_vote_clears_vote,
        read_unconfirmed,
        short_log_elected,
        stale_append_truncates,
        vote_before_sync,
        vote_forgotten
    );
}

fn hunt<P: ReplicatedLog>(name: &str, nodes: u8, from: u64, seeds: u64) {
    let common = Swarm { nodes, until: Span::secs(4), ..Swarm::default() };
    let began = Instant::now();
    let found = (from..from + seeds).find_map(|seed| {
        let outcome = run_with::<P>(&swarm(seed, &common), &mut NoTrace);
        (!outcome.verdict.safe).then(|| (seed, Failure::of(&common, &outcome)))
    });
    let took = began.elapsed().as_secs_f64();
    match found {
        Some((seed, Some(failure))) => {
            println!("{name}: {} seeds, {took:.1} s: {}", seed - from + 1, failure.violation.promise);
        }
        _ => println!("{name}: not in {seeds} seeds, {took:.1} s"),
    }
}
