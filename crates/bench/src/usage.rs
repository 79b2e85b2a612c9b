//! What processes have used so far, as Linux counts it in `/proc`.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The processor time that this thread has used so far.
pub(crate) fn thread_processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// What one process had used at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads, those that ended included; in clock ticks, 10 ms each.
    pub processor: Duration,
    /// Bytes that it caused to be sent to storage; nothing when the kernel does not tell us.
    pub written_bytes: Option<u64>,
    /// Bytes of its memory that are in use.
    pub resident_bytes: u64,
}

impl Usage {
    /// Reads the use of a process; nothing once it is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let ticks = processor_ticks(&stat)?;
        let per_second = rustix::param::clock_ticks_per_second();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let io = fs::read_to_string(format!("/proc/{pid}/io")).ok();
        Some(Self {
            processor: Duration::from_nanos(ticks * 1_000_000_000 / per_second),
            written_bytes: io.and_then(|io| number_after(&io, "write_bytes:")),
            resident_bytes: number_after(&status, "VmRSS:").unwrap_or(0) * 1024,
        })
    }
}

/// The sum of fields 14 and 15 of proc_pid_stat(5). The second field, the name, may hold anything, even
/// brackets and blanks, so counting starts after the last bracket.
fn processor_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn number_after(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = "42 (a) R 1 (x) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 7 7 20 0 9 0 5 1 1";
        assert_eq!(processor_ticks(stat), Some(300));
    }

    #[test]
    fn our_own_use_is_readable_and_grows() {
        let before = thread_processor_time();
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        assert!(thread_processor_time() > before);
        let usage = Usage::of(std::process::id()).expect("our own entry in /proc");
        assert!(usage.processor > Duration::ZERO);
        assert!(usage.resident_bytes > 100_000);
    }

    #[test]
    fn a_process_that_does_not_exist_has_no_use() {
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
