//! What a manifest may claim.
//!
//! Manifests are otherwise read as what somebody with the keys has written. A host that was taken over may write what it likes, and everything that
//! reads a manifest later adds up lengths, walks over segments and gathers blobs. So nothing overflows, no run goes on behind what its pack can hold, and no
//! blob is larger than one that would be written.

use crate::manifest::{Blob, BlockMap, Content, Extent, ManifestEntry, PackUse};
use crate::pack::{BLOCK, MAX_PACK, SEGMENT, SEGMENT_BITS};

/// The most content of one backup, in bytes: 1 PiB.
pub(super) const DATA: u64 = 1 << 50;
/// The largest blob, in bytes: the block hashes of 8 TiB.
const BLOB: u64 = 1 << 30;
/// A segment takes so many bytes of its pack at least: a row of the footer.
const ROW: u64 = 28;

type Sound = Result<(), &'static str>;

/// Whether `entry` is in terms of `packs`, as far as can be told from itself.
pub(super) fn entry(packs: &[PackUse], entry: &ManifestEntry) -> Sound {
    match &entry.content {
        Content::Inline(extents) => content(packs, extents, entry.len)?,
        Content::Stored(list) => blob(packs, list)?,
    }
    let needs = entry.len.div_ceil(BLOCK as u64).checked_mul(16).ok_or("an entry is too long")?;
    let has = match &entry.blocks {
        BlockMap::Inline { hashes, .. } => hashes.len() as u64,
        BlockMap::Stored { hashes, .. } => {
            blob(packs, hashes)?;
            sum(hashes)?
        }
    };
    if has == needs { Ok(()) } else { Err("an entry has not as many block hashes as blocks") }
}

/// Whether `extents` are content of `len` bytes.
pub(super) fn content(packs: &[PackUse], extents: &[Extent], len: u64) -> Sound {
    if sum(extents)? != len || len > DATA {
        return Err("an entry is not as long as its content");
    }
    extents.iter().try_for_each(|extent| fits(packs, extent))
}

fn blob(packs: &[PackUse], extents: &[Extent]) -> Sound {
    if sum(extents)? > BLOB {
        return Err("a part of an entry is too large");
    }
    let stored = |extent: &Extent| extent.pack_index().ok_or("a part of an entry is a hole").map(drop);
    extents.iter().try_for_each(|extent| stored(extent).and_then(|()| fits(packs, extent)))
}

/// Whether a part of the root can be gathered. Its extents name packs by their numbers.
pub(super) fn root_blob(blob: &Blob) -> Sound {
    let Blob::Stored(extents) = blob else { return Ok(()) };
    if sum(extents)? > BLOB {
        return Err("a part of the root is too large");
    }
    extents.iter().try_for_each(|extent| within(extent, MAX_PACK))
}

fn sum(extents: &[Extent]) -> Result<u64, &'static str> {
    let total = extents.iter().try_fold(0_u64, |total, extent| total.checked_add(extent.len));
    total.ok_or("lengths do not add up")
}

fn fits(packs: &[PackUse], extent: &Extent) -> Sound {
    let Some(index) = extent.pack_index() else { return Ok(()) };
    let pack = packs.get(index as usize).ok_or("an extent names no pack")?;
    within(extent, pack.stored_len.min(MAX_PACK))
}

/// Whether a run ends within the segments that a pack of `stored` bytes can have.
fn within(extent: &Extent, stored: u64) -> Sound {
    let end = extent.address.checked_add(extent.len).and_then(|end| end.checked_add(SEGMENT as u64 - 1));
    let segments = end.map(|end| end >> SEGMENT_BITS);
    match segments {
        Some(segments) if extent.len > 0 && segments <= stored / ROW => Ok(()),
        _ => Err("an extent goes on behind the end of its pack"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::SessionId;
    use backup_core::catalog::PackId;
    use backup_core::entry::{EntryMeta, EntryPath};

    const STORED: u64 = 28 * 10;

    fn packs() -> [PackUse; 1] {
        let pack = PackId { session: SessionId::from_bytes([1; 16]), number: 0 };
        [PackUse { pack, stored_len: STORED, live: 1 }]
    }

    fn checked(len: u64, content: Content, blocks: BlockMap) -> Sound {
        let meta = EntryMeta::file(EntryPath::new("x").unwrap());
        entry(&packs(), &ManifestEntry { meta, len, content, blocks })
    }

    fn hashes(count: usize) -> BlockMap {
        BlockMap::Inline { epoch: 1, hashes: vec![0; 16 * count] }
    }

    #[test]
    fn what_would_be_written_is_sound() {
        assert_eq!(checked(0, Content::Inline(Vec::new()), hashes(0)), Ok(()));
        let run = Extent::stored(10 * SEGMENT as u64, 0, 0, 0);
        assert_eq!(checked(run.len, Content::Inline(vec![run]), hashes(80)), Ok(()));
        let holes = vec![Extent::hole(DATA)];
        let stored = BlockMap::Stored { epoch: 1, hashes: vec![Extent::stored(1 << 20, 0, 0, 0); 1 << 10] };
        assert_eq!(checked(8 << 40, Content::Inline(vec![Extent::hole(8 << 40)]), stored.clone()), Ok(()));
        assert!(checked(DATA, Content::Inline(holes), stored).is_err(), "it has too few hashes");
        assert_eq!(checked(1, Content::Stored(vec![Extent::stored(10, 0, 9, 0)]), hashes(1)), Ok(()));
        assert_eq!(root_blob(&Blob::Stored(vec![Extent::stored(BLOB, 7, 0, 0)])), Ok(()));
    }

    #[test]
    fn what_would_overflow_or_never_end_is_refused() {
        let of =
            |extents: &[Extent]| content(&packs(), extents, extents.iter().fold(0, |all, e| e.len.wrapping_add(all)));
        let most = u64::MAX;
        for (extents, why) in [
            (vec![Extent { len: most, pack: 0, address: 0 }, Extent::hole(2)], "wraps to 1"),
            (vec![Extent::hole(DATA + 1)], "is more than anybody has"),
            (vec![Extent { len: 0, pack: 1, address: 0 }], "is empty"),
            (vec![Extent { len: 1, pack: 2, address: 0 }], "names no pack"),
            (vec![Extent { len: 1, pack: 1, address: most }], "wraps in the pack"),
            (vec![Extent { len: DATA, pack: 1, address: 0 }], "goes on for ever"),
            (vec![Extent::stored(1, 0, 10, 0)], "is behind the last segment"),
        ] {
            assert!(of(&extents).is_err(), "{why}");
        }
        let one = || Content::Inline(vec![Extent::hole(1)]);
        assert!(checked(1, one(), hashes(2)).is_err());
        assert!(checked(2, one(), hashes(1)).is_err());
        assert!(checked(most, Content::Stored(Vec::new()), hashes(0)).is_err());
        let repeated = vec![Extent::stored(SEGMENT as u64, 0, 0, 0); 1025];
        assert!(checked(1, Content::Stored(repeated.clone()), hashes(1)).is_err(), "one segment, gathered often");
        assert!(root_blob(&Blob::Stored(repeated)).is_err());
        assert!(checked(1, Content::Stored(vec![Extent::hole(1)]), hashes(1)).is_err());
        assert!(root_blob(&Blob::Stored(vec![Extent { len: 1, pack: 1, address: most }])).is_err());
    }
}
