//! The coordinator of this cluster's transactions: what it is asked, and what becomes of what it wants.

use super::clients::Request;
use super::host::{Heard, Host, Proposed, heard};
use std::rc::Rc;
use std::time::Duration;
use synod_node::spaces::{ProcessId, SpaceId, Step};
use synod_protocols::commit::{self, Coordinator, Timing};
use synod_protocols::log::ReplicatedLog;
use synod_protocols::replicated::Wants;
use synod_protocols::{Input, NodeId, Time};

/// After how long a message that was not answered is said again: messages are lost only where a life ends.
const RETRY: Duration = Duration::from_millis(300);
/// How much longer than its client the coordinator waits for votes.
const VOTE_MARGIN: Duration = Duration::from_secs(5);
impl<P: ReplicatedLog + 'static> Host<P> {
    pub(super) fn on_run(&mut self, now: Time, request: Request) {
        let Some((ticket, branches)) = self.clients.take(now, request) else { return };
        if !self.leads {
            return self.clients.end(&super::HostedError::NotLeader);
        }
        self.coordinate(now, Input::Request(commit::Request::Run { ticket, branches }));
        self.begin_wanted(now);
    }

    /// A request whose client was told that nothing was done, while it waited for a life, is not carried out.
    fn coordinate_held(&mut self, now: Time, input: Input<Coordinator>) {
        match &input {
            Input::Request(commit::Request::Run { ticket, .. }) if !self.clients.waits(*ticket) => {}
            _ => self.coordinate(now, input),
        }
    }

    pub(super) fn coordinate(&mut self, now: Time, input: Input<Coordinator>) {
        let wants = self.coordinator.step(now, input);
        self.take_coordinators(now, wants);
    }

    fn take_coordinators(&mut self, now: Time, wants: Wants<Coordinator>) {
        let life = self.coordinator.life();
        for entry in wants.entries {
            self.propose(ProcessId::Coordinator, life, |_| Step::new(ProcessId::Coordinator, entry));
        }
        let id = self.coordinator.id;
        self.messages.extend(wants.sends.into_iter().map(|(to, message)| (id, to, message)));
        let applied = self.member.status().applied;
        for event in wants.events {
            match event {
                commit::Event::Opened { ticket, txn } => self.clients.opened(ticket, txn),
                commit::Event::Refused { ticket, why } => self.clients.refused(ticket, why),
                commit::Event::Decided { txn, decision, answers, why } => {
                    self.clients.decided(applied, txn, decision, answers, why);
                }
                commit::Event::Deposed { .. } => {
                    self.coordinator.cease(now);
                    self.clients.life_is_over();
                }
                // Work always comes with the request here.
                commit::Event::Worked { .. } => {}
            }
        }
        if let Some(coordinator) = self.coordinator.running() {
            let is_here = |id: NodeId| self.keyspaces.contains_key(&SpaceId(id.0));
            self.clients.settle(applied, coordinator, is_here);
        }
    }

    pub(super) fn on_coordinators(&mut self, now: Time, proposed: Proposed) {
        let member = Rc::clone(&self.member);
        match heard(&member, &mut self.coordinator, now, &proposed) {
            Heard::Counts => {
                let wants = self.coordinator.accepted(now);
                self.take_coordinators(now, wants);
            }
            Heard::Begins(life, records) => {
                let timing = Timing {
                    retry: RETRY,
                    vote: super::TIMEOUT_MAX + VOTE_MARGIN,
                    open: super::TIMEOUT_MAX + VOTE_MARGIN,
                };
                let mut config = commit::Config { timing, ..commit::Config::new(self.coordinator.id) };
                config.limits.participants_max = super::PARTICIPANTS_MAX;
                config.limits.work_bytes_max =
                    usize::try_from(member.config.request_size_max).unwrap_or(usize::MAX);
                let (wants, held) = self.coordinator.begin(now, life, config, records);
                self.take_coordinators(now, wants);
                for input in held {
                    self.coordinate_held(now, input);
                }
            }
            Heard::Over => self.clients.life_is_over(),
            Heard::Nothing => {}
        }
    }
}
