//! A set of block numbers that is small whether few, many or all of a relation's blocks are in it.
//!
//! Sixteen bits of a number choose a chunk. A chunk holds runs of neighbours while these take less room than one bit for each
//! of its blocks, and bits from then on.

use std::collections::BTreeMap;
use std::ops::Range;

/// Where runs would take the 8 KiB that bits take.
const MOST_RUNS: usize = 2048;

#[derive(Debug, Clone, Default)]
pub(super) struct BlockSet {
    chunks: BTreeMap<u16, Chunk>,
}

/// Blocks by the lower sixteen bits of their numbers.
#[derive(Debug, Clone)]
enum Chunk {
    /// First and last of each run, in order and never adjacent.
    Runs(Vec<(u16, u16)>),
    Bits(Box<[u64; 1024]>),
}

impl Chunk {
    fn of(runs: Vec<(u16, u16)>) -> Self {
        if runs.len() <= MOST_RUNS {
            return Self::Runs(runs);
        }
        let mut bits = Box::new([0; 1024]);
        for (first, last) in runs {
            (first..=last).for_each(|block| set(&mut bits, block));
        }
        Self::Bits(bits)
    }

    fn merge(&self, other: &Self) -> Self {
        let (mut all, mut runs) = (self.runs(), Vec::<(u16, u16)>::new());
        all.extend(other.runs());
        all.sort_unstable();
        for (first, last) in all {
            match runs.last_mut() {
                Some(run) if u32::from(run.1) + 1 >= u32::from(first) => run.1 = run.1.max(last),
                _ => runs.push((first, last)),
            }
        }
        Self::of(runs)
    }

    fn insert(&mut self, block: u16) {
        let runs = match self {
            Self::Bits(bits) => return set(bits, block),
            Self::Runs(runs) => runs,
        };
        // The first run that begins behind the block.
        let next = runs.partition_point(|run| run.0 <= block);
        let joins_next = runs.get(next).is_some_and(|run| run.0 - 1 == block);
        match next.checked_sub(1).and_then(|index| runs.get_mut(index)) {
            Some(run) if run.1 >= block => return,
            Some(run) if run.1 + 1 == block => {
                run.1 = block;
                if joins_next {
                    let (_, last) = runs.remove(next);
                    runs[next - 1].1 = last;
                }
                return;
            }
            _ => {}
        }
        match runs.get_mut(next) {
            Some(run) if joins_next => run.0 = block,
            _ => runs.insert(next, (block, block)),
        }
        if runs.len() > MOST_RUNS {
            *self = Self::of(std::mem::take(runs));
        }
    }

    /// First and last of each run.
    fn runs(&self) -> Vec<(u16, u16)> {
        let bits = match self {
            Self::Runs(runs) => return runs.clone(),
            Self::Bits(bits) => bits,
        };
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for (word, base) in bits.iter().zip((0_u16..).step_by(64)) {
            let mut word = *word;
            while word != 0 {
                let block = base + word.trailing_zeros() as u16;
                match runs.last_mut() {
                    Some(run) if run.1.checked_add(1) == Some(block) => run.1 = block,
                    _ => runs.push((block, block)),
                }
                word &= word - 1;
            }
        }
        runs
    }
}

fn set(bits: &mut [u64; 1024], block: u16) {
    bits[usize::from(block / 64)] |= 1 << (block % 64);
}

impl BlockSet {
    pub(super) fn insert(&mut self, block: u32) {
        let chunk = self.chunks.entry((block >> 16) as u16).or_insert_with(|| Chunk::Runs(Vec::new()));
        chunk.insert(block as u16);
    }

    /// Takes out all blocks from `from` on.
    pub(super) fn truncate(&mut self, from: u32) {
        let (index, rest) = ((from >> 16) as u16, from as u16);
        self.chunks.split_off(&index).remove(&index).into_iter().for_each(|chunk| {
            let kept: Vec<_> =
                chunk.runs().into_iter().filter(|run| run.0 < rest).map(|run| (run.0, run.1.min(rest - 1))).collect();
            if !kept.is_empty() {
                self.chunks.insert(index, Chunk::of(kept));
            }
        });
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (index, chunk) in &other.chunks {
            let merged = self.chunks.get(index).map_or_else(|| chunk.clone(), |own| own.merge(chunk));
            self.chunks.insert(*index, merged);
        }
    }

    /// First and last of each run inside of a chunk, in order. Runs of different chunks may be adjacent.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u32, u32)> {
        self.chunks.iter().flat_map(|(index, chunk)| {
            let base = u32::from(*index) << 16;
            chunk.runs().into_iter().map(move |(first, last)| (base + u32::from(first), base + u32::from(last)))
        })
    }

    /// The blocks that lie in `window`, as ranges in order that are never adjacent.
    pub(super) fn ranges(&self, window: Range<u64>) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let chunks = (window.start >> 16) as u16..=(window.end >> 16).min(0xffff) as u16;
        for (index, chunk) in self.chunks.range(chunks) {
            let base = u64::from(*index) << 16;
            for (first, last) in chunk.runs() {
                let start = (base + u64::from(first)).max(window.start);
                let end = (base + u64::from(last) + 1).min(window.end);
                if start < end {
                    add_range(&mut ranges, start..end);
                }
            }
        }
        ranges
    }

    /// Its chunks by index, each as its runs.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (u16, Vec<(u16, u16)>)> {
        self.chunks.iter().map(|(index, chunk)| (*index, chunk.runs()))
    }

    /// Puts a chunk in. False when its runs are out of order, or it is there already, or empty.
    pub(super) fn put_chunk(&mut self, index: u16, runs: Vec<(u16, u16)>) -> bool {
        let ordered = runs.iter().all(|run| run.0 <= run.1)
            && runs.windows(2).all(|pair| u32::from(pair[0].1) + 1 < u32::from(pair[1].0));
        if runs.is_empty() || !ordered || self.chunks.contains_key(&index) {
            return false;
        }
        self.chunks.insert(index, Chunk::of(runs));
        true
    }
}

/// Appends a range that begins no earlier than the last one, joined with that if they touch.
pub(super) fn add_range(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
        _ => ranges.push(range),
    }
}

impl PartialEq for BlockSet {
    /// Whether the same blocks are in both, in whatever form.
    fn eq(&self, other: &Self) -> bool {
        self.runs().eq(other.runs())
    }
}

impl Eq for BlockSet {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn blocks() -> impl Strategy<Value = Vec<u32>> {
        let near = prop_oneof![0_u32..200, 65_500_u32..65_600, any::<u32>()];
        prop::collection::vec(near, 0..400)
    }

    fn set_of(blocks: &[u32]) -> BlockSet {
        let mut set = BlockSet::default();
        blocks.iter().for_each(|block| set.insert(*block));
        set
    }

    fn content(set: &BlockSet) -> BTreeSet<u32> {
        set.runs().flat_map(|(first, last)| first..=last).collect()
    }

    proptest! {
        #[test]
        fn what_is_put_in_is_in_it(blocks in blocks(), more in blocks(), from in 0_u32..70_000, window in 0_u64..66_000) {
            let mut set = set_of(&blocks);
            let mut expected: BTreeSet<u32> = blocks.iter().copied().collect();
            prop_assert_eq!(content(&set), expected.clone());
            set.merge(&set_of(&more));
            expected.extend(more);
            prop_assert_eq!(content(&set), expected.clone());
            let window = window..window + 300;
            let inside: BTreeSet<u64> = set.ranges(window.clone()).into_iter().flatten().collect();
            let wanted = expected.iter().map(|block| u64::from(*block)).filter(|block| window.contains(block));
            prop_assert_eq!(inside, wanted.collect());
            set.truncate(from);
            expected.retain(|block| *block < from);
            prop_assert_eq!(content(&set), expected);
        }

        #[test]
        fn runs_and_bits_are_the_same_set(step in 1_usize..4, offset in 0_u32..70_000) {
            // More runs than a chunk keeps.
            let blocks: Vec<u32> = (offset..).step_by(step).take(5000).collect();
            let set = set_of(&blocks);
            prop_assert_eq!(content(&set), blocks.iter().copied().collect());
            let mut other = BlockSet::default();
            for (index, runs) in set.chunks() {
                prop_assert!(other.put_chunk(index, runs));
            }
            prop_assert_eq!(&other, &set);
            other.insert(offset + 40_001);
            prop_assert_eq!(other == set, blocks.contains(&(offset + 40_001)));
        }
    }

    #[test]
    fn ranges_join_over_chunks() {
        let set = set_of(&[65_534, 65_535, 65_536, u32::MAX]);
        assert_eq!(set.ranges(0..1 << 32), [65_534..65_537, 0xffff_ffff..1 << 32]);
        assert_eq!(set.ranges(65_535..65_536).first(), Some(&(65_535..65_536)));
        assert_eq!(set.ranges(0..65_534), []);
    }

    #[test]
    fn disordered_chunks_are_refused() {
        let mut set = BlockSet::default();
        for runs in [vec![], vec![(2, 1)], vec![(1, 2), (3, 4)], vec![(5, 5), (1, 1)], vec![(1, 3), (2, 9)]] {
            assert!(!set.put_chunk(0, runs));
        }
        assert!(set.put_chunk(0, vec![(0, 0), (2, u16::MAX)]));
        assert!(!set.put_chunk(0, vec![(1, 1)]));
    }
}
