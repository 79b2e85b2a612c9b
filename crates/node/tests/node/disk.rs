//! A disk in memory that loses what was not synced, in whole or sector by sector.

use bytes::Bytes;
use std::collections::BTreeMap;
use synod_node::{Disk, DiskFault, SegmentId};

pub(crate) const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
struct File {
    /// Whether its creation is durable.
    created: bool,
    bytes: Vec<u8>,
    /// For each sector written since the last sync, what it held before, oldest first.
    older: BTreeMap<usize, Vec<Vec<u8>>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDisk {
    files: BTreeMap<SegmentId, File>,
    /// Removed since the last sync.
    removed: BTreeMap<SegmentId, File>,
    /// Creating a segment finds no room.
    pub(crate) full: bool,
    /// The next sync fails.
    pub(crate) broken: bool,
    pub(crate) syncs: u64,
}

impl MemoryDisk {
    /// What a crash may leave. `choose(n)` picks below `n`: for a new file whether it is there, for a
    /// removed one whether it is back,
    /// for every sector that was not synced which of its contents.
    pub(crate) fn crash(&self, mut choose: impl FnMut(usize) -> usize) -> MemoryDisk {
        let mut disk = MemoryDisk::default();
        for (segment, file) in &self.removed {
            if choose(2) == 1 {
                disk.files.insert(*segment, file.clone());
            }
        }
        for (segment, file) in &self.files {
            if !file.created && choose(2) == 0 {
                continue;
            }
            let mut bytes = file.bytes.clone();
            for (sector, older) in &file.older {
                if let Some(old) = older.get(choose(older.len() + 1)) {
                    bytes[sector * SECTOR..][..old.len()].copy_from_slice(old);
                }
            }
            disk.files.insert(*segment, File { created: true, bytes, older: BTreeMap::new() });
        }
        disk
    }

    /// Every choice that [`MemoryDisk::crash`] may make.
    pub(crate) fn crashes(&self) -> Vec<MemoryDisk> {
        let mut images = Vec::new();
        let mut choices: Vec<(usize, usize)> = Vec::new();
        loop {
            let mut at = 0;
            images.push(self.crash(|n| {
                if at == choices.len() {
                    choices.push((0, n));
                }
                at += 1;
                choices[at - 1].0
            }));
            choices.truncate(at);
            while choices.last().is_some_and(|(choice, n)| choice + 1 == *n) {
                choices.pop();
            }
            match choices.last_mut() {
                Some((choice, _)) => *choice += 1,
                None => return images,
            }
        }
    }

    pub(crate) fn flip(&mut self, segment: SegmentId, bit: usize) {
        let file = self.files.get_mut(&segment).expect("the segment exists");
        file.bytes[bit / 8] ^= 1 << (bit % 8);
    }

    pub(crate) fn bytes(&self, segment: SegmentId) -> &[u8] {
        &self.files[&segment].bytes
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.files.keys().map(|segment| segment.0).collect()
    }

    pub(crate) fn lose(&mut self, segment: SegmentId) {
        self.files.remove(&segment);
    }
}

impl Disk for MemoryDisk {
    fn segments(&mut self) -> Result<Vec<(SegmentId, u64)>, DiskFault> {
        Ok(self.files.iter().map(|(segment, file)| (*segment, file.bytes.len() as u64)).collect())
    }

    fn read(&mut self, segment: SegmentId, offset: u64, len: usize) -> Result<Bytes, DiskFault> {
        let file = self.files.get(&segment).ok_or_else(|| DiskFault::Failed("no such segment".into()))?;
        let start = file.bytes.len().min(offset as usize);
        let end = file.bytes.len().min(start + len);
        Ok(Bytes::copy_from_slice(&file.bytes[start..end]))
    }

    fn create(&mut self, segment: SegmentId, bytes: u64) -> Result<(), DiskFault> {
        if self.full {
            return Err(DiskFault::Full);
        }
        let file = File { created: false, bytes: vec![0; bytes as usize], older: BTreeMap::new() };
        self.files.insert(segment, file);
        Ok(())
    }

    fn write(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) -> Result<(), DiskFault> {
        let file = self.files.get_mut(&segment).ok_or_else(|| DiskFault::Failed("no such segment".into()))?;
        let offset = offset as usize;
        assert!(offset + bytes.len() <= file.bytes.len(), "a write goes beyond its segment");
        for sector in offset / SECTOR..(offset + bytes.len()).div_ceil(SECTOR) {
            let end = file.bytes.len().min((sector + 1) * SECTOR);
            file.older.entry(sector).or_default().push(file.bytes[sector * SECTOR..end].to_vec());
        }
        file.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, segment: SegmentId) -> Result<(), DiskFault> {
        if self.broken {
            return Err(DiskFault::Failed("input/output error".into()));
        }
        self.syncs += 1;
        self.removed.clear();
        let file = self.files.get_mut(&segment).ok_or_else(|| DiskFault::Failed("no such segment".into()))?;
        file.created = true;
        file.older.clear();
        Ok(())
    }

    fn remove(&mut self, segment: SegmentId) -> Result<(), DiskFault> {
        if let Some(file) = self.files.remove(&segment) {
            self.removed.insert(segment, file);
        }
        Ok(())
    }
}
