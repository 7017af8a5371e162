//! Wrappers that kill the process after a given number of steps: commits of the catalog, what creates and destroys repositories and opens
//! logs, and calls of the host that change something. Before a step is after the one before.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use backup_core::catalog::{Catalog, ServiceSpec};
use backup_core::engine::{BackupSource, LogOptions, LogSink, LogSource, Work};
use backup_core::repository::{
    BackupSession, CollectOptions, Collected, CollectionPlan, Decision, Destroyed, Found, ParentChoice, Repository,
    Vault, VerifyLevel, VerifyReport,
};
use backup_core::service::{ServiceHost, Stopped};
use backup_core::{BackupEngine, BackupId, Result, ServiceId};
use rustix::process::{Signal, getpid, kill_process};

/// What is left of the process's life.
#[derive(Debug)]
pub(super) struct Steps(AtomicU32);

impl Steps {
    /// So many; for ever when there is no number.
    pub(super) fn of(steps: Option<u32>) -> Arc<Self> {
        Arc::new(Self(AtomicU32::new(steps.unwrap_or(u32::MAX))))
    }

    fn done(&self) {
        if self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
    }
}

#[derive(Debug)]
pub(super) struct KillingVault<V> {
    pub(super) inner: V,
    pub(super) steps: Arc<Steps>,
}

impl<V> KillingVault<V> {
    fn wrapped(&self, inner: Arc<dyn Repository>) -> Arc<dyn Repository> {
        Arc::new(KillingRepository { inner, steps: Arc::clone(&self.steps) })
    }
}

impl<V: fmt::Display> fmt::Display for KillingVault<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "killing({})", self.inner)
    }
}

#[async_trait]
impl<V: Vault> Vault for KillingVault<V> {
    async fn services(&self) -> Result<Vec<ServiceId>> {
        self.inner.services().await
    }

    async fn create(&self, service: &ServiceId) -> Result<Arc<dyn Repository>> {
        let created = self.inner.create(service).await?;
        self.steps.done();
        Ok(self.wrapped(created))
    }

    async fn find(&self, service: &ServiceId) -> Result<Found> {
        Ok(match self.inner.find(service).await? {
            Found::Repository(found) => Found::Repository(self.wrapped(found)),
            other => other,
        })
    }

    async fn destroy(&self, service: &ServiceId, work: &Work) -> Result<Destroyed> {
        let destroyed = self.inner.destroy(service, work).await?;
        self.steps.done();
        Ok(destroyed)
    }
}

#[derive(Debug)]
struct KillingRepository {
    inner: Arc<dyn Repository>,
    steps: Arc<Steps>,
}

impl fmt::Display for KillingRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "killing({})", self.inner)
    }
}

#[async_trait]
impl Repository for KillingRepository {
    fn service(&self) -> &ServiceId {
        self.inner.service()
    }

    async fn catalog(&self) -> Result<Arc<Catalog>> {
        self.inner.catalog().await
    }

    async fn decide(&self, decide: &mut Decision<'_>) -> Result<Arc<Catalog>> {
        let decided = self.inner.decide(decide).await?;
        self.steps.done();
        Ok(decided)
    }

    async fn begin(&self, parent: ParentChoice, work: &Work) -> Result<Box<dyn BackupSession>> {
        let session = self.inner.begin(parent, work).await?;
        self.steps.done();
        Ok(session)
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
        let done = self.inner.collect(options, work).await?;
        self.steps.done();
        Ok(done)
    }

    async fn open_log(&self, options: LogOptions, work: &Work) -> Result<Arc<dyn LogSink>> {
        let sink = self.inner.open_log(options, work).await?;
        self.steps.done();
        Ok(sink)
    }

    async fn log(&self) -> Result<Arc<dyn LogSource>> {
        self.inner.log().await
    }
}

#[derive(Debug)]
pub(super) struct KillingHost<H> {
    pub(super) inner: H,
    pub(super) steps: Arc<Steps>,
}

#[async_trait]
impl<H: ServiceHost> ServiceHost for KillingHost<H> {
    async fn running(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<Arc<dyn BackupEngine>> {
        self.inner.running(service, spec).await
    }

    async fn provision(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<Arc<dyn BackupEngine>> {
        let engine = self.inner.provision(service, spec).await?;
        self.steps.done();
        Ok(engine)
    }

    async fn start(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<()> {
        self.inner.start(service, spec).await?;
        self.steps.done();
        Ok(())
    }

    async fn quiesce(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<()> {
        self.inner.quiesce(service, spec).await
    }

    async fn stop(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<Stopped> {
        let stopped = self.inner.stop(service, spec).await?;
        self.steps.done();
        Ok(stopped)
    }

    async fn discard(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<()> {
        self.inner.discard(service, spec).await?;
        self.steps.done();
        Ok(())
    }
}
