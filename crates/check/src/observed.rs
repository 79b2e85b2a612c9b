//! Histories of reads and writes in which every value is written once, so that it is known who read from whom. (Where values
//! repeat, that is a matter of choice: [`crate::ambiguous`].)
//!
//! Everything below linearizability is judged on this form: sessions of transactions, each with its reads
//! from others and its writes. A single `get` or `put` is a transaction of one, a `cas` that succeeded one that
//! reads and writes. What a transaction reads of its own writes, or writes twice, is checked here and then forgotten.
//!
//! A transaction of unknown outcome that nobody read from is left out: as in linearizability, nobody notices. One that
//! was read from took effect. It comes after what its session did before, but not before what its session did next: its
//! client did not wait for it.

use std::collections::HashMap;

use serde_json::Value;

use crate::answer::Reason;
use crate::history::{History, Operation, Outcome};
use crate::linearizable::OperationIndex;
use crate::model::NEVER;

/// One transaction that took effect.
#[derive(Clone)]
pub(crate) struct Transaction {
    pub(crate) operation: OperationIndex,
    /// Chain of transactions, each of which ended before the next began: a session, or an operation
    /// of unknown outcome by itself.
    pub(crate) chain: u32,
    /// Place in the chain, from 0.
    pub(crate) place: u32,
    /// What its session did before.
    pub(crate) previous: Option<u32>,
    pub(crate) invoke: u64,
    /// [`NEVER`] if the outcome is unknown.
    pub(crate) ret: u64,
    /// First reads of keys that it had not written, in its own order.
    pub(crate) reads: Vec<Read>,
    /// Keys that it wrote.
    pub(crate) writes: Vec<u32>,
}

/// One read of another transaction's write, or of the initial value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) key: u32,
    pub(crate) from: Option<u32>,
}

/// A history in this form.
#[derive(Clone)]
pub(crate) struct Observed {
    /// In the order of invocation.
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) keys: Vec<String>,
    pub(crate) chains: usize,
    /// A read that no order can explain, whatever the model: of a value that was never written, or of one whose
    /// writer failed.
    pub(crate) impossible: Option<Reason>,
    /// A read of a value that its own transaction overwrote.
    pub(crate) intermediate: Option<Reason>,
    /// A transaction that does not see its own writes.
    pub(crate) internal: Option<Reason>,
}

/// A read or a write within an operation.
pub(crate) enum Micro<'a> {
    Read(&'a str, Option<&'a Value>),
    Write(&'a str, &'a Value),
}

/// Who wrote a value: the operation, and whether it was its last write of that key.
#[derive(Clone, Copy)]
struct Writer {
    operation: usize,
    last: bool,
}

/// The reads and writes of an operation; an error if it is something else.
pub(crate) fn micros(operation: &Operation) -> Result<Vec<Micro<'_>>, String> {
    let call = &operation.call;
    let key = call.key.as_deref().unwrap_or_default();
    let reply = match &operation.outcome {
        Outcome::Ok(reply) => Some(reply),
        Outcome::Fail { .. } | Outcome::Unknown { .. } => None,
    };
    let needs = || format!("`{}` needs a `value` which is not null", call.op);
    match &*call.op {
        "get" | "read" => Ok(vec![Micro::Read(key, reply.and_then(|reply| reply.value.as_ref()))]),
        "put" | "write" => Ok(vec![Micro::Write(key, call.value.as_ref().ok_or_else(needs)?)]),
        "cas" if reply.is_some_and(|reply| reply.value == Some(Value::Bool(true))) => {
            let expect = call.expect.as_ref().ok_or("`cas` needs `expect`")?;
            Ok(vec![
                Micro::Read(key, Some(expect)),
                Micro::Write(key, call.value.as_ref().ok_or_else(needs)?),
            ])
        }
        "txn" => {
            let asked = call.more.get("ops").ok_or("`txn` needs `ops`")?;
            let ops = reply.and_then(|reply| reply.value.as_ref()).unwrap_or(asked);
            let ops = ops.as_array().ok_or("the `ops` of a `txn` are an array")?;
            ops.iter().map(|op| micro(op, reply.is_some())).collect()
        }
        other => Err(format!("`{other}` is neither a read nor a write of a whole value")),
    }
}

fn micro(op: &Value, answered: bool) -> Result<Micro<'_>, String> {
    let wrong = || format!("expected [\"r\", key, value] or [\"w\", key, value], found {op}");
    let [function, key, value] = op.as_array().map(Vec::as_slice).ok_or_else(wrong)? else {
        return Err(wrong());
    };
    let key = key.as_str().ok_or_else(|| format!("a key is a string, found {key}"))?;
    match function.as_str() {
        Some("r") => Ok(Micro::Read(key, Some(value).filter(|_| answered))),
        Some("w") if !value.is_null() => Ok(Micro::Write(key, value)),
        _ => Err(wrong()),
    }
}

/// A read of a value that several may have written.
pub(crate) struct Open {
    /// Index of the operation, and place of the read in it.
    pub(crate) read: (usize, usize),
    /// Operations that wrote the value, in the order of invocation; `None` for the initial value.
    pub(crate) from: Vec<Option<usize>>,
}

/// What open reads are taken to have read from; `None`: left out.
pub(crate) type Choice = HashMap<(usize, usize), Option<Option<usize>>>;

impl Observed {
    /// Finds out who read from whom. The error says why that cannot be known.
    pub(crate) fn of(history: &History) -> Result<Observed, String> {
        let builder = Builder::of(history)?;
        match &builder.repeats {
            Some(why) => Err(why.clone()),
            None => builder.link(&Choice::new()),
        }
    }

    /// The same for a history in which values repeat, with a choice for each of [`Observed::open`].
    pub(crate) fn chosen(history: &History, choice: &Choice) -> Result<Observed, String> {
        Builder::of(history)?.link(choice)
    }

    /// The reads of which it is not known from whom they read.
    pub(crate) fn open(history: &History) -> Result<Vec<Open>, String> {
        let builder = Builder::of(history)?;
        let mut open = Vec::new();
        for (index, micros) in builder.parsed.iter().enumerate() {
            for (place, micro) in micros.iter().enumerate() {
                let Micro::Read(name, Some(value)) = micro else { continue };
                let key = builder.key_ids[*name];
                let own = |micro: &Micro<'_>| matches!(micro, Micro::Write(other, _) if other == name);
                let from = builder.candidates(index, key, value);
                if from.len() > 1 && !micros[..place].iter().any(own) {
                    open.push(Open { read: (index, place), from });
                }
            }
        }
        Ok(open)
    }

    /// Some of the transactions, in their order. What the others wrote was read by nobody then, so reads of it are left out.
    /// Every model here that a history has, such a part of it has as well: its order, or orders, without the others.
    pub(crate) fn part(&self, kept: &[u32]) -> Observed {
        let number: HashMap<u32, u32> = kept.iter().copied().zip(0..).collect();
        let transactions = kept.iter().map(|index| {
            let mut transaction = self.transactions[*index as usize].clone();
            while let Some(previous) = transaction.previous.filter(|previous| !number.contains_key(previous))
            {
                transaction.previous = self.transactions[previous as usize].previous;
            }
            transaction.previous = transaction.previous.map(|previous| number[&previous]);
            transaction.reads.retain(|read| read.from.is_none_or(|from| number.contains_key(&from)));
            transaction.reads.iter_mut().for_each(|read| read.from = read.from.map(|from| number[&from]));
            transaction
        });
        let mut part = Observed {
            transactions: transactions.collect(),
            keys: self.keys.clone(),
            chains: 0,
            impossible: None,
            intermediate: None,
            internal: None,
        };
        let mut chains: HashMap<u32, u32> = HashMap::new();
        for transaction in &mut part.transactions {
            let next = chains.len() as u32;
            transaction.chain = *chains.entry(transaction.chain).or_insert(next);
        }
        part.chains = chains.len();
        part
    }

    /// What no model of transactions allows, if there is such a thing.
    pub(crate) fn broken(&self) -> Option<&Reason> {
        self.impossible.as_ref().or(self.internal.as_ref()).or(self.intermediate.as_ref())
    }

    /// Pairs that the transactions' own sessions and reads put in order.
    pub(crate) fn causes(&self) -> impl Iterator<Item = (u32, u32)> + Clone {
        (0..).zip(&self.transactions).flat_map(|(index, transaction)| {
            let sources = transaction.reads.iter().filter_map(|read| read.from);
            transaction.previous.into_iter().chain(sources).map(move |from| (from, index))
        })
    }
}

struct Builder<'a> {
    history: &'a History,
    key_ids: HashMap<&'a str, u32>,
    keys: Vec<String>,
    /// Who wrote a value, in the order of invocation: one, as a rule.
    writers: HashMap<(u32, &'a Value), Writer>,
    /// The others who wrote the same.
    further: HashMap<(u32, &'a Value), Vec<Writer>>,
    /// A value that was written twice, in words.
    repeats: Option<String>,
    parsed: Vec<Vec<Micro<'a>>>,
}

impl<'a> Builder<'a> {
    fn of(history: &'a History) -> Result<Builder<'a>, String> {
        let mut builder = Builder {
            history,
            key_ids: HashMap::new(),
            keys: Vec::new(),
            writers: HashMap::new(),
            further: HashMap::new(),
            repeats: None,
            parsed: Vec::with_capacity(history.operations.len()),
        };
        builder.collect_writes()?;
        Ok(builder)
    }

    /// All whom a read may have read from.
    fn candidates(&self, reader: usize, key: u32, value: &'a Value) -> Vec<Option<usize>> {
        let initial = (*value == self.history.header.initial).then_some(None);
        let may = |writer: &&Writer| {
            let outcome = &self.history.operations[writer.operation].outcome;
            writer.operation != reader && !matches!(outcome, Outcome::Fail { .. })
        };
        let writers = self.writers.get(&(key, value)).into_iter();
        let writers = writers.chain(self.further.get(&(key, value)).into_iter().flatten()).filter(may);
        initial.into_iter().chain(writers.map(|writer| Some(writer.operation))).collect()
    }

    /// The write that a read is taken to have read, or the initial value (`Ok(None)`); the error: it is left out.
    fn source(
        &self,
        read: (usize, usize),
        key: u32,
        value: &'a Value,
        choice: &Choice,
    ) -> Result<Option<Writer>, ()> {
        let first = self.writers.get(&(key, value)).copied();
        let further = self.further.get(&(key, value));
        let chosen = match choice.get(&read) {
            Some(None) => return Err(()),
            Some(Some(chosen)) => Some(*chosen),
            // The only one that there can be, if there is one.
            None if further.is_some() || *value == self.history.header.initial => {
                self.candidates(read.0, key, value).first().copied()
            }
            None => None,
        };
        let of = |operation: usize| {
            let mut all = first.iter().chain(further.into_iter().flatten());
            all.find(|writer| writer.operation == operation).copied()
        };
        Ok(match chosen {
            Some(chosen) => chosen.and_then(of),
            None => first,
        })
    }

    fn key(&mut self, name: &'a str) -> u32 {
        let next = self.keys.len() as u32;
        let id = *self.key_ids.entry(name).or_insert(next);
        if id == next {
            self.keys.push(name.to_owned());
        }
        id
    }

    fn collect_writes(&mut self) -> Result<(), String> {
        for (index, operation) in self.history.operations.iter().enumerate() {
            let failed_cas = &*operation.call.op == "cas";
            let failed = matches!(operation.outcome, Outcome::Fail { .. });
            // A comparison that failed certainly wrote nothing, but no model here knows what it saw.
            let micros = if failed && failed_cas { Vec::new() } else { micros(operation)? };
            let mut last: HashMap<u32, usize> = HashMap::new();
            for (place, micro) in micros.iter().enumerate() {
                let name = match micro {
                    Micro::Read(key, _) | Micro::Write(key, _) => *key,
                };
                let key = self.key(name);
                if matches!(micro, Micro::Write(..)) {
                    last.insert(key, place);
                }
            }
            for (place, micro) in micros.iter().enumerate() {
                let Micro::Write(name, value) = micro else { continue };
                let key = self.key(name);
                let writer = Writer { operation: index, last: last.get(&key) == Some(&place) };
                let known = *self.writers.entry((key, *value)).or_insert(writer);
                if known.operation == index {
                    // The same transaction wrote it twice: its last write counts.
                    self.writers.insert((key, *value), writer);
                } else {
                    let further = self.further.entry((key, *value)).or_default();
                    further.retain(|known| known.operation != index);
                    further.push(writer);
                    self.repeats.get_or_insert_with(|| {
                        format!("{value} is written to {name:?} twice, so nobody can tell which one was read")
                    });
                }
                if **value == self.history.header.initial {
                    self.repeats.get_or_insert_with(|| {
                        format!("{value} is written to {name:?}, and is its initial value as well")
                    });
                }
            }
            self.parsed.push(micros);
        }
        Ok(())
    }

    fn link(mut self, choice: &Choice) -> Result<Observed, String> {
        let operations = &self.history.operations;
        let parsed = std::mem::take(&mut self.parsed);
        // First what took effect: all that succeeded, and what somebody read from.
        let mut taken: Vec<bool> =
            operations.iter().map(|operation| matches!(operation.outcome, Outcome::Ok(_))).collect();
        for (index, micros) in parsed.iter().enumerate() {
            for (place, micro) in micros.iter().enumerate() {
                let Micro::Read(key, Some(value)) = micro else { continue };
                let source = self.source((index, place), self.key_ids[*key], value, choice);
                let Ok(Some(writer)) = source else { continue };
                taken[writer.operation] |=
                    matches!(operations[writer.operation].outcome, Outcome::Unknown { .. });
            }
        }
        let mut number = vec![u32::MAX; operations.len()];
        let kept = (0..operations.len()).filter(|index| taken[*index]);
        kept.zip(0..).for_each(|(index, next)| number[index] = next);
        let mut observed = Observed {
            transactions: Vec::new(),
            keys: std::mem::take(&mut self.keys),
            chains: 0,
            impossible: None,
            intermediate: None,
            internal: None,
        };
        let mut sessions: HashMap<&str, Session> = HashMap::new();
        for (index, micros) in parsed.iter().enumerate() {
            let operation = &operations[index];
            let name = operation.session.as_deref().unwrap_or(&operation.client);
            let session = sessions.entry(name).or_default();
            if session.busy_until > operation.invoked.order {
                return Err(format!("{name} has several operations open at once, so its order is not known"));
            }
            session.busy_until = operation.returned.map_or(0, |returned| returned.order);
            if taken[index] {
                let mut transaction = session.place(operation, index, &mut observed.chains, number[index]);
                self.observe(index, micros, choice, &number, &mut transaction, &mut observed);
                observed.transactions.push(transaction);
            }
        }
        Ok(observed)
    }

    /// Fills in what a transaction read from others, and wrote.
    fn observe(
        &self,
        index: usize,
        micros: &[Micro<'a>],
        choice: &Choice,
        number: &[u32],
        transaction: &mut Transaction,
        observed: &mut Observed,
    ) {
        let mut own: HashMap<u32, &Value> = HashMap::new();
        let reason = |other: Option<usize>, words: String| {
            let operations = other.into_iter().chain([index]).map(OperationIndex).collect();
            Some(Reason { operations, minimal: true, links: Vec::new(), words })
        };
        for (place, micro) in micros.iter().enumerate() {
            let (name, value) = match micro {
                Micro::Write(name, value) => {
                    let key = self.key_ids[*name];
                    own.insert(key, value);
                    if !transaction.writes.contains(&key) {
                        transaction.writes.push(key);
                    }
                    continue;
                }
                Micro::Read(name, Some(value)) => (*name, *value),
                Micro::Read(_, None) => continue,
            };
            let key = self.key_ids[name];
            if let Some(written) = own.get(&key) {
                if *written != value && observed.internal.is_none() {
                    let words = format!("It wrote {written} to {name:?} and then read {value}.");
                    observed.internal = reason(None, words);
                }
                continue;
            }
            let Ok(writer) = self.source((index, place), key, value, choice) else { continue };
            let from = match writer {
                None if *value == self.history.header.initial => None,
                None => {
                    let words = format!("It read {value} from {name:?}, which nobody ever wrote.");
                    observed.impossible = observed.impossible.take().or_else(|| reason(None, words));
                    continue;
                }
                Some(writer) if number[writer.operation] == u32::MAX => {
                    let words = format!("It read {value} from {name:?}, whose writer failed.");
                    observed.impossible =
                        observed.impossible.take().or_else(|| reason(Some(writer.operation), words));
                    continue;
                }
                Some(writer) if writer.operation == index => {
                    let words = format!("It read {value} from {name:?} before it wrote it itself.");
                    observed.impossible = observed.impossible.take().or_else(|| reason(None, words));
                    continue;
                }
                Some(writer) => {
                    if !writer.last && observed.intermediate.is_none() {
                        let words =
                            format!("It read {value} from {name:?}, which its writer then overwrote itself.");
                        observed.intermediate = reason(Some(writer.operation), words);
                    }
                    Some(number[writer.operation])
                }
            };
            let read = Read { key, from };
            if !transaction.reads.contains(&read) {
                transaction.reads.push(read);
            }
        }
    }
}

#[derive(Default)]
struct Session {
    busy_until: u64,
    chain: Option<u32>,
    length: u32,
    last: Option<u32>,
}

impl Session {
    fn place(&mut self, operation: &Operation, index: usize, chains: &mut usize, number: u32) -> Transaction {
        let known = matches!(operation.outcome, Outcome::Ok(_));
        let previous = self.last;
        let mut new_chain = || {
            *chains += 1;
            *chains as u32 - 1
        };
        let (chain, place) = if known {
            let chain = *self.chain.get_or_insert_with(new_chain);
            self.length += 1;
            self.last = Some(number);
            (chain, self.length - 1)
        } else {
            (new_chain(), 0)
        };
        let ret = operation.returned.filter(|_| known).map_or(NEVER, |returned| returned.order);
        Transaction {
            operation: OperationIndex(index),
            chain,
            place,
            previous,
            invoke: operation.invoked.order,
            ret,
            reads: Vec::new(),
            writes: Vec::new(),
        }
    }
}
