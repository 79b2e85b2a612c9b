//! The command language of the golden scripts. One command a line, `#` begins a comment.
//!
//! Nothing happens by itself: messages stay on their wires until they are delivered, timers do not
//! fire, and only disks are quick (every step is synced at once) unless told otherwise.
//!
//! | command | what it does |
//! |---|---|
//! | `count epochs` | from here on epochs are shown as how many of those that were led are not after them |
//! | `start 3` | a cluster of three members, n1 to n3, which are up and wait |
//! | `limit window_messages 2` | before `start`: sets a bound (also `message_bytes`, `window_bytes`, `uncommitted_bytes`, `tail_bytes`, `reads`, `members`, `alpha`) |
//! | `lease 1000`, `priority n2 5`, `drift n2 -500`, `alpha n2 5` | before `start`: leases with a drift bound in parts per million; a priority; a clock that runs so much faster; an α of its own |
//! | `join n4` | a new machine with the next free id starts and joins; it is not a member before it was added |
//! | `timeout n1` | the clock moves to n1's deadline, and n1's timer fires |
//! | `elect n1` | `timeout n1`, `run`, and n1 must lead |
//! | `wait 50ms` | the clock moves, nothing else does |
//! | `pass 300ms` | the clock moves, due timers fire, and every message arrives at once |
//! | `run` | everything on its way is delivered until nothing is |
//! | `deliver n1 n2 [count]` | the oldest messages from n1 to n2 arrive (all of them without a count) |
//! | `drop n1 n2 [count]` | the oldest messages are lost |
//! | `repeat n1 n2` | the oldest message is on its way twice, the copy behind all others |
//! | `overtake n1 n2` | the newest message arrives before all others |
//! | `cut n1 n2`, `heal n1 n2` | messages both ways are lost from now on, silently; `cut n1 > n2` for one way |
//! | `isolate n1`, `heal all` | n1 is cut from all others; all wires are whole again |
//! | `break n1 n2`, `connect n1 n2` | the connection is lost or made, and both are told |
//! | `disk n1 slow`, `disk n1 quick` | effects wait for `sync n1 [batches]`, or no longer do |
//! | `disk n1 full`, `disk n1 cleared` | a fault of the disk |
//! | `crash n1 [durable]`, `restart n1 [joining]` | unsynced records are lost, but for the first `durable` steps' |
//! | `restart n1 damaged [2 5]` | the second and fifth records on its disk are lost for good; one after the last without numbers |
//! | `restart n1 stateless` | its state machine has lost its state, and its log, whose beginning was dropped, is as it was |
//! | `segment n1` | a new segment of its log begins, with its hard state restated |
//! | `compact n1 [3]` | n1 makes durable what it has applied, and cuts the log up to there or up to 3; old segments are dropped |
//! | `propose n1 a b as p1` | commands a and b in one request, called p1 (`x*100` is x a hundred times) |
//! | `read n1 as r1` | a linearizable read, called r1 |
//! | `transfer n1 [n2] as t1` | n1 hands over leadership, to n2 or to whoever is best |
//! | `add n1 n4 [promote] [context] as c1` | asks n1 for a new member, a learner; `promote`: a voter once it has caught up |
//! | `promote n1 n4 as c1`, `remove n1 n2 as c1`, `replace n1 n2 n3 n4 as c1` | other changes of members |
//! | `apply n1` | n1's state machine makes durable what it has applied |
//! | `hold answers n1`, `answer n1 [nothing or crash]` | the host answers only when told: with nothing, or dying when a fetched snapshot is durable |
//! | `expect …` | see [`Runner::expect`] |

use crate::cluster::{Answer, Cluster, Settings, Start};
use crate::subjects::show_epoch;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use synod_protocols::log::{
    ChangeRefusal, CommittedEntry, Epoch, Index, Lease, Member, MemberPart, MembershipChange, Payload,
    Refusal, ReplicatedLog, Role, Ticket,
};
use synod_protocols::types::NodeId;
use synod_protocols::{Describe, StorageFault};

/// Runs a script. An error names the line, what was expected and what was found.
pub fn run<P: ReplicatedLog>(text: &str) -> Result<u64, String> {
    let mut runner: Runner<P> = Runner {
        cluster: None,
        settings: Settings { seed: 1, ..Settings::default() },
        names: BTreeMap::new(),
        count_epochs: false,
    };
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        runner.note(line);
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Err(error) = runner.command(&words) {
            let trace = runner.cluster.and_then(|cluster| cluster.trace).unwrap_or_default();
            let skipped = trace.lines().count().saturating_sub(60);
            let trace: Vec<_> = trace.lines().skip(skipped).collect();
            let trace = trace.join("\n");
            return Err(format!("{trace}\nline {}: `{line}`: {error}", number + 1));
        }
    }
    Ok(runner.cluster.map_or(0, |cluster| cluster.steps))
}

struct Runner<P: ReplicatedLog> {
    cluster: Option<Cluster<P>>,
    settings: Settings,
    names: BTreeMap<String, Ticket>,
    count_epochs: bool,
}

type Outcome = Result<(), String>;

impl<P: ReplicatedLog> Runner<P> {
    fn note(&mut self, line: &str) {
        if let Some(cluster) = &mut self.cluster {
            cluster.note(|| format!("> {line}"));
        }
    }

    fn cluster(&mut self) -> &mut Cluster<P> {
        self.cluster.as_mut().expect("a script starts a cluster first")
    }

    fn command(&mut self, words: &[&str]) -> Outcome {
        match words {
            ["count", "epochs"] => self.count_epochs = true,
            ["limit", name, value] => return self.limit(name, number(value)?),
            ["start", size] => {
                let mut cluster = Cluster::new(number(size)?, self.settings.clone());
                cluster.trace = Some(String::new());
                self.cluster = Some(cluster);
            }
            ["lease", ppm] => self.settings.lease = Some(Lease { drift_ppm: number(ppm)? as u32 }),
            ["priority", id, priority] => {
                self.settings.priorities.insert(node(id)?, number(priority)? as u8);
            }
            ["alpha", id, slots] => {
                self.settings.alphas.insert(node(id)?, number(slots)? as usize);
            }
            ["drift", id, ppm] => {
                let ppm = ppm.parse().map_err(|_| format!("`{ppm}` is not a number"))?;
                self.settings.drifts.insert(node(id)?, ppm);
            }
            ["join", id] => {
                let (wanted, new) = (node(id)?, self.cluster().join());
                check(wanted == new, || format!("the next free id is {new}"))?;
            }
            ["expect", rest @ ..] => return self.expect(rest),
            ["propose" | "read" | "transfer" | "add" | "promote" | "remove" | "replace", ..] => {
                return self.request(words);
            }
            ["wait", span] => {
                let span = duration(span)?;
                let cluster = self.cluster();
                cluster.now = cluster.now + span;
            }
            ["pass", span] => {
                let span = duration(span)?;
                self.cluster().pass(span);
            }
            ["run"] => self.cluster().run(),
            ["deliver" | "drop" | "repeat" | "overtake", ..] => return self.traffic(words),
            ["cut" | "heal" | "isolate" | "break" | "connect", ..] => return self.network(words),
            _ => return self.member(words),
        }
        Ok(())
    }

    fn limit(&mut self, name: &str, value: u64) -> Outcome {
        let limits = &mut self.settings.limits;
        let limit = match name {
            "message_bytes" => &mut limits.message_bytes_max,
            "window_bytes" => &mut limits.window_bytes_max,
            "window_messages" => &mut limits.window_messages_max,
            "uncommitted_bytes" => &mut limits.uncommitted_bytes_max,
            "tail_bytes" => &mut limits.tail_bytes_max,
            "reads" => &mut limits.reads_max,
            "members" => &mut limits.members_max,
            "alpha" => &mut limits.alpha,
            _ => return Err(format!("there is no limit {name}")),
        };
        *limit = value as usize;
        Ok(())
    }

    fn request(&mut self, words: &[&str]) -> Outcome {
        let (words, name) = match words {
            [words @ .., "as", name] => (words, Some(name.to_string())),
            _ => (words, None),
        };
        let id = node(words.get(1).ok_or("of which member?")?)?;
        let ticket = match words {
            ["propose", _, commands @ ..] => {
                let commands = commands.iter().map(|word| command(word)).collect::<Result<_, _>>()?;
                self.cluster().propose(id, commands)
            }
            ["read", _] => self.cluster().read(id),
            ["transfer", _] => self.cluster().transfer(id, None),
            ["transfer", _, to] => {
                let to = node(to)?;
                self.cluster().transfer(id, Some(to))
            }
            ["add" | "promote" | "remove" | "replace", ..] => {
                let change = change(words)?;
                self.cluster().change(id, change)
            }
            _ => return Err("a request is not written like that".into()),
        };
        if let Some(name) = name {
            self.names.insert(name, ticket);
        }
        Ok(())
    }

    fn traffic(&mut self, words: &[&str]) -> Outcome {
        let (what, from, to) = match words {
            [what, from, to] | [what, from, to, _] => (*what, node(from)?, node(to)?),
            _ => return Err("which wire?".into()),
        };
        let length = self.cluster().wire(from, to).len();
        let count = match words.get(3) {
            Some(count) => number(count)? as usize,
            None => length,
        };
        if length == 0 || count > length {
            return Err(format!("there are {length} messages on this wire"));
        }
        match what {
            "deliver" => (0..count).for_each(|_| assert!(self.cluster().deliver(from, to, 0))),
            "drop" => drop(self.cluster().wire_mut(from, to).drain(..count)),
            "repeat" => {
                let wire = self.cluster().wire_mut(from, to);
                wire.push_back(wire[0].clone());
            }
            _ => assert!(self.cluster().deliver(from, to, length - 1)),
        }
        Ok(())
    }

    fn network(&mut self, words: &[&str]) -> Outcome {
        let cluster = self.cluster();
        match words {
            ["cut", from, ">", to] => cluster.cut(node(from)?, node(to)?),
            ["heal", from, ">", to] => cluster.heal(node(from)?, node(to)?),
            ["heal", "all"] => {
                for a in cluster.ids() {
                    cluster.ids().for_each(|b| cluster.heal(a, b));
                }
            }
            ["isolate", id] => {
                let id = node(id)?;
                for other in cluster.ids().filter(|other| *other != id) {
                    cluster.cut(id, other);
                    cluster.cut(other, id);
                }
            }
            [what, a, b] => {
                let (a, b) = (node(a)?, node(b)?);
                match *what {
                    "cut" => {
                        cluster.cut(a, b);
                        cluster.cut(b, a);
                    }
                    "heal" => {
                        cluster.heal(a, b);
                        cluster.heal(b, a);
                    }
                    "break" => cluster.link_down(a, b),
                    "connect" => cluster.link_up(a, b),
                    _ => return Err("the network cannot do that".into()),
                }
            }
            _ => return Err("the network cannot do that".into()),
        }
        Ok(())
    }

    fn member(&mut self, words: &[&str]) -> Outcome {
        let id = match words {
            ["disk", id, ..] | ["hold", _, id] | [_, id, ..] => node(id)?,
            _ => return Err("there is no such command".into()),
        };
        let cluster = self.cluster();
        let slot = id.0 as usize - 1;
        match words {
            ["timeout", _] => check(cluster.timeout(id), || format!("{id} has no deadline"))?,
            ["elect", _] => {
                check(cluster.timeout(id), || format!("{id} has no deadline"))?;
                cluster.run();
                check(cluster.leader() == Some(id), || format!("{id} does not lead"))?;
            }
            ["disk", _, "slow"] => cluster.nodes[slot].manual = true,
            ["disk", _, "quick"] => {
                cluster.nodes[slot].manual = false;
                cluster.sync(id, usize::MAX);
            }
            ["disk", _, "full"] => cluster.fault(id, StorageFault::Full),
            ["disk", _, "cleared"] => cluster.fault(id, StorageFault::Cleared),
            ["sync", _] => cluster.sync(id, usize::MAX),
            ["sync", _, batches] => cluster.sync(id, number(batches)? as usize),
            ["crash", _] => cluster.crash(id, 0),
            ["crash", _, durable] => cluster.crash(id, number(durable)? as usize),
            ["restart", _] => cluster.start(id, Start::Resume),
            ["restart", _, "damaged", lost @ ..] => {
                let lost =
                    lost.iter().map(|n| Ok(number(n)? as usize)).collect::<Result<Vec<_>, String>>()?;
                let end = cluster.nodes[slot].disk.records().len() + 1;
                cluster.start(
                    id,
                    Start::Damaged(if lost.is_empty() { std::slice::from_ref(&end) } else { &lost }),
                );
            }
            ["segment", _] => cluster.begin_segment(id),
            ["compact", _] => {
                let index = cluster.nodes[slot].delivered.len() as u64;
                cluster.compact(id, Index(index));
            }
            ["compact", _, index] => {
                let (index, delivered) = (number(index)?, cluster.nodes[slot].delivered.len() as u64);
                check(index <= delivered, || format!("{id} has applied only {delivered}"))?;
                cluster.compact(id, Index(index));
            }
            ["restart", _, "stateless"] => cluster.start(id, Start::Stateless),
            ["restart", _, "joining"] => cluster.start(id, Start::Join),
            ["apply", _] => cluster.apply(id),
            ["hold", "answers", _] => cluster.nodes[slot].hold_answers = true,
            ["answer", _] => check(cluster.answer(id, false), || format!("{id} asks nothing"))?,
            ["answer", _, "nothing"] => check(cluster.answer(id, true), || format!("{id} asks nothing"))?,
            ["answer", _, "crash"] => {
                check(cluster.answer_and_crash(id), || format!("{id} fetches no snapshot"))?;
            }
            _ => return Err("there is no such command".into()),
        }
        Ok(())
    }

    /// | expectation | what must hold |
    /// |---|---|
    /// | `n1 leader` (or any role), `n1 leader epoch 2` | n1's role, and its epoch (Raft: term, Viewstamped Replication: view) |
    /// | `n1 epoch 2`, `n1 follows n2`, `n1 follows nobody`, `n1 voted n2` | |
    /// | `n1 committed 3`, `n1 durable 3`, `n1 last 3`, `n1 base 3`, `n1 in memory 3`, `n1 ignored 1` | `LogStatus` |
    /// | `n1 log -@1 a@1 b@2` | its log from its base on; `-` is a no-op, `members` a configuration |
    /// | `n1 members n1 n2 n3:leaving n4:entering n5:learner n6:promoting` | the configuration in effect |
    /// | `n1 told n1 n2` | the configuration that its host was told last |
    /// | `n1 context n4 text` | what the configuration in effect says about n4 |
    /// | `n1 says some words` | its description of itself has a line with these words |
    /// | `n1 records HardState, Entries` | the records on its disk |
    /// | `n1 applied -@1 a@1` | what it has delivered as committed |
    /// | `n1 asks 2..3`, `n1 asks snapshot 5 of n2`, `n1 asks nothing` | its oldest question to the host |
    /// | `n1 unsynced 2` | so many steps' records wait for a sync |
    /// | `no leader`, `some leader` | nobody leads, somebody does |
    /// | `r1 ready 3`, `r1 ready 3 until 210ms`, `r1 waits`, `r1 done`, `r1 refused busy` | what became of a request (`refused not leader n2` with a hint); with the end of the lease by n1's clock if it rests on one |
    /// | `wire n1 n2 AppendEntries, Vote` | the names of the messages on their way, `nothing` for none |
    /// | `next n1 n2 commit 3` | the oldest message's description contains these words |
    fn expect(&mut self, words: &[&str]) -> Outcome {
        match words {
            ["no", "leader"] => {
                let leader = self.cluster().leader();
                same(leader.map_or("nobody".into(), |id| id.to_string()), "nobody".into())
            }
            ["some", "leader"] => check(self.cluster().leader().is_some(), || "nobody leads".into()),
            ["wire", from, to, names @ ..] => {
                let wire = self.cluster().wire(node(from)?, node(to)?);
                let found: Vec<_> = wire.iter().map(Describe::name).collect();
                let found = if found.is_empty() { "nothing".into() } else { found.join(", ") };
                same(found, names.join(" "))
            }
            ["next", from, to, part @ ..] => {
                let part = part.join(" ");
                let next = self.cluster().wire(node(from)?, node(to)?).front().map(Describe::detail);
                let next = next.ok_or("there is no message on this wire")?;
                check(next.contains(&part), || format!("found `{next}`"))
            }
            [name, rest @ ..] if self.names.contains_key(*name) => self.expect_answer(name, rest),
            [id, rest @ ..] => self.expect_member(node(id)?, rest),
            [] => Err("what?".into()),
        }
    }

    fn expect_answer(&mut self, name: &str, rest: &[&str]) -> Outcome {
        let ticket = self.names[name];
        let found = match self.cluster().outcomes.get(&ticket) {
            None => "waits".to_string(),
            Some(Answer::Ready(index, None)) => format!("ready {index}"),
            Some(Answer::Ready(index, Some(until))) => {
                format!("ready {index} until {}ms", until.0 / 1_000_000)
            }
            Some(Answer::Done) => "done".into(),
            Some(Answer::Refused(why)) => format!("refused {}", refusal(*why)),
        };
        same(found, rest.join(" "))
    }

    fn expect_member(&self, id: NodeId, rest: &[&str]) -> Outcome {
        let cluster = self.cluster.as_ref().expect("a script starts a cluster first");
        let node_ = cluster.node(id);
        let now = cluster.local(id);
        match rest {
            ["applied", entries @ ..] => {
                return same(self.show_applied(id), entries.join(" "));
            }
            ["asks", what @ ..] => return same(show_asks(&node_.asks), what.join(" ")),
            ["told", members @ ..] => {
                return same(show_members(node_.members.as_deref().unwrap_or_default()), members.join(" "));
            }
            ["records", names @ ..] => {
                let name = |record: &Option<_>| record.as_ref().map_or("lost", Describe::name);
                let found: Vec<_> = node_.disk.records().iter().map(name).collect();
                return same(found.join(", "), names.join(" "));
            }
            ["unsynced", count] => return same(cluster.unsynced(id).to_string(), count.to_string()),
            _ => {}
        }
        let process = node_.process.as_ref().ok_or_else(|| format!("{id} is down"))?;
        let status = process.status();
        if let ["says", words @ ..] = rest {
            let words = words.join(" ");
            let lines: Vec<_> =
                process.describe(now).into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
            return check(lines.iter().any(|line| line.contains(&words)), || {
                format!("found {}", lines.join("; "))
            });
        }
        let nobody = |id: Option<NodeId>| id.map_or("nobody".to_string(), |id| id.to_string());
        let (found, wanted) = match rest {
            ["log", entries @ ..] => (self.show_log(process), entries.join(" ")),
            ["members", members @ ..] => (show_members(&process.members()), members.join(" ")),
            ["context", whom, context @ ..] => {
                let whom = node(whom)?;
                let members = process.members();
                let found = members.iter().find(|member| member.id == whom).ok_or("no such member")?;
                (String::from_utf8_lossy(&found.context).into_owned(), context.join(" "))
            }
            ["base", n] => (status.base.to_string(), n.to_string()),
            ["committed", n] => (status.committed.to_string(), n.to_string()),
            ["durable", n] => (status.durable.to_string(), n.to_string()),
            ["last", n] => (status.last.to_string(), n.to_string()),
            ["in", "memory", n] => (status.first_in_memory.to_string(), n.to_string()),
            ["ignored", n] => (status.ignored.to_string(), n.to_string()),
            ["epoch", n] => (self.show_epoch(status.epoch), n.to_string()),
            ["follows", leader] => (nobody(status.leader), leader.to_string()),
            ["voted", whom] => (nobody(status.voted_for), whom.to_string()),
            [role] => (show_role(status.role), role.to_string()),
            [role, "epoch", n] => (
                format!("{} epoch {}", show_role(status.role), self.show_epoch(status.epoch)),
                format!("{role} epoch {n}"),
            ),
            _ => return Err("there is no such expectation".into()),
        };
        same(found, wanted)
    }
}

/// How things are shown.
impl<P: ReplicatedLog> Runner<P> {
    fn show_epoch(&self, epoch: Epoch) -> String {
        match (&self.cluster, self.count_epochs) {
            (Some(cluster), true) => cluster.oracle.count_epochs(epoch).to_string(),
            _ => show_epoch::<P>(epoch),
        }
    }

    fn show_applied(&self, id: NodeId) -> String {
        let cluster = self.cluster.as_ref().expect("a script starts a cluster first");
        let show = |entry: &CommittedEntry| {
            format!("{}@{}", show_payload(&entry.payload), self.show_epoch(entry.epoch))
        };
        let entries: Vec<_> = cluster.node(id).delivered.iter().map(show).collect();
        if entries.is_empty() { "nothing".into() } else { entries.join(" ") }
    }

    fn show_log(&self, process: &P) -> String {
        let show = |index| match process.entry(Index(index)) {
            Some((epoch, payload)) => format!("{}@{}", show_payload(payload), self.show_epoch(epoch)),
            None => "?".into(),
        };
        let status = process.status();
        let entries: Vec<_> = (status.base.0 + 1..=status.last.0).map(show).collect();
        if entries.is_empty() { "nothing".into() } else { entries.join(" ") }
    }
}

fn check(condition: bool, error: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(error()) }
}

fn same(found: String, wanted: String) -> Outcome {
    check(found == wanted, || format!("found `{found}`"))
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("`{word}` is not a number"))
}

fn node(word: &str) -> Result<NodeId, String> {
    let id = word.strip_prefix('n').and_then(|id| id.parse().ok());
    id.map(NodeId).ok_or_else(|| format!("`{word}` is not a member"))
}

fn change(words: &[&str]) -> Result<MembershipChange, String> {
    Ok(match words {
        ["add", _, id, rest @ ..] => {
            let (promote, context) = match rest {
                ["promote", context @ ..] => (true, context),
                context => (false, context),
            };
            MembershipChange::Add { id: node(id)?, context: Bytes::from(context.join(" ")), promote }
        }
        ["promote", _, id] => MembershipChange::Promote(node(id)?),
        ["remove", _, id] => MembershipChange::Remove(node(id)?),
        ["replace", _, ids @ ..] => {
            MembershipChange::Replace(ids.iter().map(|id| node(id)).collect::<Result<_, _>>()?)
        }
        _ => return Err("a change of members is not written like that".into()),
    })
}

fn show_members(members: &[Member]) -> String {
    let show = |member: &Member| match member.part {
        MemberPart::Voter => member.id.to_string(),
        MemberPart::Leaving => format!("{}:leaving", member.id),
        MemberPart::Entering => format!("{}:entering", member.id),
        MemberPart::Learner { promote: false } => format!("{}:learner", member.id),
        MemberPart::Learner { promote: true } => format!("{}:promoting", member.id),
    };
    if members.is_empty() { "nobody".into() } else { members.iter().map(show).collect::<Vec<_>>().join(" ") }
}

fn duration(word: &str) -> Result<Duration, String> {
    let millis = word.strip_suffix("ms").ok_or_else(|| format!("`{word}` is not a time like 50ms"))?;
    Ok(Duration::from_millis(number(millis)?))
}

fn command(word: &str) -> Result<Bytes, String> {
    match word.split_once('*') {
        Some((text, times)) => Ok(Bytes::from(text.repeat(number(times)? as usize))),
        None => Ok(Bytes::copy_from_slice(word.as_bytes())),
    }
}

fn show_payload(payload: &Payload) -> String {
    match payload {
        Payload::Noop => "-".into(),
        Payload::Command(bytes) if bytes.len() > 8 => format!("{}*{}", char::from(bytes[0]), bytes.len()),
        Payload::Command(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Payload::Membership(_) => "members".into(),
    }
}

fn show_asks(asks: &VecDeque<synod_protocols::log::LogAsk>) -> String {
    match asks.front() {
        None => "nothing".into(),
        Some(synod_protocols::log::LogAsk::Entries { from, to, .. }) => format!("{from}..{to}"),
        Some(synod_protocols::log::LogAsk::Snapshot { from, index }) => format!("snapshot {index} of {from}"),
    }
}

fn show_role(role: Role) -> String {
    format!("{role:?}").to_lowercase()
}

fn refusal(why: Refusal) -> String {
    match why {
        Refusal::NotLeader { leader: Some(leader) } => format!("not leader {leader}"),
        Refusal::NotLeader { leader: None } => "not leader".into(),
        Refusal::Busy => "busy".into(),
        Refusal::LeadershipLost => "leadership lost".into(),
        Refusal::Storage => "storage".into(),
        Refusal::Unsupported => "unsupported".into(),
        Refusal::Change(why) => match why {
            ChangeRefusal::InProgress => "in progress".into(),
            ChangeRefusal::NotYet => "not yet".into(),
            ChangeRefusal::Unknown(id) => format!("unknown {id}"),
            ChangeRefusal::AlreadyMember(id) => format!("already member {id}"),
            ChangeRefusal::IdUsed { highest } => format!("id used {highest}"),
            ChangeRefusal::NotCaughtUp(id) => format!("not caught up {id}"),
            ChangeRefusal::WouldLoseQuorum => "would lose quorum".into(),
            ChangeRefusal::Size => "size".into(),
            ChangeRefusal::CannotLead(id) => format!("cannot lead {id}"),
        },
    }
}
