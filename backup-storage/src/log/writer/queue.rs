//! What was appended and is not sent: cut into pieces. Nothing here does I/O or reads a clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use backup_core::Lineage;
use backup_core::log::{LogEpoch, LogIndex, LogRange, Mark, MarkQueue};
use bytes::{Bytes, BytesMut};

use crate::error::{Error, Result};
use crate::log::name::Piece;

/// Chunks smaller than this are copied together: each would keep the buffer alive that it was cut from.
const COPIED: usize = 64 << 10;

/// How the log is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cutting {
    /// So many bytes make a piece.
    pub(crate) bytes: u64,
    /// Bytes wait at most this long.
    pub(crate) after: Duration,
    /// So long without a byte, and the source's word that nothing happened makes a piece.
    pub(crate) idle: Duration,
    /// Ranges may begin anywhere.
    pub(crate) anywhere: bool,
}

/// A piece that is to be sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) lineage: Lineage,
    pub(crate) piece: Piece,
    pub(crate) content: Vec<Bytes>,
    pub(crate) index: LogIndex,
}

#[derive(Debug)]
pub(crate) struct Queue {
    epoch: LogEpoch,
    cutting: Cutting,
    /// The end of what was appended, by lineage.
    ends: BTreeMap<Lineage, u64>,
    marks: MarkQueue,
    /// The lineage of the last range.
    current: Option<Lineage>,
    open: Option<Open>,
    ready: VecDeque<Cut>,
    /// Pieces that were cut so far.
    sequence: u64,
}

/// The piece that is being filled.
#[derive(Debug)]
struct Open {
    lineage: Lineage,
    start: u64,
    end: u64,
    content: Vec<Bytes>,
    small: BytesMut,
    /// Since when its first byte waits; without bytes, since when its first mark does.
    since: Duration,
    /// Whether it waits for nothing more.
    due: bool,
}

impl Open {
    fn len(&self) -> u64 {
        self.end - self.start
    }

    fn add(&mut self, bytes: Bytes) {
        self.end += bytes.len() as u64;
        if bytes.len() < COPIED {
            self.small.extend_from_slice(&bytes);
            return;
        }
        self.close_small();
        self.content.push(bytes);
    }

    fn close_small(&mut self) {
        if !self.small.is_empty() {
            self.content.push(self.small.split().freeze());
        }
    }
}

impl Queue {
    pub(crate) fn new(epoch: LogEpoch, cutting: Cutting) -> Self {
        Self {
            epoch,
            cutting,
            ends: BTreeMap::new(),
            marks: MarkQueue::default(),
            current: None,
            open: None,
            ready: VecDeque::new(),
            sequence: 0,
        }
    }

    /// Whether `range` goes on where its lineage ended.
    ///
    /// # Errors
    /// Conflict, with both ends.
    pub(crate) fn meets(&self, range: &LogRange, text: impl Fn(u64) -> String) -> Result<()> {
        match self.ends.get(&range.lineage) {
            Some(end) if *end != range.start && !self.cutting.anywhere => Err(Error::conflict(format!(
                "the log of lineage {} does not go on at {}: it was appended up to {}",
                range.lineage,
                text(range.start),
                text(*end)
            ))),
            _ => Ok(()),
        }
    }

    /// Adds a range that [meets](Self::meets) the last one, at the moment `now`.
    ///
    /// # Errors
    /// InvalidInput for bytes or marks that do not fit the range; then nothing was added.
    pub(crate) fn push(&mut self, now: Duration, range: &LogRange, mut bytes: Bytes, marks: &[Mark]) -> Result<()> {
        if bytes.len() as u64 != range.len() {
            return Err(Error::invalid(format!("{range} are not {} bytes", bytes.len())));
        }
        MarkQueue::check(range, marks)?;
        let same = self.open.as_ref().is_some_and(|open| open.lineage == range.lineage && open.end == range.start);
        if !same {
            self.cut();
        }
        // Words about places of another stretch of log say nothing about this one.
        if self.current.as_ref() != Some(&range.lineage) || (self.cutting.anywhere && !same) {
            self.marks.clear();
            self.current = Some(range.lineage.clone());
        }
        self.marks.push(range, marks)?;
        self.ends.insert(range.lineage.clone(), range.end);
        if bytes.is_empty() {
            if self.marks.has_until(range.end) {
                self.fill(now, range, range.start);
            }
            return Ok(());
        }
        while !bytes.is_empty() {
            let most = self.cutting.bytes.max(1);
            let start = range.end - bytes.len() as u64;
            let open = self.fill(now, range, start);
            if open.len() == 0 {
                open.since = now;
            }
            let room = usize::try_from(most - open.len()).unwrap_or(usize::MAX);
            open.add(bytes.split_to(room.min(bytes.len())));
            if open.len() >= most {
                self.cut();
            }
        }
        Ok(())
    }

    /// The open piece, which begins at `start` when there is none.
    fn fill(&mut self, now: Duration, range: &LogRange, start: u64) -> &mut Open {
        self.open.get_or_insert_with(|| Open {
            lineage: range.lineage.clone(),
            start,
            end: start,
            content: Vec::new(),
            small: BytesMut::new(),
            since: now,
            due: false,
        })
    }

    /// Notes that `range`, which [meets](Self::meets) the last one, is not coming.
    pub(crate) fn skip(&mut self, range: &LogRange) {
        self.cut();
        self.ends.insert(range.lineage.clone(), range.end);
    }

    /// Ends the open piece.
    fn cut(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        open.close_small();
        let index = self.marks.take_until(open.end);
        if open.len() == 0 && index == LogIndex::default() {
            return;
        }
        self.sequence += 1;
        let piece = Piece { epoch: self.epoch, sequence: self.sequence, start: open.start, end: open.end };
        self.ready.push_back(Cut { lineage: open.lineage, piece, content: open.content, index });
    }

    /// What waits is not to wait longer.
    pub(crate) fn flush(&mut self) {
        if let Some(open) = &mut self.open {
            open.due = true;
        }
    }

    /// Whether a piece waits to which nothing can be added.
    pub(crate) fn is_whole(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How long after `now` the next piece is to be taken; zero when at once, none when there is nothing.
    pub(crate) fn wait(&self, now: Duration) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let open = self.open.as_ref()?;
        if open.due {
            return Some(Duration::ZERO);
        }
        let patience = if open.len() == 0 { self.cutting.idle } else { self.cutting.after };
        Some(open.since.saturating_add(patience).saturating_sub(now))
    }

    /// The next piece, if one is to be taken. Whatever has come until now goes into it.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Cut> {
        if self.wait(now) != Some(Duration::ZERO) {
            return None;
        }
        if self.ready.is_empty() {
            self.cut();
        }
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use proptest::prelude::*;

    fn cutting(bytes: u64, anywhere: bool) -> Cutting {
        Cutting { bytes, after: Duration::from_secs(1), idle: Duration::from_secs(60), anywhere }
    }

    fn range(lineage: u64, start: u64, len: u64) -> LogRange {
        LogRange::new(Lineage::new(lineage.to_string()), start..start + len)
    }

    fn byte(offset: u64) -> u8 {
        (offset % 251) as u8
    }

    fn bytes(range: &LogRange) -> Bytes {
        range.offsets().map(byte).collect()
    }

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn as_of(offset: u64) -> Mark {
        Mark::AsOf { offset, at: Timestamp::from_second(offset as i64).unwrap() }
    }

    #[test]
    fn bytes_wait_their_time_and_words_longer() {
        let mut queue = Queue::new(LogEpoch(1), cutting(1000, false));
        assert_eq!(queue.wait(second(0)), None);
        queue.push(second(10), &range(1, 0, 0), Bytes::new(), &[as_of(0)]).unwrap();
        assert_eq!(queue.wait(second(20)), Some(second(50)), "nothing happened, and that can wait");
        let first = range(1, 0, 10);
        queue.push(second(30), &first, bytes(&first), &[]).unwrap();
        assert_eq!(queue.wait(second(30)), Some(second(1)));
        assert_eq!(queue.take(second(30)), None);
        let second_range = range(1, 10, 10);
        queue.push(second(30), &second_range, bytes(&second_range), &[]).unwrap();
        let cut = queue.take(second(31)).unwrap();
        assert_eq!((cut.piece.offsets(), cut.piece.sequence), (0..20, 1));
        assert!(cut.index.as_of.is_some());
        assert_eq!(queue.wait(second(31)), None, "one piece for all of it");
        // The next word is a piece of its own, and a word about nothing is none.
        queue.push(second(40), &range(1, 20, 0), Bytes::new(), &[as_of(20)]).unwrap();
        queue.push(second(40), &range(1, 20, 0), Bytes::new(), &[]).unwrap();
        let cut = queue.take(second(100)).unwrap();
        assert!(cut.piece.is_empty() && cut.content.is_empty() && cut.index.as_of.is_some());
        queue.push(second(200), &range(1, 20, 0), Bytes::new(), &[as_of(30)]).unwrap();
        assert_eq!(queue.wait(second(200)), None, "it is about a place that the log has not come to");
    }

    #[test]
    fn a_flush_sends_what_waits_and_nothing_else() {
        let mut queue = Queue::new(LogEpoch(1), cutting(1000, false));
        queue.flush();
        let first = range(1, 5, 10);
        queue.push(second(0), &first, bytes(&first), &[]).unwrap();
        assert_eq!(queue.take(second(0)), None);
        queue.flush();
        assert_eq!(queue.take(second(0)).unwrap().piece.offsets(), 5..15);
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let mut queue = Queue::new(LogEpoch(1), cutting(1000, false));
        let first = range(1, 0, 10);
        queue.push(second(0), &first, bytes(&first), &[]).unwrap();
        let next = range(2, 0, 10);
        assert!(queue.push(second(0), &next, bytes(&first).slice(1..), &[]).is_err());
        assert!(
            queue
                .push(second(0), &next, bytes(&next), &[Mark::Commit { offset: 11, at: Timestamp::UNIX_EPOCH }])
                .is_err()
        );
        let text = |offset: u64| offset.to_string();
        assert!(
            queue.meets(&range(1, 11, 1), text).unwrap_err().to_string().contains("at 11: it was appended up to 10")
        );
        assert!(queue.meets(&range(2, 77, 1), text).is_ok(), "a lineage may begin anywhere");
        queue.flush();
        assert_eq!(queue.take(second(0)).unwrap().piece.offsets(), 0..10);
        assert_eq!(queue.take(second(9)), None);
    }

    proptest! {
        #[test]
        fn every_byte_and_mark_comes_out_once_in_order(
            steps in prop::collection::vec((0_u64..3, 0_u64..200_000, 0_u64..5, any::<bool>()), 1..40),
            most in 1_u64..150_000,
        ) {
            let mut queue = Queue::new(LogEpoch(7), cutting(most, false));
            let mut ends = BTreeMap::new();
            let (mut pushed, mut taken): (Vec<LogRange>, Vec<Cut>) = (Vec::new(), Vec::new());
            let mut now = 0;
            for (action, len, later, stays) in steps {
                now += later;
                let lineage = if stays { 1 } else { 2 };
                let start = *ends.get(&lineage).unwrap_or(&100);
                match action {
                    0 => {
                        let lost = range(lineage, start, len);
                        queue.skip(&lost);
                        ends.insert(lineage, lost.end);
                    }
                    1 => {
                        let next = range(lineage, start, len);
                        prop_assert!(queue.meets(&next, |offset| offset.to_string()).is_ok());
                        let mark = Mark::Name { offset: next.end, name: "n".to_owned(), at: Timestamp::UNIX_EPOCH };
                        queue.push(second(now), &next, bytes(&next), &[mark]).unwrap();
                        ends.insert(lineage, next.end);
                        pushed.push(next);
                    }
                    _ => taken.extend(std::iter::from_fn(|| queue.take(second(now)))),
                }
            }
            queue.flush();
            taken.extend(std::iter::from_fn(|| queue.take(second(now))));
            let mut out: Vec<LogRange> = Vec::new();
            let mut names = 0;
            for (number, cut) in (1..).zip(&taken) {
                prop_assert_eq!((cut.piece.epoch, cut.piece.sequence), (LogEpoch(7), number));
                prop_assert!(cut.piece.end - cut.piece.start <= most);
                let content = cut.content.concat();
                prop_assert_eq!(content.len() as u64, cut.piece.end - cut.piece.start);
                prop_assert!(content.iter().zip(cut.piece.offsets()).all(|(b, offset)| *b == byte(offset)));
                names += cut.index.names.len();
                prop_assert!(cut.index.names.iter().all(|n| cut.piece.start <= n.offset && n.offset <= cut.piece.end));
                out.push(cut.piece.range(&cut.lineage));
            }
            prop_assert_eq!(names, pushed.len());
            let joined = |ranges: Vec<LogRange>| ranges.into_iter().filter(|r| !r.is_empty()).fold(Vec::<LogRange>::new(), |mut all, next| {
                match all.last_mut() {
                    Some(last) if last.lineage == next.lineage && last.end == next.start => last.end = next.end,
                    _ => all.push(next),
                }
                all
            });
            prop_assert_eq!(joined(out), joined(pushed));
        }
    }
}
