//! SipHash 2-4 with ClickHouse's own way to 128 bits.
//!
//! Source: `src/Common/SipHash.h`. The common `SipHash128` starts from another state and computes its second half after
//! more rounds; here both halves are of the one state that gives the 64 bits.

use super::Hash128;

/// The hash over the list of a part's files, with the key that servers use for it: nought.
#[derive(Clone, Debug)]
pub struct SipHasher128 {
    v: [u64; 4],
    length: u64,
    waiting: u64,
}

impl SipHasher128 {
    /// The hash of nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            v: [0x736f_6d65_7073_6575, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573],
            length: 0,
            waiting: 0,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.waiting |= u64::from(*byte) << (8 * (self.length % 8));
            self.length = self.length.wrapping_add(1);
            if self.length.is_multiple_of(8) {
                self.word(self.waiting);
                self.waiting = 0;
            }
        }
    }

    /// Takes a length before its bytes, as servers hash strings here.
    pub fn update_string(&mut self, text: &str) {
        self.update(&(text.len() as u64).to_le_bytes());
        self.update(text.as_bytes());
    }

    /// The hash of everything that was taken.
    #[must_use]
    pub fn finish(mut self) -> Hash128 {
        self.word(self.waiting | (self.length & 0xff) << 56);
        self.v[2] ^= 0xff;
        for _ in 0..4 {
            self.round();
        }
        let [v0, v1, v2, v3] = self.v;
        Hash128::new(v0 ^ v1, v2 ^ v3)
    }

    fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.round();
        self.v[0] ^= word;
    }

    fn round(&mut self) {
        let [mut v0, mut v1, mut v2, mut v3] = self.v;
        v0 = v0.wrapping_add(v1);
        v1 = v1.rotate_left(13) ^ v0;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v3);
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.wrapping_add(v3);
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.wrapping_add(v1);
        v1 = v1.rotate_left(17) ^ v2;
        v2 = v2.rotate_left(32);
        self.v = [v0, v1, v2, v3];
    }
}

impl Default for SipHasher128 {
    fn default() -> Self {
        Self::new()
    }
}
