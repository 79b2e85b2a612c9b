//! A program's own state machine as what a member serves: questions come from the program's threads.

use super::StateMachine;
use super::handle::{Counted, Inlet, RequestError, Standing};
use super::machine::InMemory;
use crate::config::Config;
use crate::directory::Directory;
use crate::error::Error;
use crate::member::{Core, Event, Member, Persisted};
use crate::members::MemberInfo;
use crate::service::Service;
use bytes::Bytes;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use synod_node::{Change, Outcome, Reply, Request};
use synod_protocols::log::{Epoch, Member as LogMember, MembershipChange, ReplicatedLog, Role, Ticket};
use synod_protocols::{NodeId, Time};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};

/// A question on its way to the member.
pub(super) struct Ask<M: StateMachine> {
    pub(super) request: Request<M::Query>,
    pub(super) waiter: Waiter<M>,
    pub(super) _counted: Counted,
}

type Tell<T> = oneshot::Sender<Result<T, RequestError>>;

/// Who waits for an answer, and for which kind of answer.
pub(super) enum Waiter<M: StateMachine> {
    Response(Tell<M::Response>),
    Answer(Tell<M::Answer>),
    Members(Tell<Vec<MemberInfo>>),
    Added(Tell<MemberInfo>),
}

/// A program's state machine until the member has started, and then those who wait for its answers.
pub(super) struct Waiting<M: StateMachine> {
    machine: Option<M>,
    asks: Option<UnboundedReceiver<Ask<M>>>,
    standing: watch::Sender<Standing>,
    waiting: HashMap<Ticket, (Waiter<M>, Counted)>,
    last: u64,
}

impl<M: StateMachine> Waiting<M> {
    pub(super) fn new(machine: M, inlet: Inlet<M>) -> Self {
        Waiting {
            machine: Some(machine),
            asks: Some(inlet.asks),
            standing: inlet.standing,
            waiting: HashMap::new(),
            last: 0,
        }
    }
}

impl<M: StateMachine> Service for Waiting<M> {
    type Machine = InMemory<M>;
    type Door = UnboundedReceiver<Ask<M>>;

    async fn open(&mut self, _config: &Config) -> Result<(Self::Door, Option<SocketAddr>), Error> {
        Ok((self.asks.take().expect("a door is opened once"), None))
    }

    fn machine(
        &mut self,
        _config: &Config,
        directory: &Directory,
        persisted: UnboundedSender<Persisted>,
    ) -> Result<InMemory<M>, Error> {
        let machine = self.machine.take().expect("a member has one state");
        let tell = move |ticket, result| {
            // A member that is gone need not know.
            let _ = persisted.send((ticket, result));
        };
        InMemory::open(&directory.state(), machine, tell)
            .map_err(|why| Error::State { path: directory.state(), why })
    }

    fn welcome<P: ReplicatedLog + 'static>(member: &Rc<Member<P, Self>>, mut door: Self::Door) {
        let member = Rc::clone(member);
        tokio::task::spawn_local(async move {
            while let Some(ask) = door.recv().await {
                take(&member, ask);
            }
        });
    }

    /// What the configuration says, for the program's own use.
    fn clients_at(config: &Config) -> Option<String> {
        config.known().find(|member| member.name == config.name)?.clients.clone()
    }

    fn answer<P: ReplicatedLog + 'static>(
        member: &Member<P, Self>,
        core: &Core<P, Self>,
        replies: Vec<Reply<InMemory<M>>>,
    ) {
        let bytes_max = usize::try_from(member.config.request_size_max).unwrap_or(usize::MAX);
        let waiting = &mut member.calls.borrow_mut().waiting;
        for reply in replies {
            let Some((waiter, _counted)) = waiting.remove(&reply.ticket) else { continue };
            let infos = |members: &[LogMember]| member.member_infos(core, members);
            // Whoever has gone does not hear it, which is no error.
            match (waiter, reply.outcome) {
                (Waiter::Response(tell), Outcome::Applied { response, .. }) => drop(tell.send(Ok(response))),
                (Waiter::Answer(tell), Outcome::Answered { answer, .. }) => drop(tell.send(Ok(answer))),
                (Waiter::Members(tell), Outcome::Changed { members, .. }) => {
                    drop(tell.send(Ok(infos(&members))))
                }
                (Waiter::Added(tell), Outcome::Changed { added, members }) => {
                    if let Some(info) = infos(&members).into_iter().find(|info| info.id == added) {
                        let _ = tell.send(Ok(info));
                    }
                }
                (waiter, Outcome::Failed(error)) => waiter.refuse(RequestError::of(error, bytes_max)),
                _ => unreachable!("a question is answered in kind"),
            }
        }
    }

    fn deadline(&self) -> Option<Time> {
        None
    }

    /// The node gives up by itself, at the configured time.
    fn expire(&mut self, _now: Time) {}

    fn standing(&mut self, role: Role, term: Epoch, leader: Option<NodeId>) {
        self.standing.send_replace(Standing { role, term, leader });
    }

    fn stop(&mut self) {
        self.waiting.drain().for_each(|(_, (waiter, _))| waiter.refuse(RequestError::Stopped));
    }

    fn label(_command: Bytes) -> Option<String> {
        None
    }
}

/// Hands a question to the member, unless it is wrong.
fn take<P: ReplicatedLog + 'static, M: StateMachine>(member: &Rc<Member<P, Waiting<M>>>, ask: Ask<M>) {
    if let Request::Change(Change::Members(MembershipChange::Add { context, .. })) = &ask.request {
        let core = member.core.borrow();
        let asked = context.split(|byte| *byte == b',').next();
        let present = member.member_infos(&core, &core.node.process().members());
        let twin = present.iter().find(|info| info.peers.as_deref().map(str::as_bytes) == asked);
        if let Some(twin) = twin {
            let why = format!("{} is at that address already", twin.id);
            return ask.waiter.refuse(RequestError::Change(why));
        }
    }
    let mut calls = member.calls.borrow_mut();
    calls.last += 1;
    let ticket = Ticket(calls.last);
    calls.waiting.insert(ticket, (ask.waiter, ask._counted));
    member.tell(Event::Client { ticket, request: ask.request });
}

impl<M: StateMachine> Waiter<M> {
    fn refuse(self, why: RequestError) {
        match self {
            Waiter::Response(tell) => drop(tell.send(Err(why))),
            Waiter::Answer(tell) => drop(tell.send(Err(why))),
            Waiter::Members(tell) => drop(tell.send(Err(why))),
            Waiter::Added(tell) => drop(tell.send(Err(why))),
        }
    }
}
