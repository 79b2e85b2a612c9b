//! Effects that wait for the disk: the durability rule, enforced.
//!
//! Every held effect waits for the frame that holds the last record emitted before it. Messages to
//! one peer leave in the order in which they were emitted, early ones too: an early message behind
//! a held one to the same peer waits with it.

use std::collections::VecDeque;
use synod_protocols::{NodeId, Process, Release};

/// The messages that wait for one peer, each with the frame that it waits for.
#[derive(Debug)]
struct PeerQueue<M> {
    peer: NodeId,
    messages: VecDeque<(u64, M)>,
}

/// The effects that wait. Their number is bounded by the windows of the protocol.
#[derive(Debug)]
pub(crate) struct Held<P: Process> {
    peers: Vec<PeerQueue<P::Message>>,
    /// Messages in `peers`.
    sends: usize,
    /// Messages of the process to itself.
    returns: VecDeque<(u64, P::Message)>,
    events: VecDeque<(u64, P::Event)>,
}

/// A held effect that stays on this member, and whose time has come.
#[derive(Debug)]
pub(crate) enum Local<P: Process> {
    /// A message of the process to itself.
    Return(P::Message),
    /// An event for the host.
    Event(P::Event),
}

impl<P: Process> Default for Held<P> {
    fn default() -> Self {
        Held { peers: Vec::new(), sends: 0, returns: VecDeque::new(), events: VecDeque::new() }
    }
}

impl<P: Process> Held<P> {
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
            Some((gate, _)) if may_leave => *gate,
            _ => emitted,
        };
        queue.messages.push_back((gate, message));
        self.sends += 1;
        None
    }

    /// As [`Held::send`], for a message of the process to itself. To itself it never sends early:
    /// what it counts must be durable.
    pub(crate) fn give_back(
        &mut self,
        message: P::Message,
        emitted: u64,
        durable: u64,
    ) -> Option<P::Message> {
        if emitted <= durable && self.returns.is_empty() {
            return Some(message);
        }
        self.returns.push_back((emitted, message));
        None
    }

    /// As [`Held::send`], for an event. An early one waits behind held ones, so that events keep
    /// their order.
    pub(crate) fn emit(
        &mut self,
        event: P::Event,
        release: Release,
        emitted: u64,
        durable: u64,
    ) -> Option<P::Event> {
        let may_leave = release == Release::Early || emitted <= durable;
        let gate = match self.events.back() {
            None if may_leave => return Some(event),
            Some((gate, _)) if may_leave => *gate,
            _ => emitted,
        };
        self.events.push_back((gate, event));
        None
    }

    /// Hands over the messages to peers that may leave now that `durable` is synced.
    pub(crate) fn release_sends(&mut self, durable: u64, mut send: impl FnMut(NodeId, P::Message)) {
        if self.sends == 0 {
            return;
        }
        for queue in &mut self.peers {
            while queue.messages.front().is_some_and(|(gate, _)| *gate <= durable) {
                let (_, message) = queue.messages.pop_front().expect("just seen");
                self.sends -= 1;
                send(queue.peer, message);
            }
        }
    }

    /// The next thing that stays on this member and may be handled now.
    pub(crate) fn next_local(&mut self, durable: u64) -> Option<Local<P>> {
        let event = self.events.front().map_or(u64::MAX, |(gate, _)| *gate);
        let message = self.returns.front().map_or(u64::MAX, |(gate, _)| *gate);
        if event.min(message) > durable {
            None
        } else if event <= message {
            self.events.pop_front().map(|(_, event)| Local::Event(event))
        } else {
            self.returns.pop_front().map(|(_, message)| Local::Return(message))
        }
    }

    /// Drops the messages that wait for a peer whose connection ended: they belong to it, and are
    /// lost with it.
    pub(crate) fn forget(&mut self, peer: NodeId) {
        if let Some(queue) = self.peers.iter_mut().find(|queue| queue.peer == peer) {
            self.sends -= queue.messages.len();
            queue.messages.clear();
        }
    }
}
