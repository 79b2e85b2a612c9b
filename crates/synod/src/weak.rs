//! `synod sim weak` and `synod sim cap`: four levels of consistency under the same faults, and under one partition.

use crate::cli::{CapOptions, Form, Weak};
use crate::sim::save;
use crate::{Done, Failure};
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::io::Write;
use synod_sim::weak::{
    Cap, CapScenario, Cell, Fault, Level, Matrix, Outcome, Scenario, Side, cap, run as play, separate, watch,
};

pub fn run(options: &Weak) -> Done {
    if options.separate {
        return separations(options);
    }
    if options.matrix {
        return matrix(options);
    }
    match options.seeds {
        Some(count) => campaign(options, count),
        None => one(options),
    }
}

fn scenario(options: &Weak, seed: u64) -> Scenario {
    let scenario = Scenario::new(options.level, options.members, seed, options.faults);
    Scenario { kind: options.kind.0, ..scenario }
}

fn one(options: &Weak) -> Done {
    let scenario = scenario(options, options.seed);
    let is_watched = options.trace.is_some() || options.story;
    let outcome = if is_watched { watch(&scenario) } else { play(&scenario) };
    if options.story {
        print!("{}", outcome.story.text());
    }
    println!("{outcome}");
    if let Some(path) = &options.trace {
        let (header, trace) = outcome.story.json(&outcome);
        save(path, |file| write!(file, "{header}\n{}", trace.lines()))?;
    }
    if let Some(path) = &options.history {
        save(path, |file| outcome.history.write(file).map_err(std::io::Error::other))?;
    }
    verdict(outcome.passed())
}

fn verdict(passed: bool) -> Done {
    match passed {
        true => Ok(()),
        false => Err(Failure::No("a promise was broken".into())),
    }
}

fn campaign(options: &Weak, count: u64) -> Done {
    let (mut answered, mut refused, mut unanswered, mut slowest) = (0, 0, 0, 0);
    let mut broken: Vec<(u64, String)> = Vec::new();
    for seed in options.seed..options.seed.saturating_add(count) {
        let outcome: Outcome = play(&scenario(options, seed));
        answered += outcome.answered;
        refused += outcome.refused;
        unanswered += outcome.unanswered;
        slowest = slowest.max(outcome.convergence.map_or(0, |span| span.as_millis()));
        broken.extend(outcome.violations.first().map(|violation| (seed, violation.clone())));
    }
    let Weak { level, members, faults, kind, .. } = options;
    println!("{level}, {kind}, {members} members, faults: {faults}, {count} seeds");
    println!("  requests   {answered} answered, {refused} refused, {unanswered} not answered");
    println!("  the same   {slowest} ms after the last fault at the latest");
    match broken.first() {
        None => println!("  verdict    every promise was kept"),
        Some((seed, violation)) => {
            println!("  verdict    BROKEN in {} seeds, first in seed {seed}: {violation}", broken.len());
            println!("  again      {}", scenario(options, *seed).command());
        }
    }
    verdict(broken.is_empty())
}

/// Seeds in a cell, if nothing else is said.
const SEEDS: u64 = 40;

fn matrix(options: &Weak) -> Done {
    let matrix = Matrix {
        levels: Level::ALL.to_vec(),
        faults: Fault::ALL.to_vec(),
        seeds: options.seeds.unwrap_or(SEEDS),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let cells = matrix.run(&|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    match options.form.or(options.json.then_some(Form::Json)) {
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
    println!(
        "{} seeds each: the verdict; what went wrong; requests that were not answered; the longest time until all were the same\n",
        matrix.seeds
    );
    print!("{:<16}", "");
    matrix.levels.iter().for_each(|level| print!("{level:<30}"));
    println!();
    for (fault, row) in matrix.faults.iter().zip(cells.chunks(matrix.levels.len())) {
        print!("{fault:<16}");
        row.iter().for_each(|cell| print!("{cell:<30}"));
        println!();
    }
    let sum = |of: fn(&Cell) -> u64| cells.iter().map(of).sum::<u64>();
    println!(
        "\n{} runs, {} things went wrong; {} requests answered, {} refused, {} not answered",
        sum(|cell| cell.runs),
        sum(|cell| cell.faults),
        sum(|cell| cell.answered),
        sum(|cell| cell.refused),
        sum(|cell| cell.unanswered)
    );
    let pairs =
        matrix.faults.iter().flat_map(|fault| matrix.levels.iter().map(move |level| (*level, *fault)));
    for (cell, (level, fault)) in cells.iter().zip(pairs) {
        if let Some((seed, why)) = &cell.example {
            println!("{level} under {fault}: {why}\n    {}", Matrix::scenario(level, fault, *seed).command());
        }
    }
}

/// For each level a history that has it and not the next stronger one.
fn separations(options: &Weak) -> Done {
    let seeds = options.seed..options.seed.saturating_add(options.seeds.unwrap_or(1_000));
    for level in [Level::Sequential, Level::Causal, Level::Eventual] {
        let Some(found) = separate(level, seeds.clone()) else {
            return Err(Failure::No(format!("no history is {level} and nothing more in these seeds")));
        };
        let (count, all, left) = (found.tried, found.operations, found.history.operations.len());
        let stronger = found.stronger;
        println!("{level} and not {stronger}: found after {count} seeds, {left} of {all} operations left");
        for operation in &found.history.operations {
            println!("    {:<8} {}", operation.client, operation.call);
        }
        if let Some(folder) = &options.history {
            let path = folder.join(format!("{level}-and-not-{stronger}.jsonl"));
            let mut history = found.history.clone();
            history.header.about =
                Some(format!("{level} and not {stronger}: made small from a simulated run"));
            save(&path, |file| history.write(file).map_err(std::io::Error::other))?;
        }
    }
    Ok(())
}

pub fn cap_of_all(options: &CapOptions) -> Done {
    let what = CapScenario {
        members: options.members,
        seed: options.seed,
        calm: options.calm,
        partition: options.partition,
        delay: options.delay,
        ..CapScenario::default()
    };
    let all: Vec<Cap> = Level::ALL.into_iter().map(|level| cap(level, &what)).collect();
    match options.json {
        true => {
            let text = serde_json::to_string_pretty(&all).map_err(|e| Failure::No(e.to_string()))?;
            println!("{text}");
        }
        false => table(&all, &what),
    }
    verdict(all.iter().all(|cap| cap.violations.is_empty()))
}

fn table(all: &[Cap], what: &CapScenario) {
    println!(
        "{} members, messages of {:?}, syncs of {:?}; after {:?} one member is cut off for {:?}; seed {}",
        what.members, what.delay, what.sync, what.calm, what.partition, what.seed
    );
    let timing = what.timing();
    println!(
        "the replicated log: heartbeats every {:?}, election timeout {:?}",
        timing.heartbeat, timing.election
    );
    println!(
        "{:<13} {:<9} {:>6} {:>8} {:>6} {:>6} {:>8} {:>8} {:>8} {:>8}",
        "level", "sessions", "asked", "refused", "reads", "stale", "put p50", "put p99", "get p50", "get p99"
    );
    for cap in all {
        for (who, side) in [("calm", &cap.calm), ("minority", &cap.minority), ("majority", &cap.majority)] {
            let Side { asked, refused, reads, stale, put_ms_p50, put_ms_p99, get_ms_p50, get_ms_p99 } = side;
            println!(
                "{:<13} {who:<9} {asked:>6} {refused:>8} {reads:>6} {stale:>6} {put_ms_p50:>8.1} {put_ms_p99:>8.1} {get_ms_p50:>8.1} {get_ms_p99:>8.1}",
                cap.level
            );
        }
    }
    println!();
    for cap in all {
        let convergence =
            cap.convergence_ms.map_or("never".into(), |ms| format!("{ms:.0} ms after the partition"));
        println!(
            "{:<13} all the same {convergence}; {:.1} messages for each answered request",
            cap.level, cap.messages_per_request
        );
        cap.violations.iter().for_each(|violation| println!("              BROKEN: {violation}"));
    }
}
