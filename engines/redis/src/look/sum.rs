//! One digest of all keys, whatever order they stand in. Pure.

use std::collections::BTreeMap;

use super::entry::KeyEntry;
use crate::rdb::Counted;

/// All keys of a snapshot, added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sum {
    /// How many keys each database has.
    pub(crate) databases: BTreeMap<u64, u64>,
    /// How far keys could be seen.
    pub(crate) counted: Counted,
    digest: u128,
}

impl Default for Sum {
    fn default() -> Self {
        Self { databases: BTreeMap::new(), counted: Counted::All, digest: 0 }
    }
}

impl Sum {
    pub(super) fn add(&mut self, key: &KeyEntry) {
        *self.databases.entry(key.database).or_default() += 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&key.database.to_le_bytes()).update(&(key.key.len() as u64).to_le_bytes()).update(&key.key);
        hasher.update(&key.digest.to_le_bytes());
        hasher.update(&key.expires.map_or([0; 9], |at| {
            let [a, b, c, d, e, f, g, h] = at.to_le_bytes();
            [1, a, b, c, d, e, f, g, h]
        }));
        let mut half = [0; 16];
        hasher.finalize_xof().fill(&mut half);
        // A sum does not know in which order: a table of a server stands in another one after each load.
        self.digest = self.digest.wrapping_add(u128::from_le_bytes(half));
    }

    /// All keys.
    pub(crate) fn keys(&self) -> u64 {
        self.databases.values().sum()
    }

    /// The digest in hex.
    pub(crate) fn digest(&self) -> String {
        format!("{:032x}", self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::Kind;

    fn sum(keys: &[KeyEntry]) -> Sum {
        let mut sum = Sum::default();
        keys.iter().for_each(|key| sum.add(key));
        sum
    }

    #[test]
    fn the_order_means_nothing_and_everything_else_does() {
        let key = |database, name: &[u8]| KeyEntry::new(database, name, Kind::String, 1);
        let both = sum(&[key(0, b"a"), key(1, b"b")]);
        assert_eq!(both, sum(&[key(1, b"b"), key(0, b"a")]));
        assert_eq!((both.keys(), both.databases.len()), (2, 2));
        let mut expiring = key(1, b"b");
        expiring.expires = Some(0);
        let mut other = key(1, b"b");
        other.digest = 7;
        for different in [key(0, b"b"), key(1, b"c"), expiring, other] {
            assert_ne!(both.digest(), sum(&[key(0, b"a"), different]).digest());
        }
    }
}
