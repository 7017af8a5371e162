//! The suite for logs, whose cases look into the vault for what is durable: here a writer says so when the vault has it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use backup_core::catalog::Catalog;
use backup_core::conformance::repository::RepositoryHarness;
use backup_core::engine::{BackupSource, LogOptions, LogSink, LogSource, Work};
use backup_core::env::Env;
use backup_core::log::{Ledger, LineageRecord, LogEpoch, LogPurpose, LogRange, Mark};
use backup_core::repository::{
    BackupSession, CollectOptions, Collected, CollectionPlan, Decision, ParentChoice, Repository, VerifyLevel,
    VerifyReport,
};
use backup_core::{BackupId, ErrorKind, LogPosition, Result, ServiceId};
use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;

use crate::host::Vault;

struct Harness {
    vault: Vault,
    services: AtomicU32,
}

impl Harness {
    async fn open(&self, service: &str) -> Arc<dyn Repository> {
        let inner: Arc<dyn Repository> = Arc::new(self.vault.repository_of(service).await.unwrap());
        Arc::new(Spooled { inner, root: self.vault.spool(service) })
    }
}

#[async_trait]
impl RepositoryHarness for Harness {
    fn env(&self) -> Env {
        self.vault.env.clone()
    }

    async fn fresh(&self) -> Arc<dyn Repository> {
        let service = format!("service-{}", self.services.fetch_add(1, Ordering::Relaxed));
        self.vault.create(&service).await;
        self.open(&service).await
    }

    async fn reopen(&self, service: &ServiceId) -> Arc<dyn Repository> {
        self.open(service.as_str()).await
    }
}

/// Gives each writer a spool that no other one uses.
#[derive(Debug)]
struct Spooled {
    inner: Arc<dyn Repository>,
    root: PathBuf,
}

impl fmt::Display for Spooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spooled({})", self.inner)
    }
}

#[async_trait]
impl Repository for Spooled {
    fn service(&self) -> &ServiceId {
        self.inner.service()
    }

    async fn catalog(&self) -> Result<Arc<Catalog>> {
        self.inner.catalog().await
    }

    async fn decide(&self, decide: &mut Decision<'_>) -> Result<Arc<Catalog>> {
        self.inner.decide(decide).await
    }

    async fn begin(&self, parent: ParentChoice, work: &Work) -> Result<Box<dyn BackupSession>> {
        self.inner.begin(parent, work).await
    }

    async fn open(&self, backup: BackupId) -> Result<Arc<dyn BackupSource>> {
        self.inner.open(backup).await
    }

    async fn verify(&self, level: VerifyLevel, work: &Work) -> Result<VerifyReport> {
        self.inner.verify(level, work).await
    }

    async fn plan_collection(&self, options: &CollectOptions, work: &Work) -> Result<CollectionPlan> {
        self.inner.plan_collection(options, work).await
    }

    async fn collect(&self, options: &CollectOptions, work: &Work) -> Result<Collected> {
        self.inner.collect(options, work).await
    }

    async fn open_log(&self, options: LogOptions, work: &Work) -> Result<Arc<dyn LogSink>> {
        if options.purpose != LogPurpose::Stream {
            return self.inner.open_log(options, work).await;
        }
        let mut number = 0;
        loop {
            let options = options.clone().spool(self.root.join(number.to_string()));
            match self.inner.open_log(options, work).await {
                Err(error) if error.to_string().contains("is used by another") => number += 1,
                opened => {
                    let (sink, vault) = (opened?, Arc::clone(&self.inner));
                    return Ok(Arc::new(Arrived { sink, vault, durable: Mutex::default() }));
                }
            }
        }
    }

    async fn log(&self) -> Result<Arc<dyn LogSource>> {
        self.inner.log().await
    }
}

/// Calls durable what the vault has.
#[derive(Debug)]
struct Arrived {
    sink: Arc<dyn LogSink>,
    vault: Arc<dyn Repository>,
    durable: Mutex<Option<LogPosition>>,
}

#[async_trait]
impl LogSink for Arrived {
    fn epoch(&self) -> LogEpoch {
        self.sink.epoch()
    }

    fn ledger(&self) -> Arc<Ledger> {
        self.sink.ledger()
    }

    fn source(&self) -> Arc<dyn LogSource> {
        self.sink.source()
    }

    async fn declare(&self, record: LineageRecord) -> Result<()> {
        self.sink.declare(record).await
    }

    async fn append(&self, range: LogRange, bytes: Bytes, marks: &[Mark]) -> Result<()> {
        self.sink.append(range, bytes, marks).await
    }

    async fn gap(&self, range: LogRange, reason: &str) -> Result<()> {
        self.sink.gap(range, reason).await
    }

    fn flush(&self) {
        self.sink.flush();
    }

    fn durable(&self) -> Option<LogPosition> {
        self.durable.lock().clone()
    }

    async fn advanced(&self, known: Option<&LogPosition>) -> Result<Option<LogPosition>> {
        loop {
            let here = self.sink.durable();
            if let Some(Err(error)) = self.sink.advanced(here.as_ref()).now_or_never() {
                return Err(error);
            }
            if here.as_ref() != known
                && let Some(position) = &here
            {
                let ledger = self.vault.log().await?.ledger();
                let last = position.offset.saturating_sub(1)..position.offset;
                if ledger.covered(&position.lineage).contains(&last) {
                    self.durable.lock().clone_from(&here);
                    return Ok(here);
                }
            }
            tokio::task::yield_now().await;
        }
    }

    async fn close(&self) -> Result<()> {
        let closed = self.sink.close().await;
        if !closed.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict) {
            *self.durable.lock() = self.sink.durable();
        }
        closed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_spool_conforms() {
    let harness = Harness { vault: Vault::new().await, services: AtomicU32::new(0) };
    backup_core::conformance::log::run(&harness).await;
    harness.vault.guard.assert_clean();
}
