//! What this process has used, small statistics, and a seeded generator.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What this process, all its threads together, had used at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    pub at: Instant,
    pub processor: Duration,
    /// Bytes sent to storage on this process's account; the file system's own journal is not among them.
    pub written: u64,
}

impl Used {
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Self {
            at: Instant::now(),
            processor: Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32),
            written: proc_number("/proc/self/io", "write_bytes:"),
        }
    }
}

pub fn resident_kib() -> u64 {
    proc_number("/proc/self/status", "VmRSS:")
}

pub fn threads() -> u64 {
    proc_number("/proc/self/status", "Threads:")
}

fn proc_number(path: &str, label: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(label)).unwrap_or("0");
    line.split_ascii_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A value of a sorted list at a share of its length.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// SplitMix64's output function: a bijection that scatters.
pub fn scatter(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Bytes that do not compress.
pub fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| scatter(at) as u8).collect()
}
