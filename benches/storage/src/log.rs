//! Styles of writing a log whose every batch must be on disk before the next step: how often a second, how
//! late, and at which price in bytes.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use raft_engine::{Config, Engine, LogBatch, ReadableSize};
use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::measure::{Used, median, noise, quantile};
use crate::{Arguments, Result};

const RECORD_BYTES: usize = 300;
const SEGMENT_BYTES: u64 = 16 << 20;
const BLOCK_BYTES: u64 = 4096;
const BATCHES: [usize; 3] = [1, 8, 64];
/// How long one style writes batches of one size in one round.
const SLICE: Duration = Duration::from_millis(400);

const STYLES: [&str; 9] = [
    "growing",
    "fallocate",
    "zero-filled",
    "zero-filled, blocks",
    "zero-filled, O_DSYNC",
    "zero-filled, 2nd thread",
    "zero-filled, write in 2nd thread",
    "raft-engine",
    "raft-engine, recycling",
];

/// Writes one batch and returns once it is durable.
type Writer = Box<dyn FnMut(&[u8]) -> Result<()>>;

/// Runs every style with every batch size `rounds` times and prints the medians.
pub fn compare(arguments: &Arguments) -> Result<()> {
    let rounds = if arguments.rounds == 0 { 7 } else { arguments.rounds };
    let dir = arguments.dir.join("log");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let mut results: BTreeMap<(usize, usize), Vec<[f64; 5]>> = BTreeMap::new();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (at, style) in STYLES.iter().enumerate() {
            for batch in BATCHES {
                let path = dir.join("segment");
                results.entry((batch, at)).or_default().push(one(style, batch, &path)?);
                let _ = std::fs::remove_dir_all(&path);
                let _ = std::fs::remove_file(&path);
            }
        }
    }
    println!(
        "| records a batch | style (median of {rounds}) | syncs/s | p50 µs | p99 µs | processor µs/batch | bytes written/record |"
    );
    println!("|---|---|---|---|---|---|---|");
    for ((batch, style), rounds) in &results {
        let cell = |column: usize| median(&mut rounds.iter().map(|row| row[column]).collect::<Vec<_>>());
        print!("| {batch} | {} |", STYLES[*style]);
        (0..5).for_each(|column| print!(" {:.0} |", cell(column)));
        println!();
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Syncs a second, p50 and p99 in µs, processor µs a batch, bytes written a record.
fn one(style: &str, batch: usize, path: &Path) -> Result<[f64; 5]> {
    let bytes = noise(batch * RECORD_BYTES);
    let mut write = writer(style, batch, path)?;
    for _ in 0..10 {
        write(&bytes)?;
    }
    let before = Used::now();
    let mut latencies = Vec::new();
    while before.at.elapsed() < SLICE {
        let began = Instant::now();
        write(&bytes)?;
        latencies.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let elapsed = before.at.elapsed().as_secs_f64();
    let after = Used::now();
    let count = latencies.len() as f64;
    latencies.sort_by(f64::total_cmp);
    Ok([
        count / elapsed,
        quantile(&latencies, 0.5),
        quantile(&latencies, 0.99),
        (after.processor - before.processor).as_secs_f64() * 1e6 / count,
        (after.written - before.written) as f64 / (count * batch as f64),
    ])
}

fn writer(style: &str, batch: usize, path: &Path) -> Result<Writer> {
    Ok(match style {
        "growing" => segment(create(path, 0)?, false, false),
        "fallocate" => {
            let file = create(path, 0)?;
            fallocate(&file, FallocateFlags::empty(), 0, SEGMENT_BYTES)?;
            file.sync_all()?;
            segment(file, true, false)
        }
        "zero-filled" => segment(zero_filled(path, 0)?, true, false),
        "zero-filled, blocks" => segment(zero_filled(path, 0)?, true, true),
        "zero-filled, O_DSYNC" => {
            let file = zero_filled(path, OFlags::DSYNC.bits())?;
            let mut at = 0;
            Box::new(move |bytes| {
                at = place(at, bytes.len(), true, false);
                file.write_all_at(bytes, at)?;
                at += bytes.len() as u64;
                Ok(())
            })
        }
        "zero-filled, 2nd thread" => second_thread(zero_filled(path, 0)?, false),
        "zero-filled, write in 2nd thread" => second_thread(zero_filled(path, 0)?, true),
        "raft-engine" => raft_engine(batch, path, false)?,
        "raft-engine, recycling" => raft_engine(batch, path, true)?,
        _ => return Err(format!("no style is called {style}").into()),
    })
}

fn create(path: &Path, flags: u32) -> Result<File> {
    let options =
        OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags as i32).open(path);
    Ok(options?)
}

/// Every block written and synced once, as a recycled segment's are, so that no later sync has to change what
/// the file system knows of the file.
fn zero_filled(path: &Path, flags: u32) -> Result<File> {
    let file = create(path, 0)?;
    // In single pages: the kernel would keep a longer write as one large folio, and charge all of it to
    // this process for every record that touches it.
    let zeros = vec![0; BLOCK_BYTES as usize];
    for at in (0..SEGMENT_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    create(path, flags)
}

/// Where the next batch goes: a preallocated segment is begun anew when full.
fn place(at: u64, length: usize, wrap: bool, blocks: bool) -> u64 {
    let at = if blocks { at.next_multiple_of(BLOCK_BYTES) } else { at };
    if wrap && at + length as u64 > SEGMENT_BYTES { 0 } else { at }
}

/// Writes and syncs in turn. With `blocks`, every batch begins in a block of its own, so that no write
/// touches a block that holds acknowledged records.
fn segment(file: File, wrap: bool, blocks: bool) -> Writer {
    let mut at = 0;
    Box::new(move |bytes| {
        at = place(at, bytes.len(), wrap, blocks);
        file.write_all_at(bytes, at)?;
        at += bytes.len() as u64;
        file.sync_data()?;
        Ok(())
    })
}

/// Leaves the sync, and the write too if asked, to another thread, as a server does whose main thread must not
/// block.
fn second_thread(file: File, write_there: bool) -> Writer {
    let (ask, asked) = mpsc::channel::<(u64, Vec<u8>)>();
    let (answer, answered) = mpsc::channel::<std::io::Result<()>>();
    let handle = file.try_clone();
    std::thread::spawn(move || {
        let Ok(file) = handle else { return };
        // Ends with the writer, whose end of the channel closes.
        while let Ok((at, bytes)) = asked.recv() {
            let done = file.write_all_at(&bytes, at).and_then(|()| file.sync_data());
            if answer.send(done).is_err() {
                return;
            }
        }
    });
    let mut at = 0;
    Box::new(move |bytes| {
        at = place(at, bytes.len(), true, false);
        if write_there {
            ask.send((at, bytes.to_vec()))?;
        } else {
            file.write_all_at(bytes, at)?;
            ask.send((at, Vec::new()))?;
        }
        at += bytes.len() as u64;
        Ok(answered.recv()??)
    })
}

fn raft_engine(batch: usize, path: &Path, recycle: bool) -> Result<Writer> {
    let engine = Engine::open(Config {
        dir: path.to_str().ok_or("the directory's name is not UTF-8")?.to_owned(),
        target_file_size: ReadableSize(SEGMENT_BYTES),
        purge_threshold: ReadableSize(4 * SEGMENT_BYTES),
        batch_compression_threshold: ReadableSize(0),
        enable_log_recycle: recycle,
        prefill_for_recycle: recycle,
        ..Config::default()
    })?;
    let mut index = 0_u64;
    Ok(Box::new(move |bytes| {
        let mut log_batch = LogBatch::with_capacity(batch);
        for record in bytes.chunks(RECORD_BYTES) {
            index += 1;
            // Few keys, so that the engine's index in memory does not grow.
            log_batch.put(1, (index % 1024).to_be_bytes().to_vec(), record.to_vec())?;
        }
        engine.write(&mut log_batch, true)?;
        Ok(())
    }))
}
