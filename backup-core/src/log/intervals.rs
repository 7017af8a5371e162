//! Sets of offsets as sorted intervals.

use std::collections::BTreeSet;
use std::ops::Range;

/// Disjoint, sorted, non-empty intervals. Intervals that touch are one, unless they touch at a *break*.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intervals {
    ranges: Vec<Range<u64>>,
}

impl Intervals {
    /// The union of `ranges`, cut at every offset of `breaks`.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = Range<u64>>, breaks: &BTreeSet<u64>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|range| range.start < range.end).collect();
        sorted.sort_unstable_by_key(|range| (range.start, range.end));
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        let mut ranges = Vec::with_capacity(merged.len());
        for mut range in merged {
            for cut in breaks.range(range.start + 1..range.end) {
                ranges.push(range.start..*cut);
                range.start = *cut;
            }
            ranges.push(range);
        }
        Self { ranges }
    }

    /// The intervals, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// The interval that begins at or before `offset` and ends behind it.
    #[must_use]
    pub fn containing(&self, offset: u64) -> Option<Range<u64>> {
        let behind = self.ranges.partition_point(|range| range.start <= offset);
        self.ranges.get(behind.checked_sub(1)?).filter(|range| offset < range.end).cloned()
    }

    /// The first interval that begins at or behind `offset`.
    #[must_use]
    pub fn next_from(&self, offset: u64) -> Option<Range<u64>> {
        self.ranges.get(self.ranges.partition_point(|range| range.start < offset)).cloned()
    }

    /// The end of the last interval.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.ranges.last().map(|range| range.end)
    }

    /// Whether all of `range` lies in one interval. An empty one always does.
    #[must_use]
    pub fn contains(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.containing(range.start).is_some_and(|found| range.end <= found.end)
    }

    /// Number of offsets in the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn intervals_are_the_set_of_their_offsets(
            ranges in prop::collection::vec((0_u64..60, 0_u64..12), 0..12),
            breaks in prop::collection::btree_set(0_u64..70, 0..6),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, len)| start..start + len).collect();
            let set: BTreeSet<u64> = ranges.iter().cloned().flatten().collect();
            let intervals = Intervals::new(ranges, &breaks);
            prop_assert_eq!(intervals.len(), set.len() as u64);
            for offset in 0..80 {
                let found = intervals.containing(offset);
                prop_assert_eq!(found.is_some(), set.contains(&offset));
                // Neighbours are in one interval exactly if both are in the set and nothing was broken between them.
                let joined = set.contains(&offset) && set.contains(&(offset + 1)) && !breaks.contains(&(offset + 1));
                prop_assert_eq!(found.is_some_and(|range| range.contains(&(offset + 1))), joined);
                let next = (offset..80).find(|o| set.contains(o) && (*o == 0 || !set.contains(&(o - 1)) || breaks.contains(o)));
                prop_assert_eq!(intervals.next_from(offset).map(|range| range.start), next);
            }
        }
    }
}
