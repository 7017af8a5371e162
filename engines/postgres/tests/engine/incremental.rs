//! Increments through the server: what they hold is what a backup of everything would, and only what changed is sent.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use backup_core::catalog::BackupRecord;
use backup_core::entry::Selector;
use backup_core::run::BackupOptions;
use backup_postgres::manifest::{Manifest, ManifestFile};
use backup_postgres::page::RelationFile;
use backup_postgres::{ChangeTracking, Method, PostgresEngine};
use backup_storage::store::Store;
use backup_testkit::pgbench::{Bank, ChangeShape, Dataset};
use backup_testkit::{PgVersion, Postgres, PostgresBuilder, StopMode, require_or_skip, versions_under_test};
use futures::TryStreamExt;

use crate::harness::{
    PATIENCE, Tally, Target, Vault, digest, digest_of, engine, fact, finding, flushed, on, read_bytes as sent,
    settings, value,
};
use crate::{load, storage};

const VERSION: PgVersion = PgVersion::V17;

fn builder(version: PgVersion) -> PostgresBuilder {
    let built = Postgres::builder(version).setting("summarize_wal", "on").setting("wal_keep_size", "1GB");
    built.setting("autovacuum", "off")
}

fn through(server: &Postgres, changes: ChangeTracking) -> PostgresEngine {
    PostgresEngine::new(settings(server).method(Method::Protocol).changes(changes)).unwrap()
}

fn auto(server: &Postgres) -> PostgresEngine {
    through(server, ChangeTracking::Auto)
}

async fn vault() -> Vault {
    storage::create(&Store::memory()).await
}

#[track_caller]
fn assert_increment(backup: &BackupRecord) {
    assert_eq!(fact(backup, "changes"), Some("summaries"), "{:?}", backup.snapshot.findings);
}

#[track_caller]
fn assert_whole(backup: &BackupRecord, why: &str) {
    assert_eq!(fact(backup, "changes"), Some("compared"), "{why}");
    let found = finding(backup, "changes-unknown").map(|finding| finding.message.as_str());
    assert!(found.is_some_and(|found| found.contains(why)), "{found:?} is not {why}");
}

/// The relation files of a backup, but for the free space maps.
async fn relations(vault: &Vault, backup: &BackupRecord) -> BTreeMap<String, Vec<u8>> {
    let source = vault.0.open(backup.id).await.unwrap();
    let entries: Vec<_> = source.entries(Selector::all()).try_collect().await.unwrap();
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry.meta.path;
        if RelationFile::parse_path(path.as_bytes()).is_some() {
            let pieces: Vec<_> = source.read(&path, 0..entry.len).try_collect().await.unwrap();
            files.insert(path.to_string(), pieces.concat());
        }
    }
    files
}

#[track_caller]
fn assert_same_files(increment: &BTreeMap<String, Vec<u8>>, whole: &BTreeMap<String, Vec<u8>>) {
    assert!(increment.keys().eq(whole.keys()), "other files");
    for (path, content) in increment {
        let other = &whole[path];
        let differs = content.iter().zip(other).position(|(a, b)| a != b).map(|at| at / 8192);
        assert!(content == other, "{path}: {} and {} bytes, block {differs:?}", content.len(), other.len());
    }
}

async fn manifest(vault: &Vault, backup: &BackupRecord) -> BTreeMap<Vec<u8>, ManifestFile> {
    let source = vault.0.open(backup.id).await.unwrap();
    let path = backup_core::entry::EntryPath::new("backup_manifest").unwrap();
    let len = source.entry(&path).await.unwrap().unwrap().len;
    let pieces: Vec<_> = source.read(&path, 0..len).try_collect().await.unwrap();
    let manifest = Manifest::parse(&pieces.concat()).unwrap();
    assert_eq!(manifest.summary.system_id.unwrap().to_string(), backup.snapshot.source);
    manifest.files.into_iter().map(|file| (file.path.clone(), file)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_is_in_the_increment() {
    for version in versions_under_test().into_iter().filter(|version| *version >= PgVersion::V17) {
        let server = require_or_skip!(builder(version).initdb_arg("--data-checksums").start().await);
        let client = server.connect("postgres").await.unwrap();
        load::run(&client, load::TABLES).await;
        load::run(&client, &["create database dropped"]).await;
        let vault = vault().await;
        let parent = vault.backup(&auto(&server)).await;
        assert_eq!(fact(&parent, "changes"), None, "there was nothing to compare with");
        load::run(&client, load::CHANGES).await;
        load::run(&client, &["drop database dropped"]).await;
        if version == VERSION {
            load::databases(&server, &client).await;
        }
        load::tablespaces(&server, &client).await;
        let middle = vault.backup(&auto(&server)).await;
        load::run(&client, &["update elsewhere set md5 = 'x' where i % 500 = 0", "delete from things where id < 50"])
            .await;
        let expected = digest(&server).await;
        let last = vault.backup(&auto(&server)).await;
        let verified = on(&parent, &vault, &through(&server, ChangeTracking::Verify)).await;
        for backup in [&middle, &last] {
            assert_increment(backup);
            assert_eq!(fact(backup, "history"), Some("recognised"), "{version}");
            assert!(sent(backup) < backup.data_bytes / 2, "{version}: {} of {}", sent(backup), backup.data_bytes);
        }
        assert_eq!(fact(&verified, "changes"), Some("verified"), "{version}: {:?}", verified.snapshot.findings);
        assert_eq!(finding(&verified, "changes-wrong"), None, "{version}");
        let whole = vault.try_backup(&engine(&server, Method::Local), BackupOptions::full()).await.unwrap();
        assert_same_files(&relations(&vault, &last).await, &relations(&vault, &whole).await);

        let listed = manifest(&vault, &last).await;
        assert!(listed.keys().all(|path| !path.windows(12).any(|part| part == b"INCREMENTAL.")));
        let (sums, sumless): (Vec<_>, Vec<_>) = listed.values().partition(|file| file.checksum.is_some());
        assert!(sums.len() > 50 && sumless.len() > 500, "{} {}", sums.len(), sumless.len());
        for backup in [&last, &verified] {
            let report = vault.check(&engine(&server, Method::Protocol), backup).await;
            assert!(report.findings.is_empty(), "{version}: {:?}", report.findings);
        }
        let target = Target::new(version).map_tablespaces(&server).await;
        target.restore(&vault, &last).await.unwrap();
        assert_eq!(digest_of(&target).await, expected, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_sent_and_stored() {
    let server = require_or_skip!(builder(VERSION).start().await);
    let client = server.connect("postgres").await.unwrap();
    let dataset = Dataset::realistic(16 << 20, 7);
    dataset.load(&server, "postgres").await.unwrap();
    client.batch_execute("vacuum (freeze, analyze)").await.unwrap();
    let vault = vault().await;
    // The local way has no manifest of the server, and is as good a parent.
    let parent = vault.backup(&engine(&server, Method::Local)).await;
    let same = vault.backup(&auto(&server)).await;
    assert_increment(&same);
    // Free space maps and what is no relation come whole.
    assert!(sent(&same) < parent.data_bytes / 10, "{} of {}", sent(&same), parent.data_bytes);
    assert!(same.new_bytes < 1 << 20, "{}", same.new_bytes);
    dataset.change_fraction(&client, 0.01, ChangeShape::Clustered, 1).await.unwrap();
    let few = vault.backup(&auto(&server)).await;
    assert_increment(&few);
    assert!(sent(&few) < parent.data_bytes / 8, "{} of {}", sent(&few), parent.data_bytes);
    assert!(few.new_bytes < parent.data_bytes / 15, "{} of {}", few.new_bytes, parent.data_bytes);
    let expected = digest(&server).await;
    // And who comes by the local way after that finds everything as it is.
    let local = vault.backup(&engine(&server, Method::Local)).await;
    assert!(local.parent == Some(few.id));
    let target = Target::new(VERSION);
    target.restore(&vault, &local).await.unwrap();
    assert_eq!(digest_of(&target).await, expected);
}

/// A table that was cut off and has grown again by blocks that nobody has written: they have none of what stood there before.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_does_not_come_back() {
    for version in versions_under_test().into_iter().filter(|version| *version >= PgVersion::V17) {
        let server = require_or_skip!(builder(version).start().await);
        let client = server.connect("postgres").await.unwrap();
        let fill = "insert into t select i, repeat('x', 1000) from generate_series(1, 2000) i";
        load::run(&client, &["create table t (i int, pad text)", fill, "vacuum (freeze) t"]).await;
        let blocks = "pg_relation_size('t') / 8192";
        let before: u64 = value(&client, blocks).await.parse().unwrap();
        let vault = vault().await;
        vault.backup(&auto(&server)).await;
        load::run(&client, &["delete from t where i > 400", "vacuum t"]).await;
        let cut: u64 = value(&client, blocks).await.parse().unwrap();
        assert!(cut < before / 3, "{cut} of {before}");
        // Grows by more blocks at once than it fills.
        let copy = client.copy_in("copy t from stdin").await.unwrap();
        let rows: String = (0..700).map(|n| format!("{}\t{}\n", 10_000 + n, "y".repeat(1000))).collect();
        let mut copy = std::pin::pin!(copy);
        futures::SinkExt::send(&mut copy, bytes::Bytes::from(rows)).await.unwrap();
        copy.finish().await.unwrap();
        let grown: u64 = value(&client, blocks).await.parse().unwrap();
        assert!((cut + 1..before).contains(&grown), "{cut} {grown} {before}");
        let expected = digest(&server).await;
        let backup = vault.backup(&auto(&server)).await;
        assert_increment(&backup);
        let target = Target::new(version);
        target.restore(&vault, &backup).await.unwrap();
        assert_eq!(digest_of(&target).await, expected, "{version}");
        let whole = vault.try_backup(&engine(&server, Method::Local), BackupOptions::full()).await.unwrap();
        let path = value(&client, "pg_relation_filepath('t')").await;
        let (increment, whole) = (relations(&vault, &backup).await, relations(&vault, &whole).await);
        assert!(increment[&path][8192 * cut as usize..] == whole[&path][8192 * cut as usize..], "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_it_is_one_moment() {
    let server = require_or_skip!(builder(VERSION).start().await);
    let client = server.connect("postgres").await.unwrap();
    let bank = Bank::create(&client, 2000).await.unwrap();
    let vault = vault().await;
    vault.backup(&auto(&server)).await;
    let work = bank.run(&server, "postgres", 3).await.unwrap();
    for _ in 0..3 {
        assert!(work.wait_committed(100, PATIENCE).await);
        assert_increment(&vault.backup(&auto(&server)).await);
    }
    let last = vault.backup(&auto(&server)).await;
    work.stop().await;
    let target = Target::new(VERSION);
    target.restore(&vault, &last).await.unwrap();
    let restored = target.open().await;
    // Fails when money was lost or made.
    Bank::check(&restored.connect("postgres").await.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_goes_on() {
    let mut primary = require_or_skip!(builder(VERSION).start().await);
    let client = primary.connect("postgres").await.unwrap();
    Tally::create(&client).await;
    let standby = Postgres::standby_of(&primary).await.unwrap();
    let vault = vault().await;
    let parent = vault.backup(&auto(&primary)).await;
    Tally::add(&client, 0..50).await;
    let shared = flushed(&client).await;
    standby.wait_replayed(shared, PATIENCE).await.unwrap();
    // Of the standby itself, before it is one no more.
    client.batch_execute("checkpoint").await.unwrap();
    let during = vault.backup(&auto(&standby)).await;
    assert_eq!(during.parent, Some(parent.id));
    primary.kill9().await;
    standby.promote().await.unwrap();
    standby.wait_writable(PATIENCE).await.unwrap();
    let client = standby.connect("postgres").await.unwrap();
    Tally::add(&client, 100..150).await;
    let expected = digest(&standby).await;
    let backup = on(&parent, &vault, &auto(&standby)).await;
    assert_increment(&backup);
    assert_eq!(fact(&backup, "history"), Some("recognised"));
    assert_eq!(backup.snapshot.stop.as_ref().unwrap().lineage.as_str(), "2");
    let target = Target::new(VERSION);
    target.restore(&vault, &backup).await.unwrap();
    assert_eq!(digest_of(&target).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubt_makes_it_send_everything_and_say_why() {
    let mut server = require_or_skip!(builder(VERSION).setting("wal_keep_size", "0").start().await);
    let client = server.connect("postgres").await.unwrap();
    Tally::create(&client).await;
    Tally::add(&client, 0..20).await;
    let vault = vault().await;
    let first = vault.backup(&auto(&server)).await;
    // Summaries that are not there any more, nor the log to write them again.
    for _ in 0..2 {
        load::run(
            &client,
            &[
                "insert into tally values (-1, ''); delete from tally where n = -1",
                "select pg_switch_wal()",
                "checkpoint",
            ],
        )
        .await;
    }
    drop(client);
    server.stop(StopMode::Fast).await.unwrap();
    let summaries = server.data_dir().join("pg_wal/summaries");
    for file in std::fs::read_dir(summaries).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    server.start().await.unwrap();
    let client = server.connect("postgres").await.unwrap();
    load::run(&client, &["select pg_switch_wal()", "checkpoint"]).await;
    let backup = on(&first, &vault, &auto(&server)).await;
    assert_whole(&backup, "WAL summaries are required on timeline 1");
    load::run(&client, &["alter system set summarize_wal = off", "select pg_reload_conf()"]).await;
    let off = async || value(&client, "current_setting('summarize_wal')").await == "off";
    while !off().await {
        backup_testkit::wait::pause().await;
    }
    let expected = digest(&server).await;
    let backup = vault.backup(&auto(&server)).await;
    assert_whole(&backup, "unless WAL summarization is enabled");
    let verified = vault.backup(&through(&server, ChangeTracking::Verify)).await;
    assert_whole(&verified, "unless WAL summarization is enabled");
    let never = vault.backup(&through(&server, ChangeTracking::Never)).await;
    assert_eq!((fact(&never, "changes"), finding(&never, "changes-unknown")), (None, None));
    let target = Target::new(VERSION);
    target.restore(&vault, &backup).await.unwrap();
    assert_eq!(digest_of(&target).await, expected);

    let old = require_or_skip!(Postgres::builder(PgVersion::V15).start().await);
    let vault = crate::incremental::vault().await;
    vault.backup(&auto(&old)).await;
    let second = vault.backup(&auto(&old)).await;
    assert_whole(&second, "knows no incremental backups");
    assert!(second.new_bytes < 1 << 20, "it is compared all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_history_under_the_same_names_is_noticed() {
    let mut server = require_or_skip!(builder(VERSION).start().await);
    let client = server.connect("postgres").await.unwrap();
    Tally::create(&client).await;
    drop(client);
    server.stop(StopMode::Fast).await.unwrap();
    // The same cluster a second time, on the same timeline: only what was written since differs.
    let copy = server.home().join("copy");
    assert!(std::process::Command::new("cp").arg("-a").arg(server.data_dir()).arg(&copy).status().unwrap().success());
    let twin = Postgres::open(VERSION, &copy).await.unwrap();
    server.start().await.unwrap();
    let (client, other) = (server.connect("postgres").await.unwrap(), twin.connect("postgres").await.unwrap());
    Tally::add(&client, 0..50).await;
    let vault = vault().await;
    let parent = vault.backup(&auto(&server)).await;
    // Far enough that the parent's end is in its past, as it seems.
    for n in 0..4 {
        Tally::add(&other, 100 * n..100 * n + 50).await;
        other.batch_execute("select pg_switch_wal()").await.unwrap();
    }
    let expected = digest(&twin).await;
    let backup = vault.backup(&auto(&twin)).await;
    assert_eq!(backup.parent, Some(parent.id));
    assert_whole(&backup, "not the one that the parent was taken with");
    let place = Target::new(VERSION);
    place.restore(&vault, &backup).await.unwrap();
    assert_eq!(digest_of(&place).await, expected);
}

/// A relation of more than one file. Most of it is empty pages that were never written, so that a gigabyte costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_relation_of_two_files_is_patched_in_both() {
    let mut server = require_or_skip!(builder(VERSION).start().await);
    let client = server.connect("postgres").await.unwrap();
    load::run(&client, &["create table wide (i int)", "insert into wide values (1)", "checkpoint"]).await;
    let path = value(&client, "pg_relation_filepath('wide')").await;
    drop(client);
    server.stop(StopMode::Fast).await.unwrap();
    let (first, second) = (server.data_dir().join(&path), server.data_dir().join(format!("{path}.1")));
    std::fs::File::options().write(true).open(&first).unwrap().set_len(1 << 30).unwrap();
    std::fs::File::create(&second).unwrap().set_len(16 * 8192).unwrap();
    let owner = first.metadata().unwrap();
    std::os::unix::fs::chown(&second, Some(owner.uid()), Some(owner.gid())).unwrap();
    server.start().await.unwrap();
    let client = server.connect("postgres").await.unwrap();

    let vault = vault().await;
    let parent = vault.backup(&auto(&server)).await;
    load::run(&client, &["insert into wide values (2)", "update wide set i = 3 where i = 1"]).await;
    let places = value(&client, "(select string_agg(i || ':' || ctid, ' ' order by i) from wide)").await;
    assert!(places.contains("2:(131087,1)"), "{places}");
    let both = (digest(&server).await, vault.backup(&auto(&server)).await);
    // Cut off to the first file; the second one stays there, empty.
    load::run(&client, &["delete from wide where i = 2", "vacuum wide"]).await;
    assert_eq!(
        (second.metadata().unwrap().len(), value(&client, "pg_relation_size('wide')::text").await),
        (0, "8192".to_owned())
    );
    let cut = (digest(&server).await, vault.backup(&auto(&server)).await);
    for (expected, backup) in [both, cut] {
        assert_increment(&backup);
        assert!(sent(&backup) < parent.data_bytes / 20, "{} of {}", sent(&backup), parent.data_bytes);
        let target = Target::new(VERSION);
        target.restore(&vault, &backup).await.unwrap();
        assert_eq!(digest_of(&target).await, expected);
    }
}

/// The local way, told to believe the server's summaries where no log is captured.
#[tokio::test(flavor = "multi_thread")]
async fn summaries_serve_the_local_way_when_asked() {
    let server =
        require_or_skip!(builder(VERSION).initdb_arg("--data-checksums").setting("wal_keep_size", "0").start().await);
    let client = server.connect("postgres").await.unwrap();
    load::run(&client, load::TABLES).await;
    let vault = vault().await;
    let local = |changes| PostgresEngine::new(settings(&server).method(Method::Local).changes(changes)).unwrap();
    let first = vault.backup(&auto(&server)).await;
    load::run(&client, load::CHANGES).await;
    // The log since then is gone.
    for _ in 0..2 {
        load::run(&client, &["create table if not exists x (i int)", "select pg_switch_wal()", "checkpoint"]).await;
    }
    let doubted = on(&first, &vault, &local(ChangeTracking::Auto)).await;
    assert_eq!(fact(&doubted, "changes"), Some("compared"));
    let expected = digest(&server).await;
    let told = on(&first, &vault, &local(ChangeTracking::Summaries)).await;
    assert_increment(&told);
    assert_eq!(fact(&told, "history"), Some("named"));
    assert!(sent(&told) < told.data_bytes / 2, "{} of {}", sent(&told), told.data_bytes);
    let whole = vault.try_backup(&local(ChangeTracking::Auto), BackupOptions::full()).await.unwrap();
    assert_same_files(&relations(&vault, &told).await, &relations(&vault, &whole).await);
    let target = Target::new(VERSION);
    target.restore(&vault, &told).await.unwrap();
    assert_eq!(digest_of(&target).await, expected);
}
