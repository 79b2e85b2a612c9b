//! `synod saga`: long transactions as sequences of steps that can be undone.

mod plan;

use crate::api::{self, segment};
use crate::cli::{Cluster, SagaCheck, SagaCommand, SagaName, SagaResume, SagaRun};
use crate::{Done, Failure, ops};
use http::Method;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a saga that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a saga that is waited for may be out of sight.
const UNSEEN_MAX: Duration = Duration::from_secs(30);

pub fn run(command: &SagaCommand) -> Done {
    match command {
        SagaCommand::Run(options) => begin(options),
        SagaCommand::Check(options) => check(options),
        SagaCommand::List(cluster) => list(cluster),
        SagaCommand::Show(options) => show(options),
        SagaCommand::Cancel(options) => cancel(options),
        SagaCommand::Resume(options) => resume(options),
    }
}

/// The saga in a file. Errors: the file, the line, and what is wrong there.
fn read(path: &Path) -> Result<Value, Failure> {
    let shown = path.display();
    let mut text = String::new();
    let opened = std::fs::File::open(path);
    opened
        .and_then(|file| file.take(plan::FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| Failure::Usage(format!("cannot read {shown}: {error}")))?;
    if text.len() as u64 > plan::FILE_BYTES_MAX {
        return Err(Failure::Usage(format!("{shown} is larger than {} bytes", plan::FILE_BYTES_MAX)));
    }
    plan::read(&text).map_err(|problem| Failure::Usage(format!("{shown}:{}: {}", problem.line, problem.text)))
}

fn check(options: &SagaCheck) -> Done {
    let request = read(&options.file)?;
    if options.json {
        println!("{request}");
        return Ok(());
    }
    let steps = request["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    println!("{}: {} can be carried out", options.file.display(), request["name"].as_str().unwrap_or("?"));
    for step in steps {
        let text = |field: &str| step[field].as_str().unwrap_or("?");
        println!("  {:<14} {:<12} {}", text("name"), text("service"), work(&step["action"]));
        match &step["compensation"] {
            Value::Null => println!("  {:<27} nothing undoes it", ""),
            compensation => println!("  {:<27} undone by {}", "", work(compensation)),
        }
        let after: Vec<&str> = texts(&step["after"]).collect();
        let order = match after.is_empty() {
            true => "at once".to_owned(),
            false => format!("after {}", after.join(", ")),
        };
        let pivot = if step["pivot"] == true { ", from which on nothing is undone" } else { "" };
        let person = if step["waits-for-person"] == true { ", when a person agrees" } else { "" };
        println!("  {:<27} {order}{person}{pivot}", "");
    }
    Ok(())
}

fn work(work: &Value) -> String {
    match work["ops"].as_array() {
        Some(all) => all.iter().map(ops::shown).collect::<Vec<_>>().join("; "),
        None => format!("POST {}", work["post"]["path"].as_str().unwrap_or("?")),
    }
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn begin(options: &SagaRun) -> Done {
    let request = read(&options.file)?;
    let cluster = &options.cluster;
    let answer = api::call(cluster, Method::POST, "/v1/sagas", Some(&request))?;
    let id = answer["saga"].as_str().unwrap_or("?");
    if !options.wait {
        match cluster.json {
            true => println!("{answer}"),
            false => println!("{id} has begun: `synod saga show {id}` shows how far it is"),
        }
        return Ok(());
    }
    let saga = wait_for(cluster, id)?;
    match cluster.json {
        true => println!("{saga}"),
        false => print!("{}", drawn(&saga)),
    }
    match saga["state"].as_str() {
        Some("done") => Ok(()),
        Some("paused") => {
            Err(Failure::No(format!("{id} waits for a person: `synod saga resume {id}` goes on")))
        }
        _ => Err(Failure::No(format!("{id} was not done: what it had done was undone"))),
    }
}

/// The saga when it is over, or waits for a person. It goes on without whoever looks at it, so a look that fails, as
/// while a leader is elected, is tried again.
fn wait_for(cluster: &Cluster, id: &str) -> Result<Value, Failure> {
    let mut seen = Instant::now();
    loop {
        match fetch(cluster, id) {
            Ok(saga) if saga["state"] == "running" || saga["state"] == "compensating" => {
                seen = Instant::now();
            }
            Err(Failure::Unreachable(_)) if seen.elapsed() < UNSEEN_MAX => {}
            found => return found,
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn fetch(cluster: &Cluster, id: &str) -> Result<Value, Failure> {
    Ok(api::call(cluster, Method::GET, &format!("/v1/sagas/{}", segment(id)), None)?)
}

fn list(cluster: &Cluster) -> Done {
    let answer = api::call(cluster, Method::GET, "/v1/sagas", None)?;
    if cluster.json {
        println!("{answer}");
        return Ok(());
    }
    let all = answer["sagas"].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        println!("no saga is known: `synod saga run FILE` begins one");
    }
    for saga in all {
        let text = |field: &str| saga[field].as_str().unwrap_or("");
        println!("{:<8} {:<20} {:<13} {}", text("saga"), text("name"), text("state"), text("why"));
    }
    Ok(())
}

fn show(options: &SagaName) -> Done {
    let saga = fetch(&options.cluster, &options.id)?;
    match options.cluster.json {
        true => println!("{saga}"),
        false => print!("{}", drawn(&saga)),
    }
    Ok(())
}

/// A saga step by step.
fn drawn(saga: &Value) -> String {
    let text = |field: &str| saga[field].as_str().unwrap_or("?");
    let mut out = format!("{}  {}  {}", text("saga"), text("name"), text("state"));
    if let Some(why) = saga["why"].as_str() {
        let _ = write!(out, ": {why}");
    }
    out.push('\n');
    for step in saga["steps"].as_array().into_iter().flatten() {
        let text = |field: &str| step[field].as_str().unwrap_or("?");
        let state = text("state");
        let _ = write!(out, "  {} {:<16} {:<12} {state:<13}", mark(state), text("name"), text("service"));
        let after: Vec<&str> = texts(&step["after"]).collect();
        if !after.is_empty() {
            let _ = write!(out, " after {}", after.join(", "));
        }
        if let Some(attempts @ 2..) = step["attempts"].as_u64() {
            let _ = write!(out, "  asked {attempts} times");
        }
        if !step["output"].is_null() {
            let _ = write!(out, "  gave {}", ops::value(&step["output"]));
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

/// One sign for each state, so that a long saga can be taken in at a glance.
fn mark(state: &str) -> char {
    match state {
        "pending" => '·',
        "done" => '●',
        "undone" => '○',
        "refused" => '×',
        "paused" => '‖',
        "undoing" => '◂',
        _ => '▸',
    }
}

fn cancel(options: &SagaName) -> Done {
    let path = format!("/v1/sagas/{}/cancel", segment(&options.id));
    let answer = api::call(&options.cluster, Method::POST, &path, Some(&json!({})))?;
    match options.cluster.json {
        true => println!("{answer}"),
        false => println!("{0} is being undone: `synod saga show {0}` shows how far it is", options.id),
    }
    Ok(())
}

fn resume(options: &SagaResume) -> Done {
    let step = match &options.step {
        Some(step) => step.clone(),
        None => waiting(&fetch(&options.cluster, &options.id)?).map_err(Failure::No)?,
    };
    let path = format!("/v1/sagas/{}/steps/{}/resume", segment(&options.id), segment(&step));
    let answer = api::call(&options.cluster, Method::POST, &path, Some(&json!({})))?;
    match options.cluster.json {
        true => println!("{answer}"),
        false => println!("{} goes on with {step}", options.id),
    }
    Ok(())
}

/// The one step that waits for a person. Errors: none does, or several do.
fn waiting(saga: &Value) -> Result<String, String> {
    let steps = saga["steps"].as_array().into_iter().flatten().filter(|step| step["state"] == "paused");
    let names: Vec<&str> = steps.filter_map(|step| step["name"].as_str()).collect();
    let id = saga["saga"].as_str().unwrap_or("it");
    match names[..] {
        [one] => Ok(one.to_owned()),
        [] => Err(format!("no step of {id} waits for a person, so there is nothing to resume")),
        _ => Err(format!("several steps of {id} wait: say which with --step: {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saga() -> Value {
        json!({"saga": "s1", "name": "transfer", "state": "paused", "why": "ship waits for a person", "steps": [
            {"name": "take", "service": "bank1", "state": "done", "output": "900", "attempts": 3},
            {"name": "ship", "service": "shop", "state": "paused", "after": ["take"]},
        ]})
    }

    #[test]
    fn a_saga_is_drawn_step_by_step() {
        assert_eq!(
            drawn(&saga()),
            "s1  transfer  paused: ship waits for a person\n\
             \x20 ● take             bank1        done           asked 3 times  gave 900\n\
             \x20 ‖ ship             shop         paused        after take\n"
        );
    }

    #[test]
    fn the_step_that_waits_need_not_be_named_if_there_is_one() {
        assert_eq!(waiting(&saga()).as_deref(), Ok("ship"));
        let mut both = saga();
        both["steps"][0]["state"] = "paused".into();
        assert!(waiting(&both).expect_err("two").contains("take, ship"));
        both["steps"] = json!([]);
        assert!(waiting(&both).is_err());
    }
}
