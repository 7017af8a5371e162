//! Comparing a file that exists with the backup, block by block. Blocking.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use backup_crypto::HashKey;
use rustix::fs::FileType;

use super::hands::Stop;
use super::place::Place;
use super::tree::Tree;
use crate::error::{Error, Result};
use crate::manifest::{Extent, slice};
use crate::pack::{BLOCK, BlockHash, SEGMENT};

/// A run of the backup that a file lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    /// Where it stands in the file.
    pub(super) at: u64,
    pub(super) extent: Extent,
}

/// The file at `place` when it may be changed in place. Anything else that stands there is removed.
pub(super) fn standing(tree: &Tree, place: &Place) -> Result<Option<File>> {
    let Some(facts) = tree.stat(place)? else { return Ok(None) };
    // A file with a second name may be somebody else's.
    if FileType::from_raw_mode(facts.st_mode).is_file() && facts.st_nlink == 1 {
        return tree.open(place).map(Some);
    }
    tree.clear(place)?;
    Ok(None)
}

/// What the backup says about the content of a file.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) len: u64,
    pub(super) extents: Vec<Extent>,
    pub(super) hashes: Vec<BlockHash>,
    pub(super) key: HashKey,
}

/// What a comparison found.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) missing: Vec<Missing>,
    /// Bytes that were set to zero.
    pub(super) zeroed: u64,
}

/// Gives `file` the length of `content`, makes the holes of the backup zeros where they are not, and says which stored runs
/// differ. `compared` is told how many bytes have been looked at.
pub(super) fn compare(
    file: &File,
    content: &Content,
    stop: &Stop,
    mut compared: impl FnMut(u64),
) -> Result<Difference, Failure> {
    let had = file.metadata()?.len();
    if had != content.len {
        file.set_len(content.len)?;
    }
    let there = had.min(content.len);
    let mut buffer = vec![0; content.len.min(SEGMENT as u64) as usize];
    let mut differing: Vec<Range<u64>> = Vec::new();
    let mut differs = |range: Range<u64>| match differing.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => differing.push(range),
    };
    let mut at = 0;
    while at < there {
        stop.check()?;
        // Up to the end of the block in which the file ended: what was added reads as zeros.
        let end = (at + SEGMENT as u64).min(there.next_multiple_of(BLOCK as u64)).min(content.len);
        let bytes = &mut buffer[..(end - at) as usize];
        file.read_exact_at(bytes, at)?;
        for (number, block) in bytes.chunks(BLOCK).enumerate() {
            let start = at + (number * BLOCK) as u64;
            let expected = usize::try_from(start / BLOCK as u64).ok().and_then(|index| content.hashes.get(index));
            if expected != Some(&content.key.block(block)) {
                differs(start..start + block.len() as u64);
            }
        }
        compared(end - at);
        at = end;
    }
    let mut difference = Difference { missing: Vec::new(), zeroed: 0 };
    for range in differing {
        let mut next = range.start;
        for extent in slice(&content.extents, range)? {
            if extent.pack_index().is_some() {
                difference.missing.push(Missing { at: next, extent });
            } else {
                zero(file, next..next + extent.len)?;
                difference.zeroed += extent.len;
            }
            next += extent.len;
        }
    }
    difference.missing.extend(stored(&slice(&content.extents, at..content.len)?, at));
    compared(content.len - at);
    Ok(difference)
}

/// The stored runs of content that begins at `at`. Holes of a new file are zeros already.
pub(super) fn stored(extents: &[Extent], mut at: u64) -> Vec<Missing> {
    let mut runs = Vec::with_capacity(extents.len());
    for extent in extents {
        if extent.pack_index().is_some() {
            runs.push(Missing { at, extent: *extent });
        }
        at += extent.len;
    }
    runs
}

fn zero(file: &File, range: Range<u64>) -> Result<(), Failure> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::FallocateFlags;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(file, flags, range.start, range.end - range.start).is_ok() {
            return Ok(());
        }
        // Not every file system has holes.
    }
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(BLOCK as u64);
        file.write_all_at(&ZEROS[..len as usize], at)?;
        at += len;
    }
    Ok(())
}

/// Why a comparison ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// The file cannot be read or written.
    Io(std::io::Error),
    /// Anything else.
    Other(Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::tests::keyring;
    use proptest::prelude::*;
    use tokio_util::sync::CancellationToken;

    fn hands() -> super::super::hands::Hands {
        super::super::hands::Hands::new(1, &CancellationToken::new())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn what_is_missing_completes_the_file(
            // Per block: 0 a hole, otherwise stored with that byte; and what the file has.
            backup in prop::collection::vec(0..3u8, 0..20),
            file in prop::collection::vec(0..3u8, 0..20),
            tail in 1..=BLOCK as u64,
            file_tail in 0..=BLOCK,
        ) {
            let fill = |blocks: &[u8]| blocks.iter().flat_map(|b| vec![*b; BLOCK]).collect::<Vec<u8>>();
            let mut wanted = fill(&backup);
            wanted.truncate((wanted.len() as u64).saturating_sub(BLOCK as u64 - tail) as usize);
            let mut had = fill(&file);
            had.truncate(had.len().saturating_sub(BLOCK - file_tail));
            let keys = keyring(1);
            let key = keys.hash_key(keys.current()).unwrap().clone();
            let mut extents = Vec::new();
            for (number, block) in wanted.chunks(BLOCK).enumerate() {
                let len = block.len() as u64;
                let next = if block[0] == 0 { Extent::hole(len) } else { Extent::stored(len, 0, number as u32, 0) };
                Extent::push(&mut extents, next);
            }
            let hashes = wanted.chunks(BLOCK).map(|b| key.block(b)).collect();
            let content = Content { len: wanted.len() as u64, extents, hashes, key };
            let target = tempfile::tempfile().unwrap();
            target.write_all_at(&had, 0).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let twin = target.try_clone().unwrap();
            let expected = wanted.clone();
            let (difference, seen, content) = runtime.block_on(hands().run(move |stop| {
                let mut seen = 0;
                let difference = compare(&twin, &content, stop, |by| seen += by).map_err(|e| Error::internal(format!("{e:?}")))?;
                Ok((difference, seen, content))
            })).unwrap();
            prop_assert_eq!(seen, content.len);
            let mut written = 0;
            for missing in &difference.missing {
                let range = missing.at as usize..(missing.at + missing.extent.len) as usize;
                prop_assert!(missing.extent.pack_index().is_some());
                written += range.len();
                target.write_all_at(&wanted[range], missing.at).unwrap();
            }
            let mut now = vec![0; target.metadata().unwrap().len() as usize];
            target.read_exact_at(&mut now, 0).unwrap();
            prop_assert!(now == expected);
            // Blocks that are equal are neither fetched nor written.
            let differing: usize = wanted.chunks(BLOCK).enumerate().filter(|(n, block)| {
                let start = n * BLOCK;
                let mine = had.get(start..(start + block.len()).min(had.len())).unwrap_or(&[]);
                let mut padded = mine.to_vec();
                padded.resize(block.len(), 0);
                padded != **block
            }).map(|(_, block)| block.len()).sum();
            prop_assert_eq!(written as u64 + difference.zeroed, differing as u64);
        }
    }
}
