//! A disk that does what disks may do, and, if told so, what they may not.
//!
//! Writes are seen by reads at once. Until the next sync of their segment each sector of 512 bytes
//! survives a crash or not on its own, drawn from the seed. Rotten bits, a full disk, a failing sync and a lying
//! one are faults that a script asks for.

use bytes::Bytes;
use std::collections::BTreeMap;
use synod_node::{Disk, DiskFault, SegmentId};
use synod_protocols::Rng;

/// What a disk writes whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// What was never written reads as these zeros, which need not be copied: most of a segment is preallocated and
/// empty, and a member that starts looks through all of it.
static BLANK: [u8; 128 << 10] = [0; 128 << 10];

/// The disk of one simulated member.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    segments: BTreeMap<SegmentId, Segment>,
    /// Removed since the last sync; a crash may bring them back.
    removed: Vec<(SegmentId, Segment)>,
    faults: Faults,
    /// Where the last write began, and the last one that was truly synced.
    last_write: Option<(SegmentId, usize)>,
    last_synced: Option<(SegmentId, usize)>,
    /// Memory for the next sectors to remember.
    #[expect(clippy::vec_box, reason = "whole boxes move between here and the segments")]
    spare: Vec<Box<[u8; SECTOR_BYTES]>>,
}

/// What is wrong with a disk now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// No room for new segments.
    pub(crate) full: bool,
    /// Syncs report success and keep nothing.
    pub(crate) lie: bool,
    /// The next sync fails.
    pub(crate) fail: bool,
    /// The next crash loses all that was not synced.
    pub(crate) lose_unsynced: bool,
    /// The next crash tears a sector.
    pub(crate) tear: bool,
}

#[derive(Clone, Debug)]
struct Segment {
    data: Vec<u8>,
    /// What sectors held at the last sync, of those written since.
    unsynced: BTreeMap<usize, Box<[u8; SECTOR_BYTES]>>,
    /// Whether it would exist after a crash.
    exists: bool,
    /// The end of what was ever written.
    written: usize,
    /// A sync since the last true one was a lie.
    lied: bool,
}

/// What a crash did to a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CrashReport {
    /// Sectors that kept what was written to them and not synced.
    pub(crate) kept: u32,
    /// Sectors that lost it.
    pub(crate) lost: u32,
    /// Sectors torn in the middle.
    pub(crate) torn: u32,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    pub(crate) fn faults_mut(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// Whether syncs are lies now.
    pub(crate) fn lies(&self) -> bool {
        self.faults.lie
    }

    /// Whether a crash now would lose what a sync said to have kept.
    pub(crate) fn has_lied(&self) -> bool {
        self.segments.values().any(|segment| segment.lied)
    }

    /// The power goes: of what was not synced, a part survives.
    pub(crate) fn crash(&mut self, rng: &mut Rng) -> CrashReport {
        let mut report = CrashReport::default();
        for (id, segment) in self.removed.drain(..) {
            if rng.chance(1, 2) {
                self.segments.entry(id).or_insert(segment);
            }
        }
        let Faults { lose_unsynced, mut tear, .. } = self.faults;
        self.segments.retain(|_, segment| {
            let all = lose_unsynced || segment.lied;
            let survives = segment.exists || (!all && rng.chance(1, 2));
            for (sector, old) in std::mem::take(&mut segment.unsynced) {
                let start = sector * SECTOR_BYTES;
                let end = (start + SECTOR_BYTES).min(segment.data.len());
                let keep = if tear {
                    report.torn += 1;
                    rng.below((end - start) as u64) as usize
                } else if !all && rng.chance(1, 2) {
                    report.kept += 1;
                    end - start
                } else {
                    report.lost += 1;
                    0
                };
                tear = false;
                segment.data[start + keep..end].copy_from_slice(&old[keep..end - start]);
            }
            segment.exists = true;
            segment.lied = false;
            survives
        });
        self.faults.lose_unsynced = false;
        self.faults.tear = false;
        report
    }

    /// Flips one bit among those that were written before the last write that was synced; there
    /// is none if it gives none.
    pub(crate) fn rot(&mut self, rng: &mut Rng) -> Option<(SegmentId, u64)> {
        let (last, offset) = self.last_synced?;
        let old = |(id, segment): (&SegmentId, &Segment)| match id.cmp(&last) {
            std::cmp::Ordering::Less => segment.written,
            std::cmp::Ordering::Equal => segment.written.min(offset),
            std::cmp::Ordering::Greater => 0,
        };
        let total: u64 = self.segments.iter().map(|pair| old(pair) as u64).sum();
        if total == 0 {
            return None;
        }
        let mut at = rng.below(total) as usize;
        for (id, segment) in &mut self.segments {
            if at < segment.written {
                segment.data[at] ^= 1 << rng.below(8);
                return Some((*id, at as u64));
            }
            at -= segment.written;
        }
        None
    }

    /// Everything is gone.
    pub(crate) fn wipe(&mut self) {
        self.segments.clear();
        self.removed.clear();
        (self.last_write, self.last_synced) = (None, None);
    }

    fn segment(&mut self, id: SegmentId) -> Result<&mut Segment, DiskFault> {
        self.segments.get_mut(&id).ok_or_else(|| DiskFault::Failed(format!("there is no segment {}", id.0)))
    }
}

impl Disk for SimDisk {
    fn segments(&mut self) -> Result<Vec<(SegmentId, u64)>, DiskFault> {
        Ok(self.segments.iter().map(|(id, segment)| (*id, segment.data.len() as u64)).collect())
    }

    fn read(&mut self, segment: SegmentId, offset: u64, len: usize) -> Result<Bytes, DiskFault> {
        let Segment { data, written, .. } = self.segment(segment)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let end = start.saturating_add(len).min(data.len());
        match BLANK.get(..end - start) {
            Some(blank) if start >= *written => Ok(Bytes::from_static(blank)),
            _ => Ok(Bytes::copy_from_slice(&data[start..end])),
        }
    }

    fn create(&mut self, segment: SegmentId, bytes: u64) -> Result<(), DiskFault> {
        if self.faults.full {
            return Err(DiskFault::Full);
        }
        let new = Segment {
            data: vec![0; usize::try_from(bytes).map_err(|_| DiskFault::Full)?],
            unsynced: BTreeMap::new(),
            exists: false,
            written: 0,
            lied: false,
        };
        self.removed.retain(|(id, _)| *id != segment);
        self.segments.insert(segment, new);
        Ok(())
    }

    fn write(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) -> Result<(), DiskFault> {
        let mut spare = std::mem::take(&mut self.spare);
        let found = self.segment(segment)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(bytes.len());
        if end > found.data.len() {
            return Err(DiskFault::Failed(format!(
                "a write of {} bytes at {offset} goes beyond the {} bytes of segment {}",
                bytes.len(),
                found.data.len(),
                segment.0
            )));
        }
        if !bytes.is_empty() {
            for sector in start / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
                let at = sector * SECTOR_BYTES;
                let data = &found.data[at..(at + SECTOR_BYTES).min(found.data.len())];
                found.unsynced.entry(sector).or_insert_with(|| {
                    let mut old = spare.pop().unwrap_or_else(|| Box::new([0; SECTOR_BYTES]));
                    old[..data.len()].copy_from_slice(data);
                    old
                });
            }
            found.data[start..end].copy_from_slice(bytes);
            found.written = found.written.max(end);
            self.last_write = Some((segment, start));
        }
        self.spare = spare;
        Ok(())
    }

    fn sync(&mut self, segment: SegmentId) -> Result<(), DiskFault> {
        let Faults { lie, fail, .. } = self.faults;
        if fail {
            self.faults.fail = false;
            return Err(DiskFault::Failed("an error of the device during a sync".into()));
        }
        let mut spare = std::mem::take(&mut self.spare);
        let found = self.segment(segment)?;
        if lie {
            found.lied = true;
        } else {
            found.exists = true;
            found.lied = false;
            while let Some((_, old)) = found.unsynced.pop_last() {
                spare.push(old);
            }
            self.removed.clear();
            self.last_synced = self.last_write;
        }
        self.spare = spare;
        Ok(())
    }

    fn remove(&mut self, segment: SegmentId) -> Result<(), DiskFault> {
        if let Some(found) = self.segments.remove(&segment)
            && found.exists
        {
            self.removed.push((segment, found));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SegmentId = SegmentId(1);

    fn disk() -> SimDisk {
        let mut disk = SimDisk::new();
        disk.create(ONE, 8 * SECTOR_BYTES as u64).expect("room");
        disk.sync(ONE).expect("a sync");
        disk
    }

    fn content(disk: &mut SimDisk) -> Bytes {
        disk.read(ONE, 0, usize::MAX).expect("a segment")
    }

    #[test]
    fn what_was_synced_survives_every_crash() {
        for seed in 0..100 {
            let mut disk = disk();
            disk.write(ONE, 100, b"synced").expect("a write");
            disk.sync(ONE).expect("a sync");
            disk.write(ONE, 600, b"not synced").expect("a write");
            disk.crash(&mut Rng::new(seed));
            assert_eq!(&content(&mut disk)[100..106], b"synced");
        }
    }

    #[test]
    fn unsynced_sectors_survive_one_by_one_and_whole() {
        let mut seen = [0; 4];
        for seed in 0..200 {
            let mut disk = disk();
            disk.write(ONE, 0, &[7; 2 * SECTOR_BYTES]).expect("a write");
            disk.crash(&mut Rng::new(seed));
            let found = content(&mut disk);
            let survived = |sector: usize| {
                let sector = &found[sector * SECTOR_BYTES..][..SECTOR_BYTES];
                assert!(sector.iter().all(|b| *b == sector[0]), "a sector is torn");
                usize::from(sector[0] == 7)
            };
            seen[survived(0) * 2 + survived(1)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 20), "{seen:?}");
    }

    #[test]
    fn a_torn_sector_is_new_and_then_old() {
        let torn = (0..50).any(|seed| {
            let mut disk = disk();
            disk.write(ONE, 0, &[7; SECTOR_BYTES]).expect("a write");
            disk.faults_mut().tear = true;
            assert_eq!(disk.crash(&mut Rng::new(seed)).torn, 1);
            let found = content(&mut disk);
            let new = found.iter().take_while(|b| **b == 7).count();
            assert!(found[new..].iter().all(|b| *b == 0));
            (1..SECTOR_BYTES).contains(&new)
        });
        assert!(torn);
    }

    #[test]
    fn a_lying_disk_loses_what_it_said_to_have_synced() {
        let mut disk = disk();
        disk.faults_mut().lie = true;
        disk.write(ONE, 0, b"lost").expect("a write");
        assert_eq!(disk.sync(ONE), Ok(()));
        disk.crash(&mut Rng::new(1));
        assert_eq!(&content(&mut disk)[..4], [0; 4]);
    }

    #[test]
    fn a_new_segment_may_be_missing_after_a_crash_and_an_old_one_may_be_back() {
        let (mut missing, mut back) = (0, 0);
        for seed in 0..100 {
            let mut disk = disk();
            disk.create(SegmentId(2), 4096).expect("room");
            disk.remove(ONE).expect("a removal");
            disk.crash(&mut Rng::new(seed));
            let found = disk.segments().expect("a list");
            missing += i32::from(!found.iter().any(|(id, _)| *id == SegmentId(2)));
            back += i32::from(found.iter().any(|(id, _)| *id == ONE));
        }
        assert!((20..80).contains(&missing) && (20..80).contains(&back), "{missing} {back}");
    }

    #[test]
    fn a_full_disk_has_no_room_for_segments_but_for_what_is_inside_of_them() {
        let mut disk = disk();
        disk.faults_mut().full = true;
        assert_eq!(disk.create(SegmentId(2), 4096), Err(DiskFault::Full));
        assert_eq!(disk.write(ONE, 0, b"x"), Ok(()));
    }

    #[test]
    fn rot_flips_one_bit_of_what_was_written_a_while_ago() {
        let mut disk = disk();
        assert_eq!(disk.rot(&mut Rng::new(1)), None);
        for offset in [0, 100, 200] {
            disk.write(ONE, offset, &[0; 100]).expect("a write");
            if offset < 200 {
                disk.sync(ONE).expect("a sync");
            }
        }
        assert!((0..100).all(|seed| disk.clone().rot(&mut Rng::new(seed)).is_some_and(|(_, at)| at < 100)));
        disk.rot(&mut Rng::new(1));
        let flipped: u32 = content(&mut disk).iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(flipped, 1);
    }
}
