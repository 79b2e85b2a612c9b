//! The state engine: fjall, an embedded log-structured merge tree, as the store's ordered map.
//!
//! Nothing is synced here. A crash may lose the latest commits, the newest first and each of them
//! whole, and the replicated log brings them back.

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use synod_store::{OrderedMap, WriteBatch};

/// Memory for writes that are not in a file yet; at the bound they go to a file in the background.
const MEMTABLE_BYTES: u64 = 32 << 20;
/// The engine's own journal at the most, before it writes tables.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;
/// Threads that write tables and merge them.
const WORKERS: usize = 1;

/// An ordered map in files.
pub(crate) struct FileMap {
    path: PathBuf,
    database: Database,
    pairs: Keyspace,
}

impl FileMap {
    /// Opens the map in `path`, made if need be, with `cache_bytes` of memory for blocks that were read.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<FileMap, fjall::Error> {
        let database = Database::builder(path)
            .cache_size(cache_bytes)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(WORKERS)
            .manual_journal_persist(true)
            .open()?;
        let options = || {
            KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES).manual_journal_persist(true)
        };
        let pairs = database.keyspace("pairs", options)?;
        Ok(FileMap { path: path.to_owned(), database, pairs })
    }

    /// Bytes that it takes on disk, and how many of them hold pairs rather than journal. It looks at every file.
    pub(crate) fn disk_bytes(&self) -> (u64, u64) {
        // The journal is made long beforehand and mostly a hole, so that its length says nothing.
        (allocated(&self.path), self.pairs.disk_space())
    }

    /// Hands what is buffered to the operating system.
    pub(crate) fn flush(&self) -> Result<(), fjall::Error> {
        self.database.persist(fjall::PersistMode::Buffer)
    }
}

/// Bytes that the files below `path` occupy. What vanishes meanwhile counts for nothing.
fn allocated(path: &Path) -> u64 {
    const BLOCK_BYTES: u64 = 512;
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => allocated(&entry.path()),
            Ok(metadata) => metadata.blocks() * BLOCK_BYTES,
            Err(_) => 0,
        })
        .sum()
}

impl OrderedMap for FileMap {
    type Error = fjall::Error;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, fjall::Error> {
        Ok(self.pairs.get(key)?.map(Bytes::from))
    }

    fn scan(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), fjall::Error> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let end = to.map_or(Bound::Unbounded, Bound::Excluded);
        for pair in self.pairs.range::<&[u8], _>((Bound::Included(from), end)) {
            let (key, value) = pair.into_inner()?;
            if visit(&key.into(), &value.into()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&mut self, writes: WriteBatch) -> Result<(), fjall::Error> {
        let mut batch = self.database.batch();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(&self.pairs, key, value),
                None => batch.remove(&self.pairs, key),
            }
        }
        batch.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(directory: &tempfile::TempDir) -> FileMap {
        FileMap::open(directory.path(), 1 << 20).expect("opens")
    }

    fn batch(pairs: &[(&'static str, Option<&'static str>)]) -> WriteBatch {
        let mut batch = WriteBatch::default();
        for (key, value) in pairs {
            match value {
                Some(value) => batch.put((*key).into(), (*value).into()),
                None => batch.remove((*key).into()),
            }
        }
        batch
    }

    fn keys(map: &FileMap, from: &str, to: Option<&str>, max: usize) -> Vec<Bytes> {
        let mut keys = Vec::new();
        map.scan(from.as_bytes(), to.map(str::as_bytes), &mut |key, _| {
            keys.push(key.clone());
            if keys.len() == max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .expect("scans");
        keys
    }

    #[test]
    fn scans_are_ordered_and_keep_their_bounds() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut map = map(&directory);
        map.commit(batch(&[("b", Some("2")), ("a", Some("1")), ("c", Some("3"))])).expect("commits");
        assert_eq!(keys(&map, "a", Some("c"), 9), ["a", "b"]);
        assert_eq!(keys(&map, "b", None, 9), ["b", "c"]);
        assert_eq!(keys(&map, "a", None, 2), ["a", "b"]);
        assert!(keys(&map, "c", Some("a"), 9).is_empty());
        assert!(keys(&map, "b", Some("b"), 9).is_empty());
    }

    #[test]
    fn what_was_flushed_is_there_after_opening_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut first = map(&directory);
        first.commit(batch(&[("a", Some("1")), ("b", Some("2"))])).expect("commits");
        first.commit(batch(&[("a", None), ("b", Some("3"))])).expect("commits");
        first.flush().expect("flushes");
        drop(first);
        let second = map(&directory);
        assert_eq!(second.get(b"a").expect("reads"), None);
        assert_eq!(second.get(b"b").expect("reads"), Some("3".into()));
    }
}
