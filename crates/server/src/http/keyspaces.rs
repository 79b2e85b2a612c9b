//! Keyspaces: which there are, and making and dropping them.

use super::reply::{ApiError, Content, json_response};
use super::{Call, not_found};
use crate::member::Member;
use http::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use synod_node::spaces::{Command, Done, Model, Query, Refusal, Secret, Space};
use synod_node::{Outcome, Request};
use synod_protocols::log::ReplicatedLog;

/// What a keyspace is made of.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Create {
    model: String,
}

pub(super) async fn answer<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    call: &Call,
) -> Result<Response<Content>, ApiError> {
    let path: Vec<&str> = call.path.iter().skip(1).map(String::as_str).collect();
    match (&call.method, path.as_slice()) {
        (&Method::GET, []) => {
            reached(member).await?;
            let core = member.core.borrow();
            let spaces: Vec<Value> = core.node.machine().registry().spaces().map(shown).collect();
            Ok(json_response(StatusCode::OK, &json!({"keyspaces": spaces})))
        }
        (&Method::GET, [name]) => {
            reached(member).await?;
            Ok(json_response(StatusCode::OK, &shown(&find(member, name)?)))
        }
        (&Method::PUT, [name]) => {
            let create: Create = call.json(r#"{"model":"causal"}"#)?;
            let model = create.model.parse().map_err(ApiError::malformed)?;
            let was_there = find(member, name).is_ok();
            let space = make(member, name, model).await?;
            let status = if was_there { StatusCode::OK } else { StatusCode::CREATED };
            Ok(json_response(status, &shown(&space)))
        }
        (&Method::DELETE, [name]) => {
            let force = call.query("force").is_some_and(|value| value == "true");
            let done = change(member, Command::Drop { name: (*name).to_owned(), force }).await?;
            let Done::Space(space) = done else { unreachable!("a drop is answered by what was dropped") };
            Ok(json_response(StatusCode::OK, &shown(&space)))
        }
        _ => Err(not_found(call)),
    }
}

fn shown(space: &Space) -> Value {
    json!({"name": space.name, "id": space.id.0, "model": space.model.to_string()})
}

/// The keyspace of a name, as this member knows it.
pub(super) fn find<P: ReplicatedLog + 'static>(member: &Member<P>, name: &str) -> Result<Space, ApiError> {
    let core = member.core.borrow();
    let found = core.node.machine().registry().space(name).cloned();
    found.ok_or_else(|| refusal(Refusal::Unknown(name.to_owned())))
}

/// Waits until this member has applied all that was acknowledged when it was asked.
pub(super) async fn reached<P: ReplicatedLog + 'static>(member: &Member<P>) -> Result<(), ApiError> {
    member.ask(Request::Read(Query::Reached)).await?;
    Ok(())
}

async fn make<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    name: &str,
    model: Model,
) -> Result<Space, ApiError> {
    let founders = member.core.borrow().node.process().members().iter().map(|member| member.id).collect();
    let secret = secret().map_err(|error| {
        let why = format!("no random numbers could be had ({error}): try again");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no-randomness", why)
    })?;
    let command = Command::Create { name: name.to_owned(), model, founders, secret };
    match change(member, command).await? {
        Done::Space(space) => Ok(space),
        Done::Outside(_) => unreachable!("a new keyspace is answered by itself"),
    }
}

fn secret() -> std::io::Result<Secret> {
    let mut bytes = [[0; 8]; 2];
    let mut source = File::open("/dev/urandom")?;
    bytes.iter_mut().try_for_each(|word| source.read_exact(word))?;
    Ok(Secret(bytes.map(u64::from_le_bytes)))
}

/// Has the registry changed, on all members.
pub(super) async fn change<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    command: Command,
) -> Result<Done, ApiError> {
    match member.ask(Request::Command(command.to_log())).await? {
        Outcome::Applied { response: synod_node::spaces::Response::Spaces(done), .. } => {
            done.map_err(refusal)
        }
        _ => unreachable!("a command about keyspaces is answered in kind"),
    }
}

pub(super) fn refusal(refusal: Refusal) -> ApiError {
    let (status, code) = match &refusal {
        Refusal::Name(_) => (StatusCode::BAD_REQUEST, "name"),
        Refusal::OtherModel(..) => (StatusCode::CONFLICT, "keyspace-exists"),
        Refusal::Taken(_) => (StatusCode::CONFLICT, "name-taken"),
        Refusal::Unknown(_) => (StatusCode::NOT_FOUND, "keyspace-unknown"),
        Refusal::Full(_) => (StatusCode::CONFLICT, "too-many"),
        Refusal::TooLong(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        Refusal::HoldsKeys(_) => (StatusCode::CONFLICT, "keyspace-holds-keys"),
        Refusal::InTransaction(_) => (StatusCode::CONFLICT, "keyspace-in-transaction"),
        Refusal::Malformed => (StatusCode::BAD_REQUEST, "malformed"),
    };
    ApiError::new(status, code, refusal.to_string())
}
