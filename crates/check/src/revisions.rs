//! Linearizability of a store whose every answer says at which revision it was given.
//!
//! Each write that changed something made one revision, and says which; each other answer belongs between its
//! revision and the next. So the order is known, but for the revisions that nobody was answered about: *gaps*. In
//! these, writes of unknown outcome took effect. The store is replayed from its first revision; in a gap, each
//! such write is tried that was invoked before the first return of anything at that revision or behind it, and
//! that does not contradict what was later shown of its key. What does not fit is taken back (depth first). Of
//! the rest of the writes of unknown outcome nobody noticed anything: they are left out.
//!
//! That costs time linear in the history where there are no gaps, or where what was shown of a gap names its
//! write. It may be exponential in the gaps that nobody read; then it is given up, and searched.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::model::{Effect, Entry, Etcd, EtcdAnswer, EtcdOp, EtcdState, Held, NEVER, Shortcut};

/// Attempts to fill a revision, beside one for each operation.
const ATTEMPTS_MAX: usize = 1 << 20;

/// Decides a store. Does not apply where an answer has no revision, or a delete does not say whether it found its key.
pub(crate) fn decide(first: &EtcdState, entries: &[Entry<Etcd>]) -> Shortcut {
    let says_enough = |entry: &Entry<Etcd>| {
        entry
            .answer
            .as_ref()
            .is_none_or(|answer| answer.revision.is_some() && changes(&entry.op, answer).is_some())
    };
    if !entries.iter().all(says_enough) || entries.iter().all(|entry| entry.ret == NEVER) {
        return Shortcut::None;
    }
    match order(first, entries, NEVER) {
        Found::Order(order) => Shortcut::Order(order),
        Found::Nothing => match few(first, entries) {
            Some((kept, words)) => Shortcut::Few(kept, words),
            None => blocked(first, entries),
        },
        Found::Lost => Shortcut::None,
    }
}

/// Whether an operation with this answer made a revision; `None` if it does not say.
fn changes(op: &EtcdOp, answer: &EtcdAnswer) -> Option<bool> {
    match op {
        EtcdOp::Get(_) | EtcdOp::Range(..) => Some(false),
        EtcdOp::Put(..) => Some(true),
        EtcdOp::Delete(_) | EtcdOp::Cas(..) => answer.done,
        EtcdOp::Txn(txn) => {
            let branch = txn.branch(answer.done?);
            if branch.iter().any(|op| matches!(op, EtcdOp::Put(..))) {
                return Some(true);
            }
            let mut deletes = branch.iter().enumerate().filter(|(_, op)| matches!(op, EtcdOp::Delete(_)));
            let found = |at: usize| answer.results.as_ref()?.get(at)?.done;
            // With deletes alone it depends on whether they found their keys.
            deletes.try_fold(false, |any, (at, _)| found(at).map(|found| any || found))
        }
    }
}

/// The first return up to which there is no order, by bisection: what an order explains, it explains of any
/// earlier part of the history as well.
fn blocked(first: &EtcdState, entries: &[Entry<Etcd>]) -> Shortcut {
    let mut returns: Vec<u32> =
        (0..entries.len() as u32).filter(|index| entries[*index as usize].ret != NEVER).collect();
    returns.sort_unstable_by_key(|index| entries[*index as usize].ret);
    let fits = |index: &u32| !matches!(order(first, entries, entries[*index as usize].ret), Found::Nothing);
    let at = returns.partition_point(fits);
    returns.get(at).map_or(Shortcut::None, |index| Shortcut::Stuck(*index))
}

/// One or two answers that cannot be right together, and why. There may be none although there is no order.
fn few(first: &EtcdState, entries: &[Entry<Etcd>]) -> Option<(Vec<u32>, String)> {
    let mut answered: Vec<(i64, bool, u64, u32)> = Vec::new();
    for (index, entry) in (0..).zip(entries) {
        let Some(answer) = &entry.answer else { continue };
        let (revision, makes) = (answer.revision?, changes(&entry.op, answer)?);
        if revision < first.revision + i64::from(makes) {
            let words = format!("The store was at revision {} before the first operation.", first.revision);
            return Some((vec![index], words));
        }
        answered.push((revision, !makes, entry.invoke, index));
    }
    answered.sort_unstable();
    let (mut latest, mut made) = (None::<(u64, u32)>, None::<(i64, u32)>);
    let mut written: HashMap<&str, u32> = HashMap::new();
    for (revision, reads, invoke, index) in answered {
        let entry = &entries[index as usize];
        if let Some((_, later)) = latest.filter(|(invoke, _)| entry.ret < *invoke) {
            let words = "One returned before the other was invoked, but its revision is not the earlier one.";
            return Some((vec![index, later], words.into()));
        }
        latest = latest.max(Some((invoke, index)));
        if !reads {
            if let Some((_, other)) = made.filter(|(made, _)| *made == revision) {
                return Some((vec![other, index], format!("Both say that they made revision {revision}.")));
            }
            made = Some((revision, index));
            let done = entry.answer.as_ref().and_then(|answer| answer.done);
            written.extend(writes_of(&entry.op, done).into_iter().map(|(key, _)| (key, index)));
        } else if let Some(found) = shown_otherwise(entries, index, &written) {
            return Some(found);
        }
    }
    None
}

/// A key that is written, and its value; none if it is deleted.
type Write<'a> = (&'a str, Option<&'a Value>);

/// The keys that an operation may change, and the values that it may give them. `done`: what it answered.
fn writes_of<'a>(op: &'a EtcdOp, done: Option<bool>) -> Vec<Write<'a>> {
    match op {
        EtcdOp::Put(key, value) | EtcdOp::Cas(key, _, value) => vec![(key, Some(value))],
        EtcdOp::Delete(key) => vec![(key, None)],
        EtcdOp::Get(_) | EtcdOp::Range(..) => Vec::new(),
        EtcdOp::Txn(txn) => txn.operations(done).flat_map(|op| writes_of(op, None)).collect(),
    }
}

/// A key that was shown otherwise than its last write left it, where no write of unknown outcome explains that.
fn shown_otherwise(
    entries: &[Entry<Etcd>],
    index: u32,
    written: &HashMap<&str, u32>,
) -> Option<(Vec<u32>, String)> {
    let entry = &entries[index as usize];
    entry.answer.iter().flat_map(|answer| &answer.seen).find_map(|seen| {
        let key = match &entry.op {
            EtcdOp::Get(key) => key,
            _ => seen.key.as_deref()?,
        };
        let value = Some(&seen.value).filter(|value| !value.is_null());
        let last = written.get(key).copied();
        let (left, at) = last.map_or((None, None), |last| {
            let Entry { op, answer, .. } = &entries[last as usize];
            let answer = answer.as_ref();
            let writes = writes_of(op, answer.and_then(|answer| answer.done));
            let left = writes.into_iter().find(|(written, _)| *written == key);
            (left.and_then(|(_, value)| value), answer.and_then(|answer| answer.revision))
        });
        let agrees =
            left == value && (value.is_none() || seen.modified.is_none_or(|modified| Some(modified) == at));
        let explains = |other: &Entry<Etcd>| {
            other.answer.is_none() && writes_of(&other.op, None).contains(&(key, value))
        };
        if agrees || entries.iter().any(explains) {
            return None;
        }
        let words = match last {
            Some(_) => {
                format!("{key:?} was shown otherwise than its last write before that revision left it.")
            }
            None => format!("{key:?} was shown with a value, and nobody had written it at that revision."),
        };
        Some((last.into_iter().chain([index]).collect(), words))
    })
}

enum Found {
    Order(Vec<u32>),
    Nothing,
    /// Too many attempts.
    Lost,
}

/// An order of what returned up to `cut`, and of what else it needs of all that was invoked before.
fn order(first: &EtcdState, entries: &[Entry<Etcd>], cut: u64) -> Found {
    match Walk::new(first, entries, cut) {
        Some(walk) => walk.run(),
        None => Found::Nothing,
    }
}

/// What was shown of a key at a revision.
struct Shown {
    revision: i64,
    /// When the key was last changed; `None` if it was not said, or there was no key.
    modified: Option<i64>,
}

struct Walk<'a> {
    entries: &'a [Entry<Etcd>],
    state: EtcdState,
    last: i64,
    /// What must have made each revision.
    writers: BTreeMap<i64, u32>,
    /// What else was answered at each revision, in the order of invocation.
    others: BTreeMap<i64, Vec<u32>>,
    /// Writes that may be left out: without an answer, or with one that came after the cut.
    optional: Vec<u32>,
    used: Vec<bool>,
    /// The earliest return at each revision that has one, or behind it.
    deadlines: BTreeMap<i64, u64>,
    shown: HashMap<&'a str, Vec<Shown>>,
    /// What was shown of the revisions at which keys were last changed.
    hints: HashMap<i64, (Option<&'a str>, &'a Value)>,
}

/// A revision that was made, and what may make it instead.
struct Level {
    candidates: Vec<u32>,
    next: usize,
    /// What its keys held before; none if it is not made.
    before: Vec<(String, Option<Held>)>,
}

impl<'a> Walk<'a> {
    /// `None`: what was answered contradicts the order of revisions by itself.
    fn new(first: &EtcdState, entries: &'a [Entry<Etcd>], cut: u64) -> Option<Walk<'a>> {
        let mut walk = Walk {
            entries,
            state: first.clone(),
            last: first.revision,
            writers: BTreeMap::new(),
            others: BTreeMap::new(),
            optional: Vec::new(),
            used: vec![false; entries.len()],
            deadlines: BTreeMap::new(),
            shown: HashMap::new(),
            hints: HashMap::new(),
        };
        for (index, entry) in (0..).zip(entries).filter(|(_, entry)| entry.invoke < cut) {
            match &entry.answer {
                Some(answer) if entry.ret <= cut => walk.required(index, entry, answer)?,
                Some(answer) if changes(&entry.op, answer) != Some(true) => {}
                None if matches!(entry.op, EtcdOp::Get(_) | EtcdOp::Range(..)) => {}
                _ => walk.optional.push(index),
            }
        }
        let mut earliest = NEVER;
        for deadline in walk.deadlines.values_mut().rev() {
            earliest = earliest.min(*deadline);
            *deadline = earliest;
        }
        walk.others.values_mut().for_each(|own| own.sort_by_key(|index| entries[*index as usize].invoke));
        walk.shown.values_mut().for_each(|shown| shown.sort_by_key(|shown| shown.revision));
        let gaps = (walk.last - first.revision) as usize - walk.writers.len();
        (gaps <= walk.optional.len() && walk.in_time()).then_some(walk)
    }

    fn required(&mut self, index: u32, entry: &'a Entry<Etcd>, answer: &'a EtcdAnswer) -> Option<()> {
        let revision = answer.revision?;
        let makes = changes(&entry.op, answer)?;
        if revision < self.state.revision + i64::from(makes) {
            return None;
        }
        self.last = self.last.max(revision);
        let deadline = self.deadlines.entry(revision).or_insert(NEVER);
        *deadline = entry.ret.min(*deadline);
        if !makes {
            self.others.entry(revision).or_default().push(index);
        } else if self.writers.insert(revision, index).is_some() {
            return None;
        }
        for seen in &answer.seen {
            let key = match &entry.op {
                EtcdOp::Get(key) => Some(key.as_str()),
                _ => seen.key.as_deref(),
            };
            if let Some(modified) = seen.modified.filter(|_| !seen.value.is_null()) {
                self.hints.insert(modified, (key, &seen.value));
            }
            if let Some(key) = key.filter(|_| !seen.value.is_null()) {
                let modified = seen.modified;
                self.shown.entry(key).or_default().push(Shown { revision, modified });
            }
        }
        Some(())
    }

    /// Whether the order of revisions respects what returned before what was invoked.
    fn in_time(&self) -> bool {
        let mut latest = 0;
        let revisions = self.state.revision..=self.last;
        let answered = self.deadlines.keys().filter(|revision| revisions.contains(revision));
        answered.flat_map(|revision| self.at(*revision)).all(|index| {
            let entry = &self.entries[index as usize];
            latest = entry.invoke.max(latest);
            entry.ret >= latest
        })
    }

    /// What was answered at a revision, what made it first.
    fn at(&self, revision: i64) -> impl Iterator<Item = u32> {
        let others = self.others.get(&revision).into_iter().flatten();
        self.writers.get(&revision).into_iter().chain(others).copied()
    }

    fn run(mut self) -> Found {
        if !self.others_fit() {
            return Found::Nothing;
        }
        let mut left = ATTEMPTS_MAX + self.entries.len();
        let mut levels: Vec<Level> = Vec::new();
        while self.state.revision < self.last {
            levels.push(Level { candidates: self.candidates(), next: 0, before: Vec::new() });
            while !levels.last_mut().is_none_or(|level| self.advance(level, &mut left)) {
                levels.pop();
                if let Some(level) = levels.last_mut() {
                    self.undo(level);
                }
            }
            match levels.is_empty() {
                true if left == 0 => return Found::Lost,
                true => return Found::Nothing,
                false => {}
            }
        }
        let mut order: Vec<u32> = Vec::with_capacity(self.entries.len());
        let first = self.last - levels.len() as i64;
        order.extend(self.others.get(&first).into_iter().flatten());
        for (revision, level) in (first + 1..).zip(&levels) {
            order.push(level.candidates[level.next - 1]);
            order.extend(self.others.get(&revision).into_iter().flatten());
        }
        Found::Order(order)
    }

    /// What may make the next revision.
    fn candidates(&self) -> Vec<u32> {
        let revision = self.state.revision + 1;
        if let Some(writer) = self.writers.get(&revision) {
            return vec![*writer];
        }
        let deadline = self.deadlines.range(revision..).next().map_or(NEVER, |(_, deadline)| *deadline);
        let may = |index: &u32| {
            let entry = &self.entries[*index as usize];
            let said = entry.answer.as_ref().and_then(|answer| answer.revision);
            !self.used[*index as usize]
                && entry.invoke < deadline
                && said.is_none_or(|said| said == revision)
                && self.is_not_contradicted(&entry.op, revision)
        };
        self.optional.iter().copied().filter(may).collect()
    }

    /// Whether nothing shown later says that this operation did not make the revision.
    fn is_not_contradicted(&self, op: &EtcdOp, revision: i64) -> bool {
        let writes = writes_of(op, None);
        let hinted = self.hints.get(&revision).is_none_or(|(shown_key, shown)| {
            let makes = |(key, value): &Write<'_>| {
                shown_key.is_none_or(|shown_key| shown_key == *key) && *value == Some(*shown)
            };
            writes.iter().any(makes)
        });
        // Which of several keys a transaction writes depends on its comparisons.
        let key = match writes.as_slice() {
            [] => return false,
            [(key, _)] if !matches!(op, EtcdOp::Txn(_)) => *key,
            _ => return hinted,
        };
        let shown = self.shown.get(key).map_or(&[][..], Vec::as_slice);
        let after = shown.partition_point(|shown| shown.revision < revision);
        let older =
            shown.get(after).and_then(|shown| shown.modified).is_some_and(|modified| modified < revision);
        hinted && !older
    }

    /// Makes the next revision by the next candidate that fits; whether there is one.
    fn advance(&mut self, level: &mut Level, left: &mut usize) -> bool {
        while let Some(candidate) = level.candidates.get(level.next).filter(|_| *left > 0) {
            *left -= 1;
            level.next += 1;
            let entry = &self.entries[*candidate as usize];
            let Effect { changes, done } = self.state.effect(&entry.op);
            if changes.is_empty() {
                continue;
            }
            let fits = entry.answer.as_ref().is_none_or(|answer| self.state.fits(&entry.op, answer, done));
            for (key, held) in changes {
                level.before.push((key.to_owned(), self.state.set(key, held)));
            }
            self.state.revision += 1;
            self.used[*candidate as usize] = true;
            if fits && self.others_fit() {
                return true;
            }
            self.undo(level);
        }
        false
    }

    fn undo(&mut self, level: &mut Level) {
        if level.before.is_empty() {
            return;
        }
        for (key, held) in level.before.drain(..).rev() {
            self.state.set(&key, held);
        }
        self.state.revision -= 1;
        self.used[level.candidates[level.next - 1] as usize] = false;
    }

    /// Whether all that was answered at this revision, and made none, fits.
    fn others_fit(&self) -> bool {
        self.others.get(&self.state.revision).into_iter().flatten().all(|index| {
            let Entry { op, answer, .. } = &self.entries[*index as usize];
            let Effect { changes, done } = self.state.effect(op);
            changes.is_empty() && answer.as_ref().is_none_or(|answer| self.state.fits(op, answer, done))
        })
    }
}
