//! Work that ends too early: cancelled at its n-th step, or stopped by damaged content.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::Suite;
use super::cases::restore;
use crate::catalog::{BackupRecord, Catalog};
use crate::engine::{
    BackupSink, BackupSource, BlockInspector, Extract, Extracted, Footprint, LocalFile, LogOptions, LogSink, LogSource,
    Patch, Put, Stored, Work,
};
use crate::entry::{EntryInfo, EntryKind, EntryMeta, EntryPath, Selector};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BackupId, ServiceId, SessionId};
use crate::repository::{
    BackupSession, CollectOptions, Collected, CollectionPlan, Decision, ParentChoice, Repository, VerifyLevel,
    VerifyReport,
};
use crate::run::{self, BackupOptions};
use crate::snapshot::Snapshot;

/// A backup that is cancelled is visible to nobody, and the next one is whole.
pub async fn interrupted_backups(suite: &mut Suite<'_>) {
    let repository = suite.fresh().await;
    let engine = suite.harness.engine().await;
    let mut committed = 0;
    for steps in [0, 1, 2, 5, 17] {
        suite.mutate().await;
        let cancel = CancellationToken::new();
        let tripping = Tripping::new(&repository, Trip::Cancel(cancel.clone()), steps);
        let work = suite.work().with_cancel(cancel.clone());
        match run::backup(&tripping, engine.as_ref(), BackupOptions::default(), &work).await {
            // An engine with few entries is done before that many steps.
            Ok(_) => {
                assert!(steps > 0 && !cancel.is_cancelled(), "a backup was committed after it was cancelled");
                committed += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "after {steps} steps: {error}"),
        }
        let catalog = repository.catalog().await.expect("the catalog can be read");
        assert_eq!(catalog.backups().count(), committed, "backups after one that was cancelled at step {steps}");
    }
    let digest = suite.mutate().await;
    let record = suite.backup(repository.as_ref(), BackupOptions::default()).await;
    suite.assert_restores(repository.as_ref(), &record, &digest).await;
    let report = repository.verify(VerifyLevel::Full, &suite.work()).await.expect("it can be verified");
    assert!(report.is_sound(), "{report:?}");
}

/// A restore that is cancelled leaves nothing that starts, and the same restore completes it.
pub async fn interrupted_restores(suite: &mut Suite<'_>) {
    let repository = suite.fresh().await;
    let digest = suite.mutate().await;
    let backup = suite.backup(repository.as_ref(), BackupOptions::full()).await;
    for steps in [0, 1, 3] {
        let target = suite.harness.target().await;
        for _ in 0..2 {
            let cancel = CancellationToken::new();
            let tripping = Tripping::new(&repository, Trip::Cancel(cancel.clone()), steps);
            let work = suite.work().with_cancel(cancel.clone());
            let outcome = restore(&tripping, target.as_ref(), &backup, &work).await;
            let started = target.digest().await;
            match outcome {
                Ok(()) => {
                    assert!(steps > 0 && !cancel.is_cancelled(), "a cancelled restore was reported as done");
                    assert_eq!(started.as_ref(), Some(&digest), "digest of what was restored");
                    break;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "after {steps} steps: {error}"),
            }
            assert_eq!(
                started, None,
                "a restore that was cancelled after {steps} steps has left something that starts"
            );
        }
        if target.digest().await.is_none() {
            let again = restore(repository.as_ref(), target.as_ref(), &backup, &suite.work()).await;
            again.expect("a cancelled restore can be completed");
        }
        assert_eq!(target.digest().await, Some(digest.clone()), "digest after completing step {steps}");
    }
}

/// Content that turns out damaged stops a restore, and what it leaves does not start; a check does not call it sound.
pub async fn damaged_content_is_never_started(suite: &mut Suite<'_>) {
    let repository = suite.fresh().await;
    let digest = suite.mutate().await;
    let backup = suite.backup(repository.as_ref(), BackupOptions::full()).await;
    for steps in [0, 1, 3] {
        let tripping = Tripping::new(&repository, Trip::Damage, steps);
        let target = suite.harness.target().await;
        match restore(&tripping, target.as_ref(), &backup, &suite.work()).await {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "after {steps} steps: {error}");
                assert_eq!(target.digest().await, None, "damaged content was started");
            }
            Ok(()) => {
                assert!(!tripping.tripped(), "a restore passed over damaged content");
                assert_eq!(target.digest().await, Some(digest.clone()), "digest of what was restored");
            }
        }
        let tripping = Tripping::new(&repository, Trip::Damage, steps);
        let engine = suite.harness.engine().await;
        match run::check(&tripping, engine.as_ref(), backup.id, &suite.work()).await {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "after {steps} steps: {error}"),
            Ok(report) => assert!(!(tripping.tripped() && report.is_sound()), "a check passed over damaged content"),
        }
    }
}

/// What happens when the steps are used up.
#[derive(Debug, Clone)]
enum Trip {
    /// The work is cancelled and the call does not return.
    Cancel(CancellationToken),
    /// The call fails as if stored content were damaged.
    Damage,
}

#[derive(Debug)]
struct Wire {
    trip: Trip,
    left: AtomicI64,
}

impl Wire {
    fn spent(&self) -> bool {
        self.left.fetch_sub(1, Ordering::Relaxed) <= 0
    }

    async fn trip<T>(&self) -> Result<T> {
        match &self.trip {
            Trip::Cancel(cancel) => {
                cancel.cancel();
                futures::future::pending().await
            }
            Trip::Damage => Err(Error::damaged("a segment is not what was stored")),
        }
    }

    async fn step(&self) -> Result<()> {
        if self.spent() { self.trip().await } else { Ok(()) }
    }
}

/// A repository that works until a number of calls of a sink or a source has been made.
#[derive(Debug)]
struct Tripping {
    inner: Arc<dyn Repository>,
    wire: Arc<Wire>,
}

impl Tripping {
    fn new(inner: &Arc<dyn Repository>, trip: Trip, steps: i64) -> Self {
        Self { inner: Arc::clone(inner), wire: Arc::new(Wire { trip, left: AtomicI64::new(steps) }) }
    }

    fn tripped(&self) -> bool {
        self.wire.left.load(Ordering::Relaxed) < 0
    }
}

impl fmt::Display for Tripping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tripping({})", self.inner)
    }
}

#[async_trait]
impl Repository for Tripping {
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
        let inner = self.inner.begin(parent, work).await?;
        Ok(Box::new(TrippingSession { inner, wire: Arc::clone(&self.wire) }))
    }

    async fn open(&self, backup: BackupId) -> Result<Arc<dyn BackupSource>> {
        let inner = self.inner.open(backup).await?;
        Ok(Arc::new(TrippingSource { inner, wire: Arc::clone(&self.wire) }))
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
        self.inner.open_log(options, work).await
    }

    async fn log(&self) -> Result<Arc<dyn LogSource>> {
        self.inner.log().await
    }
}

#[derive(Debug)]
struct TrippingSession {
    inner: Box<dyn BackupSession>,
    wire: Arc<Wire>,
}

#[async_trait]
impl BackupSession for TrippingSession {
    fn id(&self) -> SessionId {
        self.inner.id()
    }

    fn parent(&self) -> Option<&BackupRecord> {
        self.inner.parent()
    }

    fn parent_source(&self) -> Option<Arc<dyn BackupSource>> {
        self.inner.parent_source()
    }

    fn sink(&self) -> Arc<dyn BackupSink> {
        Arc::new(TrippingSink { inner: self.inner.sink(), wire: Arc::clone(&self.wire) })
    }

    async fn commit(self: Box<Self>, snapshot: Snapshot) -> Result<BackupRecord> {
        self.inner.commit(snapshot).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}

#[derive(Debug)]
struct TrippingSink {
    inner: Arc<dyn BackupSink>,
    wire: Arc<Wire>,
}

#[async_trait]
impl BackupSink for TrippingSink {
    async fn put_file(&self, file: LocalFile) -> Result<Put> {
        self.wire.step().await?;
        self.inner.put_file(file).await
    }

    async fn put_stream(
        &self,
        meta: EntryMeta,
        body: BoxStream<'_, Result<Bytes>>,
        inspector: Option<Arc<dyn BlockInspector>>,
    ) -> Result<Stored> {
        self.wire.step().await?;
        self.inner.put_stream(meta, body, inspector).await
    }

    async fn put_patch(&self, patch: Patch, body: BoxStream<'_, Result<Bytes>>) -> Result<Stored> {
        self.wire.step().await?;
        self.inner.put_patch(patch, body).await
    }

    async fn reuse(&self, meta: EntryMeta) -> Result<Option<Stored>> {
        self.wire.step().await?;
        self.inner.reuse(meta).await
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }
}

#[derive(Debug)]
struct TrippingSource {
    inner: Arc<dyn BackupSource>,
    wire: Arc<Wire>,
}

#[async_trait]
impl BackupSource for TrippingSource {
    fn record(&self) -> &BackupRecord {
        self.inner.record()
    }

    fn entries(&self, selector: Selector) -> BoxStream<'_, Result<EntryInfo>> {
        self.inner.entries(selector)
    }

    async fn entry(&self, path: &EntryPath) -> Result<Option<EntryInfo>> {
        self.inner.entry(path).await
    }

    fn read(&self, path: &EntryPath, range: Range<u64>) -> BoxStream<'_, Result<Bytes>> {
        let first = stream::once(self.wire.step());
        let rest = self.inner.read(path, range);
        let first = first.filter_map(|step| futures::future::ready(step.err().map(Err)));
        first.chain(rest).boxed()
    }

    async fn footprint(&self, selector: &Selector) -> Result<Footprint> {
        self.inner.footprint(selector).await
    }

    async fn extract(&self, order: Extract, work: &Work) -> Result<Extracted> {
        if !self.wire.spent() {
            return self.inner.extract(order, work).await;
        }
        // What an extraction has done when it is interrupted: some of the files, none of the last.
        let listed: Vec<EntryInfo> = self.inner.entries(order.selector.clone()).try_collect().await?;
        let files = listed.into_iter().filter(|e| e.meta.kind == EntryKind::File).map(|e| e.meta.path);
        let missing: Vec<EntryPath> = files.skip(1).step_by(2).collect();
        let last = order.last.clone();
        self.inner.extract(order.with_except(missing).with_except(last), work).await?;
        self.wire.trip().await
    }
}
