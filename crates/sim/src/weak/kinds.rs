//! Keys that hold more than the last value: what sessions do to them, and what must come of it.
//!
//! No model of the checker speaks of these, so each has rules of its own, from what the sessions were told:
//!
//! - a *counter* is in the end the sum of the additions that were acknowledged, and of some of those whose outcome
//!   nobody was told;
//! - of a *set*, an element is there if it was added after all removals of it had ended, and not if nobody added it;
//!   a causal session's own element is as the session last left it;
//! - of *siblings*, a value that was acknowledged is there unless somebody who had read it replaced it. At the causal
//!   level it is not there then; an eventual member replaces only what it holds itself, whatever its client has read
//!   elsewhere.
//!
//! Causal sessions also see their own writes, and never less of a counter than before.

use super::Level;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use synod_check::history::Call;
use synod_protocols::Rng;
use synod_protocols::types::{NodeId, Time};
use synod_protocols::weak::{Content, Dot, Kind, Write};

/// What became of a write, as its session knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    Refused,
    /// Nobody told.
    Unknown,
}

#[derive(Clone, Debug)]
enum Deed {
    Put,
    Add { units: i64 },
    Insert { element: String },
    Remove { element: String },
    Replace { value: String, read: Vec<String> },
}

#[derive(Debug)]
struct Written {
    session: String,
    at: NodeId,
    key: String,
    deed: Deed,
    asked: Time,
    ended: Option<Time>,
    fate: Fate,
}

/// All writes of a run.
#[derive(Debug)]
pub(super) struct Ledger {
    kind: Kind,
    level: Level,
    written: Vec<Written>,
    /// What each session read last of siblings, by session and key.
    known: BTreeMap<(String, String), Vec<(Dot, String)>>,
    /// The least that each session may read of a counter from now on.
    floors: BTreeMap<(String, String), i64>,
}

impl Ledger {
    pub(super) fn new(kind: Kind, level: Level) -> Ledger {
        Ledger { kind, level, written: Vec::new(), known: BTreeMap::new(), floors: BTreeMap::new() }
    }

    /// What a session writes next: the number of the write, the request, and how a history tells it.
    pub(super) fn write(
        &mut self,
        rng: &mut Rng,
        now: Time,
        (session, at): (&str, NodeId),
        key: &str,
    ) -> (usize, Write, Call) {
        let number = self.written.len();
        let own = key.to_owned();
        let (deed, write, call) = match self.kind {
            Kind::Register => {
                let value = (number + 1).to_string();
                let write = Write::Put { key: own.into(), value: value.clone().into() };
                (Deed::Put, write, Call::put(key, value))
            }
            Kind::Counter => {
                let units = 1 + rng.below(9) as i64;
                let write = Write::Add { key: own.into(), units };
                (Deed::Add { units }, write, call("add", key, json!(units)))
            }
            Kind::Set => {
                let place = rng.below(2);
                let element = if rng.chance(1, 2) { format!("{session}-{place}") } else { place.to_string() };
                let shown = json!(element);
                let (key_bytes, bytes) = (own.into(), element.clone().into());
                match rng.chance(2, 3) {
                    true => {
                        let write = Write::Insert { key: key_bytes, element: bytes };
                        (Deed::Insert { element }, write, call("add", key, shown))
                    }
                    false => {
                        let write = Write::Remove { key: key_bytes, element: bytes };
                        (Deed::Remove { element }, write, call("remove", key, shown))
                    }
                }
            }
            Kind::Siblings => {
                let value = (number + 1).to_string();
                let known = self.known.get(&(session.to_owned(), own.clone())).cloned().unwrap_or_default();
                let (siblings, read) = known.into_iter().unzip();
                let write = Write::Replace { key: own.into(), siblings, value: Some(value.clone().into()) };
                let shown = Call::put(key, value.clone());
                (Deed::Replace { value, read }, write, shown)
            }
        };
        self.written.push(Written {
            session: session.to_owned(),
            at,
            key: key.to_owned(),
            deed,
            asked: now,
            ended: None,
            fate: Fate::Unknown,
        });
        (number, write, call)
    }

    pub(super) fn ended(&mut self, number: usize, now: Time, fate: Fate) {
        let written = &mut self.written[number];
        (written.ended, written.fate) = (Some(now), fate);
        if let (Deed::Add { units }, Fate::Done) = (&written.deed, fate) {
            *self.floors.entry((written.session.clone(), written.key.clone())).or_default() += units;
        }
    }

    /// A session has read. Returns what should not be so.
    pub(super) fn read(&mut self, session: &str, key: &str, content: &Content) -> Option<String> {
        let place = (session.to_owned(), key.to_owned());
        let is_causal = self.level == Level::Causal;
        match content {
            Content::Value(_) => None,
            Content::Sum(sum) => {
                let floor = self.floors.insert(place, *sum).unwrap_or_default();
                let most: i64 = self.of(key).filter_map(Written::units).sum();
                let least = if is_causal { floor } else { 0 };
                (!(least..=most).contains(sum))
                    .then(|| format!("{session} reads {sum} of {key}, which is not from {least} to {most}"))
            }
            Content::Elements(elements) if is_causal => {
                let is_in = |element: &str| elements.contains(element.as_bytes());
                let wrong = self.own_elements(session, key).find(|(element, there)| is_in(element) != *there);
                wrong.map(|(element, _)| format!("{session} does not see what it did to {element} of {key}"))
            }
            Content::Elements(_) => None,
            Content::Siblings(all) => {
                let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
                let known: Vec<(Dot, String)> = all.iter().map(|(dot, value)| (*dot, text(value))).collect();
                let lost = is_causal.then(|| self.lost_sibling(key, &known, |w| w.session == session));
                self.known.insert(place, known);
                lost.flatten().map(|value| format!("{session} does not see its own {value} of {key}"))
            }
        }
    }

    /// What all members show in the end. `forgotten`: who was removed, whose last writes may be lost.
    pub(super) fn at_rest(
        &mut self,
        key: &str,
        content: &Content,
        forgotten: &BTreeSet<NodeId>,
    ) -> Vec<String> {
        for written in self.written.iter_mut().filter(|written| forgotten.contains(&written.at)) {
            written.fate = if written.fate == Fate::Done { Fate::Unknown } else { written.fate };
        }
        let mut wrong = Vec::new();
        match content {
            Content::Value(_) => {}
            Content::Sum(sum) => {
                let of = |fate| -> i64 {
                    self.of(key).filter(|written| written.fate == fate).filter_map(Written::units).sum()
                };
                let (least, unknown) = (of(Fate::Done), of(Fate::Unknown));
                if !(least..=least + unknown).contains(sum) {
                    wrong.push(format!(
                        "{key} is {sum} in the end, and {least} were acknowledged, {unknown} unknown"
                    ));
                }
            }
            Content::Elements(elements) => {
                let is_in = |element: &str| elements.contains(element.as_bytes());
                let all: Vec<&str> = self.of(key).filter_map(Written::element).collect();
                let lost = all.iter().filter(|element| self.must_be_in(key, element) && !is_in(element));
                wrong.extend(lost.map(|element| format!("{element} was added to {key} last, and is not in")));
                let nobodys =
                    |element: &&bytes::Bytes| !all.iter().any(|known| known.as_bytes() == element.as_ref());
                wrong.extend(elements.iter().find(nobodys).map(|_| format!("{key} holds what nobody added")));
                if self.level == Level::Causal {
                    let mut sessions: Vec<&str> = self.of(key).map(|w| w.session.as_str()).collect();
                    sessions.dedup();
                    let own = sessions.iter().flat_map(|session| self.own_elements(session, key));
                    let differs = own.filter(|(element, there)| is_in(element) != *there);
                    wrong.extend(
                        differs.map(|(element, _)| format!("{element} of {key} is not as it was left")),
                    );
                }
            }
            Content::Siblings(all) => {
                let known: Vec<(Dot, String)> = all
                    .iter()
                    .map(|(dot, value)| (*dot, String::from_utf8_lossy(value).into_owned()))
                    .collect();
                let lost = self.lost_sibling(key, &known, |_| true);
                wrong.extend(lost.map(|value| format!("{value} of {key} is lost, and nobody replaced it")));
                // An eventual member that has not got what its client read elsewhere does not replace it.
                let is_causal = self.level == Level::Causal;
                let done = self.of(key).filter(|written| is_causal && written.fate == Fate::Done);
                let replaced: Vec<&String> = done.flat_map(Written::replaces).collect();
                let back = known.iter().find(|(_, value)| replaced.contains(&value));
                wrong.extend(back.map(|(_, value)| format!("{value} of {key} was replaced, and is back")));
            }
        }
        wrong
    }

    fn of(&self, key: &str) -> impl Iterator<Item = &Written> {
        self.written.iter().filter(move |written| written.key == key && written.fate != Fate::Refused)
    }

    /// Whether an element was added after all its removals had ended, for certain.
    fn must_be_in(&self, key: &str, element: &str) -> bool {
        let touches = |written: &&Written| written.element() == Some(element);
        let is_removal = |written: &Written| matches!(written.deed, Deed::Remove { .. });
        let mut removals = self.of(key).filter(touches).filter(|written| is_removal(written));
        let ends: Option<Vec<Time>> =
            removals.by_ref().map(|written| written.ended.filter(|_| written.fate == Fate::Done)).collect();
        let Some(last) = ends.map(|ends| ends.into_iter().max().unwrap_or(Time::ZERO)) else { return false };
        let added =
            |written: &Written| !is_removal(written) && written.fate == Fate::Done && written.asked >= last;
        self.of(key).filter(touches).any(added)
    }

    /// Elements that only this session touches, and whether each must be there; those of which that is certain.
    fn own_elements(&self, session: &str, key: &str) -> impl Iterator<Item = (&str, bool)> {
        let mut own: BTreeMap<&str, Option<bool>> = BTreeMap::new();
        for written in self.of(key).filter(|written| written.session == session) {
            let Some(element) = written.element().filter(|element| element.contains('-')) else { continue };
            let left = Some(matches!(written.deed, Deed::Insert { .. }));
            let is_certain = written.fate == Fate::Done && own.get(element) != Some(&None);
            own.insert(element, left.filter(|_| is_certain));
        }
        own.into_iter().filter_map(|(element, there)| Some((element, there?)))
    }

    /// A value that was acknowledged, is not among these, and was replaced by nobody who had read it.
    fn lost_sibling(
        &self,
        key: &str,
        known: &[(Dot, String)],
        is_asked_for: impl Fn(&Written) -> bool,
    ) -> Option<String> {
        let replaced: Vec<&String> = self.of(key).flat_map(Written::replaces).collect();
        let done = self.of(key).filter(|written| written.fate == Fate::Done && is_asked_for(written));
        let mut values = done.filter_map(|written| match &written.deed {
            Deed::Replace { value, .. } => Some(value),
            _ => None,
        });
        let is_lost =
            |value: &&String| !replaced.contains(value) && !known.iter().any(|(_, there)| there == *value);
        values.find(is_lost).cloned()
    }
}

impl Written {
    fn units(&self) -> Option<i64> {
        match self.deed {
            Deed::Add { units } => Some(units),
            _ => None,
        }
    }

    fn element(&self) -> Option<&str> {
        match &self.deed {
            Deed::Insert { element } | Deed::Remove { element } => Some(element),
            _ => None,
        }
    }

    fn replaces(&self) -> &[String] {
        match &self.deed {
            Deed::Replace { read, .. } => read,
            _ => &[],
        }
    }
}

fn call(op: &str, key: &str, value: Value) -> Call {
    Call { key: Some(key.into()), value: Some(value), ..Call::new(op) }
}

/// How a history tells a read of a key.
pub(super) fn read(kind: Kind, key: &str) -> Call {
    match kind {
        Kind::Register | Kind::Siblings => Call::get(key),
        Kind::Counter | Kind::Set => Call { key: Some(key.into()), ..Call::new("read") },
    }
}

/// The object that a history is of.
pub(super) fn object(kind: Kind) -> &'static str {
    match kind {
        Kind::Register => "kv",
        Kind::Siblings => "siblings",
        Kind::Counter => "counter",
        Kind::Set => "set",
    }
}

/// How a history tells what was read.
pub(super) fn shown(content: &Content) -> Value {
    let text = |bytes: &bytes::Bytes| Value::from(String::from_utf8_lossy(bytes));
    match content {
        Content::Value(value) => value.as_ref().map_or(Value::Null, text),
        Content::Sum(sum) => json!(sum),
        Content::Elements(elements) => elements.iter().map(text).collect(),
        Content::Siblings(all) => all.iter().map(|(_, value)| text(value)).collect(),
    }
}
