//! The state engine: recent writes in memory, the rest in fjall, an embedded log-structured merge tree.
//!
//! ```text
//!   commit ──► layer (in memory, newest) ──sealed──► layer being stored ──ingested──► fjall's tables
//!   get, scan: newest first, merged
//! ```
//!
//! The layers take the place of the tree's own journal and memtable. They cost a fraction of those, because the
//! replicated log already is the journal; and a full layer is stored as one sorted run by a thread of its own, so that
//! the member never waits for the tree's files. A crash loses the layers, whole and the newest first, and the
//! replicated log brings them back.

mod transfer;

use bytes::{Bytes, BytesMut};
use fjall::{Database, Keyspace};
use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::io;
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use synod_protocols::log::Ticket;
use synod_store::{OrderedMap, WriteBatch};
use transfer::Staging;

/// A layer of this size is stored.
const LAYER_BYTES: usize = 32 << 20;
/// At this size of the newest layer, with the one before it still being stored, a commit waits.
const LAYER_BYTES_MAX: usize = 128 << 20;
/// What a pair costs in memory beyond its key and value, about.
const PAIR_OVERHEAD_BYTES: usize = 96;
/// Keys and values share pieces of memory of this size.
const CHUNK_BYTES: usize = 256 << 10;
/// Runs that the tree has not merged yet; at the bound the next layer waits in memory.
const RUNS_MAX: usize = 16;
/// How often the tree is asked whether it has merged some.
const RUNS_POLL: Duration = Duration::from_millis(20);
/// Threads of the tree that merge tables. With one alone, fjall 3.1 can wait for itself for ever
/// (fjall-rs/fjall#323); with two that has not been seen.
const WORKERS: usize = 2;

type Layer = BTreeMap<Bytes, Option<Bytes>>;

/// What the storing thread does.
enum Work {
    /// Store a layer, and say that the state is durable up to there if anybody wants to know.
    Store(Keyspace, Arc<Layer>, Option<Ticket>),
    /// Everything is stored already: say so.
    Nothing(Ticket),
    /// Store a part of another member's state.
    Stage(Keyspace, Layer, mpsc::Sender<Result<(), fjall::Error>>),
    /// Free a layer: a hundred thousand small pieces of memory, which would hold the member up.
    Bury(Arc<Layer>),
}

/// An ordered map in memory and files.
pub(crate) struct FileMap {
    path: PathBuf,
    layer: Layer,
    layer_bytes: usize,
    /// Where the layer's keys and values are copied to, chunk by chunk: they are many and small, and die together.
    chunk: BytesMut,
    /// The layer that is being stored.
    sealed: Option<Arc<Layer>>,
    tree: Keyspace,
    /// Gone only while the map is dropped.
    layers: Option<mpsc::Sender<Work>>,
    stored: mpsc::Receiver<Result<(), fjall::Error>>,
    storer: Option<thread::JoinHandle<()>>,
    database: Database,
    /// To be told when all that was committed is durable, and not under way yet.
    persisting: Option<Ticket>,
    /// Pairs kept aside.
    staging: Option<Staging>,
}

impl FileMap {
    /// Opens the map in `path`, made if need be, with `cache_bytes` of memory for blocks that were read.
    /// `persisted` is called, on another thread, when what the map was told to make durable is so.
    pub(crate) fn open(
        path: &Path,
        cache_bytes: u64,
        persisted: impl Fn(Ticket, Result<(), String>) + Send + 'static,
    ) -> Result<FileMap, fjall::Error> {
        let database = Database::builder(path)
            .cache_size(cache_bytes)
            .worker_threads(WORKERS)
            .manual_journal_persist(true)
            .open()?;
        let tree = transfer::open_tree(&database, path)?;
        let (layers, incoming) = mpsc::channel::<Work>();
        let (tell, stored) = mpsc::channel();
        let work = move || {
            for work in incoming {
                match work {
                    Work::Nothing(ticket) => persisted(ticket, Ok(())),
                    Work::Stage(tree, layer, tell) => {
                        // Whoever staged it may have given it up.
                        let _ = tell.send(store(&tree, &layer));
                    }
                    Work::Store(target, layer, ticket) => {
                        let result = store(&target, &layer);
                        // The map's share of it comes back as the last one.
                        drop(layer);
                        if let Some(ticket) = ticket {
                            persisted(ticket, result.as_ref().map(|_| ()).map_err(ToString::to_string));
                        }
                        if tell.send(result).is_err() {
                            return;
                        }
                    }
                    Work::Bury(layer) => drop(layer),
                }
            }
        };
        let storer =
            thread::Builder::new().name("synod-state".to_owned()).spawn(work).map_err(fjall::Error::Io)?;
        Ok(FileMap {
            path: path.to_owned(),
            layer: Layer::new(),
            layer_bytes: 0,
            chunk: BytesMut::new(),
            sealed: None,
            tree,
            layers: Some(layers),
            stored,
            storer: Some(storer),
            database,
            persisting: None,
            staging: None,
        })
    }

    /// Bytes that it takes on disk, and how many of them hold pairs. It looks at every file.
    pub(crate) fn disk_bytes(&self) -> (u64, u64) {
        // Some files are made long beforehand and mostly holes, so that their lengths say nothing.
        (allocated(&self.path), self.tree.disk_space())
    }

    /// Takes note of a layer that has been stored; waits for it if asked to.
    fn settle(&mut self, wait: bool) -> Result<(), fjall::Error> {
        if self.sealed.is_none() {
            return Ok(());
        }
        let gone = || fjall::Error::Io(io::Error::other("the thread that stores the state has ended"));
        let result = if wait {
            self.stored.recv().map_err(|_| gone())?
        } else {
            match self.stored.try_recv() {
                Ok(result) => result,
                Err(mpsc::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::TryRecvError::Disconnected) => return Err(gone()),
            }
        };
        if let (Some(layer), Some(layers)) = (self.sealed.take(), &self.layers) {
            let _ = layers.send(Work::Bury(layer));
        }
        self.go_on_persisting();
        result
    }

    /// Lets the storing thread say when all that was committed is durable, as soon as the layer that
    /// is being stored is out of the way.
    fn go_on_persisting(&mut self) {
        if self.sealed.is_some() {
            return;
        }
        let Some(ticket) = self.persisting.take() else { return };
        if !self.layer.is_empty() {
            self.seal(Some(ticket));
        } else if let Some(layers) = &self.layers {
            // If the thread is gone, the next `settle` says so.
            let _ = layers.send(Work::Nothing(ticket));
        }
    }

    /// A copy of `bytes` that costs no memory management of its own.
    fn keep(&mut self, bytes: &[u8]) -> Bytes {
        if self.chunk.capacity() < bytes.len() {
            self.chunk = BytesMut::with_capacity(bytes.len().max(CHUNK_BYTES));
        }
        self.chunk.extend_from_slice(bytes);
        self.chunk.split().freeze()
    }

    /// Hands the layer to the storing thread, which says under `ticket` when it is stored.
    fn seal(&mut self, ticket: Option<Ticket>) {
        let layer = Arc::new(std::mem::take(&mut self.layer));
        self.layer_bytes = 0;
        if let Some(layers) = &self.layers {
            // If the thread is gone, the next `settle` says so.
            let _ = layers.send(Work::Store(self.tree.clone(), Arc::clone(&layer), ticket));
        }
        self.sealed = Some(layer);
    }

    fn store_all(&mut self) -> Result<(), fjall::Error> {
        self.settle(true)?;
        if !self.layer.is_empty() {
            self.seal(None);
            self.settle(true)?;
        }
        Ok(())
    }
}

impl Drop for FileMap {
    /// Stores what is in memory, to spare the next start the work. If that fails, the log makes up for it.
    fn drop(&mut self) {
        let _ = self.store_all();
        self.layers = None;
        if let Some(storer) = self.storer.take() {
            let _ = storer.join();
        }
    }
}

/// Adds a layer to the tree as its newest run, whole or not at all.
fn store(tree: &Keyspace, layer: &Layer) -> Result<(), fjall::Error> {
    while tree.l0_table_count() >= RUNS_MAX {
        thread::sleep(RUNS_POLL);
    }
    let mut run = tree.start_ingestion()?;
    for (key, value) in layer {
        match value {
            Some(value) => run.write(key.clone(), value.clone())?,
            None => run.write_tombstone(key.clone())?,
        }
    }
    run.finish()
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

/// One of the places where a pair may lie, being read in order.
enum Source<'a> {
    Layer(Peekable<Range<'a, Bytes, Option<Bytes>>>),
    Tree { pairs: fjall::Iter, next: Option<(Bytes, Bytes)> },
}

impl<'a> Source<'a> {
    fn tree(mut pairs: fjall::Iter) -> Result<Source<'a>, fjall::Error> {
        let next = next_pair(&mut pairs)?;
        Ok(Source::Tree { pairs, next })
    }

    fn key(&mut self) -> Option<Bytes> {
        match self {
            Source::Layer(pairs) => pairs.peek().map(|(key, _)| (*key).clone()),
            Source::Tree { next, .. } => next.as_ref().map(|(key, _)| key.clone()),
        }
    }

    /// The value under `key`, if that is the next one; a removal is a value of none.
    fn take(&mut self, key: &Bytes) -> Result<Option<Option<Bytes>>, fjall::Error> {
        match self {
            Source::Layer(pairs) => {
                Ok(pairs.next_if(|(next, _)| *next == key).map(|(_, value)| value.clone()))
            }
            Source::Tree { pairs, next } => match next.take_if(|(next, _)| next == key) {
                Some((_, value)) => {
                    *next = next_pair(pairs)?;
                    Ok(Some(Some(value)))
                }
                None => Ok(None),
            },
        }
    }
}

fn next_pair(pairs: &mut fjall::Iter) -> Result<Option<(Bytes, Bytes)>, fjall::Error> {
    match pairs.next() {
        Some(pair) => pair.into_inner().map(|(key, value)| Some((key.into(), value.into()))),
        None => Ok(None),
    }
}

/// Visits the pairs of all sources in order; where several have a key, the first of them counts.
fn merged(
    sources: &mut [Source<'_>],
    visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
) -> Result<(), fjall::Error> {
    while let Some(key) = sources.iter_mut().filter_map(Source::key).min() {
        let mut newest = None;
        for source in &mut *sources {
            let value = source.take(&key)?;
            newest = newest.or(value);
        }
        if let Some(Some(value)) = newest
            && visit(&key, &value).is_break()
        {
            break;
        }
    }
    Ok(())
}

impl OrderedMap for FileMap {
    type Error = fjall::Error;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, fjall::Error> {
        let layers = [Some(&self.layer), self.sealed.as_deref()];
        if let Some(value) = layers.into_iter().flatten().find_map(|layer| layer.get(key)) {
            return Ok(value.clone());
        }
        // A copy, because the tree lends a part of a block, and whoever keeps the record would keep all of it.
        Ok(self.tree.get(key)?.map(|value| Bytes::copy_from_slice(&value)))
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
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let mut sources: Vec<Source<'_>> = [Some(&self.layer), self.sealed.as_deref()]
            .into_iter()
            .flatten()
            .map(|layer| Source::Layer(layer.range::<[u8], _>(bounds).peekable()))
            .collect();
        sources.push(Source::tree(self.tree.range::<&[u8], _>(bounds))?);
        merged(&mut sources, visit)
    }

    fn commit(&mut self, writes: WriteBatch) -> Result<(), fjall::Error> {
        self.settle(false)?;
        for (key, value) in writes {
            // What is overwritten stays in its chunk, and goes on counting.
            self.layer_bytes += key.len() + value.as_ref().map_or(0, Bytes::len) + PAIR_OVERHEAD_BYTES;
            let (key, value) = (self.keep(&key), value.map(|value| self.keep(&value)));
            self.layer.insert(key, value);
        }
        if self.layer_bytes >= LAYER_BYTES_MAX {
            self.settle(true)?;
        }
        if self.layer_bytes >= LAYER_BYTES && self.sealed.is_none() {
            self.seal(None);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(directory: &tempfile::TempDir) -> FileMap {
        FileMap::open(directory.path(), 1 << 20, |_, _| {}).expect("opens")
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
    fn layers_and_tree_are_one_map_whatever_lies_where() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut map = map(&directory);
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut rng = synod_protocols::Rng::new(3);
        for round in 0..400 {
            let mut batch = WriteBatch::default();
            for _ in 0..rng.below(6) {
                let key = format!("k{:02}", rng.below(40)).into_bytes();
                if rng.chance(1, 3) {
                    model.remove(&key);
                    batch.remove(key.into());
                } else {
                    let value = round.to_string().into_bytes();
                    model.insert(key.clone(), value.clone());
                    batch.put(key.into(), value.into());
                }
            }
            map.commit(batch).expect("commits");
            match rng.below(20) {
                0 if map.sealed.is_none() && !map.layer.is_empty() => map.seal(None),
                1 => map.store_all().expect("stores"),
                _ => {}
            }
            let (from, to) = (format!("k{:02}", rng.below(40)), format!("k{:02}", rng.below(45)));
            let mut seen = Vec::new();
            map.scan(from.as_bytes(), Some(to.as_bytes()), &mut |key, value| {
                seen.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
            .expect("scans");
            let expected: Vec<_> = model
                .iter()
                .filter(|(key, _)| **key >= from.as_bytes().to_vec() && **key < to.as_bytes().to_vec())
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            assert_eq!(seen, expected, "round {round}");
            assert_eq!(
                map.get(from.as_bytes()).expect("reads").map(|v| v.to_vec()),
                model.get(from.as_bytes()).cloned()
            );
        }
    }

    #[test]
    fn a_layer_is_stored_when_it_is_full_and_memory_stays_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut map = map(&directory);
        let value = Bytes::from(vec![7; 1 << 20]);
        for i in 0..200 {
            let mut batch = WriteBatch::default();
            batch.put(format!("k{i:03}").into(), value.clone());
            map.commit(batch).expect("commits");
            assert!(map.layer_bytes < LAYER_BYTES_MAX + (2 << 20));
        }
        assert!(map.layer.len() < 200, "a part is elsewhere");
        assert_eq!(keys(&map, "k", None, 999).len(), 200);
    }

    #[test]
    fn memory_is_counted_also_where_it_is_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut map = map(&directory);
        map.commit(batch(&[("key", Some("12345"))])).expect("commits");
        map.commit(batch(&[("key", None)])).expect("commits");
        assert_eq!(map.layer_bytes, 2 * (PAIR_OVERHEAD_BYTES + 3) + 5);
        assert!(map.get(b"key").expect("reads").is_none());
    }

    #[test]
    fn what_was_stored_is_there_after_opening_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut first = map(&directory);
        first.commit(batch(&[("a", Some("1")), ("b", Some("2"))])).expect("commits");
        first.store_all().expect("stores");
        first.commit(batch(&[("a", None), ("b", Some("3"))])).expect("commits");
        drop(first);
        let second = map(&directory);
        assert_eq!(second.get(b"a").expect("reads"), None);
        assert_eq!(second.get(b"b").expect("reads"), Some("3".into()));
    }
}
