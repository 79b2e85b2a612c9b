//! Keys of keyspaces: reading and writing them, at the level that a request asks for.
//!
//! This file says what requests mean; [`log`] serves keyspaces on the replicated log, [`weak`] those that are processes of
//! their own.

mod document;
mod log;
mod watched;
mod weak;
mod write;

pub(super) use document::paths;

use super::level::{asked, bad_request};
use super::reply::{ApiError, Content};
use super::{Call, keyspaces, no_such_path, session_text};
use crate::clock;
use crate::member::Member;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use std::rc::Rc;
use synod_node::spaces::Space;
use synod_protocols::log::ReplicatedLog;
use synod_protocols::weak::Kind;
use watched::Does;

/// Bytes of a key at the most.
pub(super) const KEY_BYTES_MAX: usize = 4 << 10;
/// Keys in one answer at the most, and if nothing is said.
pub(super) const LIST_MAX: usize = 1_000;
pub(super) const LIST_DEFAULT: usize = 100;
/// Bytes of keys and values in one answer, unless the first one alone has more.
const LIST_BYTES_MAX: usize = 4 << 20;
/// Writes in one batch, and elements of one write of a set, at the most.
pub(super) const BATCH_MAX: usize = 128;

pub(super) async fn answer<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
) -> Result<Response<Content>, ApiError> {
    let path: Vec<&str> = call.path.iter().skip(1).map(String::as_str).collect();
    let [name, rest @ ..] = path.as_slice() else { return Err(no_such_path(call)) };
    let space = keyspaces::find(member, name).await?;
    let level = asked(call, &space)?;
    let key = || checked_key(call.segments.last().cloned().unwrap_or_default());
    let one = |write| Ok::<_, ApiError>(vec![write]);
    let writes = match (&call.method, rest) {
        (&Method::GET, ["keys"]) => {
            let list = List::of(call, &space)?;
            return match space.model.is_on_log() {
                true => log::list(member, call, &space, level, &list).await,
                false => weak::list(member, call, &space, level, &list).await,
            };
        }
        (&Method::GET, ["keys", _]) => {
            let (key, kind) = (key()?, kind(call, &space)?);
            let watched = watched::begin(member, call, (&space, level), &Does::Read(kind, &key));
            let answer = match space.model.is_on_log() {
                true => log::read(member, call, &space, level, key).await,
                false => weak::read(member, call, &space, level, kind, key).await,
            };
            watched.end(member, &answer);
            return answer;
        }
        (&Method::PUT, ["keys", _]) => one(write::of_put(member, call, key()?)?)?,
        (&Method::DELETE, ["keys", _]) => one(write::of_delete(call, key()?, kind(call, &space)?)?)?,
        (&Method::POST, ["batch"]) => write::of_batch(member, call)?,
        _ => return Err(no_such_path(call)),
    };
    let watched = watched::begin(member, call, (&space, level), &Does::Write(&writes));
    let answer = match space.model.is_on_log() {
        true => log::write(member, call, &space, writes).await,
        false => weak::write(member, call, &space, level, writes).await,
    };
    watched.end(member, &answer);
    answer
}

/// Tells watchers that something else than operations on keys changes a keyspace: a transaction, or a saga.
pub(super) fn tell_changed_otherwise<P: ReplicatedLog + 'static>(member: &Member<P>, name: &str) {
    let core = &mut *member.core.borrow_mut();
    let space = core.node.machine().registry().space(name).map(|space| space.id.0);
    if let Some(id) = space {
        core.events.hole(clock::now(), Some(id), "transactions");
    }
}

/// Whether this member has seen that a weak keyspace holds anything.
pub(super) fn weak_holds_keys<P: ReplicatedLog + 'static>(member: &Member<P>, space: &Space) -> bool {
    weak::holds_keys(member, space)
}

/// A key that may be one.
fn checked_key(key: Bytes) -> Result<Bytes, ApiError> {
    match key.len() {
        0 => Err(bad_request("key-empty", "an empty key: name one behind /keys/, percent-encoded".into())),
        1..=KEY_BYTES_MAX => Ok(key),
        bytes => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format!("a key of {bytes} bytes; at most {KEY_BYTES_MAX} are taken"),
        )),
    }
}

/// The kind of object that the query names: a register if it names none.
fn kind(call: &Call, space: &Space) -> Result<Kind, ApiError> {
    call.query("kind").map_or(Ok(Kind::Register), |name| parse_kind(name, space))
}

fn parse_kind(name: &str, space: &Space) -> Result<Kind, ApiError> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.to_string() == name);
    let Some(kind) = kind else {
        let names = Kind::ALL.map(|kind| kind.to_string()).join(", ");
        return Err(bad_request("kind-unknown", format!("there is no kind `{name}`; there is: {names}")));
    };
    if space.model.is_on_log() && kind != Kind::Register {
        return Err(only_registers(space));
    }
    Ok(kind)
}

fn only_registers(space: &Space) -> ApiError {
    let (name, model) = (&space.name, space.model);
    let why = format!(
        "the keyspace `{name}` is {model} and holds registers only: its writes are ordered, so there is nothing to merge. Kinds that \
         converge are for causal and eventual keyspaces"
    );
    bad_request("kind-not-here", why)
}

/// What a list asks for.
struct List {
    prefix: Bytes,
    limit: usize,
    /// Where the list before ended.
    after: Option<Bytes>,
    kind: Option<Kind>,
}

impl List {
    fn of(call: &Call, space: &Space) -> Result<List, ApiError> {
        let limit = match call.query("limit") {
            None => LIST_DEFAULT,
            Some(text) => {
                let limit = text.parse().ok().filter(|limit| (1..=LIST_MAX).contains(limit));
                limit.ok_or_else(|| {
                    bad_request(
                        "limit",
                        format!("the limit `{text}` is not a number from 1 to {LIST_MAX}: choose one"),
                    )
                })?
            }
        };
        let after = call.query("after").map(|text| {
            session_text::from_text(text).map_err(|_| {
                bad_request(
                    "after",
                    "`after` is not what an answer said as `next`: pass that on unchanged".into(),
                )
            })
        });
        Ok(List {
            prefix: call.query_bytes("prefix").unwrap_or_default(),
            limit,
            after: after.transpose()?,
            kind: call.query("kind").map(|name| parse_kind(name, space)).transpose()?,
        })
    }
}
