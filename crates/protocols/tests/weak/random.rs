//! Seeded random runs under loss, repetition, reordering, cuts, crashes, clocks that jump, and changing members.
//! What clients saw is judged by the checker at the level's model; at rest all members are the same and no
//! tombstone is left.

use super::subject::{
    Causal, Config, Content, Event, Kind, Name, Request, Standing, WallTime, WeakReplica, Write,
};
use super::world::{TODAY, World};
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use synod_check::history::{Call, Handle, Header, History, Nanos, Outcome, Recorder, Reply};
use synod_check::judge::{Consistency, Object, judge};
use synod_check::linearizable::Limits;
use synod_protocols::log::Ticket;
use synod_protocols::types::NodeId;
use synod_protocols::{Input, Rng};

const ACTIONS: u64 = 700;
const SESSIONS: u64 = 4;

#[derive(Debug, Default)]
pub struct Totals {
    pub writes: u64,
    pub reads: u64,
    pub refused: u64,
    pub crashes: u64,
    pub cuts: u64,
    pub deletes: u64,
    pub changes: u64,
}

fn configure(config: &mut Config) {
    // Small, so that the bounds are met.
    config.limits.log_max = 12;
    config.limits.early_max = 6;
    config.limits.batch_bytes_max = 300;
}

struct Run<P: WeakReplica> {
    world: World<P>,
    rng: Rng,
    recorder: Recorder,
    sessions: BTreeMap<u64, Session>,
    moment: u64,
    values: u64,
    /// What was added to the counter: acknowledged, and perhaps.
    added: (i64, i64),
}

#[derive(Default)]
struct Session {
    name: String,
    token: Option<Bytes>,
    asked: Option<Asked>,
}

struct Asked {
    ticket: Ticket,
    handle: Option<Handle>,
    since: u64,
    units: i64,
}

pub fn drive<P: WeakReplica>(seed: u64, total: &mut Totals) {
    let mut rng = Rng::new(seed);
    let members = 2 + rng.below(2);
    let (lose, repeat, crash) = (rng.below(3) * 60, rng.below(3) * 80, rng.below(3) * 6);
    let is_reordered = rng.chance(1, 2);
    let jumps = rng.chance(1, 3);
    let mut world = World::<P>::new(members, configure);
    for member in world.members.values_mut() {
        member.is_slow = rng.chance(1, 3);
    }
    let sessions = (0..SESSIONS).map(|id| (id, Session { name: format!("s{id}"), ..Session::default() }));
    let recorder = Recorder::new(Header::new("kv"));
    let sessions = sessions.collect();
    let mut run = Run { world, rng, recorder, sessions, moment: 0, values: 0, added: (0, 0) };
    for _ in 0..ACTIONS {
        let ids: Vec<NodeId> = run.world.members.keys().copied().collect();
        let id = ids[run.rng.below(ids.len() as u64) as usize];
        let other = ids[run.rng.below(ids.len() as u64) as usize];
        run.moment += 1;
        if run.world.process(id).is_none() {
            if run.rng.chance(1, 8) {
                run.world.start(id);
            }
        } else if run.rng.chance(crash, 1_000) {
            let durable = run.rng.below(1 + run.world.unsynced(id) as u64) as usize;
            run.world.crash(id, durable);
            total.crashes += 1;
        } else {
            match run.rng.below(200) {
                0..80 if !run.world.flight.is_empty() => run.traffic(lose, repeat, is_reordered),
                80..95 => run.world.sync(id, 1 + run.moment as usize % 3),
                95..120 => drop(run.world.timeout(id)),
                120..124 if id != other => {
                    run.world.down(id, other);
                    total.cuts += 1;
                }
                124..132 => run.world.up(id, other),
                132 => run.world.step(id, Input::Request(Request::Compact)),
                133 if jumps => {
                    let wall = WallTime(TODAY.0 - 5_000_000_000 + run.rng.below(20_000_000_000));
                    run.world.set_clock(id, wall);
                }
                134 if run.rng.chance(1, 3) => run.change_members(id, members, total),
                _ => run.ask(id, total),
            }
        }
        run.hear(total);
    }
    run.rest(total);
}

impl<P: WeakReplica> Run<P> {
    fn traffic(&mut self, lose: u64, repeat: u64, is_reordered: bool) {
        let length = self.world.flight.len() as u64;
        let position = if is_reordered { self.rng.below(length) } else { 0 } as usize;
        if self.rng.chance(lose, 1_000) {
            drop(self.world.flight.remove(position));
            return;
        }
        if self.rng.chance(repeat, 1_000) {
            let again = self.world.flight[position].clone();
            self.world.flight.push(again);
        }
        self.world.deliver(position);
    }

    /// One member comes, and one goes, which is not the one that introduced the other.
    fn change_members(&mut self, id: NodeId, founders: u64, total: &mut Totals) {
        if id == NodeId(founders) {
            return;
        }
        total.changes += 1;
        let member = NodeId(founders + 1);
        match self.world.members.contains_key(&member) {
            false => {
                self.world.add(member, true);
                self.world.start(member);
                self.world.ask(id, |ticket| Request::AddMember { ticket, member });
            }
            true => {
                let member = NodeId(founders);
                self.world.ask(id, |ticket| Request::RemoveMember { ticket, member });
            }
        }
    }

    fn ask(&mut self, id: NodeId, total: &mut Totals) {
        let number = self.rng.below(SESSIONS);
        if self.sessions[&number].asked.is_some() {
            return;
        }
        self.values += 1;
        let text = self.values.to_string();
        let value = Bytes::from(text.clone());
        let key = |prefix: &str, of: u64, rng: &mut Rng| Bytes::from(format!("{prefix}{}", rng.below(of)));
        let judged = key("k", 3, &mut self.rng);
        let judged_text = String::from_utf8_lossy(&judged).into_owned();
        let (mut units, mut call, mut names) = (0, None, Vec::new());
        let write = match self.rng.below(20) {
            0..6 => {
                call = Some(Call::put(&judged_text, text.as_str()));
                Some(Write::Put { key: judged, value })
            }
            6..12 => {
                call = Some(Call::get(&judged_text));
                names = vec![Name { kind: Kind::Register, key: judged }];
                None
            }
            12 | 13 => Some(Write::Put { key: key("d", 2, &mut self.rng), value }),
            14 | 15 => {
                total.deletes += 1;
                Some(Write::Delete { key: key("d", 2, &mut self.rng) })
            }
            16 => {
                units = self.rng.below(10) as i64;
                Some(Write::Add { key: "c".into(), units })
            }
            17 => Some(Write::Insert { key: "s".into(), element: key("e", 5, &mut self.rng) }),
            18 => Some(Write::Remove { key: "s".into(), element: key("e", 5, &mut self.rng) }),
            _ => {
                let name = Name { kind: Kind::Siblings, key: "r".into() };
                let content = self.world.process(id).map(|process| process.replica().store().read(&name));
                let Some(Content::Siblings(all)) = content else { return };
                let siblings = all.iter().map(|(dot, _)| *dot).collect();
                Some(Write::Replace { key: name.key, siblings, value: Some(value) })
            }
        };
        let session = &self.sessions[&number];
        let token = session.token.clone();
        let moment = Nanos(self.moment);
        let handle = call.map(|call| self.recorder.invoke(moment, &session.name, call));
        let ticket = match write {
            Some(write) => self.world.ask(id, |ticket| Request::Write { ticket, token, writes: vec![write] }),
            None => self.world.ask(id, |ticket| Request::Read { ticket, token, names }),
        };
        let asked = Asked { ticket, handle, since: self.moment, units };
        self.sessions.get_mut(&number).expect("it is there").asked = Some(asked);
    }

    fn hear(&mut self, total: &mut Totals) {
        let moment = Nanos(self.moment);
        for session in self.sessions.values_mut() {
            let Some(asked) = &mut session.asked else { continue };
            let answer = self.world.answers.get(&asked.ticket);
            let outcome = match answer {
                None if self.moment - asked.since < 60 => continue,
                // Its client gives up, and goes on as somebody else who knows as much.
                None => {
                    self.added.1 += asked.units;
                    session.name.push('\'');
                    session.token = None;
                    Outcome::unknown("no answer")
                }
                Some(Event::Written { token, .. }) => {
                    total.writes += 1;
                    self.added.0 += asked.units;
                    session.token = token.clone();
                    Outcome::Ok(Reply::none())
                }
                Some(Event::Read { token, contents, .. }) => {
                    total.reads += 1;
                    session.token = token.clone();
                    Outcome::Ok(Reply::value(json(&contents[0])))
                }
                Some(Event::Refused { why, .. }) => {
                    total.refused += 1;
                    Outcome::fail(&why.to_string())
                }
                Some(other) => panic!("{other:?} is no answer to this"),
            };
            let asked = session.asked.take().expect("just seen");
            asked
                .handle
                .into_iter()
                .for_each(|handle| self.recorder.complete(moment, handle, outcome.clone()));
        }
    }

    /// All faults end; what was promised for then is looked at.
    fn rest(mut self, total: &mut Totals) {
        let world = &mut self.world;
        let ids: Vec<NodeId> = world.members.keys().copied().collect();
        for id in &ids {
            world.members.get_mut(id).expect("it is there").is_slow = false;
            world.sync(*id, usize::MAX);
            if world.process(*id).is_none() {
                world.start(*id);
            }
            // So that nothing is from the future any more.
            world.set_clock(*id, WallTime(TODAY.0 + 60_000_000_000));
        }
        for (one, other) in world.cut.clone() {
            world.up(one, other);
        }
        world.pass(Duration::from_secs(20));
        self.moment += 100;
        self.hear(total);
        // What was read on the way is no last read: one more write comes after it.
        let standing = |id: &NodeId| self.world.process(*id).expect("it is up").replica().standing().clone();
        let members: Vec<NodeId> = ids.into_iter().filter(|id| standing(id) == Standing::Member).collect();
        let mut history = self.recorder;
        if let Some(id) = members.first() {
            let last = history.invoke(Nanos(self.moment), "the last", Call::put("k0", "last"));
            let writes = vec![Write::Put { key: "k0".into(), value: "last".into() }];
            self.world.ask(*id, |ticket| Request::Write { ticket, token: None, writes });
            self.world.pass(Duration::from_secs(5));
            history.complete(Nanos(self.moment + 1), last, Outcome::Ok(Reply::none()));
        }
        self.world.check_rest();
        self.moment += 2;
        for id in &members {
            let replica = self.world.process(*id).expect("it is up").replica();
            assert_eq!(replica.store().tombstones(), 0, "{id} still has tombstones");
            for key in 0..3 {
                let name = Name { kind: Kind::Register, key: Bytes::from(format!("k{key}")) };
                let handle =
                    history.invoke(Nanos(self.moment), &format!("at {id}"), Call::get(&format!("k{key}")));
                let reply = Reply::value(json(&replica.store().read(&name)));
                history.complete(Nanos(self.moment), handle, Outcome::Ok(reply));
            }
        }
        if total.changes == 0
            && let Some(id) = members.first()
        {
            let Some(Content::Sum(sum)) = self.world.content(*id, Kind::Counter, "c") else {
                panic!("a sum")
            };
            let (least, most) = (self.added.0, self.added.0 + self.added.1);
            assert!((least..=most).contains(&sum), "the counter is {sum}, and not from {least} to {most}");
        }
        check::<P>(&history.finish());
    }
}

fn json(content: &Content) -> Value {
    match content {
        Content::Value(Some(bytes)) => Value::from(String::from_utf8_lossy(bytes)),
        Content::Value(None) => Value::Null,
        other => panic!("{other:?} is not judged"),
    }
}

fn check<P: WeakReplica>(history: &History) {
    let models: &[Consistency] = match P::NAME == Causal::NAME {
        true => &[
            Consistency::CausalConvergence,
            Consistency::ReadYourWrites,
            Consistency::MonotonicReads,
            Consistency::MonotonicWrites,
            Consistency::WritesFollowReads,
            Consistency::Eventual,
        ],
        false => &[Consistency::Eventual],
    };
    for model in models {
        let limits = Limits { threads_max: 1, ..Limits::default() };
        let judgement =
            judge(history, Some(Object::Kv), Some(*model), &limits, &mut || false).expect("a history");
        let finding = &judgement.findings[0];
        assert!(finding.answer.is_yes(), "the history is not {model}: {}", finding.explanation);
    }
}
