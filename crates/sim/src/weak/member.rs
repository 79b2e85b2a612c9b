//! A member of any level, as the world has it.

use super::Level;
use super::faults::Alarm;
use super::note::Note;
use crate::small::{Effect, Machine, Stage};
use synod_protocols::Process;
use synod_protocols::log::Timing;
use synod_protocols::types::{Incarnation, NodeId, Time};
use synod_protocols::weak::{self, Content, Event, Name, Request, WallTime};

/// A member of any level.
pub(super) trait Member:
    Process<Request = Request, Event = Event, Ask = (), Answer = (), Base = ()> + 'static
{
    /// What it runs on.
    type Home: Home<Process = Self>;

    /// What it shows of a key.
    fn content(&self, name: &Name) -> Content;
    /// Whether it is one of those that must come to show the same.
    fn counts(&self) -> bool;
    /// Whether it and another have nothing more to tell each other.
    fn agrees_with(&self, other: &Self) -> bool;
}

/// A machine with a member on it.
pub(super) trait Home: Machine<Event = Event> + Sized + 'static {
    type Process: Member;

    /// With a blank disk. `joins`: it is none of the founders.
    fn new(start: Start, joins: bool) -> Self;
    fn process(&self) -> Option<&Self::Process>;
    fn request(&mut self, now: Time, request: Request, out: &mut Vec<Effect<Event>>);
    /// What the wall clock reads in all lives to come.
    fn set_clock(&mut self, wall_at_zero: u64);
    /// Whether it abstains, because it may have acknowledged what its disk has lost.
    fn is_damaged(&self) -> bool;
    /// Why it could not be started.
    fn failure(&self) -> Option<&str>;
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
    /// Of the strong levels.
    pub(super) timing: Timing,
}

/// What all wall clocks read at first, in nanoseconds: some day.
pub(super) const TODAY: u64 = 1_000_000_000_000_000;

/// The members of one level on their machines.
pub(super) type Members<P> = Stage<<P as Member>::Home, Alarm, Note>;

/// What a causal or eventual member is configured with.
pub(super) fn config(start: &Start) -> weak::Config {
    weak::Config {
        incarnation: Incarnation(start.life),
        wall_at_zero: WallTime(start.wall_at_zero),
        ..weak::Config::new(start.id, start.founders.clone())
    }
}
