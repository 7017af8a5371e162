//! Content of known kinds.

use bytes::Bytes;

use crate::env::{Entropy, SeededEntropy};

pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;
/// The unit of positional comparison and of inspection.
pub(super) const BLOCK: usize = 128 * KIB;

/// Bytes that nothing can compress, the same for the same seed.
pub(super) fn noise(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    SeededEntropy::new(seed).fill(&mut bytes);
    bytes.into()
}

/// Text-like bytes that compress well but are nowhere all zero.
pub(super) fn text(seed: u64, len: usize) -> Bytes {
    let words = noise(seed, 64);
    (0..len).map(|i| b'a' + words[(i / 7 + i * i / 1000) % words.len()] % 26).collect::<Vec<_>>().into()
}

/// `bytes` with those from `at` on replaced by others of equal length.
pub(super) fn patched(bytes: &Bytes, at: usize, len: usize) -> Bytes {
    let mut changed = bytes.to_vec();
    changed[at..at + len].iter_mut().for_each(|b| *b = !*b);
    changed.into()
}

/// Panics unless the two are equal; says where they differ instead of printing them.
#[track_caller]
pub(super) fn assert_same(actual: &[u8], expected: &[u8], what: impl std::fmt::Display) {
    assert_eq!(actual.len(), expected.len(), "length of {what}");
    if let Some(at) = actual.iter().zip(expected).position(|(a, b)| a != b) {
        panic!("{what} differs at byte {at}: {} instead of {}", actual[at], expected[at]);
    }
}
