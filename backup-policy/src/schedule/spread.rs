//! A moment for each service that nobody has chosen.
//!
//! It follows from the service's name alone, by a hash that never changes: the moment is the same on every machine and in
//! every version, and nothing about it has to be stored. Different names are spread evenly.

/// A number in `0..bound` for `name`, another one for each `purpose`. 0 for a bound of 0.
///
/// FNV-1a of 64 bits over purpose, a zero byte and name; its bits are mixed by the finalizer of splitmix64, since FNV alone
/// hardly changes its high bits for the last characters of a name; the upper half of the product with the bound is taken.
pub(super) fn spread(purpose: &str, name: &str, bound: u64) -> u64 {
    let bytes = purpose.bytes().chain([0]).chain(name.bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mixed = mixed ^ (mixed >> 31);
    u64::try_from((u128::from(mixed) * u128::from(bound)) >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_numbers() {
        // Computed apart from this code; a change moves the backups of every service.
        for (purpose, name, number) in GOLDEN {
            assert_eq!(spread(purpose, name, 86_400), number, "{purpose} {name}");
        }
        assert_eq!(spread("phase", "x", 0), 0);
    }

    const GOLDEN: [(&str, &str, u64); 4] =
        [("phase", "", 51_921), ("phase", "pg-1", 5_111), ("phase", "pg-2", 58_258), ("minute", "pg-1", 85_065)];

    #[test]
    fn names_that_differ_little_are_spread_evenly() {
        let mut hours = [0_u32; 24];
        for n in 0..24_000 {
            hours[usize::try_from(spread("phase", &format!("service-{n}"), 24)).unwrap()] += 1;
        }
        assert!(hours.iter().all(|hour| (850..1150).contains(hour)), "{hours:?}");
    }
}
