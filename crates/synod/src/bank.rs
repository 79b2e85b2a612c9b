//! `synod sim bank`: transfers between banks, and what becomes of the money.

use crate::cli::Bank;
use crate::sim::save;
use crate::{Done, Failure};
use std::time::Duration;
use synod_sim::bank::{Blocking, Protocol, Scenario, blocking, cost, run as play};

/// Between how many participants costs are measured.
const PARTICIPANTS: [u64; 3] = [2, 3, 5];
/// Over how many seeds blocking is measured, and for how long the coordinator is dead.
const DEATHS: u64 = 500;
const DOWN: Duration = Duration::from_secs(10);

pub fn run(options: &Bank) -> Done {
    if options.figures {
        figures();
        return Ok(());
    }
    match options.seeds {
        Some(count) => campaign(options, count),
        None => one(options),
    }
}

fn scenario(options: &Bank, seed: u64) -> Scenario {
    Scenario { faults: options.faults, ..Scenario::new(options.protocol, options.participants, seed) }
}

fn one(options: &Bank) -> Done {
    let outcome = play(&scenario(options, options.seed), options.trace);
    print!("{}", outcome.trace);
    println!("{outcome}");
    if let Some(path) = &options.history {
        save(path, |file| outcome.history.write(file).map_err(std::io::Error::other))?;
    }
    match outcome.passed() {
        true => Ok(()),
        false => Err(Failure::No("a promise was broken".into())),
    }
}

fn campaign(options: &Bank, count: u64) -> Done {
    let (mut done, mut not, mut unknown, mut wrong, mut reads) = (0, 0, 0, 0, 0);
    let mut broken = Vec::new();
    for seed in options.seed..options.seed.saturating_add(count) {
        let outcome = play(&scenario(options, seed), false);
        done += outcome.committed;
        not += outcome.aborted;
        unknown += outcome.unknown;
        reads += outcome.reads;
        wrong += outcome.wrong_reads;
        broken.extend(outcome.violations.first().map(|violation| (seed, violation.clone())));
    }
    println!("{} between {} banks, {count} seeds", options.protocol, options.participants);
    println!("  transfers  {done} done, {not} not done, {unknown} unknown to their client");
    println!("  reads      {reads}, of which {wrong} did not see all of the money");
    match broken.first() {
        None => {
            println!("  verdict    every promise was kept");
            Ok(())
        }
        Some((seed, violation)) => {
            println!("  verdict    BROKEN in {} seeds, first in {seed}: {violation}", broken.len());
            println!(
                "  again      synod sim bank --protocol {} --participants {} --seed {seed} --trace",
                options.protocol, options.participants
            );
            Err(Failure::No(format!("{} of {count} seeds broke a promise", broken.len())))
        }
    }
}

/// What is reported in docs/transactions.md.
fn figures() {
    println!(
        "until the client knows, without faults: messages from and to banks, message delays, syncs one after the other"
    );
    print!("{:<16}", "");
    PARTICIPANTS.iter().for_each(|n| print!("{:<20}", format!("{n} participants")));
    println!();
    for protocol in Protocol::ALL {
        print!("{protocol:<16}");
        for n in PARTICIPANTS {
            let cost = cost(protocol, n);
            print!("{:<20}", format!("{}, {}, {}", cost.messages, cost.delays, cost.syncs));
        }
        println!();
    }
    println!(
        "\nafter the death of a coordinator for {DOWN:?}, over {DEATHS} seeds: p50, p90, longest; runs that lost money"
    );
    for protocol in Protocol::ALL {
        let Blocking { locks, money, lost } = blocking(protocol, DEATHS, DOWN);
        let three = |times: &[Duration]| {
            [50, 90, 100]
                .map(|percent| format!("{} ms", Blocking::percentile(times, percent).as_millis()))
                .join(", ")
        };
        println!("{protocol:<16}locks {:<28} money {:<28} {lost} lost", three(&locks), three(&money));
    }
}
