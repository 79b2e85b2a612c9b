//! Four levels in the simulator: campaigns under every fault, judged by the checker, and what separates the levels.

use std::path::Path;
use std::time::Duration;
use synod_check::history::History;
use synod_check::judge::{Object, judge};
use synod_check::linearizable::Limits;
use synod_sim::weak::{
    CapScenario, Cell, Fault, Hazard, Level, Matrix, Scenario, Slice, Tally, cap, cap_film, judged, run,
    separate, watch,
};

/// The matrix of some levels and all faults; `SYNOD_SEEDS=200 cargo test -p synod-sim --test weak` runs more of each.
/// Every promise must be kept, every fault strike, and in each cell as many requests be answered in a run.
fn all_kept(levels: &[Level], seeds: u64, answered_min: u64) {
    let seeds = std::env::var("SYNOD_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(seeds);
    let borne: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| fault.is_borne()).collect();
    let matrix = Matrix { levels: levels.to_vec(), faults: borne.clone(), seeds, threads: 1 };
    let pairs = borne.into_iter().flat_map(|fault| levels.iter().map(move |level| (*level, fault)));
    for (cell, (own, under)) in matrix.run(&|_, _| {}).iter().zip(pairs) {
        let Cell { level, fault, runs, faults, answered, broken, example, .. } = cell;
        let seed = example.as_ref().map_or(0, |(seed, _)| *seed);
        let again = format!("replay: {}", Matrix::scenario(own, under, seed).command());
        assert_eq!(*broken, 0, "{level} under {fault}: {example:?}\n{again}");
        let is_served = fault != "members-change" || !own.is_strong();
        assert_eq!(*runs, if is_served { seeds } else { 0 }, "{level} under {fault}");
        assert_eq!(
            *faults > 0,
            is_served && fault != "none",
            "{level} under {fault}: {faults} faults\n{again}"
        );
        // Whose disk is found damaged is replaced: one that goes, and one that comes.
        let is_replaced = !own.is_strong() && matches!(fault.as_str(), "rot" | "lost-disk");
        assert!(!is_replaced || *faults > 2 * runs, "{level} under {fault}: nobody was replaced");
        assert!(*answered >= runs * answered_min, "{level} under {fault}: {answered} answered\n{again}");
    }
}

#[test]
fn a_scenario_is_a_pure_function_of_its_seed() {
    for level in Level::ALL {
        let scenario = Scenario::new(level, 3, 7, Fault::All);
        let (one, other) = (run(&scenario), run(&scenario));
        assert_eq!((one.history, one.messages), (other.history, other.messages));
    }
}

/// Registers, siblings, counters and sets, two seeds of each.
#[test]
fn causal_members_keep_every_promise_under_every_fault() {
    all_kept(&[Level::Causal], 8, 25);
}

#[test]
fn eventual_members_keep_every_promise_under_every_fault() {
    all_kept(&[Level::Eventual], 8, 25);
}

/// A table in which all is well would say nothing of a simulator that is blind.
#[test]
fn a_disk_that_lies_is_seen_to_break_promises() {
    let faults = vec![Fault::Of(Hazard::Lie)];
    let matrix = Matrix { levels: vec![Level::Eventual], faults, seeds: 24, threads: 1 };
    let cells = matrix.run(&|_, _| {});
    assert!(cells[0].broken > 0 && cells[0].as_expected, "{}", matrix.markdown(&cells));
}

#[test]
fn the_strong_levels_keep_every_promise_under_every_fault() {
    all_kept(&[Level::Linearizable, Level::Sequential], 4, 10);
}

/// What is watched is the same run, and the trace tells all of it.
#[test]
fn a_run_can_be_looked_at() {
    let scenario = Scenario::new(Level::Causal, 3, 7, Fault::All);
    let (blind, seen) = (run(&scenario), watch(&scenario));
    assert_eq!(blind.history, seen.history);
    assert!(blind.story.text().is_empty());
    let (header, trace) = seen.story.json(&seen);
    assert_eq!((&header["synod-trace"], &header["events"]), (&1.into(), &trace.len().into()));
    let lines: Vec<serde_json::Value> =
        trace.lines().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let count = |key: &str, value: &str| lines.iter().filter(|line| line[key] == value).count() as u64;
    let copies = lines.iter().filter(|line| line.get("copy_of").is_some()).count() as u64;
    assert_eq!(count("k", "send") - copies, seen.messages);
    assert_eq!(count("phase", "ok"), seen.answered);
    assert_eq!(count("phase", "invoke"), seen.answered + seen.refused + seen.unanswered);
    assert!(count("what", "crash") > 0 && count("what", "cut") > 0 && count("k", "record") > 0);
    assert!(lines.windows(2).all(|pair| pair[0]["t"].as_u64() <= pair[1]["t"].as_u64()));
    assert_eq!(seen.story.text().lines().count(), lines.len());
}

/// A found history is kept as an example. `SYNOD_BLESS=1` writes those that there are not yet.
#[test]
fn each_level_has_a_history_that_the_next_stronger_one_has_not() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/histories");
    for level in [Level::Sequential, Level::Causal, Level::Eventual] {
        let found = separate(level, 0..300).expect("such a history");
        let stronger = found.stronger;
        let left = found.history.operations.len();
        println!(
            "{level} and not {stronger}: after {} seeds, {left} of {} operations",
            found.tried, found.operations
        );
        assert!((2..=10).contains(&left), "{level}: {left} operations are not few");
        assert_eq!(between(&found.history, level, stronger), (true, false));
        let path = folder.join(format!("{level}-and-not-{stronger}.jsonl"));
        if std::env::var_os("SYNOD_BLESS").is_some() {
            let mut history = found.history.clone();
            history.header.about =
                Some(format!("{level} and not {stronger}: made small from a simulated run"));
            std::fs::create_dir_all(&folder).expect("a folder");
            history.write(std::fs::File::create(&path).expect("a file")).expect("written");
        }
        let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let kept = History::read(std::io::BufReader::new(file), Default::default()).expect("a history");
        assert_eq!(between(&kept, level, stronger), (true, false), "{}", path.display());
    }
}

/// Whether a history has a level, and whether it has the stronger one.
fn between(history: &History, level: Level, stronger: Level) -> (bool, bool) {
    let is = |level: Level| {
        let limits = Limits { threads_max: 1, ..Limits::default() };
        let judgement = judge(history, Some(Object::Kv), Some(judged(level)), &limits, &mut || false);
        let answer = &judgement.expect("a history").findings[0].answer;
        assert!(answer.is_yes() || answer.is_no(), "{level} was not decided");
        answer.is_yes()
    };
    (is(level), is(stronger))
}

#[test]
fn a_partition_stops_what_must_be_agreed_on_and_nothing_else() {
    let what = CapScenario::default();
    let [linearizable, sequential, causal, eventual] = Level::ALL.map(|level| cap(level, &what));
    for all in [&linearizable, &sequential, &causal, &eventual] {
        println!("{all:?}");
        assert!(all.violations.is_empty(), "{:?}", all.violations);
        assert!(all.convergence_ms.is_some() && all.calm.refused == 0 && all.calm.asked > 100, "{all:?}");
        assert!(all.majority.asked > 50 && all.minority.asked > 5, "{all:?}");
    }
    // A member alone cannot write, and cannot know whether what it has is the latest.
    assert_eq!(linearizable.minority.refused, linearizable.minority.asked);
    assert_eq!((linearizable.calm.stale, linearizable.majority.stale), (0, 0));
    // Its past it can tell.
    assert!(sequential.minority.reads > 0 && sequential.minority.refused > 0);
    assert!(sequential.minority.stale > 0);
    // The weaker levels refuse nobody, and both sides read what the other has replaced.
    for weak in [&causal, &eventual] {
        assert_eq!((weak.minority.refused, weak.majority.refused), (0, 0), "{weak:?}");
        assert!(weak.minority.stale > 0 && weak.majority.stale > 0, "{weak:?}");
    }
}

/// A read that is passed on takes up to twelve delays: timeouts that do not know of the delay would give it up.
#[test]
fn slow_messages_alone_refuse_nothing() {
    for millis in [1, 20, 40, 60] {
        let what = CapScenario { delay: Duration::from_millis(millis), ..CapScenario::default() };
        for level in [Level::Linearizable, Level::Sequential] {
            let cap = cap(level, &what);
            assert_eq!(
                (cap.calm.refused, cap.majority.stale * u64::from(level == Level::Linearizable)),
                (0, 0),
                "{cap:?}"
            );
            assert!(cap.calm.asked > 60 && cap.violations.is_empty(), "{cap:?}");
        }
    }
}

#[test]
fn the_slices_of_a_film_add_up_to_its_sums_and_the_past_grows_while_the_cut_lasts() {
    let what = CapScenario::default();
    let slice = Duration::from_millis(250);
    let film = cap_film(Level::Sequential, &what, slice);
    assert_eq!((film.slices.len(), film.split_ms, film.end_ms), (40, 5_000.0, 10_000.0));
    let sum = |side: fn(&Slice) -> Tally, from: usize| {
        film.slices[from..].iter().map(side).fold((0, 0, 0), |(asked, refused, stale), one| {
            let (puts, gets) = (one.puts, one.gets);
            assert!(one.puts_refused <= puts && one.gets_refused + one.gets_stale <= gets, "{one:?}");
            (asked + puts + gets, refused + one.puts_refused + one.gets_refused, stale + one.gets_stale)
        })
    };
    // The cut begins with the twenty-first slice.
    let (alone, others) = (sum(|slice| slice.alone, 20), sum(|slice| slice.others, 20));
    let (minority, majority) = (film.cap.minority, film.cap.majority);
    assert_eq!(alone, (minority.asked, minority.refused, minority.stale));
    assert_eq!(others, (majority.asked, majority.refused, majority.stale));
    // Alone, what is read was replaced ever longer ago.
    let (early, late) = (film.slices[24].alone.behind_ms, film.slices[39].alone.behind_ms);
    assert!(early > 500.0 && late > early + 3_000.0 && late <= 5_000.0, "{early} {late}");
}
