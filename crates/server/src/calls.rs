//! Calls that wait for the node's answer, and how answers become responses.

use crate::config::Config;
use crate::engine::FileMap;
use crate::grpc::{self, Responder};
use crate::hosted::{Happened, Mailbox, Proposed};
use crate::member::{Event, Member as RunningMember};
use crate::members::{MemberInfo, change_refusal};
use crate::session::Session;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use synod_node::spaces::{Answer, ProcessId, Response, SpacesMachine};
use synod_node::{ClientError, ClusterId, NodeStatus, Outcome, Reply, Request, kv, spaces};
use synod_protocols::log::ReplicatedLog;
use synod_protocols::log::{Index, Member, Ticket};
use synod_protocols::{NodeId, Time};
use synod_store::proto::etcdserverpb::{
    Member as EtcdMember, MemberAddResponse, MemberListResponse, MemberPromoteResponse, MemberRemoveResponse,
    MoveLeaderResponse, ResponseHeader,
};
use synod_store::{Code, Refusal, Revision};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::oneshot;

/// The store and the keyspaces, on files.
pub(crate) type Machine = SpacesMachine<FileMap>;

/// Calls under way, by the ticket that the node returns with its answer.
pub(crate) struct Calls {
    cluster: ClusterId,
    member: NodeId,
    request_timeout: Duration,
    waiting: HashMap<Ticket, Call>,
    /// Only calls whose client wants an answer sooner than the node gives up by itself.
    deadlines: BTreeSet<(Time, Ticket)>,
    last: u64,
    pub(crate) figures: Figures,
    /// Where the processes that run on the log are told things, and until they run, where those are.
    pub(crate) host: Mailbox,
    happened: Option<UnboundedReceiver<Happened>>,
}

/// How calls ended, in this life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) commands: u64,
    pub(crate) reads: u64,
    pub(crate) refused: u64,
    pub(crate) timed_out: u64,
    pub(crate) failed: u64,
}

/// Which response an outcome becomes, where it does not say so itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Data,
    MemberList,
    MemberAdd,
    MemberRemove,
    MemberPromote,
    MoveLeader,
}

/// Who waits for an answer.
enum Call {
    /// A client of the etcd API.
    Etcd { asked: Asked, responder: Responder, deadline: Option<Time>, session: Option<Session> },
    /// A task of this member.
    Task(oneshot::Sender<Outcome<Machine>>),
    /// A process that runs on the log, in one of its lives.
    Process(ProcessId, Option<Index>),
}

impl Calls {
    pub(crate) fn new(config: &Config) -> Calls {
        let (host, happened) = mpsc::unbounded_channel();
        Calls {
            host: Mailbox(host),
            happened: Some(happened),
            cluster: config.cluster_id(),
            member: config.id(),
            request_timeout: config.request_timeout,
            waiting: HashMap::new(),
            deadlines: BTreeSet::new(),
            last: 0,
            figures: Figures::default(),
        }
    }

    /// Keeps a call until its answer comes, or until `deadline`, its client's own.
    pub(crate) fn wait(
        &mut self,
        now: Time,
        asked: Asked,
        responder: Responder,
        deadline: Option<Time>,
        session: Option<Session>,
    ) -> Ticket {
        let ticket = self.next_ticket();
        let deadline = deadline.filter(|deadline| *deadline < now + self.request_timeout);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, ticket));
        }
        self.waiting.insert(ticket, Call::Etcd { asked, responder, deadline, session });
        ticket
    }

    /// Keeps a proposal of a process that runs on the log until its answer comes.
    pub(crate) fn wait_for_process(&mut self, process: ProcessId, life: Option<Index>) -> Ticket {
        let ticket = self.next_ticket();
        self.waiting.insert(ticket, Call::Process(process, life));
        ticket
    }

    /// What the host of those processes hears, once.
    pub(crate) fn happened(&mut self) -> Option<UnboundedReceiver<Happened>> {
        self.happened.take()
    }

    fn next_ticket(&mut self) -> Ticket {
        self.last += 1;
        Ticket(self.last)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Answers calls whose client no longer waits.
    pub(crate) fn expire(&mut self, now: Time) {
        while let Some((deadline, ticket)) =
            self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now)
        {
            self.deadlines.remove(&(deadline, ticket));
            if let Some(Call::Etcd { responder, .. }) = self.waiting.remove(&ticket) {
                self.figures.timed_out += 1;
                responder.refuse(&Refusal::new(Code::DeadlineExceeded, "context deadline exceeded"));
            }
        }
    }

    /// Answers a call. The node may answer one that has expired meanwhile.
    /// `infos` says what clients are told of members.
    pub(crate) fn answer(
        &mut self,
        reply: Reply<Machine>,
        status: &NodeStatus,
        revision: Revision,
        infos: impl FnOnce(&[Member]) -> Vec<MemberInfo>,
    ) {
        let (asked, responder) = match self.waiting.remove(&reply.ticket) {
            Some(Call::Etcd { asked, responder, deadline, session }) => {
                if let Some(deadline) = deadline {
                    self.deadlines.remove(&(deadline, reply.ticket));
                }
                let index = match &reply.outcome {
                    Outcome::Applied { index, .. } | Outcome::Answered { index, .. } => *index,
                    Outcome::Changed { .. } | Outcome::Failed(_) => status.applied,
                };
                let token = session.map(|session| session.token(index));
                (asked, token.into_iter().fold(responder, |responder, token| responder.in_session(&token)))
            }
            // A task that has ended does not hear it, which is no error.
            Some(Call::Task(tell)) => return drop(tell.send(reply.outcome)),
            Some(Call::Process(process, life)) => {
                let outcome = match reply.outcome {
                    Outcome::Applied { index, response: Response::Process(verdict) } => Ok((index, verdict)),
                    Outcome::Failed(error) => Err(error),
                    _ => unreachable!("what a process wants recorded is answered in kind"),
                };
                let proposed = Proposed { ticket: reply.ticket, process, life, outcome };
                return self.host.tell(Happened::Proposed(proposed));
            }
            None => return,
        };
        let header = |header: &mut ResponseHeader| {
            header.cluster_id = self.cluster.0;
            header.member_id = self.member.0;
            header.raft_term = status.log.epoch.0;
        };
        let refusal = match reply.outcome {
            Outcome::Applied { response: Response::Store(Ok(mut response)), .. } => {
                header(response.header_mut());
                self.figures.commands += 1;
                responder.answer_command(&response);
                return;
            }
            Outcome::Answered { answer: Answer::Store(Ok(answer)), .. } => {
                self.figures.reads += 1;
                match answer {
                    kv::Answer::Range(mut response) => {
                        header(response.header.get_or_insert_default());
                        responder.answer(&response);
                    }
                    kv::Answer::Txn(mut response) => {
                        header(response.header.get_or_insert_default());
                        responder.answer(&response);
                    }
                    kv::Answer::Hash(mut response) => {
                        let its_header = response.header.get_or_insert_default();
                        header(its_header);
                        its_header.revision = revision.0;
                        responder.answer(&response);
                    }
                }
                return;
            }
            Outcome::Changed { added, members } => {
                let mut its_header = ResponseHeader { revision: revision.0, ..ResponseHeader::default() };
                header(&mut its_header);
                let members = infos(&members).into_iter().map(Into::into).collect();
                return answer_changed((asked, responder), Some(its_header), added, members);
            }
            Outcome::Applied { response: Response::Store(Err(refusal)), .. }
            | Outcome::Answered { answer: Answer::Store(Err(refusal)), .. } => {
                self.figures.refused += 1;
                refusal
            }
            Outcome::Failed(error) => {
                match error {
                    ClientError::Timeout => self.figures.timed_out += 1,
                    _ => self.figures.failed += 1,
                }
                failure(error)
            }
            Outcome::Applied { response: Response::Spaces(_) | Response::Process(_), .. }
            | Outcome::Answered { answer: Answer::Reached, .. } => {
                unreachable!("clients of the etcd API ask the store alone")
            }
        };
        responder.refuse(&refusal);
    }

    /// Tells everybody that the member stops.
    pub(crate) fn stop(&mut self) {
        self.deadlines.clear();
        self.host.tell(Happened::Stop);
        for (_, call) in self.waiting.drain() {
            // A task sees that its sender is gone.
            if let Call::Etcd { responder, .. } = call {
                responder.refuse(&grpc::STOPPED);
            }
        }
    }
}

fn answer_changed(
    (asked, responder): (Asked, Responder),
    header: Option<ResponseHeader>,
    added: NodeId,
    members: Vec<EtcdMember>,
) {
    match asked {
        Asked::Data | Asked::MemberList => responder.answer(&MemberListResponse { header, members }),
        Asked::MemberAdd => {
            let member = members.iter().find(|member| member.id == added.0).cloned();
            responder.answer(&MemberAddResponse { header, member, members });
        }
        Asked::MemberRemove => responder.answer(&MemberRemoveResponse { header, members }),
        Asked::MemberPromote => responder.answer(&MemberPromoteResponse { header, members }),
        Asked::MoveLeader => responder.answer(&MoveLeaderResponse { header }),
    }
}

/// Why a task of this member was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AskError {
    /// The node could not, or does not know.
    Node(ClientError),
    /// The member stops: whether it was done is not known.
    Stopped,
}

impl<P: ReplicatedLog + 'static> RunningMember<P> {
    /// Puts a request to the node and waits for the outcome, from any task of this member's thread.
    pub(crate) async fn ask(&self, request: Request<spaces::Query>) -> Result<Outcome<Machine>, AskError> {
        let (tell, outcome) = oneshot::channel();
        {
            let mut calls = self.calls.borrow_mut();
            let ticket = calls.next_ticket();
            calls.waiting.insert(ticket, Call::Task(tell));
            self.tell(Event::Client { ticket, request });
        }
        match outcome.await {
            Ok(Outcome::Failed(error)) => Err(AskError::Node(error)),
            Ok(outcome) => Ok(outcome),
            Err(_) => Err(AskError::Stopped),
        }
    }
}

/// In etcd's words and codes, which its clients act upon.
pub(crate) fn failure(error: ClientError) -> Refusal {
    match error {
        ClientError::NoLeader => Refusal::new(Code::Unavailable, "etcdserver: no leader"),
        ClientError::Busy => Refusal::new(Code::ResourceExhausted, "etcdserver: too many requests"),
        ClientError::Storage => {
            Refusal::new(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
        }
        ClientError::TooLarge => Refusal::REQUEST_TOO_LARGE,
        ClientError::Timeout => Refusal::new(Code::Unavailable, "etcdserver: request timed out"),
        ClientError::Unsupported => {
            Refusal::new(Code::Unimplemented, "the consensus protocol of this cluster cannot do that")
        }
        ClientError::Change(why) => change_refusal(why),
    }
}
