//! What consensus costs by itself: three members in one thread's memory, no disk, no sockets, nothing encoded.
//!
//! ```text
//! cd benches/core && cargo run --release
//! ```
//!
//! A *round* hands the leader a batch of commands of 64 bytes and runs until the leader has delivered all of them as
//! committed: one round trip to a majority, which is all that a batch of that size ever waits for. The cost is that of
//! all three members. A log entry counts as durable the moment it is handed out, and each member keeps its whole log in
//! memory, once: the peers in the storage that they are given, Synod in its process. Messages are moved, not copied.
//! At the end of a run every member must have delivered every command, and the time for that counts.
//!
//! Time is the processor's, of the one thread, so that a busy machine does not count; `openraft`'s tasks are all on that
//! thread too. The runs of the candidates are interleaved, and the median of [`RUNS`] is printed, with the number of
//! memory allocations per command, which depends on neither machine nor load.

mod candidates;

use candidates::{omni, openraft, synod, tikv};
use rustix::time::{ClockId, clock_gettime};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Runs of each candidate with each batch size.
const RUNS: usize = 5;
/// Commands in one round.
const BATCHES: [usize; 4] = [1, 16, 128, 1024];
/// Bytes of one command.
const COMMAND_BYTES: usize = 64;
/// Commands of one run, where a batch is one command, and where it is larger.
const COMMANDS: [usize; 2] = [20_000, 200_000];

/// The system's allocator, and how often it was asked for memory.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Three members of which one leads.
trait Cluster {
    /// Hands the leader so many commands, and runs until it has delivered them.
    fn round(&mut self, batch: usize);

    /// Runs until every member has delivered all commands, of which there are so many.
    fn settle(&mut self, commands: usize);
}

/// What one run came to.
#[derive(Clone, Copy)]
struct Figures {
    time: Duration,
    allocations: u64,
    commands: usize,
}

impl Figures {
    fn commands_per_second(&self) -> f64 {
        self.commands as f64 / self.time.as_secs_f64()
    }

    fn allocations_per_command(&self) -> f64 {
        self.allocations as f64 / self.commands as f64
    }
}

fn run(mut cluster: Box<dyn Cluster>, batch: usize) -> Figures {
    // What is reused from round to round has grown to its size before the clock starts.
    const WARMING: usize = 50;
    (0..WARMING).for_each(|_| cluster.round(batch));
    let rounds = COMMANDS[usize::from(batch > 1)] / batch;
    let (begun, before) = (processor_time(), ALLOCATIONS.load(Ordering::Relaxed));
    (0..rounds).for_each(|_| cluster.round(batch));
    cluster.settle((WARMING + rounds) * batch);
    let (time, allocations) = (processor_time() - begun, ALLOCATIONS.load(Ordering::Relaxed) - before);
    Figures { time, allocations, commands: rounds * batch }
}

/// What this thread has had of the processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

type Make = fn(usize) -> Box<dyn Cluster>;

fn main() {
    let candidates: [(&str, Make); 7] = [
        ("Synod, Raft", synod::raft),
        ("Synod, Multi-Paxos", synod::multi_paxos),
        ("Synod, Zab", synod::zab),
        ("Synod, Viewstamped Replication", synod::viewstamped),
        ("raft 0.7 (TiKV)", tikv::cluster),
        ("openraft 0.9", openraft::cluster),
        ("omnipaxos 0.2", omni::cluster),
    ];
    let chosen = std::env::args().nth(1);
    println!("| candidate | batch | commands/s | allocations/command |\n|---|---:|---:|---:|");
    for batch in BATCHES {
        let mut figures = vec![Vec::new(); candidates.len()];
        for _ in 0..RUNS {
            for ((name, make), figures) in candidates.iter().zip(&mut figures) {
                if chosen.as_ref().is_none_or(|chosen| name.contains(chosen.as_str())) {
                    figures.push(run(make(batch), batch));
                }
            }
        }
        for ((name, _), mut figures) in candidates.iter().zip(figures) {
            if figures.is_empty() {
                continue;
            }
            figures.sort_by_key(|figures| figures.time);
            let median = figures[figures.len() / 2];
            println!(
                "| {name} | {batch} | {:.0} | {:.2} |",
                median.commands_per_second(),
                median.allocations_per_command()
            );
        }
    }
}
