//! The replicated key-value state machine: multi-version keys with etcd's semantics, pure.

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
