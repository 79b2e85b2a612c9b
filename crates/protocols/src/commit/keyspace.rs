//! A keyspace: values by key, with conditions.

use super::TxnId;
use super::resource::{Locks, Refusal, Resource};
use crate::wire::{DecodeError, Wire};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::Bytes;

/// Bytes that one piece of work reads at the most, because what it reads is recorded with it.
pub const READ_BYTES_MAX: usize = 1 << 20;

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
    /// Adds to a value that is a whole number in decimal digits, as an account's balance is.
    Add {
        /// The key, which must be there.
        key: String,
        /// How much; less than nothing takes away.
        by: i64,
        /// What must be left, or the work is refused as an overdraft.
        at_least: Option<u64>,
    },
    /// Sets a key to what the piece of work has read so far, encoded as its answer is.
    Keep {
        /// The key.
        key: String,
    },
}

crate::wire_format!(enum KeyOp {
    1 => Put { key, value },
    2 => Expect { key, value },
    3 => Get { key },
    4 => Add { key, by, at_least },
    5 => Keep { key },
});

impl KeyOp {
    /// The key that it is about.
    pub fn key(&self) -> &str {
        match self {
            KeyOp::Put { key, .. }
            | KeyOp::Expect { key, .. }
            | KeyOp::Get { key }
            | KeyOp::Add { key, .. }
            | KeyOp::Keep { key } => key,
        }
    }

    fn writes(&self) -> bool {
        matches!(self, KeyOp::Put { .. } | KeyOp::Add { .. } | KeyOp::Keep { .. })
    }
}

/// The number that a value is with so much added.
fn add(key: &str, value: Option<Bytes>, by: i64, at_least: Option<u64>) -> Result<Bytes, Refusal> {
    let name = String::from(key);
    let value = value.ok_or_else(|| Refusal::Unknown { name: name.clone() })?;
    let number = core::str::from_utf8(&value).ok().and_then(|text| text.parse::<i64>().ok());
    let number = number.ok_or_else(|| Refusal::NoNumber { name: name.clone() })?;
    let sum = number.checked_add(by).ok_or_else(|| Refusal::Overflow { account: name.clone() })?;
    if at_least.is_some_and(|least| u64::try_from(sum).map_or(true, |sum| sum < least)) {
        let balance = u64::try_from(number).unwrap_or_default();
        return Err(Refusal::Overdraft { account: name, balance });
    }
    Ok(Bytes::from(sum.to_string()))
}

/// Keys and values, and what open transactions would change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Keyspace {
    values: BTreeMap<String, Bytes>,
    changes: BTreeMap<TxnId, Changes>,
    locks: Locks,
    /// What was committed since the host took it last, if it takes it.
    committed: Option<Changes>,
}

/// New values by key; none deletes.
pub type Changes = BTreeMap<String, Option<Bytes>>;

impl Keyspace {
    /// A keyspace whose values a host keeps: these now, and whatever [`Keyspace::take_committed`] gives it.
    pub fn kept(values: BTreeMap<String, Bytes>) -> Keyspace {
        Keyspace { values, committed: Some(Changes::new()), ..Keyspace::default() }
    }

    /// What was committed since this was asked the last time.
    pub fn take_committed(&mut self) -> Changes {
        self.committed.as_mut().map(core::mem::take).unwrap_or_default()
    }

    /// The committed values.
    pub fn values(&self) -> &BTreeMap<String, Bytes> {
        &self.values
    }
}

impl Resource for Keyspace {
    type Work = Vec<KeyOp>;

    fn work(&mut self, txn: TxnId, work: &Vec<KeyOp>) -> Result<Bytes, Refusal> {
        let mut changed = self.changes.get(&txn).cloned().unwrap_or_default();
        let (mut read, mut bytes): (Vec<Option<Bytes>>, usize) = (Vec::new(), 0);
        for op in work {
            let key = op.key();
            self.locks.check(txn, key, op.writes())?;
            let value = changed.get(key).cloned().unwrap_or_else(|| self.values.get(key).cloned());
            match op {
                KeyOp::Put { value, .. } => drop(changed.insert(key.into(), value.clone())),
                KeyOp::Add { by, at_least, .. } => {
                    let sum = add(key, value, *by, *at_least)?;
                    changed.insert(key.into(), Some(sum));
                }
                KeyOp::Expect { value: wanted, .. } if *wanted != value => {
                    return Err(Refusal::Unexpected { name: key.into() });
                }
                KeyOp::Expect { .. } => {}
                KeyOp::Get { .. } => {
                    bytes += value.as_ref().map_or(0, Bytes::len);
                    if bytes > READ_BYTES_MAX {
                        return Err(Refusal::TooMuch);
                    }
                    read.push(value);
                }
                KeyOp::Keep { .. } => drop(changed.insert(key.into(), Some(read.to_bytes()))),
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
            if let Some(committed) = &mut self.committed {
                committed.insert(key.clone(), value.clone());
            }
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

    fn committed(&self) -> Bytes {
        let values: Vec<(String, Bytes)> = self.values.clone().into_iter().collect();
        values.to_bytes()
    }

    fn restore(&mut self, committed: Bytes) -> Result<(), DecodeError> {
        self.values = Vec::from_bytes(committed)?.into_iter().collect();
        Ok(())
    }
}
