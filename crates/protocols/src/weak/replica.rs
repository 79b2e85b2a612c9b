//! What replicas of both levels do alike: they take writes, tell each other what they have, and repair what differs.

use super::anti_entropy::Pull;
use super::clock::{HybridClock, Stamp, WallTime};
use super::dots::{CausalContext, Dot, Origin};
use super::object::{Object, Write, delta};
use super::roster::{ROSTER_MAX, Reports, Roster};
use super::store::Store;
use super::token::{open, seal};
use super::update::{Message, Record, Update};
use super::{Config, Event, Refusal, WeakReplica};
use crate::contract::{Effects, Recovery};
use crate::fingerprint::Fingerprint;
use crate::log::Ticket;
use crate::types::{NodeId, Time};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;
use core::hash::Hash;
use core::time::Duration;

/// Where a replica stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It takes reads and writes.
    Member,
    /// It is new. It takes writes once it has seen what its introducer had seen.
    Joining {
        /// What that was, once that is known.
        goal: Option<CausalContext>,
    },
    /// It was removed.
    Removed,
    /// Records that may have been acknowledged are unreadable: it abstains, and has to be replaced.
    Damaged,
}

/// The part of a replica that does not depend on the level.
#[derive(Clone, Debug)]
pub struct Replica {
    pub(super) config: Config,
    pub(super) origin: Origin,
    pub(super) clock: HybridClock,
    pub(super) seen: CausalContext,
    pub(super) store: Store,
    pub(super) roster: Roster,
    pub(super) standing: Standing,
    reports: Reports,
    pub(super) pull: Option<Pull>,
    /// Questions that it has asked in this life.
    pub(super) rounds: u64,
    turn: u64,
    next_gossip: Time,
    pub(super) is_full: bool,
    /// When the host was last told that this origin's clock is ahead.
    warned: BTreeMap<Origin, Time>,
    pub(super) ignored: u64,
}

/// What there is to see of a replica.
impl Replica {
    /// What it has seen.
    pub fn seen(&self) -> &CausalContext {
        &self.seen
    }

    /// Its objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Who the members are, as far as it knows.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Where it stands.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The name under which it takes updates.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Messages that were ignored, since they were malformed, from strangers, or too far ahead of the clock.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}

/// Starting.
impl Replica {
    /// A replica from what its disk held, and the updates that others may lack, in the order in which they were shown, with
    /// what of the rest was seen.
    pub(super) fn recover<P: WeakReplica>(
        config: Config,
        from: Recovery<'_, Record>,
        now: Time,
        out: &mut Effects<P>,
    ) -> (Replica, Vec<Update>, CausalContext) {
        let origin = Origin { node: config.id, since: config.incarnation };
        let mut replica = Replica {
            origin,
            clock: HybridClock::new(origin),
            seen: CausalContext::new(),
            store: Store::default(),
            roster: Roster::default(),
            standing: Standing::Member,
            reports: Reports::default(),
            pull: None,
            rounds: 0,
            turn: 0,
            next_gossip: now,
            is_full: false,
            warned: BTreeMap::new(),
            ignored: 0,
            config,
        };
        let mut log = Vec::new();
        let mut floor = CausalContext::new();
        match from {
            Recovery::First => {
                replica.roster = Roster::of(replica.config.members.iter().copied());
                out.record(Record::Began { origin, is_joining: false });
                out.record(Record::Members { roster: replica.roster.clone() });
            }
            Recovery::Join => {
                replica.standing = Standing::Joining { goal: None };
                out.record(Record::Began { origin, is_joining: true });
            }
            Recovery::Resume { records } => {
                records.for_each(|record| replica.replay(record, &mut log, &mut floor));
            }
            Recovery::Damaged { records } => {
                let mut is_whole = true;
                for record in records {
                    match record {
                        Some(record) => replica.replay(record, &mut log, &mut floor),
                        None => is_whole = false,
                    }
                }
                if !is_whole {
                    replica.standing = Standing::Damaged;
                }
            }
        }
        (replica, log, floor)
    }

    fn replay(&mut self, record: Record, log: &mut Vec<Update>, floor: &mut CausalContext) {
        match record {
            Record::Began { origin, is_joining } => {
                self.origin = origin;
                self.clock = HybridClock::new(origin);
                if is_joining {
                    self.standing = Standing::Joining { goal: None };
                }
            }
            Record::Members { roster } => {
                self.roster = roster;
                if self.roster.removed.contains(&self.config.id) {
                    self.standing = Standing::Removed;
                }
            }
            Record::CaughtUp => self.standing = Standing::Member,
            Record::Shown { update } => {
                self.clock.witness(update.stamp);
                self.store.apply(&update, &self.seen);
                self.seen.insert(update.dot);
                log.push(update);
            }
            Record::Merged { seen, clock, changes } => {
                self.clock.witness(clock);
                self.seen.join(&seen);
                self.store.change(&changes, &self.seen);
                log.clear();
                floor.join(&self.seen);
            }
            Record::Everything {
                origin,
                is_joining,
                roster,
                seen,
                clock,
                objects,
                covered,
                log: updates,
            } => {
                self.replay(Record::Began { origin, is_joining }, log, floor);
                self.replay(Record::Members { roster }, log, floor);
                self.clock.witness(clock);
                self.store = Store::restore(objects, covered);
                self.seen = seen;
                *floor = self.seen.clone();
                *log = updates;
            }
        }
    }

    /// Everything in one record, with the updates that others may lack.
    pub(super) fn everything(&self, log: Vec<Update>) -> Record {
        let cells = |object: &Object| object.iter().map(|(dot, cell)| (*dot, cell.clone())).collect();
        Record::Everything {
            origin: self.origin,
            is_joining: matches!(self.standing, Standing::Joining { .. }),
            roster: self.roster.clone(),
            seen: self.seen.clone(),
            clock: self.clock.latest(),
            objects: self.store.objects().map(|(name, object)| (name.clone(), cells(object))).collect(),
            covered: self.store.covered().cloned().collect(),
            log,
        }
    }
}

/// Writing.
impl Replica {
    pub(super) fn wall(&self, now: Time) -> WallTime {
        WallTime(self.config.wall_at_zero.0.saturating_add(now.0))
    }

    /// Whether a read may be answered here at all.
    pub(super) fn may_read(&self) -> Result<(), Refusal> {
        match self.standing {
            Standing::Removed => Err(Refusal::Removed),
            Standing::Damaged => Err(Refusal::Damaged),
            Standing::Member | Standing::Joining { .. } => Ok(()),
        }
    }

    /// Whether these writes may be taken.
    pub(super) fn may_write(&self, now: Time, writes: &[Write]) -> Result<(), Refusal> {
        self.may_read()?;
        let limits = &self.config.limits;
        let bytes = writes.iter().map(Write::len).sum();
        let mut names = BTreeSet::new();
        let behind = self.clock.latest().wall.ahead_of(self.wall(now));
        match writes.iter().map(Write::name).find(|name| !names.insert(name.clone())) {
            _ if matches!(self.standing, Standing::Joining { .. }) => Err(Refusal::Joining),
            _ if self.is_full => Err(Refusal::Full),
            _ if writes.is_empty() => Err(Refusal::Empty),
            Some(name) => Err(Refusal::Twice { name }),
            _ if bytes > limits.write_bytes_max => {
                Err(Refusal::TooLarge { bytes, bytes_max: limits.write_bytes_max })
            }
            _ if behind > self.config.timing.skew_max => Err(Refusal::ClockBehind { by: behind }),
            None => Ok(()),
        }
    }

    /// Takes writes, and makes the update durable. What it comes after is what was seen, or nothing.
    pub(super) fn write<P: WeakReplica>(
        &mut self,
        now: Time,
        writes: &[Write],
        after: CausalContext,
        out: &mut Effects<P>,
    ) -> Update {
        let dot = Dot { origin: self.origin, count: self.seen.up_to(self.origin) + 1 };
        let stamp = self.clock.tick(self.wall(now));
        let deltas =
            writes.iter().map(|write| delta(write, self.store.object(&write.name()), self.origin)).collect();
        let update = Update { dot, stamp, after, deltas };
        self.show(update.clone(), out);
        update
    }

    /// From now on reads see it.
    pub(super) fn show<P: WeakReplica>(&mut self, update: Update, out: &mut Effects<P>) {
        assert!(!self.seen.contains(update.dot), "{} is shown twice", update.dot);
        self.clock.witness(update.stamp);
        self.store.apply(&update, &self.seen);
        self.seen.insert(update.dot);
        if let Some(pull) = &mut self.pull {
            pull.since.insert(update.dot);
        }
        out.record(Record::Shown { update });
    }

    /// Whether an update may come in: it is no longer than ours may be, and not from the future.
    pub(super) fn may_show<P: WeakReplica>(
        &mut self,
        now: Time,
        update: &Update,
        out: &mut Effects<P>,
    ) -> bool {
        let slack = 64 * (1 + update.deltas.len());
        let is_fine = update.len() <= self.config.limits.write_bytes_max + slack && update.dot.count > 0;
        let is_ours = update.dot.origin == self.origin;
        let may = is_fine && !is_ours && self.is_due(now, update.stamp, out);
        self.ignored += u64::from(!may);
        may
    }

    /// Whether a stamp is not from further ahead than clocks may be apart. The host is told if it is.
    pub(super) fn is_due<P: WeakReplica>(&mut self, now: Time, stamp: Stamp, out: &mut Effects<P>) -> bool {
        let ahead = stamp.wall.ahead_of(self.wall(now));
        if ahead <= self.config.timing.skew_max {
            return true;
        }
        let told = self.warned.get(&stamp.origin);
        if told.is_none_or(|told| now.since(*told) >= WARN_EVERY) && self.warned.len() < ROSTER_MAX {
            self.warned.insert(stamp.origin, now);
            out.event(Event::ClockAhead { origin: stamp.origin, ahead });
        }
        false
    }
}

/// How often the host is told of one origin whose clock is ahead.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Sessions.
impl Replica {
    /// What a session has seen, by its token; nothing if it has none yet.
    pub(super) fn opened(&self, token: Option<&Bytes>) -> Result<CausalContext, Refusal> {
        let Config { secret, cluster, keyspace, .. } = self.config;
        match token {
            None => Ok(CausalContext::new()),
            Some(token) => open(token, secret, cluster, keyspace).map_err(Refusal::Token),
        }
    }

    /// The token of a session that has seen all that this replica has.
    pub(super) fn token(&self) -> Bytes {
        let Config { secret, cluster, keyspace, .. } = self.config;
        seal(secret, cluster, keyspace, &self.seen)
    }
}

/// Members.
impl Replica {
    /// Whom it talks to.
    pub(super) fn peers(&self) -> Vec<NodeId> {
        let own = self.config.id;
        match self.roster.members.is_empty() {
            true => self.config.members.iter().copied().filter(|id| *id != own).collect(),
            false => self.roster.members.iter().copied().filter(|id| *id != own).collect(),
        }
    }

    /// Whether it listens to this. Who was removed is told so; and whoever names both as members is believed, since
    /// who introduced it may be gone. Hosts let only machines of the cluster talk to each other.
    pub(super) fn listens_to<P: WeakReplica>(
        &mut self,
        from: NodeId,
        message: &Message,
        out: &mut Effects<P>,
    ) -> bool {
        if self.roster.removed.contains(&from) && self.standing == Standing::Member {
            let digest = self.digest(CausalContext::new(), false);
            out.send(from, digest);
        } else if let Message::Digest { roster, .. } = message
            && [from, self.config.id].iter().all(|id| roster.members.contains(id))
            && roster.len() <= ROSTER_MAX
        {
            self.adopt(roster, out);
        }
        let is_silent = matches!(self.standing, Standing::Removed | Standing::Damaged);
        let listens = !is_silent && self.peers().contains(&from);
        self.ignored += u64::from(!listens);
        listens
    }

    /// Adds or removes a member.
    pub(super) fn change_members<P: WeakReplica>(
        &mut self,
        ticket: Ticket,
        member: NodeId,
        is_added: bool,
        out: &mut Effects<P>,
    ) {
        let mut roster = self.roster.clone();
        let is_member = roster.members.contains(&member);
        let refusal = match self.standing {
            Standing::Member if is_added && (is_member || roster.removed.contains(&member)) => {
                Some(Refusal::WasMember)
            }
            Standing::Member if is_added && (roster.len() >= ROSTER_MAX || member == NodeId(0)) => {
                Some(Refusal::RosterFull)
            }
            Standing::Member if !is_added && !is_member => Some(Refusal::NoMember),
            Standing::Member if !is_added && roster.members.len() == 1 => Some(Refusal::LastMember),
            Standing::Member => None,
            Standing::Joining { .. } => Some(Refusal::Joining),
            Standing::Removed => Some(Refusal::Removed),
            Standing::Damaged => Some(Refusal::Damaged),
        };
        if let Some(why) = refusal {
            return out.event(Event::Refused { ticket, why });
        }
        match is_added {
            true => drop(roster.members.insert(member)),
            false => {
                roster.members.remove(&member);
                roster.removed.insert(member);
            }
        }
        let told = self.peers();
        self.adopt(&roster, out);
        out.event(Event::Changed { ticket });
        // The one who is removed hears it as well.
        told.into_iter()
            .chain([member])
            .for_each(|id| out.send(id, self.digest(CausalContext::new(), false)));
    }

    fn adopt<P: WeakReplica>(&mut self, roster: &Roster, out: &mut Effects<P>) {
        if !self.roster.merge(roster) {
            return;
        }
        self.reports.clear();
        if self.roster.removed.contains(&self.config.id) {
            self.standing = Standing::Removed;
            self.pull = None;
        }
        out.record(Record::Members { roster: self.roster.clone() });
        out.event(Event::Members { roster: self.roster.clone() });
    }
}

/// Gossip.
impl Replica {
    pub(super) fn deadline(&self) -> Option<Time> {
        let is_silent = matches!(self.standing, Standing::Removed | Standing::Damaged);
        (!is_silent).then_some(self.next_gossip)
    }

    /// Says to everybody what it has, and asks one of them, each in turn, for what it lacks. Returns what has become stable.
    pub(super) fn gossip<P: WeakReplica>(
        &mut self,
        now: Time,
        floor: &CausalContext,
        out: &mut Effects<P>,
    ) -> Option<CausalContext> {
        if self.deadline().is_none_or(|due| now < due) {
            return None;
        }
        self.next_gossip = now + self.config.timing.gossip;
        let peers = self.peers();
        self.turn += 1;
        for (place, peer) in (0..).zip(&peers) {
            let is_asked = place == self.turn % peers.len() as u64;
            out.send(*peer, self.digest(floor.clone(), is_asked));
        }
        let stable = self.reports.stable(self.config.id, &self.roster, &self.seen);
        self.store.bury(&stable);
        Some(stable)
    }

    pub(super) fn digest(&self, floor: CausalContext, is_asking: bool) -> Message {
        Message::Digest {
            roster: self.roster.clone(),
            seen: self.seen.clone(),
            floor,
            root: self.store.root(),
            clock: self.clock.latest(),
            is_asking,
        }
    }

    /// Hears what a member has. False if that was that one of both is removed.
    pub(super) fn on_digest<P: WeakReplica>(
        &mut self,
        now: Time,
        from: NodeId,
        roster: &Roster,
        seen: &CausalContext,
        clock: Stamp,
        out: &mut Effects<P>,
    ) -> bool {
        if roster.len() > ROSTER_MAX {
            self.ignored += 1;
            return false;
        }
        self.adopt(roster, out);
        if self.is_due(now, clock, out) {
            self.clock.witness(clock);
        }
        if self.roster == *roster {
            self.reports.hear(from, seen.clone(), &self.seen);
        }
        if let Standing::Joining { goal: goal @ None } = &mut self.standing
            && self.roster.members.contains(&self.config.id)
        {
            *goal = Some(seen.clone());
        }
        self.maybe_caught_up(out);
        self.standing != Standing::Removed && self.peers().contains(&from)
    }

    /// A newcomer has seen what its introducer had seen.
    pub(super) fn maybe_caught_up<P: WeakReplica>(&mut self, out: &mut Effects<P>) {
        if let Standing::Joining { goal: Some(goal) } = &self.standing
            && self.seen.includes(goal)
        {
            self.standing = Standing::Member;
            out.record(Record::CaughtUp);
        }
    }
}

impl Replica {
    pub(super) fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        (&self.seen, &self.roster.members, &self.roster.removed, &self.standing).hash(digest);
        digest.word(self.store.root());
        digest.word(self.clock.latest().wall.ahead_of(self.wall(now)).as_nanos() as u64);
        digest.word(self.next_gossip.since(now).as_nanos() as u64);
        digest.word(u64::from(self.pull.is_some()) << 1 | u64::from(self.is_full));
    }
}
