//! Every replicated log, driven through one small in-memory cluster: golden scripts, seeded random
//! runs, and exhaustive exploration of small states.

// One program: everything in it that is public is public within it.
#![allow(unreachable_pub)]

mod cluster;
mod disk;
mod explore;
mod host;
mod hostile;
mod multi_paxos;
mod oracle;
mod random;
mod random_runs;
mod recovery;
mod script;
mod scripts;
mod subjects;
mod topologies;
mod viewstamped;
mod wire;
mod zab;
