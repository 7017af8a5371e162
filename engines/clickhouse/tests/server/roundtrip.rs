//! There and back: everything that a server has.

use std::collections::BTreeMap;

use backup_clickhouse::RestoreSettings;
use backup_clickhouse::engine::facts;
use backup_testkit::clickhouse::dataset;
use backup_testkit::clickhouse::digests;
use backup_testkit::{ClickHouse as Server, clickhouse_versions_under_test, require_or_skip};

use crate::harness::{Vault, fact, run, shadows};

/// Digests of all tables and views. Tables behind views are called by numbers that are given anew.
async fn contents(server: &Server) -> BTreeMap<(String, String), String> {
    let all = digests(server).await.unwrap().into_iter();
    all.filter(|(key, _)| !key.1.starts_with(".inner")).map(|(key, digest)| (key, format!("{digest:?}"))).collect()
}

/// Many tables, and one of many partitions.
async fn many(server: &Server) {
    run(
        server,
        &["CREATE DATABASE many", "CREATE TABLE many.parts (n UInt64) ENGINE = MergeTree PARTITION BY n ORDER BY n"],
    )
    .await;
    for hundred in 0..5 {
        // A server takes no more partitions at once.
        run(server, &[&format!("INSERT INTO many.parts SELECT {hundred} * 100 + number % 100 FROM numbers(300)")])
            .await;
    }
    for table in 0..30 {
        let create = format!("CREATE TABLE many.t{table} (n UInt64, s String) ENGINE = MergeTree ORDER BY n");
        let insert =
            format!("INSERT INTO many.t{table} SELECT number, hex(sipHash64(number + {table})) FROM numbers(100)");
        run(server, &[&create, &insert]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back() {
    for version in clickhouse_versions_under_test() {
        let source = require_or_skip!(Server::builder(version).start().await);
        dataset::fill(&source, 1, 3_000).await.unwrap();
        many(&source).await;
        let vault = Vault::memory();
        let backup = vault.backup(&source).await;
        assert_eq!(shadows(&source), Vec::<String>::new());
        let report = vault.check(&backup).await;
        assert!(report.is_sound(), "{:?}", report.findings);
        let lossy: Vec<_> = backup.snapshot.lossy.iter().map(|lossy| lossy.item.as_str()).collect();
        assert!(lossy.iter().all(|item| !item.starts_with("content of ") || item.contains("set")), "{lossy:?}");

        let wanted = contents(&source).await;
        assert!(wanted.len() >= 60, "{}", wanted.len());
        let target = require_or_skip!(Server::builder(version).start().await);
        let restored = vault.restore(&backup, &target, RestoreSettings::default()).await;
        let restored = restored.unwrap_or_else(|error| panic!("{version:?}: {error:?}\n{}", target.log()));
        let has = contents(&target).await;
        for (key, digest) in &wanted {
            assert_eq!(has.get(key), Some(digest), "{version:?} {key:?}");
        }
        assert_eq!(has.len(), wanted.len());
        assert!(restored.extracted.bytes >= fact(&backup, facts::BYTES));
        // What comes in is passed on to the views, as before.
        dataset::fill(&source, 2, 1_000).await.unwrap();
        dataset::fill(&target, 2, 1_000).await.unwrap();
        let (has, wanted) = (contents(&target).await, contents(&source).await);
        for (key, digest) in &wanted {
            assert_eq!(has.get(key), Some(digest), "{version:?} {key:?} after more rows");
        }
        // What was restored can be backed up and restored: servers add files to parts that they attach.
        let vault = Vault::memory();
        let backup = vault.backup(&target).await;
        let report = vault.check(&backup).await;
        assert!(report.is_sound(), "{:?}", report.findings);
        let third = require_or_skip!(Server::builder(version).start().await);
        vault.restore(&backup, &third, RestoreSettings::default()).await.unwrap();
        assert_eq!(contents(&third).await, contents(&target).await);
    }
}
