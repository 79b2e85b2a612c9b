//! What a log says of one process: which of its entries count.

use crate::log::Index;
use crate::types::NodeId;
use crate::wire::{DecodeError, Reader, Wire};
use alloc::vec::Vec;
use bytes::Bytes;

/// A command of the log that is about a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A life of the process begins on this member. The entry's position is the life's name.
    Begin {
        /// Where.
        member: NodeId,
        /// What tells the member's attempts apart.
        nonce: u64,
    },
    /// What one step of a life wants durable.
    Records {
        /// Which life.
        life: u64,
        /// Which of its entries, counted from 0.
        sequence: u64,
        /// Whether these records say all that the earlier ones do, which need not be kept then.
        replaces: bool,
        /// The process's records.
        records: Vec<Bytes>,
    },
}

crate::wire_format!(enum Entry {
    1 => Begin { member, nonce },
    2 => Records { life, sequence, replaces, records },
});

/// Which life of a process is the one that counts, and how many of its entries do: the part of
/// [the idea](super) that every member of the log carries out alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Journal {
    /// The life that began last; none before the first.
    pub life: Index,
    /// How many of its entries are committed.
    pub entries: u64,
}

impl Wire for Journal {
    fn encode(&self, out: &mut Vec<u8>) {
        (self.life.0, self.entries).encode(out);
    }

    fn decode(input: &mut Reader) -> Result<Journal, DecodeError> {
        let (life, entries) = Wire::decode(input)?;
        Ok(Journal { life: Index(life), entries })
    }
}

/// What an entry means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A life begins, and all others are over.
    Began,
    /// The records count.
    Accepted,
    /// An entry before this one is missing. It does not count, and its life has lost its memory.
    Broken,
    /// It is of a life that another one has replaced. It does not count.
    Stale,
}

impl Journal {
    /// Takes the log's next entry about this process, which is committed at `index`.
    pub fn apply(&mut self, index: Index, entry: &Entry) -> Verdict {
        match entry {
            Entry::Begin { .. } => {
                *self = Journal { life: index, entries: 0 };
                Verdict::Began
            }
            Entry::Records { life, .. } if *life != self.life.0 => Verdict::Stale,
            Entry::Records { sequence, .. } if *sequence != self.entries => Verdict::Broken,
            Entry::Records { .. } => {
                self.entries += 1;
                Verdict::Accepted
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(life: u64, sequence: u64) -> Entry {
        Entry::Records { life, sequence, replaces: false, records: Vec::new() }
    }

    #[test]
    fn entries_of_the_latest_life_count_in_order_and_no_others() {
        let mut journal = Journal::default();
        let begin = Entry::Begin { member: NodeId(1), nonce: 7 };
        assert_eq!(journal.apply(Index(3), &records(2, 0)), Verdict::Stale);
        assert_eq!(journal.apply(Index(4), &begin), Verdict::Began);
        assert_eq!(journal.apply(Index(5), &records(4, 0)), Verdict::Accepted);
        assert_eq!(journal.apply(Index(6), &records(4, 2)), Verdict::Broken);
        assert_eq!(journal.apply(Index(7), &records(4, 0)), Verdict::Broken, "it counted before");
        assert_eq!(journal.apply(Index(8), &records(4, 1)), Verdict::Accepted);
        assert_eq!(journal.apply(Index(9), &begin), Verdict::Began);
        assert_eq!(journal.apply(Index(10), &records(4, 2)), Verdict::Stale);
        assert_eq!(journal, Journal { life: Index(9), entries: 0 });
    }
}
