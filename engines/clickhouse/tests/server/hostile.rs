//! Backups that somebody has made up, and servers that go away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use backup_clickhouse::{OnExisting, RestoreSettings};
use backup_core::engine::{
    BackupContext, CheckContext, CheckReport, Deployment, EngineDescriptor, RestoreContext, Restored,
};
use backup_core::entry::EntryMeta;
use backup_core::run::{self, BackupOptions};
use backup_core::{
    BackupEngine, BackupSinkExt, BackupSource, BackupSourceExt, Consistency, ErrorKind, Finding, Result, Snapshot,
};
use backup_testkit::{ClickHouse as Server, ClickHouseVersion, clickhouse_versions_under_test, require_or_skip};
use futures::StreamExt;

use crate::harness::{Vault, run as statements, shadows, work};

/// Puts the entries of a backup, with other bytes in some of them.
#[derive(Debug)]
struct Forger {
    source: Arc<dyn BackupSource>,
    from: &'static [u8],
    to: &'static [u8],
}

impl std::fmt::Display for Forger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("forger")
    }
}

static DESCRIPTOR: EngineDescriptor = EngineDescriptor::new("clickhouse", "Forger", Consistency::PerPart, "nothing");

#[async_trait]
impl BackupEngine for Forger {
    fn descriptor(&self) -> &EngineDescriptor {
        &DESCRIPTOR
    }

    async fn inspect(&self) -> Result<Deployment> {
        Ok(Deployment::new("x", "1", "x"))
    }

    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot> {
        let mut entries = self.source.entries(backup_core::entry::Selector::all());
        let mut changed = false;
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            let mut bytes = self.source.read_small(&entry.meta.path, 64 << 20).await?.to_vec();
            let at = bytes.windows(self.from.len()).position(|window| window == self.from);
            let is_record = entry.meta.path.as_str().is_some_and(|path| !path.starts_with("data/"));
            if let Some(at) = at.filter(|_| is_record) {
                bytes[at..at + self.from.len()].copy_from_slice(self.to);
                changed = true;
            }
            let meta = EntryMeta::new(entry.meta.path.clone(), entry.meta.kind.clone());
            cx.sink().put_bytes(meta, bytes.into()).await?;
        }
        assert!(changed, "nothing was forged");
        Ok(self.source.record().snapshot.clone())
    }

    async fn assess_restore(&self, _: &RestoreContext) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    async fn restore(&self, _: &RestoreContext) -> Result<Restored> {
        Ok(Restored::default())
    }

    async fn check(&self, _: &CheckContext) -> Result<CheckReport> {
        Ok(CheckReport::default())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_backup_lead_nowhere_else() {
    let version = clickhouse_versions_under_test()[0];
    let server = require_or_skip!(Server::builder(version).start().await);
    statements(
        &server,
        &[
            "CREATE TABLE default.orders (id UInt64) ENGINE = MergeTree PARTITION BY id % 3 ORDER BY id",
            "INSERT INTO default.orders SELECT number FROM numbers(300)",
        ],
    )
    .await;
    let vault = Vault::memory();
    let backup = vault.backup(&server).await;
    // A part, a disk, a table: of the same length, so that the record around it stays one.
    let forgeries: [(&[u8], &[u8]); 3] =
        [(b"1_2_2_0", b"../../x"), (b"\"name\": \"orders\"", b"\"name\": \"../../\""), (b"1_2_2_0", b"1_9_9_0")];
    for (from, to) in forgeries {
        let forger = Forger { source: vault.0.open(backup.id).await.unwrap(), from, to };
        let forged = run::backup(vault.0.as_ref(), &forger, BackupOptions::default(), &work()).await.unwrap();
        let report = vault.check(&forged).await;
        assert!(!report.is_sound(), "{}", String::from_utf8_lossy(to));
        let target = require_or_skip!(Server::builder(version).start().await);
        let old = [
            "CREATE TABLE default.orders (id String) ENGINE = MergeTree ORDER BY id",
            "INSERT INTO default.orders VALUES ('old')",
        ];
        statements(&target, &old).await;
        let way = RestoreSettings::default().existing(OnExisting::Replace);
        let error = vault.restore(&forged, &target, way).await.unwrap_err();
        assert_eq!(target.query("SELECT id FROM default.orders").await.unwrap(), "old", "nothing is dropped for it");
        let kinds = [ErrorKind::Damaged, ErrorKind::InvalidInput, ErrorKind::Conflict, ErrorKind::Environment];
        assert!(kinds.contains(&error.kind()), "{error:?}");
        for stray in ["x", "../x", "../../x"] {
            assert!(!target.data_dir().join(stray).exists(), "{stray}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_that_need_each_other_come_back() {
    // Servers of today refuse to make them.
    let version = ClickHouseVersion::V18_16;
    if !clickhouse_versions_under_test().contains(&version) {
        return;
    }
    let server = require_or_skip!(Server::builder(version).start().await);
    statements(
        &server,
        &[
            "CREATE DATABASE d",
            "CREATE VIEW d.b AS SELECT 1 AS x",
            "CREATE VIEW d.a AS SELECT x FROM d.b",
            "DROP TABLE d.b",
            "CREATE VIEW d.b AS SELECT x FROM d.a",
            "CREATE VIEW d.c AS SELECT x FROM d.b",
        ],
    )
    .await;
    let vault = Vault::memory();
    let backup = vault.backup(&server).await;
    let target = require_or_skip!(Server::builder(version).start().await);
    let restored = vault.restore(&backup, &target, RestoreSettings::default()).await.unwrap();
    assert!(restored.findings.iter().any(|finding| finding.code == "definitions-in-circle"));
    let names = "SELECT name FROM system.tables WHERE database = 'd' ORDER BY name";
    assert_eq!(target.query(names).await.unwrap(), "a\nb\nc");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_may_come_and_go_meanwhile() {
    for version in clickhouse_versions_under_test() {
        let server = Arc::new(require_or_skip!(Server::builder(version).start().await));
        statements(
            &server,
            &[
                "CREATE TABLE default.stays (id UInt64) ENGINE = MergeTree ORDER BY id",
                "INSERT INTO default.stays SELECT number FROM numbers(1000)",
            ],
        )
        .await;
        let stop = Arc::new(AtomicBool::new(false));
        let coming = tokio::spawn({
            let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
            async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let table = format!("default.t{}", number % 5);
                    statements(
                        &server,
                        &[
                            &format!("CREATE TABLE {table} (id UInt64) ENGINE = MergeTree ORDER BY id"),
                            &format!("INSERT INTO {table} SELECT number FROM numbers(100)"),
                            &format!("ALTER TABLE {table} ADD COLUMN x UInt8"),
                            &format!("DROP TABLE {table}"),
                        ],
                    )
                    .await;
                }
            }
        });
        let vault = Vault::memory();
        for _ in 0..5 {
            let backup = vault.backup(&server).await;
            let report = vault.check(&backup).await;
            assert!(report.is_sound(), "{:?}", report.findings);
            assert!(backup.entries > 3);
        }
        stop.store(true, Ordering::Relaxed);
        coming.await.unwrap();
        assert_eq!(shadows(&server), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_in_the_middle_fails_the_backup_and_nothing_else() {
    for version in clickhouse_versions_under_test() {
        let mut server = require_or_skip!(Server::builder(version).start().await);
        for table in 0..20 {
            statements(
                &server,
                &[
                    &format!(
                        "CREATE TABLE default.t{table} (id UInt64) ENGINE = MergeTree PARTITION BY id % 50 ORDER BY id"
                    ),
                    &format!("INSERT INTO default.t{table} SELECT number FROM numbers(1000)"),
                ],
            )
            .await;
        }
        let vault = Vault::memory();
        let settings = crate::harness::settings(&server);
        let other = vault.clone();
        let backup = tokio::spawn(async move { other.try_backup(settings).await });
        crate::harness::wait_for("a snapshot", async || !shadows(&server).is_empty()).await;
        server.kill().await;
        // The files are still there, so it may have all that it needs by then; else it fails as it should.
        if let Err(error) = backup.await.unwrap() {
            assert!([ErrorKind::Unavailable, ErrorKind::Environment].contains(&error.kind()), "{error:?}");
        }
        server.start().await.unwrap();
        let backup = vault.backup(&server).await;
        assert!(vault.check(&backup).await.is_sound());
        assert_eq!(shadows(&server), Vec::<String>::new());
    }
}
