//! Sagas: long transactions as sequences of steps, each of which can be undone by another one.

use super::openapi::{answer as answered, body, elsewhere, finds_nothing, operation, path_parameter};
use super::reply::{ApiError, Content, json_response};
use super::{Call, keys, leader, no_such_path, ops};
use crate::hosted::check_key;
use crate::hosted::sagas::{self, SagaAsk, SagaError, SagaSeen};
use crate::member::Member;
use crate::outside::{Description, HttpService};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::rc::Rc;
use synod_protocols::log::ReplicatedLog;
use synod_protocols::saga::{Plan, Refusal, SagaId, Step};
use synod_protocols::{NodeId, Wire};

/// Bytes of the name of a saga or a step at the most.
const NAME_BYTES_MAX: usize = 128;

const FORM: &str = r#"{"name":"transfer","steps":[{"name":"take","service":"bank1","action":{"ops":[{"add":{"key":"alice","by":-100,"at-least":0}}]},"compensation":{"ops":[{"add":{"key":"alice","by":100}}]}},{"name":"give","service":"bank2","action":{"ops":[{"add":{"key":"bob","by":100}}]},"compensation":{"ops":[{"add":{"key":"bob","by":-100}}]},"after":["take"]}]}"#;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SagaForm {
    name: String,
    steps: Vec<StepForm>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct StepForm {
    name: String,
    service: String,
    action: Value,
    #[serde(default)]
    compensation: Option<Value>,
    #[serde(default)]
    after: Vec<String>,
    #[serde(default)]
    pivot: bool,
    #[serde(default)]
    waits_for_person: bool,
}

pub(super) async fn answer<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
) -> Result<Response<Content>, ApiError> {
    let path: Vec<&str> = call.path.iter().skip(1).map(String::as_str).collect();
    leader::redirect(member, call)?;
    match (&call.method, path.as_slice()) {
        (&Method::POST, []) => {
            let form: SagaForm = call.json(FORM)?;
            let plan = plan(member, form)?;
            let saga = sagas::ask(member, SagaAsk::Begin(plan)).await.map_err(failure)?;
            Ok(json_response(StatusCode::CREATED, &json!({"saga": saga.to_string()})))
        }
        (&Method::GET, []) => {
            let seen: Vec<Value> = sagas::look(member).await?.iter().map(shown).collect();
            Ok(json_response(StatusCode::OK, &json!({"sagas": seen})))
        }
        (&Method::GET, [id]) => {
            let saga = named(id)?;
            let seen = sagas::look(member).await?;
            let found = seen.iter().find(|seen| seen.saga == saga).ok_or_else(|| unknown(saga))?;
            Ok(json_response(StatusCode::OK, &shown(found)))
        }
        (&Method::POST, [id, "cancel"]) => {
            let saga = named(id)?;
            sagas::ask(member, SagaAsk::Cancel(saga)).await.map_err(|error| of(saga, error))?;
            Ok(json_response(StatusCode::OK, &json!({"saga": saga.to_string()})))
        }
        (&Method::POST, [id, "steps", step, "resume"]) => {
            let saga = named(id)?;
            let ask = SagaAsk::Resume(saga, (*step).to_owned());
            sagas::ask(member, ask).await.map_err(|error| of(saga, error))?;
            Ok(json_response(StatusCode::OK, &json!({"saga": saga.to_string()})))
        }
        _ => Err(no_such_path(call)),
    }
}

fn named(id: &str) -> Result<SagaId, ApiError> {
    let number = id.strip_prefix('s').and_then(|number| number.parse().ok());
    number.map(SagaId).ok_or_else(|| {
        let id: String = id.chars().take(80).collect();
        ApiError::malformed(format!("`{id}` is no name of a saga, such as s7"))
    })
}

fn unknown(saga: SagaId) -> ApiError {
    let why = format!("there is no saga {saga}, or it has been over for so long that it is forgotten");
    ApiError::new(StatusCode::NOT_FOUND, "saga-unknown", why)
}

fn of(saga: SagaId, error: SagaError) -> ApiError {
    match error {
        SagaError::Refused(Refusal::Unknown) => {
            let why = format!("there is no saga {saga} that is not over, or no such step of it");
            ApiError::new(StatusCode::NOT_FOUND, "saga-unknown", why)
        }
        error => failure(error),
    }
}

fn failure(error: SagaError) -> ApiError {
    let refusal = match error {
        SagaError::Host(error) => return error.into(),
        SagaError::Refused(refusal) => refusal,
    };
    match refusal {
        Refusal::Plan(why) => ApiError::new(
            StatusCode::BAD_REQUEST,
            "plan",
            format!("{why}, so nothing was begun: mend the plan"),
        ),
        Refusal::Busy => ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "busy",
            "too many sagas are under way, so nothing was begun: try again later",
        ),
        Refusal::Size => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "the actions and compensations are larger than 1 MiB together: split the saga",
        ),
        Refusal::Unknown => {
            ApiError::new(StatusCode::NOT_FOUND, "saga-unknown", "there is no such saga or step: list them")
        }
        Refusal::TooLate => ApiError::new(
            StatusCode::CONFLICT,
            "too-late",
            "it is being undone already, or its pivot was started, from which on nothing is undone",
        ),
        Refusal::NotPaused => ApiError::new(
            StatusCode::CONFLICT,
            "not-paused",
            "that step does not wait for a person, so there is nothing to resume",
        ),
        Refusal::Damaged => ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "damaged",
            "what is under way is not known here: ask another member",
        ),
    }
}

fn wrong(why: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "plan", why)
}

/// What is to be done, in the orchestrator's words. Services and their work are checked; order and pivot it checks.
fn plan<P: ReplicatedLog + 'static>(member: &Member<P>, form: SagaForm) -> Result<Plan, ApiError> {
    for name in form.steps.iter().map(|step| &step.name).chain([&form.name]) {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(wrong(format!(
                "a saga and each of its steps have a name of 1 to {NAME_BYTES_MAX} bytes"
            )));
        }
    }
    let step = |step: StepForm| {
        let service = service(member, &step.service)?;
        keys::tell_changed_otherwise(member, &step.service);
        let work = |what: &str, work: &Value| {
            let checked = service.check(work).map_err(|why| match why {
                Wrong::Api(error) => error,
                Wrong::Words(why) => wrong(format!("the {what} of {}: {why}", step.name)),
            })?;
            Ok::<_, ApiError>(sagas::work(&form.name, checked))
        };
        Ok::<_, ApiError>(Step {
            action: work("action", &step.action)?,
            compensation: step.compensation.as_ref().map(|undo| work("compensation", undo)).transpose()?,
            service: service.id(),
            name: step.name,
            after: step.after,
            is_pivot: step.pivot,
            waits_for_person: step.waits_for_person,
        })
    };
    Ok(Plan { steps: form.steps.into_iter().map(step).collect::<Result<_, _>>()? })
}

enum Service {
    Keyspace(NodeId),
    Http(NodeId),
}

enum Wrong {
    Api(ApiError),
    Words(String),
}

impl Service {
    fn id(&self) -> NodeId {
        match self {
            Service::Keyspace(id) | Service::Http(id) => *id,
        }
    }

    /// The work as the service gets it.
    fn check(&self, work: &Value) -> Result<Bytes, Wrong> {
        match self {
            Service::Keyspace(_) => {
                let fields = work.as_object().filter(|fields| fields.len() == 1);
                let list = fields.and_then(|fields| fields.get("ops")).and_then(Value::as_array);
                let list = list.ok_or_else(|| {
                    Wrong::Words(r#"the work of a keyspace is {"ops":[{"add":{"key":"a","by":-1}}]}"#.into())
                })?;
                let ops = ops::read(list).map_err(Wrong::Api)?;
                ops.iter()
                    .try_for_each(|op| check_key(op.key()))
                    .map_err(|error| Wrong::Api(error.into()))?;
                Ok(ops.to_bytes())
            }
            Service::Http(_) => {
                let bytes = Bytes::from(work.to_string());
                HttpService::check(&bytes).map_err(Wrong::Words)?;
                Ok(bytes)
            }
        }
    }
}

fn service<P: ReplicatedLog + 'static>(member: &Member<P>, name: &str) -> Result<Service, ApiError> {
    let core = member.core.borrow();
    let registry = core.node.machine().registry();
    if let Some(space) = registry.space(name) {
        return match space.model.is_on_log() {
            true => Ok(Service::Keyspace(NodeId(space.id.0))),
            false => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "not-on-the-log",
                format!(
                    "the keyspace `{name}` is {}: only linearizable and sequential ones take part in sagas",
                    space.model
                ),
            )),
        };
    }
    let outside = registry.outside().find(|outside| outside.name == name).ok_or_else(|| {
        let why =
            format!("`{name}` is no keyspace and no registered participant: create or register it first");
        ApiError::new(StatusCode::NOT_FOUND, "participant-unknown", why)
    })?;
    match Description::parse(&outside.description) {
        Ok(Description::Http { .. }) => Ok(Service::Http(NodeId(outside.id.0))),
        _ => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "wrong-work",
            format!(
                "`{name}` takes part in transactions only: a saga's services are keyspaces and HTTP services"
            ),
        )),
    }
}

fn shown(seen: &SagaSeen) -> Value {
    let step = |step: &sagas::StepSeen| {
        let mut shown = json!({
            "name": step.name, "service": step.service, "state": step.state, "after": step.after,
            "attempts": step.attempts,
        });
        if let Some(output) = &step.output {
            shown["output"] = serde_json::from_slice(output).unwrap_or_else(|_| super::text::shown(output));
        }
        shown
    };
    let mut saga = json!({
        "saga": seen.saga.to_string(), "name": seen.name, "state": seen.state,
        "steps": seen.steps.iter().map(step).collect::<Vec<Value>>(),
    });
    if let Some(why) = &seen.why {
        saga["why"] = why.as_str().into();
    }
    saga
}

/// These paths in the document.
pub(super) fn paths() -> Value {
    let step = json!({
        "type": "object", "required": ["name", "service", "action"], "additionalProperties": false,
        "properties": {
            "name": {"type": "string"},
            "service": {"type": "string", "description": "A keyspace on the log, or a registered HTTP service."},
            "action": {"type": "object"},
            "compensation": {"oneOf": [{"type": "object"}, {"type": "null"}], "description": "What undoes it; none from the pivot on."},
            "after": {"type": "array", "items": {"type": "string"}},
            "pivot": {"type": "boolean", "description": "Once it is done, nothing is undone any more."},
            "waits-for-person": {"type": "boolean"}
        }
    });
    let plan = json!({
        "type": "object", "required": ["name", "steps"], "additionalProperties": false,
        "properties": {"name": {"type": "string"}, "steps": {"type": "array", "items": step}}
    });
    let saga = || json!({"$ref": "#/components/schemas/Saga"});
    let name = || {
        json!({
            "type": "object", "required": ["saga"], "additionalProperties": false,
            "properties": {"saga": {"type": "string"}}
        })
    };
    let list = json!({
        "type": "object", "required": ["sagas"], "additionalProperties": false,
        "properties": {"sagas": {"type": "array", "items": saga()}}
    });
    let id = || path_parameter("id", "The saga's name.", "s7");
    json!({
        "/v1/sagas": {
            "post": finds_nothing(body(
                operation(
                    "Begin a saga",
                    "Steps run in the order that `after` says, side by side where it says nothing. If one is refused, those that have \
                     acted are undone in reverse order. It goes on whoever crashes.",
                    [],
                    [answered(201, "It will be carried out, or undone.", name()), elsewhere()],
                ),
                plan,
                serde_json::from_str(FORM).unwrap_or_default(),
            )),
            "get": operation(
                "List sagas", "Those that are not over, and the latest of those that are.", [],
                [answered(200, "The sagas.", list), elsewhere()],
            )
        },
        "/v1/sagas/{id}": {
            "get": finds_nothing(operation(
                "Show a saga", "", [id()], [answered(200, "The saga.", saga()), elsewhere()],
            ))
        },
        "/v1/sagas/{id}/cancel": {
            "post": finds_nothing(operation(
                "Cancel a saga", "It is undone, unless its pivot was started.", [id()],
                [answered(200, "It is being undone.", name()), elsewhere()],
            ))
        },
        "/v1/sagas/{id}/steps/{step}/resume": {
            "post": finds_nothing(operation(
                "Resume a step", "A person has looked at a step that waits for one.",
                [id(), path_parameter("step", "The step's name.", "give")],
                [answered(200, "It goes on.", name()), elsewhere()],
            ))
        }
    })
}

/// What the document calls things here.
pub(super) fn schemas() -> Value {
    let states = ["pending", "started", "done", "refused", "undoing", "undone", "paused"];
    json!({
        "Saga": {
            "type": "object", "required": ["saga", "name", "state", "steps"], "additionalProperties": false,
            "properties": {
                "saga": {"type": "string"},
                "name": {"type": "string"},
                "state": {"type": "string", "enum": ["running", "compensating", "paused", "done", "compensated"]},
                "why": {"type": "string"},
                "steps": {"type": "array", "items": {
                    "type": "object", "required": ["name", "service", "state", "after", "attempts"],
                    "additionalProperties": false,
                    "properties": {
                        "name": {"type": "string"}, "service": {"type": "string"},
                        "state": {"type": "string", "enum": states},
                        "after": {"type": "array", "items": {"type": "string"}},
                        "attempts": {"type": "integer", "description": "How often it was asked for, since the last answer."},
                        "output": {"description": "What came out of it."}
                    }
                }}
            }
        }
    })
}
