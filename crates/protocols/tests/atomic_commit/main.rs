//! Atomic commit, driven through one small world: golden scripts, seeded random runs, and every
//! interleaving of small instances.

// One program: everything in it that is public is public within it.
#![allow(unreachable_pub)]

/// What the planted bugs replace by a copy of their own.
mod subject {
    pub use synod_protocols::commit::*;
}

mod explore;
mod party;
mod planner;
mod random;
mod replicated;
mod resources;
mod script;
mod scripts;
mod timed;
mod wire;
mod world;
