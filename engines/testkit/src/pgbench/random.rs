//! Reproducible randomness for test data.

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state, good enough for data, the same on every machine.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must not be 0. The bias is below `end` / 2^32.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        (((self.next() >> 32) * u64::from(end)) >> 32) as u32
    }

    /// A number below `end` where small ones are much more likely, as words of a language are.
    pub(super) fn skewed(&mut self, end: u32) -> u32 {
        let (a, b) = (self.below(end), self.below(end));
        (u64::from(a) * u64::from(b) / u64::from(end)) as u32
    }
}
