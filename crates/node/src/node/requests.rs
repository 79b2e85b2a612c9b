//! Requests of clients, this member's and others': on their way into the log, and refused.

use super::{Forwarded, Leased, Node, PROPOSALS_MAX, Proposal, Step, fail};
use crate::forward::{BATCH_BYTES_MAX, Expired};
use crate::interface::*;
use crate::machine::StateMachine;
use crate::peer::PeerMessage;
use crate::reads::Read;
use crate::sessions;
use bytes::Bytes;
use synod_protocols::log::{LogRequest, LogStatus, Refusal, ReplicatedLog, Ticket};
use synod_protocols::{Incarnation, LinkSession, NodeId, Time};

impl<P: ReplicatedLog, S: StateMachine> Node<P, S> {
    // Peers.

    pub(super) fn on_peer(
        &mut self,
        now: Time,
        from: NodeId,
        message: PeerMessage<P::Message>,
        out: &mut Outbox<P, S>,
    ) {
        match message {
            PeerMessage::Protocol(message) => self.drive(now, Step::Message { from, message }, out),
            PeerMessage::Forward { incarnation, first, commands } => {
                self.on_forward(from, incarnation, first, commands, out);
            }
            PeerMessage::ForwardRefused { incarnation, first, why } => {
                if incarnation == self.incarnation {
                    self.outgoing.on_refused(first);
                    self.on_own_refused(now, why, out);
                }
            }
            PeerMessage::SnapshotRequest(request) => self.on_snapshot_request(now, from, request, out),
            PeerMessage::SnapshotPart(part) => self.on_snapshot_part(now, from, part, out),
            PeerMessage::SnapshotGone { id } => self.on_snapshot_gone(now, from, id),
            PeerMessage::Change { incarnation, number, change } => {
                self.on_peer_change(now, from, (incarnation, number), change, out);
            }
            PeerMessage::ChangeReply { incarnation, number, result } => {
                self.on_change_reply(from, (incarnation, number), result, out);
            }
        }
    }

    pub(super) fn on_link_up(
        &mut self,
        now: Time,
        peer: NodeId,
        session: LinkSession,
        out: &mut Outbox<P, S>,
    ) {
        self.links.insert(peer);
        self.held.forget(peer);
        if self.target.1 == Some(peer) {
            // What went over the connection before may be lost.
            self.outgoing.rewind();
            self.send_at = None;
        }
        self.ask_again_on(now, peer, out);
        self.drive(now, Step::LinkUp { peer, session }, out);
    }

    /// Takes a batch of another member's, if its envelopes are what they claim to be.
    pub(super) fn on_forward(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        first: u64,
        commands: Vec<Bytes>,
        out: &mut Outbox<P, S>,
    ) {
        let is_genuine = |(i, envelope): (usize, &Bytes)| {
            let sequence = first.checked_add(i as u64);
            sessions::open(envelope.clone()).is_ok_and(|(sender, _)| {
                (sender.member, sender.incarnation, Some(sender.sequence)) == (from, incarnation, sequence)
            })
        };
        if commands.is_empty() || from == self.id || !commands.iter().enumerate().all(is_genuine) {
            return;
        }
        match self.refused.get(&from) {
            // Unless what was refused has been applied after all, from a copy sent before.
            Some((life, since))
                if *life == incarnation
                    && first > self.metadata.sessions.next(from, incarnation).max(*since) =>
            {
                let why = Refusal::Busy;
                out.send(from, PeerMessage::ForwardRefused { incarnation, first, why });
                return;
            }
            Some(_) => {
                self.refused.remove(&from);
            }
            None => {}
        }
        let bytes = commands.iter().map(Bytes::len).sum();
        self.inbox.push(Forwarded { from, incarnation, first, commands, bytes });
    }

    pub(super) fn refuse_inbox(&mut self, leader: Option<NodeId>, out: &mut Outbox<P, S>) {
        if self.inbox.is_empty() {
            return;
        }
        let why = Refusal::NotLeader { leader };
        for Forwarded { from, incarnation, first, .. } in self.inbox.drain(..) {
            out.send(from, PeerMessage::ForwardRefused { incarnation, first, why });
        }
    }

    // Clients.

    pub(super) fn requests(&self) -> usize {
        self.outgoing.waiting() + self.reads.waiting() + self.leased.len() + self.changes.waiting()
    }

    pub(super) fn on_client(
        &mut self,
        now: Time,
        ticket: Ticket,
        request: Request<S::Query>,
        out: &mut Outbox<P, S>,
    ) {
        let deadline = now + self.limits.request_timeout;
        let full = self.requests() >= self.limits.requests_max;
        match request {
            Request::Command(command) => {
                let error = if command.len() > self.limits.command_bytes_max {
                    ClientError::TooLarge
                } else if self.disk_full {
                    ClientError::Storage
                } else if full || self.outgoing.bytes() + command.len() > self.limits.request_bytes_max {
                    ClientError::Busy
                } else {
                    self.outgoing.push(ticket, command, deadline);
                    return;
                };
                fail(ticket, error, out);
            }
            Request::Read(_) | Request::Change(_) if full => fail(ticket, ClientError::Busy, out),
            Request::Read(query) => self.reads.push(Read { ticket, query, deadline }),
            Request::LocalRead(query) => self.answer(ticket, query, out),
            Request::Change(change) => self.on_change(now, ticket, change, out),
            Request::Members => {
                let outcome = Outcome::Changed { added: NodeId(0), members: self.process.members() };
                out.replies.push(Reply { ticket, outcome });
            }
        }
    }

    pub(super) fn answer(&mut self, ticket: Ticket, query: S::Query, out: &mut Outbox<P, S>) {
        match self.machine.query(query) {
            Ok(answer) => {
                let outcome = Outcome::Answered { index: self.metadata.applied, answer };
                out.replies.push(Reply { ticket, outcome });
            }
            Err(error) => self.stop(format!("the state machine cannot be read: {error}"), out),
        }
    }

    pub(super) fn expire(&mut self, now: Time, leader: Option<NodeId>, out: &mut Outbox<P, S>) {
        let reachable = leader.is_some_and(|leader| leader == self.id || self.links.contains(&leader));
        let withdrawn = if reachable { ClientError::Busy } else { ClientError::NoLeader };
        self.outgoing.expire(now, |expired| match expired {
            Expired::Unknown(ticket) => fail(ticket, ClientError::Timeout, out),
            Expired::Withdrawn(ticket) => fail(ticket, withdrawn, out),
        });
        let unread = if leader.is_some() { ClientError::Timeout } else { ClientError::NoLeader };
        self.reads.expire(now, |ticket| fail(ticket, unread, out));
    }

    // Commands on their way into the log.

    /// Sends everything again that is not applied when somebody else leads, or nobody, or when
    /// there was no progress for too long.
    pub(super) fn follow_leader(&mut self, status: &LogStatus) {
        let target = (status.epoch, status.leader);
        if target != self.target {
            self.target = target;
            self.outgoing.rewind();
            self.refused.clear();
            (self.send_at, self.read_at, self.resend_at) = (None, None, None);
        }
    }

    /// Lets elapsed waits end, whether or not there is a leader to send to: a deadline in the past
    /// would keep the host busy for nothing.
    pub(super) fn end_waits(&mut self, now: Time) {
        let elapsed = |wait: &mut Option<Time>| wait.take_if(|at| *at <= now).is_some();
        elapsed(&mut self.send_at);
        elapsed(&mut self.read_at);
        if elapsed(&mut self.resend_at) {
            self.outgoing.rewind();
        }
    }

    /// Whether commands of this life may be sent now.
    pub(super) fn may_send(&mut self, now: Time) -> bool {
        if self.writer.durable() < self.started || self.send_at.is_some() {
            return false;
        }
        if self.outgoing.has_more() && !self.outgoing.is_outstanding() {
            self.resend_at = Some(now + self.resend_after);
        }
        true
    }

    /// Proposes what other members sent and what clients asked, in as few proposals as fit.
    pub(super) fn propose(&mut self, now: Time, out: &mut Outbox<P, S>) {
        if self.inbox.is_empty() && !self.outgoing.has_more() {
            return;
        }
        let mut proposal = Proposal::default();
        let mut commands = Vec::new();
        let mut bytes = 0;
        for mut batch in std::mem::take(&mut self.inbox) {
            if bytes > 0 && bytes + batch.bytes > BATCH_BYTES_MAX {
                self.propose_now(now, std::mem::take(&mut proposal), std::mem::take(&mut commands), out);
                bytes = 0;
            }
            bytes += batch.bytes;
            commands.append(&mut batch.commands);
            proposal.forwarded.push((batch.from, batch.incarnation, batch.first));
        }
        while self.may_send(now)
            && let Some(batch) = self.outgoing.next_batch()
        {
            let more = batch.envelopes.iter().map(Bytes::len).sum::<usize>();
            if proposal.own.is_some() || (bytes > 0 && bytes + more > BATCH_BYTES_MAX) {
                self.propose_now(now, std::mem::take(&mut proposal), std::mem::take(&mut commands), out);
                bytes = 0;
            }
            bytes += more;
            proposal.own = Some(batch.first);
            commands.extend(batch.envelopes);
        }
        if !commands.is_empty() {
            self.propose_now(now, proposal, commands, out);
        }
    }

    pub(super) fn propose_now(
        &mut self,
        now: Time,
        mut proposal: Proposal,
        commands: Vec<Bytes>,
        out: &mut Outbox<P, S>,
    ) {
        let ticket = self.ticket();
        proposal.ticket = ticket;
        if self.proposals.len() == PROPOSALS_MAX {
            self.proposals.pop_front();
        }
        self.proposals.push_back(proposal);
        self.drive(now, Step::Request(LogRequest::Propose { ticket, commands }), out);
    }

    /// Sends what clients asked to the leader.
    pub(super) fn forward(&mut self, now: Time, leader: Option<NodeId>, out: &mut Outbox<P, S>) {
        if !self.outgoing.has_more() {
            return;
        }
        let Some(leader) = leader.filter(|leader| *leader != self.id && self.links.contains(leader)) else {
            return;
        };
        if !self.may_send(now) {
            return;
        }
        while let Some(batch) = self.outgoing.next_batch() {
            let (incarnation, first, commands) = (self.incarnation, batch.first, batch.envelopes);
            out.send(leader, PeerMessage::Forward { incarnation, first, commands });
        }
    }

    /// A proposal or a batch of reads was refused.
    pub(super) fn on_refused(&mut self, now: Time, ticket: Ticket, why: Refusal, out: &mut Outbox<P, S>) {
        if let Ok(at) = self.proposals.binary_search_by_key(&ticket, |proposal| proposal.ticket) {
            let proposal = self.proposals.remove(at).expect("just found");
            for (from, incarnation, first) in proposal.forwarded {
                self.refused.insert(from, (incarnation, first));
                out.send(from, PeerMessage::ForwardRefused { incarnation, first, why });
            }
            if let Some(first) = proposal.own {
                self.outgoing.on_refused(first);
                self.on_own_refused(now, why, out);
            }
            return;
        }
        if self.on_change_refused(now, ticket, why, out) {
            return;
        }
        let error = match why {
            Refusal::NotLeader { .. } | Refusal::LeadershipLost => {
                if self.reads.ask_again(ticket) {
                    self.read_at = Some(now + self.back_off);
                }
                return;
            }
            Refusal::Busy => ClientError::Busy,
            Refusal::Storage => ClientError::Storage,
            Refusal::Unsupported | Refusal::Change(_) => ClientError::NoLeader,
        };
        for read in self.reads.refuse(ticket) {
            fail(read.ticket, error, out);
        }
    }

    /// Commands of this member's clients were refused: they wait a little, or are refused as well.
    pub(super) fn on_own_refused(&mut self, now: Time, why: Refusal, out: &mut Outbox<P, S>) {
        self.send_at = Some(now + self.back_off);
        if why == Refusal::Storage {
            self.outgoing.withdraw(|ticket| fail(ticket, ClientError::Storage, out));
        }
    }

    pub(super) fn ask_reads(&mut self, now: Time, out: &mut Outbox<P, S>) {
        if !self.reads.has_queued() || self.read_at.is_some() {
            return;
        }
        let ticket = self.ticket();
        self.reads.ask(ticket);
        self.drive(now, Step::Request(LogRequest::Read { ticket }), out);
    }

    pub(super) fn serve_reads(&mut self, out: &mut Outbox<P, S>) {
        while let Some((reads, valid_until)) = self.reads.next_served(self.metadata.applied) {
            for read in reads {
                match valid_until {
                    None => self.answer(read.ticket, read.query, out),
                    Some(valid_until) => self.answer_leased(read, valid_until, out),
                }
            }
        }
    }

    /// Reads the state under a lease. Whether the lease held while it was read is seen afterwards.
    fn answer_leased(&mut self, read: Read<S::Query>, valid_until: Time, out: &mut Outbox<P, S>) {
        let index = self.metadata.applied;
        match self.machine.query(read.query.clone()) {
            Ok(answer) => self.leased.push(Leased { read, valid_until, index, answer }),
            Err(error) => self.stop(format!("the state machine cannot be read: {error}"), out),
        }
    }

    /// Tells what was read under leases that hold still, and asks again for the rest.
    pub(super) fn end_leased(&mut self, now: Time, out: &mut Outbox<P, S>) {
        if self.leased.is_empty() {
            return;
        }
        for Leased { read, valid_until, index, answer } in self.leased.drain(..) {
            if now < valid_until {
                self.leased_reads += 1;
                out.replies.push(Reply { ticket: read.ticket, outcome: Outcome::Answered { index, answer } });
            } else {
                self.reads.push_back(read);
            }
        }
    }
}
