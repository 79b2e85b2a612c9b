//! The replicated key-value state machine: multi-version keys with etcd's semantics, pure.
//!
//! A [`Store`] is handed the commands that consensus has committed, one after the other, and
//! answers them; replicas that are handed the same commands answer the same and hold the same. It
//! knows no clock, disk or socket: below it lies one [`OrderedMap`], in memory or on an engine.
//!
//! # What it promises
//! Every command that changes something makes one new *revision* of the whole store, however many
//! keys it touches; reads, refusals and commands that find nothing to do make none. Each key
//! remembers the revision at which it was created and last changed, and how often it was written
//! since its creation. All earlier revisions can be read until a compaction forgets them. Requests,
//! answers, texts and codes are those of etcd v3.4, down to its oddities where clients could see
//! them, each of which is noted where it lives; a fixture recorded from a real etcd pins them.
//!
//! Differences, all of them refusals where etcd would go on or go down:
//! * keys are at most [`KEY_BYTES_MAX`] long, transactions nest at most [`TXN_DEPTH_MAX`] deep, an
//!   answer takes at most [`RESPONSE_BYTES_MAX`], a deletion at most [`DELETE_BYTES_MAX`];
//! * unknown sort orders, comparisons and targets are refused (etcd 3.4 panics or takes them to
//!   hold);
//! * a put that names a lease is refused: there are no leases yet;
//! * a transaction that deletes a key and then puts it keeping its old value is refused (etcd
//!   panics).
//!
//! # How to use it
//! A member calls [`validate`] before it proposes a client's request as a [`Command`]; applies
//! what was committed with [`Store::apply`], any number of commands, which read each other's
//! writes; puts its own applied index beside them with [`Store::node_put`]; and hands it all to
//! the map with [`Store::commit`], as one. A map that loses its latest commits in a crash is
//! brought up to date from the replicated log. An error other than a refusal means that the
//! member must stop.
//!
//! # Format of the map, version 1
//! The first byte of a key names its table. Numbers in keys are big-endian; numbers in values are
//! LEB128 varints, at most 64 bits.
//!
//! | key | value |
//! |---|---|
//! | `c` key | a record: the key's current value |
//! | `v` escaped-key `00 01` ¬revision:8 ¬sub:4 | a record: what the key was from that change on; newest first |
//! | `m` | format `01`, revision, compacted revision + 1, number of keys, and, while history is being removed, the revision up to which, then the last key seen |
//! | `n` … | the node's own |
//!
//! A *record* is the byte `01`, then created, modified, sub-revision, version, lease, and the
//! value to the end; or the byte `00` alone, a *tombstone*: the key was deleted. A *sub-revision*
//! numbers the changes within one revision, from 0. An *escaped key* has `00 ff` for each `00`, so
//! that the keys of the table are in the order of the client's keys and no key's versions lie
//! among another's.
//!
//! A version moves from `c` to `v` when it is superseded, unchanged, and a deletion leaves a
//! tombstone in `v` and nothing in `c`. So a put of a new key is one read and one write, a put
//! of an old one is one read and two writes, reading the present touches `c` alone, and reading
//! the past looks into `c` first and then, if what is there is too new, for the first entry in `v`
//! that is old enough. What a compaction leaves is said in the source of `compaction`.
//!
//! There is no table from revisions to keys, which every put would pay for. A watcher that keeps
//! up is served from what is being applied, one that is a little behind from a bounded memory of
//! recent events, and one that starts far back by one scan of its own keys in both tables: every
//! change since the last compaction is in exactly one of them, with its revision and sub-revision,
//! by which the events are sorted.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod command;
mod compaction;
mod layout;
mod map;
mod overlay;
pub mod proto;
mod range;
mod refusal;
mod store;
mod txn;
mod validate;

pub use command::{Command, CommandKind, Outcome, Response, decode_outcome, encode_outcome};
pub use layout::{KEY_BYTES_MAX, MAP_KEY_BYTES_MAX};
pub use map::{MemoryMap, OrderedMap, WriteBatch};
pub use refusal::{Code, Error, Refusal};
pub use store::{
    DELETE_BYTES_MAX, KEY_VALUE_OVERHEAD_BYTES, RESPONSE_BYTES_MAX, Revision, SWEEP_ENTRIES_MIN, Store,
};
pub use validate::{Limits, TXN_DEPTH_MAX, validate, validate_range};
