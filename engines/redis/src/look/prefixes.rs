//! Bytes by the beginnings of keys, in bounded memory. Pure.
//!
//! A key has a beginning behind each of its first separators: `shop:cart:17` has `shop:` and `shop:cart:`. There may be as many
//! beginnings as keys, so only the largest are kept: when there are twice as many as were asked for, the smaller half is
//! forgotten. Nothing is claimed of what was forgotten: one that comes again may have lost as much as the largest forgotten one
//! had, which is said beside it ([`PrefixTotal::missed`]); and one that is not told has no more than that
//! ([`Prefixes::floor`]). So the list is exact as long as there are not more beginnings than twice the number asked for.

use std::collections::HashMap;

/// Beginnings that are longer are not kept. With the number of beginnings this bounds the memory: a thousand take at most half a
/// megabyte.
const LONGEST: usize = 256;

/// The keys with one beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrefixTotal {
    /// The database.
    pub database: u64,
    /// The beginning, with the separator at its end.
    pub prefix: Vec<u8>,
    /// How many keys there are, at least.
    pub keys: u64,
    /// Bytes of their values, at least.
    pub bytes: u64,
    /// How many more bytes there may be at most. Zero when nothing was forgotten.
    pub missed: u64,
}

/// Adds up by beginnings.
#[derive(Debug, Clone)]
pub struct Prefixes {
    separator: Vec<u8>,
    depth: usize,
    most: usize,
    known: HashMap<(u64, Vec<u8>), Sum>,
    floor: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    keys: u64,
    bytes: u64,
    missed: u64,
}

impl Sum {
    /// What there may be.
    fn most(self) -> u64 {
        self.bytes.saturating_add(self.missed)
    }
}

impl Prefixes {
    /// No keys yet. A key has at most `depth` beginnings, each up to one of its `separator`s; the `most` largest ones are kept.
    #[must_use]
    pub fn new(separator: impl Into<Vec<u8>>, depth: usize, most: usize) -> Self {
        Self { separator: separator.into(), depth, most: most.max(1), known: HashMap::new(), floor: 0 }
    }

    /// Adds a key. Whether it has a beginning.
    pub fn add(&mut self, database: u64, key: &[u8], bytes: u64) -> bool {
        let mut at = 0;
        for depth in 0..self.depth {
            let Some(end) = self.next(key, at) else { return depth > 0 };
            at = end;
            let prefix = key.get(..end).unwrap_or_default();
            let floor = self.floor;
            let sum = self.known.entry((database, prefix.to_vec())).or_insert(Sum { missed: floor, ..Sum::default() });
            sum.keys += 1;
            sum.bytes = sum.bytes.saturating_add(bytes);
            if self.known.len() >= self.most.saturating_mul(2) {
                self.forget();
            }
        }
        self.depth > 0
    }

    /// Where the next beginning ends behind `at`.
    fn next(&self, key: &[u8], at: usize) -> Option<usize> {
        let len = self.separator.len();
        let rest = key.get(at..key.len().min(LONGEST))?;
        let found = (len > 0).then(|| rest.windows(len).position(|window| window == self.separator))??;
        Some(at + found + len)
    }

    /// Forgets the smaller half.
    fn forget(&mut self) {
        let mut sizes: Vec<_> = self.known.values().map(|sum| sum.most()).collect();
        let index = sizes.len().saturating_sub(self.most);
        let (_, bar, _) = sizes.select_nth_unstable(index);
        let bar = *bar;
        // Of those that are as large as the smallest that stays, some have to go, too.
        let mut room = self.most - self.known.values().filter(|sum| sum.most() > bar).count().min(self.most);
        let mut floor = self.floor;
        self.known.retain(|_, sum| {
            let stays = sum.most() > bar || (sum.most() == bar && room > 0);
            if stays && sum.most() == bar {
                room -= 1;
            }
            if !stays {
                floor = floor.max(sum.most());
            }
            stays
        });
        self.floor = floor;
    }

    /// A beginning that is not told has at most so many bytes. Zero when all are told.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The largest beginnings, the largest first, at most as many as were asked for.
    #[must_use]
    pub fn finish(mut self) -> (Vec<PrefixTotal>, u64) {
        if self.known.len() > self.most {
            self.forget();
        }
        let total = |((database, prefix), sum): ((u64, Vec<u8>), Sum)| PrefixTotal {
            database,
            prefix,
            keys: sum.keys,
            bytes: sum.bytes,
            missed: sum.missed,
        };
        let mut totals: Vec<_> = self.known.into_iter().map(total).collect();
        totals
            .sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| (a.database, &a.prefix).cmp(&(b.database, &b.prefix))));
        (totals, self.floor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// All beginnings, by counting.
    fn naive(keys: &[(String, u64)], depth: usize) -> BTreeMap<Vec<u8>, (u64, u64)> {
        let mut all = BTreeMap::new();
        for (key, bytes) in keys {
            let ends = key.match_indices("::").map(|(at, _)| at + 2).scan(0, |last, end| {
                // `:::` holds one separator, not two.
                Some(if end - 2 < *last {
                    None
                } else {
                    *last = end;
                    Some(end)
                })
            });
            for end in ends.flatten().take(depth) {
                let (number, sum): &mut (u64, u64) = all.entry(key.as_bytes()[..end].to_vec()).or_default();
                *number += 1;
                *sum += bytes;
            }
        }
        all
    }

    proptest! {
        #[test]
        fn sums_are_right_or_say_how_wrong_they_may_be(
            keys in prop::collection::vec(("[ab:]{0,8}", 0_u64..100), 0..200),
            depth in 0_usize..4,
            most in 1_usize..40,
        ) {
            let mut prefixes = Prefixes::new("::", depth, most);
            for (key, bytes) in &keys {
                prefixes.add(0, key.as_bytes(), *bytes);
                prop_assert!(prefixes.known.len() < 2 * most, "bounded");
            }
            let all = naive(&keys, depth);
            let (totals, floor) = prefixes.finish();
            prop_assert!(totals.len() <= most);
            if all.len() <= most {
                prop_assert_eq!(floor, 0);
                prop_assert_eq!(totals.len(), all.len());
            }
            let mut left = all.clone();
            for total in totals {
                let (keys, bytes) = left.remove(&total.prefix).expect("it is one");
                prop_assert!(total.keys <= keys && total.bytes <= bytes && bytes <= total.bytes + total.missed);
                if floor == 0 {
                    prop_assert_eq!((total.keys, total.bytes), (keys, bytes));
                }
            }
            prop_assert!(left.values().all(|(_, bytes)| *bytes <= floor), "{left:?} {floor}");
        }
    }

    #[test]
    fn long_beginnings_are_not_kept() {
        let mut prefixes = Prefixes::new(":", 3, 10);
        let key = [&b"a:"[..], &[b'x'; 300], b":b"].concat();
        assert!(prefixes.add(3, &key, 7));
        assert!(!prefixes.add(3, b"plain", 7));
        let (totals, _) = prefixes.finish();
        assert_eq!(totals, [PrefixTotal { database: 3, prefix: b"a:".to_vec(), keys: 1, bytes: 7, missed: 0 }]);
    }
}
