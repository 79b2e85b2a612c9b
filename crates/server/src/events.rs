//! What watchers of a live member see: JSON events in the form of the simulator's traces.
//!
//! `t` counts nanoseconds since the machine was booted, so that the streams of members on one machine can be merged. A
//! message has the same name `m` in its sender's `send` and its receiver's `recv`. Without a watcher nothing is
//! composed; a watcher that does not keep up is let go.

mod operations;

use crate::peers::{Link, LinkFault};
use crate::service::Service;
use bytes::Bytes;
use operations::Operations;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use synod_node::{Node, PeerSend, sessions};
use synod_protocols::log::{CommittedEntry, LogStatus, Payload, ReplicatedLog, Role};
use synod_protocols::{Describe, NodeId, Time, weak};
use tokio::sync::mpsc;

/// Watchers at most.
pub(crate) const WATCHERS_MAX: usize = 16;
/// Events that wait for one watcher, at most; then it is let go.
const WAITING_MAX: usize = 4_096;
/// Messages of one name that are shown to each peer, at most one in so long. Elections are slower than that, so all
/// of their messages are shown; under load most of the log's are not.
const SHOWN_EVERY: Duration = Duration::from_millis(50);
/// The same of what weak keyspaces say all the time though nothing has happened: digests.
const DIGEST_SHOWN_EVERY: Duration = Duration::from_millis(500);
/// A state that only moves forward is shown this often; a change of role at once.
const STATE_EVERY: Duration = Duration::from_millis(50);
/// Entries at the log's end that a state shows.
const ENTRIES_SHOWN: u64 = 12;

/// The watchers of one member, and what they have seen.
pub(crate) struct Events {
    me: NodeId,
    watchers: Vec<mpsc::Sender<Bytes>>,
    shown: BTreeMap<(NodeId, &'static str), Time>,
    state: Option<LogStatus>,
    state_at: Time,
    state_due: bool,
    timer: Option<(Time, Time)>,
    committed: Option<(u64, u64)>,
    operations: Operations,
}

/// What watchers are told of a message of a weak keyspace when it is sent.
#[derive(Debug)]
pub(crate) struct Shown {
    name: &'static str,
    detail: String,
}

impl Events {
    pub(crate) fn new(me: NodeId) -> Events {
        Events {
            me,
            watchers: Vec::new(),
            shown: BTreeMap::new(),
            state: None,
            state_at: Time::ZERO,
            state_due: false,
            timer: None,
            committed: None,
            operations: Operations::default(),
        }
    }

    /// Whether there is room for one more watcher; if so, its events from now on.
    pub(crate) fn watch(&mut self, now: Time, protocol: &str) -> Option<mpsc::Receiver<Bytes>> {
        self.watchers.retain(|watcher| !watcher.is_closed());
        if self.watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        self.watchers.push(sender);
        self.note(now, &format!("watching {} ({protocol})", self.me));
        // The next turn shows the state, also to those who know it.
        self.state = None;
        self.state_due = true;
        Some(receiver)
    }

    /// Whether anybody watches.
    pub(crate) fn watched(&self) -> bool {
        !self.watchers.is_empty()
    }

    /// When the state wants to be shown.
    pub(crate) fn deadline(&self) -> Option<Time> {
        (self.watched() && self.state_due).then(|| self.state_at + STATE_EVERY)
    }

    /// Tells all watchers.
    pub(crate) fn emit(&mut self, now: Time, mut event: Value) {
        event["t"] = now.0.into();
        let line = Bytes::from(format!("data: {event}\n\n"));
        self.watchers.retain(|watcher| watcher.try_send(line.clone()).is_ok());
    }

    /// Says something in words.
    pub(crate) fn note(&mut self, now: Time, text: &str) {
        if self.watched() {
            self.emit(now, json!({"k": "note", "n": self.me.to_string(), "text": text}));
        }
    }

    /// Something about the disk.
    pub(crate) fn disk(&mut self, now: Time, op: &str) {
        if self.watched() {
            self.emit(now, json!({"k": "disk", "n": self.me.to_string(), "op": op}));
        }
    }

    /// A fault injected into a link.
    pub(crate) fn link_fault(&mut self, now: Time, peer: NodeId, before: LinkFault, after: LinkFault) {
        if !self.watched() {
            return;
        }
        let (me, peer) = (self.me.to_string(), peer.to_string());
        for (was, is, from, to) in
            [(before.block_out, after.block_out, &me, &peer), (before.block_in, after.block_in, &peer, &me)]
        {
            if was != is {
                let what = if is { "cut" } else { "heal" };
                let text = format!("{what} {from} -> {to} at {me}");
                self.emit(now, json!({"k": "fault", "what": what, "a": from, "b": to, "text": text}));
            }
        }
        if before.delay != after.delay {
            let text = format!("{me} -> {peer} is delayed by {:?}", after.delay);
            self.emit(now, json!({"k": "fault", "what": "delay", "a": me, "b": peer, "text": text}));
        }
    }

    /// Entries were committed; told with the next state, as one span.
    pub(crate) fn committed(&mut self, _now: Time, entries: &[CommittedEntry]) {
        if let (true, Some(first), Some(last)) = (self.watched(), entries.first(), entries.last()) {
            let from = self.committed.map_or(first.index.0, |(from, _)| from);
            self.committed = Some((from, last.index.0));
            self.state_due = true;
        }
    }

    /// Whether this message is shown; if so it has been.
    pub(crate) fn shows<M: Describe>(&mut self, now: Time, link: &mut Link, sent: &PeerSend<M>) -> bool {
        if !self.watched() {
            return false;
        }
        let name = sent.message.name();
        if !self.is_due(now, sent.to, name, SHOWN_EVERY) {
            return false;
        }
        self.sent(now, link, Shown { name, detail: sent.message.detail() }, sent.early);
        true
    }

    /// Whether a message of a weak keyspace is shown; if so, what is told of it once it is sent.
    pub(crate) fn shows_weak(
        &mut self,
        now: Time,
        to: NodeId,
        space: &str,
        message: &weak::Message,
    ) -> Option<Shown> {
        let every = match message {
            weak::Message::Digest { .. } => DIGEST_SHOWN_EVERY,
            _ => SHOWN_EVERY,
        };
        let name = message.name();
        let is_shown = self.watched() && self.is_due(now, to, name, every);
        is_shown.then(|| Shown { name, detail: format!("{space}: {}", message.detail()) })
    }

    /// A message of a weak keyspace goes out.
    pub(crate) fn weak_sent(&mut self, now: Time, link: &mut Link, shown: Shown) {
        self.sent(now, link, shown, false);
    }

    /// A message of a weak keyspace is for somebody to whom there is no connection.
    pub(crate) fn weak_unsent(&mut self, now: Time, to: NodeId, shown: Shown) {
        self.send(now, (to, None), shown, Some("no connection"), false);
    }

    /// Whether one of this name was not shown for so long; if so it is now.
    fn is_due(&mut self, now: Time, peer: NodeId, name: &'static str, every: Duration) -> bool {
        let last = self.shown.get(&(peer, name));
        let is_due = last.is_none_or(|last| now.since(*last) >= every);
        if is_due {
            self.shown.insert((peer, name), now);
        }
        is_due
    }

    fn sent(&mut self, now: Time, link: &mut Link, shown: Shown, early: bool) {
        let key = link.connection.as_ref().map(|connection| connection.key);
        // Whether the peer is down or only out of reach a member cannot know; who watches the processes can.
        let lost = match key {
            _ if link.fault.block_out => Some("cut"),
            None => Some("no connection"),
            Some(_) => None,
        };
        link.shown.0 += 1;
        let m = key.map(|key| message_name(key, self.me, link.shown.0));
        self.send(now, (link.peer, m), shown, lost, early);
    }

    fn send(
        &mut self,
        now: Time,
        (to, m): (NodeId, Option<String>),
        Shown { name, detail }: Shown,
        lost: Option<&str>,
        early: bool,
    ) {
        let from = self.me.to_string();
        let event = json!({
            "k": "send", "m": m, "from": from, "to": to.to_string(), "name": name, "detail": detail, "at": null,
            "lost": lost, "early": early,
        });
        self.emit(now, event);
    }

    /// A message that its sender has shown has arrived.
    pub(crate) fn received(&mut self, now: Time, from: NodeId, key: u64, number: u64) {
        if self.watched() {
            let m = message_name(key, from, number);
            self.emit(now, json!({"k": "recv", "m": m, "from": from.to_string(), "to": self.me.to_string()}));
        }
    }

    /// Shows the state if it is time to.
    pub(crate) fn state<P: ReplicatedLog, S: Service>(&mut self, now: Time, node: &Node<P, S::Machine>) {
        if !self.watched() {
            return;
        }
        let deadline = node.process().deadline();
        if self.timer.map(|(at, _)| at) != deadline {
            self.timer = deadline.map(|at| (at, now));
        }
        let status = node.status().log;
        let known = self.state;
        if known == Some(status) && !self.state_due {
            return;
        }
        let part = |status: &LogStatus| (status.role, status.epoch, status.voted_for, status.leader);
        let changed = known.as_ref().map(part) != Some(part(&status));
        if !changed && now.since(self.state_at) < STATE_EVERY {
            self.state_due = true;
            return;
        }
        (self.state, self.state_at, self.state_due) = (Some(status), now, false);
        if let Some((from, to)) = self.committed.take() {
            self.emit(now, json!({"k": "commit", "n": self.me.to_string(), "from": from, "to": to}));
        }
        let state = self.describe::<P, S>(now, node, &status);
        self.emit(now, json!({"k": "state", "n": self.me.to_string(), "s": state}));
    }

    fn describe<P: ReplicatedLog, S: Service>(
        &self,
        now: Time,
        node: &Node<P, S::Machine>,
        status: &LogStatus,
    ) -> Value {
        let name = |id: Option<NodeId>| id.map(|id| id.to_string());
        let first = status.last.0.saturating_sub(ENTRIES_SHOWN - 1).max(1);
        let entries: Vec<Value> = (first..=status.last.0)
            .filter_map(|index| {
                let (epoch, payload) = node.process().entry(synod_protocols::log::Index(index))?;
                Some(json!([index, epoch.0, label::<S>(payload)]))
            })
            .collect();
        let members: Vec<Value> = node
            .process()
            .members()
            .iter()
            .map(|member| json!([member.id.to_string(), member.part.name()]))
            .collect();
        json!({
            "up": true,
            "paused": false,
            "role": role_name(status.role),
            "epoch": status.epoch.0,
            "voted": name(status.voted_for),
            "leader": name(status.leader),
            "base": status.base.0,
            "members": members,
            "last": status.last.0,
            "lastEpoch": status.last_epoch.0,
            "durable": status.durable.0,
            "committed": status.committed.0,
            "applied": node.status().applied.0,
            "deadline": self.timer.map(|(at, _)| at.0),
            "deadlineFrom": self.timer.map_or(now.0, |(_, from)| from.0),
            "log": entries,
            "fields": node.process().describe(now),
        })
    }
}

/// The same on both sides of a connection: sender, connection, and the how-manieth shown message.
fn message_name(key: u64, from: NodeId, number: u64) -> String {
    format!("{from}:{:08x}:{number}", key as u32)
}

pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Candidate => "candidate",
        Role::Follower => "follower",
        Role::Learner => "learner",
        Role::Abstaining => "abstaining",
    }
}

/// What an entry holds, in a few words.
fn label<S: Service>(payload: &Payload) -> String {
    let envelope = match payload {
        Payload::Noop => return "noop".to_owned(),
        Payload::Membership(_) => return "members".to_owned(),
        Payload::Command(envelope) => envelope,
    };
    let command = sessions::open(envelope.clone()).ok();
    command.and_then(|(_, command)| S::label(command)).unwrap_or_else(|| format!("{} bytes", envelope.len()))
}
