//! Parts of a backup, under other names, and several backups in one table.

use backup_clickhouse::{ClickHouse, OnExisting, RestoreSettings};
use backup_core::ErrorKind;
use backup_core::entry::Selector;
use backup_testkit::{ClickHouse as Server, ClickHouseVersion, clickhouse_versions_under_test, require_or_skip};

use crate::harness::{Vault, frozen_on, run, settings};

const SHOP: [&str; 6] = [
    "CREATE DATABASE shop",
    "CREATE TABLE shop.orders (day Date, id UInt64) ENGINE = MergeTree PARTITION BY toYYYYMM(day) ORDER BY id",
    "CREATE TABLE shop.others (id UInt64) ENGINE = MergeTree ORDER BY id",
    "CREATE MATERIALIZED VIEW shop.sums (day Date, n UInt64) ENGINE = SummingMergeTree ORDER BY day AS SELECT day, toUInt64(1) AS n FROM shop.orders",
    "INSERT INTO shop.orders SELECT toDate('2024-01-01') + number % 90, number FROM numbers(9000)",
    "INSERT INTO shop.others SELECT number FROM numbers(100)",
];

fn only(path: &str) -> Selector {
    Selector::parse([path]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_partitions_come_back_alone() {
    for version in clickhouse_versions_under_test() {
        let source = require_or_skip!(Server::builder(version).start().await);
        run(&source, &SHOP).await;
        let vault = Vault::memory();
        let backup = vault.backup(&source).await;
        let target = require_or_skip!(Server::builder(version).start().await);
        let plain = RestoreSettings::default();
        let tables = "SELECT name FROM system.tables WHERE database = 'shop' AND name NOT LIKE '.inner%' ORDER BY name";

        vault.restore_some(&backup, &target, plain.clone(), only("data/shop/orders/202402")).await.unwrap();
        let months = "SELECT toYYYYMM(day) AS m, count() FROM shop.orders GROUP BY m ORDER BY m";
        assert_eq!(target.query(months).await.unwrap(), "202402\t2900");
        assert_eq!(target.query(tables).await.unwrap(), "orders");
        // The other months into the same table; what is there already is not doubled.
        let add = plain.clone().existing(OnExisting::Add);
        let error = vault.restore_some(&backup, &target, plain.clone(), only("data/shop/orders")).await.unwrap_err();
        assert!(error.to_string().contains("shop.orders"), "{error}");
        vault.restore_some(&backup, &target, add, only("data/shop/orders")).await.unwrap();
        assert_eq!(target.query(months).await.unwrap(), source.query(months).await.unwrap());

        // Definitions without rows.
        vault.restore_some(&backup, &target, plain.clone(), only("metadata/shop/others")).await.unwrap();
        assert_eq!(target.query("SELECT count() FROM shop.others").await.unwrap(), "0");
        // All of a database under another name: views read and write what is beside them.
        let renamed = plain.clone().rename("shop=copy").unwrap();
        vault.restore_some(&backup, &target, renamed, only("data/shop")).await.unwrap();
        let sums = |database: &str| format!("SELECT day, sum(n) FROM {database}.sums GROUP BY day ORDER BY day");
        assert_eq!(target.query(&sums("copy")).await.unwrap(), source.query(&sums("shop")).await.unwrap());
        run(&target, &["INSERT INTO copy.orders SELECT toDate('2025-01-01'), number FROM numbers(7)"]).await;
        assert_eq!(target.query("SELECT sum(n) FROM copy.sums").await.unwrap(), "9007");
        assert_eq!(target.query("SELECT count() FROM shop.orders").await.unwrap(), "9000");

        let error = vault.restore_some(&backup, &target, plain.clone(), only("data/nowhere")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        // In place of what is there.
        let replace = plain.existing(OnExisting::Replace);
        run(&target, &["INSERT INTO shop.others SELECT number FROM numbers(5)"]).await;
        vault.restore(&backup, &target, replace).await.unwrap();
        assert_eq!(target.query(&sums("shop")).await.unwrap(), source.query(&sums("shop")).await.unwrap());
        assert_eq!(target.query("SELECT count() FROM shop.others").await.unwrap(), "100");
        assert_eq!(target.query("SELECT sum(n) FROM copy.sums").await.unwrap(), "9007", "the copy stays");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_come_together_in_one_server() {
    for version in clickhouse_versions_under_test() {
        let (mut backups, vault) = (Vec::new(), Vault::memory());
        let mut total = 0;
        for shard in 0..2 {
            let server = require_or_skip!(Server::builder(version).start().await);
            let rows = 1000 * (shard + 1);
            total += rows;
            let fill = format!("INSERT INTO shop.orders SELECT number * 2 + {shard}, {shard} FROM numbers({rows})");
            let table = "CREATE TABLE shop.orders (id UInt64, shard UInt8) ENGINE = MergeTree ORDER BY id";
            run(&server, &["CREATE DATABASE shop", table, &fill]).await;
            backups.push(vault.backup(&server).await);
        }
        let target = require_or_skip!(Server::builder(version).start().await);
        for backup in &backups {
            vault.restore(backup, &target, RestoreSettings::default().existing(OnExisting::Add)).await.unwrap();
        }
        let sql = "SELECT count(), uniqExact(id) FROM shop.orders";
        assert_eq!(target.query(sql).await.unwrap(), format!("{total}\t{total}"));
        // Once more changes nothing.
        vault.restore(&backups[1], &target, RestoreSettings::default().existing(OnExisting::Add)).await.unwrap();
        assert_eq!(target.query(sql).await.unwrap(), format!("{total}\t{total}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_restore_leaves_is_replaced_and_another_directory_is_refused() {
    for version in clickhouse_versions_under_test() {
        let source = require_or_skip!(Server::builder(version).start().await);
        run(
            &source,
            &[
                "CREATE DATABASE d",
                "CREATE TABLE d.t (id UInt64) ENGINE = MergeTree ORDER BY id",
                "CREATE TABLE d.log (id UInt64) ENGINE = Log",
                "CREATE MATERIALIZED VIEW d.mv TO d.t AS SELECT id FROM d.log",
                "INSERT INTO d.log SELECT number FROM numbers(5)",
            ],
        )
        .await;
        let vault = Vault::memory();
        let backup = vault.backup(&source).await;
        let (target, other) = (
            require_or_skip!(Server::builder(version).start().await),
            require_or_skip!(Server::builder(version).start().await),
        );
        // A table that is there and not loaded, and a part that was to be attached.
        run(
            &target,
            &["CREATE DATABASE d", "CREATE TABLE d.t (id UInt64) ENGINE = MergeTree ORDER BY id", "DETACH TABLE d.t"],
        )
        .await;
        let replace = RestoreSettings::default().existing(OnExisting::Replace);
        let wrong =
            ClickHouse::new(settings(&target).data_dir(other.data_dir())).unwrap().with_restore(replace.clone());
        let error = vault.restore_by(&wrong, &backup, Selector::all()).await.unwrap_err();
        assert!(error.to_string().contains("is not the data directory"), "{error}");
        vault.restore(&backup, &target, replace).await.unwrap();
        // Views do not pass on what they have passed on already.
        let sql = "SELECT (SELECT count() FROM d.t), (SELECT count() FROM d.log)";
        assert_eq!(target.query(sql).await.unwrap(), "5\t5");
        let probes = "SELECT count() FROM system.tables WHERE name LIKE 'backup_library%'";
        assert_eq!(target.query(probes).await.unwrap(), "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_come_back_to_the_disk_where_they_were() {
    let version = ClickHouseVersion::V26;
    if !clickhouse_versions_under_test().contains(&version) {
        return;
    }
    let source = require_or_skip!(Server::builder(version).disk("cold").start().await);
    run(
        &source,
        &[
            "CREATE TABLE default.t (id UInt64) ENGINE = MergeTree PARTITION BY id % 4 ORDER BY id SETTINGS storage_policy = 'every'",
            "INSERT INTO default.t SELECT number FROM numbers(4000)",
            "ALTER TABLE default.t MOVE PARTITION ID '2' TO DISK 'cold'",
        ],
    )
    .await;
    let vault = Vault::memory();
    let backup = vault.backup(&source).await;
    assert!(vault.check(&backup).await.is_sound());
    assert_eq!(frozen_on(&source.disk_dir("cold")), Vec::<String>::new());
    let target = require_or_skip!(Server::builder(version).disk("cold").start().await);
    vault.restore(&backup, &target, RestoreSettings::default()).await.unwrap();
    let sql = "SELECT partition_id, disk_name, sum(rows) FROM system.parts WHERE active AND table = 't' GROUP BY 1, 2 ORDER BY 1";
    let (has, wanted) = (target.query(sql).await.unwrap(), source.query(sql).await.unwrap());
    assert_eq!(has, wanted);
    assert!(wanted.contains("2\tcold\t1000"), "{wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_replacing_table_stay_in_their_order() {
    let version = ClickHouseVersion::V26;
    if !clickhouse_versions_under_test().contains(&version) {
        return;
    }
    let source = require_or_skip!(Server::builder(version).start().await);
    // Without a version the last one wins: by the order of parts.
    run(
        &source,
        &[
            "CREATE TABLE default.t (id UInt64, v UInt64) ENGINE = ReplacingMergeTree ORDER BY id",
            "SYSTEM STOP MERGES default.t",
        ],
    )
    .await;
    for v in 0..12 {
        run(&source, &[&format!("INSERT INTO default.t SELECT number, {v} FROM numbers(10)")]).await;
    }
    let vault = Vault::memory();
    let backup = vault.backup(&source).await;
    let target = require_or_skip!(Server::builder(version).start().await);
    vault.restore(&backup, &target, RestoreSettings::default()).await.unwrap();
    assert_eq!(target.query("SELECT min(v), max(v), count() FROM default.t FINAL").await.unwrap(), "11\t11\t10");
}
