//! Reading scripts. Every error names its line, what was found, what was expected, and an example.
//!
//! This module reads a script as a whole, [`setting`] and [`action`] read its two kinds of lines, and [`line`] the words
//! of one.

mod action;
mod line;
mod setting;

use crate::script::{
    ACTIONS_MAX, Action, Member, NODES_MAX, NetworkChange, SCRIPT_BYTES_MAX, Script, Timed, Transport,
};
use crate::units::{Share, Span};
use line::Line;
pub use line::WORD_BYTES_MAX;
use std::fmt;
use std::str::FromStr;

/// The smallest log segment that a script may ask for, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// The largest, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;

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
            let mut line = Line::after_keyword(&words, script.nodes.max(joining));
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
