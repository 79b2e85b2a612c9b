//! Reading scripts. Every error names its line, what was found, what was expected, and an example.

use crate::script::{
    ACTIONS_MAX, Action, CLIENTS_MAX, ClockFault, DELAY_MAX, DURATION_MAX, Delay, DiskAction, HandOperation,
    KEYS_MAX, Member, Mix, NODES_MAX, NetworkChange, OneWay, OperatorChange, Progress, SCRIPT_BYTES_MAX,
    Script, Target, Timed, Topology, Transport, Workload,
};
use crate::units::{Factor, Share, Span};
use std::fmt;
use std::str::FromStr;
use synod_protocols::catalogue::replicated_log;

/// The smallest log segment that a script may ask for, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// The largest, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// The longest key, value or protocol name in a script, in bytes.
pub const WORD_BYTES_MAX: usize = 256;

/// Why a text is not a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// The line, counted from 1.
    pub line: usize,
    /// What was found and what was expected, with an example.
    pub problem: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for ScriptError {}

type Parsed<T> = Result<T, String>;

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Script, ScriptError> {
        let at = |line: usize| move |problem: String| ScriptError { line, problem };
        if text.len() > SCRIPT_BYTES_MAX {
            return Err(at(1)(format!(
                "the script is {} bytes long; at most {SCRIPT_BYTES_MAX} are read",
                text.len()
            )));
        }
        let mut script = Script::default();
        let joining = text.lines().filter_map(joins).max().unwrap_or(0);
        let mut seen = Vec::new();
        // Where a setting stands that only another one further down may allow.
        let mut datagram_line = None;
        let mut last = 1;
        for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line)) {
            let words: Vec<&str> =
                line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
            let Some(&keyword) = words.first() else { continue };
            last = number;
            if seen.is_empty() {
                version(&words).map_err(at(number))?;
                seen.push("synod-script");
                continue;
            }
            if keyword != "at" {
                if seen.contains(&keyword) {
                    return Err(at(number)(format!(
                        "`{keyword}` is set a second time; leave one of the lines out"
                    )));
                }
                seen.push(keyword);
                if matches!(keyword, "duplicate" | "reorder") {
                    datagram_line = Some(number);
                }
            } else if script.actions.len() == ACTIONS_MAX {
                return Err(at(number)(format!("a script has at most {ACTIONS_MAX} `at` lines")));
            }
            let mut line = Line { words: &words, next: 1, members: script.nodes.max(joining) };
            line.read_into(&mut script, keyword).map_err(at(number))?;
        }
        if seen.is_empty() {
            return Err(at(1)("the script is empty; it begins with `synod-script 1`".into()));
        }
        script.actions.sort_by_key(|timed| timed.at);
        check(&script).map_err(at(last))?;
        if let (Some(line), Transport::Streams) = (datagram_line, script.transport) {
            return Err(at(line)(NEED_DATAGRAMS.into()));
        }
        Ok(script)
    }
}

const NEED_DATAGRAMS: &str =
    "within a connection messages neither repeat nor overtake; add the line `transport datagrams`";

fn version(words: &[&str]) -> Parsed<()> {
    match words {
        ["synod-script", "1"] => Ok(()),
        ["synod-script", version] => {
            Err(format!("this is version {version} of the language, and this program reads version 1"))
        }
        _ => Err(format!("found `{}`; a script begins with `synod-script 1`", words.join(" "))),
    }
}

/// The number of the member that a line lets join.
fn joins(line: &str) -> Option<u8> {
    let mut words = line.split_whitespace();
    let name = (words.next() == Some("at") && words.nth(1) == Some("add")).then(|| words.next())??;
    name.strip_prefix('n')?.parse().ok().filter(|n| *n <= NODES_MAX)
}

/// What concerns several lines at once.
fn check(script: &Script) -> Parsed<()> {
    if let Some((expected, found)) =
        (script.nodes + 1..).map(Member).zip(script.joining()).find(|(expected, found)| expected != found)
    {
        return Err(format!(
            "{found} is added where {expected} is next: names go up in the order of time and are never used twice"
        ));
    }
    if script.heartbeat.0 * 3 > script.election.0 {
        return Err(format!(
            "the election timeout of {} must be at least three heartbeats of {}; for example: `election {}`",
            script.election,
            script.heartbeat,
            Span(script.heartbeat.0 * 4)
        ));
    }
    if let Some(late) = script.actions.iter().find(|timed| timed.at > script.until) {
        return Err(format!(
            "`at {} {}` lies after the end of the run, `for {}`",
            late.at, late.action, script.until
        ));
    }
    if let Some((from, due)) = script.progress_window().filter(|(_, due)| *due > script.until) {
        return Err(format!(
            "progress is expected from {from}, when the last fault or repair happens, until {due}, but the run ends at {}; \
             for example: `for {}`",
            script.until,
            Span(due.0.div_ceil(1_000_000_000) * 1_000_000_000)
        ));
    }
    let datagrams = |timed: &&Timed| {
        matches!(
            timed.action,
            Action::Duplicate(_)
                | Action::Network(NetworkChange::Duplicate(Share(1..)) | NetworkChange::Reorder(Share(1..)))
        )
    };
    match script.actions.iter().find(datagrams) {
        Some(timed) if script.transport == Transport::Streams => {
            Err(format!("`{}`: {NEED_DATAGRAMS}", timed.action))
        }
        _ => Ok(()),
    }
}

/// A line and how far it was read.
struct Line<'a> {
    words: &'a [&'a str],
    next: usize,
    /// The last member that may be named.
    members: u8,
}

impl<'a> Line<'a> {
    fn read_into(&mut self, script: &mut Script, keyword: &str) -> Parsed<()> {
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
                     `reorder`, `election`, `heartbeat`, `disk`, `segment`, `message-bytes`, `window`, `tail-bytes`, `lease`, `clients`, `expect` or `at`",
                    "at 3s crash leader",
                ));
            }
        }
        match self.words.get(self.next) {
            Some(extra) => Err(format!("`{extra}` is more than this line takes")),
            None => Ok(()),
        }
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).copied()
    }

    fn word(&mut self, what: &str, example: &str) -> Parsed<&'a str> {
        let word = self
            .peek()
            .ok_or_else(|| format!("the line ends where {what} is expected; for example: `{example}`"))?;
        if word.len() > WORD_BYTES_MAX {
            return Err(format!("{what} is {} bytes long; at most {WORD_BYTES_MAX} are allowed", word.len()));
        }
        self.next += 1;
        Ok(word)
    }

    /// Takes the next word if it is this one.
    fn accept(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.next += usize::from(found);
        found
    }

    fn literal(&mut self, word: &str, example: &str) -> Parsed<()> {
        match self.word(&format!("`{word}`"), example)? {
            found if found == word => Ok(()),
            found => Err(unknown(found, &format!("`{word}`"), example)),
        }
    }

    fn number(&mut self, what: &str, min: u64, max: u64, example: &str) -> Parsed<u64> {
        let word = self.word(what, example)?;
        let range = if max == u64::MAX { String::new() } else { format!(" from {min} to {max}") };
        let number = word
            .parse::<u64>()
            .ok()
            .filter(|n| word.bytes().all(|b| b.is_ascii_digit()) && (min..=max).contains(n));
        number.ok_or_else(|| unknown(word, &format!("{what}: a whole number{range}"), example))
    }

    fn span(&mut self, what: &str, min: Span, max: Span, example: &str) -> Parsed<Span> {
        let word = self.word(what, example)?;
        let span = Span::parse(word).filter(|span| (min..=max).contains(span));
        span.ok_or_else(|| unknown(word, &format!("{what} from {min} to {max}, with its unit"), example))
    }

    fn share(&mut self, example: &str) -> Parsed<Share> {
        let word = self.word("a percentage", example)?;
        Share::parse(word).ok_or_else(|| unknown(word, "a percentage from 0% to 100%", example))
    }

    fn delay(&mut self, example: &str) -> Parsed<Delay> {
        let what = "a delay, a range of delays, or `lognormal` with a median and a factor";
        if self.accept("lognormal") {
            let example = "latency lognormal 10ms 2.0";
            let median = self.span("a median", Span(0), DELAY_MAX, example)?;
            let word = self.word("a factor", example)?;
            let factor = Factor::parse(word).filter(|f| (1_000_000..=100_000_000).contains(&f.0));
            let factor = factor.ok_or_else(|| unknown(word, "a factor from 1 to 100", example))?;
            return Ok(Delay::LogNormal { median, factor });
        }
        let word = self.word(what, example)?;
        let bounded = |text: &str| Span::parse(text).filter(|span| *span <= DELAY_MAX);
        let delay = match word.split_once("..") {
            Some((low, high)) => match (bounded(low), bounded(high)) {
                (Some(low), Some(high)) if low < high => Some(Delay::Uniform(low, high)),
                (Some(low), Some(high)) if low == high => Some(Delay::Fixed(low)),
                _ => None,
            },
            None => bounded(word).map(Delay::Fixed),
        };
        delay.ok_or_else(|| unknown(word, &format!("{what}, at most {DELAY_MAX}"), example))
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

    fn member(&mut self, example: &str) -> Parsed<Member> {
        let word = self.word("a member", example)?;
        self.member_named(word, example)
    }

    fn member_named(&self, word: &str, example: &str) -> Parsed<Member> {
        let number = word.strip_prefix('n').and_then(|digits| digits.parse::<u8>().ok());
        let number = number.filter(|n| (1..=self.members).contains(n));
        number
            .map(Member)
            .ok_or_else(|| unknown(word, &format!("a member from n1 to n{}", self.members), example))
    }

    fn target(&mut self, example: &str) -> Parsed<Target> {
        match self.word("a member, `leader`, `follower` or `all`", example)? {
            "leader" => Ok(Target::Leader),
            "follower" => Ok(Target::Follower),
            "all" => Ok(Target::All),
            word => self.member_named(word, example).map(Target::Node).map_err(|_| {
                unknown(word, &format!("n1 to n{}, `leader`, `follower` or `all`", self.members), example)
            }),
        }
    }

    fn message(&mut self, example: &str) -> Parsed<u64> {
        let word = self.word("a message", example)?;
        let number = word.strip_prefix('m').and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| unknown(word, "a message by its number", example))
    }

    fn action(&mut self) -> Parsed<Action> {
        let verb = self.word("an action", "at 3s crash leader")?;
        Ok(match verb {
            "crash" => Action::Crash(self.target("at 3s crash leader")?),
            "restart" => Action::Restart(self.target("at 4s restart n3")?),
            "pause" => Action::Pause(self.target("at 3s pause n2")?),
            "resume" => Action::Resume(self.target("at 4s resume n2")?),
            "isolate" => Action::Isolate(self.target("at 3s isolate leader")?),
            "timeout" => Action::Timeout(self.target("at 3s timeout n2")?),
            "recover" => Action::Recover,
            "cut" => {
                let (a, b, one_way) = self.link("at 3s cut n1 n2")?;
                Action::Cut(a, b, one_way)
            }
            "heal" if self.peek().is_none() => Action::HealAll,
            "heal" => {
                let (a, b, one_way) = self.link("at 4s heal n1 n2")?;
                Action::Heal(a, b, one_way)
            }
            "partition" => Action::Partition(self.groups()?),
            "topology" => Action::Topology(self.topology()?),
            "clock" => {
                let target = self.target("at 5s clock n2 rate 1.1")?;
                Action::Clock(target, self.clock_fault()?)
            }
            "disk" => {
                let target = self.target("at 5s disk n2 stall 500ms")?;
                Action::Disk(target, self.disk_action()?)
            }
            "latency" => Action::Network(NetworkChange::Latency(self.delay("at 5s latency 50ms..200ms")?)),
            "loss" => Action::Network(NetworkChange::Loss(self.share("at 5s loss 5%")?)),
            "reorder" => Action::Network(NetworkChange::Reorder(self.share("at 5s reorder 5%")?)),
            "duplicate" if self.peek().is_some_and(|word| word.starts_with('m')) => {
                Action::Duplicate(self.message("at 5s duplicate m17")?)
            }
            "duplicate" => Action::Network(NetworkChange::Duplicate(self.share("at 5s duplicate 5%")?)),
            "lose" => Action::Lose(self.message("at 5s lose m17")?),
            "delay" => {
                let message = self.message("at 5s delay m17 50ms")?;
                Action::Delay(message, self.span("a delay", Span(1), DELAY_MAX, "at 5s delay m17 50ms")?)
            }
            "propose" => {
                let value = self.word("a value", "at 6s propose hello")?.to_owned();
                let on =
                    if self.accept("on") { Some(self.member("at 6s propose hello on n2")?) } else { None };
                Action::Client(on, HandOperation::Put("hand".into(), value))
            }
            "put" | "get" | "delete" => self.hand(verb)?,
            "add" | "promote" | "remove" | "transfer" => Action::Operator(self.operator_change(verb)?),
            other => {
                return Err(unknown(
                    other,
                    "crash, restart, pause, resume, cut, heal, partition, isolate, topology, clock, disk, latency, loss, \
                     duplicate, reorder, add, promote, remove, transfer, propose, put, get, delete, timeout, lose, delay or recover",
                    "at 3s crash leader",
                ));
            }
        })
    }

    fn hand(&mut self, verb: &str) -> Parsed<Action> {
        let example = "at 6s put colour blue on n2";
        let key = self.word("a key", example)?.to_owned();
        let operation = match verb {
            "put" => HandOperation::Put(key, self.word("a value", example)?.to_owned()),
            "get" => HandOperation::Get(key),
            _ => HandOperation::Delete(key),
        };
        let on = if self.accept("on") { Some(self.member(example)?) } else { None };
        Ok(Action::Client(on, operation))
    }

    fn operator_change(&mut self, verb: &str) -> Parsed<OperatorChange> {
        Ok(match verb {
            "add" => {
                let member = self.member("at 3s add n6")?;
                OperatorChange::Add { member, learner: self.accept("learner") }
            }
            "promote" => OperatorChange::Promote(self.member("at 4s promote n6")?),
            "remove" => OperatorChange::Remove(self.member("at 3s remove n2")?),
            _ if self.peek().is_none() => OperatorChange::Transfer(None),
            _ => OperatorChange::Transfer(Some(self.member("at 3s transfer n2")?)),
        })
    }

    fn link(&mut self, example: &str) -> Parsed<(Member, Member, OneWay)> {
        let from = self.member(example)?;
        let one_way = if self.accept("->") { OneWay::Yes } else { OneWay::No };
        let to = self.member(example)?;
        if from == to {
            return Err(format!("a link joins two members, found {from} twice; for example: `{example}`"));
        }
        Ok((from, to, one_way))
    }

    fn groups(&mut self) -> Parsed<Vec<Vec<Member>>> {
        let example = "at 3s partition n1 n2 | n3 n4 n5";
        let mut groups = vec![Vec::new()];
        let mut seen = Vec::new();
        while let Some(word) = self.peek() {
            if word == "|" {
                self.next += 1;
                groups.push(Vec::new());
                continue;
            }
            let member = self.member(example)?;
            if seen.contains(&member) {
                return Err(format!("{member} is in two groups; for example: `{example}`"));
            }
            seen.push(member);
            groups.last_mut().expect("starts with one").push(member);
        }
        match groups.iter().any(Vec::is_empty) {
            true => Err(format!("a group has at least one member; for example: `{example}`")),
            false => Ok(groups),
        }
    }

    fn topology(&mut self) -> Parsed<Topology> {
        let example = "at 5s topology quorum-loss n1";
        match self.word("`quorum-loss`, `constrained`, `bridge` or `chained`", example)? {
            "quorum-loss" => Ok(Topology::QuorumLoss(self.member(example)?)),
            "constrained" => Ok(Topology::Constrained(self.member("at 5s topology constrained n1")?)),
            "bridge" => Ok(Topology::Bridge(self.member("at 5s topology bridge n1")?)),
            "chained" => Ok(Topology::Chained),
            other => Err(unknown(other, "`quorum-loss`, `constrained`, `bridge` or `chained`", example)),
        }
    }

    fn clock_fault(&mut self) -> Parsed<ClockFault> {
        let example = "at 5s clock n2 rate 1.1";
        match self.word("`rate` or `jump`", example)? {
            "rate" => {
                let word = self.word("a rate", example)?;
                let rate = Factor::parse(word).filter(|rate| (100_000..=10_000_000).contains(&rate.0));
                rate.map(ClockFault::Rate).ok_or_else(|| unknown(word, "a rate from 0.1 to 10", example))
            }
            "jump" => Ok(ClockFault::Jump(self.span(
                "a jump",
                Span(1),
                DURATION_MAX,
                "at 5s clock n2 jump 200ms",
            )?)),
            other => Err(unknown(other, "`rate` or `jump`", example)),
        }
    }

    fn disk_action(&mut self) -> Parsed<DiskAction> {
        let example = "at 5s disk n2 stall 500ms";
        let what = "stall, full, clear, lose-unsynced, tear, rot, fail, lie or wipe";
        Ok(match self.word(what, example)? {
            "stall" => DiskAction::Stall(self.span("a stall", Span(1), DELAY_MAX, example)?),
            "full" => DiskAction::Full,
            "clear" => DiskAction::Clear,
            "lose-unsynced" => DiskAction::LoseUnsynced,
            "tear" => DiskAction::Tear,
            "rot" => DiskAction::Rot,
            "fail" => DiskAction::Fail,
            "lie" => DiskAction::Lie,
            "wipe" => DiskAction::Wipe,
            other => return Err(unknown(other, what, example)),
        })
    }
}

fn unknown(found: &str, expected: &str, example: &str) -> String {
    format!("found `{found}`, expected {expected}; for example: `{example}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: &str = "\
synod-script 1
protocol raft
nodes 5
seed 7
for 12s
transport datagrams
latency 8ms..30ms
detect 100ms
loss 0.1%
duplicate 1%
reorder 2.5%
election 300ms
heartbeat 100ms
disk lognormal 1ms 2.5
lease 0.1%
segment 65536
message-bytes 1
window 4
tail-bytes 1000
clients 3 every 400ms keys 4 mix put:5,get:4,cas:1
expect progress within 10 elections
at 1s put colour blue on n2
at 1s get colour
at 1s delete colour
at 2s crash leader
at 2.5s crash all
at 3s restart all
at 3.2s pause follower
at 3.3s resume n2
at 4s cut n1 n2
at 4s cut n1 -> n2
at 4s heal n1 -> n2
at 4s heal n1 n2
at 4s heal
at 4s partition n1 n2 | n3 n4 n5
at 4s isolate leader
at 5s topology quorum-loss n1
at 5s topology constrained n1
at 5s topology chained
at 5s clock n2 rate 1.1
at 5s clock n2 jump 200ms
at 5s disk n2 stall 500ms
at 5s disk n2 full
at 5s disk all clear
at 5s disk n2 lose-unsynced
at 5s disk n2 tear
at 5s disk n2 rot
at 5s disk n2 fail
at 5s disk n2 lie
at 5s disk n2 wipe
at 6s latency 5ms
at 6s loss 5%
at 6s duplicate 5%
at 6s reorder 5%
at 6s add n6
at 6s add n7 learner
at 6s promote n7
at 6s remove n2
at 6s transfer
at 6s transfer n6
at 6s crash n7
at 6s timeout n2
at 6s lose m17
at 6s delay m17 50ms
at 6s duplicate m17
at 7s recover
";

    fn problem(text: &str) -> String {
        text.parse::<Script>().expect_err(text).to_string()
    }

    #[test]
    fn the_canonical_text_reads_back() {
        let script: Script = EVERYTHING.parse().expect("a script of everything");
        assert_eq!(script.to_string(), EVERYTHING);
        assert_eq!(script.to_string().parse(), Ok(script));
    }

    #[test]
    fn comments_defaults_and_order_of_time_are_not_part_of_the_canonical_text() {
        let text = "# a script\nsynod-script 1\nheartbeat 50ms # as always\n\nat 2s heal\nat 1s propose hi\n";
        let script: Script = text.parse().expect("a script");
        let canonical =
            "synod-script 1\nprotocol raft\nnodes 5\nseed 1\nfor 10s\nat 1s put hand hi\nat 2s heal\n";
        assert_eq!(script.to_string(), canonical);
    }

    #[test]
    fn an_error_names_the_line_what_was_found_and_an_example() {
        let found = problem("synod-script 1\n\nat 3s crsh n1\n");
        assert!(found.starts_with("line 3: found `crsh`, expected crash, restart"), "{found}");
        assert!(found.ends_with("for example: `at 3s crash leader`"), "{found}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (line, part) in [
            ("nodes 16", "from 1 to 15"),
            ("nodes -1", "from 1 to 15"),
            ("nodes", "the line ends where"),
            ("nodes 5 6", "`6` is more"),
            ("seed x", "a seed"),
            ("for 25h", "from 1ns to 86400s"),
            ("loss 101%", "from 0% to 100%"),
            ("election 100ms", "at least three heartbeats"),
            ("duplicate 1%", "transport datagrams"),
            ("at 1s duplicate m3", "transport datagrams"),
            ("at 11s heal", "after the end"),
            ("at 1s crash n6", "n1 to n5"),
            ("at 1s cut n1 n1", "twice"),
            ("at 1s partition n1 |", "at least one member"),
            ("at 1s partition n1 | n1", "two groups"),
            ("at 1s clock n1 rate 11", "0.1 to 10"),
            ("at 1s add n7", "n6 is next"),
            ("at 1s add n3", "n6 is next"),
            ("at 1s add n16", "n1 to n5"),
            ("lease 101%", "from 0% to 100%"),
            ("clients 0 every 1s keys 1", "from 1 to 1000"),
            ("clients 1 every 1s keys 1 mix put:0", "at least one operation"),
            ("latency 5ms..1ms", "a range of delays"),
            ("expect progress within 51 elections", "but the run ends at 10s"),
            ("seed 1\nseed 2", "a second time"),
            ("synod-script 1", "a second time"),
        ] {
            let found = problem(&format!("synod-script 1\n{line}\n"));
            assert!(found.contains(part), "{line}: {found}");
        }
        assert!(problem("").contains("begins with `synod-script 1`"));
        assert!(problem("synod-script 2").contains("version 2"));
        assert!(problem("protocol raft").contains("begins with"));
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        let mut rng = synod_protocols::Rng::new(5);
        for _ in 0..20_000 {
            let mut bytes = EVERYTHING.as_bytes().to_vec();
            for _ in 0..=rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                match rng.below(3) {
                    0 => bytes[at] = rng.below(128) as u8,
                    1 => drop(bytes.drain(at..(at + rng.below(30) as usize).min(bytes.len()))),
                    _ => bytes.insert(at, b" n9|.s"[rng.below(6) as usize]),
                }
            }
            let text = String::from_utf8(bytes).expect("ASCII");
            if let Ok(script) = text.parse::<Script>() {
                assert_eq!(script.to_string().parse(), Ok(script));
            }
        }
    }
}
