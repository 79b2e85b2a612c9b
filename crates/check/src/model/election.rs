//! Leader election: `campaign`, `resign`, and `leader`, which asks who leads.

use serde_json::Value;

use super::{Model, boolean, integer, unknown};
use crate::history::{Call, Operation, Outcome, Reply};

/// An office with at most one holder. A successful `campaign` may answer with its term, and terms must grow: a
/// leader may be deposed without its knowledge, but then the next one has a larger term. Without a term, a campaign
/// succeeds only while nobody leads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Election;

/// An operation of an [`Election`]: key, then who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElectionOp {
    /// Become leader.
    Campaign(String, String),
    /// Be leader no more.
    Resign(String, String),
    /// Ask who leads; null for nobody.
    Leader(String),
}

/// What an [`Election`] answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElectionAnswer {
    /// Done, without a term.
    Done,
    /// Elected in this term.
    Term(i64),
    /// Not done.
    Refused,
    /// Who leads.
    Leads(Option<String>),
}

/// The state of an [`Election`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Leadership {
    /// Who leads.
    pub leader: Option<String>,
    /// The largest term that was won.
    pub term: Option<i64>,
}

impl Model for Election {
    type Op = ElectionOp;
    type Answer = ElectionAnswer;
    type State = Leadership;

    fn decode(
        &self,
        call: &Call,
        reply: Option<&Reply>,
    ) -> Result<(ElectionOp, Option<ElectionAnswer>), String> {
        let key = call.key.as_deref().unwrap_or_default().to_owned();
        let op = match &*call.op {
            "campaign" => ElectionOp::Campaign(key, String::new()),
            "resign" => ElectionOp::Resign(key, String::new()),
            "leader" => ElectionOp::Leader(key),
            _ => return Err(unknown(call, "leader election", "campaign, resign and leader")),
        };
        let Some(reply) = reply else { return Ok((op, None)) };
        let answer = match (&op, &reply.value) {
            (ElectionOp::Leader(_), Some(Value::Null)) => ElectionAnswer::Leads(None),
            (ElectionOp::Leader(_), Some(Value::String(name))) => ElectionAnswer::Leads(Some(name.clone())),
            (ElectionOp::Leader(_), _) => {
                return Err("the answer to `leader` is a client's name, or null for nobody".into());
            }
            (ElectionOp::Campaign(..), Some(term @ Value::Number(_))) => {
                ElectionAnswer::Term(integer("a term", term)?)
            }
            _ if boolean(call, reply)? == Some(false) => ElectionAnswer::Refused,
            _ => ElectionAnswer::Done,
        };
        Ok((op, Some(answer)))
    }

    fn decode_operation(
        &self,
        operation: &Operation,
    ) -> Result<(ElectionOp, Option<ElectionAnswer>), String> {
        let reply = match &operation.outcome {
            Outcome::Ok(reply) => Some(reply),
            Outcome::Fail { .. } | Outcome::Unknown { .. } => None,
        };
        let (mut op, answer) = self.decode(&operation.call, reply)?;
        if let ElectionOp::Campaign(_, who) | ElectionOp::Resign(_, who) = &mut op {
            *who = operation.session.as_ref().unwrap_or(&operation.client).to_string();
        }
        Ok((op, answer))
    }

    fn part<'a>(&self, op: &'a ElectionOp) -> Option<&'a str> {
        match op {
            ElectionOp::Campaign(key, _) | ElectionOp::Resign(key, _) | ElectionOp::Leader(key) => Some(key),
        }
    }

    fn init(&self) -> Leadership {
        Leadership::default()
    }

    fn step(
        &self,
        state: &Leadership,
        op: &ElectionOp,
        answer: Option<&ElectionAnswer>,
    ) -> Option<Leadership> {
        match (op, answer) {
            (ElectionOp::Campaign(_, who), Some(ElectionAnswer::Term(term))) => (state.term < Some(*term))
                .then(|| Leadership { leader: Some(who.clone()), term: Some(*term) }),
            (ElectionOp::Campaign(..), Some(ElectionAnswer::Refused)) => {
                state.leader.is_some().then(|| state.clone())
            }
            (ElectionOp::Campaign(_, who), _) => match &state.leader {
                Some(leader) if leader != who => answer.is_none().then(|| state.clone()),
                _ => Some(Leadership { leader: Some(who.clone()), ..state.clone() }),
            },
            (ElectionOp::Resign(_, who), _) => {
                let leads = state.leader.as_ref() == Some(who);
                let refused = answer == Some(&ElectionAnswer::Refused);
                if refused && leads {
                    return None;
                }
                let leader = if leads { None } else { state.leader.clone() };
                Some(Leadership { leader, ..state.clone() })
            }
            (ElectionOp::Leader(_), Some(ElectionAnswer::Leads(seen))) => {
                (*seen == state.leader).then(|| state.clone())
            }
            (ElectionOp::Leader(_), _) => Some(state.clone()),
        }
    }

    fn is_read_only(&self, op: &ElectionOp, answer: Option<&ElectionAnswer>) -> bool {
        matches!(op, ElectionOp::Leader(_)) || answer == Some(&ElectionAnswer::Refused)
    }

    fn describe(&self, state: &Leadership) -> String {
        let leader = state.leader.as_deref().unwrap_or("nobody");
        let term = state.term.map_or(String::new(), |term| format!(" in term {term}"));
        format!("{leader} leads{term}")
    }
}
