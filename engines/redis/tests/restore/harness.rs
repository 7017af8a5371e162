//! Backups of real servers, and places where they come back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::catalog::BackupRecord;
use backup_core::engine::{
    BackupContext, CheckContext, CheckReport, Deployment, EngineDescriptor, LogOptions, RestoreContext, Restored, Work,
};
use backup_core::entry::{EntryMeta, EntryPath, Selector};
use backup_core::env::Env;
use backup_core::repository::{MemoryRepository, Repository};
use backup_core::run::{self, BackupOptions, RestorePlan};
use backup_core::{
    BackupEngine, BackupSinkExt as _, Consistency, Finding, Lineage, RecoveryTarget, Result, ServiceId, Snapshot,
};
use backup_redis::client::ClientSettings;
use backup_redis::look::Look;
use backup_redis::{RedisEngine, RedisSettings, RestoreSettings};
use backup_testkit::Redis;
use backup_testkit::redis::RedisClient;
use backup_testkit::wait::Deadline;
use tokio_util::sync::CancellationToken;

pub(crate) fn work() -> Work {
    Work::new(Env::system())
}

/// How a test reaches `server`.
pub(crate) fn client(server: &Redis) -> ClientSettings {
    let login = server.password().map(|password| format!(":{password}@")).unwrap_or_default();
    ClientSettings::new(format!("redis://{login}127.0.0.1:{}", server.port()).parse().unwrap())
}

fn settings(server: &Redis) -> RedisSettings {
    let login = server.password().map(|password| format!(":{password}@")).unwrap_or_default();
    RedisSettings::default().url(format!("redis://{login}127.0.0.1:{}", server.port())).identity("the test")
}

/// The backups of one service.
#[derive(Debug, Clone)]
pub(crate) struct Vault(Arc<dyn Repository>);

impl Vault {
    pub(crate) fn memory() -> Self {
        Self(Arc::new(MemoryRepository::new(ServiceId::new("cache").unwrap())))
    }

    /// Backs `server` up, as a replica.
    pub(crate) async fn backup(&self, server: &Redis) -> BackupRecord {
        let engine = RedisEngine::new(settings(server)).unwrap();
        let backup = run::backup(self.0.as_ref(), &engine, BackupOptions::default(), &work()).await;
        backup.unwrap_or_else(|error| panic!("{}: {error:?}: {}", server.version(), server.log()))
    }

    /// Stores `bytes` as if they were the snapshot of a server.
    pub(crate) async fn keep(&self, bytes: Vec<u8>) -> BackupRecord {
        run::backup(self.0.as_ref(), &Fixed(bytes), BackupOptions::default(), &work()).await.unwrap()
    }

    /// The snapshot of `backup`, to be looked into.
    pub(crate) async fn look(&self, backup: &BackupRecord) -> Look {
        Look::open(&self.0.open(backup.id).await.unwrap()).await.unwrap()
    }

    /// Restores the newest backup and what was captured behind it, up to `goal`.
    pub(crate) async fn recover(&self, goal: RecoveryTarget, settings: RestoreSettings) -> Result<Restored> {
        let (engine, plan) = self.plan(goal, settings).await?;
        run::restore(&engine, &plan, &work()).await
    }

    /// How that would be done.
    pub(crate) async fn plan(
        &self,
        goal: RecoveryTarget,
        settings: RestoreSettings,
    ) -> Result<(RedisEngine, RestorePlan)> {
        let engine = RedisEngine::new(RedisSettings::default()).unwrap().with_restore(settings);
        let plan = run::plan_restore(self.0.as_ref(), &engine, goal, Selector::all(), &work()).await?;
        Ok((engine, plan))
    }

    /// Captures the stream of `server` while `writing` goes on, and then up to where the stream stands.
    pub(crate) async fn capture(&self, server: &Redis, writing: impl Future<Output = ()>) {
        let cancel = CancellationToken::new();
        let (repository, engine) = (Arc::clone(&self.0), RedisEngine::new(settings(server)).unwrap());
        let work = work().with_cancel(cancel.clone());
        let task = tokio::spawn(async move {
            let options = LogOptions::default().flush_after(Duration::from_millis(20));
            run::capture(repository.as_ref(), &engine, options, &work).await.map(drop)
        });
        writing.await;
        assert!(!task.is_finished(), "the capture goes on by itself");
        self.covers(server).await;
        cancel.cancel();
        task.await.unwrap().unwrap();
    }

    /// Waits until the log has come to where the stream of `server` stands.
    pub(crate) async fn covers(&self, server: &Redis) {
        let end = offset(server).await;
        let lineage = Lineage::new(server.info("replication", "master_replid").await.unwrap().unwrap());
        let deadline = Deadline::after(Duration::from_secs(60));
        loop {
            let ledger = self.0.log().await.unwrap().ledger();
            if ledger.covered(&lineage).as_slice().last().is_some_and(|range| range.end >= end) {
                break;
            }
            assert!(!deadline.passed(), "the capture does not come to {end}");
            backup_testkit::wait::pause().await;
        }
    }

    pub(crate) async fn restore(&self, backup: &BackupRecord, settings: RestoreSettings) -> Result<Restored> {
        let engine = RedisEngine::new(RedisSettings::default()).unwrap().with_restore(settings);
        let goal = RecoveryTarget::backup(backup.id);
        let plan = run::plan_restore(self.0.as_ref(), &engine, goal, Selector::all(), &work()).await?;
        run::restore(&engine, &plan, &work()).await
    }
}

/// A deployment whose snapshot is given.
#[derive(Debug)]
struct Fixed(Vec<u8>);

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a given snapshot")
    }
}

static DESCRIPTOR: EngineDescriptor =
    EngineDescriptor::new("redis", "given snapshots", Consistency::PointInTime, "nothing");

#[async_trait]
impl BackupEngine for Fixed {
    fn descriptor(&self) -> &EngineDescriptor {
        &DESCRIPTOR
    }

    async fn inspect(&self) -> Result<Deployment> {
        Ok(Deployment::new("given", "redis 7.2", "given"))
    }

    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot> {
        let meta = EntryMeta::file(EntryPath::new("dump.rdb")?);
        cx.sink().put_bytes(meta, self.0.clone().into()).await?;
        let now = cx.work().env().now();
        Ok(Snapshot::new("redis", "redis 7.2", "given", "given", Consistency::PointInTime, (now, now)))
    }

    async fn assess_restore(&self, _cx: &RestoreContext) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    async fn restore(&self, _cx: &RestoreContext) -> Result<Restored> {
        Ok(Restored::default())
    }

    async fn check(&self, _cx: &CheckContext) -> Result<CheckReport> {
        Ok(CheckReport::default())
    }
}

/// Where the stream of `server` stands.
pub(crate) async fn offset(server: &Redis) -> u64 {
    server.info("replication", "master_repl_offset").await.unwrap().unwrap().parse().unwrap()
}

pub(crate) async fn run(client: &mut RedisClient, line: &str) -> String {
    client.run(line).await.unwrap().text()
}

/// What the server itself says of all that it holds.
pub(crate) async fn digest(server: &Redis) -> String {
    run(&mut server.connect().await.unwrap(), "DEBUG DIGEST").await
}

/// Sets a string of `len` bytes that do not compress.
pub(crate) async fn big(client: &mut RedisClient, key: &str, len: usize) {
    let mut state = 1_u64;
    let bytes: Vec<u8> = (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect();
    client.call(&[b"SET".as_slice(), key.as_bytes(), &bytes]).await.unwrap();
}
