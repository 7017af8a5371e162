//! Packs: the objects that hold content, block maps and manifests. Log objects have the same layout under their own kind.
//!
//! ```text
//! object header (80 bytes, kind pack or log)
//! segment 0 | segment 1 | …                  ciphertext and tag each
//! footer                                     one more segment: last = 1, role = footer, codec = raw
//! trailer (16 bytes)                         u32 LE sealed length of the footer | u32 LE number of segments | "BKPACKE1"
//! ```
//! The footer's plaintext (little endian) says what every segment is, so a pack describes itself:
//! ```text
//! u32 number of segments | u32 number of pieces
//! per segment (28 bytes): u32 stored length (with tag) | u32 plain length | u8 codec | u8 role | u16 zero | 16 bytes content id
//! per piece   (28 bytes): u32 segment | u32 offset | u32 length | 16 bytes content id
//! ```
//! A *piece* is a small run of content that shares its segment with others. The *content id* of a run of plaintext is the
//! keyed 16-byte hash over the concatenated keyed 16-byte hashes of its 128 KiB blocks, under the hash key of the pack's
//! epoch; it serves to find content that an interrupted session has already stored, and to check what was decoded. Nobody looks for log by
//! its content, so log objects have a *checksum* in its place, which costs a fifth: CRC-32C (Castagnoli) of the plaintext, little endian, and 12 zeros.
//!
//! A place of a segment may be empty (all zeros in the footer): the pack is a copy of others, of which only that was copied which somebody needed.
//!
//! A plain segment has at most 1 MiB. An address in a pack is `segment << 20 | offset`, which makes a run of full segments
//! one contiguous range of addresses.

mod builder;
mod codec;
mod index;

pub(crate) use builder::{FinishedPack, PackBuilder};
pub(crate) use codec::{Codec, Compressor, Decompressor};
pub(crate) use index::{PackIndex, Piece, Scratch, SegmentInfo};
#[cfg(feature = "test-util")]
pub(crate) use index::{Trailer, parse_footer};

use backup_crypto::HashKey;

use crate::error::{Error, Result};

/// The unit of comparison with a parent, in bytes. A multiple of every engine's page size.
pub(crate) const BLOCK: usize = 128 << 10;
/// The most plaintext that one segment has, in bytes.
pub(crate) const SEGMENT: usize = 1 << 20;
/// `log2` of [`SEGMENT`]: how far a segment number is shifted in an address.
pub(crate) const SEGMENT_BITS: u32 = 20;
/// The largest pack that a reader accepts, in bytes.
pub(crate) const MAX_PACK: u64 = 256 << 20;

/// Length of the trailer in bytes.
pub(crate) const TRAILER: usize = 16;
const TRAILER_MAGIC: &[u8; 8] = b"BKPACKE1";

/// What a segment carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Role {
    /// Content of entries.
    Data = 0,
    /// Parts of manifest entries that are too large to stand in them: block hashes, lists of extents.
    Blob = 1,
    /// Entries of a manifest.
    ManifestPart = 2,
    /// The root of a manifest.
    ManifestRoot = 3,
    /// What a log object says about itself.
    LogIndex = 4,
    /// What packs were copied into this one, see [`crate::collect`].
    Moves = 5,
    /// What a checkpoint of the journal says about itself.
    Head = 6,
    /// The pack's own footer.
    Footer = 255,
}

impl TryFrom<u8> for Role {
    type Error = Error;

    fn try_from(number: u8) -> Result<Self> {
        match number {
            0 => Ok(Self::Data),
            1 => Ok(Self::Blob),
            2 => Ok(Self::ManifestPart),
            3 => Ok(Self::ManifestRoot),
            4 => Ok(Self::LogIndex),
            5 => Ok(Self::Moves),
            6 => Ok(Self::Head),
            255 => Ok(Self::Footer),
            other => Err(Error::damaged(format!("a segment has the unknown role {other}"))),
        }
    }
}

/// The keyed hash of one block.
pub(crate) type BlockHash = [u8; 16];

/// The content id of plaintext whose block hashes are `blocks`.
pub(crate) fn content_id(key: &HashKey, blocks: &[BlockHash]) -> [u8; 16] {
    key.block(blocks.as_flattened())
}

/// The content id of `plaintext`.
pub(crate) fn content_id_of(key: &HashKey, plaintext: &[u8]) -> [u8; 16] {
    let mut blocks = [[0; 16]; SEGMENT / BLOCK];
    let count = plaintext.len().div_ceil(BLOCK).min(blocks.len());
    for (hash, block) in blocks.iter_mut().zip(plaintext.chunks(BLOCK)) {
        *hash = key.block(block);
    }
    content_id(key, &blocks[..count])
}

/// What stands in the place of the content id of `plaintext` where nobody looks for it.
pub(crate) fn checksum(plaintext: &[u8]) -> [u8; 16] {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&crc32c::crc32c(plaintext).to_le_bytes());
    id
}

/// Whether `id` is what stands for `plaintext` in a pack whose hash key is `key`.
fn is_of(key: &HashKey, id: &[u8; 16], plaintext: &[u8]) -> bool {
    match id.ends_with(&[0; 12]) {
        true => *id == checksum(plaintext),
        false => *id == content_id_of(key, plaintext),
    }
}

#[cfg(test)]
mod tests;
