//! The task that runs the processes, and what it hears.

use super::by_hand::{Ruling, Rulings};
use super::clients::{Clients, Late, Request};
use super::inspector::Looker;
use super::life::{Hostable, Hosted};
use super::outside::Agents;
use super::sagas::{self, SagaAsk, SagaError, SagaSeen, Sagas};
use super::ways::Ways;
use crate::calls::Machine;
use crate::clock;
use crate::member::{Event, Member};
use crate::outside::Damage;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;
use synod_node::spaces::{Command, ProcessId, SpaceId, Standing, Step};
use synod_node::{ClientError, Request as Ask};
use synod_protocols::commit::{self, Coordinator, Keyspace, Message, Participant};
use synod_protocols::log::{Index, ReplicatedLog, Ticket};
use synod_protocols::replicated::{Entry, Verdict};
use synod_protocols::saga::{self, Orchestrator, SagaId};
use synod_protocols::{Input, NodeId, Time};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// What the orchestrator is called in messages, which nobody outside sees.
const ORCHESTRATOR: NodeId = NodeId(u64::MAX);

/// One thing that happens to the host.
pub(crate) enum Happened {
    /// The member begins to lead, or ends.
    Leads(bool),
    /// What became of something that was proposed.
    Proposed(Proposed),
    /// A client asks.
    Run(Request),
    /// Somebody wants to know what is under way.
    Look(Looker),
    /// A person ends what is in doubt.
    Ruled(Ruling),
    /// It was found out that a transaction has ended otherwise in a database than its coordinator has decided.
    Damaged { participant: NodeId, damage: Damage },
    /// A client asks something of a saga.
    Saga(SagaAsk, oneshot::Sender<Result<SagaId, SagaError>>),
    /// Somebody wants to know which sagas there are.
    LookAtSagas(oneshot::Sender<Vec<SagaSeen>>),
    /// A service has answered, or it is not known what became of what it was asked.
    Served { from: NodeId, asked: sagas::Asked, answer: Option<saga::Message> },
    /// A message from elsewhere.
    Message { from: NodeId, to: NodeId, message: Message },
    /// Messages from a process of another cluster, which waits for what they are answered.
    Arrived { from: NodeId, to: NodeId, messages: Vec<Message>, answers: UnboundedSender<Message> },
    /// The member stops.
    Stop,
}

/// The outcome of a proposal.
pub(crate) struct Proposed {
    pub(crate) ticket: Ticket,
    pub(crate) process: ProcessId,
    /// The life that proposed it; none if it asked for one to begin.
    pub(crate) life: Option<Index>,
    pub(crate) outcome: Result<(Index, Verdict), ClientError>,
}

/// Where the host is told things.
#[derive(Clone)]
pub(crate) struct Mailbox(pub(crate) UnboundedSender<Happened>);

impl Mailbox {
    pub(crate) fn tell(&self, happened: Happened) {
        // A host that is gone has told its clients so, and what it is not told it does not need.
        let _ = self.0.send(happened);
    }
}

/// Starts the host.
pub(crate) fn spawn<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    mut happened: UnboundedReceiver<Happened>,
) {
    let mut host = Host::new(Rc::clone(member));
    tokio::task::spawn_local(async move {
        loop {
            let now = clock::now();
            let wait = host.deadline().map_or(Duration::from_secs(3600), |deadline| deadline.since(now));
            tokio::select! {
                biased;
                next = happened.recv() => match next {
                    Some(Happened::Stop) | None => return host.stop(),
                    Some(next) => host.take(next),
                },
                () = sleep_until(Instant::now() + wait) => {}
            }
            while let Ok(next) = happened.try_recv() {
                if matches!(next, Happened::Stop) {
                    return host.stop();
                }
                host.take(next);
            }
            host.turn();
        }
    });
}

pub(super) struct Host<P: ReplicatedLog + 'static> {
    pub(super) member: Rc<Member<P>>,
    pub(super) leads: bool,
    pub(super) coordinator: Hosted<Coordinator>,
    pub(super) orchestrator: Hosted<Orchestrator>,
    pub(super) sagas: Sagas,
    pub(super) rulings: Rulings,
    /// Those that were used while this member led.
    pub(super) keyspaces: BTreeMap<SpaceId, Hosted<Participant<Keyspace>>>,
    pub(super) clients: Clients,
    /// Participants outside.
    pub(super) agents: Agents,
    /// Other clusters.
    pub(super) ways: Ways,
    /// Messages between processes here.
    pub(super) messages: VecDeque<(NodeId, NodeId, Message)>,
}

impl<P: ReplicatedLog + 'static> Host<P> {
    fn new(member: Rc<Member<P>>) -> Host<P> {
        let name = super::coordinator_of(member.config.cluster_id());
        Host {
            member,
            leads: false,
            coordinator: Hosted::new(name, ProcessId::Coordinator),
            orchestrator: Hosted::new(ORCHESTRATOR, ProcessId::Orchestrator),
            sagas: Sagas::default(),
            rulings: Rulings::default(),
            keyspaces: BTreeMap::new(),
            clients: Clients::default(),
            agents: Agents::default(),
            ways: Ways::default(),
            messages: VecDeque::new(),
        }
    }

    fn deadline(&self) -> Option<Time> {
        if !self.leads {
            return None;
        }
        let lives = self.keyspaces.values().filter_map(Hosted::deadline).chain(self.coordinator.deadline());
        let begins = self.keyspaces.values().filter_map(Hosted::begin_at).chain(self.coordinator.begin_at());
        let sagas = self.orchestrator.deadline().into_iter().chain(self.orchestrator.begin_at());
        let outside = self.agents.deadline(self.member.core.borrow().node.machine().registry());
        lives.chain(begins).chain(sagas).chain(self.clients.deadline()).chain(outside).min()
    }

    fn take(&mut self, happened: Happened) {
        let now = clock::now();
        match happened {
            Happened::Leads(leads) => self.on_role(leads),
            Happened::Proposed(proposed) => self.on_proposed(now, proposed),
            Happened::Run(request) => self.on_run(now, request),
            Happened::Ruled(ruling) => self.on_ruling(now, ruling),
            Happened::Damaged { participant, damage } => self.on_damage(participant, damage),
            Happened::Look(answer) => self.look(now, answer),
            Happened::Saga(ask, answer) => self.on_saga(now, ask, answer),
            Happened::LookAtSagas(answer) => self.look_at_sagas(answer),
            Happened::Served { from, asked, answer } => self.on_served(now, from, &asked, answer),
            Happened::Message { from, to, message } => self.messages.push_back((from, to, message)),
            Happened::Arrived { from, to, messages, answers } if self.leads => {
                self.ways.wait((from, to), &messages, answers);
                self.messages.extend(messages.into_iter().map(|message| (from, to, message)));
            }
            // Whoever sent them finds the leader.
            Happened::Arrived { .. } => {}
            Happened::Stop => {}
        }
        self.deliver(now);
    }

    /// What is due by the clock.
    fn turn(&mut self) {
        let now = clock::now();
        if !self.leads {
            return;
        }
        let is_running = self.coordinator.running().is_some();
        for Late { ticket, txn } in self.clients.expire(now, is_running) {
            self.coordinate(now, Input::Request(commit::Request::Abort { ticket, txn }));
        }
        if self.coordinator.deadline().is_some_and(|deadline| deadline <= now) {
            self.coordinate(now, Input::Timeout);
        }
        if self.orchestrator.deadline().is_some_and(|deadline| deadline <= now) {
            self.orchestrate(now, Input::Timeout);
        }
        let is_due = |hosted: &Hosted<_>| hosted.deadline().is_some_and(|deadline| deadline <= now);
        let due: Vec<SpaceId> =
            self.keyspaces.iter().filter(|(_, hosted)| is_due(hosted)).map(|(space, _)| *space).collect();
        due.into_iter().for_each(|space| self.participate(now, space, Input::Timeout));
        {
            let (core, mailbox) = (self.member.core.borrow(), self.member.calls.borrow().host.clone());
            self.agents.sweep(now, core.node.machine().registry(), &mailbox, self.coordinator.id);
        }
        self.deliver(now);
        self.begin_wanted(now);
    }

    fn stop(mut self) {
        self.clients.end(&super::HostedError::Stopping);
        self.sagas.end(&super::HostedError::Stopping);
    }
}

/// Lives.
impl<P: ReplicatedLog + 'static> Host<P> {
    fn on_role(&mut self, leads: bool) {
        if self.leads == leads {
            return;
        }
        self.leads = leads;
        if !leads {
            self.coordinator.forget();
            self.orchestrator.forget();
            self.sagas.end(&super::HostedError::UnknownOutcome);
            self.sagas = Sagas::default();
            self.rulings.end();
            self.keyspaces.clear();
            self.messages.clear();
            self.agents.forget();
            self.ways.forget();
            return self.clients.end(&super::HostedError::NotLeader);
        }
        // Those that may be waited for. Others begin when they are needed.
        let waited_for: Vec<SpaceId> = {
            let core = self.member.core.borrow();
            let machine = core.node.machine();
            let spaces = machine.registry().spaces().filter(|space| space.model.is_on_log());
            spaces
                .map(|space| space.id)
                .filter(|id| !matches!(machine.standing(*id), Ok(Standing::Settled)))
                .collect()
        };
        waited_for.into_iter().for_each(|space| self.keyspace(space).want());
        if self.was_used(ProcessId::Coordinator) {
            self.coordinator.want();
        }
        if self.was_used(ProcessId::Orchestrator) {
            self.orchestrator.want();
        }
        self.begin_wanted(clock::now());
    }

    /// Lives are asked for, for what needs one and has none.
    pub(super) fn begin_wanted(&mut self, now: Time) {
        if !self.leads {
            return;
        }
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if is_due(self.coordinator.begin_at()) {
            let ticket = self.propose_begin(ProcessId::Coordinator);
            self.coordinator.beginning(ticket);
        }
        if is_due(self.orchestrator.begin_at()) {
            let ticket = self.propose_begin(ProcessId::Orchestrator);
            self.orchestrator.beginning(ticket);
        }
        let wanted = self.keyspaces.iter().filter(|(_, hosted)| is_due(hosted.begin_at()));
        let wanted: Vec<SpaceId> = wanted.map(|(space, _)| *space).collect();
        for space in wanted {
            let ticket = self.propose_begin(ProcessId::Keyspace(space));
            self.keyspace(space).beginning(ticket);
        }
    }

    pub(super) fn was_used(&self, process: ProcessId) -> bool {
        let core = self.member.core.borrow();
        core.node.machine().journal(process).map_or(true, |journal| journal.life > Index::ZERO)
    }

    fn propose_begin(&self, process: ProcessId) -> Ticket {
        let member = self.member.id;
        self.propose(process, None, |ticket| Step::new(process, Entry::Begin { member, nonce: ticket.0 }))
    }

    pub(super) fn propose(
        &self,
        process: ProcessId,
        life: Option<Index>,
        step: impl FnOnce(Ticket) -> Step,
    ) -> Ticket {
        let ticket = self.member.calls.borrow_mut().wait_for_process(process, life);
        let command = Command::Process { step: step(ticket) }.to_log();
        self.member.tell(Event::Client { ticket, request: Ask::Command(command) });
        ticket
    }

    fn on_proposed(&mut self, now: Time, proposed: Proposed) {
        if !self.leads {
            return;
        }
        match proposed.process {
            ProcessId::Coordinator => self.on_coordinators(now, proposed),
            ProcessId::Keyspace(space) => self.on_keyspaces(now, space, proposed),
            ProcessId::Orchestrator => self.on_orchestrators(now, proposed),
        }
    }
}

/// What the answer to a proposal means for a process.
pub(super) enum Heard {
    /// An entry of its life counts.
    Counts,
    /// Its life begins, from these records.
    Begins(Index, Vec<bytes::Bytes>),
    /// Its life is over, or does not begin.
    Over,
    /// It is about a life that was over before.
    Nothing,
}

pub(super) fn heard<P: ReplicatedLog + 'static, Q: Hostable>(
    member: &Member<P>,
    hosted: &mut Hosted<Q>,
    now: Time,
    proposed: &Proposed,
) -> Heard {
    let is_current = match proposed.life {
        None => hosted.is_beginning(proposed.ticket),
        life => hosted.life() == life,
    };
    if !is_current {
        return Heard::Nothing;
    }
    match proposed.outcome {
        Ok((_, Verdict::Accepted)) => return Heard::Counts,
        Ok((index, Verdict::Began)) => {
            let core = member.core.borrow();
            let machine: &Machine = core.node.machine();
            // Another one may have begun since, of a member that believes to lead.
            let is_latest = machine.journal(hosted.process).is_ok_and(|journal| journal.life == index);
            if is_latest && let Ok(records) = machine.records(hosted.process) {
                return Heard::Begins(index, records);
            }
        }
        Ok((_, Verdict::Broken | Verdict::Stale)) | Err(_) => {}
    }
    hosted.cease(now);
    Heard::Over
}

/// Messages.
impl<P: ReplicatedLog + 'static> Host<P> {
    /// Messages between processes here arrive at once.
    fn deliver(&mut self, now: Time) {
        while let Some((from, to, message)) = self.messages.pop_front() {
            if !self.leads {
                return self.messages.clear();
            }
            if to == self.coordinator.id {
                self.coordinate(now, Input::Message { from, message });
            } else if self.is_keyspace(SpaceId(to.0)) {
                self.participate(now, SpaceId(to.0), Input::Message { from, message });
            } else if !self.send_elsewhere(from, to, &message) {
                let (core, mailbox) = (self.member.core.borrow(), self.member.calls.borrow().host.clone());
                self.agents.send(core.node.machine().registry(), &mailbox, (from, to), message);
            }
        }
        self.begin_wanted(now);
    }
}

/// For people.
impl<P: ReplicatedLog + 'static> Host<P> {
    /// What participants are called by people.
    pub(super) fn names(&self) -> BTreeMap<NodeId, String> {
        let core = self.member.core.borrow();
        let registry = core.node.machine().registry();
        let spaces = registry.spaces().map(|space| (NodeId(space.id.0), space.name.clone()));
        let outside = registry.outside().map(|outside| (NodeId(outside.id.0), outside.name.clone()));
        spaces.chain(outside).collect()
    }
}
