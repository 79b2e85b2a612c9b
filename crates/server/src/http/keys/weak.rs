//! Keys of causal and eventual keyspaces: this member alone answers, whatever the others do.

use super::super::level::{self, bad_request, in_session};
use super::super::reply::{ApiError, Content};
use super::super::{Call, session_text, text};
use super::write::{Change, KeyWrite};
use super::{LIST_BYTES_MAX, List};
use crate::member::Member;
use crate::session::{Seal, SessionError};
use crate::weak::{self, WeakError};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use std::rc::Rc;
use synod_node::spaces::{Model, Space};
use synod_protocols::Wire;
use synod_protocols::log::ReplicatedLog;
use synod_protocols::weak::token::open;
use synod_protocols::weak::{Content as Held, KeyspaceId, Kind, Name, Refusal, Write};

/// What a session has seen, where its level has sessions.
///
/// A request of a causal keyspace that asks for the eventual level waits for nothing, and gets back what it showed: a session
/// that it takes part in has not seen what it was told.
struct Session {
    shown: Option<Bytes>,
    waits: bool,
}

impl Session {
    fn of<P: ReplicatedLog + 'static>(
        member: &Member<P>,
        call: &Call,
        space: &Space,
        level: Model,
    ) -> Result<Session, ApiError> {
        let shown = level::shown(&call.headers)?.map(session_text::from_text).transpose()?;
        if space.model == Model::Eventual && shown.is_some() {
            return Err(refusal(Refusal::NoSessions));
        }
        let waits = level == Model::Causal;
        if let Some(token) = shown.as_ref().filter(|_| !waits) {
            // What is given back must have been given out.
            let Seal { secret, cluster } = member.seal_of_shown()?;
            open(token, secret, cluster, KeyspaceId(space.id.0)).map_err(SessionError::Token)?;
        }
        Ok(Session { shown, waits })
    }

    /// The token to ask with.
    fn asked(&self) -> Option<Bytes> {
        self.shown.clone().filter(|_| self.waits)
    }

    /// The token to answer with.
    fn next(&self, answered: Option<Bytes>) -> Option<String> {
        let kept = self.shown.clone().filter(|_| !self.waits);
        kept.or(answered).map(|token| session_text::to_text(&token))
    }
}

pub(super) async fn read<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
    space: &Space,
    level: Model,
    kind: Kind,
    key: Bytes,
) -> Result<Response<Content>, ApiError> {
    let session = Session::of(member, call, space, level)?;
    let name = Name { kind, key };
    let (contents, token) =
        weak::read(member, space, session.asked(), vec![name.clone()]).await.map_err(failure)?;
    let held = contents.into_iter().next().unwrap_or(Held::Value(None));
    let mut answer = entry(&name, held);
    answer.insert("consistency".into(), level.to_string().into());
    Ok(in_session(Value::Object(answer), session.next(token)))
}

pub(super) async fn list<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
    space: &Space,
    level: Model,
    list: &List,
) -> Result<Response<Content>, ApiError> {
    let session = Session::of(member, call, space, level)?;
    let after = list.after.clone().map(Name::from_bytes).transpose();
    let after =
        after.map_err(|_| bad_request("after", "`after` is not what an answer said as `next`".into()))?;
    // A read of any object waits for the session; and one that comes after tells what all that is shown is made of.
    let beacon = || vec![Name { kind: Kind::Register, key: Bytes::from_static(b"-") }];
    if let Some(token) = session.asked() {
        weak::read(member, space, Some(token), beacon()).await.map_err(failure)?;
    }
    let mut answer = page(member, space, list, after);
    answer.insert("consistency".into(), level.to_string().into());
    let (_, token) = weak::read(member, space, session.asked(), beacon()).await.map_err(failure)?;
    Ok(in_session(Value::Object(answer), session.next(token)))
}

/// Whether this member shows anything.
pub(super) fn holds_keys<P: ReplicatedLog + 'static>(member: &Member<P>, space: &Space) -> bool {
    let list = List { prefix: Bytes::new(), limit: 1, after: None, kind: None };
    page(member, space, &list, None)["keys"].as_array().is_some_and(|keys| !keys.is_empty())
}

/// As much of what there is as one answer holds.
fn page<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    space: &Space,
    list: &List,
    after: Option<Name>,
) -> Map<String, Value> {
    // Objects are in the order of their kinds, and no key is empty.
    let mut last = after.max(list.kind.map(|kind| Name { kind, key: Bytes::new() }));
    let found = weak::list(member, space, &list.prefix, last.as_ref(), list.limit + 1);
    let fits = |name: &Name| list.kind.is_none_or(|kind| kind == name.kind);
    let (mut keys, mut bytes, mut more) = (Vec::new(), 0, false);
    for (name, held) in found.into_iter().take_while(|(name, _)| fits(name)) {
        bytes += name.key.len() + size(&held);
        more = keys.len() == list.limit || (bytes > LIST_BYTES_MAX && !keys.is_empty());
        if more {
            break;
        }
        keys.push(Value::Object(entry(&name, held)));
        last = Some(name);
    }
    let mut answer = Map::from_iter([("keys".into(), keys.into()), ("more".into(), more.into())]);
    if let Some(last) = last.filter(|_| more) {
        answer.insert("next".into(), session_text::to_text(&last.to_bytes()).into());
    }
    answer
}

pub(super) async fn write<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
    space: &Space,
    level: Model,
    writes: Vec<KeyWrite>,
) -> Result<Response<Content>, ApiError> {
    if writes.iter().any(|write| write.condition.is_some()) {
        let (name, model) = (&space.name, space.model);
        let why = format!(
            "the keyspace `{name}` is {model}: nobody knows there what a key holds everywhere, so \"if\" cannot be decided. Use a \
             linearizable keyspace"
        );
        return Err(bad_request("if-not-here", why));
    }
    let session = Session::of(member, call, space, level)?;
    let mut token = session.asked();
    for update in updates(&writes) {
        token = weak::write(member, space, token, update).await.map_err(failure)?;
    }
    Ok(in_session(json!({"written": writes.len()}), session.next(token)))
}

/// What the writes are for the replica: one update, unless a set gets or loses several elements, which one update cannot.
fn updates(writes: &[KeyWrite]) -> Vec<Vec<Write>> {
    if let [KeyWrite { key, change: Change::Set { insert, remove }, .. }] = writes {
        let insert =
            insert.iter().map(|element| Write::Insert { key: key.clone(), element: element.clone() });
        let remove =
            remove.iter().map(|element| Write::Remove { key: key.clone(), element: element.clone() });
        return insert.chain(remove).map(|write| vec![write]).collect();
    }
    let write = |KeyWrite { key, change, .. }: &KeyWrite| {
        let key = key.clone();
        match change.clone() {
            Change::Put(Some(value)) => Write::Put { key, value },
            Change::Put(None) => Write::Delete { key },
            Change::Siblings { seen, value } => Write::Replace { key, siblings: seen, value },
            Change::Add(units) => Write::Add { key, units },
            Change::Set { insert, remove } => match insert.into_iter().next() {
                Some(element) => Write::Insert { key, element },
                None => Write::Remove { key, element: remove.into_iter().next().unwrap_or_default() },
            },
        }
    };
    vec![writes.iter().map(write).collect()]
}

/// What a key holds, as JSON.
fn entry(name: &Name, held: Held) -> Map<String, Value> {
    let mut entry = Map::from_iter([
        ("key".to_owned(), text::shown(&name.key)),
        ("kind".to_owned(), name.kind.to_string().into()),
    ]);
    let list =
        |values: &mut dyn Iterator<Item = &Bytes>| Value::from_iter(values.map(|value| text::shown(value)));
    match held {
        Held::Value(value) => {
            let value = value.map_or(Value::Null, |value| text::shown(&value));
            entry.insert("value".into(), value);
        }
        Held::Sum(sum) => {
            entry.insert("value".into(), json!(sum));
        }
        Held::Elements(elements) => {
            entry.insert("elements".into(), list(&mut elements.iter()));
        }
        Held::Siblings(siblings) => {
            entry.insert("values".into(), list(&mut siblings.iter().map(|(_, value)| value)));
            let dots: Vec<_> = siblings.iter().map(|(dot, _)| *dot).collect();
            entry.insert("context".into(), session_text::to_text(&dots.to_bytes()).into());
        }
    }
    entry
}

fn size(held: &Held) -> usize {
    match held {
        Held::Value(value) => value.as_ref().map_or(0, Bytes::len),
        Held::Siblings(siblings) => siblings.iter().map(|(_, value)| value.len()).sum(),
        Held::Elements(elements) => elements.iter().map(Bytes::len).sum(),
        Held::Sum(_) => 8,
    }
}

fn failure(error: WeakError) -> ApiError {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match error {
        WeakError::Refused(why) => refusal(why),
        WeakError::Stopped => ApiError::new(unavailable, "stopping", "this member stops: ask another one"),
        WeakError::TimedOut => ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "unknown-outcome",
            "the disk did not answer in time: a write may or may not take effect. Read before you repeat it",
        ),
        WeakError::NotHere => ApiError::new(
            unavailable,
            "not-started",
            "the keyspace has not started at this member yet: try again in a moment, or ask another one",
        ),
    }
}

fn refusal(why: Refusal) -> ApiError {
    let (status, code) = match why {
        Refusal::Token(error) => return SessionError::Token(error).into(),
        Refusal::NoSessions => (StatusCode::BAD_REQUEST, "no-sessions"),
        Refusal::Empty => (StatusCode::BAD_REQUEST, "empty"),
        Refusal::Twice { .. } => (StatusCode::BAD_REQUEST, "twice"),
        Refusal::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        Refusal::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy"),
        Refusal::Full => (StatusCode::INSUFFICIENT_STORAGE, "disk-full"),
        Refusal::Behind { .. } => (StatusCode::SERVICE_UNAVAILABLE, "behind"),
        Refusal::ClockBehind { .. } => (StatusCode::SERVICE_UNAVAILABLE, "clock-behind"),
        Refusal::Joining => (StatusCode::SERVICE_UNAVAILABLE, "joining"),
        Refusal::Damaged => (StatusCode::SERVICE_UNAVAILABLE, "damaged"),
        Refusal::Removed
        | Refusal::WasMember
        | Refusal::NoMember
        | Refusal::LastMember
        | Refusal::RosterFull => (StatusCode::CONFLICT, "refused"),
    };
    ApiError::new(status, code, why.to_string())
}
