//! The two hashes of a part: CityHash128 over the bytes of a file, SipHash128 over the list of files.
//!
//! Both differ from what other programs call by these names, so both are here. CityHash is version 1.0.2, whose results
//! later versions changed, and is chained over blocks of 2048 bytes, so that it can be computed while a file passes
//! (`HashingWriteBuffer.h`). SipHash is 2-4 with another way to its 128 bits (`SipHash.h`).
//!
//! None of them protects against somebody who means harm. They find what a disk, a network or a program has broken; that
//! a backup is what was written is proved by the repository.

mod city;
mod sip;
#[cfg(test)]
mod tests;

use std::fmt;

pub use city::{FileHasher, city_hash128};
pub use sip::SipHasher128;

/// 128 bits as two words, the lower first, as `checksums.txt` has them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Hash128 {
    low: u64,
    high: u64,
}

impl Hash128 {
    /// A hash of its two words.
    #[must_use]
    pub const fn new(low: u64, high: u64) -> Self {
        Self { low, high }
    }

    /// The lower word.
    #[must_use]
    pub const fn low(self) -> u64 {
        self.low
    }

    /// The higher word.
    #[must_use]
    pub const fn high(self) -> u64 {
        self.high
    }

    /// The bytes as a part stores them: the lower word first, each with its least byte first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.high) << 64 | u128::from(self.low)).to_le_bytes()
    }

    /// The hash that [`Self::to_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let [low, high] = words(&bytes);
        Self { low, high }
    }

    /// The hash that a server wrote as 32 hexadecimal digits, in whatever case; servers differ in it. `None` if it is
    /// something else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let high = u64::from_str_radix(text.get(..16)?, 16).ok()?;
        let low = u64::from_str_radix(text.get(16..)?, 16).ok()?;
        Some(Self { low, high })
    }
}

/// 32 hexadecimal digits, the higher word first, as `system.parts` shows a hash (`hex.h`).
impl fmt::Display for Hash128 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}{:016x}", self.high, self.low)
    }
}

impl fmt::Debug for Hash128 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hash128({self})")
    }
}

/// The two words of a hash.
fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let mut words = [0; 2];
    let (pieces, _) = bytes.as_chunks::<8>();
    for (word, piece) in words.iter_mut().zip(pieces) {
        *word = u64::from_le_bytes(*piece);
    }
    words
}
