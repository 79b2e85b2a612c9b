//! Keys of keyspaces on the log: every member has them, and reads say how far they must have come.

use super::super::level::{in_session, seen_on_log};
use super::super::reply::{ApiError, Content};
use super::super::{Call, keyspaces, leader, session_text, text};
use super::write::{Change, KeyWrite};
use super::{LIST_BYTES_MAX, List, bad_request, only_registers};
use crate::member::Member;
use crate::session::WAIT;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::rc::Rc;
use synod_node::spaces::{self, Command, Done, KeyChange, Model, Space};
use synod_node::{Outcome, Request};
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
    let change = |write: KeyWrite| match write.change {
        Change::Put(value) => Ok(KeyChange { key: write.key, value, condition: write.condition }),
        _ => Err(only_registers(space)),
    };
    let changes = writes.into_iter().map(change).collect::<Result<_, _>>()?;
    let seen = seen_on_log(member, call, space)?;
    leader::redirect(member, call)?;
    let command = Command::Write { name: space.name.clone(), space: space.id, changes };
    let index = match member.ask(Request::Command(command.to_log())).await? {
        Outcome::Applied { index, response: spaces::Response::Spaces(Ok(Done::Written)) } => index,
        Outcome::Applied { response: spaces::Response::Spaces(Err(why)), .. } => {
            return Err(keyspaces::refusal(why));
        }
        _ => unreachable!("a write is answered in kind"),
    };
    Ok(answered(member, space, json!({"written": written}), index.max(seen)))
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
