//! Where the content of an entry is stored.

use std::ops::Range;

use minicbor::{Decode, Encode};

use crate::error::{Error, Result};
use crate::pack::{SEGMENT, SEGMENT_BITS};

/// A run of content.
///
/// `pack` is 0 for a hole (zeros that are not stored), otherwise one more than the pack's index in the manifest's pack
/// table. `address` is `segment << 20 | offset`. A run may go on through following segments of the same pack: then every
/// segment of it but the last is full (1 MiB), so that the run is one range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Extent {
    /// Length in bytes; never 0.
    #[n(0)]
    pub(crate) len: u64,
    #[n(1)]
    pub(crate) pack: u32,
    #[n(2)]
    pub(crate) address: u64,
}

/// One segment of a run, and the part of it that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentPart {
    /// Where the part stands in the entry.
    pub(crate) at: u64,
    pub(crate) segment: u32,
    /// The part, in bytes of the segment's plaintext.
    pub(crate) range: Range<usize>,
}

impl Extent {
    /// `len` zeros.
    pub(crate) fn hole(len: u64) -> Self {
        Self { len, pack: 0, address: 0 }
    }

    /// `len` bytes at `offset` of `segment` of the pack with `index` in the pack table.
    pub(crate) fn stored(len: u64, index: u32, segment: u32, offset: u32) -> Self {
        Self { len, pack: index + 1, address: u64::from(segment) << SEGMENT_BITS | u64::from(offset) }
    }

    /// The pack's index in the pack table, unless this is a hole.
    pub(crate) fn pack_index(&self) -> Option<u32> {
        self.pack.checked_sub(1)
    }

    /// The same place in a manifest whose pack table has the pack at `index`.
    pub(crate) fn moved_to(self, index: u32) -> Self {
        Self { pack: index + 1, ..self }
    }

    /// Appends `next` to `extents`, as part of the last one where it continues it.
    pub(crate) fn push(extents: &mut Vec<Self>, next: Self) {
        if let Some(last) = extents.last_mut()
            && last.pack == next.pack
            && (next.pack == 0 || last.address + last.len == next.address)
        {
            // A run that ends where an address is a multiple of the segment size has filled that segment.
            last.len += next.len;
            return;
        }
        if next.len > 0 {
            extents.push(next);
        }
    }

    /// The part of this run in each segment, when the run begins at `at` of its entry. Empty for a hole.
    pub(crate) fn segments(self, at: u64) -> impl Iterator<Item = SegmentPart> {
        let mut address = self.address;
        let end = if self.pack == 0 { address } else { address.saturating_add(self.len) };
        std::iter::from_fn(move || {
            if address >= end {
                return None;
            }
            let offset = (address & (SEGMENT as u64 - 1)) as usize;
            let len = (SEGMENT - offset).min(usize::try_from(end - address).unwrap_or(usize::MAX));
            let part = SegmentPart {
                at: at + (address - self.address),
                segment: u32::try_from(address >> SEGMENT_BITS).unwrap_or(u32::MAX),
                range: offset..offset + len,
            };
            address += len as u64;
            Some(part)
        })
    }
}

/// The runs that hold `range` of content that consists of `extents`.
///
/// # Errors
/// Damaged, when the extents end before the range does.
pub(crate) fn slice(extents: &[Extent], range: Range<u64>) -> Result<Vec<Extent>> {
    let mut cut = Vec::new();
    let mut at = 0;
    for extent in extents {
        let end = at + extent.len;
        let (from, to) = (range.start.max(at), range.end.min(end));
        if from < to {
            let skip = if extent.pack == 0 { 0 } else { from - at };
            Extent::push(&mut cut, Extent { len: to - from, pack: extent.pack, address: extent.address + skip });
        }
        at = end;
        if at >= range.end {
            break;
        }
    }
    if at < range.end {
        return Err(Error::damaged(format!("an entry has {at} stored bytes where {} are needed", range.end)));
    }
    Ok(cut)
}

/// The sum of the lengths.
pub(crate) fn total(extents: &[Extent]) -> u64 {
    extents.iter().map(|e| e.len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_of_full_segments_become_one() {
        let mut extents = Vec::new();
        for segment in 4..7 {
            Extent::push(&mut extents, Extent::stored(SEGMENT as u64, 0, segment, 0));
        }
        Extent::push(&mut extents, Extent::stored(10, 0, 7, 0));
        assert_eq!(extents, [Extent::stored(3 * SEGMENT as u64 + 10, 0, 4, 0)]);
        // Segment 7 is not known to be full, so what follows cannot join.
        Extent::push(&mut extents, Extent::stored(10, 0, 8, 0));
        Extent::push(&mut extents, Extent::hole(5));
        Extent::push(&mut extents, Extent::hole(5));
        assert_eq!(extents.len(), 3);
        assert_eq!(extents[2], Extent::hole(10));
        let parts: Vec<_> = extents[0].segments(100).collect();
        assert_eq!(parts.len(), 4);
        assert_eq!(parts[3], SegmentPart { at: 100 + 3 * SEGMENT as u64, segment: 7, range: 0..10 });
    }

    /// Every byte's place, one by one: the slow truth.
    fn places(extents: &[Extent]) -> Vec<(u32, u64)> {
        extents.iter().flat_map(|e| (0..e.len).map(|i| (e.pack, if e.pack == 0 { 0 } else { e.address + i }))).collect()
    }

    fn extents() -> impl Strategy<Value = Vec<Extent>> {
        let extent = (1..50u64, 0..3u32, 0..4u64, 0..40u64);
        prop::collection::vec(extent, 0..20).prop_map(|rows| {
            let mut extents = Vec::new();
            for (len, pack, segment, offset) in rows {
                let address = if pack == 0 { 0 } else { segment << SEGMENT_BITS | offset };
                Extent::push(&mut extents, Extent { len, pack, address });
            }
            extents
        })
    }

    proptest! {
        #[test]
        fn a_slice_is_what_the_bytes_say(extents in extents(), a: prop::sample::Index, b: prop::sample::Index) {
            let all = places(&extents);
            let (a, b) = (a.index(all.len() + 1), b.index(all.len() + 1));
            let range = a.min(b)..a.max(b);
            let cut = slice(&extents, range.start as u64..range.end as u64).unwrap();
            prop_assert_eq!(places(&cut), &all[range]);
            prop_assert!(slice(&extents, 0..all.len() as u64 + 1).is_err());
        }

        #[test]
        fn segments_cover_a_run_exactly(len in 1..5_000_000u64, segment in 0..9u32, offset in 0..SEGMENT as u32) {
            let extent = Extent::stored(len, 3, segment, offset);
            let mut at = 7;
            for part in extent.segments(7) {
                prop_assert_eq!(part.at, at);
                prop_assert!(part.range.end <= SEGMENT && !part.range.is_empty());
                at += part.range.len() as u64;
            }
            prop_assert_eq!(at, 7 + len);
        }
    }
}
