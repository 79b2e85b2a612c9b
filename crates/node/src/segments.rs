//! Which segments the log has, and which of them it could do without.
//!
//! A segment may go when the state covers every position that its records hold, and when a later
//! segment restates what no position holds. How much the state must cover is remembered as the
//! *point* at which it first did: giving up the log to there, and no further, leaves the entries
//! after it to be sent to members that are a little behind.

use crate::disk::SegmentId;
use crate::positions::FrameAt;
use std::collections::VecDeque;
use synod_protocols::log::{Index, SnapshotPoint};

/// Whole segments kept before the one being written, for members that are a little behind.
const KEPT: u64 = 1;

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    id: SegmentId,
    /// The last position that any of its records holds.
    last: Index,
    /// The first frame that restates what no position holds.
    restated: Option<u64>,
    /// The first point seen at which the state covered all its positions, once it is closed.
    covered: Option<SnapshotPoint>,
}

/// The segments of a log, oldest first; the last one is being written.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    all: VecDeque<Segment>,
}

impl Segments {
    /// A segment before the first that is read: the state covered it before this life.
    pub(crate) fn push_leftover(&mut self, id: SegmentId, base: &SnapshotPoint) {
        let covered = Some(base.clone());
        self.all.push_back(Segment { id, last: Index::ZERO, restated: None, covered });
    }

    /// Takes note of the next frame of the log.
    pub(crate) fn add(&mut self, frame: &FrameAt, restates: bool) {
        if self.all.back().is_none_or(|segment| segment.id < frame.segment) {
            let last = Index::ZERO;
            self.all.push_back(Segment { id: frame.segment, last, restated: None, covered: None });
        }
        let segment = self.all.back_mut().expect("just made sure");
        if let Some((_, last)) = frame.span {
            segment.last = segment.last.max(last);
        }
        if restates && segment.restated.is_none() {
            segment.restated = Some(frame.sequence);
        }
    }

    /// Whether the segment being written depends on an older one for what no position holds.
    pub(crate) fn lacks_restated(&self) -> bool {
        self.all.len() > 1 && self.all.back().is_some_and(|segment| segment.restated.is_none())
    }

    /// The state covers the log up to `point`.
    pub(crate) fn cover(&mut self, point: &SnapshotPoint) {
        let closed = self.all.len().saturating_sub(1);
        let uncovered = |segment: &&mut Segment| segment.covered.is_none();
        for segment in self.all.iter_mut().take(closed).filter(uncovered) {
            if segment.last > point.index {
                break;
            }
            segment.covered = Some(point.clone());
        }
    }

    /// The first segment that must stay if the log is given up to the point beside it, which is at
    /// most `limit`; none if all must stay. `durable` is the last frame synced.
    pub(crate) fn droppable(&self, durable: u64, limit: Index) -> Option<(SegmentId, SnapshotPoint)> {
        let open = self.all.back()?.id;
        let restated =
            self.all.iter().rposition(|s| s.restated.is_some_and(|sequence| sequence <= durable))?;
        let (at, point) = (0..restated)
            .map_while(|at| Some((at, self.all[at].covered.as_ref()?)))
            .take_while(|(at, point)| self.all[*at].id.0 + KEPT < open.0 && point.index <= limit)
            .last()?;
        Some((self.all[at + 1].id, point.clone()))
    }

    /// The last segment with a frame that restates, synced when `durable` was the last frame synced.
    pub(crate) fn last_restated(&self, durable: u64) -> Option<SegmentId> {
        let is_restated = |segment: &&Segment| segment.restated.is_some_and(|sequence| sequence <= durable);
        self.all.iter().rfind(is_restated).map(|segment| segment.id)
    }

    /// Forgets the segments before `first`, and gives them.
    pub(crate) fn drop_before(&mut self, first: SegmentId) -> Vec<SegmentId> {
        let count = self.all.iter().take_while(|segment| segment.id < first).count();
        self.all.drain(..count).map(|segment| segment.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(index: u64) -> SnapshotPoint {
        SnapshotPoint { index: Index(index), ..SnapshotPoint::default() }
    }

    /// Segments of ten positions each, all but the first of which begin with a frame that restates.
    fn segments(count: u64) -> Segments {
        let mut segments = Segments::default();
        for id in 1..=count {
            let frame =
                |offset, sequence, span| FrameAt { segment: SegmentId(id), offset, len: 64, sequence, span };
            if id > 1 {
                segments.add(&frame(64, id * 10, None), true);
            }
            let span = Some((Index(id * 10 - 9), Index(id * 10)));
            segments.add(&frame(128, id * 10 + 1, span), false);
        }
        segments
    }

    #[test]
    fn a_segment_stays_until_the_state_covers_all_of_it() {
        let mut segments = segments(4);
        assert_eq!(segments.droppable(99, Index(99)), None);
        segments.cover(&point(9));
        assert_eq!(segments.droppable(99, Index(99)), None);
        segments.cover(&point(12));
        segments.cover(&point(15));
        assert_eq!(
            segments.droppable(99, Index(99)),
            Some((SegmentId(2), point(12))),
            "no more than was needed"
        );
        assert_eq!(segments.droppable(99, Index(11)), None, "the limit is kept");
    }

    #[test]
    fn the_last_whole_segment_stays_for_those_who_are_a_little_behind() {
        let mut segments = segments(4);
        segments.cover(&point(99));
        assert_eq!(segments.droppable(99, Index(99)), Some((SegmentId(3), point(99))));
        assert_eq!(segments.drop_before(SegmentId(3)), [SegmentId(1), SegmentId(2)]);
        assert_eq!(segments.droppable(99, Index(99)), None);
    }

    #[test]
    fn nothing_goes_before_what_no_position_holds_is_restated_durably() {
        let mut segments = segments(4);
        segments.cover(&point(99));
        assert_eq!(segments.droppable(19, Index(99)), None);
        assert_eq!(segments.droppable(20, Index(99)), Some((SegmentId(2), point(99))));
    }
}
