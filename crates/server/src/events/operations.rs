//! Operations of clients on keyspaces, as watchers see them: what began at this member, and how it ended.
//!
//! A history with holes proves nothing, so where an operation is not shown watchers are told that there is a hole.

use super::Events;
use serde_json::{Value, json};
use std::time::Duration;
use synod_protocols::Time;

/// Operations that are shown in a [`SPAN`] at the most, so that a busy member has better things to do.
const SHOWN_MAX: u32 = 100;
const SPAN: Duration = Duration::from_secs(1);

/// How many were shown lately.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    /// Names the next one.
    begun: u64,
    span_began: Time,
    in_span: u32,
}

impl Events {
    /// An operation begins, which `describe` tells. Its number, under which its end is told; none if it is not shown.
    pub(crate) fn operation_begins(&mut self, now: Time, describe: impl FnOnce() -> Value) -> Option<u64> {
        if !self.watched() {
            return None;
        }
        if now.since(self.operations.span_began) >= SPAN {
            (self.operations.span_began, self.operations.in_span) = (now, 0);
        }
        self.operations.in_span += 1;
        if self.operations.in_span > SHOWN_MAX {
            // Once a span: the hole is there until the span ends.
            if self.operations.in_span == SHOWN_MAX + 1 {
                self.hole(now, None, "more operations than are shown");
            }
            return None;
        }
        self.operations.begun += 1;
        let number = self.operations.begun;
        self.operation(now, number, "invoke", describe());
        Some(number)
    }

    /// It has ended: `phase` is `ok`, `fail` (it had no effect) or `unknown`.
    pub(crate) fn operation_ends(&mut self, now: Time, number: u64, phase: &str, said: Value) {
        if self.watched() {
            self.operation(now, number, phase, said);
        }
    }

    fn operation(&mut self, now: Time, number: u64, phase: &str, mut event: Value) {
        let me = self.me.to_string();
        event["k"] = "op".into();
        event["phase"] = phase.into();
        // On the page each member has a line of what it was asked.
        event["c"] = format!("at {me}").into();
        event["node"] = me.into();
        event["o"] = number.into();
        self.emit(now, event);
    }

    /// Something changes keys that is not shown as operations: of one keyspace, by its number, or of any.
    pub(crate) fn hole(&mut self, now: Time, space: Option<u64>, why: &str) {
        if self.watched() {
            self.emit(now, json!({"k": "hole", "n": self.me.to_string(), "id": space, "text": why}));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synod_protocols::NodeId;

    fn told(watcher: &mut tokio::sync::mpsc::Receiver<bytes::Bytes>) -> Vec<Value> {
        let mut events = Vec::new();
        while let Ok(line) = watcher.try_recv() {
            let text = std::str::from_utf8(&line).expect("text").trim();
            events.push(serde_json::from_str(text.strip_prefix("data: ").expect("data")).expect("JSON"));
        }
        events
    }

    #[test]
    fn operations_are_told_with_their_ends_and_what_is_too_much_as_one_hole() {
        let mut events = Events::new(NodeId(2));
        let second = Time(1_000_000_000);
        assert_eq!(events.operation_begins(second, || unreachable!("nobody watches")), None);
        let mut watcher = events.watch(second, "raft").expect("room");
        let number = events.operation_begins(second, || json!({"f": "get", "key": "x"})).expect("shown");
        events.operation_ends(second, number, "ok", json!({"value": null}));
        let seen = told(&mut watcher);
        assert_eq!(seen[1]["k"], "op");
        assert_eq!(
            (&seen[1]["phase"], &seen[1]["node"], &seen[1]["key"]),
            (&json!("invoke"), &json!("n2"), &json!("x"))
        );
        assert_eq!((&seen[2]["phase"], &seen[2]["o"]), (&json!("ok"), &seen[1]["o"]));
        for _ in 0..3 * SHOWN_MAX {
            events.operation_begins(second, || json!({}));
        }
        let seen = told(&mut watcher);
        assert_eq!(seen.iter().filter(|event| event["k"] == "op").count() as u32, SHOWN_MAX - 1);
        assert_eq!(seen.iter().filter(|event| event["k"] == "hole").count(), 1);
        let later = second + SPAN;
        assert!(events.operation_begins(later, || json!({})).is_some(), "the next span has room");
    }
}
