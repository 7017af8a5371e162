//! Servers whose files are out of reach: their own `BACKUP` and `RESTORE`, by a folder that both see.

use std::collections::BTreeMap;
use std::path::Path;

use backup_clickhouse::{ClickHouse, ClickHouseSettings, Merged, OnExisting, RestoreSettings, Staging, engine::facts};
use backup_core::ErrorKind;
use backup_core::entry::Selector;
use backup_testkit::clickhouse::{dataset, digests};
use backup_testkit::{ClickHouse as Server, ClickHouseVersion, require_or_skip};

use crate::harness::{Vault, fact, run, settings};

/// What an engine is told that may only see the staging folder.
fn far(server: &Server) -> ClickHouseSettings {
    let staging = Staging::file(server.backups_dir(), server.backups_dir());
    ClickHouseSettings::default().url(server.url()).identity("the test").data_dir("/nowhere").staging(staging)
}

/// Digests of all tables and views. Tables behind views are called by numbers that are given anew.
async fn contents(server: &Server) -> BTreeMap<(String, String), String> {
    let all = digests(server).await.unwrap().into_iter();
    all.filter(|(key, _)| !key.1.starts_with(".inner")).map(|(key, digest)| (key, format!("{digest:?}"))).collect()
}

fn left(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_without_the_data_directory() {
    let version = ClickHouseVersion::V26;
    let source = require_or_skip!(Server::builder(version).start().await);
    dataset::fill(&source, 1, 3_000).await.unwrap();
    // What the server's own backup leaves out is another test's.
    let sql = "SELECT DISTINCT concat('`', database, '`.`', table, '`') FROM system.parts
               WHERE active AND startsWith(name, 'patch-')";
    for table in source.query(sql).await.unwrap().lines() {
        run(&source, &[&format!("ALTER TABLE {table} APPLY PATCHES SETTINGS mutations_sync = 2")]).await;
    }
    let vault = Vault::memory();
    let backup = vault.try_backup(far(&source)).await.unwrap();
    let lossy: Vec<_> = backup.snapshot.lossy.iter().map(|lossy| lossy.item.as_str()).collect();
    assert!(lossy.iter().all(|item| !item.starts_with("mutation ")), "{lossy:?}");
    assert_eq!(backup.snapshot.method, "native");
    assert_eq!(left(&source.backups_dir()), Vec::<String>::new());
    let report = vault.check(&backup).await;
    assert!(report.is_sound(), "{:?}", report.findings);

    // The same parts, whichever way they came; patch parts that are applied stay for a while.
    let local = vault.backup(&source).await;
    assert_eq!(fact(&local, facts::PARTS_KEPT), fact(&backup, facts::PARTS));

    let wanted = contents(&source).await;
    let target = require_or_skip!(Server::builder(version).start().await);
    let staging = Staging::disk("backups", "", target.backups_dir());
    let engine = ClickHouse::new(far(&target).staging(staging)).unwrap();
    let restored = vault.restore_by(&engine, &backup, Selector::all()).await;
    restored.unwrap_or_else(|error| panic!("{error:?}\n{}", target.log()));
    assert_eq!(left(&target.backups_dir()), Vec::<String>::new());
    let has = contents(&target).await;
    for (key, digest) in &wanted {
        assert_eq!(has.get(key), Some(digest), "{key:?}");
    }
    assert_eq!(has.len(), wanted.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_comes_back_under_another_name_and_not_twice() {
    let server = require_or_skip!(Server::builder(ClickHouseVersion::V26).start().await);
    run(
        &server,
        &[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.`we.ird & t` (day UInt8, n UInt64) ENGINE = MergeTree PARTITION BY day ORDER BY n",
            "INSERT INTO shop.`we.ird & t` SELECT number % 3, number FROM numbers(1000)",
            "CREATE TABLE shop.other (n UInt64) ENGINE = MergeTree ORDER BY n",
            "INSERT INTO shop.other SELECT number FROM numbers(10)",
        ],
    )
    .await;
    let vault = Vault::memory();
    let backup = vault.try_backup(far(&server)).await.unwrap();
    let way = || RestoreSettings::default().rename("shop=shop2").unwrap().existing(OnExisting::Add);
    let selector = || Selector::parse(["data/shop/we%2Eird%20%26%20t/1"]).unwrap();
    let engine = ClickHouse::new(far(&server)).unwrap().with_restore(way());
    let sql = "SELECT count(), sum(n), uniq(day) FROM shop2.`we.ird & t`";
    for time in ["once", "twice"] {
        vault.restore_by(&engine, &backup, selector()).await.unwrap();
        let wanted = server.query("SELECT count(), sum(n), 1 FROM shop.`we.ird & t` WHERE day = 1").await.unwrap();
        assert_eq!(server.query(sql).await.unwrap(), wanted, "{time}");
    }
    assert_eq!(server.query("SELECT count() FROM system.tables WHERE database = 'shop2'").await.unwrap(), "1");
    assert_eq!(left(&server.backups_dir()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_servers_own_backup_leaves_out_is_told() {
    let server = require_or_skip!(Server::builder(ClickHouseVersion::V26).start().await);
    run(
        &server,
        &[
            "CREATE TABLE default.m (n UInt64, s String) ENGINE = MergeTree ORDER BY n",
            "INSERT INTO default.m SELECT number, 'a' FROM numbers(10)",
            "SYSTEM STOP MERGES default.m",
            "ALTER TABLE default.m UPDATE s = 'b' WHERE n = 3 SETTINGS mutations_sync = 0",
            "CREATE TABLE default.p (n UInt64, s String) ENGINE = MergeTree ORDER BY n
             SETTINGS enable_block_number_column = 1, enable_block_offset_column = 1",
            "INSERT INTO default.p SELECT number, 'a' FROM numbers(10)",
            "SYSTEM STOP MERGES default.p",
            "UPDATE default.p SET s = 'b' WHERE n = 3 SETTINGS enable_lightweight_update = 1, allow_experimental_lightweight_update = 1",
        ],
    )
    .await;
    let backup = Vault::memory().try_backup(far(&server)).await.unwrap();
    let lossy: Vec<_> = backup.snapshot.lossy.iter().map(|lossy| lossy.item.as_str()).collect();
    assert!(lossy.iter().any(|item| item.starts_with("mutation ") && item.ends_with("default.m")), "{lossy:?}");
    assert!(lossy.contains(&"lightweight updates of default.p that were not merged"), "{lossy:?}");
    assert!(
        backup.snapshot.findings.iter().all(|finding| finding.code != "unknown-part"),
        "{:?}",
        backup.snapshot.findings
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_behind_is_removed_and_what_cannot_be_is_refused() {
    let server = require_or_skip!(Server::builder(ClickHouseVersion::V26).start().await);
    run(&server, &["CREATE TABLE default.t (n UInt64) ENGINE = MergeTree ORDER BY n"]).await;
    let stale = server.backups_dir().join("backup_library_dead_0/data");
    std::fs::create_dir_all(&stale).unwrap();
    std::fs::write(server.backups_dir().join("somebody else's"), "").unwrap();
    let vault = Vault::memory();
    let backup = vault.try_backup(far(&server)).await.unwrap();
    let told = backup.snapshot.findings.iter().find(|finding| finding.code == "staging-removed").unwrap();
    assert!(told.to_string().contains("backup_library_dead_0"), "{told}");
    assert_eq!(left(&server.backups_dir()), ["somebody else's"]);

    // A folder that is here, and is not the server's.
    let other = tempfile::tempdir().unwrap();
    let elsewhere = far(&server).staging(Staging::file(server.backups_dir(), other.path()));
    let error = vault.try_backup(elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert!(error.to_string().contains("the server has written its backup"), "{error}");
    // A folder that is not here, and one that the server may not write to.
    let missing = far(&server).staging(Staging::file(server.backups_dir(), "/nowhere"));
    assert_eq!(vault.try_backup(missing).await.unwrap_err().kind(), ErrorKind::Environment);
    let forbidden = far(&server).staging(Staging::file("/etc", other.path()));
    assert_eq!(vault.try_backup(forbidden).await.unwrap_err().kind(), ErrorKind::Environment);
    let both = far(&server).merged(Merged::FromParent);
    assert_eq!(vault.try_backup(both).await.unwrap_err().kind(), ErrorKind::InvalidInput);

    let old = require_or_skip!(Server::builder(ClickHouseVersion::V18_16).start().await);
    let staging = Staging::file("/nowhere", other.path());
    let error = vault.try_backup(settings(&old).staging(staging)).await.unwrap_err();
    assert!(error.to_string().contains("from 23.4 on"), "{error}");
}
