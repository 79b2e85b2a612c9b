//! Protocols with well-known mistakes planted in them, for the simulator to find.
//!
//! Protocol code carries no switches for bugs. This crate's build script copies a protocol's sources
//! once for each file in its folder of `bugs/`, with that file's textual patch applied, so that every
//! copy is the real protocol but for one mistake. Each is a `Raft` (or what it is called) of its own
//! which runs wherever a [`ReplicatedLog`](synod_protocols::log::ReplicatedLog) does. What ships
//! builds it without the feature `all`, which leaves the few that the laboratory's lessons are about.
#![no_std]

extern crate alloc;

include!(concat!(env!("OUT_DIR"), "/mutants.rs"));
