//! Causal consistency: effects are never shown before their causes.
//!
//! # The idea
//!
//! Every update carries what its member had seen when it took it. Another member shows it when it has seen all of
//! that, and keeps it aside until then. A client takes what it has seen from member to member in a session token; a
//! member that lacks some of it makes the client wait. That is all: no member ever waits for another to take a write
//! or answer a read, so there is nothing that a partition could stop, but the session that changes sides in it.
//!
//! # Why it holds
//!
//! *Causal order.* An update comes after another if one session wrote both in this order, or read the one before it
//! wrote the other, or through a chain of such steps. By the token, the member had seen the earlier one when it
//! took the later; so it is in `after`, and whoever shows the later one has shown the earlier. What a member has
//! shown is therefore always closed under causality, and reads of several keys are of one such moment.
//!
//! *Sessions.* A member's context only grows. Who answers a session has at least the session's context: it reads
//! its writes and never reads back; and what it writes comes after all of that, for everybody.
//!
//! *Convergence.* Objects merge alike in any order ([`super::object`]), and stamps agree with causality
//! ([`super::clock`]), so two members that have seen the same updates show the same, and an overwritten value does
//! not come back. That everybody sees every update at last is the work of gossip: members say what they have seen,
//! and are sent what they lack.
//!
//! This is *causal convergence* (CCv in Bouajjani, Enea, Guerraoui and Hamza, *On Verifying Causal Consistency*, 2017),
//! which is what the checker judges its histories by; COPS calls it causal+.
//!
//! # Sources
//!
//! Ahamad et al., *Causal Memory* (1995), for delivery by vectors; Lloyd, Freedman, Kaminsky and Andersen, *COPS*
//! (SOSP 2011), for dependencies that clients carry and convergent conflict handling; Petersen et al., *Flexible
//! Update Propagation* (Bayou, SOSP 1997), section 3, for anti-entropy from a log that may have been cut; Terry et
//! al. (PDIS 1994) for sessions. COPS lets an update name its nearest causes only; here it carries the whole
//! context, which for the few members of a cluster is shorter than a list of keys.
//!
//! # Logs
//!
//! An update stays in the log until it is stable, so a member that was away is sent what it missed. If that is more
//! than the log holds, or it is new, it pulls what differs ([`super::anti_entropy`]) and merges it at one moment:
//! the union of two contexts that are closed under causality is closed as well.

use super::dots::CausalContext;
use super::object::{Name, Write};
use super::replica::Replica;
use super::update::{Message, Record, Update};
use super::{Config, Event, Refusal, Request, WeakReplica};
use crate::contract::{Effects, Input, Process, Recovery, StorageFault};
use crate::fingerprint::Fingerprint;
use crate::log::Ticket;
use crate::types::{NodeId, Time};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::hash::Hash;

/// Messages of updates that one question is answered by; who lacks more asks again.
const BATCHES_MAX: usize = 16;

/// A causal replica. See [the module](self).
#[derive(Clone, Debug)]
pub struct Causal {
    replica: Replica,
    /// Updates that some member may lack, as they were shown here.
    log: VecDeque<Update>,
    /// What was seen and is not in the log.
    floor: CausalContext,
    /// Updates that came before what they depend on, by their dots.
    early: BTreeMap<super::dots::Dot, Update>,
    waiting: Vec<Waiting>,
    /// What was sent to members who asked, and may be on its way to them.
    under_way: BTreeMap<NodeId, UnderWay>,
}

/// What a member was sent because it lacked it.
#[derive(Clone, Debug)]
struct UnderWay {
    /// When the latest of it was sent.
    since: Time,
    updates: CausalContext,
}

/// A request whose session has seen more than this replica.
#[derive(Clone, Debug)]
struct Waiting {
    ticket: Ticket,
    seen: CausalContext,
    until: Time,
    wanted: Wanted,
}

#[derive(Clone, Debug)]
enum Wanted {
    Read(Vec<Name>),
    Write(Vec<Write>),
}

impl WeakReplica for Causal {
    const NAME: &'static str = "causal";

    fn replica(&self) -> &Replica {
        &self.replica
    }
}

impl Process for Causal {
    type Config = Config;
    type Message = Message;
    type Record = Record;
    type Request = Request;
    type Ask = ();
    type Answer = ();
    type Event = Event;
    type Base = ();

    fn recover(
        config: Config,
        from: Recovery<'_, Record>,
        (): (),
        now: Time,
        out: &mut Effects<Causal>,
    ) -> Causal {
        let (replica, log, floor) = Replica::recover(config, from, now, out);
        Causal {
            replica,
            log: log.into(),
            floor,
            early: BTreeMap::new(),
            waiting: Vec::new(),
            under_way: BTreeMap::new(),
        }
    }

    fn step(&mut self, now: Time, input: Input<Causal>, out: &mut Effects<Causal>) {
        match input {
            Input::Message { from, message } => {
                if self.replica.listens_to(from, &message, out) {
                    self.on_message(now, from, message, out);
                }
            }
            Input::LinkUp { peer, .. } if self.replica.peers().contains(&peer) => {
                self.under_way.remove(&peer);
                let digest = self.replica.digest(self.floor.clone(), true);
                out.send(peer, digest);
            }
            Input::Request(request) => self.on_request(now, request, out),
            Input::StorageFault(fault) => self.replica.is_full = fault == StorageFault::Full,
            Input::LinkUp { .. } | Input::LinkDown { .. } | Input::Answer(()) | Input::Timeout => {}
        }
        if let Some(stable) = self.replica.gossip(now, &self.floor, out) {
            self.cut_log(&stable);
            let peers = self.replica.peers();
            self.under_way.retain(|peer, _| peers.contains(peer));
        }
        self.serve_waiting(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        let waiting = self.waiting.iter().map(|waiting| waiting.until).min();
        self.replica.deadline().into_iter().chain(waiting).min()
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        self.replica.fingerprint(now, digest);
        self.log.iter().chain(self.early.values()).for_each(|update| update.dot.hash(digest));
        for (peer, under_way) in &self.under_way {
            digest.word(peer.0);
            under_way.updates.hash(digest);
            digest.word(now.since(under_way.since).as_nanos() as u64);
        }
        for waiting in &self.waiting {
            digest.word(waiting.ticket.0);
            digest.word(waiting.until.since(now).as_nanos() as u64);
        }
    }
}

/// Messages.
impl Causal {
    fn on_message(&mut self, now: Time, from: NodeId, message: Message, out: &mut Effects<Causal>) {
        match message {
            Message::Updates { updates } => {
                updates.into_iter().for_each(|update| self.on_update(now, update, out));
            }
            Message::Digest { roster, seen, floor, clock, is_asking, .. } => {
                if !self.replica.on_digest(now, from, &roster, &seen, clock, out) {
                    return;
                }
                if !self.replica.seen.includes(&floor) {
                    self.replica.pull(now, from, out);
                }
                if is_asking {
                    self.send_missing(now, from, &seen, out);
                }
            }
            Message::Pull { round, leaves } => self.replica.on_pull(from, round, &leaves, out),
            Message::Part { answer } => {
                if self.replica.on_part(now, from, answer, out) {
                    // They are not there as updates.
                    self.floor.join(&self.replica.seen);
                    self.log.clear();
                    self.show_early(out);
                }
            }
        }
    }

    fn on_update(&mut self, now: Time, update: Update, out: &mut Effects<Causal>) {
        if self.replica.seen.contains(update.dot) || !self.replica.may_show(now, &update, out) {
            return;
        }
        // What can be shown is, however many wait: it may be what they wait for.
        if self.is_next(&update) {
            self.show(update, out);
            self.show_early(out);
        } else if self.early.len() < self.replica.config.limits.early_max {
            self.early.insert(update.dot, update);
        }
    }

    /// Shows what depends on nothing any more that is not shown.
    fn show_early(&mut self, out: &mut Effects<Causal>) {
        let seen = &self.replica.seen;
        self.early.retain(|dot, _| !seen.contains(*dot));
        while let Some(dot) = self.early.values().find(|update| self.is_next(update)).map(|update| update.dot)
        {
            let update = self.early.remove(&dot).expect("it was just found");
            self.show(update, out);
        }
    }

    fn is_next(&self, update: &Update) -> bool {
        let seen = &self.replica.seen;
        seen.includes(&update.after) && seen.up_to(update.dot.origin) + 1 == update.dot.count
    }

    fn show(&mut self, update: Update, out: &mut Effects<Causal>) {
        assert!(self.replica.seen.includes(&update.after), "{} is shown before its causes", update.dot);
        self.replica.show(update.clone(), out);
        self.remember(update);
    }

    fn remember(&mut self, update: Update) {
        self.log.push_back(update);
        while self.log.len() > self.replica.config.limits.log_max {
            self.floor.insert(self.log.pop_front().expect("it is not empty").dot);
        }
    }

    /// Nobody lacks what is stable.
    fn cut_log(&mut self, stable: &CausalContext) {
        while self.log.front().is_some_and(|update| stable.contains(update.dot)) {
            self.floor.insert(self.log.pop_front().expect("it was just seen").dot);
        }
    }

    /// Sends the updates that are in the log and not in this context. Who asks again before it has taken in what it was sent
    /// is sent what comes next, and the same only when that must be lost: otherwise a member that has much to catch up with, and
    /// asks at every round of gossip, would be sent the same over and over, faster than it can take it.
    fn send_missing(&mut self, now: Time, to: NodeId, seen: &CausalContext, out: &mut Effects<Causal>) {
        let bytes_max = self.replica.config.limits.batch_bytes_max;
        let is_lost =
            |under_way: &UnderWay| now.since(under_way.since) >= self.replica.config.timing.pull_max;
        let mut under_way = self.under_way.remove(&to).filter(|under_way| !is_lost(under_way));
        let mut known = seen.clone();
        under_way.iter().for_each(|under_way| known.join(&under_way.updates));
        let mut missing = self.log.iter().filter(|update| !known.contains(update.dot)).peekable();
        for _ in 0..BATCHES_MAX {
            let mut updates = Vec::new();
            let mut bytes = 0;
            while let Some(update) = missing.next_if(|update| bytes == 0 || bytes + update.len() <= bytes_max)
            {
                bytes += update.len();
                updates.push(update.clone());
            }
            if updates.is_empty() {
                break;
            }
            let latest = under_way.get_or_insert(UnderWay { since: now, updates: CausalContext::new() });
            latest.since = now;
            updates.iter().for_each(|update| latest.updates.insert(update.dot));
            out.send(to, Message::Updates { updates });
        }
        self.under_way.extend(under_way.map(|under_way| (to, under_way)));
    }
}

/// Requests.
impl Causal {
    fn on_request(&mut self, now: Time, request: Request, out: &mut Effects<Causal>) {
        match request {
            Request::Write { ticket, token, writes } => {
                let may =
                    self.replica.may_write(now, &writes).and_then(|()| self.replica.opened(token.as_ref()));
                self.take(now, ticket, may, Wanted::Write(writes), out);
            }
            Request::Read { ticket, token, names } => {
                let may = self.replica.may_read().and_then(|()| self.replica.opened(token.as_ref()));
                let may = may.and_then(|seen| if names.is_empty() { Err(Refusal::Empty) } else { Ok(seen) });
                self.take(now, ticket, may, Wanted::Read(names), out);
            }
            Request::AddMember { ticket, member } => {
                self.replica.change_members(ticket, member, true, out);
            }
            Request::RemoveMember { ticket, member } => {
                self.replica.change_members(ticket, member, false, out);
            }
            Request::Compact => {
                let log = self.log.iter().cloned().collect();
                out.record(self.replica.everything(log));
                out.event(Event::Compacted);
            }
            Request::SetClock { wall_at_zero } => self.replica.config.wall_at_zero = wall_at_zero,
        }
    }

    fn take(
        &mut self,
        now: Time,
        ticket: Ticket,
        may: Result<CausalContext, Refusal>,
        wanted: Wanted,
        out: &mut Effects<Causal>,
    ) {
        let is_busy = self.waiting.len() >= self.replica.config.limits.waiting_max;
        match may {
            Err(why) => out.event(Event::Refused { ticket, why }),
            Ok(seen) if self.replica.seen.includes(&seen) => self.serve(now, ticket, wanted, out),
            Ok(_) if is_busy => out.event(Event::Refused { ticket, why: Refusal::Busy }),
            Ok(seen) => {
                let until = now + self.replica.config.timing.wait_max;
                self.waiting.push(Waiting { ticket, seen, until, wanted });
            }
        }
    }

    fn serve(&mut self, now: Time, ticket: Ticket, wanted: Wanted, out: &mut Effects<Causal>) {
        match wanted {
            Wanted::Read(names) => {
                let contents = names.iter().map(|name| self.replica.store.read(name)).collect();
                out.event(Event::Read { ticket, contents, token: Some(self.replica.token()) });
            }
            Wanted::Write(writes) => {
                // It may have waited: what was so then need not be so now.
                if let Err(why) = self.replica.may_write(now, &writes) {
                    return out.event(Event::Refused { ticket, why });
                }
                let update = self.replica.write(now, &writes, self.replica.seen.clone(), out);
                for peer in self.replica.peers() {
                    out.send(peer, Message::Updates { updates: alloc::vec![update.clone()] });
                }
                self.remember(update);
                out.event(Event::Written { ticket, token: Some(self.replica.token()) });
            }
        }
    }

    /// Serves those whose session has seen no more than is seen here by now, and refuses those who have waited too long.
    fn serve_waiting(&mut self, now: Time, out: &mut Effects<Causal>) {
        for waiting in core::mem::take(&mut self.waiting) {
            let seen = &self.replica.seen;
            let Waiting { ticket, .. } = waiting;
            if let Err(why) = self.replica.may_read() {
                out.event(Event::Refused { ticket, why });
            } else if seen.includes(&waiting.seen) {
                self.serve(now, ticket, waiting.wanted, out);
            } else if now >= waiting.until {
                let missing = waiting.seen.len() - waiting.seen.meet(seen).len();
                out.event(Event::Refused { ticket, why: Refusal::Behind { missing } });
            } else {
                self.waiting.push(waiting);
            }
        }
    }
}
