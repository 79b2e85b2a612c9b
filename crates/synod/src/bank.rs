//! `synod sim bank`: transfers between banks, and what becomes of the money.

use crate::cli::{Bank, Form};
use crate::sim::save;
use crate::{Done, Failure};
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::time::Duration;
use synod_sim::bank::{
    Blocking, Cell, Fault, Matrix, Protocol, Scenario, banks, blocking, cost, run as play,
};

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
    if options.matrix {
        return matrix(options);
    }
    match options.seeds {
        Some(count) => campaign(options, count),
        None => one(options),
    }
}

fn scenario(options: &Bank, seed: u64) -> Scenario {
    let Bank { protocol, participants, faults: fault, log, .. } = *options;
    Scenario { fault, log, ..Scenario::new(protocol, participants, seed) }
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
        broken.extend(outcome.first_failure().map(|failure| (seed, failure.to_owned())));
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
            println!("  again      {}", again(&scenario(options, *seed)));
            Err(Failure::No(format!("{} of {count} seeds broke a promise", broken.len())))
        }
    }
}

/// The command that plays it again.
fn again(scenario: &Scenario) -> String {
    let Scenario { protocol, participants, log, fault, seed, .. } = scenario;
    let log = if *protocol == Protocol::Replicated { format!(" --log {log}") } else { String::new() };
    format!(
        "synod sim bank --protocol {protocol}{log} --participants {participants} --faults {fault} --seed {seed} --trace"
    )
}

/// Seeds in a cell, if nothing else is said.
const SEEDS: u64 = 40;

fn matrix(options: &Bank) -> Done {
    let matrix = Matrix {
        protocols: Protocol::ALL.to_vec(),
        faults: Fault::ALL.to_vec(),
        log: options.log,
        seeds: options.seeds.unwrap_or(SEEDS),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let cells = matrix.run(&|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    match options.form {
        Some(Form::Markdown) => print!("{}", matrix.markdown(&cells)),
        Some(Form::Json) => {
            println!("{}", serde_json::to_string_pretty(&cells).map_err(|e| Failure::No(e.to_string()))?);
        }
        None => print_matrix(&matrix, &cells),
    }
    match cells.iter().filter(|cell| !cell.as_expected).count() {
        0 => Ok(()),
        count => Err(Failure::No(format!("{count} cells are not what they must be"))),
    }
}

fn print_matrix(matrix: &Matrix, cells: &[Cell]) {
    let columns = matrix.protocols.len();
    print!("{:<18}", "");
    matrix.protocols.iter().for_each(|protocol| print!("{protocol:<20}"));
    println!();
    for (fault, row) in matrix.faults.iter().zip(cells.chunks(columns)) {
        print!("{fault:<18}");
        row.iter().for_each(|cell| print!("{cell:<20}"));
        println!();
    }
    let waits: u64 = cells.iter().map(|cell| cell.waits).sum();
    let (runs, done): (u64, u64) =
        cells.iter().fold((0, 0), |sum, cell| (sum.0 + cell.runs, sum.1 + cell.transfers));
    println!("{runs} runs, {done} transfers done, sagas waited for a person {waits} times");
    for (cell, (fault, place)) in
        cells.iter().zip(matrix.faults.iter().flat_map(|fault| (0..columns).map(move |i| (*fault, i))))
    {
        let protocol = matrix.protocols[place];
        let show = |seed| {
            let (participants, log) = (banks(seed), matrix.log);
            again(&Scenario { fault, log, ..Scenario::new(protocol, participants, seed) })
        };
        match &cell.example {
            Some((seed, why)) => println!("{protocol} under {fault}: {why}\n    {}", show(*seed)),
            None if !cell.as_expected => {
                println!(
                    "{protocol} under {fault}: nothing broke, though it must: more seeds, or the simulator is blind"
                );
            }
            None => {}
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
        "\nafter the death of a coordinator for {DOWN:?}, over {DEATHS} seeds: p50, p90, longest; runs in which locks \
         were held until it was back; runs that lost money"
    );
    for protocol in Protocol::ALL {
        let Blocking { locks, money, lost } = blocking(protocol, DEATHS, DOWN);
        let three = |times: &[Duration]| {
            [50, 90, 100]
                .map(|percent| format!("{} ms", Blocking::percentile(times, percent).as_millis()))
                .join(", ")
        };
        let held = locks.iter().filter(|held| **held >= DOWN).count();
        println!(
            "{protocol:<16}locks {:<28} money {:<28} {held} held, {lost} lost",
            three(&locks),
            three(&money)
        );
    }
}
