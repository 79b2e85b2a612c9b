//! Weaker replication, driven through one small world: golden scripts and seeded random runs.

// One program: everything in it that is public is public within it.
#![allow(unreachable_pub)]

/// What the planted bugs replace by a copy of their own.
mod subject {
    pub use synod_protocols::weak::*;
}

mod random;
mod runs;
mod script;
mod scripts;
mod wire;
mod world;
