//! What there is to see of a member: where it stands, its figures, and what happens as it happens.

use super::openapi::{answer, operation, page};
use super::reply::{Content, json_response, text};
use crate::clock;
use crate::events::{WATCHERS_MAX, role_name};
use crate::member::Member;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use synod_protocols::log::ReplicatedLog;

pub(super) fn health<P: ReplicatedLog + 'static>(member: &Member<P>) -> Response<Content> {
    if member.status().log.leader.is_some() {
        json_response(StatusCode::OK, &json!({"health": "true"}))
    } else {
        json_response(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"health": "false", "reason": "no leader is known"}),
        )
    }
}

pub(super) fn status<P: ReplicatedLog + 'static>(member: &Member<P>) -> serde_json::Value {
    let core = member.core.borrow();
    let status = core.node.status();
    let store = core.node.machine().store();
    let peers: BTreeMap<String, _> = core
        .links
        .iter()
        .map(|(peer, link)| {
            let fault = link.fault;
            let value = json!({
                "connected": link.connection.is_some(),
                "incarnation": link.incarnation.0,
                "messages-sent": link.messages_sent,
                "bytes-sent": link.bytes_sent,
                "bytes-received": link.bytes_received,
                "block-in": fault.block_in,
                "block-out": fault.block_out,
                "delay-ms": fault.delay.as_millis() as u64,
            });
            (peer.to_string(), value)
        })
        .collect();
    json!({
        "cluster": member.config.cluster,
        "cluster-id": format!("{:x}", member.config.cluster_id().0),
        "name": member.config.name,
        "protocol": P::NAME,
        "incarnation": status.incarnation.0,
        "role": role_name(status.log.role),
        "term": status.log.epoch.0,
        "leader": status.log.leader.map(|leader| leader.to_string()),
        "last": status.log.last.0,
        "durable": status.log.durable.0,
        "committed": status.log.committed.0,
        "applied": status.applied.0,
        "revision": store.revision().0,
        "compacted-revision": store.compacted_revision().0,
        "keys": store.key_count(),
        "requests-waiting": member.calls.borrow().waiting(),
        "log-syncs": status.syncs,
        "log-bytes-written": status.bytes_written,
        "steps": status.steps,
        "turns": member.counters.turns.get(),
        "inputs": member.counters.inputs.get(),
        "turn-us-max": member.counters.turn_micros_max.get(),
        "disk-us": member.counters.disk_micros.get(),
        "disk-us-max": member.counters.disk_micros_max.get(),
        "elections-started": member.counters.elections.get(),
        "leader-changes": member.counters.leader_changes.get(),
        "client-connections": member.counters.client_connections.get(),
        "fault-injection": member.config.fault_injection,
        "peers": peers,
        "keyspaces": core.weak.status(),
    })
}

pub(super) fn metrics<P: ReplicatedLog + 'static>(member: &Member<P>) -> String {
    let mut out = String::new();
    let mut figure = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(out, "# HELP synod_{name} {help}\n# TYPE synod_{name} {kind}\nsynod_{name} {value}");
    };
    let status = member.status();
    let (calls, waiting) = {
        let calls = member.calls.borrow();
        (calls.figures, calls.waiting() as u64)
    };
    let counters = &member.counters;
    figure("has_leader", "gauge", "Whether a leader is known.", u64::from(status.log.leader.is_some()));
    figure(
        "is_leader",
        "gauge",
        "Whether this member leads.",
        u64::from(status.log.leader == Some(member.id)),
    );
    figure("term", "gauge", "The term, or what orders leaders in the protocol.", status.log.epoch.0);
    figure(
        "leader_changes_total",
        "counter",
        "Leaders that this life has known.",
        counters.leader_changes.get(),
    );
    figure(
        "elections_started_total",
        "counter",
        "Elections that this member began.",
        counters.elections.get(),
    );
    figure("log_last_index", "gauge", "The last entry in the log.", status.log.last.0);
    figure("log_committed_index", "gauge", "The last entry known to be committed.", status.log.committed.0);
    figure("applied_index", "gauge", "The last entry applied to the store.", status.applied.0);
    figure("log_syncs_total", "counter", "Syncs of the log.", status.syncs);
    figure("log_written_bytes_total", "counter", "Bytes written to the log.", status.bytes_written);
    figure("inputs_ignored_total", "counter", "Malformed, stale or foreign inputs.", status.log.ignored);
    figure("turns_total", "counter", "Batches of inputs.", counters.turns.get());
    figure("inputs_total", "counter", "Inputs in those batches.", counters.inputs.get());
    figure(
        "turn_microseconds_max",
        "gauge",
        "The longest turn of this life.",
        counters.turn_micros_max.get(),
    );
    figure(
        "disk_microseconds_total",
        "counter",
        "Time that writes and syncs of the log took.",
        counters.disk_micros.get(),
    );
    figure("disk_microseconds_max", "gauge", "The slowest of them.", counters.disk_micros_max.get());
    figure("commands_total", "counter", "Writes answered.", calls.commands);
    figure("reads_total", "counter", "Reads answered.", calls.reads);
    figure("requests_refused_total", "counter", "Requests refused for what they ask.", calls.refused);
    figure("requests_timed_out_total", "counter", "Requests whose time ran out.", calls.timed_out);
    figure("requests_failed_total", "counter", "Requests that could not be served.", calls.failed);
    figure("requests_waiting", "gauge", "Requests under way.", waiting);
    figure(
        "heuristic_damage_total",
        "counter",
        "Branches of transactions that have ended otherwise than their coordinators decided.",
        counters.heuristic_damage.get(),
    );
    figure("client_connections", "gauge", "Connections of clients.", counters.client_connections.get());
    let core = member.core.borrow();
    let (size, _) = core.node.machine().store().map().disk_bytes();
    figure("state_disk_bytes", "gauge", "Bytes that the state takes on disk.", size);
    figure("keys", "gauge", "Keys that exist.", core.node.machine().store().key_count());
    for (name, help, value) in [
        (
            "peer_sent_bytes_total",
            "Bytes sent to a peer.",
            (|link| link.bytes_sent) as fn(&crate::peers::Link) -> u64,
        ),
        ("peer_received_bytes_total", "Bytes of messages from a peer.", |link| link.bytes_received),
    ] {
        let _ = writeln!(out, "# HELP synod_{name} {help}\n# TYPE synod_{name} counter");
        for (peer, link) in &core.links {
            let _ = writeln!(out, "synod_{name}{{peer=\"{peer}\"}} {}", value(link));
        }
    }
    core.weak.metrics(&mut out);
    out
}

pub(super) fn events<P: ReplicatedLog + 'static>(member: &Member<P>) -> Response<Content> {
    let watcher = member.core.borrow_mut().events.watch(clock::now(), P::NAME);
    let Some(receiver) = watcher else {
        return text(StatusCode::SERVICE_UNAVAILABLE, &format!("{WATCHERS_MAX} watch already: close one"));
    };
    member.wake();
    let mut response = Response::new(Content::Events(receiver));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// These paths in the document.
pub(super) fn paths() -> serde_json::Value {
    let health = || {
        json!({
            "type": "object", "required": ["health"],
            "properties": {"health": {"type": "string", "enum": ["true", "false"]}, "reason": {"type": "string"}}
        })
    };
    let object = || json!({"type": "object"});
    json!({
        "/health": {"get": operation("Whether a leader is known", "", [], [
            answer(200, "One is.", health()),
            answer(503, "None is.", health()),
        ])},
        "/version": {"get": operation("The versions of the API and of Synod", "", [], [answer(200, "They.", object())])},
        "/status": {"get": operation("Where the member stands", "", [], [answer(200, "There.", object())])},
        "/metrics": {"get": operation("Figures in Prometheus' text form", "", [], [page(200, "They.", "text/plain")])},
        "/events": {"get": operation(
            "What happens, as it happens", "Server-Sent Events, in the form of the simulator's traces.", [],
            [page(200, "A stream that does not end.", "text/event-stream"), page(503, "Too many watch.", "text/plain")],
        )},
        "/openapi.json": {"get": operation("This document", "", [], [answer(200, "It.", object())])},
    })
}
