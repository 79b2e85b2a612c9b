//! `synod txn`: transactions on the command line, and the inspector of those that are under way.

use crate::api::{self, segment};
use crate::cli::{Cluster, TxnCommand, TxnList, TxnName, TxnResolve, TxnRun};
use crate::{Done, Failure, ops};
use http::Method;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;

/// Bytes of a transaction's file at the most; the cluster may allow fewer.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// How much longer an answer is waited for than the cluster may try.
const ANSWER_MARGIN: std::time::Duration = std::time::Duration::from_secs(1);

pub fn run(command: &TxnCommand) -> Done {
    match command {
        TxnCommand::Run(options) => execute(options),
        TxnCommand::List(options) => list(options),
        TxnCommand::Show(options) => show(options),
        TxnCommand::Resolve(options) => resolve(options),
    }
}

fn execute(options: &TxnRun) -> Done {
    let mut request = match &options.file {
        Some(path) => from_file(path)?,
        None => json!({"branches": branches(&options.at).map_err(Failure::Usage)?}),
    };
    if let Some(route) = options.route {
        request["route"] = route.name().into();
    }
    if request["timeout-ms"].is_null() {
        let time = options.cluster.timeout.saturating_sub(ANSWER_MARGIN).max(options.cluster.timeout / 2);
        request["timeout-ms"] = (time.as_millis() as u64).into();
    }
    let answer = api::call(&options.cluster, Method::POST, "/v1/transactions", Some(&request))?;
    match options.cluster.json {
        true => println!("{answer}"),
        false => print!("{}", ended(&request, &answer)),
    }
    match answer["decision"].as_str() {
        Some("commit") => Ok(()),
        // The reason has been printed.
        _ => Err(Failure::No(String::new())),
    }
}

fn from_file(path: &Path) -> Result<Value, Failure> {
    let (shown, mut text) = (path.display(), String::new());
    let opened: Result<Box<dyn Read>, _> = match path.as_os_str() == "-" {
        true => Ok(Box::new(std::io::stdin())),
        false => std::fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let read = opened.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| Failure::Usage(format!("cannot read {shown}: {error}")))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::Usage(format!("{shown} is larger than {FILE_BYTES_MAX} bytes")));
    }
    let form = r#"write it as in {"branches": [{"participant": "bank1", "work": [{"get": {"key": "a"}}]}]}"#;
    let request: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("{shown} is not JSON ({error}): {form}")))?;
    match request["branches"].is_array() {
        true => Ok(request),
        false => Err(Failure::Usage(format!("{shown} has no list of branches: {form}"))),
    }
}

/// Pairs of a participant and what is done there, as branches; what is said of one participant at several places
/// is one branch.
fn branches(said: &[String]) -> Result<Vec<Value>, String> {
    let mut branches: Vec<(String, Vec<Value>)> = Vec::new();
    for pair in said.chunks(2) {
        let [participant, text] = pair else {
            return Err("--at needs a participant and what is done there".into());
        };
        let work = ops::parse(text).map_err(|why| format!("--at {participant}: {why}"))?;
        match branches.iter_mut().find(|(name, _)| name == participant) {
            Some((_, already)) => already.extend(work),
            None => branches.push((participant.clone(), work)),
        }
    }
    let branch = |(participant, work)| json!({"participant": participant, "work": work});
    Ok(branches.into_iter().map(branch).collect())
}

/// How a transaction ended, with what it read.
fn ended(request: &Value, answer: &Value) -> String {
    let mut out = String::new();
    let text = |field: &str| answer[field].as_str().unwrap_or("?");
    let done = match text("decision") {
        "commit" => "committed",
        "abort" => "aborted: nothing was done",
        other => other,
    };
    let _ = writeln!(out, "{}  {done}  ({})", text("transaction"), route(text("route")));
    if let Some(why) = answer["why"].as_str() {
        let _ = writeln!(out, "  because {why}");
    }
    for branch in request["branches"].as_array().into_iter().flatten() {
        let name = branch["participant"].as_str().unwrap_or("?");
        let mut answers = answer["answers"][name].as_array().into_iter().flatten();
        let asked =
            branch["work"].as_array().into_iter().flatten().filter_map(|op| op["get"]["key"].as_str());
        for key in asked {
            let Some(found) = answers.next() else { break };
            let _ = writeln!(out, "  {name:<12} {key} = {}", ops::value(found));
        }
        for more in answers {
            let _ = writeln!(out, "  {name:<12} {}", ops::value(more));
        }
    }
    out
}

fn route(name: &str) -> &str {
    match name {
        "one-entry" => "one log entry: everything is at one place",
        "two-phase" => "two-phase commit",
        other => other,
    }
}

fn list(options: &TxnList) -> Done {
    let path = if options.open { "/v1/transactions?state=open" } else { "/v1/transactions" };
    let answer = api::call(&options.cluster, Method::GET, path, None)?;
    match options.cluster.json {
        true => println!("{answer}"),
        false => print!("{}", table(&answer)),
    }
    Ok(())
}

fn table(answer: &Value) -> String {
    let all = answer["transactions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out = match all {
        [] => "no transaction is under way\n".into(),
        _ => format!(
            "{:<28} {:<12} {:<12} {:>9}  {:<8} participants\n",
            "transaction", "role", "state", "age", "doubt"
        ),
    };
    for one in all {
        let text = |field: &str| one[field].as_str().unwrap_or("?");
        let doubt = match (one["damage"] == true, one["in-doubt"] == true) {
            (true, _) => "DAMAGE",
            (false, true) => "IN DOUBT",
            (false, false) => "",
        };
        let participants: Vec<String> =
            names(one).map(|name| format!("{name}{}", noted(one, name))).collect();
        let _ = writeln!(
            out,
            "{:<28} {:<12} {:<12} {:>9}  {doubt:<8} {}",
            text("id"),
            text("role"),
            text("state"),
            age(one),
            participants.join(", ")
        );
    }
    for one in answer["not-asked"].as_array().into_iter().flatten() {
        let text = |field: &str| one[field].as_str().unwrap_or("?");
        let _ = writeln!(
            out,
            "{} could not be asked what is in doubt there: {}",
            text("participant"),
            text("why")
        );
    }
    out
}

fn names(one: &Value) -> impl Iterator<Item = &str> {
    one["participants"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What is known of a transaction at a participant.
fn branches_at<'a>(one: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    one["branches"].as_array().into_iter().flatten().filter(move |branch| branch["participant"] == name)
}

/// Where a transaction is in doubt.
fn in_doubt_at(one: &Value) -> Vec<&str> {
    names(one).filter(|name| branches_at(one, name).any(|branch| branch["state"] == "prepared")).collect()
}

/// The same in brackets, as far as it is worth a word in a list.
fn noted(one: &Value, name: &str) -> String {
    let is_noted = |branch: &&Value| one["in-doubt"] == true || branch["state"] != "prepared";
    let words: Vec<String> =
        branches_at(one, name).filter(is_noted).map(|branch| standing(one, branch)).collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join("; ")) }
}

/// How a transaction stands at a participant.
fn standing(one: &Value, branch: &Value) -> String {
    let here = match branch["here"].as_str() {
        Some("commit") => "committed",
        Some("abort") => "aborted",
        _ => "lost",
    };
    match branch["state"].as_str() {
        Some("prepared") if one["in-doubt"] == true => format!("in doubt for {}", age(branch)),
        Some("prepared") => format!("prepared for {}", age(branch)),
        Some("by-hand") => format!("{here} by hand, not confirmed"),
        Some("damaged") => {
            format!("DAMAGE: {here}, and {} was decided", branch["decided"].as_str().unwrap_or("?"))
        }
        other => other.unwrap_or("?").to_owned(),
    }
}

/// For how long a transaction, or a branch of it, waits; nothing of what does not.
fn age(one: &Value) -> String {
    match one["age-ms"].as_u64() {
        _ if matches!(one["state"].as_str(), Some("by-hand" | "damaged")) => String::new(),
        Some(ms @ ..10_000) => format!("{ms} ms"),
        Some(ms @ ..600_000) => format!("{:.1} s", ms as f64 / 1e3),
        Some(ms) => format!("{} min", ms / 60_000),
        None => "?".into(),
    }
}

fn fetch(cluster: &Cluster, id: &str) -> Result<Value, Failure> {
    let path = format!("/v1/transactions/{}", segment(id));
    Ok(api::call(cluster, Method::GET, &path, None)?)
}

fn show(options: &TxnName) -> Done {
    let one = fetch(&options.cluster, &options.id)?;
    match options.cluster.json {
        true => println!("{one}"),
        false => print!("{}", drawn(&one)),
    }
    Ok(())
}

/// The transaction as a tree: who coordinates, who takes part, what each holds locked.
fn drawn(one: &Value) -> String {
    let text = |field: &str| one[field].as_str().unwrap_or("?");
    let mut out = match age(one).as_str() {
        "" => format!("{}   {}\n", text("id"), text("state")),
        age => format!("{}   {}, for {age}\n", text("id"), text("state")),
    };
    let at: Vec<&str> =
        one["coordinator-at"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let _ = match (text("role"), at.is_empty()) {
        ("participant", true) => writeln!(out, "  a coordinator elsewhere"),
        ("participant", false) => {
            writeln!(out, "  a coordinator elsewhere, last reached at {}", at.join(", "))
        }
        _ => writeln!(out, "  coordinator: this cluster"),
    };
    let participants: Vec<&str> = names(one).collect();
    for (place, name) in participants.iter().enumerate() {
        let is_last = place + 1 == participants.len();
        let known: Vec<String> = branches_at(one, name).map(|branch| standing(one, branch)).collect();
        let known = if known.is_empty() { String::new() } else { format!("  {}", known.join("; ")) };
        let _ = writeln!(out, "  {}─ {name}{known}", if is_last { '└' } else { '├' });
        let locks = one["locks"].as_array().into_iter().flatten();
        for lock in locks.filter(|lock| lock["participant"] == **name) {
            let key = ops::value(&lock["key"]);
            let _ = writeln!(out, "  {}    locks {key}", if is_last { ' ' } else { '│' });
        }
    }
    let waits: Vec<&str> =
        one["waits-for"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !waits.is_empty() {
        let _ = writeln!(out, "  waits for {}", waits.join(", "));
    }
    if one["damage"] == true {
        out.push_str(
            "  DAMAGE: it has ended otherwise at a participant than its coordinator has decided, and is not atomic any more.\n  \
             Compare the data of its participants, and mend them by hand.\n",
        );
    }
    out.push_str(match (one["in-doubt"] == true, text("state")) {
        (true, _) => {
            "  IN DOUBT: it has promised, and its coordinator has not said how it ends. Its locks stay until then.\n"
        }
        (false, "by-hand") => "  ended by hand: whether its coordinator decides the same is not known yet\n",
        (false, _) => "  not in doubt\n",
    });
    out
}

fn resolve(options: &TxnResolve) -> Done {
    let decision = if options.commit { "commit" } else { "abort" };
    let one = fetch(&options.cluster, &options.id)?;
    if let Some(why) = not_to_be_resolved(&one, &options.participant) {
        return Err(Failure::No(format!("{} {why}; nothing was done", options.id)));
    }
    eprint!("{}", drawn(&one));
    eprintln!(
        "\nWARNING: {0} at {1} would {decision} by your word and not by its coordinator's. If the coordinator decides\n\
         otherwise, or has, one participant has done what another has not, and nothing repairs that by itself.\n\
         Ask the coordinator's side first; if it is only slow, wait.",
        options.id, options.participant
    );
    if !options.yes {
        confirm(&options.id)?;
    }
    let request = json!({"participant": options.participant, "decision": decision,
        "i-know-that-this-can-break-atomicity": true});
    let path = format!("/v1/transactions/{}/resolve", segment(&options.id));
    let answer = api::call(&options.cluster, Method::POST, &path, Some(&request))?;
    match options.cluster.json {
        true => println!("{answer}"),
        false => {
            println!("{} at {}: {decision}, by hand", options.id, options.participant);
            if let Some(warning) = answer["warning"].as_str() {
                println!("  {warning}");
            }
        }
    }
    Ok(())
}

/// Why nobody may end a transaction at this participant.
fn not_to_be_resolved(one: &Value, participant: &str) -> Option<String> {
    let doubtful = in_doubt_at(one);
    match (one["in-doubt"] == true, one["state"].as_str().unwrap_or("over")) {
        (true, _) if doubtful.contains(&participant) => None,
        (true, _) => Some(format!("is in doubt at {}, and not at {participant}", doubtful.join(", "))),
        (false, "by-hand" | "damaged") => Some("was ended by hand already".into()),
        (false, state) => Some(format!("is not in doubt, it is {state}: it ends by itself")),
    }
}

/// Has the person at the terminal write the transaction's name. Errors: there is nobody, or something else is written.
fn confirm(id: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("nobody is there to be asked: say --yes if this is meant".into()));
    }
    eprint!("Write the transaction's name to go on: ");
    let _ = std::io::stderr().flush();
    let mut said = String::new();
    let _ = std::io::stdin().read_line(&mut said);
    match said.trim() == id {
        true => Ok(()),
        false => Err(Failure::No("that is not its name: nothing was done".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[&str]) -> Vec<String> {
        pairs.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn what_is_said_of_one_participant_twice_is_one_branch() {
        let found =
            branches(&said(&["bank1", "get a", "bank2", "add b 1", "bank1", "delete c"])).expect("well");
        assert_eq!(
            Value::from(found),
            json!([
                {"participant": "bank1", "work": [{"get": {"key": "a"}}, {"delete": {"key": "c"}}]},
                {"participant": "bank2", "work": [{"add": {"key": "b", "by": 1}}]},
            ])
        );
        let error = branches(&said(&["bank1", "steal a"])).expect_err("no such verb");
        assert!(error.starts_with("--at bank1: `steal a`"), "{error}");
    }

    #[test]
    fn the_end_shows_what_was_read_beside_its_key() {
        let request = json!({"branches": [{"participant": "bank1", "work":
            [{"get": {"key": "a"}}, {"put": {"key": "c", "value": "1"}}, {"get": {"key": "b"}}]}]});
        let answer = json!({"transaction": "1.2.3", "decision": "commit", "route": "one-entry",
            "answers": {"bank1": ["7", null]}});
        assert_eq!(
            ended(&request, &answer),
            "1.2.3  committed  (one log entry: everything is at one place)\n  bank1        a = 7\n  bank1        b = none\n"
        );
        let aborted =
            json!({"transaction": "1.2.4", "decision": "abort", "route": "two-phase", "why": "a is locked"});
        assert_eq!(
            ended(&json!({}), &aborted),
            "1.2.4  aborted: nothing was done  (two-phase commit)\n  because a is locked\n"
        );
    }

    fn in_doubt() -> Value {
        json!({"id": "n9.2.3", "state": "prepared", "role": "participant", "participants": ["bank1", "ledger"],
            "locks": [{"participant": "bank1", "key": "a"}, {"participant": "ledger", "key": "rows of accounts"}],
            "waits-for": ["n9"], "coordinator-at": ["http://h:1"], "age-ms": 12_345, "in-doubt": true, "damage": false,
            "branches": [{"participant": "bank1", "state": "prepared", "age-ms": 12_345},
                {"participant": "ledger", "state": "prepared", "age-ms": 700}]})
    }

    /// A person has committed it at one of two participants, and its coordinator has aborted it.
    fn damaged() -> Value {
        json!({"id": "n9.2.4", "state": "damaged", "role": "participant", "participants": ["bank1", "ledger"],
            "locks": [], "waits-for": [], "age-ms": 0, "in-doubt": false, "damage": true,
            "branches": [{"participant": "bank1", "state": "damaged", "here": "commit", "decided": "abort"},
                {"participant": "ledger", "state": "by-hand", "here": "abort"}]})
    }

    #[test]
    fn a_transaction_is_drawn_as_a_tree_with_its_locks() {
        assert_eq!(
            drawn(&in_doubt()),
            "n9.2.3   prepared, for 12.3 s\n  a coordinator elsewhere, last reached at http://h:1\n  \
             ├─ bank1  in doubt for 12.3 s\n  │    locks a\n  └─ ledger  in doubt for 700 ms\n       locks \"rows of accounts\"\n  \
             waits for n9\n  IN DOUBT: it has promised, and its coordinator has not said how it ends. Its locks stay until then.\n"
        );
    }

    #[test]
    fn damage_is_drawn_where_it_is() {
        assert_eq!(
            drawn(&damaged()),
            "n9.2.4   damaged\n  a coordinator elsewhere\n  ├─ bank1  DAMAGE: committed, and abort was decided\n  \
             └─ ledger  aborted by hand, not confirmed\n  \
             DAMAGE: it has ended otherwise at a participant than its coordinator has decided, and is not atomic any more.\n  \
             Compare the data of its participants, and mend them by hand.\n  not in doubt\n"
        );
    }

    #[test]
    fn a_list_has_a_line_for_each_and_for_who_could_not_be_asked() {
        let text = table(&json!({"transactions": [in_doubt(), damaged()],
            "not-asked": [{"participant": "ledger", "why": "no answer"}]}));
        assert_eq!(text.lines().count(), 4);
        assert!(
            text.contains("IN DOUBT bank1 (in doubt for 12.3 s), ledger (in doubt for 700 ms)\n"),
            "{text}"
        );
        let damage = "DAMAGE   bank1 (DAMAGE: committed, and abort was decided), ledger (aborted by hand, not confirmed)\n";
        assert!(text.contains(damage), "{text}");
        assert!(text.ends_with("ledger could not be asked what is in doubt there: no answer\n"), "{text}");
        assert_eq!(table(&json!({"transactions": []})), "no transaction is under way\n");
    }

    #[test]
    fn only_what_is_in_doubt_is_resolved_and_only_where_it_is() {
        assert_eq!(not_to_be_resolved(&in_doubt(), "ledger"), None);
        let elsewhere = not_to_be_resolved(&in_doubt(), "bank2").expect("refused");
        assert_eq!(elsewhere, "is in doubt at bank1, ledger, and not at bank2");
        assert!(not_to_be_resolved(&damaged(), "bank1").is_some_and(|why| why.contains("by hand already")));
        let committing = json!({"state": "committing", "in-doubt": false, "participants": ["bank1"],
            "branches": [{"participant": "bank1", "state": "prepared", "age-ms": 1}]});
        assert!(not_to_be_resolved(&committing, "bank1").is_some_and(|why| why.contains("ends by itself")));
    }
}
