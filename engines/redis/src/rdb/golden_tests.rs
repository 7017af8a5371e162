//! Files that real servers wrote: of each release one, with values of every type in small and in large form.

use std::collections::BTreeMap;

use super::*;
use crate::Result;

const FILES: [(&str, &[u8]); 6] = [
    ("redis 9", include_bytes!("../../tests/golden/redis-6.2.rdb")),
    ("redis 11", include_bytes!("../../tests/golden/redis-7.2.rdb")),
    ("redis 12", include_bytes!("../../tests/golden/redis-7.4.rdb")),
    ("redis 12", include_bytes!("../../tests/golden/redis-8.2.rdb")),
    ("redis 11", include_bytes!("../../tests/golden/valkey-8.1.rdb")),
    ("valkey 80", include_bytes!("../../tests/golden/valkey-9.1.rdb")),
];

/// In the year 2100.
const FAR: i64 = 4_102_444_800_000;

fn count(file: &[u8], piece: usize) -> Summary {
    let mut counter = Counter::new();
    for chunk in file.chunks(piece) {
        assert_eq!(counter.push(chunk).unwrap(), chunk.len());
    }
    counter.finish().unwrap()
}

/// A key: database, kind, type, expiry.
type Key = (u64, Kind, u8, Option<i64>);

/// Keys by name.
#[derive(Debug, Default)]
struct Keys(BTreeMap<String, Key>);

impl Visitor for Keys {
    fn key(&mut self, head: &KeyHead<'_>) -> Result<()> {
        let name = String::from_utf8_lossy(&head.name()?).into_owned();
        self.0.insert(name, (head.database, head.kind, head.value_type.0, head.expires));
        Ok(())
    }
}

fn keys(file: &[u8]) -> Keys {
    let mut keys = Keys::default();
    Scanner::new().push(file, &mut keys).unwrap();
    keys
}

fn rewrite(file: &[u8], rules: Rules) -> Vec<u8> {
    let (mut rewriter, mut out) = (Rewriter::new(rules), Vec::new());
    rewriter.push(file, &mut out).unwrap();
    rewriter.finish(&mut out).unwrap();
    out
}

#[test]
fn they_are_counted() {
    for (version, file) in FILES {
        let summary = count(file, file.len());
        let number: u16 = version.split(' ').nth(1).unwrap().parse().unwrap();
        let fields = u64::from(number >= 12) * 2;
        assert_eq!(summary.version.to_string(), version.replace(' ', " rdb "));
        assert_eq!((summary.checksum, summary.counted), (ChecksumState::Verified, Counted::All), "{version}");
        assert_eq!((summary.keys(), summary.expires(), summary.field_expiry), (17 + fields, 1, fields), "{version}");
        assert_eq!(summary.differing().count(), 0, "{version}");
        assert_eq!(summary.databases.iter().map(|database| database.number).collect::<Vec<_>>(), [0, 9]);
        let functions: &[&str] = if number >= 10 { &["golden"] } else { &[] };
        assert_eq!(summary.functions, functions, "{version}");
        assert_eq!(summary.kind(Kind::String).keys, 10, "{version}");
        assert_eq!(summary.kind(Kind::Hash).keys, 2 + fields, "{version}");
        let rest =
            [Kind::List, Kind::Set, Kind::SortedSet, Kind::Stream, Kind::Module].map(|kind| summary.kind(kind).keys);
        assert_eq!(rest, [1, 2, 1, 1, 0], "{version}");
        assert_eq!(count(file, 1), summary);
    }
}

#[test]
fn names_are_read_in_every_encoding() {
    for (version, file) in FILES {
        let keys = keys(file).0;
        assert_eq!(keys["77"].1, Kind::String, "{version}: a number");
        assert_eq!(keys[&format!("key:{}", "a".repeat(52))].1, Kind::String, "{version}: compressed");
        assert_eq!(keys["expires"].3, Some(FAR), "{version}");
        assert_eq!(keys["other-database"].0, 9, "{version}");
    }
}

#[test]
fn any_changed_byte_is_noticed() {
    for (version, file) in FILES {
        for at in 0..file.len() {
            let mut changed = file.to_vec();
            changed[at] ^= 0x10;
            let mut counter = Counter::new();
            let outcome = counter.push(&changed).and_then(|_| counter.finish());
            assert!(outcome.is_err(), "{version}: byte {at}");
        }
    }
}

#[test]
fn expiries_go_from_all_of_them() {
    for (version, file) in FILES {
        let plain = rewrite(file, Rules::default().expiry(ExpiryRule::Never));
        let summary = count(&plain, 7);
        assert_eq!((summary.expires(), summary.field_expiry), (0, 0), "{version}");
        assert_eq!(summary.keys(), count(file, 7).keys(), "{version}");
        let later = keys(&rewrite(file, Rules::default().expiry(ExpiryRule::Shift(1000)))).0;
        assert_eq!(later["expires"].3, Some(FAR + 1000), "{version}");
        let fields =
            |keys: &BTreeMap<String, Key>| keys.values().filter(|key| ValueType(key.2).has_field_expiry()).count();
        assert_eq!(fields(&later), fields(&keys(file).0), "{version}");
        let unchanged = keys(&rewrite(file, Rules::default())).0;
        assert_eq!(unchanged, keys(file).0, "{version}");
    }
}
