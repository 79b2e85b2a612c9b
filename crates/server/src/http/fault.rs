//! `POST /fault`: links that are cut and delayed on purpose, where the configuration allows it.

use super::openapi::{answer, body, operation, page};
use super::reply::{Content, json_response, text};
use crate::config::{parse_duration, parse_name};
use crate::member::{Event, Member};
use crate::peers::FaultChange;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_protocols::NodeId;
use synod_protocols::log::ReplicatedLog;

/// Delays above this are a mistake.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// What `POST /fault` may ask. Lists name peers; a plain block cuts both ways.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct FaultRequest {
    block: Vec<String>,
    block_in: Vec<String>,
    block_out: Vec<String>,
    unblock: Vec<String>,
    delay: BTreeMap<String, String>,
    /// Milliseconds by which the wall clock is taken to be ahead of what it reads; less than nothing for behind.
    clock_ahead_ms: Option<i64>,
}

pub(super) fn fault<P: ReplicatedLog + 'static>(member: &Member<P>, body: &[u8]) -> Response<Content> {
    if !member.config.fault_injection {
        return text(
            StatusCode::NOT_FOUND,
            "this member was started without fault injection: its links cannot be cut. Start it with --fault-injection, \
             for tests only",
        );
    }
    let request: FaultRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => {
            let form = r#"{"block":["n2"],"block-in":[],"block-out":[],"unblock":["n3"],"delay":{"n2":"50ms"},"clock-ahead-ms":0}"#;
            return text(StatusCode::BAD_REQUEST, &format!("not understood ({error}): POST {form}"));
        }
    };
    match changes(member, &request) {
        Ok(changes) => {
            for (peer, change) in changes {
                member.tell(Event::Fault { peer, change });
            }
            request.clock_ahead_ms.into_iter().for_each(|millis| member.tell(Event::ClockAhead(millis)));
            json_response(StatusCode::OK, &json!({"ok": true}))
        }
        Err(why) => text(StatusCode::BAD_REQUEST, &why),
    }
}

/// What the request changes, for each peer that it names.
fn changes<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    request: &FaultRequest,
) -> Result<BTreeMap<NodeId, FaultChange>, String> {
    let mut changes: BTreeMap<NodeId, FaultChange> = BTreeMap::new();
    let mut at = |name: &String, change: &dyn Fn(&mut FaultChange)| {
        let peer = parse_name(name).ok().filter(|peer| member.core.borrow().links.contains_key(peer));
        let peer = peer.ok_or_else(|| format!("{name:?} is no peer of {}", member.id))?;
        change(changes.entry(peer).or_default());
        Ok::<(), String>(())
    };
    for name in &request.unblock {
        at(name, &|fault| (fault.block_in, fault.block_out) = (Some(false), Some(false)))?;
    }
    for name in &request.block {
        at(name, &|fault| (fault.block_in, fault.block_out) = (Some(true), Some(true)))?;
    }
    for name in &request.block_in {
        at(name, &|fault| fault.block_in = Some(true))?;
    }
    for name in &request.block_out {
        at(name, &|fault| fault.block_out = Some(true))?;
    }
    for (name, delay) in &request.delay {
        let delay = parse_duration(delay)?;
        if delay > DELAY_MAX {
            return Err(format!("a delay of {delay:?} is above {DELAY_MAX:?}"));
        }
        at(name, &|fault| fault.delay = Some(delay))?;
    }
    Ok(changes)
}

/// This path in the document.
pub(super) fn paths() -> serde_json::Value {
    let names = || json!({"type": "array", "items": {"type": "string"}});
    let schema = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "block": names(), "block-in": names(), "block-out": names(), "unblock": names(),
            "delay": {"type": "object", "additionalProperties": {"type": "string"}}
        }
    });
    let operation = operation(
        "Cut, mend or delay links to other members",
        "Only where the member was started with fault injection, for tests.",
        [],
        [
            answer(200, "Done.", json!({"type": "object"})),
            page(400, "Not understood.", "text/plain"),
            page(404, "This member does not allow it.", "text/plain"),
        ],
    );
    json!({"/fault": {"post": body(operation, schema, json!({"block": [], "delay": {}}))}})
}
