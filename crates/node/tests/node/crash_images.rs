//! What a crash may leave on the disk, and what recovery makes of it.

use crate::disk::MemoryDisk;
use crate::host::{A, Host, ME, config};
use crate::list::List;
use crate::script::Op;
use bytes::Bytes;
use synod_node::frame::{
    FRAME_HEADER_BYTES, Frame, FrameKind, Parsed, Place, SEGMENT_HEADER_BYTES, frame_len, parse_frame,
};
use synod_node::*;
use synod_protocols::Rng;

/// How many notes a disk gives back.
fn recovered(disk: &MemoryDisk) -> Result<u64, StartError> {
    Ok(Host::start(disk.clone(), List::default())?.node.process().notes)
}

/// Whatever a crash left, the acknowledged notes are there, in order, with nothing made up, and the
/// member can go on and be started again.
fn check_crashes(images: &[MemoryDisk], acknowledged: u64, emitted: u64) {
    for (i, image) in images.iter().enumerate() {
        let mut host = Host::start(image.clone(), List::default())
            .unwrap_or_else(|error| panic!("image {i}: a torn write was taken for damage: {error}"));
        let notes = host.node.process().notes;
        assert!(
            (acknowledged..=emitted).contains(&notes),
            "image {i}: {notes} notes, {acknowledged} acknowledged, {emitted} emitted"
        );
        host.say([Op::Note(700)]);
        host.settle();
        assert_eq!(recovered(&host.disk).expect("the log goes on"), notes + 1, "image {i}");
        // A crash right after recovery, before anything new was written.
        let again = Host::start(image.clone(), List::default()).expect("it started before");
        for image in again.disk.crashes() {
            assert_eq!(recovered(&image).expect("clearing garbage is harmless"), notes);
        }
    }
}

#[test]
fn every_tear_of_every_write_of_a_small_log_recovers_what_was_acknowledged() {
    let mut images = 0;
    for sizes in [[10, 10, 10, 10], [450, 60, 1, 1200], [1000, 900, 800, 700], [2000, 2000, 2000, 2000]] {
        for mark in [false, true] {
            let mut host = Host::start(MemoryDisk::default(), List::default()).expect("blank");
            let mut emitted = 0;
            for bytes in sizes {
                host.say([Op::Note(bytes), Op::Note(5)]);
                host.say([Op::Note(7)]);
                let acknowledged = emitted;
                emitted += 3;
                if host.pending.is_empty() {
                    host.flush();
                }
                for command in std::mem::take(&mut host.pending) {
                    let mut torn = host.disk.clone();
                    // The sync did not happen.
                    let DiskCommand::Append { segment, create, offset, bytes, .. } = command.clone() else {
                        panic!("nothing is read")
                    };
                    if let Some(size) = create {
                        torn.create(segment, size).expect("there is room");
                    }
                    torn.write(segment, offset, &bytes).expect("there is room");
                    let crashes = torn.crashes();
                    images += crashes.len();
                    check_crashes(&crashes, acknowledged, emitted);
                    host.pending.push(command);
                }
                host.settle();
                if mark {
                    host.wait(std::time::Duration::from_millis(20));
                    host.settle();
                }
                check_crashes(&host.disk.crashes(), emitted, emitted);
            }
        }
    }
    assert!(images > 500, "only {images} images were looked at");
}

#[test]
fn random_tears_of_large_batches_recover_what_was_acknowledged() {
    let mut config = config();
    config.limits.segment_bytes = 256 << 10;
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut host =
            Host::start_with(config.clone(), MemoryDisk::default(), List::default()).expect("blank");
        let mut acknowledged = 0;
        let mut emitted = 0;
        let mut disk = MemoryDisk::default();
        for _ in 0..rng.between(1, 5) {
            host.settle();
            acknowledged = emitted;
            // Several frames in one write: a frame takes no more steps after 64 KiB.
            for _ in 0..rng.between(1, 60) {
                host.say([Op::Note(rng.between(1, 6000))]);
                emitted += 1;
            }
            host.flush();
            disk = host.disk.clone();
            let Some(DiskCommand::Append { segment, create, offset, bytes, .. }) = host.pending.first()
            else {
                panic!("records are pending")
            };
            if let Some(size) = create {
                disk.create(*segment, *size).expect("there is room");
            }
            disk.write(*segment, *offset, bytes).expect("there is room");
        }
        let image = disk.crash(|n| rng.below(n as u64) as usize);
        let again = Host::start_with(config.clone(), image, List::default())
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let notes = again.node.process().notes;
        assert!((acknowledged..=emitted).contains(&notes), "seed {seed}: {acknowledged} {notes} {emitted}");
    }
}

/// A log of two segments whose last frame is covered by a mark, and what it holds.
fn covered_log() -> (MemoryDisk, u64) {
    let mut host = Host::running();
    for bytes in [10, 600, 1500, 1200, 900, 30] {
        host.say([Op::Note(bytes)]);
        host.settle();
    }
    host.wait(std::time::Duration::from_millis(20));
    host.settle();
    (host.disk, 6)
}

fn frames(disk: &MemoryDisk, segment: SegmentId) -> Vec<(usize, Frame)> {
    let bytes = Bytes::copy_from_slice(disk.bytes(segment));
    let mut offset = SEGMENT_HEADER_BYTES;
    let mut frames = Vec::new();
    loop {
        let place = Place { cluster: ClusterId(7), node: ME, segment, offset: offset as u64 };
        let Parsed::Frame(frame) = parse_frame(&bytes.slice(offset..), &place) else { return frames };
        let len = frame_len(frame.body.len());
        frames.push((offset, frame));
        offset += len;
    }
}

/// What a start makes of a disk: the notes that are left, how often something was said to be lost, and what
/// people are told of it.
fn damage(disk: &MemoryDisk) -> (u64, u64, Vec<String>) {
    let host = Host::start(disk.clone(), List::default()).expect("something is left to go on with");
    let told = host.notices.iter().filter_map(|notice| match notice {
        Notice::Damaged(what) => Some(what.clone()),
        _ => None,
    });
    let process = host.node.process();
    (process.notes, process.lost, told.collect())
}

#[test]
fn every_flipped_bit_in_acknowledged_bytes_is_reported_as_damage() {
    let (disk, notes) = covered_log();
    let mut reported = 0;
    for segment in [SegmentId(1), SegmentId(2)] {
        let mut covered: Vec<_> = (0..SEGMENT_HEADER_BYTES).collect();
        for (offset, frame) in frames(&disk, segment) {
            if frame.kind != FrameKind::Mark {
                covered.extend(offset..offset + FRAME_HEADER_BYTES + frame.body.len());
            }
        }
        assert!(covered.len() > 1000, "the log has two segments");
        for bit in 0..disk.bytes(segment).len() * 8 {
            // Every bit where a frame's header is; elsewhere one of each byte.
            if bit % 8 != (bit / 8) % 8 && !covered.contains(&(bit / 8)) {
                continue;
            }
            let mut bad = disk.clone();
            bad.flip(segment, bit);
            let (left, lost, told) = damage(&bad);
            if covered.binary_search(&(bit / 8)).is_ok() {
                assert_eq!(lost, 1, "segment {segment:?} bit {bit}: damage was not noticed, or twice");
                assert!(told[0].contains("segment ") && told[0].contains("offset "), "{told:?}");
                assert!(left == notes || left + 1 == notes, "no more is lost than one frame: {left}");
                reported += 1;
            } else {
                assert_eq!((left, lost), (notes, 0), "bit {bit}: nothing acknowledged is damaged");
            }
        }
    }
    assert!(reported > 10_000, "only {reported} flips were reported");
}

#[test]
fn a_damaged_log_goes_on_behind_the_damage_and_is_found_damaged_again() {
    let (disk, _) = covered_log();
    let before = Host::start(disk.clone(), List::default()).expect("it is whole").node.status().incarnation;
    for segment in [SegmentId(1), SegmentId(2)] {
        for (offset, frame) in frames(&disk, segment) {
            if frame.kind == FrameKind::Mark {
                continue;
            }
            let mut bad = disk.clone();
            bad.flip(segment, (offset + FRAME_HEADER_BYTES) * 8);
            let mut notes = damage(&bad).0;
            for life in 0..3 {
                let mut host = Host::start(bad, List::default()).expect("something is left");
                assert_eq!((host.node.process().notes, host.node.process().lost), (notes, 1), "life {life}");
                assert!(host.node.status().damaged && host.node.status().incarnation >= before);
                host.settle();
                host.say([Op::Note(900), Op::Note(20)]);
                host.settle();
                notes += 2;
                bad = host.disk;
            }
        }
    }
}

#[test]
fn a_damaged_record_costs_only_positions_once_it_was_restated() {
    let mut host = Host::running();
    host.say([Op::Note(10)]);
    host.settle();
    let first = frames(&host.disk, SegmentId(1)).pop().expect("there is a note").0;
    for _ in 0..4 {
        host.say([Op::Note(1900)]);
        host.settle();
    }
    assert!(host.disk.ids().len() > 1);
    host.disk.flip(SegmentId(1), (first + FRAME_HEADER_BYTES) * 8);
    let again = Host::start(host.disk, List::default()).expect("it goes on");
    assert_eq!((again.node.process().notes, again.node.process().lost), (5, 1));
}

#[test]
fn a_start_leaves_the_last_frame_covered() {
    let (disk, _) = covered_log();
    let last =
        frames(&disk, SegmentId(2)).iter().rev().find(|(_, frame)| frame.kind == FrameKind::Records).cloned();
    let (offset, _) = last.expect("the second segment holds records");
    // Started, and gone again before it wrote anything.
    let mut disk = Host::start(disk, List::default()).expect("nothing is wrong yet").disk;
    disk.flip(SegmentId(2), (offset + FRAME_HEADER_BYTES) * 8);
    assert_eq!(damage(&disk).1, 1);
}

#[test]
fn what_a_crash_interrupted_never_comes_back() {
    let mut torn = 0;
    for pad in 0..64 {
        let mut first = Host::running();
        first.say([Op::Note(pad * 16 + 1)]);
        first.settle();
        // The second life writes its beginning and a note at once, and only the note arrives.
        let mut second = Host::start_unflushed(first.disk);
        second.say([Op::Note(600)]);
        second.flush();
        let Some(DiskCommand::Append { segment, offset, bytes, create, .. }) = second.pending.pop() else {
            panic!("a beginning is written")
        };
        create.into_iter().for_each(|size| second.disk.create(segment, size).expect("there is room"));
        second.disk.write(segment, offset, &bytes).expect("there is room");
        for image in second.disk.crashes() {
            let Ok(mut third) = Host::start(image, List::default()) else { panic!("nothing is damaged") };
            third.settle();
            let notes = third.node.process().notes;
            torn += u64::from(notes == 1);
            // The third life puts its own beginning where that of the second was to be.
            assert_eq!(recovered(&third.disk).expect("nothing is damaged"), notes, "pad {pad}");
        }
    }
    assert!(torn > 100, "{torn}");
}

#[test]
fn acknowledged_sectors_that_were_zeroed_are_reported_as_damage() {
    let (disk, _) = covered_log();
    for sector in 0..4 {
        let mut bad = disk.clone();
        let zeros = [0; 512];
        bad.write(SegmentId(1), sector * 512, &zeros).expect("inside the segment");
        assert_eq!(damage(&bad).1, 1, "sector {sector}");
    }
}

#[test]
fn a_missing_segment_is_reported_as_damage() {
    let (disk, notes) = covered_log();
    let mut bad = disk.clone();
    bad.lose(SegmentId(1));
    let (_, lost, told) = damage(&bad);
    assert!(lost == 1 && told[0].contains("segment 1") && told[0].contains("missing"), "{told:?}");
    assert_eq!(recovered(&disk).expect("nothing is missing"), notes);
}

#[test]
fn a_log_of_another_cluster_member_or_protocol_is_refused() {
    let (disk, _) = covered_log();
    for (name, change) in [
        ("cluster", (|config| config.cluster = ClusterId(8)) as fn(&mut NodeConfig)),
        ("member", |config| config.id = A),
    ] {
        let mut config = config();
        change(&mut config);
        let Err(StartError::Foreign { what }) = Host::start_with(config, disk.clone(), List::default())
        else {
            panic!("it belongs to another {name}")
        };
        assert!(what.contains(name), "{what}");
    }
}

#[test]
fn an_empty_disk_under_an_old_identity_is_refused() {
    let config = || NodeConfig { bootstrap: Bootstrap::Existing, ..config() };
    let start = |disk| Host::start_with(config(), disk, List::default());
    assert!(matches!(start(MemoryDisk::default()), Err(StartError::Blank)));
    // A segment whose first write never arrived is as good as none.
    let mut created = MemoryDisk::default();
    created.create(SegmentId(1), 4096).expect("there is room");
    assert!(matches!(start(created), Err(StartError::Blank)));
    let (disk, notes) = covered_log();
    assert_eq!(start(disk).expect("it has lived").node.process().notes, notes);
}

#[test]
fn a_segment_that_was_created_and_never_written_is_tolerated() {
    let (mut disk, notes) = covered_log();
    disk.create(SegmentId(3), 4096).expect("there is room");
    check_crashes(&disk.crashes(), notes, notes);
}

#[test]
fn every_start_is_a_new_life() {
    let mut disk = MemoryDisk::default();
    for life in 1..=3 {
        let mut host = Host::start(disk, List::default()).expect("it starts");
        host.settle();
        assert_eq!(host.node.status().incarnation.0, life);
        disk = host.disk;
    }
}

#[test]
fn a_state_machine_ahead_of_the_log_is_refused() {
    let mut host = Host::running();
    host.put("one");
    host.settle();
    let machine = host.node.into_machine().crash(0);
    assert_eq!(machine.commands.len(), 1);
    let Err(StartError::Machine(what)) = Host::start(MemoryDisk::default(), machine) else {
        panic!("the log is empty and the machine is not")
    };
    assert!(what.contains("entry 1") && what.contains("entry 0"), "{what}");
}

#[test]
fn a_state_machine_that_lost_its_latest_commits_is_brought_up_to_date() {
    let mut host = Host::running();
    for command in ["one", "two", "three"] {
        host.put(command);
        host.settle();
    }
    let machine = host.node.machine().clone();
    for lost in 0..=machine.commits() {
        let mut host = Host::start(host.disk.clone(), machine.crash(lost)).expect("it starts");
        host.settle();
        assert_eq!(host.node.machine().commands, ["one", "two", "three"], "{lost} commits were lost");
        assert_eq!(host.node.process().applied.0, 3);
    }
}
