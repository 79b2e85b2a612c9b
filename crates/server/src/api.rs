//! The client API: etcd v3's services, as far as this version offers them. `docs/etcd-api.md` lists
//! what is there, what is not, and where Synod differs.

use crate::calls::{AskError, Asked, failure};
use crate::clock;
use crate::grpc::{Responder, STOPPED};
use crate::member::{Event, Member};
use crate::members::addition;
use crate::session::{ETCD_STORE, NEW, Session, SessionError, WAIT, draw_secret};
use bytes::Bytes;
use http::HeaderValue;
use prost::Message;
use std::rc::Rc;
use synod_node::kv;
use synod_node::spaces::{self, Query};
use synod_node::{Change, Request};
use synod_protocols::log::{Index, MemberPart, MembershipChange, ReplicatedLog};
use synod_protocols::weak::TokenError;
use synod_protocols::{NodeId, Time};
use synod_store::proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentResponse, HashKvRequest, MemberPromoteRequest,
    MemberRemoveRequest, MoveLeaderRequest, RangeRequest, ResponseHeader, StatusResponse, TxnRequest,
    alarm_request::AlarmAction, request_op,
};
use synod_store::{Code, Command, CommandKind, Limits, Refusal, Revision, validate, validate_range};

/// The version of etcd's API that is spoken, with ours behind it. Clients compare the first two numbers.
pub(crate) const VERSION: &str = concat!("3.4.0+synod.", env!("CARGO_PKG_VERSION"));

/// What can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Range,
    Write(CommandKind),
    Members(Asked),
    MemberUpdate,
    Status,
    Alarm,
    Defragment,
    HashKv,
}

/// What etcd offers and this version does not.
const LATER: [(&str, &str); 5] = [
    ("/etcdserverpb.Watch/", "watches"),
    ("/etcdserverpb.Lease/", "leases"),
    ("/etcdserverpb.Auth/", "users and roles"),
    ("/v3lockpb.Lock/", "locks"),
    ("/v3electionpb.Election/", "elections"),
];

impl Method {
    /// What a path calls.
    pub(crate) fn of(path: &str) -> Result<Method, Refusal> {
        Ok(match path {
            "/etcdserverpb.KV/Range" => Method::Range,
            "/etcdserverpb.KV/Put" => Method::Write(CommandKind::Put),
            "/etcdserverpb.KV/DeleteRange" => Method::Write(CommandKind::DeleteRange),
            "/etcdserverpb.KV/Txn" => Method::Write(CommandKind::Txn),
            "/etcdserverpb.KV/Compact" => Method::Write(CommandKind::Compact),
            "/etcdserverpb.Cluster/MemberList" => Method::Members(Asked::MemberList),
            "/etcdserverpb.Cluster/MemberAdd" => Method::Members(Asked::MemberAdd),
            "/etcdserverpb.Cluster/MemberRemove" => Method::Members(Asked::MemberRemove),
            "/etcdserverpb.Cluster/MemberPromote" => Method::Members(Asked::MemberPromote),
            "/etcdserverpb.Cluster/MemberUpdate" => Method::MemberUpdate,
            "/etcdserverpb.Maintenance/MoveLeader" => Method::Members(Asked::MoveLeader),
            "/etcdserverpb.Maintenance/Status" => Method::Status,
            "/etcdserverpb.Maintenance/Alarm" => Method::Alarm,
            "/etcdserverpb.Maintenance/Defragment" => Method::Defragment,
            "/etcdserverpb.Maintenance/HashKV" => Method::HashKv,
            _ => return Err(unknown(path)),
        })
    }
}

fn unknown(path: &str) -> Refusal {
    if let Some((_, what)) = LATER.iter().find(|(prefix, _)| path.starts_with(prefix)) {
        let text = format!("{what} are not offered by this version of Synod: they come with a later one");
        return Refusal::new(Code::Unimplemented, text);
    }
    let path: String = path.chars().take(200).collect();
    Refusal::new(Code::Unimplemented, format!("{path} is not offered by this version of Synod"))
}

/// Answers a call that belongs to a session, or hands it to the member: a read of the member's own state not before that
/// has caught up with the session.
pub(crate) fn call_in_session<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    method: Method,
    message: Bytes,
    responder: Responder,
    deadline: Option<Time>,
    shown: HeaderValue,
) {
    let member = Rc::clone(member);
    tokio::task::spawn_local(async move {
        let session = async {
            let session = session(&member, &shown).await?;
            if is_local_read(&member, method, &message) {
                let left = deadline.map_or(WAIT, |deadline| deadline.since(clock::now()).min(WAIT));
                member.catch_up(session.seen, left).await.map_err(|error| not_in_session(&error))?;
            }
            Ok(session)
        };
        match session.await {
            Ok(session) => {
                // What is answered at once is answered from what is applied; what waits says more when it is answered.
                let responder = responder.in_session(&session.token(member.applied_index()));
                dispatch(&member, method, message, responder, deadline, Some(session));
            }
            Err(refusal) => {
                member.calls.borrow_mut().figures.refused += 1;
                responder.refuse(&refusal);
            }
        }
    });
}

/// The session that a call's metadata name, or a new one.
async fn session<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    shown: &HeaderValue,
) -> Result<Session, Refusal> {
    let text = shown.to_str().map_err(|_| not_in_session(&SessionError::Token(TokenError::Malformed)))?;
    if text != NEW {
        let opened =
            member.seal_of_shown().and_then(|seal| Ok((seal.open_log_token(ETCD_STORE, text)?, seal)));
        return opened.map(|(seen, seal)| Session { seen, seal }).map_err(|error| not_in_session(&error));
    }
    if member.seal().is_none() {
        let secret = draw_secret().map_err(|error| {
            Refusal::new(Code::Unavailable, format!("no random numbers could be had ({error}): try again"))
        })?;
        let sealed = member.ask(Request::Command(spaces::Command::Seal { secret }.to_log())).await;
        sealed.map_err(|error| match error {
            AskError::Node(error) => failure(error),
            AskError::Stopped => STOPPED,
        })?;
    }
    let seal = member.seal().ok_or_else(|| not_in_session(&SessionError::Busy))?;
    Ok(Session { seen: Index::ZERO, seal })
}

/// In the codes that clients act upon: with `Unavailable` they turn to another member.
fn not_in_session(error: &SessionError) -> Refusal {
    let code = match error {
        SessionError::TooLong | SessionError::Token(_) => Code::InvalidArgument,
        SessionError::Behind { .. } => Code::Unavailable,
        SessionError::Busy => Code::ResourceExhausted,
    };
    Refusal::new(code, error.to_string())
}

fn is_local_read<P: ReplicatedLog + 'static>(member: &Member<P>, method: Method, message: &Bytes) -> bool {
    let request = match method {
        Method::Range => range(member, message.clone()),
        Method::Write(kind) => write(member, kind, message.clone()),
        _ => return false,
    };
    matches!(request, Ok(Request::LocalRead(_)))
}

/// Answers a call, or hands it to the member.
pub(crate) fn call<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    method: Method,
    message: Bytes,
    responder: Responder,
    deadline: Option<Time>,
) {
    dispatch(member, method, message, responder, deadline, None);
}

fn dispatch<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    method: Method,
    message: Bytes,
    responder: Responder,
    deadline: Option<Time>,
    session: Option<Session>,
) {
    let mut kind = Asked::Data;
    let request = match method {
        Method::Range => range(member, message),
        Method::Write(kind) => write(member, kind, message),
        Method::HashKv => decode::<HashKvRequest>(message)
            .map(|hash| Request::LocalRead(Query::Store(kv::Query::Hash(Revision(hash.revision))))),
        Method::Members(asked) => {
            kind = asked;
            members(member, asked, message)
        }
        Method::MemberUpdate => Err(Refusal::new(
            Code::Unimplemented,
            "a member's addresses cannot be changed: remove it and add it again under another number, with an empty \
             directory, or let it keep its address",
        )),
        Method::Status => return responder.answer(&status(member)),
        Method::Defragment => return responder.answer(&DefragmentResponse { header: Some(header(member)) }),
        Method::Alarm => {
            return match alarm(member, message) {
                Ok(response) => responder.answer(&response),
                Err(refusal) => responder.refuse(&refusal),
            };
        }
    };
    match request {
        Ok(request) => {
            let ticket = member.calls.borrow_mut().wait(clock::now(), kind, responder, deadline, session);
            member.tell(Event::Client { ticket, request });
        }
        Err(refusal) => {
            member.calls.borrow_mut().figures.refused += 1;
            responder.refuse(&refusal);
        }
    }
}

fn decode<M: Message + Default>(message: Bytes) -> Result<M, Refusal> {
    M::decode(message)
        .map_err(|error| Refusal::new(Code::InvalidArgument, format!("the request is malformed: {error}")))
}

fn limits<P: ReplicatedLog + 'static>(member: &Member<P>) -> Limits {
    let bytes = usize::try_from(member.config.request_size_max).unwrap_or(usize::MAX);
    Limits { request_bytes_max: bytes, value_bytes_max: bytes, txn_ops_max: member.config.txn_ops_max }
}

fn range<P: ReplicatedLog + 'static>(member: &Member<P>, message: Bytes) -> Result<Request<Query>, Refusal> {
    let range: RangeRequest = decode(message)?;
    validate_range(&range, &limits(member))?;
    let local = range.serializable;
    let query = Query::Store(kv::Query::Range(range));
    Ok(if local { Request::LocalRead(query) } else { Request::Read(query) })
}

fn write<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    kind: CommandKind,
    message: Bytes,
) -> Result<Request<Query>, Refusal> {
    let command = Command::decode_request(kind, message.clone())?;
    validate(&command, &limits(member))?;
    match command {
        Command::Txn(txn) if Command::Txn(txn.clone()).is_read_only() => {
            let local = is_serializable(&txn);
            let query = Query::Store(kv::Query::Txn(txn));
            Ok(if local { Request::LocalRead(query) } else { Request::Read(query) })
        }
        _ => Ok(Request::Command(Command::wrap(kind, &message))),
    }
}

/// Whether all of a read-only transaction's reads may be old.
fn is_serializable(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(request_op::Request::RequestRange(range)) => range.serializable,
        Some(request_op::Request::RequestTxn(nested)) => is_serializable(nested),
        _ => false,
    })
}

fn header<P: ReplicatedLog + 'static>(member: &Member<P>) -> ResponseHeader {
    let core = member.core.borrow();
    ResponseHeader {
        cluster_id: member.config.cluster_id().0,
        member_id: member.id.0,
        revision: core.node.machine().store().revision().0,
        raft_term: core.node.status().log.epoch.0,
    }
}

/// A call about the members, as the node wants it.
fn members<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    asked: Asked,
    message: Bytes,
) -> Result<Request<Query>, Refusal> {
    let change = |change| Ok(Request::Change(Change::Members(change)));
    match asked {
        Asked::Data | Asked::MemberList => Ok(Request::Members),
        Asked::MemberAdd => {
            let core = member.core.borrow();
            let present = member.member_infos(&core, &core.node.process().members());
            Ok(Request::Change(addition(&decode(message)?, &present)?))
        }
        Asked::MemberRemove => {
            change(MembershipChange::Remove(NodeId(decode::<MemberRemoveRequest>(message)?.id)))
        }
        Asked::MemberPromote => {
            change(MembershipChange::Promote(NodeId(decode::<MemberPromoteRequest>(message)?.id)))
        }
        Asked::MoveLeader => {
            let to = decode::<MoveLeaderRequest>(message)?.target_id;
            Ok(Request::Change(Change::Transfer((to != 0).then_some(NodeId(to)))))
        }
    }
}

fn status<P: ReplicatedLog + 'static>(member: &Member<P>) -> StatusResponse {
    let status = member.status();
    let (size, in_use) = member.core.borrow().node.machine().store().map().disk_bytes();
    let members = member.core.borrow().node.process().members();
    let is_learner =
        members.iter().any(|found| found.id == member.id && matches!(found.part, MemberPart::Learner { .. }));
    let errors =
        if status.log.leader.is_none() { vec!["etcdserver: no leader".to_owned()] } else { Vec::new() };
    StatusResponse {
        header: Some(header(member)),
        version: VERSION.to_owned(),
        db_size: i64::try_from(size).unwrap_or(i64::MAX),
        leader: status.log.leader.unwrap_or_default().0,
        raft_index: status.log.committed.0,
        raft_term: status.log.epoch.0,
        raft_applied_index: status.applied.0,
        errors,
        db_size_in_use: i64::try_from(in_use).unwrap_or(i64::MAX),
        is_learner,
    }
}

fn alarm<P: ReplicatedLog + 'static>(member: &Member<P>, message: Bytes) -> Result<AlarmResponse, Refusal> {
    let request: AlarmRequest = decode(message)?;
    match AlarmAction::try_from(request.action) {
        Ok(AlarmAction::Get | AlarmAction::Deactivate) => {
            Ok(AlarmResponse { header: Some(header(member)), alarms: Vec::new() })
        }
        _ => Err(Refusal::new(
            Code::Unimplemented,
            "alarms cannot be raised by hand here: a member with a full disk refuses writes until it has room",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_offered_is_named() {
        assert_eq!(Method::of("/etcdserverpb.KV/Put"), Ok(Method::Write(CommandKind::Put)));
        for (path, expected) in [
            ("/etcdserverpb.Watch/Watch", "watches are not offered"),
            ("/etcdserverpb.Maintenance/Snapshot", "/etcdserverpb.Maintenance/Snapshot is not offered"),
            ("/nonsense", "/nonsense is not offered"),
        ] {
            let refusal = Method::of(path).expect_err("not offered");
            assert_eq!(refusal.code, Code::Unimplemented);
            assert!(refusal.message.contains(expected), "{refusal}");
        }
    }
}
