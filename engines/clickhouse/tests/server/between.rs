//! Backups between backups: each row is stored once, however often it is merged.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_clickhouse::engine::facts;
use backup_clickhouse::{Merged, OnExisting, RestoreSettings};
use backup_core::catalog::BackupRecord;
use backup_testkit::{ClickHouse as Server, ClickHouseVersion, clickhouse_versions_under_test, require_or_skip};
use tokio::sync::Semaphore;

use crate::harness::{Vault, fact, run, settings, shadows, wait_for};
use crate::storage;

async fn between(vault: &Vault, server: &Server) -> BackupRecord {
    vault.try_backup(settings(server).merged(Merged::FromParent)).await.unwrap()
}

/// What the table has.
const DIGEST: &str = "SELECT count(), sum(cityHash64(batch, id, what)) FROM shop.orders";

#[tokio::test(flavor = "multi_thread")]
async fn every_captured_moment_comes_back_and_each_row_is_stored_once() {
    for version in clickhouse_versions_under_test() {
        let server = Arc::new(require_or_skip!(Server::builder(version).start().await));
        run(
            &server,
            &[
                "CREATE DATABASE shop",
                // Two partitions: the blocks of each have gaps.
                "CREATE TABLE shop.orders (batch UInt32, id UInt32, what FixedString(16)) ENGINE = MergeTree PARTITION BY id % 2 ORDER BY id",
                "CREATE TABLE shop.calm (id UInt64) ENGINE = MergeTree ORDER BY id",
                "INSERT INTO shop.calm SELECT number FROM numbers(1000)",
            ],
        )
        .await;
        // What cannot be compressed: then bytes of the store are bytes of rows.
        let rows = 1000;
        // It goes on while captures are taken, and not so long that the test does.
        let (turns, inserted) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
        let writer = tokio::spawn({
            let (server, turns, inserted) = (Arc::clone(&server), Arc::clone(&turns), Arc::clone(&inserted));
            async move {
                while let Ok(turn) = turns.acquire().await {
                    turn.forget();
                    let batch = inserted.load(Ordering::Relaxed);
                    let sql = format!(
                        "INSERT INTO shop.orders SELECT {batch}, number, sipHash128(concat(toString(number), '-{batch}')) FROM numbers({rows})"
                    );
                    server.query(&sql).await.unwrap();
                    inserted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let home = tempfile::tempdir().unwrap();
        let vault = storage::create(&storage::on_disk(home.path())).await;
        let (mut taken, mut last) = (Vec::new(), 0);
        for capture in 0..12 {
            turns.add_permits(10);
            let more = async || {
                assert!(!writer.is_finished(), "the writer goes on");
                inserted.load(Ordering::Relaxed) > last
            };
            wait_for("more rows", more).await;
            if capture % 2 == 1 {
                // Everything is merged again and again.
                run(
                    &server,
                    &["OPTIMIZE TABLE shop.orders PARTITION 0 FINAL", "OPTIMIZE TABLE shop.orders PARTITION 1 FINAL"],
                )
                .await;
            }
            let before = inserted.load(Ordering::Relaxed);
            let backup = between(&vault, &server).await;
            last = inserted.load(Ordering::Relaxed);
            // One more may be under way.
            taken.push((backup, before, last + 1));
        }
        turns.close();
        writer.await.unwrap();
        assert_eq!(shadows(&server), Vec::<String>::new());

        let stood_for: u64 = taken.iter().map(|(backup, ..)| fact(backup, facts::STOOD_FOR)).sum();
        assert!(stood_for >= 10, "{stood_for} merges were not stored");
        if version == ClickHouseVersion::V26 {
            assert!(taken[1..].iter().all(|(backup, ..)| fact(backup, facts::TABLES_KEPT) == 1));
        }
        let (backup, before, after) = &taken[11];
        let rows_in = fact(backup, facts::ROWS) - 1000;
        assert!((before * rows..=after * rows).contains(&rows_in));
        // Two thirds of a row cannot be compressed.
        let (stored, written) = (taken.iter().map(|(backup, ..)| backup.stored_bytes).sum::<u64>(), rows_in * 24);
        let merged: u64 = taken.iter().map(|(backup, ..)| fact(backup, facts::SPARED_BYTES)).sum();
        assert!(stored * 10 <= written * 13, "{stored} bytes are stored of {written}");
        assert!(merged > written * 2, "it was merged again and again");

        for which in [2, 7, 11] {
            let (backup, before, after) = &taken[which];
            assert!(vault.check(backup).await.is_sound());
            let target = require_or_skip!(Server::builder(version).start().await);
            vault.restore(backup, &target, RestoreSettings::default()).await.unwrap();
            // An insert is one part in each partition.
            for half in 0..2 {
                let part = format!("id % 2 = {half}");
                let sql = format!("SELECT count(), uniqExact(batch, id), max(batch) + 1 FROM shop.orders WHERE {part}");
                let numbers: Vec<u64> =
                    target.query(&sql).await.unwrap().split('\t').map(|number| number.parse().unwrap()).collect();
                let wanted = numbers[2] * rows / 2;
                assert_eq!((numbers[0], numbers[1]), (wanted, wanted), "capture {which}");
                assert!((*before..=*after).contains(&numbers[2]), "capture {which}: {numbers:?}");
                let ledger = server.query(&format!("{DIGEST} WHERE {part} AND batch < {}", numbers[2])).await.unwrap();
                assert_eq!(target.query(&format!("{DIGEST} WHERE {part}")).await.unwrap(), ledger, "capture {which}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_merges_change_is_stored() {
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(Server::builder(version).start().await);
        run(
            &server,
            &[
                "CREATE TABLE default.r (id UInt64, v UInt64) ENGINE = ReplacingMergeTree ORDER BY id",
                "CREATE TABLE default.m (id UInt64, v UInt64) ENGINE = MergeTree ORDER BY id",
                "INSERT INTO default.r SELECT number, 0 FROM numbers(100)",
                "INSERT INTO default.m SELECT number, 0 FROM numbers(100)",
            ],
        )
        .await;
        let vault = Vault::memory();
        let first = between(&vault, &server).await;
        assert_eq!(fact(&first, facts::STOOD_FOR), 0, "of a first one nothing is known");
        run(
            &server,
            &[
                "INSERT INTO default.r SELECT number, 1 FROM numbers(50)",
                "INSERT INTO default.m SELECT 100 + number, 1 FROM numbers(50)",
                "OPTIMIZE TABLE default.r FINAL",
                "OPTIMIZE TABLE default.m FINAL",
            ],
        )
        .await;
        let second = between(&vault, &server).await;
        // The rows that were replaced are gone, so that one is stored.
        assert_eq!(fact(&second, facts::STOOD_FOR), 1);
        let regular = vault.backup(&server).await;
        assert_eq!(fact(&regular, facts::PARTS), 2, "a regular backup has what the server has");
        assert_eq!(fact(&second, facts::PARTS), 3);
        let sql = "SELECT (SELECT sum(v), count() FROM default.r), (SELECT sum(v), count() FROM default.m)";
        let sql = if version == ClickHouseVersion::V18_16 { "SELECT sum(v) + count() FROM default.r" } else { sql };
        let wanted = server.query(sql).await.unwrap();
        let target = require_or_skip!(Server::builder(version).start().await);
        for backup in [&second, &regular] {
            let replace = RestoreSettings::default().existing(OnExisting::Replace);
            vault.restore(backup, &target, replace).await.unwrap();
            assert_eq!(target.query(sql).await.unwrap(), wanted);
            assert_eq!(target.query("SELECT count(), sum(v) FROM default.m").await.unwrap(), "150\t50");
        }
        // What is there as one part is not added as two.
        vault.restore(&second, &server, RestoreSettings::default().existing(OnExisting::Add)).await.unwrap();
        assert_eq!(server.query("SELECT count(), sum(v) FROM default.m").await.unwrap(), "150\t50");

        // A mutation of a part that stands for itself, and a merge behind it.
        let sync: &[_] = if version == ClickHouseVersion::V26 { &[("mutations_sync", "1")] } else { &[] };
        server.query_with("ALTER TABLE default.m UPDATE v = 7 WHERE id = 3", sync).await.unwrap();
        wait_for("the mutation", async || server.query("SELECT sum(v) FROM default.m").await.unwrap() == "57").await;
        run(&server, &["OPTIMIZE TABLE default.m FINAL"]).await;
        let third = between(&vault, &server).await;
        vault.restore(&third, &target, RestoreSettings::default().existing(OnExisting::Replace)).await.unwrap();
        assert_eq!(target.query("SELECT count(), sum(v) FROM default.m").await.unwrap(), "150\t57");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_the_same_names_with_other_rows_stand_for_nothing() {
    for version in clickhouse_versions_under_test() {
        let mut server = require_or_skip!(Server::builder(version).start().await);
        let fill = |salt: u64| {
            [0, 1].map(|half| format!("INSERT INTO default.t SELECT {half} * 1000 + number, {salt} FROM numbers(1000)"))
        };
        run(
            &server,
            &[
                "CREATE TABLE default.t (id UInt64, v UInt64) ENGINE = MergeTree PARTITION BY tuple() ORDER BY id",
                "SYSTEM STOP MERGES",
            ],
        )
        .await;
        let fill_with = async |server: &Server, salt| {
            for sql in fill(salt) {
                server.query(&sql).await.unwrap();
            }
        };
        fill_with(&server, 1).await;
        let vault = Vault::memory();
        let first = between(&vault, &server).await;
        let names = "SELECT name FROM system.parts WHERE table = 't' AND active ORDER BY name";
        let before = server.query(names).await.unwrap();
        // The same definition, as many rows, and numbers from the beginning, as nothing is left of the parts.
        server.stop().await.unwrap();
        remove_parts(server.data_dir());
        server.start().await.unwrap();
        run(&server, &["SYSTEM STOP MERGES"]).await;
        fill_with(&server, 2).await;
        assert_eq!(server.query(names).await.unwrap(), before, "names are given again");
        let second = between(&vault, &server).await;
        assert_eq!((fact(&second, facts::TABLES_KEPT), fact(&second, facts::STOOD_FOR)), (0, 0));
        let target = require_or_skip!(Server::builder(version).start().await);
        vault.restore(&second, &target, RestoreSettings::default()).await.unwrap();
        assert_eq!(target.query("SELECT count(), sum(v) FROM default.t").await.unwrap(), "2000\t4000");

        // And merged: against the parent of before, which has the names of what was merged, with other rows.
        run(&server, &["SYSTEM START MERGES", "OPTIMIZE TABLE default.t FINAL"]).await;
        let third = vault.try_backup_on(first.id, settings(&server).merged(Merged::FromParent)).await.unwrap();
        assert_eq!(fact(&third, facts::STOOD_FOR), 0);
        vault.restore(&third, &target, RestoreSettings::default().existing(OnExisting::Replace)).await.unwrap();
        assert_eq!(target.query("SELECT count(), sum(v) FROM default.t").await.unwrap(), "2000\t4000");
    }
}

/// Removes all parts of tables without partitions below `dir`.
fn remove_parts(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_type().unwrap().is_dir() {
            continue;
        }
        match entry.file_name().to_str().unwrap().starts_with("all_") {
            true => std::fs::remove_dir_all(entry.path()).unwrap(),
            false => remove_parts(&entry.path()),
        }
    }
}
