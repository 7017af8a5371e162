//! A look inside a backup, without a server.

use std::collections::BTreeMap;

use backup_redis::look::{Change, DiffSettings, KeyEntry, ProfileSettings, diff};
use backup_redis::rdb::sample::SampleFile;
use backup_redis::rdb::{Counted, KeyFilter, Kind, RdbVersion};
use backup_testkit::redis::{contents, every_type};
use backup_testkit::{Redis, redis_versions_under_test, require_or_skip};

use crate::harness::{Vault, run, work};

fn text(entry: &KeyEntry) -> String {
    String::from_utf8_lossy(&entry.key).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_seen_is_what_the_server_holds() {
    for version in redis_versions_under_test() {
        let server = require_or_skip!(Redis::builder(version).start().await);
        every_type(&server).await.unwrap();
        let vault = Vault::memory();
        let look = vault.look(&vault.backup(&server).await).await;
        let mut keys = look.keys(KeyFilter::all());
        let mut seen = BTreeMap::new();
        while let Some(entry) = keys.next(&work()).await.unwrap() {
            seen.insert((entry.database, entry.key.clone()), entry);
        }
        assert_eq!(keys.counted(), Counted::All);
        let held = contents(&server).await.unwrap().keys;
        assert!(seen.keys().eq(held.keys()), "{version}");
        for (name, item) in &held {
            let entry = &seen[name];
            assert_eq!(entry.kind.name(), item.kind, "{version} {name:?}");
            assert_eq!(entry.expires.is_some(), item.expires.is_some(), "{version} {name:?}");
            // Redis 6.2 cannot say when.
            if let (true, Some(at)) = (version.since_7(), item.expires) {
                assert_eq!(entry.expires, Some(at), "{version} {name:?}");
            }
        }
        let profile = look.profile(KeyFilter::all(), ProfileSettings::default(), &work()).await.unwrap();
        assert_eq!(profile.all.keys, held.len() as u64);
        assert_eq!(
            profile.kinds[&Kind::Stream].keys,
            held.values().filter(|item| item.kind == "stream").count() as u64
        );
        assert_eq!(profile.databases.values().map(|totals| totals.bytes).sum::<u64>(), profile.all.bytes);
        assert!(profile.biggest.is_sorted_by(|a, b| a.bytes >= b.bytes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backups_differ_in_what_was_done_between_them() {
    for version in redis_versions_under_test() {
        let server = require_or_skip!(Redis::builder(version).start().await);
        every_type(&server).await.unwrap();
        let mut client = server.connect().await.unwrap();
        for line in ["SET value 1", "SET expiry 1", "SET gone 1", "SELECT 7", "SET value 1"] {
            run(&mut client, line).await;
        }
        let vault = Vault::memory();
        let old = vault.look(&vault.backup(&server).await).await;
        let same = diff(&old, &old, &DiffSettings::default(), &work(), |_| panic!("nothing differs")).await.unwrap();
        assert_eq!(same.same, contents(&server).await.unwrap().keys.len() as u64, "{version}");

        for line in ["SET new 1", "SELECT 0", "SET value 2", "PEXPIREAT expiry 4102444800000", "DEL gone"] {
            run(&mut client, line).await;
        }
        let new = vault.look(&vault.backup(&server).await).await;
        // Room for some of the keys: then it takes several tables.
        for memory in [512 << 20, same.same as usize * 20] {
            let (mut seen, settings, work) = (Vec::new(), DiffSettings::default().memory(memory), work());
            let found = diff(&old, &new, &settings, &work, |change| {
                seen.push(match change {
                    Change::Added(entry) => format!("+{}:{}", entry.database, text(&entry)),
                    Change::Removed(entry) => format!("-{}:{}", entry.database, text(&entry)),
                    Change::Changed { now, value, expiry } => {
                        format!("{value} {expiry} {}:{}", now.database, text(&now))
                    }
                    other => panic!("{other:?}"),
                });
                Ok(())
            });
            let found = found.await.unwrap();
            seen.sort();
            assert_eq!(seen, ["+7:new", "-0:gone", "false true 0:expiry", "true false 0:value"], "{version}");
            assert_eq!((found.added, found.removed, found.changed, found.expiry_only), (1, 1, 1, 1));
            assert_eq!(found.same, same.same - 3, "{version}");
            assert_eq!(found.tables == 1, memory == 512 << 20);
            assert!(!found.formats_differ);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_seen_is_said_and_never_guessed() {
    let vault = Vault::memory();
    let sample = || SampleFile::new(RdbVersion::redis(12)).database(0).string("a", b"1");
    let whole = vault.look(&vault.keep(sample().finish()).await).await;
    let unknown = vault.look(&vault.keep(sample().key(99, b"b", b"any").finish()).await).await;
    let profile = unknown.profile(KeyFilter::all(), ProfileSettings::default(), &work()).await.unwrap();
    assert!(matches!(profile.counted, Counted::Until { what: 99, .. }));
    let error = diff(&whole, &unknown, &DiffSettings::default(), &work(), |_| Ok(())).await.unwrap_err();
    assert!(error.to_string().contains("type 99, which is not known"), "{error}");
    let mut flipped = sample().string("b", &[b'x'; 100]).finish();
    flipped[60] ^= 1;
    let damaged = vault.look(&vault.keep(flipped).await).await;
    let error = damaged.profile(KeyFilter::all(), ProfileSettings::default(), &work()).await.unwrap_err();
    assert_eq!(error.kind(), backup_core::ErrorKind::Damaged, "{error}");
}
