//! The state machine on top of the log.

use bytes::Bytes;
use synod_protocols::log::{Index, Ticket};

/// What a state machine stores for the node beside its own data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The same on all members that have applied as much.
    pub replicated: Bytes,
    /// This member's own.
    pub own: Bytes,
}

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// In the state machine's own encoding.
    pub bytes: Bytes,
    /// Where the next part begins, in words of the state machine's own; none if this is the last.
    pub next: Option<Bytes>,
}

/// What a replicated log drives. Applying the same commands in the same order gives the same state
/// and the same responses on every member.
///
/// Its storage need not sync: what [`StateMachine::commit`] stored may be lost by a crash as long as
/// commands and metadata are lost together and the later commits first, because the log replays
/// them. Before the log is cut the node asks for more, by [`StateMachine::persist`].
pub trait StateMachine {
    /// What a client may ask without changing anything.
    type Query: std::fmt::Debug + Clone;
    /// What it is told.
    type Answer: std::fmt::Debug;
    /// What the client of a command is told.
    type Response: std::fmt::Debug;
    /// A failure of the storage below; the member stops.
    type Error: std::fmt::Display;
    /// The state as one commit left it, kept aside to be sent to a peer.
    type View;

    /// Applies a committed command. A command that makes no sense is answered in the response,
    /// never by an error.
    fn apply(&mut self, index: Index, command: Bytes) -> Result<Self::Response, Self::Error>;

    /// Answers from the state as applied, whether or not that was committed to storage yet.
    fn query(&mut self, query: Self::Query) -> Result<Self::Answer, Self::Error>;

    /// What the last successful commit, or the last snapshot installed, stored for the node.
    fn metadata(&self) -> Result<Option<Stored>, Self::Error>;

    /// Stores what was applied since the last commit, together with what the node wants stored, atomically.
    fn commit(&mut self, stored: Stored) -> Result<(), Self::Error>;

    /// Begins to make everything durable that was committed so far, and does not wait for it. The
    /// host says when it is done, by [`Input::Persisted`](crate::Input::Persisted) with this ticket;
    /// how it learns of that is between the two. One is under way at a time.
    fn persist(&mut self, ticket: Ticket) -> Result<(), Self::Error>;

    /// The host has said so.
    fn persisted(&mut self, _ticket: Ticket) {}

    /// The state as of the last commit, which later ones do not change. A few exist at the most.
    fn view(&mut self) -> Result<Self::View, Self::Error>;

    /// The part of a view that begins at `from`, where empty means its beginning: of about
    /// `bytes_max` bytes, and at the least one item. The same question gets the same answer.
    fn read(&self, view: &Self::View, from: &Bytes, bytes_max: usize) -> Result<Part, Self::Error>;

    /// Keeps a part of another member's view beside the present state, which goes on serving. Parts
    /// come in order; the first one ends what was staged before. The inner error says why the bytes
    /// are not a part that [`StateMachine::read`] made.
    fn stage(&mut self, first: bool, part: Bytes) -> Result<Result<(), String>, Self::Error>;

    /// Forgets what was staged.
    fn unstage(&mut self);

    /// Puts what was staged in the place of the state, together with what the node wants stored.
    /// When it returns that is durable; a crash before leaves the old state or the new one, whole.
    /// A [`StateMachine::persist`] under way is over, and the host need not answer it.
    fn install(&mut self, stored: Stored) -> Result<(), Self::Error>;
}
