//! One trait, several hosts.

use crate::fingerprint::Fingerprint;
use crate::types::{LinkSession, NodeId, Time};
use crate::wire::Wire;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

/// A participant of a protocol: deterministic, single-threaded, no I/O.
///
/// The same inputs give the same effects, byte for byte, on every machine.
pub trait Process: Clone + Sized {
    /// What its owner decides: identity, members, timeouts, limits, the seed of its randomness.
    type Config: Clone + Debug;
    /// What it says to peers, and to itself.
    type Message: Clone + Debug + Wire + Describe;
    /// What it makes durable.
    type Record: Clone + Debug + Wire + Describe;
    /// What its host asks of it.
    type Request: Clone + Debug;
    /// What it asks of its host.
    type Ask: Clone + Debug;
    /// What its host answers.
    type Answer: Clone + Debug;
    /// What it tells its host.
    type Event: Clone + Debug;
    /// What the host's own durable state covers, beside the records (an applied index, say).
    type Base: Clone + Debug + Default;

    /// A process from what its disk held. Records are consumed in the order in which they were
    /// emitted. Effects may be emitted at once, under the durability rule.
    fn recover(
        config: Self::Config,
        from: Recovery<'_, Self::Record>,
        base: Self::Base,
        now: Time,
        out: &mut Effects<Self>,
    ) -> Self;

    /// The one way in. It cannot fail: malformed or hostile input is ignored and counted.
    /// `now` never goes back between two steps.
    fn step(&mut self, now: Time, input: Input<Self>, out: &mut Effects<Self>);

    /// When it next wants [`Input::Timeout`]. A stale or early timeout is harmless.
    fn deadline(&self) -> Option<Time>;

    /// Feeds everything that decides future behaviour into `digest`, except generators and
    /// counters, with times relative to `now`, so that exploration can recognise a state.
    fn fingerprint(&self, now: Time, digest: &mut Fingerprint);
}

/// A process that can say in few records what all its records so far say, so that whoever keeps them need not keep them all.
pub trait Checkpoint: Process {
    /// Records that give the same process as all that it has emitted, except for what the recovery itself begins.
    fn checkpoint(&self) -> Vec<Self::Record>;
}

/// What a disk held when its member started.
pub enum Recovery<'a, R> {
    /// The first start of a founding member: there is nothing to recover. A blank disk under an
    /// old identity is not a first start; telling the two apart is the host's duty.
    First,
    /// The first start of a member that joins an existing cluster, and may not vote before the
    /// cluster has taken it in.
    Join,
    /// The records of earlier lives, all readable.
    Resume {
        /// In the order in which they were emitted.
        records: &'a mut dyn Iterator<Item = R>,
    },
    /// As `Resume`, but some records that may have been acknowledged are unreadable: the process
    /// must not act as if they had never been (protocol-aware recovery, FAST'18).
    Damaged {
        /// In the order in which they were emitted; `None` stands for one or more that are lost.
        records: &'a mut dyn Iterator<Item = Option<R>>,
    },
}

/// One thing that happens to a process.
#[derive(Debug)]
pub enum Input<P: Process> {
    /// A message from a peer, or from itself (`from` is its own id) after the sync that it waited for.
    Message {
        /// The sender, as the host authenticated it.
        from: NodeId,
        /// The message.
        message: P::Message,
    },
    /// A connection to `peer` exists, with a larger number than any before it.
    LinkUp {
        /// The peer.
        peer: NodeId,
        /// The number of the connection.
        session: LinkSession,
    },
    /// The connection to `peer` is lost: messages sent on it may or may not have arrived.
    LinkDown {
        /// The peer.
        peer: NodeId,
    },
    /// A request of the host's.
    Request(P::Request),
    /// The answer to something that the process asked of its host.
    Answer(P::Answer),
    /// The disk failed in a way that it may recover from.
    StorageFault(StorageFault),
    /// The deadline has passed.
    Timeout,
}

impl<P: Process> Clone for Input<P> {
    fn clone(&self) -> Self {
        match self {
            Input::Message { from, message } => Input::Message { from: *from, message: message.clone() },
            Input::LinkUp { peer, session } => Input::LinkUp { peer: *peer, session: *session },
            Input::LinkDown { peer } => Input::LinkDown { peer: *peer },
            Input::Request(request) => Input::Request(request.clone()),
            Input::Answer(answer) => Input::Answer(answer.clone()),
            Input::StorageFault(fault) => Input::StorageFault(*fault),
            Input::Timeout => Input::Timeout,
        }
    }
}

/// A fault of the disk that leaves the member running. A sync that failed is not one of them:
/// what it covered is unknown, so the host must stop the member and recover from disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageFault {
    /// No room for more records: nothing new may be promised until there is.
    Full,
    /// There is room again.
    Cleared,
}

/// When an effect may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// When every record emitted before it, its own step's included, is durable.
    Held,
    /// At once.
    Early,
}

/// A message on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send<M> {
    /// To whom; the process's own id asks the host to return it after the sync.
    pub to: NodeId,
    /// What.
    pub message: M,
    /// When.
    pub release: Release,
}

/// An event on its way to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit<E> {
    /// What.
    pub event: E,
    /// When.
    pub release: Release,
}

/// What one step wants done.
///
/// An effect is marked *early* only where it stays true although its sender crashes and forgets
/// every record that was not synced. For a message this needs that a restarted sender can never
/// again propose under the same term, ballot, epoch or view; for an event, that it speaks of what
/// a quorum's disks hold and not of what this one is about to. Every use carries its argument.
/// An early message never overtakes a held one to the same peer: the host sees to it.
///
/// Hosts reuse one value for many steps: [`Effects::clear`] keeps its memory.
#[derive(Clone, Debug)]
pub struct Effects<P: Process> {
    /// To make durable, in order.
    pub records: Vec<P::Record>,
    /// To send, in order.
    pub sends: Vec<Send<P::Message>>,
    /// For the host, in order.
    pub events: Vec<Emit<P::Event>>,
    /// Asked of the host, in order; these do not wait for records.
    pub asks: Vec<P::Ask>,
}

impl<P: Process> Default for Effects<P> {
    fn default() -> Self {
        Effects { records: Vec::new(), sends: Vec::new(), events: Vec::new(), asks: Vec::new() }
    }
}

impl<P: Process> Effects<P> {
    /// Nothing to do.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `record` durable.
    pub fn record(&mut self, record: P::Record) {
        self.records.push(record);
    }

    /// Sends under the durability rule.
    pub fn send(&mut self, to: NodeId, message: P::Message) {
        self.sends.push(Send { to, message, release: Release::Held });
    }

    /// Sends at once. The caller states why that is safe.
    pub fn send_early(&mut self, to: NodeId, message: P::Message) {
        self.sends.push(Send { to, message, release: Release::Early });
    }

    /// Tells the host under the durability rule.
    pub fn event(&mut self, event: P::Event) {
        self.events.push(Emit { event, release: Release::Held });
    }

    /// Tells the host at once. The caller states why that is safe.
    pub fn event_early(&mut self, event: P::Event) {
        self.events.push(Emit { event, release: Release::Early });
    }

    /// Asks the host.
    pub fn ask(&mut self, ask: P::Ask) {
        self.asks.push(ask);
    }

    /// Whether the step did nothing.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.sends.is_empty() && self.events.is_empty() && self.asks.is_empty()
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.records.clear();
        self.sends.clear();
        self.events.clear();
        self.asks.clear();
    }
}

/// How a message or record is shown to people.
pub trait Describe {
    /// Its kind in the field's own word, such as `AppendEntries`.
    fn name(&self) -> &'static str;

    /// Its fields on one line, such as `term 3, after 5@2, 3 entries, commit 5`.
    fn detail(&self) -> String;
}
