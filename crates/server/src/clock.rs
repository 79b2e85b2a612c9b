//! The host's clock.

use rustix::time::{ClockId, clock_gettime};
use synod_protocols::Time;

/// Now, on the clock that counts the time since boot, suspension included. Members on one machine
/// read the same clock; members on different machines have unrelated ones.
pub(crate) fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    Time(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}
