//! The task that runs the processes, and what it hears.

use super::by_hand::{Ruling, Rulings};
use super::clients::{Clients, Late, Request};
use super::life::{Hostable, Hosted};
use super::outside::Agents;
use super::sagas::{self, SagaAsk, SagaError, SagaSeen, Sagas};
use super::show::{self, Seen};
use super::ways::Ways;
use crate::calls::Machine;
use crate::clock;
use crate::member::{Event, Member};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;
use synod_node::spaces::{Command, ProcessId, SpaceId, Step};
use synod_node::{ClientError, Request as Ask};
use synod_protocols::commit::{
    self, Changes, Coordinator, Keyspace, Message, Participant, ParticipantConfig, Timing, TxnId,
};
use synod_protocols::log::{Index, ReplicatedLog, Ticket};
use synod_protocols::replicated::{Entry, Verdict, Wants};
use synod_protocols::saga::{self, Orchestrator, SagaId};
use synod_protocols::{Input, NodeId, Time};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// After how long a message that was not answered is said again: messages are lost only where a life ends.
const RETRY: Duration = Duration::from_millis(300);
/// How much longer than its client the coordinator waits for votes.
const VOTE_MARGIN: Duration = Duration::from_secs(5);
/// Values of a keyspace that are read from the state at a time.
const LOADED_AT_A_TIME: usize = 10_000;

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
    Look(oneshot::Sender<Vec<Seen>>),
    /// A person ends what is in doubt.
    Ruled(Ruling),
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
    keyspaces: BTreeMap<SpaceId, Hosted<Participant<Keyspace>>>,
    clients: Clients,
    /// Participants outside.
    pub(super) agents: Agents,
    /// Other clusters.
    pub(super) ways: Ways,
    /// Messages between processes here.
    messages: VecDeque<(NodeId, NodeId, Message)>,
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
            Happened::Look(answer) => drop(answer.send(self.look(now))),
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
            self.sagas.end(&super::HostedError::NotLeader);
            self.sagas = Sagas::default();
            self.rulings.end();
            self.keyspaces.clear();
            self.messages.clear();
            self.agents.forget();
            self.ways.forget();
            return self.clients.end(&super::HostedError::NotLeader);
        }
        // Those that may be waited for. Others begin when they are needed.
        let in_doubt: Vec<SpaceId> = {
            let core = self.member.core.borrow();
            let machine = core.node.machine();
            let spaces = machine.registry().spaces().filter(|space| space.model.is_on_log());
            spaces.map(|space| space.id).filter(|id| machine.is_in_doubt(*id).unwrap_or(true)).collect()
        };
        in_doubt.into_iter().for_each(|space| self.keyspace(space).want());
        if self.was_used(ProcessId::Coordinator) {
            self.coordinator.want();
        }
        if self.was_used(ProcessId::Orchestrator) {
            self.orchestrator.want();
        }
        self.begin_wanted(clock::now());
    }

    fn keyspace(&mut self, space: SpaceId) -> &mut Hosted<Participant<Keyspace>> {
        let hosted = || Hosted::new(NodeId(space.0), ProcessId::Keyspace(space));
        self.keyspaces.entry(space).or_insert_with(hosted)
    }

    /// Lives are asked for, for what needs one and has none.
    fn begin_wanted(&mut self, now: Time) {
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

    fn on_coordinators(&mut self, now: Time, proposed: Proposed) {
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

    fn on_keyspaces(&mut self, now: Time, space: SpaceId, proposed: Proposed) {
        let member = Rc::clone(&self.member);
        let Some(hosted) = self.keyspaces.get_mut(&space) else { return };
        match heard(&member, hosted, now, &proposed) {
            Heard::Counts => {
                let wants = hosted.accepted(now);
                self.take_keyspaces(space, wants);
            }
            Heard::Begins(life, records) => {
                let values = match load(&member, space) {
                    Ok(values) => values,
                    Err(why) => {
                        self.member.log(&why);
                        return hosted.cease(now);
                    }
                };
                let mut config = ParticipantConfig::new(hosted.id, Keyspace::kept(values));
                config.is_kept = true;
                let (wants, held) = hosted.begin(now, life, config, records);
                self.take_keyspaces(space, wants);
                held.into_iter().for_each(|input| self.participate(now, space, input));
            }
            // A keyspace that was dropped is not tried again.
            Heard::Over if proposed.outcome.is_ok_and(|(_, verdict)| verdict == Verdict::Stale) => {
                let core = self.member.core.borrow();
                let is_there = core.node.machine().registry().spaces().any(|known| known.id == space);
                if !is_there {
                    self.keyspaces.remove(&space);
                }
            }
            Heard::Over | Heard::Nothing => {}
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

/// All values of a keyspace, those that are Synod's own included.
fn load<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    space: SpaceId,
) -> Result<BTreeMap<String, bytes::Bytes>, String> {
    let core = member.core.borrow();
    let machine: &Machine = core.node.machine();
    let mut values = BTreeMap::new();
    for prefix in [&b"\0"[..], b""] {
        let mut after = bytes::Bytes::new();
        loop {
            let some = machine
                .values(space, prefix, &after, LOADED_AT_A_TIME)
                .map_err(|error| format!("the values of a keyspace cannot be read: {error}"))?;
            let Some((last, _)) = some.last() else { break };
            after = last.clone();
            let is_last = some.len() < LOADED_AT_A_TIME;
            // Keys come in as text, so that none is left out here.
            let text = |(key, value): (bytes::Bytes, _)| Some((String::from_utf8(key.into()).ok()?, value));
            values.extend(some.into_iter().filter_map(text));
            if is_last {
                break;
            }
        }
    }
    Ok(values)
}

/// Transactions.
impl<P: ReplicatedLog + 'static> Host<P> {
    fn on_run(&mut self, now: Time, request: Request) {
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

    fn coordinate(&mut self, now: Time, input: Input<Coordinator>) {
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

    pub(super) fn participate(&mut self, now: Time, space: SpaceId, input: Input<Participant<Keyspace>>) {
        let wants = self.keyspace(space).step(now, input);
        self.take_keyspaces(space, wants);
    }

    fn take_keyspaces(&mut self, space: SpaceId, wants: Wants<Participant<Keyspace>>) {
        let process = ProcessId::Keyspace(space);
        let hosted = self.keyspace(space);
        let (id, life) = (hosted.id, hosted.life());
        let mut changes = Changes::new();
        let mut is_in_doubt = false;
        if let Some(tenant) = hosted.tenant() {
            let participant = tenant.process_mut();
            changes = participant.resource_mut().take_committed();
            is_in_doubt = participant.is_in_doubt();
        }
        assert!(changes.is_empty() || !wants.entries.is_empty(), "what changes values is recorded");
        for entry in wants.entries {
            // With the first one: it is the step's own, and another one replaces what it says too.
            let changes = std::mem::take(&mut changes);
            self.propose(process, life, |_| {
                let step = Step { is_in_doubt, ..Step::new(process, entry) };
                step.with_writes(changes)
            });
        }
        self.messages.extend(wants.sends.into_iter().map(|(to, message)| (id, to, message)));
        wants.events.into_iter().for_each(|event| self.on_told(space, event));
    }

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

    pub(super) fn is_keyspace(&self, space: SpaceId) -> bool {
        let core = self.member.core.borrow();
        core.node.machine().registry().spaces().any(|known| known.id == space && known.model.is_on_log())
    }
}

/// What is shown.
impl<P: ReplicatedLog + 'static> Host<P> {
    fn look(&self, now: Time) -> Vec<Seen> {
        let names = self.names();
        let name = |id: NodeId| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        let locks: Vec<(NodeId, String, TxnId)> = self
            .keyspaces
            .iter()
            .filter_map(|(space, hosted)| Some((NodeId(space.0), hosted.running()?)))
            .flat_map(|(id, participant)| {
                participant.locks().into_iter().map(move |(key, txn)| (id, key, txn))
            })
            .collect();
        let of = |txn: TxnId| {
            let held = locks.iter().filter(move |(_, _, holder)| *holder == txn);
            held.map(|(id, key, _)| (name(*id), key.clone())).collect()
        };
        let mut seen: BTreeMap<TxnId, Seen> = BTreeMap::new();
        for open in self.coordinator.running().into_iter().flat_map(Coordinator::transactions) {
            let entry = Seen {
                txn: open.txn,
                role: "coordinator",
                state: show::state(open.phase),
                participants: open.participants.into_iter().map(name).collect(),
                waits_for: open.waits_for.into_iter().map(name).collect(),
                locks: of(open.txn),
                age: self.clients.age(now, open.txn).unwrap_or_default(),
                is_in_doubt: false,
            };
            seen.insert(open.txn, entry);
        }
        for (space, hosted) in &self.keyspaces {
            for doubt in hosted.running().into_iter().flat_map(Participant::in_doubt) {
                let entry = seen.entry(doubt.txn).or_insert_with(|| Seen {
                    txn: doubt.txn,
                    role: "participant",
                    state: "prepared",
                    participants: Vec::new(),
                    waits_for: vec![name(doubt.txn.coordinator)],
                    locks: of(doubt.txn),
                    age: Duration::ZERO,
                    is_in_doubt: true,
                });
                if entry.role == "participant" {
                    entry.participants.push(name(NodeId(space.0)));
                }
                entry.age = entry.age.max(now.since(doubt.since));
            }
        }
        seen.into_values().collect()
    }

    /// What participants are called by people.
    pub(super) fn names(&self) -> BTreeMap<NodeId, String> {
        let core = self.member.core.borrow();
        let registry = core.node.machine().registry();
        let spaces = registry.spaces().map(|space| (NodeId(space.id.0), space.name.clone()));
        let outside = registry.outside().map(|outside| (NodeId(outside.id.0), outside.name.clone()));
        spaces.chain(outside).collect()
    }
}
