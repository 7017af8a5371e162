//! What is said about a segment besides its bytes.

use crate::error::{Error, Result};
use crate::suite::{NONCE_LEN, TAG_LEN};

/// Longest segment, before and after compression, in bytes. Bounds what a reader must allocate before it can check a tag.
pub const MAX_SEGMENT: usize = 16 << 20;
/// Most segments of one object. Keeps AES-GCM's birthday bound far away: 2^20 segments of 2^20 blocks are 2^40 blocks, an
/// advantage below 2^-48.
pub const MAX_SEGMENTS: u32 = 1 << 20;

/// What is authenticated along with a segment: a segment opens only under the header it was sealed with.
///
/// The header itself is not part of the sealed bytes; the storage keeps it (or the means to work it out) elsewhere.
///
/// # Authenticated form
/// 12 bytes: index u32 LE ‖ last u8 (0 or 1) ‖ codec u8 ‖ role u8 ‖ 0 ‖ plain length u32 LE. The sealed length is authenticated
/// by the cipher. The nonce is the object's base nonce with the index, as u32 LE, XORed into its first four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentHeader {
    /// Position in the object, from 0, below [`MAX_SEGMENTS`].
    pub index: u32,
    /// Whether this is the object's last segment. A reader that has opened it knows how many there are, so an object that was
    /// cut short shows.
    pub last: bool,
    /// Length before compression, in bytes, at most [`MAX_SEGMENT`].
    pub plain_len: u32,
    /// How the bytes were compressed; the number means something to the storage only.
    pub codec: u8,
    /// What the segment carries; the number means something to the storage only.
    pub role: u8,
}

impl SegmentHeader {
    /// Length of the sealed form of `len` bytes.
    pub const fn sealed_len(len: usize) -> usize {
        len + TAG_LEN
    }

    pub(super) fn check(&self) -> Result<()> {
        within("a segment index", self.index as usize, MAX_SEGMENTS as usize - 1)?;
        within("the plain length of a segment", self.plain_len as usize, MAX_SEGMENT)
    }

    pub(super) fn aad(&self) -> [u8; 12] {
        let mut aad = [0; 12];
        aad[..4].copy_from_slice(&self.index.to_le_bytes());
        aad[4..7].copy_from_slice(&[self.last.into(), self.codec, self.role]);
        aad[8..].copy_from_slice(&self.plain_len.to_le_bytes());
        aad
    }

    pub(super) fn nonce(&self, mut base: [u8; NONCE_LEN]) -> [u8; NONCE_LEN] {
        base.iter_mut().zip(self.index.to_le_bytes()).for_each(|(byte, index)| *byte ^= index);
        base
    }
}

pub(super) fn within(what: &'static str, found: usize, limit: usize) -> Result<()> {
    if found > limit {
        return Err(Error::LimitExceeded { what, found: found as u64, limit: limit as u64 });
    }
    Ok(())
}
