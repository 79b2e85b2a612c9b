//! The command language of the golden scripts. One command a line, `#` begins a comment.
//!
//! Members are n1, n2 and so on. Nothing happens by itself.
//!
//! | command | what it does |
//! |---|---|
//! | `start causal 3`, `start eventual 3` | so many members; clocks may be 10 s apart, a request waits 2 s |
//! | `alice: put x 1 put y 2 at n1` | a session's write; also `delete x`, `add c 5`, `insert s a`, `remove s a`, `replace r v` (what it read of r) |
//! | `alice: read x at n1`, `alice: read counter c at n1` | a session's read; also of a `set`, of `siblings`, of several: `read x read y` |
//! | `alice: tries x at n1` | as read, without its token |
//! | `token alice altered`, `… elsewhere`, `… another` | alice's token is altered; is of another cluster; of another keyspace |
//! | `deliver n1 n2 [Updates]`, `drop n1 n2 [Updates]`, `repeat n1 n2 [Updates]` | the oldest message (of that kind) arrives, is lost, or arrives and stays in flight |
//! | `run`, `timeout n1`, `pass 300ms` | all messages arrive; a deadline comes; time goes by with all that is due |
//! | `down n1 n2`, `up n1 n2` | the connection is lost, and is there again |
//! | `disk n1 slow`, `disk n1 quick`, `sync n1`, `crash n1 [durable]`, `restart n1`, `damage n1 3`, `full n1`, `room n1`, `compact n1` | the disks; damage: record 3, from 0, is lost |
//! | `clock n1 -5000ms`, `clock n1 5000ms` | the wall clock is set, relative to the true time |
//! | `join n4`, `add n4 at n1`, `remove n3 at n1` | members |
//! | `expect …` | see [`Runner::expect`] |

use super::subject::{
    Causal, ClusterId, Config, Content, Event, Eventual, KeyspaceId, Kind, Message, Name, Record, Request,
    Secret, Standing, WallTime, WeakReplica, Write, token,
};
use super::world::{TODAY, World};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_protocols::log::Ticket;
use synod_protocols::types::NodeId;
use synod_protocols::{Describe, Input, StorageFault};

type Outcome = Result<(), String>;

const CLUSTER: (ClusterId, KeyspaceId, Secret) = (ClusterId(0xc1), KeyspaceId(2), Secret([3, 4]));

fn configure(config: &mut Config) {
    (config.cluster, config.keyspace, config.secret) = CLUSTER;
    config.limits.log_max = 4;
    config.limits.early_max = 2;
    config.limits.waiting_max = 2;
    config.limits.batch_bytes_max = 100;
    config.limits.write_bytes_max = 64;
}

/// Runs a script. An error names the line, what was expected and what was found.
pub fn run(text: &str) -> Outcome {
    let is_causal = text.lines().any(|line| line.starts_with("start causal"));
    if is_causal { run_on::<Causal>(text) } else { run_on::<Eventual>(text) }
}

fn run_on<P: WeakReplica>(text: &str) -> Outcome {
    let mut runner = Runner::<P> { world: World::new(0, configure), sessions: BTreeMap::new() };
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        runner.world.note(|| format!("> {line}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Err(error) = runner.command(&words) {
            let trace = runner.world.trace.unwrap_or_default();
            return Err(format!("{trace}\nline {}: `{line}`: {error}", number + 1));
        }
    }
    Ok(())
}

struct Runner<P: WeakReplica> {
    world: World<P>,
    sessions: BTreeMap<String, Session>,
}

#[derive(Default)]
struct Session {
    token: Option<Bytes>,
    ticket: Ticket,
    /// What it read last.
    siblings: Vec<super::subject::Dot>,
}

impl<P: WeakReplica> Runner<P> {
    fn command(&mut self, words: &[&str]) -> Outcome {
        let world = &mut self.world;
        match words {
            ["start", level, members] => {
                check(*level == P::NAME, || "one level in a script".into())?;
                *world = World::new(number(members)?, configure);
                world.trace = Some(String::new());
            }
            [session, rest @ ..] if session.ends_with(':') => {
                return self.ask(session.trim_end_matches(':'), rest);
            }
            ["token", session, what] => return self.spoil(session, what),
            ["deliver" | "drop" | "repeat", ..] => return self.traffic(words),
            ["run"] => world.run(),
            ["timeout", id] => check(world.timeout(node(id)?), || "it waits for nothing".into())?,
            ["pass", span] => world.pass(duration(span)?),
            ["down", one, other] => world.down(node(one)?, node(other)?),
            ["up", one, other] => world.up(node(one)?, node(other)?),
            ["disk", id, speed] => {
                world.members.get_mut(&node(id)?).ok_or("no such member")?.is_slow = *speed == "slow";
            }
            ["sync", id] => world.sync(node(id)?, usize::MAX),
            ["crash", id] => world.crash(node(id)?, 0),
            ["crash", id, durable] => world.crash(node(id)?, number(durable)? as usize),
            ["restart", id] => world.start(node(id)?),
            ["damage", id, record] => world.start_damaged(node(id)?, number(record)? as usize),
            ["full", id] => world.step(node(id)?, Input::StorageFault(StorageFault::Full)),
            ["room", id] => world.step(node(id)?, Input::StorageFault(StorageFault::Cleared)),
            ["compact", id] => world.step(node(id)?, Input::Request(Request::Compact)),
            ["clock", id, ahead] => {
                let wall = match ahead.strip_prefix('-') {
                    Some(behind) => TODAY.0 - duration(behind)?.as_nanos() as u64,
                    None => TODAY.0 + duration(ahead)?.as_nanos() as u64,
                };
                world.set_clock(node(id)?, WallTime(wall));
            }
            ["join", id] => {
                world.add(node(id)?, true);
                world.start(node(id)?);
            }
            ["add", member, "at", id] => {
                let member = node(member)?;
                let ticket = world.ask(node(id)?, |ticket| Request::AddMember { ticket, member });
                self.sessions.entry("operator".into()).or_default().ticket = ticket;
            }
            ["remove", member, "at", id] => {
                let member = node(member)?;
                let ticket = world.ask(node(id)?, |ticket| Request::RemoveMember { ticket, member });
                self.sessions.entry("operator".into()).or_default().ticket = ticket;
            }
            ["expect", rest @ ..] => return self.expect(rest),
            _ => return Err("there is no such command".into()),
        }
        Ok(())
    }

    fn ask(&mut self, name: &str, words: &[&str]) -> Outcome {
        self.hear(name);
        let session = self.sessions.entry(name.into()).or_default();
        let [work @ .., "at", id] = words else { return Err("at whom?".into()) };
        let id = node(id)?;
        let is_tried = work.first() == Some(&"tries");
        let token = session.token.clone().filter(|_| !is_tried);
        let ticket = match work {
            ["read" | "tries", ..] => {
                let names = names(work)?;
                self.world.ask(id, |ticket| Request::Read { ticket, token, names })
            }
            _ => {
                let writes = writes(work, &session.siblings)?;
                self.world.ask(id, |ticket| Request::Write { ticket, token, writes })
            }
        };
        self.sessions.entry(name.into()).or_default().ticket = ticket;
        self.hear(name);
        Ok(())
    }

    /// What a session was answered is in its token from then on.
    fn hear(&mut self, name: &str) {
        let Some(session) = self.sessions.get_mut(name) else { return };
        match self.world.answers.get(&session.ticket) {
            Some(Event::Written { token, .. }) => session.token = token.clone(),
            Some(Event::Read { token, contents, .. }) => {
                session.token = token.clone();
                if let [Content::Siblings(siblings), ..] = contents.as_slice() {
                    session.siblings = siblings.iter().map(|(dot, _)| *dot).collect();
                }
            }
            _ => {}
        }
    }

    fn spoil(&mut self, name: &str, what: &str) -> Outcome {
        self.hear(name);
        let session = self.sessions.entry(name.into()).or_default();
        let (cluster, keyspace, secret) = CLUSTER;
        let nothing = super::subject::CausalContext::new();
        session.token = Some(match what {
            "altered" => {
                let mut token = session.token.clone().ok_or("it has none")?.to_vec();
                let place = token.len() - 9;
                token[place] ^= 2;
                token.into()
            }
            "elsewhere" => token::seal(secret, ClusterId(0xbad), keyspace, &nothing),
            "another" => token::seal(secret, cluster, KeyspaceId(9), &nothing),
            _ => return Err("altered, elsewhere or another".into()),
        });
        // So that its last answer does not give the old one back.
        session.ticket = Ticket(0);
        Ok(())
    }

    fn traffic(&mut self, words: &[&str]) -> Outcome {
        let [what, from, to, kind @ ..] = words else { return Err("from whom to whom?".into()) };
        let (from, to) = (node(from)?, node(to)?);
        let wanted = |(a, b, message): &(NodeId, NodeId, Message)| {
            (*a, *b) == (from, to) && kind.first().is_none_or(|kind| *kind == message.name())
        };
        let position = self.world.flight.iter().position(wanted).ok_or("there is no such message")?;
        match *what {
            "deliver" => self.world.deliver(position),
            "drop" => drop(self.world.flight.remove(position)),
            _ => {
                let message = self.world.flight[position].2.clone();
                self.world.arrive(from, to, message);
            }
        }
        Ok(())
    }

    /// | expectation | what must be so |
    /// |---|---|
    /// | `expect alice read 1`, `… read 1 nothing`, `… read a,b` | what a session read last; values that stand together are siblings or elements |
    /// | `expect alice written`, `… waits`, `… refused Behind`, `expect operator changed` | how its last request ended |
    /// | `expect n1 x 1`, `expect n1 set s a,b`, `expect n1 x nothing` | what a member shows |
    /// | `expect n1 seen n1:1-2 n2:1-1` | its context |
    /// | `expect n1 tombstones 1`, `expect n1 members n1 n2 -n3`, `expect n1 stands Joining`, `expect n1 warned` | the rest of its state |
    /// | `expect n1 to n2 Updates Digest`, `… nothing` | what is in flight, oldest first |
    /// | `expect n1 disk …` | the kinds of all records on its disk |
    fn expect(&mut self, words: &[&str]) -> Outcome {
        let nothing = |list: Vec<&str>| if list.is_empty() { "nothing".into() } else { list.join(" ") };
        if let [name, rest @ ..] = words
            && self.sessions.contains_key(*name)
        {
            self.hear(name);
            let found = self.heard(name);
            let wanted = rest.join(" ");
            return check(found == wanted || found.starts_with(&format!("{wanted} ")), || {
                format!("found `{found}`")
            });
        }
        let replica = |id: &str| {
            let process = self.world.process(node(id)?).ok_or("it is down");
            process.map(|process| process.replica()).map_err(String::from)
        };
        let (found, wanted) = match words {
            [from, "to", to, wanted @ ..] => {
                let (from, to) = (node(from)?, node(to)?);
                let flight = self.world.flight.iter().filter(|(a, b, _)| (*a, *b) == (from, to));
                (nothing(flight.map(|(_, _, message)| message.name()).collect()), wanted.join(" "))
            }
            [id, "disk", wanted @ ..] => {
                let disk = &self.world.members[&node(id)?].disk;
                (nothing(disk.iter().map(Record::name).collect()), wanted.join(" "))
            }
            [id, "seen", wanted @ ..] => (replica(id)?.seen().to_string(), wanted.join(" ")),
            [id, "tombstones", wanted] => (replica(id)?.store().tombstones().to_string(), (*wanted).into()),
            [id, "members", wanted @ ..] => (replica(id)?.roster().to_string(), wanted.join(" ")),
            [id, "stands", wanted] => {
                let found = match replica(id)?.standing() {
                    Standing::Member => "Member",
                    Standing::Joining { .. } => "Joining",
                    Standing::Removed => "Removed",
                    Standing::Damaged => "Damaged",
                };
                (found.into(), (*wanted).into())
            }
            [id, "warned"] => (self.world.warned.contains(&node(id)?).to_string(), "true".into()),
            [id, key, wanted] => (self.shown(id, Kind::Register, key)?, (*wanted).into()),
            [id, name, key, wanted] => (self.shown(id, kind(name)?, key)?, (*wanted).into()),
            _ => return Err("expect what?".into()),
        };
        check(found == wanted, || format!("found `{found}`"))
    }

    fn heard(&self, name: &str) -> String {
        match self.world.answers.get(&self.sessions[name].ticket) {
            None => "waits".into(),
            Some(Event::Written { .. }) => "written".into(),
            Some(Event::Changed { .. }) => "changed".into(),
            Some(Event::Refused { why, .. }) => {
                let words = format!("refused {why:?}").replace(|c: char| !c.is_alphanumeric(), " ");
                words.split_whitespace().collect::<Vec<_>>().join(" ")
            }
            Some(Event::Read { contents, .. }) => {
                format!("read {}", contents.iter().map(text).collect::<Vec<_>>().join(" "))
            }
            Some(other) => format!("{other:?}"),
        }
    }

    fn shown(&self, id: &str, kind: Kind, key: &str) -> Result<String, String> {
        Ok(text(&self.world.content(node(id)?, kind, key).ok_or("it is down")?))
    }
}

fn text(content: &Content) -> String {
    let string = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let together = |mut all: Vec<String>| {
        all.sort();
        if all.is_empty() { "nothing".into() } else { all.join(",") }
    };
    match content {
        Content::Value(None) => "nothing".into(),
        Content::Value(Some(bytes)) => string(bytes),
        Content::Sum(units) => units.to_string(),
        Content::Siblings(all) => together(all.iter().map(|(_, bytes)| string(bytes)).collect()),
        Content::Elements(all) => together(all.iter().map(string).collect()),
    }
}

fn bytes(word: &str) -> Bytes {
    Bytes::copy_from_slice(word.as_bytes())
}

fn names(mut words: &[&str]) -> Result<Vec<Name>, String> {
    let mut names = Vec::new();
    while let ["read" | "tries", rest @ ..] = words {
        let (kind, key, rest) = match rest {
            [name, key, rest @ ..] if kind(name).is_ok() => (kind(name)?, key, rest),
            [key, rest @ ..] => (Kind::Register, key, rest),
            [] => return Err("read what?".into()),
        };
        names.push(Name { kind, key: bytes(key) });
        words = rest;
    }
    check(words.is_empty(), || format!("what is `{words:?}`?"))?;
    Ok(names)
}

fn writes(mut words: &[&str], siblings: &[super::subject::Dot]) -> Result<Vec<Write>, String> {
    let mut writes = Vec::new();
    loop {
        let (write, rest) = match words {
            ["put", key, value, rest @ ..] => (Write::Put { key: bytes(key), value: bytes(value) }, rest),
            ["delete", key, rest @ ..] => (Write::Delete { key: bytes(key) }, rest),
            ["add", key, units, rest @ ..] => {
                let units = units.parse().map_err(|_| format!("`{units}` is not a number"))?;
                (Write::Add { key: bytes(key), units }, rest)
            }
            ["insert", key, element, rest @ ..] => {
                (Write::Insert { key: bytes(key), element: bytes(element) }, rest)
            }
            ["remove", key, element, rest @ ..] => {
                (Write::Remove { key: bytes(key), element: bytes(element) }, rest)
            }
            ["replace", key, value, rest @ ..] => {
                let (key, value) = (bytes(key), Some(bytes(value)));
                (Write::Replace { key, siblings: siblings.to_vec(), value }, rest)
            }
            [] | ["nothing"] => return Ok(writes),
            _ => return Err(format!("what is `{words:?}`?")),
        };
        writes.push(write);
        words = rest;
    }
}

fn kind(word: &str) -> Result<Kind, String> {
    Kind::ALL.into_iter().find(|kind| kind.to_string() == word).ok_or_else(|| format!("`{word}` is no kind"))
}

fn check(is_so: bool, error: impl FnOnce() -> String) -> Outcome {
    if is_so { Ok(()) } else { Err(error()) }
}

fn node(word: &str) -> Result<NodeId, String> {
    let number = word.strip_prefix('n').and_then(|number| number.parse().ok());
    number.map(NodeId).ok_or_else(|| format!("`{word}` is not a member"))
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("`{word}` is not a number"))
}

fn duration(word: &str) -> Result<Duration, String> {
    let millis = word.strip_suffix("ms").ok_or_else(|| format!("`{word}` is not like 50ms"))?;
    Ok(Duration::from_millis(number(millis)?))
}
