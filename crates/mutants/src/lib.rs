//! Protocols with well-known mistakes planted in them, for the simulator to find.
//!
//! Protocol code carries no switches for bugs. This crate's build script copies the Raft sources
//! once for each file in `bugs/`, and another protocol's once for each file in the folder of its
//! name there, with that file's textual patch applied, so that every copy is the real protocol but
//! for one mistake. Each is a `Raft` (or what it is called) of its own which runs wherever a
//! [`ReplicatedLog`](synod_protocols::log::ReplicatedLog) does. Tests ask for the
//! feature `all`; without it there are only the few bugs of the laboratory's lessons, which show on the
//! page what a rule is there for.
#![no_std]

extern crate alloc;

include!(concat!(env!("OUT_DIR"), "/mutants.rs"));
