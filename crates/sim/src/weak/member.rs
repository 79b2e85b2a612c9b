//! A member of any level, as the world has it.

use super::Level;
use super::faults::Alarm;
use super::note::Note;
use crate::small::{Host, Stage};
use synod_protocols::Process;
use synod_protocols::types::NodeId;
use synod_protocols::weak::{Content, Event, Name, Request};

/// A member of any level.
pub(super) trait Member:
    Process<Request = Request, Event = Event, Ask = (), Answer = (), Base = ()> + 'static
{
    /// A configuration for a life.
    fn configured(start: Start) -> Self::Config;
    /// What it shows of a key.
    fn content(&self, name: &Name) -> Content;
    /// Whether it is one of those that must come to show the same.
    fn counts(&self) -> bool;
    /// Whether it and another have nothing more to tell each other.
    fn agrees_with(&self, other: &Self) -> bool;
}

/// What a life starts from.
#[derive(Clone)]
pub(super) struct Start {
    pub(super) level: Level,
    pub(super) id: NodeId,
    pub(super) founders: Vec<NodeId>,
    /// Counted from 1.
    pub(super) life: u64,
    pub(super) seed: u64,
    /// What its wall clock read when time began, in nanoseconds.
    pub(super) wall_at_zero: u64,
}

/// What all wall clocks read at first, in nanoseconds: some day.
pub(super) const TODAY: u64 = 1_000_000_000_000_000;

/// The members of one level on their machines.
pub(super) type Members<P> = Stage<Host<P>, Alarm, Note>;

/// A member whose lives start from `start`, each with a number and a seed of its own.
pub(super) fn host<P: Member>(start: Start) -> Host<P> {
    Host::new((), |event| event, lives::<P>(start))
}

pub(super) fn lives<P: Member>(start: Start) -> Box<dyn Fn(u64) -> P::Config> {
    let seed = start.seed.wrapping_mul(1_000_003) ^ (start.id.0 << 32);
    Box::new(move |life| P::configured(Start { life, seed: seed ^ life, ..start.clone() }))
}
