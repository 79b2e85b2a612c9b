//! All objects of a replica, and digests of them by which two replicas find out where they differ.
//!
//! The keys are spread over [`LEAVES`] leaves of a Merkle tree with two levels (Merkle 1987; as in Dynamo, section
//! 4.7). A leaf's digest is the sum over its cells, so that a write changes it without looking at the others, and
//! the root's is the sum over the leaves. A cell is known by its object and its dot; what it holds follows from
//! these.

use super::dots::{CausalContext, Dot};
use super::object::{Cell, Content, Kind, Name, Object, Value, content, merge, normalise};
use super::update::{Answer, Objects, Update};
use crate::fingerprint::Fingerprint;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::hash::{Hash, Hasher};
use core::ops::Bound;

/// Leaves of the tree of digests.
pub const LEAVES: usize = 256;

/// All objects.
#[derive(Clone, Debug)]
pub struct Store {
    objects: BTreeMap<Name, Object>,
    leaves: Vec<u64>,
    tombstones: BTreeMap<Dot, Name>,
    /// Cells of updates that have not arrived, which others that have arrived replace or remove: at the eventual level an
    /// effect may come before its cause.
    covered: BTreeSet<(Dot, Name)>,
}

/// What a merge changed, to be made durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Cells that are gone.
    pub gone: Vec<(Name, Dot)>,
    /// Cells that are new.
    pub new: Vec<(Name, Dot, Cell)>,
    /// What updates that are to come will find replaced, and others have told of.
    pub covered: Vec<(Dot, Name)>,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            objects: BTreeMap::new(),
            leaves: vec![0; LEAVES],
            tombstones: BTreeMap::new(),
            covered: BTreeSet::new(),
        }
    }
}

impl Store {
    /// What a client sees of an object.
    pub fn read(&self, name: &Name) -> Content {
        content(name.kind, self.objects.get(name))
    }

    /// All objects that were written and not wholly removed, tombstones included.
    pub fn objects(&self) -> impl Iterator<Item = (&Name, &Object)> {
        self.objects.iter()
    }

    /// Objects that hold something, whose keys begin with `prefix` and which come after `after`: in order of their kinds,
    /// and then of their keys.
    pub fn shown<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&'a Name>,
    ) -> impl Iterator<Item = (&'a Name, Content)> {
        let of_kind = move |kind: Kind| {
            let first = Name { kind, key: Bytes::copy_from_slice(prefix) };
            let from = match after {
                Some(after) if *after >= first => Bound::Excluded(after.clone()),
                _ => Bound::Included(first),
            };
            let follows = move |name: &Name| name.kind == kind && name.key.starts_with(prefix);
            self.objects.range((from, Bound::Unbounded)).take_while(move |(name, _)| follows(name))
        };
        let found = Kind::ALL.into_iter().flat_map(of_kind);
        found
            .map(|(name, object)| (name, content(name.kind, Some(object))))
            .filter(|(_, content)| !content.is_nothing())
    }

    /// How many deleted registers leave a tombstone.
    pub fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// One digest for everything: replicas with the same cells, and the same in mind for updates that are to come, have
    /// the same.
    pub fn root(&self) -> u64 {
        let covered = self.covered.iter().map(|(dot, name)| digest(name, *dot).rotate_left(1));
        self.leaves.iter().copied().chain(covered).fold(0, u64::wrapping_add)
    }

    pub(super) fn leaves(&self) -> &[u64] {
        &self.leaves
    }

    pub(super) fn object(&self, name: &Name) -> Option<&Object> {
        self.objects.get(name)
    }

    /// Applies an update that was not seen before. `seen`: what was.
    pub(super) fn apply(&mut self, update: &Update, seen: &CausalContext) {
        for delta in &update.deltas {
            for dot in &delta.covers {
                self.remove(&delta.object, *dot);
                if !seen.contains(*dot) {
                    self.covered.insert((*dot, delta.object.clone()));
                }
            }
            let is_covered = self.covered.remove(&(update.dot, delta.object.clone()));
            if let (Some(value), false) = (&delta.value, is_covered) {
                let cell = Cell { stamp: update.stamp, value: value.clone() };
                self.insert(&delta.object, update.dot, cell);
                self.normalise(&delta.object);
            }
        }
    }

    /// A store with these objects, of which updates that are to come will find these cells replaced.
    pub(super) fn restore(objects: Objects, covered: Vec<(Dot, Name)>) -> Store {
        let mut store = Store { covered: covered.into_iter().collect(), ..Store::default() };
        for (name, cells) in objects {
            cells.into_iter().for_each(|(dot, cell)| store.insert(&name, dot, cell));
        }
        store
    }

    pub(super) fn covered(&self) -> impl Iterator<Item = &(Dot, Name)> {
        self.covered.iter()
    }

    /// The objects of these leaves.
    pub(super) fn of_leaves(&self, wanted: &BTreeSet<u64>) -> BTreeMap<Name, Object> {
        let is_wanted = |(name, _): &(&Name, &Object)| wanted.contains(&leaf(name));
        self.objects.iter().filter(is_wanted).map(|(name, object)| (name.clone(), object.clone())).collect()
    }

    /// What it takes to merge with another replica: `theirs` is all that it has in the leaves of its answer. In
    /// other leaves it had what was here before the updates `since`.
    pub(super) fn merge(
        &self,
        seen: &CausalContext,
        answer: &Answer,
        theirs: &BTreeMap<Name, Object>,
        since: &BTreeSet<Dot>,
    ) -> Changes {
        let leaves: BTreeSet<u64> = answer.leaves.iter().copied().collect();
        let mut changes = Changes::default();
        let nothing = Object::new();
        let mut names: BTreeSet<&Name> =
            self.objects.keys().filter(|name| leaves.contains(&leaf(name))).collect();
        names.extend(theirs.keys().filter(|name| leaves.contains(&leaf(name))));
        for name in names {
            let own = self.objects.get(name).unwrap_or(&nothing);
            let merged = merge(name.kind, own, seen, theirs.get(name).unwrap_or(&nothing), &answer.seen);
            let gone = own.keys().filter(|dot| !merged.contains_key(*dot));
            changes.gone.extend(gone.map(|dot| (name.clone(), *dot)));
            let is_covered = |dot: &Dot| self.covered.contains(&(*dot, name.clone()));
            let new = merged.iter().filter(|(dot, _)| !own.contains_key(*dot) && !is_covered(dot));
            changes.new.extend(new.map(|(dot, cell)| (name.clone(), *dot, cell.clone())));
        }
        // What came into the other leaves meanwhile and was seen by the sender was replaced there.
        for (name, object) in self.objects.iter().filter(|(name, _)| !leaves.contains(&leaf(name))) {
            let replaced = object.keys().filter(|dot| since.contains(*dot) && answer.seen.contains(**dot));
            changes.gone.extend(replaced.map(|dot| (name.clone(), *dot)));
        }
        for (dot, name) in &answer.covered {
            match seen.contains(*dot) {
                true => changes.gone.push((name.clone(), *dot)),
                false => changes.covered.push((*dot, name.clone())),
            }
        }
        changes
    }

    /// Does what a merge found out, after which this is seen.
    pub(super) fn change(&mut self, changes: &Changes, seen: &CausalContext) {
        changes.gone.iter().for_each(|(name, dot)| self.remove(name, *dot));
        changes.new.iter().for_each(|(name, dot, cell)| self.insert(name, *dot, cell.clone()));
        self.covered.extend(changes.covered.iter().cloned());
        self.covered.retain(|(dot, _)| !seen.contains(*dot));
    }

    /// Drops the tombstones that are stable.
    pub(super) fn bury(&mut self, stable: &CausalContext) -> usize {
        let dots: Vec<(Dot, Name)> = self
            .tombstones
            .iter()
            .filter(|(dot, _)| stable.contains(**dot))
            .map(|(dot, name)| (*dot, name.clone()))
            .collect();
        dots.iter().for_each(|(dot, name)| self.remove(name, *dot));
        dots.len()
    }

    fn insert(&mut self, name: &Name, dot: Dot, cell: Cell) {
        if matches!(cell.value, Value::Tombstone) {
            self.tombstones.insert(dot, name.clone());
        }
        let leaf = &mut self.leaves[leaf(name) as usize];
        if self.objects.entry(name.clone()).or_default().insert(dot, cell).is_none() {
            *leaf = leaf.wrapping_add(digest(name, dot));
        }
    }

    fn remove(&mut self, name: &Name, dot: Dot) {
        let Some(object) = self.objects.get_mut(name) else { return };
        if object.remove(&dot).is_none() {
            return;
        }
        if object.is_empty() {
            self.objects.remove(name);
        }
        self.tombstones.remove(&dot);
        let leaf = &mut self.leaves[leaf(name) as usize];
        *leaf = leaf.wrapping_sub(digest(name, dot));
    }

    fn normalise(&mut self, name: &Name) {
        if !matches!(name.kind, Kind::Register | Kind::Counter) {
            return;
        }
        let Some(object) = self.objects.get(name).filter(|object| object.len() > 1) else { return };
        let mut wanted = object.clone();
        normalise(name.kind, &mut wanted);
        let gone: Vec<Dot> = object.keys().filter(|dot| !wanted.contains_key(*dot)).copied().collect();
        gone.into_iter().for_each(|dot| self.remove(name, dot));
    }
}

/// Which leaf an object belongs to.
fn leaf(name: &Name) -> u64 {
    let mut digest = Fingerprint::new();
    name.hash(&mut digest);
    digest.finish() % LEAVES as u64
}

fn digest(name: &Name, dot: Dot) -> u64 {
    let mut digest = Fingerprint::new();
    (name, dot).hash(&mut digest);
    digest.finish()
}
