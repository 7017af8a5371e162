//! What becomes of the bytes that come: cut where nothing is half done, with moments beside them. Nothing here waits or reads a clock.

use backup_core::log::{LogRange, Mark};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use super::lineage::lineage_of;
use crate::client::StreamPosition;
use crate::error::Result;
use crate::stream::{APART, Framer, Moment, StreamNote, Tracker};

/// More than this is not held back though nothing whole has come: a value, or a transaction, that is larger than memory is wide.
const MOST_HELD: usize = 4 << 20;
/// A note is written after so many microseconds in which changes have come, so that little is forgotten when we die.
const NOTE_AFTER: i64 = 200_000;
/// And after so many bytes, so that reading can begin near to any place.
const NOTE_BYTES: u64 = 256 << 10;

/// A piece of log on its way to the sink.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: LogRange,
    pub(super) bytes: Bytes,
    pub(super) marks: Vec<Mark>,
}

/// Takes the stream as it comes and gives pieces of log.
#[derive(Debug)]
pub(super) struct Intake {
    /// The history of the bytes that come next.
    id: String,
    /// Where that history ends, and by which other one it is followed.
    fork: Option<StreamPosition>,
    framer: Framer,
    tracker: Tracker,
    /// What has come and not been given.
    held: BytesMut,
    /// Where that begins.
    given: u64,
    /// The end of what is whole, and the database there.
    whole: u64,
    database: Option<u64>,
    /// Whether something else than the server's signs of life is held.
    changed: bool,
    note: Notes,
}

/// Moments that are not written down yet.
#[derive(Debug, Default)]
struct Notes {
    moments: Vec<Moment>,
    last: Option<(u64, Timestamp)>,
}

/// Signs of life alone are held back for so many microseconds: they are no news, and each piece is an object in the store.
const SIGNS_HELD: i64 = 60_000_000;

impl Intake {
    /// An intake of the stream that goes on at `at`, for which `framer` and `tracker` have read what is stored. Its history is followed by
    /// the one of `fork` at that offset, if there is one.
    pub(super) fn new(at: &StreamPosition, fork: Option<StreamPosition>, framer: Framer, tracker: Tracker) -> Self {
        let mut intake = Self {
            id: at.id.clone(),
            fork,
            framer,
            tracker,
            held: BytesMut::new(),
            given: at.offset,
            whole: at.offset,
            database: tracker.database(),
            // The first word of a stream is given at once, so that it shows.
            changed: true,
            note: Notes::default(),
        };
        intake.follow();
        intake
    }

    /// Where the next byte stands.
    pub(super) fn offset(&self) -> u64 {
        self.framer.offset()
    }

    /// The position behind what was given.
    pub(super) fn given(&self) -> StreamPosition {
        StreamPosition::new(self.id.clone(), self.given)
    }

    /// Whether everything that came and was not given are signs of life.
    pub(super) fn is_idle(&self) -> bool {
        !self.changed && self.whole == self.offset()
    }

    /// Takes bytes that came at the moment `at` of the source's clock, and gives what is whole.
    ///
    /// # Errors
    /// [`Error::Protocol`](crate::Error::Protocol) when this is no stream of commands.
    pub(super) fn take(&mut self, bytes: &Bytes, at: Timestamp) -> Result<Vec<Piece>> {
        let mut first = None;
        let Self { framer, tracker, whole, database, changed, .. } = self;
        framer.push(bytes, |command| {
            *changed |= !command.is_sign_of_life();
            if tracker.take(command) && first.is_none() {
                first = Some(command.end);
            }
            if !tracker.in_transaction() {
                (*whole, *database) = (command.end, tracker.database());
            }
            Ok(())
        })?;
        self.held.extend_from_slice(bytes);
        let commit = first.map(|offset| Moment { offset, at });
        if let Some(moment) = commit {
            self.note.add(moment);
        }
        let end = if self.held.len() > MOST_HELD { self.offset() } else { self.whole };
        let since = self.note.last.map(|(_, then)| at.as_microsecond() - then.as_microsecond());
        if self.is_idle() && since.is_some_and(|since| since < SIGNS_HELD) {
            return Ok(Vec::new());
        }
        let pieces = self.give(end, at, commit)?;
        if self.held.is_empty() {
            self.changed = false;
        }
        Ok(pieces)
    }

    /// What is not written down yet of what was given, as a word without bytes.
    pub(super) fn rest(&mut self) -> Result<Option<Piece>> {
        if self.note.moments.is_empty() || self.given != self.whole {
            return Ok(None);
        }
        let note = self.note.take(self.given, self.database)?;
        let range = LogRange::new(lineage_of(&self.id), self.given..self.given);
        Ok(Some(Piece { range, bytes: Bytes::new(), marks: vec![note] }))
    }

    /// Gives what is held up to `end`, in one piece, or in two where one history is followed by another.
    fn give(&mut self, end: u64, at: Timestamp, commit: Option<Moment>) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        while self.given < end {
            let until = self.fork.as_ref().map_or(end, |fork| end.min(fork.offset));
            let len = usize::try_from(until - self.given).unwrap_or(usize::MAX).min(self.held.len());
            let range = LogRange::new(lineage_of(&self.id), self.given..until);
            let bytes = self.held.split_to(len).freeze();
            let inside = |moment: &Moment| range.start < moment.offset && moment.offset <= range.end;
            let commit = commit.filter(inside).map(|Moment { offset, at }| Mark::Commit { offset, at });
            let mut marks: Vec<_> = commit.into_iter().collect();
            self.given = until;
            // Where a transaction is open nobody can begin to read.
            if until == self.whole && self.note.is_due(until, at) {
                marks.push(self.note.take(until, self.database)?);
                self.note.last = Some((until, at));
            }
            pieces.push(Piece { range, bytes, marks });
            self.follow();
        }
        Ok(pieces)
    }

    /// Goes over to the next history where the present one has ended.
    fn follow(&mut self) {
        if let Some(fork) = self.fork.take_if(|fork| fork.offset <= self.given) {
            self.id = fork.id;
        }
    }
}

impl Notes {
    fn add(&mut self, moment: Moment) {
        let far = |last: &Moment| moment.at.as_microsecond() - last.at.as_microsecond() >= APART;
        if self.moments.last().is_none_or(far) {
            self.moments.push(moment);
        }
    }

    /// Whether it is time for a note at `offset`.
    fn is_due(&self, offset: u64, at: Timestamp) -> bool {
        let Some((last, then)) = self.last else { return true };
        let waited = at.as_microsecond() - then.as_microsecond();
        offset - last >= NOTE_BYTES || (waited >= NOTE_AFTER && !self.moments.is_empty()) || waited >= SIGNS_HELD
    }

    /// A note at `offset` of all moments before it.
    fn take(&mut self, offset: u64, database: Option<u64>) -> Result<Mark> {
        let later = self.moments.partition_point(|moment| moment.offset <= offset);
        let behind = self.moments.split_off(later);
        let note = StreamNote { database, moments: std::mem::replace(&mut self.moments, behind) };
        Ok(Mark::Note { offset, bytes: note.encode(offset)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::sample::command;
    use proptest::prelude::*;

    fn moment(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(1_700_000_000_000_000 + micros).unwrap()
    }

    fn intake(fork: Option<u64>) -> Intake {
        let fork = fork.map(|offset| StreamPosition::new("b", offset));
        Intake::new(&StreamPosition::new("a", 1000), fork, Framer::new(1000), Tracker::new(Some(0)))
    }

    fn transaction() -> Vec<u8> {
        [command(&[b"MULTI"]), command(&[b"SET", b"a", b"1"]), command(&[b"SELECT", b"3"]), command(&[b"EXEC"])]
            .concat()
    }

    #[test]
    fn a_transaction_is_given_when_it_has_ended() {
        let bytes = Bytes::from(transaction());
        let mut intake = intake(None);
        assert_eq!(intake.take(&bytes.slice(..bytes.len() - 3), moment(1)).unwrap(), []);
        let pieces = intake.take(&bytes.slice(bytes.len() - 3..), moment(2)).unwrap();
        assert_eq!(pieces.len(), 1);
        let end = 1000 + bytes.len() as u64;
        assert_eq!((pieces[0].range.offsets(), &pieces[0].bytes), (1000..end, &bytes));
        assert_eq!(pieces[0].marks[0], Mark::Commit { offset: end, at: moment(2) });
        let Mark::Note { offset, bytes } = &pieces[0].marks[1] else { panic!("{pieces:?}") };
        let note = StreamNote::decode(*offset, bytes).unwrap();
        assert_eq!(note, StreamNote { database: Some(3), moments: vec![Moment { offset: end, at: moment(2) }] });
    }

    #[test]
    fn what_is_too_large_to_be_held_is_given_in_parts() {
        let bytes = Bytes::from(command(&[b"SET", b"a", &vec![b'x'; 2 * MOST_HELD]]));
        let mut intake = intake(None);
        let mut pieces = Vec::new();
        for chunk in bytes.chunks(1 << 20) {
            pieces.extend(intake.take(&Bytes::copy_from_slice(chunk), moment(1)).unwrap());
        }
        assert!(pieces.len() > 1);
        assert!(pieces.windows(2).all(|pair| pair[0].range.end == pair[1].range.start));
        assert_eq!(pieces.iter().map(|piece| piece.bytes.len()).sum::<usize>(), bytes.len());
        let noted = |piece: &Piece| piece.marks.iter().any(|mark| matches!(mark, Mark::Note { .. }));
        assert!(!noted(&pieces[0]), "nobody can begin to read in a command");
        assert!(noted(pieces.last().unwrap()));
    }

    #[test]
    fn a_history_is_followed_by_the_next_where_it_ends() {
        let one = command(&[b"SET", b"a", b"1"]);
        let fork = 1000 + one.len() as u64;
        let mut intake = intake(Some(fork));
        let pieces = intake.take(&Bytes::from([one.clone(), one.clone()].concat()), moment(1)).unwrap();
        let ranges: Vec<_> = pieces.iter().map(|piece| (piece.range.lineage.as_str(), piece.range.offsets())).collect();
        assert_eq!(ranges, [("a", 1000..fork), ("b", fork..fork + one.len() as u64)]);
        assert_eq!(intake.given(), StreamPosition::new("b", fork + one.len() as u64));
        assert_eq!(
            super::Intake::new(
                &StreamPosition::new("a", 5),
                Some(StreamPosition::new("b", 5)),
                Framer::new(5),
                Tracker::new(None)
            )
            .given()
            .id,
            "b"
        );
    }

    #[test]
    fn what_was_not_written_down_is_said_at_the_end() {
        let one = Bytes::from(command(&[b"SET", b"a", b"1"]));
        let mut intake = intake(None);
        intake.take(&one, moment(0)).unwrap();
        let pieces = intake.take(&one, moment(20_000)).unwrap();
        assert_eq!(pieces[0].marks.len(), 1, "a note was just written");
        let rest = intake.rest().unwrap().unwrap();
        assert_eq!(rest.range.len(), 0);
        let Mark::Note { offset, bytes } = &rest.marks[0] else { panic!("{rest:?}") };
        let moments = StreamNote::decode(*offset, bytes).unwrap().moments;
        assert_eq!(moments, [Moment { offset: 1000 + 2 * one.len() as u64, at: moment(20_000) }]);
        assert_eq!(intake.rest().unwrap(), None);
    }

    #[test]
    fn signs_of_life_are_held_until_there_is_news() {
        let (ping, set) = (Bytes::from(command(&[b"PING"])), Bytes::from(command(&[b"SET", b"a", b"1"])));
        let mut intake = intake(None);
        assert_eq!(intake.take(&ping, moment(0)).unwrap().len(), 1, "the first one shows");
        assert_eq!(intake.take(&ping, moment(10_000_000)).unwrap(), []);
        assert!(intake.is_idle());
        let news = intake.take(&set, moment(20_000_000)).unwrap();
        assert_eq!(news[0].bytes.len(), ping.len() + set.len());
        assert_eq!(intake.take(&ping, moment(30_000_000)).unwrap(), []);
        let late = intake.take(&ping, moment(90_000_000)).unwrap();
        assert_eq!(late[0].bytes.len(), 2 * ping.len(), "and not for ever");
    }

    #[test]
    fn a_note_says_the_database_at_its_place() {
        let bytes = [command(&[b"SET", b"a", b"1"]), command(&[b"MULTI"]), command(&[b"SELECT", b"3"])].concat();
        let pieces = intake(None).take(&Bytes::from(bytes), moment(0)).unwrap();
        let note = pieces[0].marks.iter().find_map(|mark| match mark {
            Mark::Note { offset, bytes } => StreamNote::decode(*offset, bytes),
            _ => None,
        });
        assert_eq!(note.unwrap().database, Some(0));
    }

    proptest! {
        #[test]
        fn pieces_are_the_stream_and_end_where_nothing_is_half_done(
            kinds in prop::collection::vec(0_u8..3, 1..30),
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            let one = |kind: u8| match kind {
                0 => command(&[b"SET", b"key", b"value"]),
                1 => transaction(),
                _ => command(&[b"PING"]),
            };
            let mut ends = vec![1000_u64];
            let mut stream = Vec::new();
            for kind in kinds {
                stream.extend(one(kind));
                ends.push(1000 + stream.len() as u64);
            }
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % (stream.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut intake, mut pieces, mut at) = (intake(None), Vec::new(), 0);
            for (number, end) in cuts.into_iter().chain([stream.len()]).enumerate() {
                let micros = i64::try_from(number).unwrap() * 50_000;
                pieces.extend(intake.take(&Bytes::copy_from_slice(&stream[at..end]), moment(micros)).unwrap());
                at = end;
            }
            let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
            prop_assert!(stream.starts_with(&joined));
            let held = &stream[joined.len()..];
            prop_assert_eq!(held, command(&[b"PING"]).repeat(held.len() / command(&[b"PING"]).len()), "only signs of life are held");
            for piece in &pieces {
                prop_assert!(ends.contains(&piece.range.start) && ends.contains(&piece.range.end));
                backup_core::log::MarkQueue::check(&piece.range, &piece.marks).unwrap();
            }
        }
    }
}
