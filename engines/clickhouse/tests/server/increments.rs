//! What is stored again, and what is not.

use backup_clickhouse::engine::facts;
use backup_clickhouse::{ClickHouseSettings, RestoreSettings};
use backup_testkit::{ClickHouse as Server, ClickHouseVersion, clickhouse_versions_under_test, require_or_skip};

use crate::harness::{Vault, fact, run};

const TABLE: [&str; 4] = [
    "CREATE DATABASE shop",
    "CREATE TABLE shop.orders (day Date, id UInt64, what String) ENGINE = MergeTree PARTITION BY toYYYYMM(day) ORDER BY id",
    "SYSTEM STOP MERGES",
    "INSERT INTO shop.orders SELECT toDate('2024-01-01') + number % 90, number, hex(sipHash64(number)) FROM numbers(300000)",
];

#[tokio::test(flavor = "multi_thread")]
async fn only_new_parts_are_read() {
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(Server::builder(version).start().await);
        run(&server, &TABLE).await;
        let vault = Vault::memory();
        let first = vault.backup(&server).await;
        assert_eq!((fact(&first, facts::PARTS), fact(&first, facts::PARTS_KEPT)), (3, 0));
        let same = vault.backup(&server).await;
        // Files that are in no list as well: the list itself, for one.
        assert_eq!(fact(&same, facts::KEPT_BYTES), fact(&first, facts::BYTES), "nothing has changed");

        run(
            &server,
            &["INSERT INTO shop.orders SELECT toDate('2024-03-01'), number, hex(sipHash64(number)) FROM numbers(3000)"],
        )
        .await;
        let second = vault.backup(&server).await;
        assert_eq!((fact(&second, facts::PARTS), fact(&second, facts::PARTS_KEPT)), (4, 3));
        let (all, kept) = (fact(&second, facts::BYTES), fact(&second, facts::KEPT_BYTES));
        // The new part, which is small.
        assert!(all - kept < all * 3 / 200, "{kept} of {all} kept");
        assert_eq!(fact(&second, facts::CHURN_BYTES), 0);

        // A merge makes new parts of old rows.
        run(&server, &["SYSTEM START MERGES", "OPTIMIZE TABLE shop.orders PARTITION 202403 FINAL"]).await;
        let third = vault.backup(&server).await;
        assert_eq!((fact(&third, facts::PARTS), fact(&third, facts::PARTS_KEPT)), (3, 2));
        let churn = fact(&third, facts::CHURN_BYTES);
        assert!(churn > all / 5 && churn < all / 2, "{churn} of {all}");

        // A mutation of one column leaves the others as they are, under other names of parts.
        if version == ClickHouseVersion::V26 {
            run(&server, &["ALTER TABLE shop.orders UPDATE what = 'x' WHERE id = 5 AND day < '2024-02-01' SETTINGS mutations_sync = 1"]).await;
            let fourth = vault.backup(&server).await;
            assert_eq!(fact(&fourth, facts::PARTS_KEPT), 2, "the mutation touches one part");
            assert!(fact(&fourth, facts::KEPT_BYTES) > 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_same_name_with_other_rows_is_another_part() {
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(Server::builder(version).start().await);
        let make = |salt: &str| {
            [
                "DROP TABLE IF EXISTS default.t".to_owned(),
                "CREATE TABLE default.t (id UInt64, what String) ENGINE = MergeTree ORDER BY id".to_owned(),
                format!("INSERT INTO default.t SELECT number, hex(sipHash64(number, '{salt}')) FROM numbers(1000)"),
            ]
        };
        let sql = "SELECT count(), sum(cityHash64(id, what)) FROM default.t";
        let vault = Vault::memory();
        for sql in make("one") {
            server.query(&sql).await.unwrap();
        }
        let first = vault.backup(&server).await;
        let one = server.query(sql).await.unwrap();
        for sql in make("two") {
            server.query(&sql).await.unwrap();
        }
        let second = vault.backup(&server).await;
        let two = server.query(sql).await.unwrap();
        assert_ne!(one, two);
        assert_eq!(fact(&second, facts::PARTS_KEPT), 0);
        for (backup, wanted) in [(first, one), (second, two)] {
            let target = require_or_skip!(Server::builder(version).start().await);
            vault.restore(&backup, &target, RestoreSettings::default()).await.unwrap();
            assert_eq!(target.query(sql).await.unwrap(), wanted);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_directory_is_not_taken_for_the_servers() {
    let version = clickhouse_versions_under_test()[0];
    let server = require_or_skip!(Server::builder(version).start().await);
    run(&server, &TABLE).await;
    let other = tempfile::tempdir().unwrap();
    let settings = ClickHouseSettings::default().url(server.url()).data_dir(other.path());
    let error = Vault::memory().try_backup(settings).await.unwrap_err();
    assert!(error.to_string().contains("is not the data directory"), "{error}");
}
