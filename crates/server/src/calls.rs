//! Calls that wait for the node's answer, and how answers become responses.

use crate::config::Config;
use crate::engine::FileMap;
use crate::grpc::{self, Responder};
use crate::members::{MemberInfo, change_refusal};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use synod_node::kv::Answer;
use synod_node::{ClientError, ClusterId, KvMachine, NodeStatus, Outcome, Reply};
use synod_protocols::log::{Member, Ticket};
use synod_protocols::{NodeId, Time};
use synod_store::proto::etcdserverpb::{
    Member as EtcdMember, MemberAddResponse, MemberListResponse, MemberPromoteResponse, MemberRemoveResponse,
    MoveLeaderResponse, ResponseHeader,
};
use synod_store::{Code, Refusal, Revision};

/// The store, on files.
pub(crate) type Machine = KvMachine<FileMap>;

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

struct Call {
    asked: Asked,
    responder: Responder,
    deadline: Option<Time>,
}

impl Calls {
    pub(crate) fn new(config: &Config) -> Calls {
        Calls {
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
    ) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        let deadline = deadline.filter(|deadline| *deadline < now + self.request_timeout);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, ticket));
        }
        self.waiting.insert(ticket, Call { asked, responder, deadline });
        ticket
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
            if let Some(call) = self.waiting.remove(&ticket) {
                self.figures.timed_out += 1;
                call.responder.refuse(&Refusal::new(Code::DeadlineExceeded, "context deadline exceeded"));
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
        let Some(call) = self.waiting.remove(&reply.ticket) else { return };
        if let Some(deadline) = call.deadline {
            self.deadlines.remove(&(deadline, reply.ticket));
        }
        let header = |header: &mut ResponseHeader| {
            header.cluster_id = self.cluster.0;
            header.member_id = self.member.0;
            header.raft_term = status.log.epoch.0;
        };
        let refusal = match reply.outcome {
            Outcome::Applied { response: Ok(mut response), .. } => {
                header(response.header_mut());
                self.figures.commands += 1;
                call.responder.answer_command(&response);
                return;
            }
            Outcome::Answered { answer: Ok(answer), .. } => {
                self.figures.reads += 1;
                match answer {
                    Answer::Range(mut response) => {
                        header(response.header.get_or_insert_default());
                        call.responder.answer(&response);
                    }
                    Answer::Txn(mut response) => {
                        header(response.header.get_or_insert_default());
                        call.responder.answer(&response);
                    }
                    Answer::Hash(mut response) => {
                        let its_header = response.header.get_or_insert_default();
                        header(its_header);
                        its_header.revision = revision.0;
                        call.responder.answer(&response);
                    }
                }
                return;
            }
            Outcome::Changed { added, members } => {
                let mut its_header = ResponseHeader { revision: revision.0, ..ResponseHeader::default() };
                header(&mut its_header);
                let members = infos(&members).into_iter().map(Into::into).collect();
                return answer_changed(call, Some(its_header), added, members);
            }
            Outcome::Applied { response: Err(refusal), .. }
            | Outcome::Answered { answer: Err(refusal), .. } => {
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
        };
        call.responder.refuse(&refusal);
    }

    /// Tells everybody that the member stops.
    pub(crate) fn stop(&mut self) {
        self.deadlines.clear();
        for (_, call) in self.waiting.drain() {
            call.responder.refuse(&grpc::STOPPED);
        }
    }
}

fn answer_changed(call: Call, header: Option<ResponseHeader>, added: NodeId, members: Vec<EtcdMember>) {
    match call.asked {
        Asked::Data | Asked::MemberList => call.responder.answer(&MemberListResponse { header, members }),
        Asked::MemberAdd => {
            let member = members.iter().find(|member| member.id == added.0).cloned();
            call.responder.answer(&MemberAddResponse { header, member, members });
        }
        Asked::MemberRemove => call.responder.answer(&MemberRemoveResponse { header, members }),
        Asked::MemberPromote => call.responder.answer(&MemberPromoteResponse { header, members }),
        Asked::MoveLeader => call.responder.answer(&MoveLeaderResponse { header }),
    }
}

/// In etcd's words and codes, which its clients act upon.
fn failure(error: ClientError) -> Refusal {
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
