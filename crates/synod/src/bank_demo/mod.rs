//! `synod demo bank`: two banks on three real processes, money that moves between them all the time, members that
//! are killed in the middle of it, and the total at every moment.
//!
//! What must hold at the end: every read of all accounts found all of the money, nothing is left locked, and
//! the history that the clients recorded is linearizable by the checker's judgement. By sagas only the end is
//! promised: until then readers may find money missing, and the demo shows for how long.

mod banks;
mod people;
mod tally;

use crate::cli::{DemoBank, Kill};
use crate::probe::log::Log;
use crate::supervisor::{Ports, Supervisor};
use crate::{Done, Failure, asked_to_stop, block_on};
pub use banks::insist;
use banks::{BANKS, Banks};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use people::Scene;
pub use people::act;
use people::open;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::IsTerminal;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};
use synod_check::answer::Answer;
use synod_check::history::History;
use synod_check::judge::{Consistency, judge};
use synod_check::linearizable::Limits;
use synod_lab::LiveVerb;
use synod_protocols::rng::Rng;
use tally::{Tally, thousands};
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};

/// How long the beginning may take, and the end: until nothing is open any more and all accounts could be read.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(30);
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// Between attempts at the end.
const AGAIN: Duration = Duration::from_millis(50);
/// How long the checker may think.
const JUDGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the bar is drawn, and a line is printed where there is no terminal.
const DRAW_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);

pub fn run(options: &DemoBank) -> Done {
    block_on(async { LocalSet::new().run_until(play(options)).await })
}

/// How it stood when everybody had left.
struct End {
    /// Transactions that were still open, and sagas.
    open: Vec<Value>,
    /// The sum of all accounts, or why it could not be read.
    total: Result<i64, String>,
}

async fn play(options: &DemoBank) -> Done {
    let seed = options.seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
    });
    let temporary = std::env::temp_dir().join(format!("synod-bank-{}", std::process::id()));
    let folder = options.data_dir.clone().unwrap_or_else(|| temporary.clone());
    let started = Supervisor::start(&folder, &options.protocol, 3, Ports::Any).await;
    let outcome = match &started {
        Ok(supervisor) => scene(options, seed, supervisor).await,
        Err(why) => Err(Failure::Storage(why.clone())),
    };
    if let Ok(supervisor) = started {
        supervisor.stop().await;
    }
    if options.data_dir.is_none() {
        let _ = std::fs::remove_dir_all(&temporary);
    }
    let (scene, end, span) = outcome?;
    let history = scene.log.borrow().history().map_err(Failure::No)?;
    tell(options, seed, &scene.tally.borrow(), &end, &history, span)
}

/// From the first account to the last count of the money.
async fn scene(
    options: &DemoBank,
    seed: u64,
    supervisor: &Supervisor,
) -> Result<(Scene, End, Duration), Failure> {
    let banks = Banks::new(options.accounts);
    let mut header = banks.header();
    header.source = Some("synod demo bank".into());
    header.about = Some(format!("{}, {:?}, seed {seed}", options.protocol, options.span));
    let (tell_stop, stop) = watch::channel(false);
    let scene = Scene {
        endpoints: supervisor.endpoints(),
        tally: Rc::new(RefCell::new(Tally::new(banks.total()))),
        banks,
        log: Rc::new(RefCell::new(Log::new(header, options.out.as_deref()).map_err(Failure::Usage)?)),
        started: Instant::now(),
        stop,
    };
    let mut session = scene.session(0);
    scene.banks.open(&mut session, BEGIN_TIMEOUT).await?;
    let scene = Scene { started: Instant::now(), ..scene };
    if !options.json {
        println!(
            "{} at {} and {}, {} each, on three {} processes (seed {seed})",
            thousands(scene.banks.total()),
            BANKS[0],
            BANKS[1],
            thousands(scene.banks.total() / BANKS.len() as i64),
            options.protocol
        );
    }
    let crowd = crowd(options, seed, &scene, supervisor);
    tokio::select! {
        () = progress(options, &scene) => {}
        () = asked_to_stop() => {}
    }
    let span = scene.started.elapsed();
    tell_stop.send_replace(true);
    for person in crowd {
        person.await.map_err(|error| Failure::No(format!("the demo itself failed: {error}")))?;
    }
    for name in supervisor.names() {
        // Those that run say so, which is no error.
        let _ = act(supervisor, LiveVerb::Start, &name);
    }
    let end = end(options, &scene, &mut session).await;
    Ok((scene, end, span))
}

/// Everybody begins.
fn crowd(options: &DemoBank, seed: u64, scene: &Scene, supervisor: &Supervisor) -> Vec<JoinHandle<()>> {
    let mut seeds = Rng::new(seed);
    let pause = Duration::from_secs_f64(f64::from(options.clients) / f64::from(options.transfers_per_second));
    let killer = Rng::new(seeds.next());
    let mut crowd = vec![
        tokio::task::spawn_local(people::count(scene.clone())),
        tokio::task::spawn_local(people::look(scene.clone())),
    ];
    if options.kill != Kill::Nobody {
        let kill = people::kill(scene.clone(), supervisor.clone(), killer, options.kill, options.kill_every);
        crowd.push(tokio::task::spawn_local(kill));
    }
    crowd.extend((0..usize::from(options.clients)).map(|number| {
        let rng = Rng::new(seeds.next());
        tokio::task::spawn_local(people::pay(scene.clone(), number, rng, pause, options.saga))
    }));
    crowd
}

/// Shows how it goes until the time is up: a bar on a terminal, else a line now and then.
async fn progress(options: &DemoBank, scene: &Scene) {
    let is_drawn = !options.json && std::io::stderr().is_terminal();
    let target = if is_drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(options.span.as_millis() as u64), target);
    let style = ProgressStyle::with_template("{bar:20} {msg}").expect("the template is well formed");
    bar.set_style(style);
    let mut line = LINE_EVERY;
    loop {
        let now = scene.started.elapsed();
        if now >= options.span {
            break;
        }
        let text = scene.tally.borrow().line(now);
        if is_drawn {
            bar.set_position(now.as_millis() as u64);
            bar.set_message(text);
        } else if !options.json && now >= line {
            println!("{:>5.0} s  {text}", now.as_secs_f64());
            line += LINE_EVERY;
        }
        tokio::time::sleep(DRAW_EVERY.min(options.span - now)).await;
    }
    bar.finish_and_clear();
}

/// Counts the money for the last time, and waits until nothing is open any more. In this order: a count that succeeds
/// has met every account, so that whatever was under way there is over or known to the leader.
async fn end(options: &DemoBank, scene: &Scene, session: &mut crate::api::Session) -> End {
    let until = Instant::now() + END_TIMEOUT;
    if options.saga {
        // While sagas are under way, money may be missing.
        nothing_open(options, session, until).await;
    }
    let total = loop {
        match people::count_once(scene, session).await {
            Ok(sum) => break Ok(sum),
            Err(why) if Instant::now() >= until => break Err(why),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    };
    End { open: nothing_open(options, session, until).await, total }
}

/// Waits until nothing is open, or the time is up: what is open then.
async fn nothing_open(options: &DemoBank, session: &mut crate::api::Session, until: Instant) -> Vec<Value> {
    loop {
        let open = match still_open(options, session).await {
            Ok(open) if open.is_empty() => return open,
            Ok(open) => open,
            Err(error) => vec![json!({"unreachable": error.to_string()})],
        };
        if Instant::now() >= until {
            return open;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Transactions and sagas that are not over.
async fn still_open(
    options: &DemoBank,
    session: &mut crate::api::Session,
) -> Result<Vec<Value>, crate::api::CallError> {
    let mut all = open(session).await?;
    if options.saga {
        let sagas = insist(Instant::now(), async || session.read("/v1/sagas").await).await?;
        let sagas = sagas["sagas"].as_array().into_iter().flatten();
        all.extend(sagas.filter(|saga| saga["state"] != "done" && saga["state"] != "compensated").cloned());
    }
    Ok(all)
}

/// Whether the history has this model: yes, no with the reason, or not decided.
fn verdict(history: &History, model: Consistency) -> (Option<bool>, String) {
    let deadline = Instant::now() + JUDGE_TIMEOUT;
    let judged = judge(history, None, Some(model), &Limits::default(), &mut || Instant::now() >= deadline);
    match judged.map(|judgement| judgement.findings.into_iter().next()) {
        Ok(Some(finding)) => match finding.answer {
            Answer::Yes(_) => (Some(true), String::new()),
            Answer::No(reason) => (Some(false), format!("{}\n{}", reason.words, finding.explanation)),
            Answer::Unknown(why) => (None, why),
        },
        Ok(None) => (None, "the checker found nothing to judge".into()),
        Err(error) => (None, error.to_string()),
    }
}

/// What was seen, and whether all promises were kept.
fn tell(options: &DemoBank, seed: u64, tally: &Tally, end: &End, history: &History, span: Duration) -> Done {
    let model = Consistency::Linearizable;
    let (holds, why) = verdict(history, model);
    let wrong = complaints(options, tally, end, holds, &why);
    if options.json {
        let mut said = tally.json(span);
        said["protocol"] = options.protocol.as_str().into();
        said["by"] = if options.saga { "saga" } else { "transaction" }.into();
        said["seed"] = seed.into();
        said["left-open"] = end.open.clone().into();
        said["total"] = end.total.clone().ok().into();
        said[model.name()] = holds.into();
        said["wrong"] = wrong.clone().into();
        println!("{said}");
    } else {
        print_end(options, tally, end, holds, span);
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Failure::No(wrong.join("\n       "))),
    }
}

/// The promises that were broken. A saga promises nothing of what is seen before its end.
fn complaints(options: &DemoBank, tally: &Tally, end: &End, holds: Option<bool>, why: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let money = &tally.money;
    match &end.total {
        Ok(sum) if *sum != money.expected => wrong.push(format!(
            "the total is {} at the end, and was {}",
            thousands(*sum),
            thousands(money.expected)
        )),
        Ok(_) => {}
        Err(why) => wrong.push(format!("the accounts could not be read at the end: {why}")),
    }
    if !end.open.is_empty() {
        let first = &end.open[0];
        wrong.push(format!("{} transactions were never over; the first: {first}", end.open.len()));
    }
    if tally.committed == 0 {
        wrong.push("no transfer took place".into());
    }
    if !options.saga {
        if money.wrong > 0 {
            wrong.push(format!("{} of {} reads did not find all of the money", money.wrong, money.reads));
        }
        match holds {
            Some(true) => {}
            Some(false) => wrong.push(format!("what the clients saw is not linearizable: {why}")),
            None => {
                wrong.push(format!("it was not decided whether what the clients saw is linearizable: {why}"))
            }
        }
    }
    wrong
}

fn print_end(options: &DemoBank, tally: &Tally, end: &End, holds: Option<bool>, span: Duration) {
    let ms = |percent| tally.percentile_ms(percent).map_or("-".into(), |ms| format!("{ms:.1} ms"));
    let money = &tally.money;
    println!(
        "transfers  {} committed in {:.0} s ({:.0}/s), p50 {}, p99 {}",
        tally.committed,
        span.as_secs_f64(),
        tally.committed as f64 / span.as_secs_f64().max(0.001),
        ms(50),
        ms(99)
    );
    println!(
        "           {} aborted as another was in the way, {} refused, {} not served in time, {} unknown",
        tally.in_the_way, tally.refused, tally.unserved, tally.unknown
    );
    println!("kills      {}, of which {} of the coordinator", tally.kills, tally.coordinators_killed);
    println!("in doubt   {} at one time at the most", tally.in_doubt_max);
    let all = match money.wrong {
        0 => format!("in every one of {} reads", money.reads),
        wrong => format!("but not in {wrong} of {} reads", money.reads),
    };
    println!(
        "total      {} {all}; at the end {}",
        thousands(money.expected),
        end.total.as_ref().map_or("unreadable".into(), |sum| thousands(*sum))
    );
    if options.saga {
        println!(
            "window     readers found from {} to {}; another sum than there is for {:.1} s in all, {:.0} ms at a stretch",
            thousands(money.least),
            thousands(money.most),
            money.wrong_time.as_secs_f64(),
            money.wrong_longest.as_secs_f64() * 1e3
        );
    }
    println!("left open  {}", end.open.len());
    println!(
        "checker    what the clients saw is {}linearizable{}",
        match holds {
            Some(true) => "",
            Some(false) => "not ",
            None => "not known to be ",
        },
        if options.saga { ", which sagas do not promise" } else { "" }
    );
    if let Some(path) = &options.out {
        let path: &Path = path;
        println!("history    {}", path.display());
    }
}
