//! What clients of a live cluster's keyspaces ask and hear, as its members tell it (`op` events), kept as a history for the
//! checker: one for each keyspace, of its registers.
//!
//! A verdict of "no" must be the cluster's fault and never this recorder's, so whatever was not seen is taken for possible:
//!
//! - A value that is read and that nobody was seen to write was written at some time by somebody (`not seen`), and perhaps
//!   deleted.
//! - A session is what follows from its tokens: a token that is shown twice begins another session, and who shows none is a
//!   stranger. So is a request that asks for the eventual level, which promises a session nothing.
//! - Whether reads agree in the end is not asked, since there is no end.
//! - Where members tell of a hole, all begins anew; a keyspace that transactions change is not judged at all.

use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use synod_check::history::{Call, Header, History, Nanos, Outcome, Recorder, Reply};

/// Operations that are kept of a keyspace; the oldest go first.
pub const OPERATIONS_KEPT_MAX: usize = 600;
/// Keyspaces of which operations are kept; the oldest go first.
const KEYSPACES_MAX: usize = 64;
/// Tokens of which it is known whose they are.
const TOKENS_MAX: usize = 4 * OPERATIONS_KEPT_MAX;
/// Levels, the strongest first.
const LEVELS: [&str; 4] = ["linearizable", "sequential", "causal", "eventual"];
/// Who writes what nobody was seen to write.
const NOT_SEEN: &str = "not seen";
/// Who may write at any time, so that no read is the last one. Not drawn.
pub(crate) const NOT_OVER: &str = "not over";

/// The histories of all keyspaces.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    spaces: BTreeMap<u64, Keyspace>,
}

/// What is known of one keyspace.
#[derive(Debug, Default)]
struct Keyspace {
    name: String,
    model: String,
    operations: VecDeque<Operation>,
    /// The number of the first operation that is kept.
    first: u64,
    /// Those that have begun, by their members' names for them.
    open: HashMap<(String, u64), u64>,
    /// Whose tokens are whose.
    sessions: HashMap<String, u64>,
    sessions_begun: u64,
    /// Changes with everything that happens.
    version: u64,
    /// Whether transactions have changed it.
    is_blind: bool,
    /// Why the history does not begin with the keyspace, if it does not.
    anew: Option<String>,
}

#[derive(Debug)]
struct Operation {
    node: String,
    call: Call,
    is_weaker: bool,
    session: Option<u64>,
    /// The token that it showed.
    shows: Option<String>,
    /// The session that goes on after it, though it may be none of that one's.
    continues: Option<u64>,
    begun: u64,
    ended: Option<(u64, Outcome)>,
}

/// An `op` event of a member, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Told {
    t: u64,
    phase: String,
    node: String,
    o: u64,
    f: Option<String>,
    kind: Option<String>,
    space: Option<String>,
    id: Option<u64>,
    model: Option<String>,
    level: Option<String>,
    key: Option<Value>,
    #[serde(default)]
    value: Value,
    #[serde(rename = "if", default, deserialize_with = "even_null")]
    condition: Option<Value>,
    session: Option<String>,
    error: Option<String>,
}

/// `null` says something else than nothing.
fn even_null<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(input).map(Some)
}

/// A keyspace's history, and what it was to be.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) model: String,
    pub(crate) version: u64,
    /// Why the history does not begin with the keyspace, if it does not.
    pub(crate) anew: Option<String>,
    /// Whether transactions have changed it, so that there is nothing to judge.
    pub(crate) is_blind: bool,
    pub(crate) history: History,
    /// Reads that asked for less than the keyspace promises, by their places in the history.
    pub(crate) weaker: BTreeSet<usize>,
}

impl Operations {
    /// Takes an event of the live stream; most are of no matter here.
    pub(crate) fn take(&mut self, event: &str) {
        if event.contains("\"k\":\"op\"") {
            // What is of another form is of another source, such as the clients of a simulated run.
            if let Ok(told) = serde_json::from_str::<Told>(event) {
                self.told(told);
            }
        } else if event.contains("\"k\":\"hole\"") {
            let event: Value = serde_json::from_str(event).unwrap_or_default();
            match event["id"].as_u64() {
                Some(id) => self.spaces.entry(id).or_default().go_blind(),
                None => self.hole(event["text"].as_str().unwrap_or("there was a gap")),
            }
        }
    }

    /// Something was not seen.
    pub(crate) fn hole(&mut self, why: &str) {
        self.spaces.values_mut().for_each(|space| space.begin_anew(why));
    }

    fn told(&mut self, told: Told) {
        if told.phase != "invoke" {
            let key = (told.node.clone(), told.o);
            if let Some(space) = self.spaces.values_mut().find(|space| space.open.contains_key(&key)) {
                space.ends(&key, told);
            }
            return;
        }
        let (Some(id), Some(name), Some(model)) = (told.id, told.space.clone(), told.model.clone()) else {
            return;
        };
        let key = (told.node.clone(), told.o);
        // A member that was restarted counts from the beginning: nobody will hear of the operation before.
        for space in self.spaces.values_mut() {
            space.open.remove(&key);
        }
        let space = self.spaces.entry(id).or_default();
        (space.name, space.model) = (name, model);
        space.begins(key, &told);
        while self.spaces.len() > KEYSPACES_MAX {
            self.spaces.pop_first();
        }
    }

    /// The keyspaces of which something is known, the latest first: name, model, how many operations, whether they can be judged.
    pub(crate) fn list(&self) -> Value {
        let of = |space: &Keyspace| json!({"name": space.name, "model": space.model, "operations": space.operations.len(), "blind": space.is_blind});
        self.spaces.values().rev().filter(|space| !space.name.is_empty()).map(of).collect()
    }

    /// The history of the latest keyspace of this name.
    pub(crate) fn kept(&self, name: &str) -> Option<Kept> {
        self.spaces.values().rev().find(|space| space.name == name).map(Keyspace::kept)
    }
}

impl Keyspace {
    fn begin_anew(&mut self, why: &str) {
        self.first += self.operations.len() as u64;
        self.operations.clear();
        self.open.clear();
        self.sessions.clear();
        self.version += 1;
        self.anew = Some(why.to_owned());
    }

    fn go_blind(&mut self) {
        self.begin_anew("a transaction");
        self.is_blind = true;
    }

    fn begins(&mut self, key: (String, u64), told: &Told) {
        self.version += 1;
        if self.is_blind || told.kind.as_deref() != Some("register") {
            return;
        }
        let Some(call) = call(told) else { return };
        let level = told.level.as_deref().unwrap_or(&self.model);
        let place = |level: &str| LEVELS.iter().position(|known| *known == level);
        let is_weaker = &*call.op == "get" && place(level) > place(&self.model);
        // Whoever shows a token first goes on from there.
        let continues = told.session.as_ref().and_then(|token| self.sessions.remove(token));
        let session = if level == "eventual" || told.session.is_none() && self.model == "eventual" {
            None
        } else {
            Some(continues.unwrap_or_else(|| self.new_session()))
        };
        self.open.insert(key.clone(), self.first + self.operations.len() as u64);
        self.operations.push_back(Operation {
            node: key.0,
            call,
            is_weaker,
            session,
            shows: told.session.clone(),
            continues: session.or(continues),
            begun: told.t,
            ended: None,
        });
        while self.operations.len() > OPERATIONS_KEPT_MAX {
            self.operations.pop_front();
            self.first += 1;
            self.anew = Some(format!("only the last {OPERATIONS_KEPT_MAX} operations are kept"));
        }
        let first = self.first;
        self.open.retain(|_, number| *number >= first);
    }

    fn ends(&mut self, key: &(String, u64), told: Told) {
        self.version += 1;
        let Some(number) = self.open.remove(key) else { return };
        let Some(operation) = self.operations.get_mut((number - self.first) as usize) else { return };
        let is_read = &*operation.call.op == "get";
        let error = told.error.unwrap_or_default();
        let outcome = match told.phase.as_str() {
            "ok" if is_read => Outcome::Ok(Reply::value(told.value)),
            "ok" if &*operation.call.op == "cas" => Outcome::Ok(Reply::value(true)),
            "ok" => Outcome::Ok(Reply::none()),
            "fail" if &*operation.call.op == "cas" && error == "precondition" => {
                Outcome::Ok(Reply::value(false))
            }
            "fail" => Outcome::fail(&error),
            _ => Outcome::unknown(&error),
        };
        // After a refusal the session goes on from the token that it had. What nobody knows of may have been, and the session
        // has not seen it: who shows the old token then is another one.
        let has_failed = matches!(outcome, Outcome::Fail { .. });
        let token = told.session.or_else(|| operation.shows.clone().filter(|_| has_failed));
        operation.ended = Some((told.t, outcome));
        let continues = operation.continues;
        let Some(token) = token else { return };
        let session = continues.unwrap_or_else(|| self.new_session());
        if self.sessions.len() >= TOKENS_MAX {
            self.sessions.clear();
        }
        self.sessions.insert(token, session);
    }

    fn new_session(&mut self) -> u64 {
        self.sessions_begun += 1;
        self.sessions_begun
    }

    fn kept(&self) -> Kept {
        let mut recorder = Recorder::new(Header {
            source: Some("synod lab".into()),
            about: Some(format!("keyspace {}, {}", self.name, self.model)),
            ..Header::new("kv")
        });
        let mut names = Vec::new();
        let start = self.operations.iter().map(|operation| operation.begun).min().unwrap_or_default();
        let unseen = self.unseen().into_iter().map(|call| (NOT_SEEN, call));
        for (who, call) in unseen.chain([(NOT_OVER, Call::put(NOT_OVER, NOT_OVER))]) {
            drop(recorder.invoke(Nanos(start), who, call));
            names.push(format!("{who} {}", names.len()));
        }
        // Members tell it one after the other, and not in the order of time. At one time beginnings come first: that claims less.
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (index, operation) in self.operations.iter().enumerate() {
            moments.push((operation.begun, false, index));
            moments.extend(operation.ended.as_ref().map(|(t, _)| (*t, true, index)));
        }
        moments.sort_unstable();
        let mut asked: HashMap<u64, usize> = HashMap::new();
        for session in self.operations.iter().filter_map(|operation| operation.session) {
            *asked.entry(session).or_default() += 1;
        }
        let (mut handles, mut weaker) = (HashMap::new(), BTreeSet::new());
        for (t, is_end, index) in moments {
            let operation = &self.operations[index];
            if is_end {
                if let (Some(handle), Some((_, outcome))) = (handles.remove(&index), &operation.ended) {
                    recorder.complete(Nanos(t), handle, outcome.clone());
                }
                continue;
            }
            if operation.is_weaker {
                weaker.insert(names.len());
            }
            // Who asks once and never again is drawn with all others who do.
            let (client, name) = match operation.session {
                Some(session) if asked[&session] > 1 => {
                    (format!("session {session}"), format!("session {session}"))
                }
                _ => ("a stranger".to_owned(), format!("stranger {index}")),
            };
            names.push(name);
            handles.insert(
                index,
                recorder.invoke_on(Nanos(t), &client, &operation.node, operation.call.clone()),
            );
        }
        let mut history = recorder.finish();
        for (operation, name) in history.operations.iter_mut().zip(names) {
            operation.session = Some(name.into());
        }
        Kept {
            name: self.name.clone(),
            model: self.model.clone(),
            version: self.version,
            anew: self.anew.clone(),
            is_blind: self.is_blind,
            history,
            weaker,
        }
    }

    /// Writes that must have been, though nobody was seen to make them.
    fn unseen(&self) -> Vec<Call> {
        let has_failed = |operation: &Operation| matches!(operation.ended, Some((_, Outcome::Fail { .. })));
        let written: BTreeSet<(&str, String)> = (self.operations.iter())
            .filter(|operation| !has_failed(operation))
            .filter_map(|operation| {
                Some((operation.call.key.as_deref()?, operation.call.value.as_ref()?.to_string()))
            })
            .collect();
        let mut unseen = BTreeMap::new();
        for operation in &self.operations {
            let Some((_, Outcome::Ok(Reply { value: Some(value), .. }))) = &operation.ended else { continue };
            let Some(key) = operation.call.key.as_deref() else { continue };
            let text = value.to_string();
            if &*operation.call.op == "get" && !value.is_null() && !written.contains(&(key, text.clone())) {
                unseen.insert((key, text), value.clone());
            }
        }
        let keys: BTreeSet<&str> = unseen.keys().map(|(key, _)| *key).collect();
        let puts = unseen.iter().map(|((key, _), value)| Call::put(key, value.clone()));
        puts.chain(keys.into_iter().map(Call::delete)).collect()
    }
}

/// What was asked, in the checker's words; nothing if it has none.
fn call(told: &Told) -> Option<Call> {
    // Bytes that are no text are a key like any other.
    let key = told.key.as_ref().map(|key| key.as_str().map_or_else(|| key.to_string(), str::to_owned))?;
    match (told.f.as_deref()?, &told.condition) {
        ("get", _) => Some(Call::get(&key)),
        ("put", None) => Some(Call::put(&key, told.value.clone())),
        ("put", Some(expected)) => Some(Call::cas(&key, expected.clone(), told.value.clone())),
        ("delete", _) => Some(Call::delete(&key)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_check::judge::{Consistency, judge};
    use synod_check::linearizable::Limits;

    /// Operations of one keyspace, one after the other unless said otherwise.
    struct Script {
        operations: Operations,
        model: &'static str,
        t: u64,
        number: u64,
    }

    impl Script {
        fn new(model: &'static str) -> Script {
            Script { operations: Operations::default(), model, t: 0, number: 0 }
        }

        fn begin(&mut self, node: &str, mut asks: Value) -> u64 {
            (self.t, self.number) = (self.t + 10, self.number + 1);
            let common = json!({"k": "op", "phase": "invoke", "t": self.t, "node": node, "c": node, "o": self.number,
                "space": "feed", "id": 7, "model": self.model, "kind": "register"});
            for (field, value) in common.as_object().expect("an object") {
                asks[field] = value.clone();
            }
            self.operations.take(&asks.to_string());
            self.number
        }

        fn end(&mut self, node: &str, number: u64, phase: &str, mut says: Value) {
            self.t += 10;
            for (field, value) in
                [("k", json!("op")), ("phase", json!(phase)), ("t", json!(self.t)), ("o", json!(number))]
            {
                says[field] = value;
            }
            says["node"] = node.into();
            self.operations.take(&says.to_string());
        }

        /// Shows one token and gets another.
        fn put(&mut self, node: &str, value: &str, shows: Option<&str>, gets: Option<&str>) {
            let number = self.begin(node, json!({"f": "put", "key": "x", "value": value, "session": shows}));
            self.end(node, number, "ok", json!({"session": gets}));
        }

        fn get(&mut self, node: &str, value: Option<&str>, shows: Option<&str>, gets: Option<&str>) {
            self.get_at(self.model, node, value, shows, gets);
        }

        fn get_at(
            &mut self,
            level: &str,
            node: &str,
            value: Option<&str>,
            shows: Option<&str>,
            gets: Option<&str>,
        ) {
            let number = self.begin(node, json!({"f": "get", "key": "x", "session": shows, "level": level}));
            self.end(node, number, "ok", json!({"value": value, "session": gets}));
        }

        fn verdict(&self, model: &str) -> String {
            let kept = self.operations.kept("feed").expect("a history");
            let model = Consistency::named(model);
            let judgement = judge(&kept.history, None, model, &Limits::default(), &mut || false);
            let findings = judgement.expect("judged").findings;
            match findings[0].answer {
                synod_check::answer::Answer::Yes(_) => "yes".into(),
                synod_check::answer::Answer::No(_) => "no".into(),
                synod_check::answer::Answer::Unknown(ref why) => why.clone(),
            }
        }
    }

    #[test]
    fn a_session_that_goes_back_in_time_is_not_causal_and_a_stranger_may() {
        let mut script = Script::new("causal");
        script.put("n1", "1", None, Some("a"));
        script.put("n1", "2", Some("a"), Some("b"));
        script.get("n3", Some("1"), None, Some("c"));
        assert_eq!((&*script.verdict("linearizable"), &*script.verdict("causal")), ("no", "yes"));
        script.get("n3", Some("1"), Some("b"), Some("d"));
        assert_eq!(script.verdict("causal"), "no");
    }

    #[test]
    fn a_session_goes_on_after_a_refusal_with_the_token_that_it_had() {
        let mut script = Script::new("causal");
        script.put("n1", "1", None, Some("a"));
        let refused = script.begin("n3", json!({"f": "get", "key": "x", "session": "a"}));
        script.end("n3", refused, "fail", json!({"error": "behind"}));
        script.get("n3", None, Some("a"), Some("b"));
        assert_eq!(script.verdict("causal"), "no", "the session had written it");
    }

    #[test]
    fn a_token_that_is_shown_twice_is_of_two_sessions_from_then_on() {
        let mut script = Script::new("causal");
        script.put("n1", "1", None, Some("a"));
        script.put("n1", "2", Some("a"), Some("b"));
        // It has not seen 2: that was another who had the same token.
        script.get("n2", Some("1"), Some("a"), Some("a2"));
        assert_eq!(script.verdict("causal"), "yes");
        assert_eq!(script.verdict("linearizable"), "no");
    }

    #[test]
    fn a_read_that_asked_for_less_is_nobodys_broken_promise_and_is_told_apart() {
        let mut script = Script::new("causal");
        script.put("n1", "1", None, Some("a"));
        script.put("n1", "2", Some("a"), Some("b"));
        script.get_at("eventual", "n3", Some("1"), Some("b"), Some("b"));
        assert_eq!(script.verdict("causal"), "yes", "the session was promised nothing");
        script.get("n1", Some("2"), Some("b"), Some("c"));
        let kept = script.operations.kept("feed").expect("a history");
        assert_eq!(kept.weaker.len(), 1);
        let operations = &kept.history.operations;
        assert_eq!(operations[*kept.weaker.first().expect("one")].node.as_deref(), Some("n3"));
        let last = operations.last().expect("the last");
        assert_eq!(&*last.client, "session 1", "the session goes on past it");
    }

    #[test]
    fn what_was_written_before_anybody_watched_is_nobodys_fault_and_what_nobody_could_write_is() {
        let mut script = Script::new("linearizable");
        script.get("n1", Some("old"), None, None);
        script.put("n1", "1", None, None);
        assert_eq!((&*script.verdict("linearizable"), &*script.verdict("eventual")), ("yes", "yes"));
        script.get("n2", Some("old"), None, None);
        assert_eq!(script.verdict("linearizable"), "no", "it was read before, so it cannot come again");
    }

    #[test]
    fn a_write_that_nobody_answered_may_have_been_and_one_that_was_refused_was_not() {
        let mut script = Script::new("linearizable");
        script.begin("n1", json!({"f": "put", "key": "x", "value": "1"}));
        script.get("n2", Some("1"), None, None);
        assert_eq!(script.verdict("linearizable"), "yes");
        let refused = script.begin("n1", json!({"f": "put", "key": "x", "value": "2"}));
        script.end("n1", refused, "fail", json!({"error": "no-leader"}));
        let told = script.begin("n1", json!({"f": "put", "key": "x", "value": "3", "if": null}));
        script.end("n1", told, "fail", json!({"error": "precondition"}));
        script.get("n2", Some("1"), None, None);
        assert_eq!(script.verdict("linearizable"), "yes");
        let wrong = script.begin("n1", json!({"f": "put", "key": "x", "value": "4", "if": null}));
        script.end("n1", wrong, "ok", json!({}));
        assert_eq!(script.verdict("linearizable"), "no", "the key was there");
    }

    #[test]
    fn reads_that_differ_are_no_verdict_on_eventual_while_more_may_come() {
        let mut script = Script::new("eventual");
        script.put("n1", "1", None, None);
        script.get("n1", Some("1"), None, None);
        script.get("n3", None, None, None);
        assert_eq!((&*script.verdict("eventual"), &*script.verdict("linearizable")), ("yes", "no"));
    }

    #[test]
    fn members_may_be_heard_out_of_order_and_after_a_hole_all_begins_anew() {
        let mut script = Script::new("linearizable");
        let late = script.begin("n1", json!({"f": "put", "key": "x", "value": "1"}));
        let t = script.t;
        script.get("n2", None, None, None);
        // It had ended before the read began, and is heard of later.
        script
            .operations
            .take(&json!({"k": "op", "phase": "ok", "t": t + 1, "node": "n1", "o": late}).to_string());
        assert_eq!(script.verdict("linearizable"), "no");
        script.operations.take(r#"{"k":"hole","n":"n1","id":null,"text":"too many"}"#);
        script.get("n2", None, None, None);
        assert_eq!(script.verdict("linearizable"), "yes");
        assert_eq!(script.operations.kept("feed").expect("kept").anew.as_deref(), Some("too many"));
        script.operations.take(r#"{"k":"hole","n":"n1","id":7,"text":"transactions"}"#);
        script.put("n1", "1", None, None);
        let kept = script.operations.kept("feed").expect("kept");
        assert!(kept.is_blind && kept.history.operations.len() == 1, "{kept:?}");
    }

    #[test]
    fn the_oldest_operations_go_and_those_that_are_kept_are_still_judged() {
        let mut script = Script::new("linearizable");
        for value in 0..OPERATIONS_KEPT_MAX + 20 {
            script.put("n1", &value.to_string(), None, None);
        }
        let last = (OPERATIONS_KEPT_MAX + 19).to_string();
        script.get("n2", Some(&last), None, None);
        script.get("n2", Some("3"), None, None);
        let list = script.operations.list();
        assert_eq!(list[0]["operations"], OPERATIONS_KEPT_MAX);
        assert_eq!(
            script.verdict("linearizable"),
            "yes",
            "3 may have been written again by somebody who was not seen"
        );
        script.put("n1", "last", None, None);
        script.get("n2", Some(&last), None, None);
        assert_eq!(script.verdict("linearizable"), "no");
    }
}
