//! What the store asks of the map below: how often, how much, and what it does when that fails.

mod support;

use std::cell::Cell;
use std::ops::ControlFlow;

use bytes::Bytes;
use support::{put, range};
use synod_store::{Command, Error, MemoryMap, OrderedMap, Store, WriteBatch};

/// Counts what is asked of it, and fails once it is told to.
#[derive(Default)]
struct Counting {
    pairs: MemoryMap,
    gets: Cell<usize>,
    scans: Cell<usize>,
    writes: Vec<usize>,
    broken: bool,
}

impl Counting {
    fn check(&self) -> Result<(), &'static str> {
        if self.broken { Err("the disk is on fire") } else { Ok(()) }
    }
}

impl OrderedMap for Counting {
    type Error = &'static str;

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Self::Error> {
        self.gets.set(self.gets.get() + 1);
        self.check()?;
        let Ok(value) = self.pairs.get(key);
        Ok(value)
    }

    fn scan(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), Self::Error> {
        self.scans.set(self.scans.get() + 1);
        self.check()?;
        let Ok(()) = self.pairs.scan(from, to, visit);
        Ok(())
    }

    fn commit(&mut self, writes: WriteBatch) -> Result<(), Self::Error> {
        self.check()?;
        self.writes.push(writes.len());
        let Ok(()) = self.pairs.commit(writes);
        Ok(())
    }
}

/// Gets, scans, and the sizes of the commits since the last time.
fn spent(store: &mut Store<Counting>) -> (usize, usize, Vec<usize>) {
    let map = store.map_mut();
    (map.gets.take(), map.scans.take(), std::mem::take(&mut map.writes))
}

fn open() -> Store<Counting> {
    let mut store = Store::open(Counting::default()).unwrap();
    spent(&mut store);
    store
}

#[test]
fn a_new_key_costs_one_read_and_one_write_beside_the_stores_numbers() {
    let mut store = open();
    store.apply(&Command::Put(put("a", "1"))).unwrap();
    store.commit().unwrap();
    assert_eq!(spent(&mut store), (1, 0, vec![2]));
}

#[test]
fn an_old_key_costs_one_read_and_two_writes_beside_the_stores_numbers() {
    let mut store = open();
    store.apply(&Command::Put(put("a", "1"))).unwrap();
    store.commit().unwrap();
    spent(&mut store);
    store.apply(&Command::Put(put("a", "2"))).unwrap();
    store.commit().unwrap();
    assert_eq!(spent(&mut store), (1, 0, vec![3]));
}

#[test]
fn a_batch_is_one_commit_and_writes_the_stores_numbers_once() {
    let mut store = open();
    for key in ["a", "b", "c", "d"] {
        store.apply(&Command::Put(put(key, ""))).unwrap();
    }
    store.node_put(b"applied", "4".into());
    store.commit().unwrap();
    assert_eq!(spent(&mut store), (4, 0, vec![6]));
}

#[test]
fn a_commit_with_nothing_new_asks_for_nothing_and_with_the_nodes_writes_for_those_alone() {
    let mut store = open();
    store.apply(&Command::Put(put("a", ""))).unwrap();
    store.commit().unwrap();
    spent(&mut store);
    store.commit().unwrap();
    assert_eq!(spent(&mut store), (0, 0, vec![]));
    store.node_put(b"applied", "5".into());
    store.commit().unwrap();
    assert_eq!(spent(&mut store), (0, 0, vec![1]));
}

#[test]
fn a_read_of_one_key_is_one_get_also_in_the_past_if_nothing_came_since() {
    let mut store = open();
    store.apply(&Command::Put(put("a", ""))).unwrap();
    store.apply(&Command::Put(put("b", ""))).unwrap();
    store.commit().unwrap();
    spent(&mut store);
    store.range(&range("a", "")).unwrap();
    assert_eq!(spent(&mut store), (1, 0, vec![]));
    let mut past = range("a", "");
    past.revision = 2;
    store.range(&past).unwrap();
    assert_eq!(spent(&mut store), (1, 0, vec![]));
}

#[test]
fn a_failing_map_is_no_refusal() {
    let mut store = open();
    store.map_mut().broken = true;
    let failed = Error::Map("the disk is on fire");
    assert_eq!(store.apply(&Command::Put(put("a", ""))), Err(failed.clone()));
    assert_eq!(store.range(&range("a", "b")), Err(failed.clone()));
    assert_eq!(store.fingerprint(), Err(failed.clone()));
    assert!(failed.refusal().is_none());
    store.node_put(b"applied", "1".into());
    assert_eq!(store.commit(), Err(failed));
}
