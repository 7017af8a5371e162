//! Tables out of backups, as files of other formats.

use backup_clickhouse::TableKey;
use backup_clickhouse::engine::facts;
use backup_clickhouse::export::{Exported, export};
use backup_core::catalog::BackupRecord;
use backup_core::{ErrorKind, RecoveryTarget, Result};
use backup_testkit::{ClickHouse as Server, ClickHouseVersion, clickhouse_versions_under_test, require_or_skip};

use crate::harness::{Vault, engine, fact, run, work};

async fn out_of(
    vault: &Vault,
    backup: &BackupRecord,
    through: &Server,
    table: &str,
    format: &str,
) -> Result<(Vec<u8>, Exported)> {
    let mut file = Vec::new();
    let table = TableKey::new("shop", table);
    let goal = RecoveryTarget::backup(backup.id);
    let done = export(vault.0.as_ref(), &engine(through), goal, &table, format, &mut file, &work()).await?;
    assert_eq!(done.bytes, file.len() as u64);
    Ok((file, done))
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_out_and_nothing_stays() {
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(Server::builder(version).start().await);
        run(
            &server,
            &[
                "CREATE DATABASE shop",
                "CREATE TABLE shop.orders (id UInt64, what String) ENGINE = MergeTree ORDER BY id",
                "INSERT INTO shop.orders SELECT number, toString(number * 7) FROM numbers(1000)",
                "CREATE TABLE shop.notes (id UInt64) ENGINE = Log",
                "INSERT INTO shop.notes VALUES (5)",
                // As an export leaves it that was killed.
                "CREATE DATABASE backup_library_export_0123",
                "CREATE TABLE backup_library_export_0123.orders (id UInt64) ENGINE = MergeTree ORDER BY id",
            ],
        )
        .await;
        let vault = Vault::memory();
        let backup = vault.backup(&server).await;
        assert_eq!(fact(&backup, facts::TABLES), 1, "what somebody exports is nobody's data");
        run(&server, &["INSERT INTO shop.orders SELECT 5000, 'later'"]).await;

        let (csv, done) = out_of(&vault, &backup, &server, "orders", "CSV").await.unwrap();
        let text = String::from_utf8(csv).unwrap();
        assert_eq!((text.lines().count(), text.lines().nth(3)), (1000, Some("3,\"21\"")));
        assert!(done.findings.iter().any(|finding| finding.code == "export-removed"), "{done:?}");
        assert_eq!(out_of(&vault, &backup, &server, "notes", "TSV").await.unwrap().0, b"5\n");

        // Through another server, which has no such database, and into what it reads again.
        let other = require_or_skip!(Server::builder(version).start().await);
        let format = if version == ClickHouseVersion::V26 { "Parquet" } else { "Native" };
        let (file, _) = out_of(&vault, &backup, &other, "orders", format).await.unwrap();
        assert_eq!(file.starts_with(b"PAR1"), version == ClickHouseVersion::V26);
        run(&other, &["CREATE TABLE default.back (id UInt64, what String) ENGINE = Memory"]).await;
        other.insert("default.back", format, &file).await.unwrap();
        let sums = |table: &str| format!("SELECT count(), sum(cityHash64(id, what)) FROM {table} WHERE id < 5000");
        assert_eq!(
            other.query(&sums("default.back")).await.unwrap(),
            server.query(&sums("shop.orders")).await.unwrap()
        );

        let error = out_of(&vault, &backup, &other, "orders", "Nonsense").await.unwrap_err();
        assert!(error.to_string().contains("Nonsense"), "{error}");
        for (table, format) in [("nowhere", "CSV"), ("orders", "CSV INTO OUTFILE 'x'")] {
            let error = out_of(&vault, &backup, &other, table, format).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        for server in [&server, &other] {
            let left = "SELECT count() FROM system.databases WHERE name LIKE 'backup_library%'";
            assert_eq!(server.query(left).await.unwrap(), "0");
        }
        assert_eq!(other.query("SELECT count() FROM system.databases WHERE name = 'shop'").await.unwrap(), "0");
        assert_eq!(server.query("SELECT count() FROM shop.orders").await.unwrap(), "1001");
    }
}
