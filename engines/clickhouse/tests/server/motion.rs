//! Backups of what does not stand still.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backup_clickhouse::RestoreSettings;
use backup_testkit::{ClickHouse as Server, ClickHouseVersion, clickhouse_versions_under_test, require_or_skip};

use crate::harness::{Vault, run, shadows, wait_for};

/// Begins a mutation and does not wait for it.
async fn mutate(server: &Server, sql: &str) {
    let parameters: &[_] = if server.version() == ClickHouseVersion::V26 { &[("mutations_sync", "0")] } else { &[] };
    server.query_with(sql, parameters).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mutations_go_on_where_they_were() {
    for version in clickhouse_versions_under_test() {
        let source = require_or_skip!(Server::builder(version).start().await);
        run(
            &source,
            &[
                "CREATE TABLE default.t (id UInt64, v UInt64) ENGINE = MergeTree ORDER BY id",
                "INSERT INTO default.t SELECT number, 0 FROM numbers(1000)",
            ],
        )
        .await;
        mutate(&source, "ALTER TABLE default.t UPDATE v = v + 1 WHERE id < 500").await;
        let sql = "SELECT sum(v), count() FROM default.t";
        wait_for("the first mutation", async || source.query(sql).await.unwrap() == "500\t1000").await;
        // One that is done in one part, and one that has not begun. Run once more, the first one would count twice.
        run(&source, &["SYSTEM STOP MERGES", "INSERT INTO default.t SELECT 1000 + number, 0 FROM numbers(1000)"]).await;
        mutate(&source, "ALTER TABLE default.t UPDATE v = v + 10 WHERE id % 2 = 0").await;
        assert_eq!(source.query(sql).await.unwrap(), "500\t2000");
        let vault = Vault::memory();
        let backup = vault.backup(&source).await;
        assert!(vault.check(&backup).await.is_sound());
        let target = require_or_skip!(Server::builder(version).start().await);
        vault.restore(&backup, &target, RestoreSettings::default()).await.unwrap();
        wait_for("the mutation", async || target.query(sql).await.unwrap() == "10500\t2000").await;
        run(&source, &["SYSTEM START MERGES"]).await;
        wait_for("the mutation", async || source.query(sql).await.unwrap() == "10500\t2000").await;
        // The table goes on: new rows, new mutations.
        for server in [&source, &target] {
            run(server, &["INSERT INTO default.t SELECT 5000, 1"]).await;
            mutate(server, "ALTER TABLE default.t DELETE WHERE id = 0").await;
            let done = async || server.query(sql).await.unwrap() == "10490\t2000";
            wait_for("a later mutation", done).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_is_whole_while_rows_come_and_parts_are_merged() {
    for version in clickhouse_versions_under_test() {
        let source = Arc::new(require_or_skip!(Server::builder(version).start().await));
        let tables = 4;
        for table in 0..tables {
            let sql = format!("CREATE TABLE default.t{table} (id UInt64, s String) ENGINE = MergeTree ORDER BY id");
            run(&source, &[&sql]).await;
        }
        // Each insert is one part: all of its hundred rows are there, or none.
        let (stop, inserted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let load = tokio::spawn({
            let (source, stop, inserted) = (Arc::clone(&source), Arc::clone(&stop), Arc::clone(&inserted));
            async move {
                while !stop.load(Ordering::Relaxed) {
                    let first = inserted.load(Ordering::Relaxed) * 100;
                    for table in 0..tables {
                        let sql = format!(
                            "INSERT INTO default.t{table} SELECT {first} + number, hex(sipHash64(number)) FROM numbers(100)"
                        );
                        source.query(&sql).await.unwrap();
                    }
                    inserted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        wait_for("load", async || inserted.load(Ordering::Relaxed) >= 20).await;
        let vault = Vault::memory();
        let mut taken = Vec::new();
        for _ in 0..3 {
            let before = inserted.load(Ordering::Relaxed);
            let backup = vault.backup(&source).await;
            // One more may be under way.
            taken.push((backup, before, inserted.load(Ordering::Relaxed) + 1));
        }
        stop.store(true, Ordering::Relaxed);
        load.await.unwrap();
        assert_eq!(shadows(&source), Vec::<String>::new());
        for (backup, before, after) in taken {
            assert!(backup.snapshot.fact(backup_clickhouse::engine::facts::SKEW).is_some());
            let target = require_or_skip!(Server::builder(version).start().await);
            vault.restore(&backup, &target, RestoreSettings::default()).await.unwrap();
            for table in 0..tables {
                let sql = format!("SELECT count(), uniqExact(id), max(id) + 1 FROM default.t{table}");
                let text = target.query(&sql).await.unwrap();
                let numbers: Vec<u64> = text.split('\t').map(|number| number.parse().unwrap()).collect();
                assert!(numbers.iter().all(|number| number == &numbers[0]), "t{table}: {text}");
                let inserts = numbers[0] / 100;
                assert!(numbers[0].is_multiple_of(100) && (before..=after).contains(&inserts), "t{table}: {text}");
            }
        }
    }
}
