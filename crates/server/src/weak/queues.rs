//! Messages of weak keyspaces on their way to peers, a little at a time.
//!
//! A member that has been away for long, or is new, is sent whole keyspaces. Behind these the messages of the replicated
//! log would wait on the same connection. So no more than [`WINDOW_BYTES`] of a connection's queue are filled from here,
//! and the rest stays until the kernel has taken that.

use crate::events::{Events, Shown};
use crate::frame::{FRAME_BYTES_MAX, Kind};
use crate::peers::Link;
use std::collections::{BTreeMap, VecDeque};
use synod_node::spaces::SpaceId;
use synod_protocols::weak::Message;
use synod_protocols::{NodeId, Time, Wire};

/// Bytes that a connection may hold back before more are put into it.
const WINDOW_BYTES: usize = 1 << 20;
/// Bytes that wait for one peer at the most. What comes then is dropped, and repaired by anti-entropy.
const QUEUE_BYTES_MAX: usize = 256 << 20;
/// The same for updates, each of which is sent again when it is missed. (Of what is sent by anti-entropy all parts count
/// together.)
const UPDATES_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Default)]
struct Queue {
    /// With what watchers are told of it, if they are.
    frames: VecDeque<(Vec<u8>, Option<Shown>)>,
    bytes: usize,
}

/// See [the module](self).
#[derive(Debug, Default)]
pub(super) struct Queues {
    of: BTreeMap<NodeId, Queue>,
    /// Messages that were dropped for a bound, in this life.
    pub(super) dropped: u64,
}

impl Queues {
    /// Puts a message behind those that wait.
    pub(super) fn push(&mut self, to: NodeId, space: SpaceId, message: &Message, shown: Option<Shown>) {
        let mut body = Vec::new();
        space.encode(&mut body);
        message.encode(&mut body);
        let queue = self.of.entry(to).or_default();
        let bytes_max = match message {
            Message::Updates { .. } => UPDATES_BYTES_MAX,
            _ => QUEUE_BYTES_MAX,
        };
        if body.len() > FRAME_BYTES_MAX || queue.bytes + body.len() > bytes_max {
            self.dropped += 1;
            return;
        }
        queue.bytes += body.len();
        queue.frames.push_back((body, shown));
    }

    /// Moves as much into a peer's link as it should hold.
    pub(super) fn fill(&mut self, now: Time, link: &mut Link, events: &mut Events) {
        let Some(queue) = self.of.get_mut(&link.peer) else { return };
        if link.connection.is_none() {
            // They belong to a connection that is no more.
            *queue = Queue::default();
        }
        while link.held_bytes() < WINDOW_BYTES
            && let Some((frame, shown)) = queue.frames.pop_front()
        {
            queue.bytes -= frame.len();
            let kind = match shown {
                Some(shown) => {
                    events.weak_sent(now, link, shown);
                    Kind::WeakShown
                }
                None => Kind::Weak,
            };
            link.send(now, kind, |out| out.extend_from_slice(&frame));
        }
    }

    /// Whether something waits for this peer.
    pub(super) fn has(&self, peer: NodeId) -> bool {
        self.of.get(&peer).is_some_and(|queue| !queue.frames.is_empty())
    }

    /// The connection is lost, and with it what was to go over it.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.of.remove(&peer);
    }
}
