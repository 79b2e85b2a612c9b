//! `synod sim`: one run, or a campaign of many.

use crate::cli::{Run, Sim, SimCommand};
use crate::{Done, Failure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use synod_protocols::catalogue::replicated_log;
use synod_sim::script::{Mix, Progress as Promise, Workload};
use synod_sim::{
    Campaign, CampaignReport, Counts, NoTrace, Outcome, PROTOCOLS, Script, Sink, Span, Swarm, Trace, swarm,
};

/// Where the page is when nobody says otherwise: what a printed address refers to.
const PAGE: &str = "http://127.0.0.1:8411/";
/// How long a run takes if nobody says: alone, and as one of many under faults.
const ALONE: Duration = Duration::from_secs(60);
const UNDER_FAULTS: Duration = Duration::from_secs(10);
/// The load of a quiet run: five clients that ask every 50 ms, 100 operations a second in all.
const CLIENTS: u16 = 5;
const EVERY: Span = Span::millis(50);
const KEYS: u32 = 8;
/// Within how many election timeouts a quiet run must have written.
const PROGRESS_ELECTIONS: u32 = 20;

pub fn run(options: &Sim) -> Done {
    match &options.command {
        Some(SimCommand::Matrix(matrix)) => return crate::matrix::run(matrix),
        Some(SimCommand::Bank(bank)) => return crate::bank::run(bank),
        Some(SimCommand::Costs(costs)) => return crate::costs::run(costs),
        Some(SimCommand::Failover(elections)) => return crate::elections::run(elections),
        None => {}
    }
    known(&options.run.protocol)?;
    match options.seeds {
        Some(count) => campaign(options, count),
        None => one(options),
    }
}

/// The protocols that are named, or all.
pub fn known_or_all(named: &[String]) -> Result<Vec<String>, Failure> {
    named.iter().try_for_each(|protocol| known(protocol))?;
    Ok(match named {
        [] => PROTOCOLS.iter().map(|name| name.to_string()).collect(),
        some => some.to_vec(),
    })
}

/// Refuses a protocol that there is not.
pub fn known(protocol: &str) -> Done {
    if replicated_log(protocol).is_none() {
        let known = PROTOCOLS.join(", ");
        return Err(Failure::Usage(format!("there is no protocol `{protocol}` here: use one of {known}")));
    }
    Ok(())
}

fn span(options: &Run, usual: Duration) -> Span {
    Span(u64::try_from(options.span.unwrap_or(usual).as_nanos()).unwrap_or(u64::MAX))
}

fn swarm_of(options: &Run) -> Swarm {
    Swarm {
        protocol: options.protocol.clone(),
        nodes: nodes(options),
        until: span(options, UNDER_FAULTS),
        only: options.swarm.flatten(),
    }
}

fn nodes(options: &Run) -> u8 {
    u8::try_from(options.nodes).expect("the command line allows no more than the simulator does")
}

/// What the options ask to run.
pub fn script(options: &Run) -> Result<Script, Failure> {
    if let Some(path) = &options.script {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::Usage(format!("cannot read {}: {e}", path.display())))?;
        return text.parse().map_err(|e| Failure::Usage(format!("{}: {e}", path.display())));
    }
    if options.swarm.is_some() {
        return Ok(swarm(options.seed, &swarm_of(options)));
    }
    let quiet = Script {
        protocol: options.protocol.clone(),
        nodes: nodes(options),
        seed: options.seed,
        until: span(options, ALONE),
        clients: Some(Workload { clients: CLIENTS, every: EVERY, keys: KEYS, mix: Mix::default() }),
        progress: Some(Promise { elections: PROGRESS_ELECTIONS }),
        ..Script::default()
    };
    // Through its text, so that the same limits hold as for a script by hand.
    quiet.to_string().parse().map_err(|e| Failure::Usage(format!("{e}")))
}

fn one(options: &Sim) -> Done {
    let script = script(&options.run)?;
    if options.print_script {
        print!("{script}");
        return Ok(());
    }
    let start = Instant::now();
    let outcome = match &options.trace {
        None => simulate(&script, &mut NoTrace)?,
        Some(path) => {
            let mut trace = Trace::new();
            let outcome = simulate(&script, &mut trace)?;
            save(path, |file| {
                writeln!(file, "{}", trace.header(&outcome))?;
                file.write_all(trace.lines().as_bytes())
            })?;
            outcome
        }
    };
    let took = start.elapsed();
    if let Some(path) = &options.history {
        save(path, |file| outcome.history.write(file).map_err(std::io::Error::other))?;
    }
    if options.json {
        println!(
            "{}",
            json!({"outcome": outcome, "seconds": took.as_secs_f64(), "address": address(&outcome)})
        );
    } else {
        println!("{outcome}");
        let speed = outcome.script.until.0 as f64 / 1e9 / took.as_secs_f64();
        let steps = outcome.counts.steps as f64 / took.as_secs_f64();
        println!(
            "  took       {:.2} s: {speed:.0} times as fast as the clock, {steps:.0} steps a second",
            took.as_secs_f64()
        );
        println!("  on the page (`synod lab`)  {}", address(&outcome));
    }
    if outcome.passed() { Ok(()) } else { Err(Failure::No("a promise was broken".into())) }
}

pub fn simulate(script: &Script, sink: &mut dyn Sink) -> Result<Outcome, Failure> {
    synod_sim::run(script, sink).map_err(|e| Failure::Usage(e.to_string()))
}

pub fn save(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Done {
    let saved = File::create(path).and_then(|file| {
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.flush()
    });
    saved.map_err(|e| Failure::Usage(format!("cannot write {}: {e}", path.display())))
}

fn campaign(options: &Sim, count: u64) -> Done {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let campaign = Campaign {
        shard: options.shard,
        threads: options.threads.unwrap_or_else(cores),
        stop_at_first: !options.keep_going,
        ..Campaign::new(swarm_of(&options.run), options.run.seed..options.run.seed.saturating_add(count))
    };
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = "{bar:30} {pos}/{len} seeds, {per_sec}, {msg}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is well formed"));
    let start = Instant::now();
    let report = campaign.run(&|progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        let rate = progress.steps as f64 / start.elapsed().as_secs_f64() / 1e6;
        bar.set_message(format!("{rate:.2} million steps/s, {} failures", progress.failures));
        true
    });
    bar.finish_and_clear();
    let report = report.map_err(|e| Failure::Usage(e.to_string()))?;
    let seconds = start.elapsed().as_secs_f64();
    if options.json {
        println!("{}", json!({"report": report, "seconds": seconds, "threads": campaign.threads}));
    } else {
        print_campaign(&report);
        let (runs, steps) = (report.runs as f64 / seconds, report.counts.steps as f64 / seconds);
        println!(
            "  took       {seconds:.1} s on {} threads: {runs:.1} seeds and {steps:.0} steps a second",
            campaign.threads
        );
        for failure in &report.failures {
            println!("  on the page (`synod lab`)  {}", page_address(&failure.script, &failure.hash));
        }
    }
    match report.failures.len() {
        0 => Ok(()),
        n => Err(Failure::No(format!("{n} of {} seeds broke a promise", report.runs))),
    }
}

fn print_campaign(report: &CampaignReport) {
    let Counts { elections, commits, crashes, faults, operations, steps, .. } = report.counts;
    println!("{} seeds, {:.0} s of virtual time", report.runs, report.virtual_nanos as f64 / 1e9);
    println!(
        "  happened   {faults} faults, {crashes} crashes, {elections} elections, {commits} commits, {operations} operations, {steps} steps"
    );
    println!("  unjudged   {} histories whose judgement was not found within its budget", report.unknown);
    match report.failures.as_slice() {
        [] => println!("  verdict    every promise was kept"),
        failures => failures.iter().for_each(|failure| println!("  {failure}")),
    }
}

pub fn address(outcome: &Outcome) -> String {
    page_address(&outcome.script.to_string(), &outcome.hash_text())
}

/// The address that opens a run on the page; `crates/lab/web/script.js` reads it.
pub fn page_address(script: &str, hash: &str) -> String {
    let mut packed = String::new();
    for byte in script.trim().bytes() {
        match byte {
            b' ' => packed.push('+'),
            b'\n' => packed.push('~'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' | b',' | b'>' => {
                packed.push(byte.into())
            }
            other => packed += &format!("%{other:02X}"),
        }
    }
    format!("{PAGE}#sim&v=1&s={packed}&h={hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_carries_the_script_readably() {
        let address = page_address("seed 7\nloss 5%\nat 1s cut n1 -> n2\n", "00ff");
        assert_eq!(address, "http://127.0.0.1:8411/#sim&v=1&s=seed+7~loss+5%25~at+1s+cut+n1+->+n2&h=00ff");
    }
}
