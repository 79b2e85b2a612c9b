//! Sagas, driven through one small world: golden scripts and seeded random runs.

// One program: everything in it that is public is public within it.
#![allow(unreachable_pub)]

/// What the planted bugs replace by a copy of their own.
mod subject {
    pub use synod_protocols::saga::*;
}

mod plans;
mod random;
mod script;
mod scripts;
mod world;
