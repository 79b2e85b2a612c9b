//! One member of single-decree Paxos with its disk, and what is shown of it.

use crate::dice::{Place, dice};
use crate::event::NodeState;
use crate::script::Script;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;
use synod_protocols::ballot::{Ballot, ID_BOUND};
use synod_protocols::contract::Process;
use synod_protocols::paxos::{Chosen, Config, Message, Paxos, Proposal, Record};
use synod_protocols::{Effects, Input, NodeId, Recovery, Time};

/// How far its proposer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It asks for promises.
    Prepare,
    /// It asks to accept.
    Accept,
    /// Another ballot has overtaken it.
    Preempted,
}

pub(super) struct Seat {
    paxos: Option<Paxos>,
    /// How often it was started; what belongs to an earlier life is of no use.
    pub(super) life: u32,
    members: Vec<NodeId>,
    id: NodeId,
    /// Its disk, of which the first so many records are synced.
    disk: Vec<Record>,
    durable: usize,
    /// Messages, each with the number of records that must be durable before it leaves.
    held: VecDeque<(usize, NodeId, Message)>,
    /// What was asked of it and not answered.
    question: Option<(u32, Bytes)>,
    attempt: Option<(Ballot, Phase)>,
    /// Who promised its ballot.
    promisers: Vec<NodeId>,
    chosen: Option<Bytes>,
    /// Its timer, and when that was set.
    timer: (Option<Time>, u64),
    shown: Option<NodeState>,
}

impl Seat {
    pub(super) fn new(script: &Script, index: u8) -> Seat {
        let mut seat = Seat {
            paxos: None,
            life: 0,
            members: (1..=script.nodes).map(|n| NodeId(n.into())).collect(),
            id: NodeId(u64::from(index) + 1),
            disk: Vec::new(),
            durable: 0,
            held: VecDeque::new(),
            question: None,
            attempt: None,
            promisers: Vec::new(),
            chosen: None,
            timer: (None, 0),
            shown: None,
        };
        seat.start(script, index, 0);
        seat
    }

    /// Starts it on what its disk holds; false if it runs already.
    pub(super) fn start(&mut self, script: &Script, index: u8, now: u64) -> bool {
        if self.paxos.is_some() {
            return false;
        }
        let seed = dice(script.seed, Place::Life, index.into(), 0, self.life.into()).next();
        let patience = Duration::from_nanos(script.election.0);
        let config = Config { id: self.id, members: self.members.clone(), patience, seed };
        let mut records = self.disk.iter().cloned();
        let from = match self.life {
            0 => Recovery::First,
            _ => Recovery::Resume { records: &mut records },
        };
        self.paxos = Some(Paxos::recover(config, from, (), Time(now), &mut Effects::new()));
        true
    }

    /// Stops it at once: what is not synced is lost. Gives what it was asked and had not answered.
    pub(super) fn crash(&mut self) -> Option<u32> {
        self.paxos.take()?;
        self.life += 1;
        self.disk.truncate(self.durable);
        self.held.clear();
        (self.attempt, self.chosen) = (None, None);
        self.promisers.clear();
        self.question.take().map(|(number, _)| number)
    }

    pub(super) fn is_up(&self) -> bool {
        self.paxos.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.paxos.as_ref()?.deadline()
    }

    /// Records written, synced or not.
    pub(super) fn records(&self) -> usize {
        self.disk.len()
    }

    /// It was asked to propose.
    pub(super) fn asked(&mut self, number: u32, value: Bytes) {
        self.question.get_or_insert((number, value));
    }

    /// The question that what was learnt answers.
    pub(super) fn answered(&mut self) -> Option<(u32, Bytes)> {
        self.question.take()
    }

    /// Makes a step. None where it is down; else what it learnt by it, if anything.
    pub(super) fn step(
        &mut self,
        now: Time,
        input: Input<Paxos>,
        effects: &mut Effects<Paxos>,
    ) -> Option<Option<Bytes>> {
        self.watch(&input);
        let paxos = self.paxos.as_mut()?;
        paxos.step(now, input, effects);
        self.disk.extend(effects.records.iter().cloned());
        for send in &effects.sends {
            match &send.message {
                Message::Prepare(ballot) => {
                    self.attempt = Some((*ballot, Phase::Prepare));
                    self.promisers.clear();
                }
                Message::Accept((ballot, _)) => self.attempt = Some((*ballot, Phase::Accept)),
                _ => {}
            }
        }
        let learnt = effects.events.first().map(|emit| {
            let Chosen(value) = &emit.event;
            value.clone()
        });
        if learnt.is_some() {
            (self.attempt, self.chosen) = (None, learnt.clone());
        }
        Some(learnt)
    }

    /// Follows its proposer by what it hears.
    fn watch(&mut self, input: &Input<Paxos>) {
        let (Some((own, phase)), Input::Message { from, message }) = (&mut self.attempt, input) else {
            return;
        };
        match message {
            Message::Promise(ballot, _) if ballot == own && !self.promisers.contains(from) => {
                self.promisers.push(*from);
            }
            Message::Preempted(ballot) if ballot > own => *phase = Phase::Preempted,
            _ => {}
        }
    }

    /// Keeps a message until all that was recorded before it is durable; gives it back if it is.
    pub(super) fn hold(&mut self, to: NodeId, message: Message) -> Option<Message> {
        if self.disk.len() == self.durable {
            return Some(message);
        }
        self.held.push_back((self.disk.len(), to, message));
        None
    }

    /// So many records are durable; what waited for them may leave.
    pub(super) fn synced(&mut self, records: usize) -> Vec<(NodeId, Message)> {
        self.durable = self.durable.max(records);
        let free = self.held.iter().take_while(|(gate, ..)| *gate <= self.durable).count();
        self.held.drain(..free).map(|(_, to, message)| (to, message)).collect()
    }

    /// Its state, if it is not as it was shown last.
    pub(super) fn changed(&mut self, now: u64) -> Option<NodeState> {
        let deadline = self.deadline();
        if self.timer.0 != deadline {
            self.timer = (deadline, now);
        }
        let state = self.state();
        (self.shown.as_ref() != Some(&state)).then(|| {
            self.shown = Some(state.clone());
            state
        })
    }

    fn state(&self) -> NodeState {
        let (promised, accepted) = self.kept();
        let last = u64::from(accepted.is_some());
        let is_durable = self.disk[..self.durable].iter().any(|record| matches!(record, Record::Accepted(_)));
        let number = |ballot: Ballot| ballot.round * ID_BOUND + ballot.id.0;
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        let chosen = u64::from(self.chosen.is_some());
        NodeState {
            up: self.is_up(),
            role: match self.attempt {
                _ if !self.is_up() => "down",
                Some((_, Phase::Prepare)) => "candidate",
                Some((_, Phase::Accept)) => "leader",
                Some((_, Phase::Preempted)) | None => "follower",
            },
            epoch: number(promised),
            voted: (promised != Ballot::ZERO).then(|| promised.id.to_string()),
            members: self.members.iter().map(|id| (id.to_string(), "voter")).collect(),
            last,
            last_epoch: accepted.map_or(0, |(ballot, _)| number(*ballot)),
            durable: last * u64::from(is_durable),
            committed: chosen * last,
            applied: chosen * last,
            deadline: self.deadline().map(|deadline| deadline.0),
            deadline_from: self.timer.1,
            log: accepted.iter().map(|(ballot, value)| (1, number(*ballot), text(value))).collect(),
            fields: self.fields(promised, accepted),
            ..NodeState::default()
        }
    }

    /// What its acceptor has promised and accepted.
    fn kept(&self) -> (Ballot, Option<&Proposal>) {
        let mut kept = (Ballot::ZERO, None);
        for record in &self.disk {
            match record {
                Record::Promised(ballot) => kept.0 = *ballot,
                Record::Accepted(proposal) => kept = (proposal.0, Some(proposal)),
            }
        }
        kept
    }

    fn fields(&self, promised: Ballot, accepted: Option<&Proposal>) -> Vec<(&'static str, String)> {
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        let mut fields = vec![
            ("promised", promised.to_string()),
            (
                "accepted",
                accepted
                    .map_or("nothing".into(), |(ballot, value)| format!("{} under {ballot}", text(value))),
            ),
        ];
        if let Some((_, own)) = &self.question {
            fields.push(("would like", text(own)));
        }
        if let Some((ballot, phase)) = self.attempt {
            let part = match phase {
                Phase::Prepare => "asks for promises",
                Phase::Accept => "asks to accept",
                Phase::Preempted => "overtaken, waits",
            };
            fields.extend([("part", part.to_string()), ("ballot", ballot.to_string())]);
            let granted: Vec<String> = self.promisers.iter().map(ToString::to_string).collect();
            fields.push((
                "granted by",
                if granted.is_empty() { "nobody yet".into() } else { granted.join(" ") },
            ));
        }
        if let Some(value) = &self.chosen {
            fields.push(("chosen", text(value)));
        }
        fields
    }
}
