//! Which writes were answered when, so that a read can be told to be stale.

use std::time::{Duration, Instant};

/// A write, numbered through the whole run. The number is its value.
pub type Number = usize;

/// What all clients together know.
#[derive(Debug)]
pub struct Book {
    /// When each write was answered, if it was.
    ended: Vec<Option<Instant>>,
    keys: Vec<Vec<Answered>>,
}

/// A write to a key that was answered; in the order of answers.
#[derive(Clone, Copy, Debug)]
struct Answered {
    at: Instant,
    /// The latest begin of a write to this key that was answered until then.
    begun_last: Instant,
}

impl Book {
    /// Nothing was written yet to any of so many keys.
    pub fn new(keys: usize) -> Book {
        Book { ended: Vec::new(), keys: vec![Vec::new(); keys] }
    }

    /// The number of the next write.
    pub fn begin(&mut self) -> Number {
        self.ended.push(None);
        self.ended.len() - 1
    }

    /// A write is answered. Writes are answered in the order of these calls.
    pub fn end(&mut self, number: Number, key: usize, begun: Instant, now: Instant) {
        self.ended[number] = Some(now);
        let answered = &mut self.keys[key];
        let begun_last = answered.last().map_or(begun, |last| last.begun_last.max(begun));
        answered.push(Answered { at: now, begun_last });
    }

    /// How stale a read was that was asked at `asked` and answered with this write, or with none: how long ago, when it was
    /// asked, the first write was answered that began after the one that was read had been answered. None if it was not
    /// stale, or if nobody knows when the write that was read took effect.
    pub fn staleness(&self, key: usize, read: Option<Number>, asked: Instant) -> Option<Duration> {
        let answered = &self.keys[key];
        let missing = match read {
            None => answered.first(),
            Some(number) => {
                let ended = self.ended.get(number).copied().flatten()?;
                answered.get(answered.partition_point(|write| write.begun_last <= ended))
            }
        };
        missing.filter(|write| write.at < asked).map(|write| asked - write.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A book of one key with these writes, as (begun, answered) in milliseconds, in the order of answers.
    fn book(start: Instant, writes: &[(u64, u64)]) -> Book {
        let at = |ms| start + Duration::from_millis(ms);
        let mut book = Book::new(1);
        for (begun, answered) in writes {
            let number = book.begin();
            book.end(number, 0, at(*begun), at(*answered));
        }
        book
    }

    #[test]
    fn a_read_is_stale_for_as_long_as_what_it_lacks_was_answered() {
        let start = Instant::now();
        let book = book(start, &[(0, 10), (20, 30), (40, 50)]);
        let staleness = |read, ms| book.staleness(0, read, start + Duration::from_millis(ms));
        assert_eq!(staleness(Some(0), 60), Some(Duration::from_millis(30)), "the second was answered at 30");
        assert_eq!(staleness(Some(1), 60), Some(Duration::from_millis(10)));
        assert_eq!(staleness(Some(2), 60), None, "the newest");
        assert_eq!(
            staleness(None, 60),
            Some(Duration::from_millis(50)),
            "nothing, though one was there at 10"
        );
        assert_eq!(staleness(Some(1), 45), None, "the third was under way");
    }

    #[test]
    fn of_writes_at_the_same_time_either_may_be_read() {
        let start = Instant::now();
        let book = book(start, &[(5, 10), (0, 20)]);
        for read in [Some(0), Some(1)] {
            assert_eq!(book.staleness(0, read, start + Duration::from_millis(30)), None);
        }
    }

    #[test]
    fn a_write_that_was_never_answered_is_not_known_to_be_old() {
        let start = Instant::now();
        let mut book = book(start, &[(0, 10)]);
        let unknown = book.begin();
        assert_eq!(book.staleness(0, Some(unknown), start + Duration::from_secs(1)), None);
        assert_eq!(book.staleness(0, Some(99), start + Duration::from_secs(1)), None, "of an earlier run");
    }
}
