//! The checksum of snapshot files and `DUMP` payloads: CRC-64 of Jones' polynomial, as `crc64.c` of the servers has it.

use crc_fast::{CrcAlgorithm, Digest};

/// A running CRC-64. Fast for pieces of a few hundred bytes and more, so it is given whole chunks.
#[derive(Clone)]
pub struct Crc64(Digest);

impl std::fmt::Debug for Crc64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Crc64({:016x})", self.value())
    }
}

impl Default for Crc64 {
    fn default() -> Self {
        Self::new()
    }
}

impl Crc64 {
    /// The checksum of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Redis))
    }

    /// The checksum of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> u64 {
        crc_fast::checksum(CrcAlgorithm::Crc64Redis, bytes)
    }

    /// Takes in `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.update(bytes);
        }
    }

    /// The checksum of all that came in.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, from the definition: reflected, starts at zero, nothing at the end.
    fn slow(bytes: &[u8]) -> u64 {
        const REFLECTED: u64 = 0xad93_d235_94c9_35a9_u64.reverse_bits();
        bytes.iter().fold(0, |crc, byte| {
            (0..8).fold(crc ^ u64::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { REFLECTED } else { 0 })
        })
    }

    #[test]
    fn it_is_the_checksum_of_the_servers() {
        assert_eq!(Crc64::of(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        let bytes: Vec<u8> = (0..3000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        for len in [0, 1, 7, 8, 15, 16, 31, 63, 64, 127, 128, 255, 256, 257, 1023, 3000] {
            let mut pieces = Crc64::new();
            bytes[..len].chunks(13).for_each(|piece| pieces.update(piece));
            assert_eq!((Crc64::of(&bytes[..len]), pieces.value()), (slow(&bytes[..len]), slow(&bytes[..len])), "{len}");
        }
    }
}
