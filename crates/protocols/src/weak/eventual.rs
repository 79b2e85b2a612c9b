//! Eventual consistency: without new writes all members come to show the same.
//!
//! # The idea
//!
//! A member takes a write, tells the others, and shows whatever it is told at once. Nothing is said about when a
//! write arrives or in which order: a reader may see an answer before its question, and at another member an older
//! value than a moment ago. What is promised is that two members which have seen the same updates show the same,
//! whatever the order, and that every update reaches every member at last.
//!
//! # How it gets there
//!
//! 1. *Directly*: an update is sent to everybody when it is taken.
//! 2. *Hinted*: while a link is down, updates for that member are kept, as many as the bound allows, and handed over when it
//!    is up again.
//! 3. *Anti-entropy*: what was lost all the same (a crash, a bound, a message) is found by comparing digests, each round
//!    with one other member, and repaired from it ([`super::anti_entropy`]). This alone would be enough.
//!
//! # Why it converges
//!
//! Objects merge alike in any order ([`super::object`]). The one thing that order could spoil is an update that
//! replaces cells of another which has not arrived: the store remembers what is replaced until then. If two
//! members' roots are equal they hold the same cells and remember the same, so each may count as seen what the
//! other has: all of that was replaced.
//!
//! # Sources
//!
//! DeCandia et al., *Dynamo* (SOSP 2007): sections 4.6 for hints and 4.7 for Merkle trees. There a coordinator
//! writes to a quorum of those who hold a key, here any member writes to itself; Dynamo's vector clocks are dots
//! here (Preguiça et al., 2010), and a context for the whole replica takes the place of one for each key (Gonçalves
//! et al., *Concise Server-Wide Causality Management*, 2015). Vogels, *Eventually Consistent* (2009), for the
//! words.
//!
//! # What it leaves out
//!
//! Sessions: a token would promise what this level does not. Hints are not durable, since anti-entropy finds what they
//! would have said. Quorum reads with read repair.

use super::dots::CausalContext;
use super::replica::Replica;
use super::store::Changes;
use super::update::{Message, Record, Update};
use super::{Config, Event, Refusal, Request, WeakReplica};
use crate::contract::{Effects, Input, Process, Recovery, StorageFault};
use crate::fingerprint::Fingerprint;
use crate::types::{NodeId, Time};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

/// An eventual replica. See [the module](self).
#[derive(Clone, Debug)]
pub struct Eventual {
    replica: Replica,
    /// Updates for members whose link is down.
    hints: BTreeMap<NodeId, VecDeque<Update>>,
}

impl WeakReplica for Eventual {
    const NAME: &'static str = "eventual";

    fn replica(&self) -> &Replica {
        &self.replica
    }
}

impl Process for Eventual {
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
        out: &mut Effects<Eventual>,
    ) -> Eventual {
        let (replica, ..) = Replica::recover(config, from, now, out);
        Eventual { replica, hints: BTreeMap::new() }
    }

    fn step(&mut self, now: Time, input: Input<Eventual>, out: &mut Effects<Eventual>) {
        match input {
            Input::Message { from, message } => {
                if self.replica.listens_to(from, &message, out) {
                    self.on_message(now, from, message, out);
                }
            }
            Input::LinkUp { peer, .. } => self.hand_over(peer, out),
            Input::LinkDown { peer } if self.replica.peers().contains(&peer) => {
                self.hints.entry(peer).or_default();
            }
            Input::Request(request) => self.on_request(now, request, out),
            Input::StorageFault(fault) => self.replica.is_full = fault == StorageFault::Full,
            Input::LinkDown { .. } | Input::Answer(()) | Input::Timeout => {}
        }
        if self.replica.gossip(now, &CausalContext::new(), out).is_some() {
            let peers = self.replica.peers();
            self.hints.retain(|peer, _| peers.contains(peer));
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.replica.deadline()
    }

    fn fingerprint(&self, now: Time, digest: &mut Fingerprint) {
        self.replica.fingerprint(now, digest);
        for (peer, updates) in &self.hints {
            digest.word(peer.0);
            updates.iter().for_each(|update| core::hash::Hash::hash(&update.dot, digest));
        }
    }
}

impl Eventual {
    fn on_message(&mut self, now: Time, from: NodeId, message: Message, out: &mut Effects<Eventual>) {
        match message {
            Message::Updates { updates } => {
                for update in updates {
                    let is_new = !self.replica.seen.contains(update.dot);
                    if is_new && self.replica.may_show(now, &update, out) {
                        self.replica.show(update, out);
                    }
                }
            }
            Message::Digest { roster, seen, root, clock, is_asking, .. } => {
                if self.replica.on_digest(now, from, &roster, &seen, clock, out) {
                    self.compare(now, from, seen, (root, clock), is_asking, out);
                }
            }
            Message::Pull { round, leaves } => self.replica.on_pull(from, round, &leaves, out),
            Message::Part { answer } => drop(self.replica.on_part(now, from, answer, out)),
        }
    }

    /// Looks whether the sender has seen what was not seen here. With the same root it has nothing else: all of that was
    /// replaced. Otherwise it is asked, if it is its turn.
    fn compare(
        &mut self,
        now: Time,
        from: NodeId,
        seen: CausalContext,
        (root, clock): (u64, super::Stamp),
        is_asking: bool,
        out: &mut Effects<Eventual>,
    ) {
        if self.replica.seen.includes(&seen) {
            return;
        }
        if root == self.replica.store.root() {
            self.replica.take_over(seen, clock, Changes::default(), out);
        } else if is_asking {
            self.replica.pull(now, from, out);
        }
    }

    /// What was kept for a member whose link was down.
    fn hand_over(&mut self, peer: NodeId, out: &mut Effects<Eventual>) {
        let bytes_max = self.replica.config.limits.batch_bytes_max;
        let mut batch = Vec::new();
        let mut bytes = 0;
        for update in self.hints.remove(&peer).into_iter().flatten() {
            if bytes > 0 && bytes + update.len() > bytes_max {
                out.send(peer, Message::Updates { updates: core::mem::take(&mut batch) });
                bytes = 0;
            }
            bytes += update.len();
            batch.push(update);
        }
        if !batch.is_empty() {
            out.send(peer, Message::Updates { updates: batch });
        }
    }

    fn tell(&mut self, update: &Update, out: &mut Effects<Eventual>) {
        let kept_max = self.replica.config.limits.log_max;
        for peer in self.replica.peers() {
            match self.hints.get_mut(&peer) {
                None => out.send(peer, Message::Updates { updates: vec![update.clone()] }),
                Some(kept) if kept.len() < kept_max => kept.push_back(update.clone()),
                // Anti-entropy will find it.
                Some(_) => {}
            }
        }
    }

    fn on_request(&mut self, now: Time, request: Request, out: &mut Effects<Eventual>) {
        match request {
            Request::Write { ticket, token: Some(_), .. } | Request::Read { ticket, token: Some(_), .. } => {
                out.event(Event::Refused { ticket, why: Refusal::NoSessions });
            }
            Request::Write { ticket, token: None, writes } => match self.replica.may_write(now, &writes) {
                Err(why) => out.event(Event::Refused { ticket, why }),
                Ok(()) => {
                    let update = self.replica.write(now, &writes, CausalContext::new(), out);
                    self.tell(&update, out);
                    out.event(Event::Written { ticket, token: None });
                }
            },
            Request::Read { ticket, token: None, names } => match self.replica.may_read() {
                Err(why) => out.event(Event::Refused { ticket, why }),
                Ok(()) if names.is_empty() => out.event(Event::Refused { ticket, why: Refusal::Empty }),
                Ok(()) => {
                    let contents = names.iter().map(|name| self.replica.store.read(name)).collect();
                    out.event(Event::Read { ticket, contents, token: None });
                }
            },
            Request::AddMember { ticket, member } => {
                self.replica.change_members(ticket, member, true, out);
            }
            Request::RemoveMember { ticket, member } => {
                self.replica.change_members(ticket, member, false, out);
            }
            Request::Compact => {
                out.record(self.replica.everything(Vec::new()));
                out.event(Event::Compacted);
            }
            Request::SetClock { wall_at_zero } => self.replica.config.wall_at_zero = wall_at_zero,
        }
    }
}
