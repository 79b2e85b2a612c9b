//! The settings of a script, a line each.

use super::Parsed;
use super::line::{Line, unknown};
use super::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::script::{
    CLIENTS_MAX, DELAY_MAX, DURATION_MAX, KEYS_MAX, Mix, NODES_MAX, Progress, Script, Timed, Transport,
    Workload,
};
use crate::units::Span;
use synod_protocols::catalogue::replicated_log;

impl Line<'_> {
    pub(super) fn read_into(&mut self, script: &mut Script, keyword: &str) -> Parsed<()> {
        match keyword {
            "protocol" => {
                let name = self.word("a protocol", "protocol raft")?;
                script.protocol = replicated_log(name).unwrap_or(name).to_owned();
            }
            "nodes" => {
                if !script.actions.is_empty() {
                    return Err("`nodes` must come before the first `at` line".into());
                }
                script.nodes = self.number("the number of members", 1, NODES_MAX.into(), "nodes 5")? as u8;
            }
            "seed" => script.seed = self.number("a seed", 0, u64::MAX, "seed 7")?,
            "for" => script.until = self.span("the length of the run", Span(1), DURATION_MAX, "for 12s")?,
            "transport" => {
                script.transport = match self.word("`streams` or `datagrams`", "transport datagrams")? {
                    "streams" => Transport::Streams,
                    "datagrams" => Transport::Datagrams,
                    other => return Err(unknown(other, "`streams` or `datagrams`", "transport datagrams")),
                }
            }
            "latency" => script.latency = self.delay("latency 8ms..30ms")?,
            "detect" => script.detect = self.delay("detect 50ms..150ms")?,
            "disk" => script.disk = self.delay("disk 1ms..4ms")?,
            "loss" => script.loss = self.share("loss 0.1%")?,
            "duplicate" => script.duplicate = self.share("duplicate 0.1%")?,
            "reorder" => script.reorder = self.share("reorder 0.1%")?,
            "election" => {
                script.election = self.span("a timeout", Span::millis(1), DELAY_MAX, "election 300ms")?;
            }
            "heartbeat" => {
                script.heartbeat = self.span("an interval", Span(1000), DELAY_MAX, "heartbeat 100ms")?;
            }
            "segment" => {
                script.segment =
                    self.number("a size in bytes", SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX, "segment 262144")?;
            }
            "message-bytes" => {
                script.limits.message_bytes =
                    self.number("a number of bytes", 1, 16 << 20, "message-bytes 1000")? as u32;
            }
            "window" => {
                script.limits.window = self.number("a number of messages", 1, 10_000, "window 4")? as u32
            }
            "tail-bytes" => {
                script.limits.tail_bytes =
                    self.number("a number of bytes", 0, 1 << 30, "tail-bytes 1000")? as u32;
            }
            "alpha" => {
                script.limits.alpha = self.number("a number of positions", 1, 1 << 20, "alpha 16")? as u32;
            }
            "clients" => script.clients = Some(self.workload()?),
            "lease" => script.lease = Some(self.share("lease 0.1%")?),
            "expect" => script.progress = Some(self.progress()?),
            "at" => {
                let at = self.span("a moment", Span(0), DURATION_MAX, "at 3s crash leader")?;
                let action = self.action()?;
                script.actions.push(Timed { at, action });
            }
            other => {
                return Err(unknown(
                    other,
                    "`protocol`, `nodes`, `seed`, `for`, `transport`, `latency`, `detect`, `loss`, `duplicate`, \
                     `reorder`, `election`, `heartbeat`, `disk`, `segment`, `message-bytes`, `window`, `tail-bytes`, `alpha`, `lease`, `clients`, `expect` or `at`",
                    "at 3s crash leader",
                ));
            }
        }
        self.end()
    }

    fn workload(&mut self) -> Parsed<Workload> {
        let example = "clients 3 every 400ms keys 4 mix put:5,get:4,cas:1";
        let clients = self.number("the number of clients", 1, CLIENTS_MAX.into(), example)? as u16;
        self.literal("every", example)?;
        let every = self.span("an interval", Span(1000), DURATION_MAX, example)?;
        self.literal("keys", example)?;
        let keys = self.number("the number of keys", 1, KEYS_MAX.into(), example)? as u32;
        let mix = if self.accept("mix") { self.mix(example)? } else { Mix::default() };
        Ok(Workload { clients, every, keys, mix })
    }

    fn mix(&mut self, example: &str) -> Parsed<Mix> {
        let word = self.word("a mix", example)?;
        let what = "a mix of put, get, cas and delete with frequencies up to 1000";
        let mut mix = Mix { put: 0, get: 0, cas: 0, delete: 0 };
        for part in word.split(',') {
            let (name, frequency) = part.split_once(':').ok_or_else(|| unknown(part, what, example))?;
            let frequency = frequency.parse::<u32>().ok().filter(|n| *n <= 1000);
            let frequency = frequency.ok_or_else(|| unknown(part, what, example))?;
            match name {
                "put" => mix.put = frequency,
                "get" => mix.get = frequency,
                "cas" => mix.cas = frequency,
                "delete" => mix.delete = frequency,
                _ => return Err(unknown(part, what, example)),
            }
        }
        if mix.total() == 0 {
            Err(format!("a mix needs at least one operation; for example: `{example}`"))
        } else {
            Ok(mix)
        }
    }

    fn progress(&mut self) -> Parsed<Progress> {
        let example = "expect progress within 20 elections";
        self.literal("progress", example)?;
        self.literal("within", example)?;
        let elections = self.number("a number of election timeouts", 1, 100_000, example)? as u32;
        self.literal("elections", example)?;
        Ok(Progress { elections })
    }
}
