//! Which pieces to read for a stretch of log: pure.

use std::collections::BTreeMap;
use std::ops::Range;

use backup_core::Lineage;

use super::name::Piece;
use super::stored::{Listed, Stored};

/// The pieces of the log, in the order in which they are looked for.
#[derive(Debug, Default)]
pub(crate) struct Pieces(BTreeMap<Lineage, Line>);

#[derive(Debug, Default)]
struct Line {
    /// By their first offset; of those that begin at the same place the longest first.
    pieces: Vec<Listed>,
    /// For each piece: which one of those up to it reaches farthest.
    farthest: Vec<usize>,
    /// The last word of the source at each place where nothing happened.
    words: BTreeMap<u64, Listed>,
}

impl Pieces {
    /// Those of `stored` that count.
    pub(crate) fn of(stored: &Stored) -> Self {
        let mut lines: BTreeMap<Lineage, Line> = BTreeMap::new();
        for (lineage, listed) in stored.counting() {
            let line = lines.entry(lineage.clone()).or_default();
            if !listed.piece.is_empty() {
                line.pieces.push(*listed);
                continue;
            }
            let last = line.words.entry(listed.piece.start).or_insert(*listed);
            if (last.piece.epoch, last.piece.sequence) < (listed.piece.epoch, listed.piece.sequence) {
                *last = *listed;
            }
        }
        for line in lines.values_mut() {
            line.pieces.sort_unstable_by_key(|l| (l.piece.start, std::cmp::Reverse((l.piece.end, l.piece.epoch))));
            let mut best = 0;
            for (number, listed) in line.pieces.iter().enumerate() {
                if listed.piece.end > line.pieces[best].piece.end {
                    best = number;
                }
                line.farthest.push(best);
            }
        }
        Self(lines)
    }

    /// The piece that holds `offset` and goes on farthest, and none of `without`.
    pub(crate) fn at(&self, lineage: &Lineage, offset: u64, without: &[Piece]) -> Option<Listed> {
        let line = self.0.get(lineage)?;
        let behind = line.pieces.partition_point(|listed| listed.piece.start <= offset);
        let best = line.pieces.get(*line.farthest.get(behind.checked_sub(1)?)?)?;
        if without.is_empty() || best.piece.end <= offset {
            return Some(*best).filter(|best| offset < best.piece.end);
        }
        let others = line.pieces[..behind].iter().filter(|l| offset < l.piece.end && !without.contains(&l.piece));
        others.max_by_key(|listed| (listed.piece.end, std::cmp::Reverse(listed.piece.start))).copied()
    }

    fn next_start(&self, lineage: &Lineage, offset: u64) -> Option<u64> {
        let line = self.0.get(lineage)?;
        let behind = line.pieces.partition_point(|listed| listed.piece.start <= offset);
        line.pieces.get(behind).map(|listed| listed.piece.start)
    }

    /// As few pieces as hold all of `offsets` that is stored, in order.
    pub(crate) fn cover(&self, lineage: &Lineage, offsets: &Range<u64>) -> Vec<Listed> {
        let mut found = Vec::new();
        let mut at = offsets.start;
        while at < offsets.end {
            match self.at(lineage, at, &[]) {
                Some(listed) => {
                    at = listed.piece.end;
                    found.push(listed);
                }
                None => match self.next_start(lineage, at) {
                    Some(next) => at = next,
                    None => break,
                },
            }
        }
        found
    }

    /// The pieces that tell of `offsets`: those that hold them or touch them, and the words at places in them.
    pub(crate) fn telling(&self, lineage: &Lineage, offsets: &Range<u64>) -> Vec<Listed> {
        let wider = offsets.start.saturating_sub(1)..offsets.end.saturating_add(1);
        let mut found = self.cover(lineage, &wider);
        if let Some(line) = self.0.get(lineage) {
            found.extend(line.words.range(offsets.start..=offsets.end).map(|(_, listed)| *listed));
        }
        found.sort_by_key(|listed| (listed.piece.start, listed.piece.end));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::log::LogEpoch;
    use proptest::prelude::*;

    fn lineage() -> Lineage {
        Lineage::new("1")
    }

    fn pieces(ranges: &[(u64, u64)]) -> Pieces {
        let mut line = Line::default();
        for (number, (start, len)) in ranges.iter().enumerate() {
            let piece = Piece { epoch: LogEpoch(1), sequence: number as u64, start: *start, end: start + len };
            line.pieces.push(Listed { piece, size: 100, spooled: false, at: jiff::Timestamp::UNIX_EPOCH });
        }
        line.pieces.sort_by_key(|l| (l.piece.start, std::cmp::Reverse(l.piece.end)));
        let mut best = 0;
        for number in 0..line.pieces.len() {
            if line.pieces[number].piece.end > line.pieces[best].piece.end {
                best = number;
            }
            line.farthest.push(best);
        }
        Pieces(BTreeMap::from([(lineage(), line)]))
    }

    proptest! {
        #[test]
        fn a_cover_holds_everything_with_few_pieces(
            ranges in prop::collection::vec((0_u64..100, 1_u64..30), 0..20),
            start in 0_u64..100,
            len in 0_u64..60,
            without in prop::collection::vec(0_usize..20, 0..4),
        ) {
            let pieces = pieces(&ranges);
            let cover = pieces.cover(&lineage(), &(start..start + len));
            let stored = |offset: &u64| ranges.iter().any(|(start, len)| (*start..start + len).contains(offset));
            for offset in start..start + len {
                let held = cover.iter().any(|listed| listed.piece.offsets().contains(&offset));
                prop_assert_eq!(held, stored(&offset));
            }
            for pair in cover.windows(2) {
                prop_assert!(pair[0].piece.end < pair[1].piece.end && pair[0].piece.start < pair[1].piece.start);
            }
            // Every other piece of a cover begins behind the end of the one before the last: else that one was not needed.
            for three in cover.windows(3) {
                prop_assert!(three[0].piece.end < three[2].piece.start || three[0].piece.end < three[2].piece.end);
            }
            let bad: Vec<_> = pieces.0[&lineage()].pieces.iter().map(|l| l.piece).filter(|p| without.contains(&(p.sequence as usize))).collect();
            let other = pieces.at(&lineage(), start, &bad);
            let expected = ranges.iter().enumerate().filter(|(number, (from, len))| {
                !without.contains(number) && (*from..from + len).contains(&start)
            }).map(|(_, (from, len))| from + len).max();
            prop_assert_eq!(other.map(|listed| listed.piece.end), expected);
        }
    }
}
