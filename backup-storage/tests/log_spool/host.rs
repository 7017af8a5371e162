//! Hosts that capture one log, each with a spool, into one vault that misbehaves when told to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::engine::{LogOptions, LogSink, LogSource, Work};
use backup_core::env::Env;
use backup_core::log::{LineageRecord, LogRange, Mark, Notation};
use backup_core::repository::Repository as _;
use backup_core::{Lineage, ServiceId};
use backup_crypto::{Identity, RawKey};
use backup_storage::fault::{Fault, FaultPlan, FaultStore, WriteOnceGuard};
use backup_storage::store::{Store, StoreSettings};
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use bytes::Bytes;
use futures::TryStreamExt;

pub(crate) struct Vault {
    pub(crate) guard: WriteOnceGuard,
    pub(crate) faults: FaultStore,
    pub(crate) store: Store,
    pub(crate) env: Env,
    dir: tempfile::TempDir,
}

pub(crate) fn lineage() -> Lineage {
    Lineage::new("1")
}

pub(crate) fn range(start: u64, end: u64) -> LogRange {
    LogRange::new(lineage(), start..end)
}

/// The bytes of the log: what stands at an offset depends on nothing else.
pub(crate) fn log(range: &LogRange) -> Bytes {
    range.offsets().map(|offset| (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51) as u8).collect()
}

impl Vault {
    pub(crate) async fn new() -> Self {
        Self::seeded(1, 1).await
    }

    pub(crate) async fn seeded(seed: u64, retries: u32) -> Self {
        let guard = WriteOnceGuard::new(Arc::new(object_store::memory::InMemory::new()));
        let faults = FaultStore::new(Arc::new(guard.clone()), seed, FaultPlan::quiet());
        let env = Env::seeded(seed);
        let settings = StoreSettings::default().retries(retries);
        let store = Store::from_object_store(Arc::new(faults.clone())).with_settings(settings).with_env(env.clone());
        let vault = Self { guard, faults, store, env, dir: tempfile::tempdir().unwrap() };
        vault.create("svc").await;
        vault
    }

    pub(crate) async fn create(&self, service: &str) {
        let recipients = vec![RawKey::take(&mut [1; 32]).into()];
        let (service, options) = (ServiceId::new(service).unwrap(), CreateOptions::default());
        let env = self.env.clone();
        Repository::create(&self.store, service, recipients, options, &Self::settings(), env).await.unwrap();
    }

    fn settings() -> RepositorySettings {
        RepositorySettings::default().workers(1).memory_budget(64 << 20)
    }

    /// The vault does not answer.
    pub(crate) fn leave(&self) {
        self.faults.set_plan(FaultPlan::quiet().with(Fault::Refused, 1.0));
    }

    /// The vault can be read, and takes nothing.
    pub(crate) fn refuse_puts(&self) {
        self.faults.set_plan(FaultPlan::quiet().with(Fault::FalseConflict, 1.0));
    }

    pub(crate) fn come_back(&self) {
        self.faults.set_plan(FaultPlan::quiet());
    }

    pub(crate) fn spool(&self, host: &str) -> PathBuf {
        self.dir.path().join(host)
    }

    /// What `host` is told to do.
    pub(crate) fn options(&self, host: &str) -> LogOptions {
        LogOptions::default().spool(self.spool(host))
    }

    pub(crate) async fn repository_of(&self, service: &str) -> backup_core::Result<Repository> {
        let (service, identity) = (ServiceId::new(service).unwrap(), Identity::from(RawKey::take(&mut [1; 32])));
        Ok(Repository::open(&self.store, service, identity, &Self::settings(), self.env.clone()).await?)
    }

    pub(crate) async fn repository(&self) -> Repository {
        self.repository_of("svc").await.unwrap()
    }

    pub(crate) async fn try_writer(&self, options: LogOptions) -> backup_core::Result<Arc<dyn LogSink>> {
        let sink = self.repository_of("svc").await?.open_log(options, &Work::new(self.env.clone())).await?;
        sink.declare(self.record()).await?;
        Ok(sink)
    }

    pub(crate) fn record(&self) -> LineageRecord {
        LineageRecord::new(lineage(), "source", Notation::HexHalves, self.env.now())
    }

    pub(crate) async fn writer(&self, options: LogOptions) -> Arc<dyn LogSink> {
        self.try_writer(options).await.unwrap()
    }

    pub(crate) async fn source(&self) -> Arc<dyn LogSource> {
        self.repository().await.log().await.unwrap()
    }

    /// What readers of the vault see.
    pub(crate) async fn covered(&self) -> Vec<std::ops::Range<u64>> {
        self.source().await.ledger().covered(&lineage()).as_slice().to_vec()
    }

    pub(crate) async fn assert_reads(&self, range: LogRange) {
        assert_reads(self.source().await.as_ref(), range).await;
    }

    pub(crate) async fn objects(&self) -> usize {
        self.store.list("svc/log").try_collect::<Vec<_>>().await.unwrap().len()
    }
}

pub(crate) async fn assert_reads(source: &dyn LogSource, range: LogRange) {
    let pieces: Vec<Bytes> = source.read(range.clone()).try_collect().await.unwrap();
    assert!(pieces.concat() == log(&range), "{range}");
}

pub(crate) async fn append(sink: &dyn LogSink, start: u64, end: u64) -> backup_core::Result<()> {
    let range = range(start, end);
    let bytes = log(&range);
    sink.append(range, bytes, &[]).await
}

/// Appends one piece, and waits until it is acknowledged.
pub(crate) async fn keep(sink: &dyn LogSink, start: u64, end: u64, marks: &[Mark]) {
    let range = range(start, end);
    let bytes = log(&range);
    sink.append(range, bytes, marks).await.unwrap();
    sink.flush();
    durable(sink, end).await.unwrap();
}

pub(crate) async fn durable(sink: &dyn LogSink, end: u64) -> backup_core::Result<()> {
    let mut known = sink.durable();
    while known.as_ref().is_none_or(|position| position.offset < end) {
        known = sink.advanced(known.as_ref()).await?;
    }
    Ok(())
}

/// The files in a spool that may be pieces, by name.
pub(crate) fn files(spool: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(spool).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| !path.ends_with("lock") && !path.ends_with("identity"));
    files.sort();
    files
}
