//! The checksum of a data page.
//!
//! Source: `src/include/storage/checksum_impl.h`. The page is a table of 32 columns of little-endian words; each column is
//! folded with `hash = (hash ^ word) * prime ^ ((hash ^ word) >> 17)` from its own start value, two rounds of zeros end it,
//! the columns are joined by XOR, the block number is mixed in and the result reduced to 1..=65535. The header's own
//! checksum field counts as zero.

/// The size of a page in every packaged server; another one is a compile-time option of the server.
pub const PAGE_SIZE: usize = 8192;

const LANES: usize = 32;
const PRIME: u32 = 16_777_619;

const START: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// The checksum of `page` as block `block` of its relation (counted over all of the relation's segment files).
///
/// The value that a server stores in bytes 8 and 9 of the page.
#[must_use]
pub fn checksum(page: &[u8; PAGE_SIZE], block: u32) -> u16 {
    let (rows, _) = page.as_chunks::<{ 4 * LANES }>();
    let mut sums = START;
    for (index, row) in rows.iter().enumerate() {
        let mut words = [0_u32; LANES];
        let (chunks, _) = row.as_chunks::<4>();
        for (word, bytes) in words.iter_mut().zip(chunks) {
            *word = u32::from_le_bytes(*bytes);
        }
        if index == 0 {
            // Bytes 8 and 9 are the stored checksum.
            words[2] &= 0xffff_0000;
        }
        round(&mut sums, &words);
    }
    round(&mut sums, &[0; LANES]);
    round(&mut sums, &[0; LANES]);
    let folded = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    (folded % 65535 + 1) as u16
}

/// One row into all lanes: straight-line arithmetic over arrays, which compilers turn into vector instructions.
#[inline(always)]
fn round(sums: &mut [u32; LANES], words: &[u32; LANES]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The algorithm word by word, as it stands in the server's header file.
    fn reference(page: &[u8; PAGE_SIZE], block: u32) -> u16 {
        let mut sums = START;
        for word in 0..PAGE_SIZE / 4 + 2 * LANES {
            let mut value = [0; 4];
            for (at, byte) in value.iter_mut().enumerate() {
                let at = word * 4 + at;
                *byte = if at == 8 || at == 9 || at >= PAGE_SIZE { 0 } else { page[at] };
            }
            let mixed = sums[word % LANES] ^ u32::from_le_bytes(value);
            sums[word % LANES] = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
        }
        ((sums.iter().fold(block, |all, sum| all ^ sum)) % 65535 + 1) as u16
    }

    #[test]
    fn the_stored_value_does_not_count_and_the_block_does() {
        let mut page = [7; PAGE_SIZE];
        let sum = checksum(&page, 1);
        page[8..10].copy_from_slice(&[1, 2]);
        assert_eq!(checksum(&page, 1), sum);
        assert_ne!(checksum(&page, 2), sum);
        page[10] ^= 1;
        assert_ne!(checksum(&page, 1), sum);
    }

    proptest! {
        #[test]
        fn lanes_and_words_agree(seed: u64, block: u32) {
            let mut state = seed;
            let mut page = [0; PAGE_SIZE];
            for byte in &mut page {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            prop_assert_eq!(checksum(&page, block), reference(&page, block));
        }
    }
}
