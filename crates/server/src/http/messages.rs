//! Messages between clusters: the coordinator of one, and a keyspace of another that takes part.

use super::keyspaces::{change, find};
use super::leader::redirect;
use super::level::bad_request;
use super::openapi::{answer as said, body, elsewhere, operation};
use super::reply::{ApiError, Content, respond};
use super::{Call, keys, no_such_path};
use crate::hosted;
use crate::member::Member;
use crate::outside::{Description, Envelope, KeyspaceThere, To, admitted};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::rc::Rc;
use synod_node::spaces::{Command, Contact, SpaceId};
use synod_protocols::NodeId;
use synod_protocols::commit::Message;
use synod_protocols::log::ReplicatedLog;

/// Coordinators have large numbers, hashes of their clusters' names. Small ones are those of keyspaces, counted by entries of a log: one
/// that took orders from its like would take itself for the coordinator.
const COORDINATOR_MIN: u64 = 1 << 40;

pub(super) async fn answer<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
) -> Result<Response<Content>, ApiError> {
    if (&call.method, call.path.get(1).map(String::as_str)) != (&Method::POST, Some("messages")) {
        return Err(no_such_path(call));
    }
    redirect(member, call)?;
    let Envelope { coordinator, participant, to, reply, messages } =
        Envelope::decode(&call.body).map_err(|why| ApiError::malformed(why.to_string()))?;
    let admit = |message| admitted(coordinator, to == To::Coordinator, message);
    let messages = messages.into_iter().map(admit).collect::<Option<Vec<_>>>();
    let messages = messages.ok_or_else(|| {
        ApiError::malformed(
            "a message is of another coordinator, or is not for whom it is sent to".to_owned(),
        )
    })?;
    let own = hosted::coordinator_of(member.config.cluster_id());
    let ends = match &to {
        To::Keyspace(there) => {
            let space = keyspace(member, own, coordinator, there).await?;
            keys::tell_changed_otherwise(member, &there.name);
            let contact = Contact { participant, endpoints: reply };
            know(member, space, coordinator, contact, &messages).await?;
            (coordinator, NodeId(space.0))
        }
        To::Coordinator => {
            if coordinator != own {
                return Err(other_cluster("this cluster's coordinator has another number"));
            }
            check_is_elsewhere(member, participant)?;
            (participant, own)
        }
    };
    let messages = hosted::exchange(member, ends, messages).await;
    let reply = hosted::endpoints(member);
    let answer = Envelope { coordinator, participant, to: To::Coordinator, reply, messages };
    let text = String::from_utf8_lossy(&answer.encode()).into_owned();
    Ok(respond(StatusCode::OK, "application/json", text))
}

fn other_cluster(why: &str) -> ApiError {
    let why = format!("{why}: the messages are for another cluster. Register it with its own endpoints");
    ApiError::new(StatusCode::CONFLICT, "other-cluster", why)
}

/// The keyspace that is to take part: exactly the one that was registered.
async fn keyspace<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    own: NodeId,
    coordinator: NodeId,
    there: &KeyspaceThere,
) -> Result<SpaceId, ApiError> {
    if there.cluster != own {
        return Err(other_cluster("this is not the cluster that was registered"));
    }
    if coordinator == own || coordinator.0 < COORDINATOR_MIN {
        return Err(other_cluster("the coordinator has the number of one here"));
    }
    let space = find(member, &there.name).await?;
    if space.id.0 != there.id.0 {
        let why = format!(
            "the keyspace `{}` is another one than the one that was registered: register it again",
            space.name
        );
        return Err(ApiError::new(StatusCode::NOT_FOUND, "keyspace-unknown", why));
    }
    if !space.model.is_on_log() {
        let why =
            format!("the keyspace `{}` is {}, and takes part in no transactions", space.name, space.model);
        return Err(bad_request("not-on-the-log", why));
    }
    Ok(space.id)
}

/// Makes durable how the coordinator is reached, before anything is promised to it.
async fn know<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    space: SpaceId,
    coordinator: NodeId,
    contact: Contact,
    messages: &[Message],
) -> Result<(), ApiError> {
    if messages.iter().all(|message| matches!(message, Message::Decide { .. })) {
        return Ok(());
    }
    let known = member.core.borrow().node.machine().contact(space, coordinator);
    let known = known.map_err(|error| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "storage",
            format!("the state cannot be read: {error}"),
        )
    })?;
    if known.as_ref() != Some(&contact) {
        change(member, Command::Contact { space, coordinator, contact }).await?;
    }
    Ok(())
}

/// Whoever speaks to the coordinator from another cluster is nobody here.
fn check_is_elsewhere<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    participant: NodeId,
) -> Result<(), ApiError> {
    let core = member.core.borrow();
    let registry = core.node.machine().registry();
    let is_cluster = |description: &[u8]| {
        Description::parse(description).is_ok_and(|description| description.elsewhere().is_some())
    };
    let is_keyspace = registry.spaces().any(|space| space.id.0 == participant.0);
    let mut outside = registry.outside().filter(|outside| outside.id.0 == participant.0);
    // One that is registered no more may still be in doubt, and is told.
    if is_keyspace || outside.any(|outside| !is_cluster(&outside.description)) {
        return Err(other_cluster("the participant has the number of another one here"));
    }
    Ok(())
}

/// These paths in the document.
pub(super) fn paths() -> Value {
    let number = |description: &str| json!({"type": "string", "minLength": 1, "description": description});
    let messages = json!({
        "type": "array", "maxItems": crate::outside::MESSAGES_MAX, "items": {"type": "string"},
        "description": "Messages of two-phase commit in Synod's own encoding, as base64."
    });
    let reply = json!({
        "type": "array", "maxItems": crate::outside::ENDPOINTS_MAX, "items": {"type": "string"},
        "description": "Where members of the sender's cluster answer clients. A keyspace keeps them with what it promises."
    });
    let envelope = |keyspace: bool| {
        let mut schema = json!({
            "type": "object", "required": ["coordinator", "participant", "messages"], "additionalProperties": false,
            "properties": {
                "coordinator": number("The coordinator, by its own name."),
                "participant": number("The participant, as the coordinator's cluster calls it."),
                "reply": reply,
                "messages": messages
            }
        });
        if keyspace {
            schema["properties"]["keyspace"] = json!({
                "type": "object", "required": ["cluster", "id", "name"], "additionalProperties": false,
                "description": "The participant that gets the messages. Without it the coordinator does.",
                "properties": {
                    "cluster": number("Its cluster, by the name of that one's coordinator."),
                    "id": number("The keyspace's number there."),
                    "name": {"type": "string"}
                }
            });
        }
        schema
    };
    let mut post = body(
        operation(
            "Two-phase commit between clusters",
            "What members of clusters say to each other; nobody else needs it. The leader answers: other members redirect.",
            [],
            [
                said(
                    200,
                    "What the process said in time. More may follow, posted to the sender.",
                    envelope(false),
                ),
                elsewhere(),
            ],
        ),
        envelope(true),
        json!({
            "coordinator": "9223372036854775807", "participant": "12",
            "keyspace": {"cluster": "1", "id": "7", "name": "bank2"},
            "reply": ["http://127.0.0.1:23791"],
            "messages": []
        }),
    );
    // The example is for a cluster that is not the one that is asked.
    post["x-example-status"] = 409.into();
    json!({"/v1/participant/messages": {"post": post}})
}
