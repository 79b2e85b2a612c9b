//! Asking a replica, from any thread.

use super::StateMachine;
use super::service::{Ask, Waiter};
use crate::config::Config;
use crate::members::{MemberInfo, is_pair_of_addresses};
use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use synod_node::{Change, ClientError, Request};
use synod_protocols::NodeId;
use synod_protocols::log::{ChangeRefusal, Epoch, MembershipChange, Role};
use tokio::sync::{mpsc, oneshot, watch};

/// Asks a replica. It can be cloned and sent to any thread, and outlives the replica: then everything is refused.
///
/// Every question is asked at once, in the order of the calls, and gives a [`Pending`] answer: `.await` it, or
/// [`Pending::wait`] for it.
pub struct Handle<M: StateMachine> {
    asks: mpsc::UnboundedSender<Ask<M>>,
    standing: watch::Receiver<Standing>,
    under_way: Arc<AtomicUsize>,
    under_way_max: usize,
    command_bytes_max: usize,
}

impl<M: StateMachine> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Handle {
            asks: self.asks.clone(),
            standing: self.standing.clone(),
            under_way: Arc::clone(&self.under_way),
            ..*self
        }
    }
}

impl<M: StateMachine> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("standing", &*self.standing.borrow()).finish_non_exhaustive()
    }
}

/// The replica's ends of what its handles hold.
pub(super) struct Inlet<M: StateMachine> {
    pub(super) asks: mpsc::UnboundedReceiver<Ask<M>>,
    pub(super) standing: watch::Sender<Standing>,
}

pub(super) fn open<M: StateMachine>(config: &Config) -> (Handle<M>, Inlet<M>) {
    let (ask, asks) = mpsc::unbounded_channel();
    let nothing = Standing { role: Role::Follower, term: Epoch::default(), leader: None };
    let (tell, standing) = watch::channel(nothing);
    let handle = Handle {
        asks: ask,
        standing,
        under_way: Arc::default(),
        under_way_max: config.requests_max,
        command_bytes_max: usize::try_from(config.request_size_max).unwrap_or(usize::MAX),
    };
    (handle, Inlet { asks, standing: tell })
}

/// The part that a replica plays, and whom it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// Its part.
    pub role: Role,
    /// The term, or what orders leaders in the protocol.
    pub term: Epoch,
    /// The leader it knows, itself included.
    pub leader: Option<NodeId>,
}

impl<M: StateMachine> Handle<M> {
    /// Proposes a command, of up to `Config::request_size_max` bytes. Any member takes it, and passes it on to the
    /// leader. The response comes when this member has applied it, which is after a majority has it on disk.
    pub fn propose(&self, command: impl Into<Bytes>) -> Pending<M::Response> {
        let command = command.into();
        if command.len() > self.command_bytes_max {
            return Pending::refused(RequestError::TooLarge { bytes_max: self.command_bytes_max });
        }
        self.ask(Request::Command(command), Waiter::Response)
    }

    /// A linearizable read: it sees every command that was answered, by any member, before it was asked.
    pub fn read(&self, query: M::Query) -> Pending<M::Answer> {
        self.ask(Request::Read(query), Waiter::Answer)
    }

    /// A read of this member's own state: it was the state of all at some time, and may be old. It needs no majority.
    pub fn read_local(&self, query: M::Query) -> Pending<M::Answer> {
        self.ask(Request::LocalRead(query), Waiter::Answer)
    }

    /// Who the members are, as this one knows.
    pub fn members(&self) -> Pending<Vec<MemberInfo>> {
        self.ask(Request::Members, Waiter::Members)
    }

    /// Adds a member which peers will reach at `addresses`: `host:port`, and behind a comma where the program's own
    /// clients reach it, if that is worth telling. The answer names it: start it with [`Builder::joined`](super::Builder::joined) and an empty
    /// directory. It votes of its own accord once it has caught up.
    pub fn add_member(&self, addresses: &str) -> Pending<MemberInfo> {
        self.add(addresses, true)
    }

    /// As [`Handle::add_member`], of one that receives everything and does not vote before [`Handle::promote`].
    pub fn add_learner(&self, addresses: &str) -> Pending<MemberInfo> {
        self.add(addresses, false)
    }

    fn add(&self, addresses: &str, promote: bool) -> Pending<MemberInfo> {
        if !is_pair_of_addresses(addresses) {
            let why = format!("{addresses:?} is no address: write host:port, as in 127.0.0.1:7004");
            return Pending::refused(RequestError::Change(why));
        }
        // The leader chooses an id that was never used.
        let (id, context) = (NodeId(0), Bytes::copy_from_slice(addresses.as_bytes()));
        self.ask(change(MembershipChange::Add { id, context, promote }), Waiter::Added)
    }

    /// Makes a learner a voter.
    pub fn promote(&self, member: NodeId) -> Pending<Vec<MemberInfo>> {
        self.ask(change(MembershipChange::Promote(member)), Waiter::Members)
    }

    /// Removes a member. It stops by itself when it hears of it; its directory is of no more use.
    pub fn remove_member(&self, member: NodeId) -> Pending<Vec<MemberInfo>> {
        self.ask(change(MembershipChange::Remove(member)), Waiter::Members)
    }

    /// Lets exactly these members vote, in one step: learners among them become voters, and voters that are not among
    /// them leave.
    pub fn replace_voters(&self, voters: Vec<NodeId>) -> Pending<Vec<MemberInfo>> {
        self.ask(change(MembershipChange::Replace(voters)), Waiter::Members)
    }

    /// Lets another member lead: this one, or whoever is best placed.
    pub fn transfer_leadership(&self, to: Option<NodeId>) -> Pending<Vec<MemberInfo>> {
        self.ask(Request::Change(Change::Transfer(to)), Waiter::Members)
    }

    /// The part that the replica plays at this moment.
    pub fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// Follows the part that the replica plays, from now on.
    pub fn watch(&self) -> Watch {
        Watch(self.standing.clone())
    }

    fn ask<T>(
        &self,
        request: Request<M::Query>,
        waiter: impl FnOnce(oneshot::Sender<Result<T, RequestError>>) -> Waiter<M>,
    ) -> Pending<T> {
        if self.under_way.load(Ordering::Relaxed) >= self.under_way_max {
            return Pending::refused(RequestError::Busy);
        }
        let (tell, told) = oneshot::channel();
        let counted = Counted::new(&self.under_way);
        // Where nobody takes it any more, the sender is dropped, and the answer is that the member has stopped.
        let _ = self.asks.send(Ask { request, waiter: waiter(tell), _counted: counted });
        Pending(told)
    }
}

fn change<Q>(change: MembershipChange) -> Request<Q> {
    Request::Change(Change::Members(change))
}

/// Counts a request for as long as it is under way.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Counted {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer that is on its way: a future for tasks of any runtime, with [`Pending::wait`] for threads.
///
/// Dropping it does not take the question back.
#[derive(Debug)]
#[must_use = "an answer that nobody waits for says nothing about what became of the question"]
pub struct Pending<T>(oneshot::Receiver<Result<T, RequestError>>);

impl<T> Pending<T> {
    fn refused(why: RequestError) -> Self {
        let (tell, told) = oneshot::channel();
        let _ = tell.send(Err(why));
        Pending(told)
    }

    /// Waits for the answer on this thread, for `Config::request_timeout` at the most.
    ///
    /// # Errors
    /// [`RequestError`].
    ///
    /// # Panics
    /// Inside an asynchronous runtime: there, `.await` it.
    pub fn wait(self) -> Result<T, RequestError> {
        self.0.blocking_recv().unwrap_or(Err(RequestError::Stopped))
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, RequestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|told| told.unwrap_or(Err(RequestError::Stopped)))
    }
}

/// Follows the part that a replica plays. Of changes in quick succession only the last may be seen.
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<Standing>);

impl Watch {
    /// The next change; none once the replica has stopped.
    pub async fn changed(&mut self) -> Option<Standing> {
        self.0.changed().await.ok()?;
        Some(*self.0.borrow_and_update())
    }

    /// Waits on this thread until the replica stands as `is` says, which may be so already; none if that does not come
    /// about in time, or the replica has stopped.
    ///
    /// # Panics
    /// Inside an asynchronous runtime: there, use [`Watch::changed`].
    pub fn wait(&mut self, at_most: Duration, is: impl FnMut(&Standing) -> bool) -> Option<Standing> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?;
        runtime.block_on(async {
            let reached = tokio::time::timeout(at_most, self.0.wait_for(is)).await;
            reached.ok()?.ok().map(|standing| *standing)
        })
    }
}

/// Why a question was not answered. Each is one line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It was not done: nobody leads, or nobody that can be reached.
    #[error(
        "nothing was done: no leader is known. Ask again; if this lasts, see that a majority of the members run and can \
         reach each other"
    )]
    NoLeader,
    /// It was not done: too much is under way.
    #[error(
        "nothing was done: too many requests are under way. Wait for answers before asking for more, or raise \
         requests_max and request_buffer"
    )]
    Busy,
    /// It was not done: the disk of this member, or of the leader, is full or damaged.
    #[error(
        "nothing was done: a disk is full or damaged, see the members' lines. Free some space, and ask again"
    )]
    Storage,
    /// It was not done: the command is too large.
    #[error(
        "nothing was done: the command is larger than {bytes_max} bytes. Split it, or raise request_size_max on all members"
    )]
    TooLarge {
        /// The largest that is taken, in bytes.
        bytes_max: usize,
    },
    /// No answer came in time. A read has read nothing; **a command or a change may take effect, or not, or later**.
    #[error(
        "no answer came in time: a command may or may not take effect. Read whether it has, or make commands such that \
         one that is proposed twice does no harm"
    )]
    TimedOut,
    /// It was not done: the protocol cannot do it.
    #[error(
        "nothing was done: the consensus protocol of this cluster cannot do that. Raft and Zab change their members"
    )]
    Unsupported,
    /// The change of members was not made.
    #[error("the members were not changed: {0}")]
    Change(String),
    /// The member has stopped. What was asked before **may take effect, or not**: see [`Replica::wait`](super::Replica::wait) for why.
    #[error("this member has stopped: what was asked of it may or may not take effect. Ask another one")]
    Stopped,
}

impl RequestError {
    /// Whether it is certain that a command or a change has no effect, now or later: then it can be asked for again
    /// without the danger that it is done twice.
    pub fn is_surely_not_done(&self) -> bool {
        !matches!(self, RequestError::TimedOut | RequestError::Stopped)
    }

    /// As the node says it.
    pub(super) fn of(error: ClientError, command_bytes_max: usize) -> RequestError {
        match error {
            ClientError::NoLeader => RequestError::NoLeader,
            ClientError::Busy => RequestError::Busy,
            ClientError::Storage => RequestError::Storage,
            ClientError::TooLarge => RequestError::TooLarge { bytes_max: command_bytes_max },
            ClientError::Timeout => RequestError::TimedOut,
            ClientError::Unsupported => RequestError::Unsupported,
            ClientError::Change(why) => RequestError::Change(in_words(why)),
        }
    }
}

fn in_words(why: ChangeRefusal) -> String {
    match why {
        ChangeRefusal::InProgress => "another change is under way: wait for it".to_owned(),
        ChangeRefusal::NotYet => "the leader has only just come into office: ask again".to_owned(),
        ChangeRefusal::Unknown(id) => format!("there is no {id}"),
        ChangeRefusal::AlreadyMember(id) => format!("{id} has that part already"),
        ChangeRefusal::IdUsed { highest } => {
            format!("numbers are never used twice, and {highest} was the highest")
        }
        ChangeRefusal::NotCaughtUp(id) => format!("{id} lacks too much of the log to vote: wait"),
        ChangeRefusal::WouldLoseQuorum => {
            "of the voters that there would be, too few can be reached: start or remove others first"
                .to_owned()
        }
        ChangeRefusal::Size => "there would be no voter left, or more members than are allowed".to_owned(),
        ChangeRefusal::CannotLead(id) => format!("{id} does not vote, cannot be reached, or was too slow"),
    }
}
