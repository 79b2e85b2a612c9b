//! A keyspace: values by key, with conditions.

use super::TxnId;
use super::resource::{Locks, Refusal, Resource};
use crate::wire::Wire;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;

/// One step of a transaction on a [`Keyspace`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyOp {
    /// Sets a key, or deletes it.
    Put {
        /// The key.
        key: String,
        /// Its value from now on; none deletes it.
        value: Option<Bytes>,
    },
    /// Goes on only if the key has this value.
    Expect {
        /// The key.
        key: String,
        /// The value; none if there shall be no such key.
        value: Option<Bytes>,
    },
    /// Reads a key. The answers are the values in the order in which they were asked for.
    Get {
        /// The key.
        key: String,
    },
}

crate::wire_format!(enum KeyOp {
    1 => Put { key, value },
    2 => Expect { key, value },
    3 => Get { key },
});

impl KeyOp {
    fn key(&self) -> &str {
        match self {
            KeyOp::Put { key, .. } | KeyOp::Expect { key, .. } | KeyOp::Get { key } => key,
        }
    }

    fn writes(&self) -> bool {
        matches!(self, KeyOp::Put { .. })
    }
}

/// Keys and values, and what open transactions would change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Keyspace {
    values: BTreeMap<String, Bytes>,
    changes: BTreeMap<TxnId, BTreeMap<String, Option<Bytes>>>,
    locks: Locks,
}

impl Keyspace {
    /// The committed values.
    pub fn values(&self) -> &BTreeMap<String, Bytes> {
        &self.values
    }
}

impl Resource for Keyspace {
    type Work = Vec<KeyOp>;

    fn work(&mut self, txn: TxnId, work: &Vec<KeyOp>) -> Result<Bytes, Refusal> {
        let mut changed = self.changes.get(&txn).cloned().unwrap_or_default();
        let mut read: Vec<Option<Bytes>> = Vec::new();
        for op in work {
            let key = op.key();
            self.locks.check(txn, key, op.writes())?;
            let value = changed.get(key).cloned().unwrap_or_else(|| self.values.get(key).cloned());
            match op {
                KeyOp::Put { value, .. } => drop(changed.insert(key.into(), value.clone())),
                KeyOp::Expect { value: wanted, .. } if *wanted != value => {
                    return Err(Refusal::Unexpected { name: key.into() });
                }
                KeyOp::Expect { .. } => {}
                KeyOp::Get { .. } => read.push(value),
            }
        }
        for op in work {
            self.locks.take(txn, op.key(), op.writes());
        }
        if !changed.is_empty() {
            self.changes.insert(txn, changed);
        }
        Ok(read.to_bytes())
    }

    fn is_read_only(&self, txn: TxnId) -> bool {
        !self.changes.contains_key(&txn)
    }

    fn commit(&mut self, txn: TxnId) {
        for (key, value) in self.changes.remove(&txn).unwrap_or_default() {
            match value {
                Some(value) => drop(self.values.insert(key, value)),
                None => drop(self.values.remove(&key)),
            }
        }
        self.locks.release(txn);
    }

    fn abort(&mut self, txn: TxnId) {
        self.changes.remove(&txn);
        self.locks.release(txn);
    }

    fn locks(&self) -> Vec<(String, TxnId)> {
        self.locks.held()
    }
}
