//! The content of an entry in the parent backup: what blocks are compared with, and what is taken from it unread.

use std::ops::Range;

use backup_core::engine::Changes;
use backup_crypto::HashKey;

use crate::error::Result;
use crate::manifest::{Extent, slice};
use crate::pack::{BLOCK, BlockHash};

/// In the place of a hash: nobody has seen the block as a whole. Never the hash of anything, as far as anyone can tell.
pub(crate) const UNKNOWN: BlockHash = [0; 16];

/// The same entry in the parent backup, with its extents already in terms of this session's pack table.
#[derive(Debug)]
pub(crate) struct ParentContent {
    len: u64,
    extents: Vec<Extent>,
    /// Where each extent begins.
    starts: Vec<u64>,
    hashes: Vec<BlockHash>,
    /// What the parent's hashes were made with, when it is not this session's key.
    key: Option<HashKey>,
}

impl ParentContent {
    /// Content of `len` bytes at `extents`.
    pub(crate) fn new(len: u64, extents: Vec<Extent>, hashes: Vec<BlockHash>, key: Option<HashKey>) -> Self {
        let mut end = 0;
        let starts = extents.iter().map(|extent| {
            end += extent.len;
            end - extent.len
        });
        let starts = starts.collect();
        Self { len, extents, starts, hashes, key }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn hashes(&self) -> &[BlockHash] {
        &self.hashes
    }

    /// Whether the hashes are those that this session would make.
    pub(crate) fn has_own_hashes(&self) -> bool {
        self.key.is_none()
    }

    /// Whether block `index` of the parent is `block`, whose hash under this session's key is `hash`.
    pub(crate) fn has(&self, index: usize, block: &[u8], hash: &BlockHash) -> bool {
        let Some(theirs) = self.hashes.get(index) else { return false };
        let start = (index * BLOCK) as u64;
        if self.len - start.min(self.len) < block.len() as u64
            || (self.len - start < BLOCK as u64 && self.len - start != block.len() as u64)
        {
            return false;
        }
        match &self.key {
            None => theirs == hash,
            Some(key) => *theirs == key.block(block),
        }
    }

    /// Whether block `index` differs though `claimed` says that it does not.
    pub(crate) fn contradicts(&self, claimed: &Changes, index: usize, block: &[u8], hash: &BlockHash) -> bool {
        let start = (index * BLOCK) as u64;
        let range = start..start + block.len() as u64;
        range.end <= self.len
            && !claimed.meets(&range)
            && self.hashes.get(index) != Some(&UNKNOWN)
            // The end of what has become shorter cannot be compared by the hash of a longer block.
            && (block.len() == BLOCK || range.end == self.len)
            && !self.has(index, block, hash)
    }

    /// Where `range` is stored.
    ///
    /// # Errors
    /// Damaged, when the extents end before the range does.
    pub(crate) fn slice(&self, range: Range<u64>) -> Result<Vec<Extent>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.first(range.start);
        let before = self.starts.get(first).copied().unwrap_or(0);
        slice(&self.extents[first..], range.start - before..range.end - before)
    }

    /// Of how many runs `range` consists.
    pub(crate) fn pieces(&self, range: &Range<u64>) -> usize {
        let first = self.first(range.start);
        self.starts.partition_point(|start| *start < range.end).saturating_sub(first)
    }

    /// The number of the extent that holds the byte `at`.
    fn first(&self, at: u64) -> usize {
        self.starts.partition_point(|start| *start <= at).saturating_sub(1)
    }
}
