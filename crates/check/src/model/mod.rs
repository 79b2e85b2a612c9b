//! Sequential objects: what a correct system would answer if operations came one at a time.

use std::fmt;
use std::hash::Hash;

use serde_json::Value;

use crate::history::{Call, Operation, Outcome, Reply};

mod bank;
mod counter;
mod election;
mod etcd;
mod etcd_txn;
mod key_value;
mod lock;
mod sequence;
mod set;

pub use bank::{Bank, BankAnswer, BankOp};
pub use counter::{Counter, CounterOp};
pub use election::{Election, ElectionAnswer, ElectionOp, Leadership};
pub(crate) use etcd::Effect;
pub use etcd::{Etcd, EtcdAnswer, EtcdOp, EtcdState, Held, Seen};
pub use etcd_txn::EtcdTxn;
pub use key_value::{KeyValue, KeyValueOp};
pub use lock::{Lock, LockAnswer, LockOp, LockState};
pub use sequence::{Sequence, SequenceOp};
pub use set::{Set, SetAnswer, SetOp};

/// One operation of a part, decoded. `invoke` < `ret`; all finite moments of a part are distinct.
pub struct Entry<M: Model + ?Sized> {
    /// What was asked.
    pub op: M::Op,
    /// What was answered; `None` if the outcome is unknown.
    pub answer: Option<M::Answer>,
    /// When it was asked, as [`crate::history::Moment::order`].
    pub invoke: u64,
    /// When it returned; [`NEVER`] if it need not return, and may be left out.
    pub ret: u64,
}

impl<M: Model + ?Sized> Clone for Entry<M> {
    fn clone(&self) -> Self {
        Entry { op: self.op.clone(), answer: self.answer.clone(), invoke: self.invoke, ret: self.ret }
    }
}

/// The return of an operation that need not return.
pub const NEVER: u64 = u64::MAX;

/// What a model's own algorithm found out about a part, see [`Model::shortcut`]. Numbers are indices of
/// the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortcut {
    /// It does not apply here; search.
    None,
    /// An order of all entries that must return, and of some that need not.
    Order(Vec<u32>),
    /// These few alone have no order, and no further operation of this history could give them one.
    Contradiction(Vec<u32>),
    /// There is no order, since what these few say cannot be true together in this history; why, for people.
    Few(Vec<u32>, String),
    /// There is no order; this is the entry at whose return the part stops having one.
    Stuck(u32),
}

/// A sequential object: an initial state and a pure step.
///
/// `step` must be deterministic and depend on nothing but its arguments. Parts are judged on several threads.
pub trait Model: Sync {
    /// A call, decoded.
    type Op: Clone + Eq + Hash + fmt::Debug + Sync;
    /// An answer, decoded. A call of unknown outcome has none.
    type Answer: Clone + Eq + Hash + fmt::Debug + Sync;
    /// The object's state (of one part, if [`Model::part`] divides it).
    type State: Clone + Eq + Hash + fmt::Debug + Send;

    /// Reads a call and, if the outcome is known to be a success, its answer. The error says what
    /// was found and what was expected.
    fn decode(&self, call: &Call, reply: Option<&Reply>) -> Result<(Self::Op, Option<Self::Answer>), String>;

    /// As above, where it also matters who asked (the owner of a lock).
    fn decode_operation(&self, operation: &Operation) -> Result<(Self::Op, Option<Self::Answer>), String> {
        let reply = match &operation.outcome {
            Outcome::Ok(reply) => Some(reply),
            Outcome::Fail { .. } | Outcome::Unknown { .. } => None,
        };
        self.decode(&operation.call, reply)
    }

    /// The part of the object that an operation touches. Parts are independent: an object is
    /// linearizable if and only if each part is (Herlihy and Wing 1990, theorem 1). `None`: it may
    /// touch several, and then nothing is divided.
    fn part<'a>(&self, op: &'a Self::Op) -> Option<&'a str>;

    /// The state before the first operation.
    fn init(&self) -> Self::State;

    /// The state after `op` in `state`, or `None` if `op` cannot give this answer in `state`. An
    /// operation of unknown outcome (`answer` is `None`) does what it would do.
    fn step(&self, state: &Self::State, op: &Self::Op, answer: Option<&Self::Answer>) -> Option<Self::State>;

    /// Whether the operation, with this answer, leaves *every* state in which it is possible as it
    /// was. The search orders such an operation as soon as it fits. Saying `false` is always sound.
    fn is_read_only(&self, op: &Self::Op, answer: Option<&Self::Answer>) -> bool;

    /// For short contradictions: states such that, whatever `free` operations do to the object, and
    /// however often, the `kept` operations cannot tell the outcome from one of these. May name too
    /// many, but never too few. `None`: this model cannot say, and contradictions stay longer.
    fn free_states(
        &self,
        _free: &[&Self::Op],
        _kept: &[(&Self::Op, Option<&Self::Answer>)],
    ) -> Option<Vec<Self::State>> {
        None
    }

    /// A hint for short contradictions: whether `op` may have produced what `answer` to `asked` shows,
    /// so that it belongs into an explanation of why that answer is wrong. Any answer is sound.
    fn may_explain(&self, _op: &Self::Op, _asked: &Self::Op, _answer: Option<&Self::Answer>) -> bool {
        false
    }

    /// An algorithm of the model's own, cheaper than search, for parts that allow it.
    fn shortcut(&self, _entries: &[Entry<Self>]) -> Shortcut
    where
        Self: Sized,
    {
        Shortcut::None
    }

    /// For short contradictions: operations of one strand may be left out together, and what is left
    /// of a history with an order still has one (all operations on one element of a queue, for
    /// instance). `None`: this model has no strands.
    fn strand(&self, _op: &Self::Op, _answer: Option<&Self::Answer>) -> Option<String> {
        None
    }

    /// Entries of a few strands of a part, without what their answers say of the strands that were left out (the
    /// rest of a set that was read, for instance).
    fn narrow(&self, kept: Vec<Entry<Self>>, _part: &[Entry<Self>]) -> Vec<Entry<Self>>
    where
        Self: Sized,
    {
        kept
    }

    /// Bytes that one state takes, roughly; charged to the budget of memory.
    fn state_bytes(&self, _state: &Self::State) -> usize {
        size_of::<Self::State>()
    }

    /// The state as a person would write it.
    fn describe(&self, state: &Self::State) -> String {
        format!("{state:?}")
    }
}

/// The argument of a call, which must not be null.
fn argument(call: &Call) -> Result<Value, String> {
    match &call.value {
        Some(value) if !value.is_null() => Ok(value.clone()),
        _ => Err(format!("`{}` needs a `value` which is not null", call.op)),
    }
}

/// The answer's value where it is true, false or nothing.
fn boolean(call: &Call, reply: &Reply) -> Result<Option<bool>, String> {
    match &reply.value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(answer)) => Ok(Some(*answer)),
        Some(other) => Err(format!("the answer to `{}` is true, false or nothing, found {other}", call.op)),
    }
}

/// A whole number, wherever it stands.
fn integer(what: &str, value: &Value) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("{what} is a whole number of 64 bits, found {value}"))
}

/// For operations that the object does not have.
fn unknown(call: &Call, object: &str, has: &str) -> String {
    format!("`{}` is no operation of a {object}; it has {has}", call.op)
}
