//! Keys of keyspaces on the log: every member has them, and reads say how far they must have come.

use super::super::level::{in_session, seen_on_log};
use super::super::reply::{ApiError, Content};
use super::super::{Call, keyspaces, leader, session_text, text};
use super::write::{Change, KeyWrite};
use super::{LIST_BYTES_MAX, List, bad_request, only_registers};
use crate::hosted::{self, Asked, Branch, Ended, Work};
use crate::member::Member;
use crate::session::WAIT;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::rc::Rc;
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

/// Writes at the leader, as one entry of the log.
pub(super) async fn write<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
    space: &Space,
    writes: Vec<KeyWrite>,
) -> Result<Response<Content>, ApiError> {
    let mut keys = BTreeSet::new();
    if let Some(twice) = writes.iter().find(|write| !keys.insert(write.key.clone())) {
        let key = String::from_utf8_lossy(&twice.key);
        return Err(bad_request(
            "twice",
            format!("the key `{}` is written twice; write each key once", key.escape_debug()),
        ));
    }
    let written = writes.len();
    let mut ops = Vec::new();
    for KeyWrite { key, change, condition } in writes {
        let key = String::from_utf8(key.into()).map_err(|_| {
            let why = format!(
                "`{}` is on the log, and the keys of such a keyspace are text: use UTF-8",
                space.name
            );
            bad_request("key", why)
        })?;
        if let Some(value) = condition {
            ops.push(KeyOp::Expect { key: key.clone(), value });
        }
        let Change::Put(value) = change else { return Err(only_registers(space)) };
        ops.push(KeyOp::Put { key, value });
    }
    let seen = seen_on_log(member, call, space)?;
    leader::redirect(member, call)?;
    let branches = vec![Branch { participant: space.name.clone(), work: Work::Keys(ops) }];
    let ended = hosted::run(member, branches, Asked::OneEntry, member.config.request_timeout).await?;
    match ended.decision {
        Decision::Commit => Ok(answered(member, space, json!({"written": written}), ended.index.max(seen))),
        Decision::Abort => Err(refused(&ended)),
    }
}

/// Why nothing was written.
fn refused(ended: &Ended) -> ApiError {
    let (code, why) = match &ended.refusal {
        Some(Refusal::Unexpected { name }) => (
            "precondition",
            format!(
                "the value of `{}` is not what \"if\" says, so nothing was written: read it, and try again",
                name.escape_debug()
            ),
        ),
        Some(Refusal::Locked { name, holder }) => (
            "locked",
            format!(
                "`{}` is locked by the transaction {holder}, so nothing was written: try again when that is over",
                name.escape_debug()
            ),
        ),
        _ => {
            ("refused", format!("nothing was written: {}", ended.why.as_deref().unwrap_or("it was aborted")))
        }
    };
    ApiError::new(StatusCode::CONFLICT, code, why)
}

fn answered<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    space: &Space,
    answer: Value,
    index: Index,
) -> Response<Content> {
    let answer = match answer {
        Value::Object(answer) => answer,
        _ => Map::new(),
    };
    in_session(answer, member.log_token(space.id, index))
}

fn disk(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "storage",
        format!("this member cannot read its state ({error}): ask another one"),
    )
}
