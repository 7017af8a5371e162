//! Files of an incremental base backup: the blocks that changed, behind a list of their numbers.
//!
//! Source: `sendFile` and `GetIncrementalHeaderSize` of the server (`basebackup.c`, `basebackup_incremental.c`), `reconstruct.c` of
//! `pg_combinebackup`. Three words of 32 bits, least significant byte first: a magic number, the number of blocks, the *truncation
//! block length*; then the numbers of the blocks inside of this file, in order; zeros up to a multiple of the block size, unless there
//! are no blocks; then the blocks.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::page::PAGE_SIZE;

const MAGIC: u32 = 0xd3ae_1f0d;
const WORDS: usize = 12;

/// What stands before the blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IncrementHeader {
    /// The blocks that follow, by their numbers in the file, in order.
    pub blocks: Box<[u32]>,
    /// At least so many blocks the file has, and those of them that do not follow are what they were. What lies behind, as far as the
    /// last block that follows, is empty.
    pub truncation: u32,
}

/// Reads such a file as it comes. Never panics; memory is bounded by the size of a segment's list.
#[derive(Debug)]
pub struct IncrementReader {
    per_segment: u32,
    head: Vec<u8>,
    /// How long the header is, as far as that is known.
    head_len: usize,
    /// Bytes of blocks that are still to come, once the header is whole.
    left: Option<u64>,
}

impl IncrementReader {
    /// A reader at the start of a file of at most so many blocks.
    #[must_use]
    pub fn new(per_segment: u32) -> Self {
        Self { per_segment, head: Vec::new(), head_len: WORDS, left: None }
    }

    /// Takes the file's next bytes. Returns the header when these complete it, and what of them is content of blocks.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is no such file, or has more content than blocks.
    pub fn push(&mut self, mut bytes: Bytes) -> Result<(Option<IncrementHeader>, Bytes)> {
        let mut header = None;
        while self.left.is_none() {
            let taken = bytes.len().min(self.head_len - self.head.len());
            self.head.extend_from_slice(&bytes.split_to(taken));
            if self.head.len() < self.head_len {
                return Ok((None, bytes));
            }
            if self.head_len == WORDS && self.measure()? > WORDS {
                continue;
            }
            let whole = self.parse()?;
            self.left = Some(whole.blocks.len() as u64 * PAGE_SIZE as u64);
            self.head = Vec::new();
            header = Some(whole);
        }
        let left = self.left.unwrap_or_default();
        let left = left.checked_sub(bytes.len() as u64).ok_or_else(|| wrong("it has more content than blocks"))?;
        self.left = Some(left);
        Ok((header, bytes))
    }

    /// Declares the file's end.
    ///
    /// # Errors
    /// [`Error::Malformed`] when something is missing.
    pub fn finish(&self) -> Result<()> {
        match self.left {
            Some(0) => Ok(()),
            Some(left) => Err(wrong(format!("{left} bytes of its blocks are missing"))),
            None => Err(wrong("it ends within its header")),
        }
    }

    /// Finds out how long the header is.
    fn measure(&mut self) -> Result<usize> {
        let (magic, count) = (self.word(0), self.word(4));
        if magic != MAGIC {
            return Err(wrong(format!("it begins with {magic:#010x}")));
        }
        if count > self.per_segment {
            return Err(wrong(format!("it has {count} blocks, a segment {}", self.per_segment)));
        }
        let len = WORDS + 4 * count as usize;
        self.head_len = if count == 0 { len } else { len.next_multiple_of(PAGE_SIZE) };
        Ok(self.head_len)
    }

    fn parse(&self) -> Result<IncrementHeader> {
        let end = WORDS + 4 * self.word(4) as usize;
        let blocks: Box<[u32]> = (WORDS..end).step_by(4).map(|at| self.word(at)).collect();
        if !blocks.is_sorted_by(|a, b| a < b) || blocks.last().is_some_and(|last| *last >= self.per_segment) {
            return Err(wrong("its blocks are out of order or outside of a segment"));
        }
        if self.head[end..].iter().any(|byte| *byte != 0) {
            return Err(wrong("something stands behind its list of blocks"));
        }
        // Some minor versions do not cut it where the segment ends: the relation goes on in the next one.
        Ok(IncrementHeader { blocks, truncation: self.word(8).min(self.per_segment) })
    }

    /// The word at `at`; 0 where there is none.
    fn word(&self, at: usize) -> u32 {
        self.head.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
    }
}

fn wrong(reason: impl Into<String>) -> Error {
    Error::malformed("incremental file", reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(blocks: &[u32], truncation: u32) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [MAGIC, blocks.len() as u32, truncation].iter().chain(blocks) {
            file.extend(word.to_le_bytes());
        }
        if !blocks.is_empty() {
            file.resize(file.len().next_multiple_of(PAGE_SIZE), 0);
        }
        for block in blocks {
            file.extend([(*block as u8).wrapping_add(1); PAGE_SIZE]);
        }
        file
    }

    fn read(file: &[u8], piece: usize) -> Result<(IncrementHeader, Vec<u8>)> {
        let (mut reader, mut found, mut content) = (IncrementReader::new(131_072), None, Vec::new());
        for piece in file.chunks(piece) {
            let (header, bytes) = reader.push(Bytes::copy_from_slice(piece))?;
            found = found.or(header);
            content.extend_from_slice(&bytes);
        }
        reader.finish()?;
        Ok((found.unwrap(), content))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            blocks in prop_oneof![
                prop::collection::btree_set(0_u32..131_072, 0..5),
                // Lists that end where a block does, and around that.
                (2040_u32..2050).prop_map(|count| (0..count).collect()),
            ],
            truncation: u32,
            piece in 1_usize..20_000,
        ) {
            let blocks: Vec<u32> = blocks.into_iter().collect();
            let file = file(&blocks, truncation);
            let (header, content) = read(&file, piece).unwrap();
            prop_assert_eq!(&header.blocks[..], &blocks[..]);
            prop_assert_eq!(header.truncation, truncation.min(131_072));
            prop_assert!(content == file[file.len() - blocks.len() * PAGE_SIZE..]);
            prop_assert!(read(&file[..file.len() - 1], piece).is_err());
            let mut longer = file;
            longer.push(0);
            prop_assert!(read(&longer, piece).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes: Vec<u8>, piece in 1_usize..50, known: bool) {
            if known {
                bytes.splice(..0, MAGIC.to_le_bytes());
            }
            let _ = read(&bytes, piece);
        }
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        let sound = file(&[3, 5], 7);
        read(&sound, 100).unwrap();
        let spoilt = |at: usize, byte: u8| {
            let mut file = sound.clone();
            file[at] = byte;
            read(&file, 100).is_err()
        };
        // The magic number, more blocks than a segment has, disorder, a block outside, padding that is something.
        for (at, byte) in [(0, 0), (7, 1), (12, 5), (19, 1), (8000, 1)] {
            assert!(spoilt(at, byte), "byte {at}");
        }
        assert!(IncrementReader::new(5).push(sound.into()).is_err());
    }
}
