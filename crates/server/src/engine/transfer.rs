//! The state on its way between members: views that are sent, and pairs kept aside until they take
//! the state's place.
//!
//! What is kept aside is a second tree beside the first. A file of one line, replaced by a rename,
//! says which of the trees is the state; the others are removed when the map is opened.

use super::{FileMap, Layer, Source, Work, merged, store};
use crate::directory::sync_directory;
use bytes::Bytes;
use fjall::{Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::{Arc, mpsc};
use synod_node::kv::StateMap;
use synod_protocols::log::Ticket;
use synod_store::WriteBatch;

/// The tree of a map that was never replaced.
const FIRST_TREE: &str = "pairs";
/// Which tree is the state.
const POINTER: &str = "synod-tree";
/// Staged pairs are stored in runs of this size.
const STAGE_BYTES: usize = 8 << 20;

/// The pairs as one commit left them.
pub(crate) struct FileView {
    /// Newest first.
    layers: Vec<Arc<Layer>>,
    tree: Keyspace,
    snapshot: fjall::Snapshot,
}

/// Pairs that are kept aside.
pub(super) struct Staging {
    name: String,
    tree: Keyspace,
    layer: Layer,
    bytes: usize,
    /// A run that is being stored.
    storing: Option<mpsc::Receiver<Result<(), fjall::Error>>>,
}

impl Staging {
    /// Waits for the run that is being stored.
    fn settle(&mut self) -> Result<(), fjall::Error> {
        match self.storing.take() {
            Some(stored) => stored.recv().map_err(|_| gone())?,
            None => Ok(()),
        }
    }
}

fn gone() -> fjall::Error {
    fjall::Error::Io(io::Error::other("the thread that stores the state has ended"))
}

/// The tree that is the state; all others are removed.
pub(super) fn open_tree(database: &fjall::Database, path: &Path) -> Result<Keyspace, fjall::Error> {
    let name = match fs::read_to_string(path.join(POINTER)) {
        Ok(name) => name.trim().to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => FIRST_TREE.to_owned(),
        Err(error) => return Err(error.into()),
    };
    if name != FIRST_TREE && !database.keyspace_exists(&name) {
        let why = format!("the tree {name:?}, which is the state, is missing");
        return Err(io::Error::other(why).into());
    }
    for other in database.list_keyspace_names() {
        if *other != *name {
            remove_tree(database, &other)?;
        }
    }
    database.keyspace(&name, KeyspaceCreateOptions::default)
}

fn remove_tree(database: &fjall::Database, name: &str) -> Result<(), fjall::Error> {
    let tree = database.keyspace(name, KeyspaceCreateOptions::default)?;
    database.delete_keyspace(tree)
}

fn point_at(path: &Path, name: &str) -> io::Result<()> {
    let temporary = path.join(format!("{POINTER}.new"));
    let mut file = File::create(&temporary)?;
    writeln!(file, "{name}")?;
    file.sync_all()?;
    fs::rename(&temporary, path.join(POINTER))?;
    sync_directory(path)
}

impl StateMap for FileMap {
    type View = FileView;

    fn view(&mut self) -> Result<FileView, fjall::Error> {
        self.settle(false)?;
        let newest = Arc::new(self.layer.clone());
        let sealed = self.sealed.as_ref().map(Arc::clone);
        // The tree may hold what is sealed already, or not: the layers lie above it either way.
        let layers = [Some(newest), sealed].into_iter().flatten().collect();
        Ok(FileView { layers, tree: self.tree.clone(), snapshot: self.database.snapshot() })
    }

    fn scan_view(
        &self,
        view: &FileView,
        from: &[u8],
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), fjall::Error> {
        let bounds = (Bound::Included(from), Bound::Unbounded);
        let mut sources: Vec<Source<'_>> = view
            .layers
            .iter()
            .map(|layer| Source::Layer(layer.range::<[u8], _>(bounds).peekable()))
            .collect();
        sources.push(Source::tree(view.snapshot.range::<&[u8], _>(&view.tree, bounds))?);
        merged(&mut sources, visit)
    }

    fn persist(&mut self, ticket: Ticket) -> Result<(), fjall::Error> {
        self.persisting = Some(ticket);
        self.settle(false)?;
        self.go_on_persisting();
        Ok(())
    }

    fn stage(&mut self, first: bool, pairs: Vec<(Bytes, Bytes)>) -> Result<(), fjall::Error> {
        if first {
            self.unstage();
            let unused = |number: &u64| {
                let name = format!("{FIRST_TREE}-{number}");
                !self.database.keyspace_exists(&name)
            };
            let number = (1..).find(unused).unwrap_or_default();
            let name = format!("{FIRST_TREE}-{number}");
            let tree = self.database.keyspace(&name, KeyspaceCreateOptions::default)?;
            self.staging = Some(Staging { name, tree, layer: Layer::new(), bytes: 0, storing: None });
        }
        let Some(staging) = &mut self.staging else { return Ok(()) };
        for (key, value) in pairs {
            staging.bytes += key.len() + value.len();
            staging.layer.insert(key, Some(value));
        }
        if staging.bytes < STAGE_BYTES {
            return Ok(());
        }
        // One run is stored while the next one is gathered; who is faster waits here.
        staging.settle()?;
        let (tell, stored) = mpsc::channel();
        let layer = std::mem::take(&mut staging.layer);
        staging.bytes = 0;
        staging.storing = Some(stored);
        match &self.layers {
            Some(layers) => layers.send(Work::Stage(staging.tree.clone(), layer, tell)).map_err(|_| gone()),
            None => Err(gone()),
        }
    }

    fn unstage(&mut self) {
        if let Some(mut staging) = self.staging.take() {
            // What cannot be removed now is removed when the map is opened again.
            let _ = staging.settle();
            let _ = self.database.delete_keyspace(staging.tree);
        }
    }

    fn install(&mut self, writes: WriteBatch) -> Result<(), fjall::Error> {
        let Some(mut staging) = self.staging.take() else {
            return Err(io::Error::other("nothing was kept aside that could be installed").into());
        };
        staging.settle()?;
        store(&staging.tree, &staging.layer)?;
        store(&staging.tree, &writes.into_iter().collect())?;
        self.database.persist(PersistMode::SyncAll)?;
        // Of the old state nothing may be under way any more.
        self.persisting = None;
        self.settle(true)?;
        point_at(&self.path, &staging.name)?;
        self.layer = Layer::new();
        self.layer_bytes = 0;
        let old = std::mem::replace(&mut self.tree, staging.tree);
        self.database.delete_keyspace(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};
    use synod_store::OrderedMap;

    fn open(path: &Path) -> FileMap {
        FileMap::open(path, 1 << 20, |_, _| {}).expect("opens")
    }

    fn batch(from: u32, to: u32, value: &str) -> WriteBatch {
        let mut batch = WriteBatch::default();
        (from..to).for_each(|i| batch.put(format!("k{i:05}").into(), value.to_owned().into()));
        batch
    }

    fn pairs(map: &FileMap, view: Option<&FileView>) -> Vec<(Bytes, Bytes)> {
        let mut pairs = Vec::new();
        let mut visit = |key: &Bytes, value: &Bytes| {
            pairs.push((key.clone(), value.clone()));
            ControlFlow::Continue(())
        };
        match view {
            Some(view) => map.scan_view(view, b"", &mut visit).expect("scans"),
            None => map.scan(b"a", None, &mut visit).expect("scans"),
        }
        pairs
    }

    #[test]
    fn a_view_stays_as_it_was_whatever_is_written_and_wherever_it_lies() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut map = open(directory.path());
        map.commit(batch(0, 300, "old")).expect("commits");
        map.store_all().expect("stores");
        map.commit(batch(100, 200, "sealed")).expect("commits");
        map.seal(None);
        let mut removal = batch(150, 400, "layer");
        removal.remove("k00000".into());
        map.commit(removal).expect("commits");
        let expected = pairs(&map, None);
        let view = map.view().expect("a view");
        map.commit(batch(0, 500, "new")).expect("commits");
        map.store_all().expect("stores");
        map.tree.major_compact().expect("compacts");
        assert_eq!(pairs(&map, Some(&view)), expected);
        assert_ne!(pairs(&map, None), expected);
    }

    #[test]
    fn what_is_installed_replaces_everything_and_is_there_after_opening_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut map = open(directory.path());
        map.commit(batch(0, 100, "mine")).expect("commits");
        map.store_all().expect("stores");
        map.commit(batch(100, 200, "mine too")).expect("commits");
        let theirs: Vec<_> =
            (50..20_000).map(|i| (Bytes::from(format!("k{i:05}")), Bytes::from(vec![b'.'; 600]))).collect();
        for (i, part) in theirs.chunks(500).enumerate() {
            map.stage(i == 0, part.to_vec()).expect("stages");
        }
        assert_eq!(pairs(&map, None).len(), 200, "it goes on serving");
        map.install(batch(60, 61, "ours")).expect("installs");
        let mut expected = theirs;
        expected[10].1 = "ours".into();
        assert_eq!(pairs(&map, None), expected);
        map.commit(batch(0, 1, "later")).expect("commits");
        drop(map);
        let map = open(directory.path());
        assert_eq!(pairs(&map, None).len(), expected.len() + 1);
        assert_eq!(map.database.keyspace_count(), 1, "the old tree is gone");
    }

    #[test]
    fn a_crash_before_the_pointer_moves_leaves_the_old_state() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut map = open(directory.path());
        map.commit(batch(0, 100, "mine")).expect("commits");
        map.store_all().expect("stores");
        map.stage(true, vec![("k".into(), "theirs".into())]).expect("stages");
        let staging = map.staging.take().expect("it is staged");
        store(&staging.tree, &staging.layer).expect("stores");
        drop(staging);
        drop(map);
        let mut map = open(directory.path());
        assert_eq!((pairs(&map, None).len(), map.database.keyspace_count()), (100, 1));
        // And it can be staged again.
        map.stage(true, vec![("k".into(), "theirs".into())]).expect("stages");
        map.install(WriteBatch::default()).expect("installs");
        assert_eq!(pairs(&map, None), [("k".into(), "theirs".into())]);
    }

    #[test]
    fn staging_again_forgets_what_was_staged() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut map = open(directory.path());
        map.stage(true, vec![("a".into(), "1".into())]).expect("stages");
        map.stage(true, vec![("b".into(), "2".into())]).expect("stages");
        map.install(WriteBatch::default()).expect("installs");
        assert_eq!(pairs(&map, None), [("b".into(), "2".into())]);
    }

    #[test]
    fn what_is_said_to_be_durable_is_in_the_tree() {
        let directory = tempfile::tempdir().expect("a directory");
        let told = Arc::new(AtomicU64::new(0));
        let tell = Arc::clone(&told);
        let mut map = FileMap::open(directory.path(), 1 << 20, move |ticket: Ticket, result| {
            assert_eq!(result, Ok(()));
            tell.store(ticket.0, Ordering::SeqCst);
        })
        .expect("opens");
        let wait_for = |map: &mut FileMap, ticket| {
            let begun = Instant::now();
            while told.load(Ordering::SeqCst) < ticket {
                assert!(begun.elapsed() < Duration::from_secs(20), "nobody told that {ticket} is done");
                map.settle(false).expect("stores");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        map.persist(Ticket(1)).expect("there is nothing to store");
        wait_for(&mut map, 1);
        map.commit(batch(0, 10, "sealed")).expect("commits");
        map.seal(None);
        map.commit(batch(10, 20, "layer")).expect("commits");
        map.persist(Ticket(2)).expect("begins");
        wait_for(&mut map, 2);
        assert_eq!(map.tree.len().expect("counts"), 20);
    }
}
