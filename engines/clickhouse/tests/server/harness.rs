//! Backups of servers, and ways back.

use std::path::Path;
use std::sync::Arc;

use backup_clickhouse::{ClickHouse, ClickHouseSettings, RestoreSettings};
use backup_core::catalog::BackupRecord;
use backup_core::engine::{CheckReport, Restored, Work};
use backup_core::entry::Selector;
use backup_core::env::Env;
use backup_core::repository::{MemoryRepository, ParentChoice, Repository};
use backup_core::run as core;
use backup_core::run::BackupOptions;
use backup_core::{BackupEngine, BackupId, RecoveryTarget, Result, ServiceId};
use backup_testkit::{ClickHouse as Server, ClickHouseVersion, ZooKeeper};

pub(crate) fn work() -> Work {
    Work::new(Env::system())
}

pub(crate) fn settings(server: &Server) -> ClickHouseSettings {
    ClickHouseSettings::default().url(server.url()).data_dir(server.data_dir()).identity("the test")
}

pub(crate) fn engine(server: &Server) -> ClickHouse {
    ClickHouse::new(settings(server)).unwrap()
}

/// The backups of one service.
#[derive(Debug, Clone)]
pub(crate) struct Vault(pub(crate) Arc<dyn Repository>);

impl Vault {
    pub(crate) fn memory() -> Self {
        Self(Arc::new(MemoryRepository::new(ServiceId::new("analytics").unwrap())))
    }

    pub(crate) async fn backup(&self, server: &Server) -> BackupRecord {
        let engine = engine(server);
        let outcome = core::backup(self.0.as_ref(), &engine, BackupOptions::default(), &work()).await;
        outcome.unwrap_or_else(|error| panic!("{engine}: {error:?}\n{}", server.log()))
    }

    pub(crate) async fn try_backup(&self, settings: ClickHouseSettings) -> Result<BackupRecord> {
        let engine = ClickHouse::new(settings)?;
        core::backup(self.0.as_ref(), &engine, BackupOptions::default(), &work()).await
    }

    /// With the backup `parent` as its parent.
    pub(crate) async fn try_backup_on(&self, parent: BackupId, settings: ClickHouseSettings) -> Result<BackupRecord> {
        let mut options = BackupOptions::default();
        options.parent = ParentChoice::Backup(parent);
        core::backup(self.0.as_ref(), &ClickHouse::new(settings)?, options, &work()).await
    }

    pub(crate) async fn restore(&self, backup: &BackupRecord, to: &Server, way: RestoreSettings) -> Result<Restored> {
        self.restore_some(backup, to, way, Selector::all()).await
    }

    pub(crate) async fn restore_some(
        &self,
        backup: &BackupRecord,
        to: &Server,
        way: RestoreSettings,
        selector: Selector,
    ) -> Result<Restored> {
        self.restore_by(&engine(to).with_restore(way), backup, selector).await
    }

    pub(crate) async fn restore_by(
        &self,
        engine: &dyn BackupEngine,
        backup: &BackupRecord,
        selector: Selector,
    ) -> Result<Restored> {
        let goal = RecoveryTarget::backup(backup.id);
        let plan = core::plan_restore(self.0.as_ref(), engine, goal, selector, &work()).await?;
        let mut restored = core::restore(engine, &plan, &work()).await?;
        restored.findings.extend(plan.findings);
        Ok(restored)
    }

    pub(crate) async fn check(&self, backup: &BackupRecord) -> CheckReport {
        self.check_by(&ClickHouse::new(ClickHouseSettings::default()).unwrap(), backup).await
    }

    pub(crate) async fn check_by(&self, engine: &dyn BackupEngine, backup: &BackupRecord) -> CheckReport {
        core::check(self.0.as_ref(), engine, backup.id, &work()).await.unwrap()
    }

    pub(crate) async fn backup_by(&self, engine: &dyn BackupEngine) -> Result<BackupRecord> {
        core::backup(self.0.as_ref(), engine, BackupOptions::default(), &work()).await
    }
}

/// A fact of a backup, as a number.
pub(crate) fn fact(backup: &BackupRecord, name: &str) -> u64 {
    backup.snapshot.fact(name).unwrap().parse().unwrap()
}

/// What is frozen at a server.
pub(crate) fn shadows(server: &Server) -> Vec<String> {
    frozen_on(server.data_dir())
}

/// What is frozen on a disk.
pub(crate) fn frozen_on(disk: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(disk.join("shadow")) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "increment.txt").collect()
}

/// Waits until `done` says so.
pub(crate) async fn wait_for(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = backup_testkit::wait::Deadline::after(std::time::Duration::from_secs(60));
    while !done().await {
        assert!(!deadline.passed(), "no {what}");
        backup_testkit::wait::pause().await;
    }
}

/// Runs statements, one after the other.
pub(crate) async fn run(server: &Server, statements: &[&str]) {
    for sql in statements {
        server.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// A replica of the shard `one`, of 18.16.
pub(crate) async fn replica(zookeeper: &ZooKeeper, name: &str) -> Server {
    let builder = Server::builder(ClickHouseVersion::V18_16).zookeeper(zookeeper);
    builder.macro_value("shard", "one").macro_value("replica", name).start().await.unwrap()
}
