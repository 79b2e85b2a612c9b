//! The candidates for a member's state behind one small interface: an ordered map whose batches, with the
//! applied index inside, are atomic, and which need not sync, since the replicated log is replayed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::Result;

pub const NAMES: [&str; 6] = ["memory", "fjall-4", "fjall-16", "fjall-default", "redb", FJALL_ONE_WORKER];
/// fjall 3.1 with a single worker, which hangs for ever under small batches: the worker blocks on a full
/// queue that it alone drains (<https://github.com/fjall-rs/fjall/pull/323>). Measured only when asked for
/// by name, to see whether a later version still does.
pub const FJALL_ONE_WORKER: &str = "fjall-one-worker";

/// Sorts before every key, which all begin with a one.
const APPLIED: &[u8] = &[0];
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");
/// Work in the background that lasts longer has stopped.
const SETTLE_MAX: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;
/// redb's unsynced commits are given up by a crash, and pile up in memory, until one is synced.
const REDB_PUTS_PER_SYNC: u64 = 10_000;

pub trait Engine {
    /// Gets each key, then puts it, and sets the applied index: all or nothing.
    fn apply(&mut self, puts: &[(Vec<u8>, Vec<u8>)], applied: u64) -> Result<()>;
    fn applied(&self) -> Result<u64>;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Visits up to `limit` pairs from a key on.
    fn scan(&self, from: &[u8], limit: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()>;
    /// Waits for work in the background.
    fn settle(&self) -> Result<()> {
        Ok(())
    }
}

pub fn open(name: &str, dir: &Path) -> Result<Box<dyn Engine>> {
    Ok(match name {
        "memory" => Box::new(Memory::default()),
        "fjall-4" => Box::new(Fjall::open(dir, Some(Small { bytes: 4 * MIB, workers: 2 }))?),
        "fjall-16" => Box::new(Fjall::open(dir, Some(Small { bytes: 16 * MIB, workers: 2 }))?),
        "fjall-default" => Box::new(Fjall::open(dir, None)?),
        FJALL_ONE_WORKER => Box::new(Fjall::open(dir, Some(Small { bytes: 4 * MIB, workers: 1 }))?),
        "redb" => Box::new(Redb::open(dir)?),
        _ => return Err(format!("no engine is called {name}; there are {NAMES:?}").into()),
    })
}

/// The limit that no engine can beat.
#[derive(Default)]
struct Memory {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    applied: u64,
}

impl Engine for Memory {
    fn apply(&mut self, puts: &[(Vec<u8>, Vec<u8>)], applied: u64) -> Result<()> {
        for (key, value) in puts {
            std::hint::black_box(self.map.get(key));
            self.map.insert(key.clone(), value.clone());
        }
        self.applied = applied;
        Ok(())
    }

    fn applied(&self) -> Result<u64> {
        Ok(self.applied)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.map.get(key).cloned())
    }

    fn scan(&self, from: &[u8], limit: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        self.map.range(from.to_vec()..).take(limit).for_each(|(key, value)| visit(key, value));
        Ok(())
    }
}

/// One keyspace for data and applied index: two could be flushed at different times, and a power
/// failure between would leave them apart.
struct Fjall {
    database: Database,
    keyspace: Keyspace,
}

/// Settings for a machine that has other things to do.
struct Small {
    /// For the cache, and as much again for the memtable.
    bytes: u64,
    workers: usize,
}

impl Fjall {
    /// Small, with a journal that is left to the operating system; or as it comes.
    fn open(dir: &Path, small: Option<Small>) -> Result<Self> {
        let mut builder = Database::builder(dir);
        let mut options = KeyspaceCreateOptions::default();
        if let Some(Small { bytes, workers }) = small {
            builder = builder.cache_size(bytes).worker_threads(workers).max_journaling_size(64 * MIB);
            builder = builder.manual_journal_persist(true);
            options = options.max_memtable_size(bytes).manual_journal_persist(true);
        }
        let database = builder.open()?;
        let keyspace = database.keyspace("state", || options)?;
        Ok(Self { database, keyspace })
    }
}

impl Engine for Fjall {
    fn apply(&mut self, puts: &[(Vec<u8>, Vec<u8>)], applied: u64) -> Result<()> {
        let mut batch = self.database.batch();
        for (key, value) in puts {
            std::hint::black_box(self.keyspace.get(key)?);
            batch.insert(&self.keyspace, key.as_slice(), value.as_slice());
        }
        batch.insert(&self.keyspace, APPLIED, applied.to_be_bytes());
        Ok(batch.commit()?)
    }

    fn applied(&self) -> Result<u64> {
        let bytes = self.keyspace.get(APPLIED)?;
        Ok(bytes.map_or(Ok(0), |bytes| bytes.as_ref().try_into().map(u64::from_be_bytes))?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.keyspace.get(key)?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], limit: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        for guard in self.keyspace.range(from..).take(limit) {
            let (key, value) = guard.into_inner()?;
            visit(&key, &value);
        }
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        let began = Instant::now();
        while self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0 {
            if began.elapsed() > SETTLE_MAX {
                return Err("fjall's background work does not end: its workers hang".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

struct Redb {
    database: redb::Database,
    puts_since_sync: u64,
}

impl Redb {
    fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut builder = redb::Database::builder();
        builder.set_cache_size(32 * MIB as usize);
        let database = builder.create(dir.join("state.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?;
        transaction.commit()?;
        Ok(Self { database, puts_since_sync: 0 })
    }
}

impl Engine for Redb {
    fn apply(&mut self, puts: &[(Vec<u8>, Vec<u8>)], applied: u64) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        self.puts_since_sync += puts.len() as u64;
        if self.puts_since_sync < REDB_PUTS_PER_SYNC {
            transaction.set_durability(Durability::None)?;
        } else {
            self.puts_since_sync = 0;
        }
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in puts {
                std::hint::black_box(table.get(key.as_slice())?);
                table.insert(key.as_slice(), value.as_slice())?;
            }
            table.insert(APPLIED, applied.to_be_bytes().as_slice())?;
        }
        Ok(transaction.commit()?)
    }

    fn applied(&self) -> Result<u64> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let bytes = table.get(APPLIED)?;
        Ok(bytes.map_or(Ok(0), |bytes| bytes.value().try_into().map(u64::from_be_bytes))?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn scan(&self, from: &[u8], limit: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        for pair in table.range(from..)?.take(limit) {
            let (key, value) = pair?;
            visit(key.value(), value.value());
        }
        Ok(())
    }
}
