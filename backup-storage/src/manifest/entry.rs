//! One entry of a manifest.

use backup_core::entry::EntryMeta;
use minicbor::{Decode, Encode};

use super::Extent;
use crate::error::{Error, Result};
use crate::pack::{BLOCK, BlockHash};

/// Where an entry's content is: its extents, or where the list of them is stored when it is long.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Content {
    /// The extents.
    #[n(0)]
    Inline(#[n(0)] Vec<Extent>),
    /// A blob that is the CBOR array of the extents.
    #[n(1)]
    Stored(#[n(0)] Vec<Extent>),
}

/// The hashes of an entry's 128 KiB blocks, 16 bytes each, under the hash key of `epoch`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum BlockMap {
    /// The hashes.
    #[n(0)]
    Inline {
        #[n(0)]
        epoch: u32,
        #[cbor(n(1), with = "minicbor::bytes")]
        hashes: Vec<u8>,
    },
    /// A blob of the hashes.
    #[n(1)]
    Stored {
        #[n(0)]
        epoch: u32,
        #[n(1)]
        hashes: Vec<Extent>,
    },
}

impl BlockMap {
    /// The epoch of the hash key.
    pub(crate) fn epoch(&self) -> u32 {
        match self {
            Self::Inline { epoch, .. } | Self::Stored { epoch, .. } => *epoch,
        }
    }

    /// The hashes in the bytes of a map.
    ///
    /// # Errors
    /// Damaged, when there are not as many as content of `len` bytes has blocks.
    pub(crate) fn hashes(bytes: &[u8], len: u64) -> Result<&[BlockHash]> {
        let (hashes, odd) = bytes.as_chunks::<16>();
        if !odd.is_empty() || hashes.len() as u64 != len.div_ceil(BLOCK as u64) {
            return Err(Error::damaged(format!("a block map has {} bytes for {len} bytes of content", bytes.len())));
        }
        Ok(hashes)
    }
}

/// One entry, complete.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ManifestEntry {
    /// What is known besides content.
    #[n(0)]
    pub(crate) meta: EntryMeta,
    /// Length of the content in bytes.
    #[n(1)]
    pub(crate) len: u64,
    /// Where the content is.
    #[n(2)]
    pub(crate) content: Content,
    /// What it is compared by.
    #[n(3)]
    pub(crate) blocks: BlockMap,
}

impl ManifestEntry {
    /// Every extent that stands in the entry itself, whatever it holds.
    pub(crate) fn direct_extents(&self) -> impl Iterator<Item = &Extent> {
        let (Content::Inline(content) | Content::Stored(content)) = &self.content;
        let map = match &self.blocks {
            BlockMap::Inline { .. } => &[][..],
            BlockMap::Stored { hashes, .. } => hashes,
        };
        content.iter().chain(map)
    }
}
