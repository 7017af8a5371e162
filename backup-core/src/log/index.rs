//! The index of a stored piece of log: which moments and names it holds.
//!
//! Commit times are kept as samples of their running maximum: "of all commits that end by this offset, the latest has this
//! time". That is the question of a recovery to a time, which stops at the *first* commit that is later than its target,
//! whatever the clock did before and after. Samples are a second apart, so the exact record lies in little log.

use jiff::{SignedDuration, Timestamp};
use minicbor::{Decode, Encode};

use super::mark::Mark;

/// Samples nearer to each other than this are not kept.
const APART: SignedDuration = SignedDuration::from_secs(1);
/// An index has at most this many samples; beyond it every other one is dropped.
const MOST_SAMPLES: usize = 4096;
/// An index has at most this many names, and this many bytes of them. A stretch with more loses the rest.
const MOST_NAMES: usize = 4096;
const MOST_NAME_BYTES: usize = 256 << 10;
/// And this many bytes of notes, so that an index stays below 1 MiB. Of a stretch with more the rest is lost, which its engine has
/// to notice.
const MOST_NOTE_BYTES: usize = 256 << 10;
/// What a note takes besides its bytes.
const NOTE: usize = 16;

/// The latest commit time of all commits of a piece that end by an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct TimeSample {
    /// The offset.
    #[n(0)]
    pub offset: u64,
    /// The latest commit time up to there.
    #[cbor(n(1), with = "crate::cbor::timestamp")]
    pub at: Timestamp,
}

/// A named place.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct NamedPoint {
    /// End of the record that names it.
    #[n(0)]
    pub offset: u64,
    /// The name.
    #[n(1)]
    pub name: String,
    /// When it was named, by the source's clock.
    #[cbor(n(2), with = "crate::cbor::timestamp")]
    pub at: Timestamp,
}

/// What an engine says about the log up to an offset, for itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct Note {
    /// End of what it is about.
    #[n(0)]
    pub offset: u64,
    /// What it says.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// What is known of a piece of log besides its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct LogIndex {
    /// The running maximum of commit times, by offset.
    #[n(0)]
    pub samples: Vec<TimeSample>,
    /// Named places, by offset.
    #[n(1)]
    pub names: Vec<NamedPoint>,
    /// Everything that was committed by this moment of the source's clock is in the log up to the end of the piece.
    #[n(2)]
    pub as_of: Option<AsOf>,
    /// What the engine says about it, by offset.
    #[n(3)]
    #[cbor(default)]
    pub notes: Vec<Note>,
}

/// A moment by itself, in its stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, serde::Serialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct AsOf(#[cbor(n(0), with = "crate::cbor::timestamp")] pub Timestamp);

impl LogIndex {
    /// The latest commit time in the piece.
    #[must_use]
    pub fn latest(&self) -> Option<Timestamp> {
        self.samples.last().map(|sample| sample.at)
    }

    /// The moment up to which a restore to the end of the piece has everything: what the source said, or its latest commit.
    #[must_use]
    pub fn known_until(&self) -> Option<Timestamp> {
        self.as_of.map(|as_of| as_of.0).max(self.latest())
    }

    /// The offsets between which the first commit later than `time` ends: behind the first, at or before the second. None when
    /// there is no such commit in the piece.
    #[must_use]
    pub fn first_later(&self, time: Timestamp) -> Option<(Option<u64>, u64)> {
        let number = self.samples.iter().position(|sample| sample.at > time)?;
        let before = number.checked_sub(1).map(|number| self.samples[number].offset);
        Some((before, self.samples[number].offset))
    }

    /// The index of this piece with `next` behind it.
    pub fn extend(&mut self, next: &Self) {
        let mut builder = IndexBuilder { index: std::mem::take(self), ..IndexBuilder::default() };
        builder.append(next);
        *self = builder.finish();
    }
}

/// Folds marks into an index, in the order of the log.
#[derive(Debug, Clone, Default)]
pub struct IndexBuilder {
    index: LogIndex,
    /// The newest maximum, which is not far enough from the last sample to be one.
    pending: Option<TimeSample>,
    /// How far samples are apart, where that is more than usual.
    wider: Option<SignedDuration>,
}

impl IndexBuilder {
    /// Adds a mark.
    pub fn add(&mut self, mark: &Mark) {
        match mark {
            Mark::Commit { offset, at } => self.commit(*offset, *at),
            Mark::Name { offset, name, at } => {
                self.name(NamedPoint { offset: *offset, name: name.clone(), at: *at });
            }
            Mark::AsOf { at, .. } => self.as_of(*at),
            Mark::Note { offset, bytes } => self.note(Note { offset: *offset, bytes: bytes.to_vec() }),
        }
    }

    /// Adds what is known of a piece that lies behind those before, or overlaps the last one. What both tell is told once.
    pub fn append(&mut self, next: &LogIndex) {
        for sample in &next.samples {
            self.commit(sample.offset, sample.at);
        }
        for name in &next.names {
            if !self.knows(name) {
                self.name(name.clone());
            }
        }
        for note in &next.notes {
            if !self.index.notes.iter().rev().take_while(|known| known.offset >= note.offset).any(|known| known == note)
            {
                self.note(note.clone());
            }
        }
        if let Some(AsOf(at)) = next.as_of {
            self.as_of(at);
        }
    }

    /// Whether an index can hold the names and notes of `next`, too. What is [appended](Self::append) without room is lost in part.
    #[must_use]
    pub fn has_room_for(&self, next: &LogIndex) -> bool {
        let bytes = |index: &LogIndex| index.names.iter().map(|name| name.name.len()).sum::<usize>();
        self.index.names.len() + next.names.len() <= MOST_NAMES
            && bytes(&self.index) + bytes(next) <= MOST_NAME_BYTES
            && note_bytes(&self.index) + note_bytes(next) <= MOST_NOTE_BYTES
    }

    fn knows(&self, name: &NamedPoint) -> bool {
        let near = self.index.names.iter().rev().take_while(|known| known.offset >= name.offset);
        near.into_iter().any(|known| known == name)
    }

    fn commit(&mut self, offset: u64, at: Timestamp) {
        let most = self.pending.or(self.index.samples.last().copied()).map(|sample| sample.at);
        if most.is_some_and(|most| at <= most) {
            return;
        }
        let sample = TimeSample { offset, at };
        let apart = self.index.samples.last().is_none_or(|last| at.duration_since(last.at) >= self.apart());
        if !apart {
            self.pending = Some(sample);
            return;
        }
        // The maximum just before a leap: without it a target inside of the leap would point at too much log.
        if let Some(pending) = self.pending.take() {
            self.index.samples.push(pending);
        }
        self.index.samples.push(sample);
        if self.index.samples.len() > MOST_SAMPLES {
            self.thin();
        }
    }

    fn apart(&self) -> SignedDuration {
        self.wider.unwrap_or(APART)
    }

    /// Drops samples, so that those that stay lie equally far apart over all of the piece, as those to come will.
    fn thin(&mut self) {
        let samples = &mut self.index.samples;
        let (Some(first), Some(last)) = (samples.first().copied(), samples.last().copied()) else { return };
        let half = i32::try_from(MOST_SAMPLES / 2).unwrap_or(i32::MAX);
        let apart = self.wider.unwrap_or(APART).max(last.at.duration_since(first.at) / half);
        let mut kept: Option<Timestamp> = None;
        samples.retain(|sample| {
            let far = kept.is_none_or(|kept| sample.at.duration_since(kept) >= apart);
            let keep = far || *sample == last;
            if keep {
                kept = Some(sample.at);
            }
            keep
        });
        self.wider = Some(apart);
    }

    fn name(&mut self, name: NamedPoint) {
        let bytes: usize = self.index.names.iter().map(|known| known.name.len()).sum();
        if self.index.names.len() < MOST_NAMES && bytes + name.name.len() <= MOST_NAME_BYTES {
            let behind = self.index.names.partition_point(|known| known.offset <= name.offset);
            self.index.names.insert(behind, name);
        }
    }

    fn note(&mut self, note: Note) {
        if note_bytes(&self.index) + note.bytes.len() + NOTE <= MOST_NOTE_BYTES {
            let behind = self.index.notes.partition_point(|known| known.offset <= note.offset);
            self.index.notes.insert(behind, note);
        }
    }

    fn as_of(&mut self, at: Timestamp) {
        self.index.as_of = self.index.as_of.max(Some(AsOf(at)));
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index == LogIndex::default() && self.pending.is_none()
    }

    /// The index.
    #[must_use]
    pub fn finish(mut self) -> LogIndex {
        if let Some(pending) = self.pending.take() {
            self.index.samples.push(pending);
        }
        self.index
    }
}

fn note_bytes(index: &LogIndex) -> usize {
    index.notes.iter().map(|note| note.bytes.len() + NOTE).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    fn index(commits: &[(u64, i64)]) -> LogIndex {
        let mut builder = IndexBuilder::default();
        for (offset, millis) in commits {
            builder.add(&Mark::Commit { offset: *offset, at: at(*millis) });
        }
        builder.finish()
    }

    proptest! {
        #[test]
        fn the_first_commit_beyond_a_time_lies_where_the_index_says(
            steps in prop::collection::vec((1_u64..1000, -3000_i64..5000), 1..300),
            target in -2000_i64..400_000,
            cut in 0_usize..300,
        ) {
            let (mut offset, mut time) = (0, 0);
            let commits: Vec<_> = steps.iter().map(|(by, later)| {
                offset += by;
                time += later;
                (offset, time)
            }).collect();
            let cut = cut.min(commits.len());
            let mut whole = index(&commits[..cut]);
            whole.extend(&index(&commits[cut..]));
            let first = commits.iter().find(|(_, millis)| *millis > target).map(|(offset, _)| *offset);
            match (first, whole.first_later(at(target))) {
                (None, None) => {}
                (Some(first), Some((before, until))) => {
                    prop_assert!(before.is_none_or(|before| before < first) && first <= until, "{first} {before:?} {until}");
                }
                other => prop_assert!(false, "{other:?}"),
            }
            prop_assert_eq!(whole.latest(), commits.iter().map(|(_, millis)| at(*millis)).max());
        }
    }

    #[test]
    fn names_stay_bounded_too() {
        let mut builder = IndexBuilder::default();
        for offset in 0..10_000 {
            let name = "n".repeat(offset as usize);
            builder.add(&Mark::Name { offset, name, at: at(0) });
        }
        let names = builder.finish().names;
        assert!(names.len() > 100 && names.iter().map(|name| name.name.len()).sum::<usize>() <= MOST_NAME_BYTES);
    }

    #[test]
    fn notes_stay_bounded_and_in_order() {
        let note = |offset: u64, len: usize| Mark::Note { offset, bytes: vec![7; len].into() };
        let mut builder = IndexBuilder::default();
        (0..100).for_each(|n| builder.add(&note(n, 10_000)));
        let mut first = builder.finish();
        assert_eq!(first.notes.len(), 26);
        assert!(!IndexBuilder { index: first.clone(), ..IndexBuilder::default() }.has_room_for(&first));
        let mut builder = IndexBuilder::default();
        builder.add(&note(200, 10));
        first.extend(&builder.finish());
        assert_eq!(first.notes.last().map(|note| (note.offset, note.bytes.len())), Some((200, 10)));
    }

    #[test]
    fn samples_stay_bounded_and_keep_the_end() {
        let commits: Vec<_> = (0..20_000).map(|n| (n + 1, n as i64 * 2000)).collect();
        let index = index(&commits);
        assert!(index.samples.len() <= MOST_SAMPLES + 1);
        assert_eq!(index.samples.last().unwrap().offset, 20_000);
        // Nowhere is the index much coarser than elsewhere.
        let widest = index.samples.windows(2).map(|pair| pair[1].offset - pair[0].offset).max().unwrap();
        assert!(widest <= 20, "{widest} commits between two samples");
    }

    #[test]
    fn what_two_pieces_tell_is_told_once() {
        let name = |offset, name: &str| NamedPoint { offset, name: name.to_owned(), at: at(0) };
        let index =
            |names: Vec<NamedPoint>, as_of| LogIndex { names, as_of: Some(AsOf(at(as_of))), ..Default::default() };
        let mut builder = IndexBuilder::default();
        builder.append(&index(vec![name(5, "a"), name(9, "b")], 7));
        builder.append(&index(vec![name(7, "c"), name(9, "b"), name(9, "d"), name(12, "a")], 6));
        let index = builder.finish();
        let told: Vec<_> = index.names.iter().map(|point| (point.offset, point.name.as_str())).collect();
        assert_eq!(told, [(5, "a"), (7, "c"), (9, "b"), (9, "d"), (12, "a")]);
        assert_eq!(index.as_of, Some(AsOf(at(7))));
    }

    #[test]
    fn room_for_names_is_told_before_one_is_lost() {
        let names = |count: usize| {
            let name = NamedPoint { offset: 1, name: "n".repeat(200), at: at(0) };
            LogIndex { names: vec![name; count], ..Default::default() }
        };
        let mut builder = IndexBuilder { index: names(1000), ..Default::default() };
        assert!(builder.has_room_for(&names(310)) && !builder.has_room_for(&names(311)));
        builder.append(&LogIndex {
            names: vec![NamedPoint { offset: 2, name: "m".repeat(200), at: at(0) }; 1],
            ..Default::default()
        });
        assert_eq!(builder.finish().names.len(), 1001);
    }
}
