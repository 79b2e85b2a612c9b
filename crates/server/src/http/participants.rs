//! Participants outside the cluster: making them known, and forgetting them.

use super::keyspaces::{change, reached};
use super::leader::redirect;
use super::level::bad_request;
use super::openapi::{answer as said, body, operation, path_parameter};
use super::reply::{ApiError, Content, json_response};
use super::{Call, no_such_path};
use crate::hosted::{self, Seen};
use crate::member::Member;
use crate::outside::{Description, ENDPOINTS_MAX, Found, KeyspaceThere, Postgres, Timing, find_keyspace};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::Duration;
use synod_node::spaces::{Command, Done, NAME_BYTES_MAX, Outside};
use synod_protocols::NodeId;
use synod_protocols::log::ReplicatedLog;

/// How long an endpoint of another cluster may take to say who it is.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

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
    let mut description = Description::parse(&call.body).map_err(ApiError::malformed)?;
    description.check().map_err(|why| bad_request("address", why))?;
    reached(member).await?;
    let before = known(member, name);
    look(member, name, &mut description).await?;
    let written = description.written();
    if let Some(before) = before.as_ref().filter(|before| before.description != written) {
        check_is_free(member, before).await?;
    }
    if let Description::Postgres { url } = &description {
        let id = NodeId(before.as_ref().map_or(0, |before| before.id.0));
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

fn cannot(why: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "cannot-take-part", why)
}

/// Finds out which keyspace of which cluster is meant, and whether it can take part.
async fn look<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    name: &str,
    description: &mut Description,
) -> Result<(), ApiError> {
    let Description::Cluster { endpoints, keyspace, found } = description else { return Ok(()) };
    let there = find_keyspace(endpoints, keyspace, LOOK_PATIENCE).await.map_err(cannot)?;
    if there.cluster == hosted::coordinator_of(member.config.cluster_id()) {
        let why = "that is this cluster itself, or one of the same name: name its keyspace in transactions as it is, and give \
                   clusters that take part in each other's transactions different names (`synod serve --cluster`)";
        return Err(cannot(why.into()));
    }
    let seen = Found::of(&there);
    if found.as_ref().is_some_and(|said| *said != seen) {
        return Err(cannot(format!(
            "another keyspace than the one in `found` is there now, {there}: leave `found` out"
        )));
    }
    // Two names for one participant would be asked for two promises in one transaction.
    let core = member.core.borrow();
    let mut others = core.node.machine().registry().outside().filter(|other| other.name != name);
    let is_same = |other: &Outside| {
        let other = Description::parse(&other.description);
        other.is_ok_and(|other| other.elsewhere().is_some_and(|(known, _)| is_one(&known, &there)))
    };
    if let Some(other) = others.find(|other| is_same(other)) {
        return Err(cannot(format!("that keyspace takes part already, as `{}`: use that name", other.name)));
    }
    *found = Some(seen);
    Ok(())
}

fn is_one(left: &KeyspaceThere, right: &KeyspaceThere) -> bool {
    (left.cluster, left.id) == (right.cluster, right.id)
}

/// Whoever takes part in a transaction that is not over cannot be forgotten: it would not hear how that ends.
async fn check_is_free<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    outside: &Outside,
) -> Result<(), ApiError> {
    let conflict = |why: String| Err(ApiError::new(StatusCode::CONFLICT, "participant-in-transaction", why));
    let mut seen = hosted::look(member).await?.transactions.into_iter().filter(Seen::is_open);
    if let Some(open) = seen.find(|open| open.participants.contains(&outside.name)) {
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

fn endpoints() -> Value {
    json!({
        "type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": ENDPOINTS_MAX,
        "description": "Of a cluster: where its clients ask, as in http://127.0.0.1:2579."
    })
}

fn keyspace() -> Value {
    json!({"type": "string", "description": "Of a cluster: which of its keyspaces. Linearizable or sequential."})
}

fn found() -> Value {
    json!({
        "type": "object", "required": ["cluster", "id"], "additionalProperties": false,
        "description": "Of a cluster: which one it is, by the number of its coordinator, and the keyspace's number there. Need not be \
            said; if it is, that one must be there.",
        "properties": {"cluster": {"type": "string"}, "id": {"type": "string"}}
    })
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
                "A PostgreSQL database, or a keyspace of another Synod cluster, takes part in transactions. A database is asked whether it can promise to commit, and gets three tables, \
                 `synod_transactions`, `synod_coordinators` and `synod_by_hand`. The other cluster must have the keyspace on its log. A service behind HTTP takes part in sagas. The leader does this: other \
                 members redirect.",
                [participant()],
                [
                    said(201, "It can take part from now on.", schema()),
                    said(200, "It was known already, and is what was sent now.", schema()),
                ],
            ), json!({
                "type": "object", "required": ["kind"], "additionalProperties": false,
                "properties": {
                    "kind": {"type": "string", "enum": ["postgres", "cluster", "http"]},
                    "url": {
                        "type": "string",
                        "description": "Where a database or a service is, and as whom. The password is not shown again."
                    },
                    "endpoints": endpoints(), "keyspace": keyspace(), "found": found()
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
            "type": "object", "required": ["name", "id", "kind"], "additionalProperties": false,
            "properties": {
                "name": {"type": "string"},
                "id": {"type": "integer", "minimum": 1, "description": "Never used for another one, nor for a keyspace."},
                "kind": {"type": "string", "enum": ["postgres", "cluster", "http", "unknown"]},
                "url": {"type": "string", "description": "Of a database or a service. Without its password."},
                "endpoints": endpoints(), "keyspace": keyspace(), "found": found()
            }
        }
    })
}
