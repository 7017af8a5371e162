//! That real parts fit is the proof; see the tests of the list and of verification. Here is what they do not reach.

use proptest::prelude::*;

use super::{FileHasher, Hash128, SipHasher128, city_hash128};
use crate::part::golden;

fn whole(bytes: &[u8]) -> Hash128 {
    let mut hasher = FileHasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// Bytes that look alike nowhere.
fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[test]
fn a_hash_of_long_names_names_their_files() {
    // The server of this part wrote the column's stream into a file that is called by the stream's hash.
    let mut hasher = SipHasher128::new();
    hasher.update(b"a_very_long_column_name_indeed");
    let name = format!("{}.bin", hasher.finish());
    assert!(golden::hashed_26().files.iter().any(|(path, _)| *path == name), "{name}");
}

#[test]
fn hashes_are_shown_as_servers_show_them() {
    let hash = Hash128::new(0x0123_4567_89ab_cdef, 0xfe00_0000_0000_0001);
    assert_eq!(hash.to_string(), "fe000000000000010123456789abcdef");
    assert_eq!(Hash128::from_hex("FE000000000000010123456789ABCDEF"), Some(hash));
    assert_eq!(hash.to_bytes()[..8], 0x0123_4567_89ab_cdef_u64.to_le_bytes());
    for text in ["", "fe", "fe000000000000010123456789abcde", "+e000000000000010123456789abcdef"] {
        assert_eq!(Hash128::from_hex(text), None, "{text}");
    }
}

/// Lengths around every border of the algorithm.
fn lengths() -> impl Iterator<Item = usize> {
    (0..300).chain([2047, 2048, 2049, 4096, 4097, 6000])
}

#[test]
fn every_length_has_the_hash_of_1_0_2() {
    let all: Vec<u8> = lengths().flat_map(|length| city_hash128(&noise(length)).to_bytes()).collect();
    // Computed with the C++ of 1.0.2 by another program.
    assert_eq!(city_hash128(&all).to_string(), "87c7be93e41673786102ff16d41bd79d");
}

#[test]
fn the_hash_of_a_file_is_the_plain_one_of_each_block_behind_the_hash_so_far() {
    for length in lengths() {
        let bytes = noise(length);
        let mut state = Hash128::default();
        for block in bytes.chunks(2048) {
            // The plain hash takes its seed from the first 16 bytes.
            let seed = Hash128::new(state.low() ^ 0xc949_d7c7_509e_6557, state.high());
            state = city_hash128(&[&seed.to_bytes(), block].concat());
        }
        assert_eq!(whole(&bytes), state, "{length}");
    }
}

proptest! {
    #[test]
    fn pieces_do_not_matter(length in 0usize..9000, cuts in prop::collection::vec(0usize..9000, 0..6)) {
        let bytes = noise(length);
        let mut hasher = FileHasher::new();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(length)).chain([0, length]).collect();
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            hasher.update(&bytes[pair[0]..pair[1]]);
        }
        prop_assert_eq!(hasher.finish(), whole(&bytes));
    }

    #[test]
    fn bytes_of_a_hash_come_back(low in any::<u64>(), high in any::<u64>()) {
        let hash = Hash128::new(low, high);
        prop_assert_eq!(Hash128::from_bytes(hash.to_bytes()), hash);
        prop_assert_eq!(Hash128::from_hex(&hash.to_string()), Some(hash));
    }
}
