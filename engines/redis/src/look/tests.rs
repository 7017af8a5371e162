//! What is seen of files against what was written into them.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::entry::{KeyEntry, Reading};
use super::profile::{ProfileSettings, Profiler};
use super::table::{Table, Verdict};
use crate::rdb::sample::SampleFile;
use crate::rdb::{Counted, KeyFilter, Kind, RdbVersion};

/// A key, by database and name: its value and its expiry.
type Model = BTreeMap<(u64, String), (Vec<u8>, Option<i64>)>;

fn model() -> impl Strategy<Value = Model> {
    let key = (0_u64..3, "[ab:]{1,6}");
    let value = (prop::collection::vec(any::<u8>(), 0..100), prop::option::of(0_i64..1 << 41));
    prop::collection::btree_map(key, value, 0..40)
}

fn file(model: &Model) -> Vec<u8> {
    let mut file = SampleFile::new(RdbVersion::redis(11));
    for ((database, key), (value, expires)) in model {
        file = file.database(*database);
        if let Some(at) = expires {
            file = file.expires(*at);
        }
        file = file.string(key, value);
    }
    file.finish()
}

/// The keys of `file`, which comes in chunks of `piece` bytes.
fn keys(file: &[u8], piece: usize, filter: KeyFilter) -> Vec<KeyEntry> {
    let (mut reading, mut found) = (Reading::new(filter).with_digests(), VecDeque::new());
    for chunk in file.chunks(piece) {
        reading.push(chunk, &mut found).unwrap();
    }
    reading.finish().unwrap();
    found.into()
}

/// Bytes of a plain string in a file.
fn stored(value: &[u8]) -> u64 {
    value.len() as u64 + if value.len() < 64 { 1 } else { 2 }
}

proptest! {
    #[test]
    fn keys_are_those_that_were_written(model in model(), piece in 1_usize..200) {
        let seen = keys(&file(&model), piece, KeyFilter::all());
        let seen: Vec<_> = seen.into_iter().map(|entry| {
            (entry.database, String::from_utf8(entry.key).unwrap(), entry.kind, entry.bytes, entry.expires)
        }).collect();
        let wanted: Vec<_> = model.iter().map(|((database, key), (value, expires))| {
            (*database, key.clone(), Kind::String, stored(value), *expires)
        }).collect();
        prop_assert_eq!(seen, wanted);
        let some = keys(&file(&model), piece, KeyFilter::all().database(1).prefix("a"));
        prop_assert_eq!(some.len(), model.keys().filter(|(database, key)| *database == 1 && key.starts_with('a')).count());
    }

    #[test]
    fn sums_are_those_of_the_keys(model in model(), biggest in 0_usize..6) {
        let mut profiler = Profiler::new(ProfileSettings::default().biggest(biggest).depth(1));
        keys(&file(&model), 64, KeyFilter::all()).iter().for_each(|entry| profiler.add(entry));
        let profile = profiler.finish(Counted::All);
        let sizes: Vec<_> = model.values().map(|(value, _)| stored(value)).collect();
        prop_assert_eq!((profile.all.keys, profile.all.bytes), (sizes.len() as u64, sizes.iter().sum::<u64>()));
        prop_assert_eq!(profile.all.expiring, model.values().filter(|(_, expires)| expires.is_some()).count() as u64);
        for class in &profile.sizes {
            let inside = sizes.iter().filter(|size| (class.from..=class.to).contains(size)).count() as u64;
            prop_assert_eq!(class.totals.keys, inside, "{:?}", class);
        }
        prop_assert_eq!(profile.sizes.iter().map(|class| class.totals.keys).sum::<u64>(), sizes.len() as u64);
        let mut sorted = sizes;
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        sorted.truncate(biggest);
        prop_assert_eq!(profile.biggest.iter().map(|entry| entry.bytes).collect::<Vec<_>>(), sorted);
        let plain = model.keys().filter(|(_, key)| !key.contains(':')).count() as u64;
        prop_assert_eq!(profile.unprefixed.keys, plain);
        prop_assert_eq!(profile.prefixes.iter().map(|total| total.keys).sum::<u64>(), model.len() as u64 - plain);
    }

    #[test]
    fn tables_of_any_size_find_every_difference(old in model(), new in model(), most in 2_usize..50) {
        let (before, after) = (keys(&file(&old), 100, KeyFilter::all()), keys(&file(&new), 100, KeyFilter::all()));
        let (mut added, mut removed, mut changed, mut same) = (0, 0, 0, 0);
        let mut from = Some(0);
        while let Some(start) = from {
            let mut table = Table::new(start, most);
            prop_assert!(before.iter().all(|entry| table.insert(entry)));
            table.complete();
            for entry in &after {
                match table.compare(entry) {
                    Verdict::Elsewhere => {}
                    Verdict::New => added += 1,
                    Verdict::Same => same += 1,
                    Verdict::Other { value, expiry } => {
                        let key = (entry.database, String::from_utf8(entry.key.clone()).unwrap());
                        prop_assert_eq!(value, old[&key].0 != new[&key].0);
                        prop_assert_eq!(expiry, old[&key].1 != new[&key].1);
                        changed += 1;
                    }
                }
            }
            let lacking = before.iter().filter(|entry| table.lacks(entry)).count();
            prop_assert_eq!(table.unmet(), lacking as u64);
            removed += lacking;
            from = table.next();
        }
        let both = || old.iter().filter_map(|(key, value)| Some((value, new.get(key)?)));
        prop_assert_eq!(added, new.keys().filter(|key| !old.contains_key(*key)).count());
        prop_assert_eq!(removed, old.keys().filter(|key| !new.contains_key(*key)).count());
        prop_assert_eq!(changed, both().filter(|(a, b)| a != b).count());
        prop_assert_eq!(same, both().filter(|(a, b)| a == b).count());
    }
}

#[test]
fn any_file_can_be_looked_into_and_the_unknown_is_said() {
    for seed in 0..20 {
        let (file, expected) = crate::rdb::sample::arbitrary_file(RdbVersion::redis(12), seed, 30);
        let seen = keys(&file, 77, KeyFilter::all());
        assert_eq!(seen.len() as u64, expected.keys, "{seed}");
        assert_eq!(seen, keys(&file, 1, KeyFilter::all()), "{seed}");
    }
    let file = SampleFile::new(RdbVersion::redis(12)).database(0).string("a", b"1").key(99, b"b", b"any").finish();
    let (mut reading, mut found) = (Reading::new(KeyFilter::all()), VecDeque::new());
    reading.push(&file, &mut found).unwrap();
    reading.finish().unwrap();
    assert_eq!(found.len(), 1);
    assert!(matches!(reading.counted(), Counted::Until { what: 99, .. }));
}

#[test]
fn a_table_that_cannot_be_parted_says_so() {
    // The same key again and again: no file has that, and it must not end in an endless reading.
    let mut table = Table::new(0, 4);
    let entry = KeyEntry::new(0, b"a", Kind::String, 1);
    assert!((0..4).all(|_| table.insert(&entry)));
    assert!(table.insert(&entry), "the next table may have room");
    assert_eq!(
        table.next().map(|from| Table::new(from, 4)).map(|mut next| (0..5).all(|_| next.insert(&entry))),
        Some(false)
    );
}

#[test]
fn the_memory_of_a_table_is_what_it_says() {
    // Ten million keys in the memory that is taken by default.
    assert!(Table::bytes(10_000_000) < 512 << 20);
}
