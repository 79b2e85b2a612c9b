//! Where on disk the log's positions are.

use crate::disk::SegmentId;
use std::collections::VecDeque;
use synod_protocols::log::Index;

/// Neighbouring frames share one element of the index until they are this long together, in bytes:
/// a read of one record reads at most this and a frame.
const RUN_BYTES: usize = 16 << 10;

/// A run of frames, contiguous on disk, that holds records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first position that its records hold; larger than that of the run before it.
    pub(crate) first: Index,
    /// The last position that any of its records holds, replaced by later records or not.
    pub(crate) last: Index,
    /// Its segment.
    pub(crate) segment: SegmentId,
    /// Bytes from the segment's start.
    pub(crate) offset: u64,
    /// Its length, in bytes.
    pub(crate) len: usize,
    /// The sequence number of its first frame.
    pub(crate) first_sequence: u64,
    /// The sequence number of its last frame.
    pub(crate) last_sequence: u64,
}

/// A frame on disk, or on its way there, and the positions that its records hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameAt {
    /// Its segment.
    pub(crate) segment: SegmentId,
    /// Bytes from the segment's start.
    pub(crate) offset: u64,
    /// Its length with padding, in bytes.
    pub(crate) len: usize,
    /// Its number.
    pub(crate) sequence: u64,
    /// The lowest first and the highest last position of its records; none if they hold none.
    pub(crate) span: Option<(Index, Index)>,
}

/// A sparse index of the log's positions: one element for some 16 KiB of log.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    runs: VecDeque<Run>,
}

impl Positions {
    /// Adds the next frame of the log.
    pub(crate) fn add(&mut self, frame: FrameAt) {
        let Some((first, last)) = frame.span else {
            self.extend_over(frame);
            return;
        };
        while self.runs.back().is_some_and(|run| run.first >= first) {
            self.runs.pop_back();
        }
        if let Some(run) = self.runs.back_mut()
            && run.is_followed_by(&frame)
            && run.len + frame.len <= RUN_BYTES
        {
            run.len += frame.len;
            run.last = run.last.max(last);
            run.last_sequence = frame.sequence;
            return;
        }
        self.runs.push_back(Run {
            first,
            last,
            segment: frame.segment,
            offset: frame.offset,
            len: frame.len,
            first_sequence: frame.sequence,
            last_sequence: frame.sequence,
        });
    }

    /// Keeps a run growing across a frame that holds no position, such as one with a vote.
    fn extend_over(&mut self, frame: FrameAt) {
        if let Some(run) = self.runs.back_mut()
            && run.is_followed_by(&frame)
            && run.len + frame.len <= RUN_BYTES
        {
            run.len += frame.len;
            run.last_sequence = frame.sequence;
        }
    }

    /// Forgets what stands in the segments up to `last`, which are being removed.
    pub(crate) fn forget_through(&mut self, last: SegmentId) {
        while self.runs.front().is_some_and(|run| run.segment <= last) {
            self.runs.pop_front();
        }
    }

    /// The runs to read for the records that hold `from..=to`, or a first part of them: as many as
    /// fit into about `bytes_max`, and always at least one. All are synced up to `durable`. They end
    /// where no later run replaces a part of them. None if they are not all synced yet.
    pub(crate) fn select(&self, from: Index, to: Index, bytes_max: usize, durable: u64) -> Option<Vec<Run>> {
        let start = self.runs.partition_point(|run| run.first <= from).checked_sub(1)?;
        let mut selected = Vec::new();
        let mut bytes = 0;
        for (i, run) in self.runs.iter().enumerate().skip(start) {
            if run.last_sequence > durable {
                // What is synced of it suffices only if an earlier run was enough.
                break;
            }
            selected.push(*run);
            bytes += run.len;
            let whole = self.runs.get(i + 1).is_none_or(|next| run.last < next.first);
            if whole && (bytes >= bytes_max || run.last >= to || i + 1 == self.runs.len()) {
                return Some(selected);
            }
        }
        // The part before the first run that is not synced, if nothing later replaces it.
        while let Some(run) = selected.last() {
            let next = self.runs[start + selected.len()];
            if run.last < next.first {
                return Some(selected);
            }
            selected.pop();
        }
        None
    }
}

impl Run {
    fn is_followed_by(&self, frame: &FrameAt) -> bool {
        self.segment == frame.segment && self.offset + self.len as u64 == frame.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u64, len: usize, span: (u64, u64)) -> FrameAt {
        FrameAt {
            segment: SegmentId(1),
            offset: sequence * (RUN_BYTES as u64),
            len,
            sequence,
            span: Some((Index(span.0), Index(span.1))),
        }
    }

    fn sequences(
        positions: &Positions,
        from: u64,
        to: u64,
        bytes_max: usize,
        durable: u64,
    ) -> Option<Vec<u64>> {
        let runs = positions.select(Index(from), Index(to), bytes_max, durable)?;
        Some(runs.iter().map(|run| run.first_sequence).collect())
    }

    fn positions(spans: &[(u64, u64)]) -> Positions {
        let mut positions = Positions::default();
        for (i, span) in spans.iter().enumerate() {
            positions.add(frame(i as u64 + 1, RUN_BYTES, *span));
        }
        positions
    }

    #[test]
    fn the_run_that_holds_a_position_is_found() {
        let positions = positions(&[(1, 4), (5, 5), (6, 9)]);
        assert_eq!(sequences(&positions, 3, 3, 1, 9), Some(vec![1]));
        assert_eq!(sequences(&positions, 5, 5, 1, 9), Some(vec![2]));
        assert_eq!(sequences(&positions, 4, 9, usize::MAX, 9), Some(vec![1, 2, 3]));
    }

    #[test]
    fn a_later_record_hides_what_it_replaces() {
        let positions = positions(&[(1, 4), (5, 9), (5, 6)]);
        assert_eq!(sequences(&positions, 5, 9, usize::MAX, 9), Some(vec![3]));
    }

    #[test]
    fn a_run_that_is_replaced_in_part_is_never_read_without_its_replacement() {
        let positions = positions(&[(1, 9), (5, 6), (7, 7)]);
        assert_eq!(sequences(&positions, 2, 2, 1, 9), Some(vec![1, 2]));
        assert_eq!(sequences(&positions, 2, 2, 1, 1), None, "the replacement is not synced yet");
    }

    #[test]
    fn only_what_is_synced_is_selected() {
        let positions = positions(&[(1, 4), (5, 5), (6, 9)]);
        assert_eq!(sequences(&positions, 1, 9, usize::MAX, 2), Some(vec![1, 2]));
        assert_eq!(sequences(&positions, 6, 9, usize::MAX, 2), None);
    }

    #[test]
    fn neighbouring_small_frames_share_a_run() {
        let mut positions = Positions::default();
        for i in 0..1000u64 {
            positions.add(FrameAt {
                segment: SegmentId(1),
                offset: 64 + i * 64,
                len: 64,
                sequence: i + 1,
                span: Some((Index(i + 1), Index(i + 1))),
            });
        }
        assert_eq!(positions.runs.len(), (1000 * 64usize).div_ceil(RUN_BYTES));
    }
}
