//! Effects that wait for the disk: the durability rule, enforced.
//!
//! Every held effect waits for the frame that holds the last record emitted before it. Messages to
//! one peer leave in the order in which they were emitted, early ones too: an early message behind
//! a held one to the same peer waits with it.

use std::collections::VecDeque;
use synod_protocols::log::ReplicatedLog;
use synod_protocols::{NodeId, Process, Release};

/// A held effect that stays on this member.
#[derive(Debug)]
pub(crate) enum Local<P: Process> {
    /// A message of the process to itself.
    Return(P::Message),
    /// An event for the host.
    Event(P::Event),
}

/// The messages that wait for one peer, each with the frame that it waits for.
#[derive(Debug)]
struct PeerQueue<M> {
    peer: NodeId,
    messages: VecDeque<(u64, M)>,
}

/// The effects that wait. Their number is bounded by the windows of the protocol.
#[derive(Debug)]
pub(crate) struct Held<P: ReplicatedLog> {
    peers: Vec<PeerQueue<P::Message>>,
    local: VecDeque<(u64, Local<P>)>,
    waiting: usize,
}

impl<P: ReplicatedLog> Default for Held<P> {
    fn default() -> Self {
        Held { peers: Vec::new(), local: VecDeque::new(), waiting: 0 }
    }
}

impl<P: ReplicatedLog> Held<P> {
    /// Takes a message that was emitted when `emitted` was the last frame and `durable` the last
    /// one synced; gives it back if it may leave now.
    pub(crate) fn send(
        &mut self,
        to: NodeId,
        message: P::Message,
        release: Release,
        emitted: u64,
        durable: u64,
    ) -> Option<P::Message> {
        let may_leave = release == Release::Early || emitted <= durable;
        let queue = match self.peers.iter_mut().find(|queue| queue.peer == to) {
            Some(queue) => queue,
            None if may_leave => return Some(message),
            None => {
                self.peers.push(PeerQueue { peer: to, messages: VecDeque::new() });
                self.peers.last_mut().expect("just added")
            }
        };
        let gate = match queue.messages.back() {
            None if may_leave => return Some(message),
            None => emitted,
            Some((gate, _)) if may_leave => *gate,
            Some((gate, _)) => emitted.max(*gate),
        };
        queue.messages.push_back((gate, message));
        self.waiting += 1;
        None
    }

    /// As [`Held::send`], for what stays on this member. An early event waits behind held ones,
    /// so that events keep their order.
    pub(crate) fn keep(
        &mut self,
        local: Local<P>,
        release: Release,
        emitted: u64,
        durable: u64,
    ) -> Option<Local<P>> {
        let may_leave = release == Release::Early || emitted <= durable;
        let gate = match self.local.back() {
            None if may_leave => return Some(local),
            None => emitted,
            Some((gate, _)) if may_leave => *gate,
            Some((gate, _)) => emitted.max(*gate),
        };
        self.local.push_back((gate, local));
        self.waiting += 1;
        None
    }

    /// Hands over the messages to peers that may leave now that `durable` is synced.
    pub(crate) fn release_sends(&mut self, durable: u64, mut send: impl FnMut(NodeId, P::Message)) {
        if self.waiting == self.local.len() {
            return;
        }
        for queue in &mut self.peers {
            while queue.messages.front().is_some_and(|(gate, _)| *gate <= durable) {
                let (_, message) = queue.messages.pop_front().expect("just seen");
                self.waiting -= 1;
                send(queue.peer, message);
            }
        }
    }

    /// The next thing that stays on this member and may be handled now.
    pub(crate) fn next_local(&mut self, durable: u64) -> Option<Local<P>> {
        if self.local.front()?.0 > durable {
            return None;
        }
        self.waiting -= 1;
        self.local.pop_front().map(|(_, local)| local)
    }

    /// Drops the messages that wait for a peer whose connection ended: they belong to it, and are
    /// lost with it.
    pub(crate) fn forget(&mut self, peer: NodeId) {
        if let Some(queue) = self.peers.iter_mut().find(|queue| queue.peer == peer) {
            self.waiting -= queue.messages.len();
            queue.messages.clear();
        }
    }
}
