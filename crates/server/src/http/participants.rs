//! Participants outside the cluster: making them known, and forgetting them.

use super::keyspaces::{change, reached};
use super::leader::redirect;
use super::level::bad_request;
use super::openapi::{answer as said, body, operation, path_parameter};
use super::reply::{ApiError, Content, json_response};
use super::{Call, no_such_path};
use crate::hosted;
use crate::member::Member;
use crate::outside::{Description, Postgres, Timing};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::rc::Rc;
use synod_node::spaces::{Command, Done, NAME_BYTES_MAX, Outside};
use synod_protocols::NodeId;
use synod_protocols::log::ReplicatedLog;

pub(super) async fn answer<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
) -> Result<Response<Content>, ApiError> {
    let path: Vec<&str> = call.path.iter().skip(1).map(String::as_str).collect();
    match (&call.method, path.as_slice()) {
        (&Method::GET, []) => {
            reached(member).await?;
            let core = member.core.borrow();
            let all: Vec<Value> = core.node.machine().registry().outside().map(shown).collect();
            Ok(json_response(StatusCode::OK, &json!({"participants": all})))
        }
        (&Method::GET, [name]) => {
            reached(member).await?;
            let outside = known(member, name).ok_or_else(|| unknown(name))?;
            Ok(json_response(StatusCode::OK, &shown(&outside)))
        }
        (&Method::PUT, [name]) => register(member, call, name).await,
        (&Method::DELETE, [name]) => {
            redirect(member, call)?;
            reached(member).await?;
            let outside = known(member, name).ok_or_else(|| unknown(name))?;
            check_is_free(member, &outside).await?;
            change(member, Command::Unregister { name: outside.name.clone() }).await?;
            Ok(json_response(StatusCode::OK, &shown(&outside)))
        }
        _ => Err(no_such_path(call)),
    }
}

async fn register<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
    name: &str,
) -> Result<Response<Content>, ApiError> {
    redirect(member, call)?;
    let description = Description::parse(&call.body).map_err(ApiError::malformed)?;
    description.check().map_err(|why| bad_request("address", why))?;
    reached(member).await?;
    let before = known(member, name);
    let written = description.written();
    if let Some(before) = before.as_ref().filter(|before| before.description != written) {
        check_is_free(member, before).await?;
    }
    if let Description::Postgres { url } = &description {
        let id = NodeId(before.as_ref().map_or(0, |before| before.id.0));
        let cannot = |why: String| ApiError::new(StatusCode::CONFLICT, "cannot-take-part", why);
        let agent = Postgres::new(url, id, Timing::default()).map_err(|why| cannot(why.to_string()))?;
        agent.register().await.map_err(|why| cannot(why.to_string()))?;
    }
    let command = Command::Register { name: name.to_owned(), description: written.into() };
    match change(member, command).await? {
        Done::Outside(outside) => {
            let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
            Ok(json_response(status, &shown(&outside)))
        }
        _ => unreachable!("a registration is answered by what was registered"),
    }
}

/// Whoever takes part in a transaction that is not over cannot be forgotten: it would not hear how that ends.
async fn check_is_free<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    outside: &Outside,
) -> Result<(), ApiError> {
    let conflict = |why: String| Err(ApiError::new(StatusCode::CONFLICT, "participant-in-transaction", why));
    let open = hosted::look(member).await?;
    if let Some(open) = open.iter().find(|open| open.participants.contains(&outside.name)) {
        return conflict(format!("{} takes part in {}: wait until that is over", outside.name, open.txn));
    }
    let Ok(Description::Postgres { url }) = Description::parse(&outside.description) else { return Ok(()) };
    let Ok(agent) = Postgres::new(&url, NodeId(outside.id.0), Timing::default()) else { return Ok(()) };
    match agent.in_doubt().await {
        Ok(in_doubt) if in_doubt.is_empty() => Ok(()),
        Ok(in_doubt) => {
            let txn = in_doubt[0].txn;
            conflict(format!(
                "{txn} is prepared at {}: wait until its coordinator has ended it",
                outside.name
            ))
        }
        Err(why) => {
            conflict(format!("whether anything is prepared at {} is not known, for {why}", outside.name))
        }
    }
}

fn known<P: ReplicatedLog + 'static>(member: &Member<P>, name: &str) -> Option<Outside> {
    let core = member.core.borrow();
    core.node.machine().registry().outside().find(|outside| outside.name == name).cloned()
}

fn unknown(name: &str) -> ApiError {
    let name: String = name.chars().take(NAME_BYTES_MAX).collect();
    let why = format!("there is no participant outside called `{name}`: GET /v1/participants lists them");
    ApiError::new(StatusCode::NOT_FOUND, "participant-unknown", why)
}

fn shown(outside: &Outside) -> Value {
    let mut shown = match Description::parse(&outside.description) {
        Ok(description) => description.shown(),
        Err(_) => json!({"kind": "unknown", "url": ""}),
    };
    shown["name"] = outside.name.as_str().into();
    shown["id"] = outside.id.0.into();
    shown
}

/// These paths in the document.
pub(super) fn paths() -> Value {
    let participant = || path_parameter("participant", "Its name, which no keyspace has.", "shop");
    let schema = || json!({"$ref": "#/components/schemas/Participant"});
    json!({
        "/v1/participants": {
            "get": operation("Which participants outside there are", "Without their passwords.", [], [
                said(200, "All of them, by name.", json!({
                    "type": "object", "required": ["participants"], "additionalProperties": false,
                    "properties": {"participants": {"type": "array", "items": schema()}}
                })),
            ]),
        },
        "/v1/participants/{participant}": {
            "put": body(operation(
                "Make a participant known",
                "A PostgreSQL database takes part in transactions. It is asked whether it can promise to commit, and gets two tables, \
                 `synod_transactions` and `synod_coordinators`. A service behind HTTP takes part in sagas. The leader does this: other \
                 members redirect.",
                [participant()],
                [
                    said(201, "It can take part from now on.", schema()),
                    said(200, "It was known already, and is what was sent now.", schema()),
                ],
            ), json!({
                "type": "object", "required": ["kind", "url"], "additionalProperties": false,
                "properties": {
                    "kind": {"type": "string", "enum": ["postgres", "http"]},
                    "url": {"type": "string", "description": "Where it is, and as whom. The password is not shown again."}
                }
            }), json!({"kind": "http", "url": "http://127.0.0.1:8080"})),
            "get": operation("A participant outside", "", [participant()], [said(200, "It.", schema())]),
            "delete": operation(
                "Forget a participant",
                "Refused while it takes part in a transaction that is not over.",
                [participant()],
                [said(200, "It was known, and is no more.", schema())],
            ),
        },
    })
}

/// What of these paths others refer to.
pub(super) fn schemas() -> Value {
    json!({
        "Participant": {
            "type": "object", "required": ["name", "id", "kind", "url"], "additionalProperties": false,
            "properties": {
                "name": {"type": "string"},
                "id": {"type": "integer", "minimum": 1, "description": "Never used for another one, nor for a keyspace."},
                "kind": {"type": "string", "enum": ["postgres", "http", "unknown"]},
                "url": {"type": "string", "description": "Without its password."}
            }
        }
    })
}
