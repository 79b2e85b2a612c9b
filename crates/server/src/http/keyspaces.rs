//! Keyspaces: which there are, and making and dropping them.

use super::level::bad_request;
use super::openapi::{answer as said, body, operation, path_parameter, query_parameter};
use super::reply::{ApiError, Content, json_response};
use super::{Call, no_such_path};
use crate::member::Member;
use crate::session::draw_secret;
use http::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::rc::Rc;
use synod_node::spaces::{Command, Done, Model, NAME_BYTES_MAX, Query, Refusal, Space};
use synod_node::{Outcome, Request};
use synod_protocols::log::ReplicatedLog;

/// What a keyspace is made of.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Create {
    model: String,
}

pub(super) async fn answer<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
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
            let mut answer = shown(&find(member, name).await?);
            let members = member.core.borrow().node.process().members();
            let names: Vec<String> = members.iter().map(|member| member.id.to_string()).collect();
            answer["members"] = names.into();
            Ok(json_response(StatusCode::OK, &answer))
        }
        (&Method::PUT, [name]) => {
            let create: Create = call.json(r#"{"model":"causal"}"#)?;
            let model = create.model.parse().map_err(|why| bad_request("consistency-unknown", why))?;
            let was_there = known(member, name).is_ok();
            let space = make(member, name, model).await?;
            let status = if was_there { StatusCode::OK } else { StatusCode::CREATED };
            Ok(json_response(status, &shown(&space)))
        }
        (&Method::DELETE, [name]) => drop_space(member, call, name).await,
        _ => Err(no_such_path(call)),
    }
}

async fn drop_space<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
    name: &str,
) -> Result<Response<Content>, ApiError> {
    let force = match call.query("force") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(bad_request("force", format!("`force` is true or false, not `{other}`"))),
    };
    let space = find(member, name).await?;
    // What a weak keyspace holds is not in the log: each member knows what it has seen itself.
    if !force && !space.model.is_on_log() && super::keys::weak_holds_keys(member, &space) {
        return Err(refusal(Refusal::HoldsKeys(space.name)));
    }
    match change(member, Command::Drop { name: name.to_owned(), force }).await? {
        Done::Space(space) => Ok(json_response(StatusCode::OK, &shown(&space))),
        _ => unreachable!("a drop is answered by what was dropped"),
    }
}

fn shown(space: &Space) -> Value {
    let may_ask: Vec<String> = Model::ALL
        .into_iter()
        .filter(|level| space.model.is_at_least(*level))
        .map(|level| level.to_string())
        .collect();
    json!({"name": space.name, "id": space.id.0, "model": space.model.to_string(), "levels": may_ask})
}

/// The keyspace of a name. A member that does not know it may only be behind: it makes sure.
pub(super) async fn find<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    name: &str,
) -> Result<Space, ApiError> {
    if let Ok(space) = known(member, name) {
        return Ok(space);
    }
    reached(member).await?;
    known(member, name)
}

/// Waits, unless all of these names of keyspaces and participants are known here, until this member has applied all
/// that was acknowledged. Also a leader may only be behind: it applies an entry when its own disk holds it, and whoever
/// made a keyspace may have heard so from two members with faster ones.
pub(super) async fn acquainted<'a, P: ReplicatedLog + 'static>(
    member: &Member<P>,
    mut names: impl Iterator<Item = &'a str>,
) -> Result<(), ApiError> {
    let are_known = {
        let core = member.core.borrow();
        let registry = core.node.machine().registry();
        let is_outside = |name: &str| registry.outside().any(|outside| outside.name == name);
        names.all(|name| registry.space(name).is_some() || is_outside(name))
    };
    if are_known { Ok(()) } else { reached(member).await }
}

/// The keyspace of a name, as this member knows it now.
pub(super) fn known<P: ReplicatedLog + 'static>(member: &Member<P>, name: &str) -> Result<Space, ApiError> {
    let core = member.core.borrow();
    core.node.machine().registry().space(name).cloned().ok_or_else(|| unknown(name))
}

/// There is no keyspace of this name.
pub(super) fn unknown(name: &str) -> ApiError {
    refusal(Refusal::Unknown(name.chars().take(NAME_BYTES_MAX).collect()))
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
    let secret = draw_secret().map_err(|error| {
        let why = format!("no random numbers could be had ({error}): try again");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no-randomness", why)
    })?;
    let command = Command::Create { name: name.to_owned(), model, founders, secret };
    match change(member, command).await? {
        Done::Space(space) => Ok(space),
        _ => unreachable!("a new keyspace is answered by itself"),
    }
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
        Refusal::Endpoints => (StatusCode::BAD_REQUEST, "address"),
        Refusal::Coordinators => (StatusCode::CONFLICT, "too-many"),
        Refusal::Malformed => (StatusCode::BAD_REQUEST, "malformed"),
    };
    ApiError::new(status, code, refusal.to_string())
}

/// These paths in the document.
pub(super) fn paths() -> Value {
    let keyspace = || path_parameter("keyspace", "Its name.", "feed");
    let schema = || json!({"$ref": "#/components/schemas/Keyspace"});
    let models = Model::ALL.map(|model| model.to_string());
    json!({
        "/v1/keyspaces": {
            "get": operation("Which keyspaces there are", "As of all that was acknowledged before it was asked.", [], [
                said(200, "All of them, by name.", json!({
                    "type": "object", "required": ["keyspaces"], "additionalProperties": false,
                    "properties": {"keyspaces": {"type": "array", "items": schema()}}
                })),
            ]),
        },
        "/v1/keyspaces/{keyspace}": {
            "put": body(operation(
                "Make a keyspace",
                "Made once: the same request again is answered 200. A keyspace's model cannot be changed.",
                [keyspace()],
                [
                    said(201, "It is there from now on.", schema()),
                    said(200, "It was there already, with this model.", schema()),
                ],
            ), json!({
                "type": "object", "required": ["model"], "additionalProperties": false,
                "properties": {"model": {"type": "string", "enum": models}}
            }), json!({"model": "causal"})),
            "get": operation("A keyspace", "", [keyspace()], [said(200, "It.", schema())]),
            "delete": operation(
                "Drop a keyspace",
                "Refused while it holds keys, unless forced, and while it takes part in a transaction. Whether a causal or \
                 eventual keyspace holds keys is what the asked member has seen.",
                [keyspace(), query_parameter("force", "Drop it with all that it holds.", json!({"type": "boolean"}), json!(true))],
                [said(200, "It was there, and is no more.", schema())],
            ),
        },
    })
}

/// What of these paths others refer to.
pub(super) fn schemas() -> Value {
    let models = Model::ALL.map(|model| model.to_string());
    json!({
        "Keyspace": {
            "type": "object", "required": ["name", "id", "model", "levels"], "additionalProperties": false,
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$"},
                "id": {"type": "integer", "minimum": 1, "description": "Never used for another keyspace."},
                "model": {"type": "string", "enum": models, "description": "What it promises."},
                "levels": {
                    "type": "array", "items": {"type": "string", "enum": models},
                    "description": "What requests may ask for: its model, and what is weaker."
                },
                "members": {"type": "array", "items": {"type": "string"}, "description": "Who holds it."}
            }
        }
    })
}
