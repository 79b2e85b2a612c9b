//! Mutexes, and locks that may expire and therefore hand out fencing tokens.

use serde_json::Value;

use super::{Model, boolean, integer, unknown};
use crate::history::{Call, History, Operation, Outcome, Reply};

/// A lock: `acquire`, `release`, and `use` of what it guards.
///
/// - A *mutex* is held by one owner at a time; `acquire` succeeds only when it is free, `release` only by its
///   owner. Either may answer `false`: it was not free, or not the caller's.
/// - A lock with *fencing tokens* may expire, so somebody else may acquire it any time; each token must be
///   larger than all before it (Kleppmann, "How to do distributed locking", 2016). `use` of the guarded
///   resource carries a `token` and must be refused (`false`) once a larger one was used.
///
/// The owner is the operation's session, or its client where it names none.
#[derive(Clone, Debug, Default)]
pub struct Lock {
    expires: bool,
}

/// An operation of a [`Lock`]: key, then owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LockOp {
    /// Take the lock.
    Acquire(String, String),
    /// Give it back.
    Release(String, String),
    /// Use what the lock guards, with this token.
    Use(String, i64),
}

/// The state of one [`Lock`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LockState {
    /// Who holds it.
    pub holder: Option<String>,
    /// The largest token handed out.
    pub issued: Option<i64>,
    /// The largest token used.
    pub used: Option<i64>,
}

/// What a [`Lock`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockAnswer {
    /// Done, without a token.
    Done,
    /// Done; an `acquire` with this token.
    Token(i64),
    /// Not done.
    Refused,
}

impl Lock {
    /// A lock that never expires.
    pub fn mutex() -> Lock {
        Lock { expires: false }
    }

    /// A lock with fencing tokens, which may expire unless the header says `"expires": false`.
    pub fn fenced(history: &History) -> Lock {
        Lock { expires: history.header.more.get("expires") != Some(&Value::Bool(false)) }
    }
}

impl Model for Lock {
    type Op = LockOp;
    type Answer = LockAnswer;
    type State = LockState;

    fn decode(&self, call: &Call, reply: Option<&Reply>) -> Result<(LockOp, Option<LockAnswer>), String> {
        let key = call.key.as_deref().unwrap_or_default().to_owned();
        let op = match &*call.op {
            "acquire" | "lock" => LockOp::Acquire(key, String::new()),
            "release" | "unlock" => LockOp::Release(key, String::new()),
            "use" => match call.more.get("token").or(call.value.as_ref()) {
                Some(token) => LockOp::Use(key, integer("a `token`", token)?),
                None => return Err("`use` needs a `token`".into()),
            },
            _ => return Err(unknown(call, "lock", "acquire, release and use")),
        };
        let Some(reply) = reply else { return Ok((op, None)) };
        let answer = match &reply.value {
            Some(token @ Value::Number(_)) if matches!(op, LockOp::Acquire(..)) => {
                LockAnswer::Token(integer("a fencing token", token)?)
            }
            _ if boolean(call, reply)? == Some(false) => LockAnswer::Refused,
            _ => LockAnswer::Done,
        };
        Ok((op, Some(answer)))
    }

    fn decode_operation(&self, operation: &Operation) -> Result<(LockOp, Option<LockAnswer>), String> {
        let reply = match &operation.outcome {
            Outcome::Ok(reply) => Some(reply),
            Outcome::Fail { .. } | Outcome::Unknown { .. } => None,
        };
        let (mut op, answer) = self.decode(&operation.call, reply)?;
        if let LockOp::Acquire(_, owner) | LockOp::Release(_, owner) = &mut op {
            *owner = operation.session.as_ref().unwrap_or(&operation.client).to_string();
        }
        Ok((op, answer))
    }

    fn part<'a>(&self, op: &'a LockOp) -> Option<&'a str> {
        match op {
            LockOp::Acquire(key, _) | LockOp::Release(key, _) | LockOp::Use(key, _) => Some(key),
        }
    }

    fn init(&self) -> LockState {
        LockState::default()
    }

    fn step(&self, state: &LockState, op: &LockOp, answer: Option<&LockAnswer>) -> Option<LockState> {
        let refused = answer == Some(&LockAnswer::Refused);
        match op {
            LockOp::Acquire(_, owner) => {
                let free = state.holder.is_none();
                if refused {
                    return (!free).then(|| state.clone());
                }
                if !free && !self.expires {
                    // Of unknown outcome: it would have been refused. Answered: it should have been.
                    return answer.is_none().then(|| state.clone());
                }
                let token = match answer {
                    Some(LockAnswer::Token(token)) => Some(*token),
                    _ => None,
                };
                if token.is_some() && state.issued >= token {
                    return None;
                }
                let issued = token.or(state.issued);
                Some(LockState { holder: Some(owner.clone()), issued, used: state.used })
            }
            LockOp::Release(_, owner) => {
                let own = state.holder.as_ref() == Some(owner);
                let free = LockState { holder: None, ..state.clone() };
                match answer {
                    Some(LockAnswer::Refused) => (!own || self.expires).then(|| state.clone()),
                    // A holder whose lock expired may be told that it is released: it holds it no more.
                    Some(_) if !own => self.expires.then(|| state.clone()),
                    None if !own => Some(state.clone()),
                    _ => Some(free),
                }
            }
            LockOp::Use(_, token) => {
                let stale = state.used > Some(*token);
                if answer.is_some() && refused != stale {
                    return None;
                }
                let used = if stale { state.used } else { Some(*token) };
                Some(LockState { used, ..state.clone() })
            }
        }
    }

    fn is_read_only(&self, _op: &LockOp, answer: Option<&LockAnswer>) -> bool {
        answer == Some(&LockAnswer::Refused)
    }

    fn describe(&self, state: &LockState) -> String {
        let holder = state.holder.as_ref().map_or("free".to_owned(), |holder| format!("held by {holder}"));
        let issued = state.issued.map_or(String::new(), |token| format!(", token {token}"));
        let used = state.used.map_or(String::new(), |token| format!(", used with {token}"));
        format!("{holder}{issued}{used}")
    }
}
