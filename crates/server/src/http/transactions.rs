//! Transactions: all of their work happens, or none.

use super::openapi::{
    answer as answered, body, elsewhere, finds_nothing, operation, path_parameter, query_parameter,
};
use super::reply::{ApiError, Content, json_response};
use super::{Call, leader, no_such_path, ops};
use crate::hosted::{
    self, Asked, Branch, BranchState, Ended, Picture, STATES, Seen, SeenBranch, TIMEOUT_MAX, Work,
};
use crate::member::Member;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::Duration;
use synod_protocols::commit::{Decision, TxnId};
use synod_protocols::log::ReplicatedLog;

/// How long a transaction may take if its client does not say.
const TIMEOUT: Duration = Duration::from_secs(5);

const FORM: &str = r#"{"branches":[{"participant":"bank1","work":[{"add":{"key":"alice","by":-100,"at-least":0}}]},{"participant":"bank2","work":[{"add":{"key":"bob","by":100}}]}],"route":"auto","timeout-ms":5000}"#;

const RESOLVE_FORM: &str =
    r#"{"participant":"bank1","decision":"abort","i-know-that-this-can-break-atomicity":true}"#;

/// What is said to who ended something by hand.
const WARNING: &str = "if the coordinator decides otherwise, one participant has done what another has not, and nothing repairs that \
     by itself: the transaction is shown as damaged then, the log and /metrics (heuristic_damage) tell too. Compare the data then";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Run {
    branches: Vec<BranchForm>,
    #[serde(default)]
    route: RouteForm,
    timeout_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct BranchForm {
    participant: String,
    work: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Resolve {
    participant: String,
    decision: DecisionForm,
    #[serde(default)]
    i_know_that_this_can_break_atomicity: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DecisionForm {
    Commit,
    Abort,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RouteForm {
    #[default]
    Auto,
    OneEntry,
    TwoPhase,
}

pub(super) async fn answer<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    call: &Call,
) -> Result<Response<Content>, ApiError> {
    let path: Vec<&str> = call.path.iter().skip(1).map(String::as_str).collect();
    leader::redirect(member, call)?;
    match (&call.method, path.as_slice()) {
        (&Method::POST, []) => {
            let form: Run = call.json(FORM)?;
            let ended = run(member, form).await?;
            Ok(json_response(StatusCode::OK, &shown(&ended)))
        }
        (&Method::GET, []) => {
            let is_wanted = wanted(call)?;
            let Picture { transactions, not_asked } = hosted::look(member).await?;
            let transactions: Vec<Value> =
                transactions.iter().filter(|seen| is_wanted(seen)).map(inspected).collect();
            let mut list = json!({"transactions": transactions});
            if !not_asked.is_empty() {
                let why = |(name, why): &(String, String)| json!({"participant": name, "why": why});
                list["not-asked"] = not_asked.iter().map(why).collect();
            }
            Ok(json_response(StatusCode::OK, &list))
        }
        (&Method::GET, [id]) => {
            let txn = named(id)?;
            let Picture { transactions, not_asked } = hosted::look(member).await?;
            let found = transactions.iter().find(|seen| seen.txn == txn);
            let found = found.ok_or_else(|| unknown(txn, &not_asked))?;
            Ok(json_response(StatusCode::OK, &inspected(found)))
        }
        (&Method::POST, [id, "resolve"]) => resolve(member, named(id)?, call.json(RESOLVE_FORM)?).await,
        _ => Err(no_such_path(call)),
    }
}

/// Which transactions are asked for.
fn wanted(call: &Call) -> Result<fn(&Seen) -> bool, ApiError> {
    match call.query("state") {
        None => Ok(|_| true),
        Some("open") => Ok(Seen::is_open),
        Some(other) => {
            let other: String = other.chars().take(80).collect();
            Err(ApiError::malformed(format!(
                "there is no state {other:?} to ask for: say `open`, or nothing for all"
            )))
        }
    }
}

fn unknown(txn: TxnId, not_asked: &[(String, String)]) -> ApiError {
    let mut why = format!("no transaction {txn} is open here: it is over, or there was none of this name");
    for (name, reason) in not_asked {
        why.push_str(&format!(". It may be in doubt at {name}, which could not be asked: {reason}"));
    }
    ApiError::new(StatusCode::NOT_FOUND, "transaction-unknown", why)
}

async fn run<P: ReplicatedLog + 'static>(member: &Rc<Member<P>>, form: Run) -> Result<Ended, ApiError> {
    let mut branches = Vec::new();
    for BranchForm { participant, work } in form.branches {
        super::keys::tell_changed_otherwise(member, &participant);
        let work = match hosted::takes_keys(member, &participant) {
            true => Work::Keys(ops::read(&work)?),
            // In words that its agent checks, if there is one.
            false => Work::Sql(Bytes::from(Value::from(work).to_string())),
        };
        branches.push(Branch { participant, work });
    }
    let route = match form.route {
        RouteForm::Auto => Asked::Auto,
        RouteForm::OneEntry => Asked::OneEntry,
        RouteForm::TwoPhase => Asked::TwoPhase,
    };
    let timeout = form.timeout_ms.map_or(TIMEOUT, Duration::from_millis);
    Ok(hosted::run(member, branches, route, timeout).await?)
}

async fn resolve<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    txn: TxnId,
    form: Resolve,
) -> Result<Response<Content>, ApiError> {
    let Resolve { participant, decision, i_know_that_this_can_break_atomicity: is_meant } = form;
    if !is_meant {
        return Err(ApiError::malformed(format!(
            "a decision by hand can break atomicity: say that you know, as in {RESOLVE_FORM}"
        )));
    }
    let decision = match decision {
        DecisionForm::Commit => Decision::Commit,
        DecisionForm::Abort => Decision::Abort,
    };
    hosted::resolve(member, txn, &participant, decision).await?;
    let shown = json!({
        "transaction": txn.to_string(), "participant": participant, "decision": decision.to_string(), "warning": WARNING,
    });
    Ok(json_response(StatusCode::OK, &shown))
}

/// How a transaction ended.
fn shown(ended: &Ended) -> Value {
    let answers: serde_json::Map<String, Value> =
        ended.answers.iter().map(|(name, values)| (name.clone(), ops::shown(values))).collect();
    let mut shown = json!({
        "transaction": ended.txn.to_string(),
        "decision": ended.decision.to_string(),
        "route": ended.route.to_string(),
        "answers": answers,
    });
    if let (Decision::Abort, Some(why)) = (ended.decision, &ended.why) {
        shown["why"] = why.as_str().into();
    }
    shown
}

/// A transaction, as the inspector sees it.
fn inspected(seen: &Seen) -> Value {
    let locks = seen.locks.iter().map(|(participant, key)| json!({"participant": participant, "key": key}));
    let mut shown = json!({
        "id": seen.txn.to_string(),
        "state": seen.state,
        "role": seen.role,
        "participants": seen.participants,
        "waits-for": seen.waits_for,
        "locks": locks.collect::<Vec<Value>>(),
        "age-ms": millis(seen.age),
        "in-doubt": seen.is_in_doubt,
        "damage": seen.is_damaged(),
        "branches": seen.branches.iter().map(branch).collect::<Vec<Value>>(),
    });
    if !seen.coordinator_at.is_empty() {
        shown["coordinator-at"] = json!(seen.coordinator_at);
    }
    shown
}

fn branch(branch: &SeenBranch) -> Value {
    let name = &branch.participant;
    match branch.state {
        BranchState::Prepared { age } => {
            json!({"participant": name, "state": "prepared", "age-ms": millis(age)})
        }
        BranchState::ByHand { here } => {
            json!({"participant": name, "state": "by-hand", "here": here.to_string()})
        }
        BranchState::Damaged { here, decided } => {
            let here = here.map_or_else(|| "lost".to_owned(), |here| here.to_string());
            json!({"participant": name, "state": "damaged", "here": here, "decided": decided.to_string()})
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A transaction's name, as it is shown.
fn named(id: &str) -> Result<TxnId, ApiError> {
    id.parse().map_err(|_| {
        ApiError::malformed(format!(
            "`{}` is no name of a transaction, such as n5.1.7",
            id.chars().take(80).collect::<String>()
        ))
    })
}

/// These paths in the document.
pub(super) fn paths() -> Value {
    let operation_schema = json!({"$ref": "#/components/schemas/Operation"});
    let branch = json!({
        "type": "object", "required": ["participant", "work"], "additionalProperties": false,
        "properties": {
            "participant": {"type": "string", "description": "A keyspace on the log, or a registered participant."},
            "work": {"type": "array", "items": {"anyOf": [operation_schema, {"type": "object"}]}}
        }
    });
    let run = json!({
        "type": "object", "required": ["branches"], "additionalProperties": false,
        "properties": {
            "branches": {"type": "array", "items": branch},
            "route": {"type": "string", "enum": ["auto", "one-entry", "two-phase"], "default": "auto"},
            "timeout-ms": {
                "type": "integer", "minimum": 1, "maximum": TIMEOUT_MAX.as_millis() as u64,
                "default": TIMEOUT.as_millis() as u64
            }
        }
    });
    let ended = json!({
        "type": "object", "required": ["transaction", "decision", "route", "answers"], "additionalProperties": false,
        "properties": {
            "transaction": {"type": "string"},
            "decision": {"type": "string", "enum": ["commit", "abort"]},
            "why": {"type": "string", "description": "Why it aborted."},
            "route": {"type": "string", "enum": ["one-entry", "two-phase"]},
            "answers": {
                "description": "What each participant read, in the order in which it was asked for.",
                "type": "object", "additionalProperties": {
                    "type": "array", "items": {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/Text"}]}
                }
            }
        }
    });
    let transaction = || json!({"$ref": "#/components/schemas/Transaction"});
    let list = json!({
        "type": "object", "required": ["transactions"], "additionalProperties": false,
        "properties": {
            "transactions": {"type": "array", "items": transaction()},
            "not-asked": {
                "description": "Databases that could not be asked what is in doubt there. Not there if all were.",
                "type": "array", "items": {
                    "type": "object", "required": ["participant", "why"], "additionalProperties": false,
                    "properties": {"participant": {"type": "string"}, "why": {"type": "string"}}
                }
            }
        }
    });
    let resolve = json!({
        "type": "object", "additionalProperties": false,
        "required": ["participant", "decision", "i-know-that-this-can-break-atomicity"],
        "properties": {
            "participant": {"type": "string"},
            "decision": {"type": "string", "enum": ["commit", "abort"]},
            "i-know-that-this-can-break-atomicity": {"type": "boolean", "enum": [true]}
        }
    });
    let resolved = json!({
        "type": "object", "additionalProperties": false,
        "required": ["transaction", "participant", "decision", "warning"],
        "properties": {
            "transaction": {"type": "string"}, "participant": {"type": "string"},
            "decision": {"type": "string", "enum": ["commit", "abort"]}, "warning": {"type": "string"}
        }
    });
    let id = path_parameter("id", "The transaction's name.", "n5.1.7");
    json!({
        "/v1/transactions": {
            "post": finds_nothing(body(
                operation(
                    "Run a transaction",
                    "All of the work happens, or none. What is in one keyspace is one entry of the log; what is in several is carried \
                     out by two-phase commit. An abort is an answer like a commit.",
                    [],
                    [answered(200, "How it ended.", ended), elsewhere()],
                ),
                run,
                serde_json::from_str(FORM).unwrap_or_default(),
            )),
            "get": operation(
                "List transactions that are not over, and those that people have ended",
                "As the leader knows them: those that it coordinates, those that keyspaces here and registered databases have promised, whoever \
                 coordinates them, and those that people have ended there and their coordinator has not confirmed, or has decided otherwise.",
                [query_parameter("state", "Only those that are not over.", json!({"enum": ["open"]}), json!("open"))],
                [answered(200, "The transactions.", list), elsewhere()],
            )
        },
        "/v1/transactions/{id}/resolve": {
            "post": finds_nothing(body(
                operation(
                    "End by hand what is in doubt",
                    "For a coordinator that never comes back: a guess, which breaks atomicity where it is wrong.",
                    [id.clone()],
                    [answered(200, "It was ended at this participant.", resolved), elsewhere()],
                ),
                resolve,
                serde_json::from_str(RESOLVE_FORM).unwrap_or_default(),
            ))
        },
        "/v1/transactions/{id}": {
            "get": finds_nothing(operation(
                "Show a transaction that is not over, or that a person has ended", "", [id],
                [answered(200, "The transaction.", transaction()), elsewhere()],
            ))
        }
    })
}

/// What the document calls things here.
pub(super) fn schemas() -> Value {
    let texts = || json!({"type": "array", "items": {"type": "string"}});
    json!({
        "Operation": ops::schema(),
        "Transaction": {
            "type": "object", "additionalProperties": false,
            "required": [
                "id", "state", "role", "participants", "waits-for", "locks", "age-ms", "in-doubt", "damage", "branches"
            ],
            "properties": {
                "id": {"type": "string"},
                "state": {
                    "type": "string", "enum": STATES,
                    "description": "How far the coordinator is, if that is here. Otherwise `prepared`: it is promised; `by-hand`: a person has \
                        ended it, and its coordinator has not confirmed that; `damaged`: its coordinator has decided otherwise."
                },
                "role": {"type": "string", "enum": ["coordinator", "participant"]},
                "participants": texts(),
                "waits-for": texts(),
                "coordinator-at": {
                    "type": "array", "items": {"type": "string"},
                    "description": "Endpoints of the cluster that coordinates it, if that is another one and they are known here."
                },
                "locks": {"type": "array", "items": {
                    "type": "object", "required": ["participant", "key"], "additionalProperties": false,
                    "properties": {
                        "participant": {"type": "string"},
                        "key": {"type": "string", "description": "At a database a table: which of its rows the database does not list."}
                    }
                }},
                "age-ms": {"type": "integer", "description": "Since this member knows of it, or since a database promised."},
                "in-doubt": {"type": "boolean", "description": "Whether a promise waits for a decision that is not known here."},
                "damage": {"type": "boolean", "description": "Whether it has ended otherwise at a participant than its coordinator has decided."},
                "branches": {
                    "description": "What is known of its branches.",
                    "type": "array", "items": {
                        "type": "object", "required": ["participant", "state"], "additionalProperties": false,
                        "properties": {
                            "participant": {"type": "string"},
                            "state": {
                                "type": "string", "enum": ["prepared", "by-hand", "damaged"],
                                "description": "It has promised; or a person has ended it, and nobody has confirmed that; or it has ended \
                                    otherwise than its coordinator has decided."
                            },
                            "age-ms": {"type": "integer", "description": "For how long it is promised, as far as this member knows."},
                            "here": {
                                "type": "string", "enum": ["commit", "abort", "lost"],
                                "description": "How it has ended there. `lost`: it is not in the database any more, and not committed."
                            },
                            "decided": {"type": "string", "enum": ["commit", "abort"]}
                        }
                    }
                }
            }
        }
    })
}
