//! What there is to see of weak keyspaces, for `GET /status` and `GET /metrics`.

use super::host::{Hosted, Weak};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use synod_node::spaces::SpaceId;
use synod_protocols::weak::Standing;

/// One figure: its name, whether it only grows, what it says, and how it is had.
type Figure = (&'static str, bool, &'static str, fn(&Weak, SpaceId, &Hosted) -> u64);

/// In the order in which they are shown.
const FIGURES: [Figure; 15] = [
    ("keys", false, "Objects, deleted ones that are not forgotten yet included.", |_, _, hosted| {
        hosted.replica.state().store().objects().count() as u64
    }),
    ("updates", false, "Updates that were seen.", |_, _, hosted| hosted.replica.state().seen().len()),
    (
        "behind",
        false,
        "Updates that another member has said to have, and that are not here.",
        |_, _, hosted| {
            let seen = hosted.replica.state().seen();
            hosted.heard.values().map(|theirs| theirs.len() - theirs.meet(seen).len()).max().unwrap_or(0)
        },
    ),
    ("tombstones", false, "Deleted registers that are not forgotten yet.", |_, _, hosted| {
        hosted.replica.state().store().tombstones() as u64
    }),
    ("waiting", false, "Requests under way.", |weak, space, _| {
        weak.waiting.values().filter(|waiting| waiting.space == space).count() as u64
    }),
    ("answered", true, "Requests answered.", |_, _, hosted| hosted.answered),
    ("refused", true, "Requests refused.", |_, _, hosted| hosted.refused),
    (
        "ignored",
        true,
        "Messages ignored: malformed, from strangers, or too far ahead of the clock.",
        |_, _, hosted| hosted.replica.state().ignored(),
    ),
    ("messages-sent", true, "Messages sent to other members.", |_, _, hosted| hosted.sent),
    ("messages-received", true, "Messages of other members.", |_, _, hosted| hosted.received),
    ("log-bytes", false, "Bytes that the log holds.", |_, _, hosted| hosted.replica.figures().log_bytes),
    ("log-bytes-written", true, "Bytes written to the log.", |_, _, hosted| {
        hosted.replica.figures().bytes_written
    }),
    ("log-syncs", true, "Syncs of the log.", |_, _, hosted| hosted.replica.figures().syncs),
    ("log-compactions", true, "How often the log was shortened.", |_, _, hosted| {
        hosted.replica.figures().compactions
    }),
    ("members", false, "Members of the keyspace.", |_, _, hosted| {
        hosted.replica.state().roster().members.len() as u64
    }),
];

fn standing(hosted: &Hosted) -> &'static str {
    match hosted.replica.state().standing() {
        Standing::Member => "member",
        Standing::Joining { .. } => "joining",
        Standing::Removed => "removed",
        Standing::Damaged => "damaged",
    }
}

impl Weak {
    /// Of every weak keyspace, by its name.
    pub(crate) fn status(&self) -> Value {
        let mut all = Map::new();
        for (id, hosted) in &self.hosted {
            let state = hosted.replica.state();
            let mut shown = json!({
                "id": id.0,
                "model": hosted.space.model.to_string(),
                "standing": standing(hosted),
                "roster": state.roster().to_string(),
                // The same at members that show the same.
                "digest": format!("{:016x}", state.store().root()),
            });
            for (name, _, _, figure) in FIGURES {
                shown[name] = figure(self, *id, hosted).into();
            }
            all.insert(hosted.space.name.clone(), shown);
        }
        Value::Object(all)
    }

    /// Messages for keyspaces that do not run here, and messages dropped because too much waited for their receivers.
    pub(crate) fn strays(&self) -> (u64, u64) {
        (self.unknown, self.dropped())
    }

    /// Appends figures in Prometheus' text form.
    pub(crate) fn metrics(&self, out: &mut String) {
        for (name, grows, help, figure) in FIGURES {
            let (kind, suffix) = if grows { ("counter", "_total") } else { ("gauge", "") };
            let name = format!("synod_keyspace_{}{suffix}", name.replace('-', "_"));
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (id, hosted) in &self.hosted {
                let value = figure(self, *id, hosted);
                let _ = writeln!(out, "{name}{{keyspace=\"{}\"}} {value}", hosted.space.name);
            }
        }
        let (unknown, dropped) = self.strays();
        for (name, help, value) in [
            ("unknown", "Messages for keyspaces that do not run here.", unknown),
            ("dropped", "Messages dropped because too much waited for their receivers.", dropped),
        ] {
            let name = format!("synod_keyspace_messages_{name}_total");
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
        }
    }
}
