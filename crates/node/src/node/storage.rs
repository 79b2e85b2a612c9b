//! The log on disk: appends, their answers, and entries that are read back.

use super::{FULL_RETRY, MARK_DELAY, Node, Step, fail};
use crate::asks::{Answer, Ask};
use crate::disk::{DiskCommand, DiskFault};
use crate::interface::*;
use crate::machine::StateMachine;
use crate::peer::PeerMessage;
use crate::release::Local;
use bytes::Bytes;
use synod_protocols::log::{LogAnswer, ReplicatedLog, Ticket};
use synod_protocols::{StorageFault, Time};

impl<P: ReplicatedLog, S: StateMachine> Node<P, S> {
    // The disk.

    pub(super) fn append(&mut self, now: Time, out: &mut Outbox<P, S>) {
        if self.stopped {
            return;
        }
        if let Some(at) = self.full_until {
            if at <= now {
                let (_, command) = self.writer.append_in_flight().expect("a full disk refused an append");
                out.disk.push(command.clone());
                self.full_until = None;
            }
            return;
        }
        if self.writer.wants_restated() {
            self.writer.push_restated(self.incarnation, &self.process.restated());
        }
        let ticket = Ticket(self.next_ticket);
        let command = match self.writer.start_append(ticket) {
            Some(command) => command,
            None if self.mark_at.is_some_and(|at| at <= now) => {
                self.mark_at = None;
                let Some(command) = self.writer.start_mark(ticket) else { return };
                command
            }
            None => return,
        };
        self.next_ticket += 1;
        self.mark_at = None;
        out.disk.push(command);
    }

    pub(super) fn on_appended(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<(), DiskFault>,
        out: &mut Outbox<P, S>,
    ) {
        let Some((_, command)) = self.writer.append_in_flight().filter(|(own, _)| *own == ticket) else {
            return;
        };
        let synced = matches!(command, DiskCommand::Append { sync: true, .. });
        match result {
            Ok(()) => {}
            Err(DiskFault::Full) => {
                self.full_until = Some(now + FULL_RETRY);
                if !self.disk_full {
                    self.disk_full = true;
                    out.notices.push(Notice::DiskFull);
                    self.outgoing.withdraw(|ticket| fail(ticket, ClientError::Storage, out));
                    self.drive(now, Step::StorageFault(StorageFault::Full), out);
                }
                return;
            }
            Err(DiskFault::Failed(why)) => {
                // Never tried again: what a failed sync covered is unknown, and a second one that
                // succeeds proves nothing about it (Rebello et al., "Can applications recover from
                // fsync failures?", ATC'20).
                return self.stop(
                    format!(
                        "writing the log failed: {why}. Which records reached the disk is unknown, so the member stops; \
                         start it again and it recovers from what is really there"
                    ),
                    out,
                );
            }
        }
        self.writer.on_appended(ticket);
        if self.disk_full {
            self.disk_full = false;
            out.notices.push(Notice::DiskCleared);
            self.drive(now, Step::StorageFault(StorageFault::Cleared), out);
        }
        if synced && self.writer.is_idle() {
            self.mark_at = Some(now + MARK_DELAY);
        }
        let durable = self.writer.durable();
        self.held.release_sends(durable, |to, message| out.send(to, PeerMessage::Protocol(message)));
        while !self.stopped
            && let Some(local) = self.held.next_local(durable)
        {
            match local {
                Local::Return(message) => self.drive(now, Step::Message { from: self.id, message }, out),
                Local::Event(event) => self.on_event(now, event, out),
            }
        }
        self.begin_waiting_asks(now, out);
    }

    pub(super) fn begin_ask(&mut self, ask: Ask, out: &mut Outbox<P, S>) {
        let tickets = &mut self.next_ticket;
        let ticket = || {
            *tickets += 1;
            Ticket(*tickets - 1)
        };
        if let Some(ask) = self.asks.begin(ask, &self.writer, ticket, &mut out.disk) {
            let answer = LogAnswer::Entries { from: ask.from, records: Vec::new() };
            self.returns.push_back(Step::Answer(answer));
        }
    }

    pub(super) fn begin_waiting_asks(&mut self, now: Time, out: &mut Outbox<P, S>) {
        for ask in self.asks.take_waiting() {
            self.begin_ask(ask, out);
        }
        self.drive_returns(now, out);
    }

    pub(super) fn on_read(
        &mut self,
        now: Time,
        ticket: Ticket,
        result: Result<Bytes, DiskFault>,
        out: &mut Outbox<P, S>,
    ) {
        match self.asks.on_read::<P>(ticket, result, &self.writer) {
            Answer::Records(ask, records) => {
                self.drive(now, Step::Answer(LogAnswer::Entries { from: ask.from, records }), out);
            }
            Answer::Corrupt(why) => self.stop(why, out),
            Answer::NotYet => self.begin_waiting_asks(now, out),
        }
    }
}
