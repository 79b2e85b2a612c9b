//! Causal and eventual keyspaces: a process of their own at every member, with a log of its own.
//!
//! ```text
//!   registry (state machine) ─► host ─► WeakNode ─► disk thread, DIR/keyspaces/ID/
//!   HTTP ─ write, read ────────► inbox ─► │  ▲
//!   peers ─ frames of kind 4 ──► inbox ───┘  └── queues ─► the same connections to peers
//! ```
//!
//! Everything happens on the member's thread, in its turns; only the logs' thread writes and syncs. What a peer's
//! connection suffers, these messages suffer as well, faults on purpose included.

mod disk;
mod figures;
mod host;
mod lived;
mod queues;
mod replica;
pub(crate) mod roster;
mod wall;

pub(crate) use disk::Replied;
pub(crate) use host::Weak;

use crate::calls::Calls;
use crate::member::{Event, Member};
use bytes::Bytes;
use host::Waiting;
use std::rc::Rc;
use std::time::Duration;
use synod_node::spaces::Space;
use synod_protocols::log::{ReplicatedLog, Ticket};
use synod_protocols::weak::{self, Content, Name, Refusal, Request, Timing, Write};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Of all replicas. Parts of a large answer may take their time.
const TIMING: Timing = Timing {
    gossip: Duration::from_millis(100),
    wait_max: Duration::from_secs(2),
    skew_max: Duration::from_secs(10),
    pull_max: Duration::from_secs(5),
};

/// Why a request to a weak keyspace was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WeakError {
    /// Nothing was done.
    Refused(Refusal),
    /// The member stops: whether it was done is not known.
    Stopped,
    /// The keyspace has not started at this member yet, or was dropped meanwhile.
    NotHere,
    /// The disk did not answer in time: whether it was done is not known.
    TimedOut,
}

/// One update at this member. The token is the session's latest one; the answer's is its next one (none at the eventual
/// level).
pub(crate) async fn write<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    space: &Space,
    token: Option<Bytes>,
    writes: Vec<Write>,
) -> Result<Option<Bytes>, WeakError> {
    match ask(member, space, |ticket| Request::Write { ticket, token, writes }).await? {
        weak::Event::Written { token, .. } => Ok(token),
        weak::Event::Refused { why, .. } => Err(WeakError::Refused(why)),
        _ => unreachable!("a write is answered in kind"),
    }
}

/// Reads objects, all at one moment, at this member.
pub(crate) async fn read<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P>>,
    space: &Space,
    token: Option<Bytes>,
    names: Vec<Name>,
) -> Result<(Vec<Content>, Option<Bytes>), WeakError> {
    match ask(member, space, |ticket| Request::Read { ticket, token, names }).await? {
        weak::Event::Read { contents, token, .. } => Ok((contents, token)),
        weak::Event::Refused { why, .. } => Err(WeakError::Refused(why)),
        _ => unreachable!("a read is answered in kind"),
    }
}

/// What this member shows now, without a session: names after `after` whose keys begin with `prefix`, `max` at the most.
pub(crate) fn list<P: ReplicatedLog + 'static>(
    member: &Member<P>,
    space: &Space,
    prefix: &[u8],
    after: Option<&Name>,
    max: usize,
) -> Vec<(Name, Content)> {
    let core = member.core.borrow();
    let hosted = core.weak.hosted.get(&space.id);
    hosted.map(|hosted| hosted.replica.list(prefix, after, max)).unwrap_or_default()
}

/// Puts a request to a keyspace's replica and waits for what it tells.
async fn ask<P: ReplicatedLog + 'static>(
    member: &Rc<Member<P, Calls>>,
    space: &Space,
    request: impl FnOnce(Ticket) -> Request,
) -> Result<weak::Event, WeakError> {
    if member.is_stopping() {
        return Err(WeakError::Stopped);
    }
    let (tell, told) = oneshot::channel();
    let ticket = {
        let weak = &mut member.core.borrow_mut().weak;
        if !weak.hosted.contains_key(&space.id) {
            return Err(WeakError::NotHere);
        }
        if weak.waiting.len() >= member.config.requests_max {
            return Err(WeakError::Refused(Refusal::Busy));
        }
        weak.wait(Waiting { space: space.id, tell })
    };
    member.tell(Event::Weak { space: space.id, request: request(ticket) });
    match timeout(member.config.request_timeout, told).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(WeakError::Stopped),
        Err(_) => {
            member.core.borrow_mut().weak.waiting.remove(&ticket);
            Err(WeakError::TimedOut)
        }
    }
}
