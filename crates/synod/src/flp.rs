//! `synod flp`: why no protocol can promise a decision, shown on Paxos, and what brings it back.

use crate::Done;
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;
use synod_protocols::ben_or::BenOr;
use synod_protocols::paxos::Paxos;
use synod_sim::flp::{
    Bivalence, Configuration, MEMBERS, PATIENCE_MS, Run, Turn, Valence, keep_bivalent, with_timeouts,
};

pub const EXAMPLE: &str = "\
Examples:
  synod flp                           the whole story, in under a minute
  synod flp --steps 100000 --show 20  a longer run, and more of its turns
  synod flp --json                    everything, for machines

An adversary decides which message arrives next. It delivers every message and lets every process go on, and still
Paxos never decides. Against Ben-Or's coins it wins only for a while, and a bound on delays ends its game.";

/// Configurations that an exhaustive proof may visit.
const CONFIGURATIONS_MAX: usize = 5_000_000;
/// Steps after which a run against coins is given up.
const COIN_STEPS_MAX: u64 = 100_000;

/// Options of `synod flp`.
#[derive(Args, Debug)]
pub struct Flp {
    /// Steps for which the adversary keeps Paxos from deciding
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub steps: u64,
    /// Runs of the randomised protocol, and of Paxos with a bound on delays
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub seeds: u64,
    /// How often proposers may retry in the finite instance whose every schedule is tried
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=2))]
    pub wakes: u32,
    /// Turns of the adversary to show
    #[arg(long, default_value_t = 6)]
    pub show: usize,
    /// Everything as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// How long messages take where they take the same time.
const DELAYS_MS: [u64; 5] = [1, PATIENCE_MS / 10, PATIENCE_MS / 2, PATIENCE_MS, 10 * PATIENCE_MS];
/// Rounds that have a line of their own.
const ROUNDS_SHOWN_MAX: u64 = 20;

/// One proposer for each value, and one process without a wish.
const TWO: [Option<bool>; MEMBERS] = [Some(false), Some(true), None];

/// Everything that is shown.
struct Findings {
    /// What can be decided where both proposers want 0, and where both want 1.
    same: [Valence; 2],
    /// Two schedules from a beginning with both values.
    open: Bivalence,
    paxos: Run<Paxos>,
    coins: Vec<Run<BenOr>>,
    /// When Paxos decided where every message takes so many milliseconds, in ascending order.
    bounded: Vec<(u64, Vec<Duration>)>,
}

pub fn run(options: &Flp) -> Done {
    let found = find(options);
    if options.json {
        println!("{}", report(options, &found));
    } else {
        tell(options, &found);
    }
    Ok(())
}

fn find(options: &Flp) -> Findings {
    let same = [false, true].map(|value| {
        let first = Configuration::<Paxos>::new([Some(value), Some(value), None], 1);
        first.valence(options.wakes, CONFIGURATIONS_MAX)
    });
    let first = Configuration::<Paxos>::new(TWO, 1);
    let open = first.bivalence().expect("a beginning with both values is bivalent");
    let coins =
        |seed| keep_bivalent(Configuration::new([Some(false), Some(true), Some(true)], seed), COIN_STEPS_MAX);
    let decisions = |delay_ms| {
        let delay = Duration::from_millis(delay_ms);
        let until = (delay + Duration::from_millis(PATIENCE_MS)) * 10_000;
        let runs = (0..options.seeds).filter_map(|seed| with_timeouts::<Paxos>(TWO, seed, delay, until));
        let mut decided: Vec<_> = runs.collect();
        decided.sort_unstable();
        (delay_ms, decided)
    };
    Findings {
        same,
        open,
        paxos: keep_bivalent(first, options.steps),
        coins: (0..options.seeds).map(coins).collect(),
        bounded: DELAYS_MS.map(decisions).to_vec(),
    }
}

fn tell(options: &Flp, found: &Findings) {
    println!(
        "Three processes without clocks. n1 wants 0, n2 wants 1, n3 helps. A slow one looks like a dead one."
    );
    println!("\n1. What can still be decided");
    for (valence, value) in found.same.iter().zip([0, 1]) {
        println!("   both want {value}        {valence}, retries: {}", options.wakes);
    }
    let [zero, one] = &found.open;
    println!("   n1 wants 0, n2 1   bivalent: {} steps can decide 0, {} others 1", zero.len(), one.len());
    tell_of_paxos(options, &found.paxos);
    tell_of_coins(&found.coins);
    println!(
        "\n4. Every message takes the same time; proposers lose patience after {PATIENCE_MS} ms at first"
    );
    for (delay_ms, decided) in &found.bounded {
        let at = |i: usize| decided.get(i).map_or(0, Duration::as_millis);
        println!(
            "   {delay_ms:>5} ms a message   {} of {} runs decided, median {} ms, latest {} ms",
            decided.len(),
            options.seeds,
            at(decided.len() / 2),
            at(decided.len().saturating_sub(1))
        );
    }
    println!("   Patience doubles with every attempt: any bound will do, known or not. Without one, see 2.");
}

fn tell_of_paxos(options: &Flp, run: &Run<Paxos>) {
    println!("\n2. The adversary against Paxos");
    match (run.last.decided(), &run.bivalence) {
        (Some(decided), _) => println!("   {} is decided after {} steps", u8::from(decided), run.steps),
        (None, None) => println!("   {} steps, no decision; how to reach both was not found", run.steps),
        (None, Some([zero, one])) => {
            println!("   {} steps and {} ballots, no decision", run.steps, run.rounds);
            println!("   still open: {} more steps could decide 0, {} others 1", zero.len(), one.len());
        }
    }
    let [n1, n2, n3] = run.served;
    println!(
        "   nobody starves: {n1}, {n2} and {n3} turns; no message waited longer than {} steps",
        run.waited_max
    );
    for turn in run.turns.iter().filter(|turn| !turn.before.is_empty()).take(options.show) {
        println!("     Due is {}. It would settle the outcome, so first", turn.due);
        turn.before.iter().for_each(|step| println!("       {step}"));
    }
}

fn tell_of_coins(runs: &[Run<BenOr>]) {
    println!("\n3. The same adversary against Ben-Or's coins, {} runs", runs.len());
    let mut rounds: Vec<u64> = runs.iter().map(|run| run.rounds).collect();
    rounds.sort_unstable();
    for round in 1..=rounds[rounds.len() - 1].min(ROUNDS_SHOWN_MAX) {
        let count = rounds.iter().filter(|r| **r == round).count();
        println!("   decided in round {round:>2}  {count:>6}  {}", "▇".repeat(count * 50 / rounds.len()));
    }
    let open = runs.iter().filter(|run| run.last.decided().is_none()).count();
    println!("   median {}, most {}, undecided {open}", rounds[rounds.len() / 2], rounds[rounds.len() - 1]);
}

fn report(options: &Flp, found: &Findings) -> Value {
    let run = &found.paxos;
    let turn =
        |turn: &Turn| json!({"member": turn.member.to_string(), "due": turn.due, "before": turn.before});
    let millis = |times: &[Duration]| -> Vec<f64> { times.iter().map(|t| t.as_secs_f64() * 1e3).collect() };
    json!({
        "beginnings": {
            "both_want_0": found.same[0].to_string(),
            "both_want_1": found.same[1].to_string(),
            "retries": options.wakes,
            "steps_to_0": found.open[0].len(),
            "steps_to_1": found.open[1].len(),
        },
        "paxos": {
            "steps": run.steps,
            "ballots": run.rounds,
            "decided": run.last.decided().map(u8::from),
            "open": run.bivalence.is_some(),
            "served": run.served,
            "waited_steps_max": run.waited_max,
            "turns": run.turns.iter().take(options.show).map(turn).collect::<Vec<_>>(),
        },
        "ben_or": {
            "rounds": found.coins.iter().map(|run| run.rounds).collect::<Vec<_>>(),
            "undecided": found.coins.iter().filter(|run| run.last.decided().is_none()).count(),
        },
        "bounded": found.bounded.iter().map(|(delay_ms, times)| {
            json!({"delay_ms": delay_ms, "decided_ms": millis(times)})
        }).collect::<Vec<_>>(),
    })
}
