//! What clients ask, and the write that shows progress.

use super::{World, operator};
use crate::clients::{Ending, Machine, Who};
use crate::dice::{Place, dice};
use crate::member::{Member, Standing};
use crate::queue::Due;
use std::hash::Hasher;
use synod_node::Input;
use synod_protocols::log::ReplicatedLog;

/// Election timeouts that a client waits for an answer, or the probe for its write.
const CLIENT_ELECTIONS: u64 = 15;

/// How the promise of progress stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// When it begins, and when it is due.
    pub(super) from: u64,
    pub(super) due: u64,
    /// The write under way, and how many were tried.
    probe: Option<u32>,
    tries: u64,
    /// What was committed when the write was done: everybody must catch up with that.
    pub(super) shown: Option<u64>,
}

impl Progress {
    pub(super) fn new(from: u64, due: u64) -> Progress {
        Progress { from, due, ..Progress::default() }
    }
}

impl<P: ReplicatedLog> World<'_, P> {
    pub(super) fn on_client(&mut self, client: u16) {
        let nodes = self.script.nodes;
        let Some((what, key, wanted)) = self.clients.next(client, nodes) else { return };
        let asked = self.next_after(wanted, |member| member.is_up());
        let operation = self.clients.begin(self.now, client, what, key, asked.unwrap_or(wanted));
        let timeout = self.now + CLIENT_ELECTIONS * self.script.election.0;
        self.queue.push_in_line(timeout, Due::ClientTimeout { client, operation });
        self.ask(operation, asked.is_some());
    }

    /// Who is refused a connection turns to the next member; and who was removed is no member.
    fn next_after(&self, wanted: u8, is_fit: impl Fn(&Member<P>) -> bool) -> Option<u8> {
        let size = self.members.len() as u8;
        (0..size).map(|i| (wanted + i) % size).find(|index| {
            let member = &self.members[usize::from(*index)];
            member.standing != Standing::Removed && is_fit(member)
        })
    }

    /// Puts an operation that has begun to its member.
    pub(crate) fn ask(&mut self, number: u32, possible: bool) {
        self.counts.operations += 1;
        self.show_operation(number, "invoke", None);
        let index = self.clients.operations[number as usize].member;
        if !possible {
            self.end_operation(number, Ending::Fail("connection refused"));
            if let Who::Client(client) = self.clients.operations[number as usize].who {
                self.client_is_free(client, number);
            }
            return;
        }
        let (ticket, request) = self.clients.request(number);
        self.note_digest(11, index.into(), ticket.0);
        self.feed(index, Input::Client { ticket, request });
    }

    pub(super) fn on_reply(&mut self, index: u8, reply: synod_node::Reply<Machine>) {
        if let Some(attempt) = operator::attempt_of(reply.ticket) {
            return self.on_operator_reply(attempt, reply.outcome);
        }
        let number = reply.ticket.0 as u32;
        if let synod_node::Outcome::Applied { index: entry, .. } = &reply.outcome {
            self.checkers.on_acknowledged(self.now, index, entry.0);
        }
        if !self.clients.is_open(number) {
            return;
        }
        let ending = self.clients.judge(number, reply.outcome);
        self.end_operation(number, ending);
        if let Who::Client(client) = self.clients.operations[number as usize].who {
            self.client_is_free(client, number);
        }
    }

    pub(super) fn end_operation(&mut self, number: u32, ending: Ending) {
        let kind = match &ending {
            Ending::Ok(_) => &mut self.counts.ok,
            Ending::Fail(_) => &mut self.counts.failed,
            Ending::Unknown(_) => &mut self.counts.unknown,
        };
        *kind += 1;
        self.clients.end(self.now, number, &ending);
        let mut digest = std::mem::take(&mut self.digest);
        digest.word(u64::from(number) << 8 | 12);
        if let Ending::Ok(Some(value)) = &ending {
            digest.write(value.as_bytes());
        }
        self.digest = digest;
        match &ending {
            Ending::Ok(value) => self.show_operation(number, "ok", Some((value.as_deref(), None))),
            Ending::Fail(why) => self.show_operation(number, "fail", Some((None, Some(why)))),
            Ending::Unknown(why) => self.show_operation(number, "unknown", Some((None, Some(why)))),
        }
        if self.progress.probe == Some(number) {
            self.progress.probe = None;
            let ok = matches!(ending, Ending::Ok(_));
            if ok && self.now <= self.progress.due {
                self.progress.shown = Some(self.checkers.committed());
            }
        }
    }

    pub(super) fn client_is_free(&mut self, client: u16, operation: u32) {
        let began = self.clients.began(operation);
        let at = self.clients.next_at(client, began, self.now);
        self.queue.push(at, Due::Client { client });
    }

    /// Tries to write, until it succeeds or the time is over.
    pub(super) fn on_probe(&mut self) {
        if self.progress.shown.is_some() || self.now > self.progress.due {
            return;
        }
        if let Some(open) = self.progress.probe {
            // It asked somebody who does not answer: somebody else may.
            if self.clients.is_open(open) {
                self.end_operation(open, Ending::Unknown("no answer"));
            }
        }
        self.progress.tries += 1;
        let nodes = self.script.nodes;
        let first = dice(self.script.seed, Place::Probe, 0, 0, 0).below(nodes.into());
        let wanted = ((first + self.progress.tries) % u64::from(nodes)) as u8;
        let asked = self.next_after(wanted, |member| member.is_up() && !member.paused);
        if let Some(index) = asked {
            let number = self.clients.begin_probe(self.now, index);
            self.progress.probe = Some(number);
            self.ask(number, true);
        }
        // Four members are tried within the shortest promise worth making.
        let again = (self.script.election.0 * 5).min((self.progress.due - self.progress.from) / 4).max(1);
        self.queue.push(self.now + again, Due::Probe);
    }
}
