//! The state machine on top of the log.

use bytes::Bytes;
use synod_protocols::log::Index;

/// What a replicated log drives. Applying the same commands in the same order gives the same state
/// and the same responses on every member.
///
/// Its storage need not sync: what [`StateMachine::commit`] stored may be lost by a crash as long as
/// commands and metadata are lost together, because the log replays them.
pub trait StateMachine {
    /// What a client may ask without changing anything.
    type Query: std::fmt::Debug;
    /// What it is told.
    type Answer: std::fmt::Debug;
    /// What the client of a command is told.
    type Response: std::fmt::Debug;
    /// A failure of the storage below; the member stops.
    type Error: std::fmt::Display;

    /// Applies a committed command. A command that makes no sense is answered in the response,
    /// never by an error.
    fn apply(&mut self, index: Index, command: Bytes) -> Result<Self::Response, Self::Error>;

    /// Answers from the state as applied, whether or not that was committed to storage yet.
    fn query(&mut self, query: Self::Query) -> Result<Self::Answer, Self::Error>;

    /// What the last successful commit stored for the node.
    fn metadata(&self) -> Result<Option<Bytes>, Self::Error>;

    /// Stores what was applied since the last commit, together with `metadata`, atomically.
    fn commit(&mut self, metadata: Bytes) -> Result<(), Self::Error>;
}
