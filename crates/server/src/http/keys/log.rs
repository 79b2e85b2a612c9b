//! Keys of keyspaces on the log: every member has them, and reads say how far they must have come.

use super::super::level::{in_session, seen_on_log};
use super::super::reply::{ApiError, Content};
use super::super::{Call, keyspaces, leader, session_text, text};
use super::write::{Change, KeyWrite};
use super::{LIST_BYTES_MAX, List, bad_request, only_registers};
use crate::calls::AskError;
use crate::hosted::{self, Asked, Branch, HostedError, TIMEOUT_MAX, Work};
use crate::member::Member;
use crate::session::WAIT;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::rc::Rc;
use synod_node::ClientError;
use synod_node::spaces::{Model, Space};
use synod_protocols::commit::{Decision, KeyOp, Refusal};
use synod_protocols::log::{Index, ReplicatedLog};

/// Waits until this member may read at a level, and says what the session has seen.
async fn ready<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    call: &Call,
    space: &Space,
    level: Model,
) -> Result<Index, ApiError> {
    let seen = seen_on_log(member, call, space)?;
    match level {
        Model::Linearizable => keyspaces::reached(member).await?,
        // One order for all, and in it never back: this is causal as well.
        Model::Sequential | Model::Causal => member.catch_up(seen, WAIT).await?,
        Model::Eventual => {}
    }
    // It may have been dropped meanwhile, and another one made under its name.
    match keyspaces::known(member, &space.name)?.id == space.id {
        true => Ok(seen),
        false => Err(keyspaces::unknown(&space.name)),
    }
}

pub(super) async fn read<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
    space: &Space,
    level: Model,
    key: Bytes,
) -> Result<Response<Content>, ApiError> {
    if key.first() == Some(&0) {
        let why = "a key that begins with a zero byte is Synod's own: choose another one";
        return Err(bad_request("key", why.into()));
    }
    let seen = ready(member, call, space, level).await?;
    let (value, applied) = {
        let core = member.core.borrow();
        let value = core.node.machine().value(space.id, &key).map_err(|error| disk(&error))?;
        (value, core.node.status().applied)
    };
    let value = value.map_or(Value::Null, |value| text::shown(&value));
    let answer = json!({"key": text::shown(&key), "value": value, "consistency": level.to_string()});
    Ok(answered(member, space, answer, applied.max(seen)))
}

pub(super) async fn list<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
    space: &Space,
    level: Model,
    list: &List,
) -> Result<Response<Content>, ApiError> {
    let seen = ready(member, call, space, level).await?;
    let (found, applied) = {
        let core = member.core.borrow();
        let after = list.after.clone().unwrap_or_default();
        let found = core.node.machine().values(space.id, &list.prefix, &after, list.limit + 1);
        (found.map_err(|error| disk(&error))?, core.node.status().applied)
    };
    let (mut keys, mut bytes, mut last) = (Vec::new(), 0, None);
    let count = found.len();
    for (key, value) in found {
        bytes += key.len() + value.len();
        if keys.len() == list.limit || (bytes > LIST_BYTES_MAX && !keys.is_empty()) {
            break;
        }
        keys.push(json!({"key": text::shown(&key), "value": text::shown(&value)}));
        last = Some(key);
    }
    let more = keys.len() < count;
    let mut answer = json!({"keys": keys, "more": more, "consistency": level.to_string()});
    if let Some(last) = last.filter(|_| more) {
        answer["next"] = session_text::to_text(&last).into();
    }
    Ok(answered(member, space, answer, applied.max(seen)))
}

/// Writes at the leader, as a transaction of one participant: one entry of the log.
pub(super) async fn write<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
    space: &Space,
    writes: Vec<KeyWrite>,
) -> Result<Response<Content>, ApiError> {
    let mut keys = BTreeSet::new();
    if let Some(twice) = writes.iter().find(|write| !keys.insert(write.key.clone())) {
        let key = String::from_utf8_lossy(&twice.key);
        let why = format!("the key `{}` is written twice; write each key once", key.escape_debug());
        return Err(bad_request("twice", why));
    }
    let written = writes.len();
    let work = work(space, writes)?;
    let seen = seen_on_log(member, call, space)?;
    leader::redirect(member, call)?;
    let branch = Branch { participant: space.name.clone(), work: Work::Keys(work) };
    let timeout = member.config.request_timeout.min(TIMEOUT_MAX);
    let ended = hosted::run(member, vec![branch], Asked::OneEntry, timeout).await;
    let ended = match ended {
        // Another member has begun to lead since it was looked at.
        Err(HostedError::NotLeader) => {
            leader::redirect(member, call)?;
            return Err(AskError::Node(ClientError::NoLeader).into());
        }
        Err(HostedError::Unknown(name)) => return Err(keyspaces::unknown(&name)),
        ended => ended?,
    };
    match ended.decision {
        Decision::Commit => Ok(answered(member, space, json!({"written": written}), ended.index.max(seen))),
        Decision::Abort => Err(aborted(ended.refusal, ended.why)),
    }
}

/// All conditions first: they are about the values before.
fn work(space: &Space, writes: Vec<KeyWrite>) -> Result<Vec<KeyOp>, ApiError> {
    let (mut conditions, mut puts) = (Vec::new(), Vec::new());
    for KeyWrite { key, change, condition } in writes {
        let Change::Put(value) = change else { return Err(only_registers(space)) };
        let key = String::from_utf8(key.into()).map_err(|_| {
            let why =
                "a key of a keyspace on the log is text, and this one is not UTF-8: encode it, as in base64";
            bad_request("key", why.into())
        })?;
        conditions.extend(condition.map(|value| KeyOp::Expect { key: key.clone(), value }));
        puts.push(KeyOp::Put { key, value });
    }
    conditions.append(&mut puts);
    Ok(conditions)
}

/// Why nothing was written.
fn aborted(refusal: Option<Refusal>, why: Option<String>) -> ApiError {
    let conflict = StatusCode::CONFLICT;
    match refusal {
        Some(Refusal::Unexpected { name }) => {
            let key = name.escape_debug();
            let why = format!(
                "the value of `{key}` is not what \"if\" says, so nothing was written: read it, and try again"
            );
            ApiError::new(conflict, "precondition", why)
        }
        Some(Refusal::Locked { name, holder }) => {
            let key = name.escape_debug();
            let why =
                format!("`{key}` is locked by the transaction {holder}, so nothing was written: try again");
            ApiError::new(conflict, "locked", why)
        }
        Some(Refusal::Busy) => AskError::Node(ClientError::Busy).into(),
        _ => {
            let why = why.unwrap_or_else(|| "it was aborted".to_owned());
            ApiError::new(conflict, "refused", format!("nothing was written: {why}"))
        }
    }
}

fn answered<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    space: &Space,
    answer: Value,
    index: Index,
) -> Response<Content> {
    in_session(answer, member.seal().map(|seal| seal.log_token(space.id, index)))
}

fn disk(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "storage",
        format!("this member cannot read its state ({error}): ask another one"),
    )
}
