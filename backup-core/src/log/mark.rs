//! What an engine notices in the bytes that it appends.

use std::collections::VecDeque;

use bytes::Bytes;
use jiff::Timestamp;

use super::{IndexBuilder, LogIndex, LogRange};
use crate::error::{Error, Result};

/// Something about a place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mark {
    /// A change was committed by a record that ends at `offset`.
    Commit {
        /// End of the record.
        offset: u64,
        /// When, by the source's clock. Clocks may go backwards, and so may these.
        at: Timestamp,
    },
    /// A place was named by a record that ends at `offset` (PostgreSQL: a restore point).
    Name {
        /// End of the record.
        offset: u64,
        /// The name.
        name: String,
        /// When, by the source's clock.
        at: Timestamp,
    },
    /// At this moment of the source's clock its log ended at `offset` or before: whoever has the log up to there has everything
    /// that was committed by then.
    AsOf {
        /// Where the log ended.
        offset: u64,
        /// The moment.
        at: Timestamp,
    },
    /// What the engine says about the log up to `offset`, for itself: nobody else understands it. PostgreSQL: which blocks
    /// were changed since its last note.
    Note {
        /// End of what it is about.
        offset: u64,
        /// What it says.
        bytes: Bytes,
    },
}

impl Mark {
    /// Where it stands.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match self {
            Self::Commit { offset, .. }
            | Self::Name { offset, .. }
            | Self::AsOf { offset, .. }
            | Self::Note { offset, .. } => *offset,
        }
    }
}

/// Marks on their way into the indices of stored pieces: each goes into the piece that ends at it or behind it, wherever the
/// writer cuts its pieces.
#[derive(Debug, Clone, Default)]
pub struct MarkQueue {
    /// By offset.
    waiting: VecDeque<Mark>,
}

impl MarkQueue {
    /// The source may be ahead of its log by so many words; of more than that the oldest are forgotten, which costs freshness
    /// and no truth.
    const MOST_AHEAD: usize = 64;

    /// Checks that `marks` can be what was noticed in `range`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a mark outside of the range, unless it is a word of the source about a
    /// place that the log has not come to.
    pub fn check(range: &LogRange, marks: &[Mark]) -> Result<()> {
        let ahead = |mark: &Mark| matches!(mark, Mark::AsOf { .. }) && mark.offset() > range.end;
        let inside = |mark: &Mark| (range.start..=range.end).contains(&mark.offset());
        if let Some(stray) = marks.iter().find(|mark| !inside(mark) && !ahead(mark)) {
            return Err(Error::invalid(format!("a mark at {} does not lie in {range}", stray.offset())));
        }
        Ok(())
    }

    /// Adds what was noticed in `range`.
    ///
    /// # Errors
    /// As [`check`](Self::check). Nothing is added then.
    pub fn push(&mut self, range: &LogRange, marks: &[Mark]) -> Result<()> {
        Self::check(range, marks)?;
        for mark in marks {
            let behind = self.waiting.partition_point(|known| known.offset() <= mark.offset());
            self.waiting.insert(behind, mark.clone());
        }
        let beyond = self.waiting.partition_point(|mark| mark.offset() <= range.end);
        let surplus = (self.waiting.len() - beyond).saturating_sub(Self::MOST_AHEAD);
        self.waiting.drain(beyond..beyond + surplus);
        Ok(())
    }

    /// Whether marks wait at `offset` or before it.
    #[must_use]
    pub fn has_until(&self, offset: u64) -> bool {
        self.waiting.front().is_some_and(|mark| mark.offset() <= offset)
    }

    /// The index of a piece that ends at `offset`: of all marks up to there.
    #[must_use]
    pub fn take_until(&mut self, offset: u64) -> LogIndex {
        let mut builder = IndexBuilder::default();
        let reached = self.waiting.partition_point(|mark| mark.offset() <= offset);
        self.waiting.drain(..reached).for_each(|mark| builder.add(&mark));
        builder.finish()
    }

    /// Forgets what still waits: the log goes on elsewhere.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Lineage;
    use proptest::prelude::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_second(second as i64).unwrap()
    }

    fn range(start: u64, end: u64) -> LogRange {
        LogRange::new(Lineage::new("1"), start..end)
    }

    #[test]
    fn a_word_of_the_source_waits_until_the_log_has_come_so_far() {
        let mut queue = MarkQueue::default();
        queue
            .push(&range(0, 10), &[Mark::AsOf { offset: 15, at: at(9) }, Mark::Commit { offset: 10, at: at(5) }])
            .unwrap();
        let first = queue.take_until(10);
        assert_eq!((first.latest(), first.known_until()), (Some(at(5)), Some(at(5))));
        assert!(!queue.has_until(14) && queue.has_until(15));
        queue.push(&range(10, 20), &[Mark::Commit { offset: 12, at: at(6) }]).unwrap();
        assert_eq!(queue.take_until(20).known_until(), Some(at(9)));
    }

    #[test]
    fn other_marks_lie_in_their_range() {
        let mut queue = MarkQueue::default();
        for (mark, fits) in [
            (Mark::Commit { offset: 9, at: at(1) }, false),
            (Mark::Commit { offset: 10, at: at(1) }, true),
            (Mark::Commit { offset: 20, at: at(1) }, true),
            (Mark::Commit { offset: 21, at: at(1) }, false),
            (Mark::Name { offset: 21, name: "x".to_owned(), at: at(1) }, false),
            (Mark::AsOf { offset: 9, at: at(1) }, false),
            (Mark::AsOf { offset: 21, at: at(1) }, true),
        ] {
            assert_eq!(queue.push(&range(10, 20), std::slice::from_ref(&mark)).is_ok(), fits, "{mark:?}");
        }
    }

    #[test]
    fn a_source_that_is_always_ahead_costs_no_memory() {
        let mut queue = MarkQueue::default();
        for second in 0..10_000 {
            queue.push(&range(0, 10), &[Mark::AsOf { offset: 1000 + second, at: at(second) }]).unwrap();
        }
        assert!(queue.waiting.len() <= MarkQueue::MOST_AHEAD);
        assert_eq!(queue.take_until(u64::MAX).known_until(), Some(at(9_999)));
    }

    proptest! {
        #[test]
        fn wherever_pieces_are_cut_every_mark_is_in_one(
            offsets in prop::collection::vec(0_u64..100, 0..40),
            cuts in prop::collection::btree_set(0_u64..100, 0..10),
        ) {
            let mut queue = MarkQueue::default();
            let marks: Vec<_> = offsets.iter()
                .map(|offset| Mark::Name { offset: *offset, name: offset.to_string(), at: at(0) }).collect();
            queue.push(&range(0, 100), &marks).unwrap();
            let mut before = None;
            let mut found = Vec::new();
            for cut in cuts.into_iter().chain([100]) {
                for name in queue.take_until(cut).names {
                    prop_assert!(before.is_none_or(|before| name.offset > before) && name.offset <= cut);
                    found.push(name.offset);
                }
                before = Some(cut);
            }
            let mut all = offsets;
            all.sort_unstable();
            prop_assert_eq!(found, all);
        }
    }
}
