use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::catalog::{BackupKind, CloseReason, SessionState};
use crate::engine::{
    BackupContext, BackupEngine, BackupSinkExt, BackupSourceExt, CheckContext, CheckReport, Deployment,
    EngineDescriptor, RestoreContext, Restored, Work,
};
use crate::entry::{EntryMeta, EntryPath, Selector};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BackupId, ServiceId};
use crate::repository::{MemoryRepository, ParentChoice, Repository};
use crate::snapshot::{Consistency, Finding, Severity, Snapshot};
use crate::target::{Goal, RecoveryTarget};

mod expire;
pub(crate) mod lines;
mod log;

/// An engine whose deployment is one text.
#[derive(Debug)]
struct Text {
    descriptor: EngineDescriptor,
    source: &'static str,
    findings: Vec<Finding>,
    /// What is the matter with it.
    trouble: Trouble,
    restored: AtomicU32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    None,
    /// Fails after it has put something.
    Fails,
    /// Cancels the work after it has put something, and hangs.
    Hangs(CancelOnce),
    /// Cancels the work as the last thing it does.
    Ends(CancelOnce),
}

#[derive(Debug, Clone)]
struct CancelOnce(CancellationToken);

impl PartialEq for CancelOnce {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for CancelOnce {}

impl Text {
    fn of(source: &'static str) -> Self {
        Self {
            descriptor: EngineDescriptor::new("text", "Text", Consistency::PointInTime, "nothing"),
            source,
            findings: Vec::new(),
            trouble: Trouble::None,
            restored: AtomicU32::new(0),
        }
    }

    fn named(mut self, name: &'static str) -> Self {
        self.descriptor.name = name;
        self
    }

    fn with_trouble(mut self, trouble: Trouble) -> Self {
        self.trouble = trouble;
        self
    }

    fn with_finding(mut self, severity: Severity) -> Self {
        self.findings.push(Finding::new(severity, "odd", "something is odd"));
        self
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text({})", self.source)
    }
}

#[async_trait]
impl BackupEngine for Text {
    fn descriptor(&self) -> &EngineDescriptor {
        &self.descriptor
    }

    async fn inspect(&self) -> Result<Deployment> {
        let mut deployment = Deployment::new(self.source, "1", "memory");
        deployment.findings.clone_from(&self.findings);
        Ok(deployment)
    }

    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot> {
        let text = Bytes::from(format!("text of {}", self.source));
        cx.sink().put_bytes(EntryMeta::file(path("text")), text).await?;
        match &self.trouble {
            Trouble::None => {}
            Trouble::Fails => return Err(Error::environment("the disk is on fire")),
            Trouble::Hangs(CancelOnce(cancel)) => {
                cancel.cancel();
                futures::future::pending::<()>().await;
            }
            Trouble::Ends(CancelOnce(cancel)) => cancel.cancel(),
        }
        let now = cx.work().env().now();
        let Self { descriptor: EngineDescriptor { name, consistency, .. }, source, .. } = self;
        Ok(Snapshot::new(*name, "1", *source, "memory", *consistency, (now, now)))
    }

    async fn assess_restore(&self, _: &RestoreContext) -> Result<Vec<Finding>> {
        Ok(self.findings.clone())
    }

    async fn restore(&self, cx: &RestoreContext) -> Result<Restored> {
        cx.source().read_small(&path("text"), 1000).await?;
        if let Trouble::Hangs(CancelOnce(cancel)) = &self.trouble {
            cancel.cancel();
            futures::future::pending::<()>().await;
        }
        self.restored.fetch_add(1, Ordering::Relaxed);
        Ok(Restored::default())
    }

    async fn check(&self, cx: &CheckContext) -> Result<CheckReport> {
        cx.source().read_small(&path("text"), 1000).await?;
        Ok(CheckReport { entries: 1, ..CheckReport::default() })
    }
}

pub(crate) fn path(name: &str) -> EntryPath {
    EntryPath::new(name).unwrap()
}

fn repository() -> MemoryRepository {
    MemoryRepository::new(ServiceId::new("texts").unwrap())
}

/// One environment for a whole test: time passes between the backups that it takes.
struct Bench {
    repository: MemoryRepository,
    env: Env,
}

impl Bench {
    fn new() -> Self {
        Self { repository: repository(), env: Env::seeded(1) }
    }

    fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    async fn take(&self, engine: &Text, options: BackupOptions) -> Result<crate::catalog::BackupRecord> {
        self.env.clock().sleep(std::time::Duration::from_secs(1)).await;
        backup(&self.repository, engine, options, &self.work()).await
    }

    async fn plan(&self, engine: &Text, target: RecoveryTarget) -> Result<RestorePlan> {
        plan_restore(&self.repository, engine, target, Selector::all(), &self.work()).await
    }

    /// How every session ended.
    async fn sessions(&self) -> Vec<SessionState> {
        self.repository.catalog().await.unwrap().sessions().map(|(_, state)| state.clone()).collect()
    }
}

fn named(id: BackupId) -> BackupOptions {
    BackupOptions { parent: ParentChoice::Backup(id) }
}

#[tokio::test]
async fn a_blocked_deployment_is_refused_before_anything_is_written() {
    let bench = Bench::new();
    let engine = Text::of("a").with_finding(Severity::Warning).with_finding(Severity::Blocker);
    let error = bench.take(&engine, BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert!(error.to_string().contains("something is odd"), "{error}");
    assert!(bench.repository.journal().is_empty());

    let warned = Text::of("a").with_finding(Severity::Warning);
    bench.take(&warned, BackupOptions::default()).await.unwrap();
}

#[tokio::test]
async fn the_newest_backup_of_the_same_source_is_the_parent() {
    let bench = Bench::new();
    let (a, b, other) = (Text::of("a"), Text::of("b"), Text::of("a").named("prose"));
    let first = bench.take(&a, BackupOptions::default()).await.unwrap();
    assert_eq!((first.kind, first.parent), (BackupKind::Full, None));
    assert_eq!(bench.take(&b, BackupOptions::default()).await.unwrap().parent, None, "another source");
    assert_eq!(bench.take(&other, BackupOptions::default()).await.unwrap().parent, None, "another engine");
    let second = bench.take(&a, BackupOptions::default()).await.unwrap();
    assert_eq!((second.kind, second.parent), (BackupKind::Incremental, Some(first.id)));
    assert_eq!(bench.take(&a, BackupOptions::default()).await.unwrap().parent, Some(second.id));
    assert_eq!(bench.take(&a, BackupOptions::full()).await.unwrap().parent, None, "a full backup");
}

#[tokio::test]
async fn a_named_parent_must_be_of_the_same_source() {
    let bench = Bench::new();
    let first = bench.take(&Text::of("a"), BackupOptions::default()).await.unwrap();
    bench.take(&Text::of("a"), BackupOptions::default()).await.unwrap();
    assert_eq!(bench.take(&Text::of("a"), named(first.id)).await.unwrap().parent, Some(first.id));
    let ghost = BackupId::from_bytes([9; 16]);
    let wrong = [(Text::of("b"), first.id), (Text::of("a").named("prose"), first.id), (Text::of("a"), ghost)];
    for (engine, parent) in wrong {
        let error = bench.take(&engine, named(parent)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(&parent.to_string()), "{error}");
    }
    assert_eq!(bench.sessions().await.len(), 3, "a refused parent opens no session");
}

#[tokio::test]
async fn an_engine_that_fails_closes_its_session() {
    let bench = Bench::new();
    let engine = Text::of("a").with_trouble(Trouble::Fails);
    let error = bench.take(&engine, BackupOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Environment, "the disk is on fire"));
    assert_eq!(bench.sessions().await, [SessionState::Closed(CloseReason::Abandoned)]);
    bench.take(&Text::of("a"), BackupOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_backup_closes_its_session() {
    for trouble in [Trouble::Hangs, Trouble::Ends] {
        let bench = Bench::new();
        let cancel = CancellationToken::new();
        let engine = Text::of("a").with_trouble(trouble(CancelOnce(cancel.clone())));
        let work = bench.work().with_cancel(cancel);
        let taken = backup(&bench.repository, &engine, BackupOptions::default(), &work).await;
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(bench.sessions().await, [SessionState::Closed(CloseReason::Abandoned)]);
    }
}

#[tokio::test]
async fn work_that_was_cancelled_before_does_nothing() {
    let bench = Bench::new();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let work = bench.work().with_cancel(cancel);
    let taken = backup(&bench.repository, &Text::of("a"), BackupOptions::default(), &work).await;
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(bench.repository.journal().is_empty());
}

#[tokio::test]
async fn a_plan_finds_the_backup_or_says_why_not() {
    let bench = Bench::new();
    let engine = Text::of("a");
    let error = bench.plan(&engine, RecoveryTarget::latest()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let first = bench.take(&engine, BackupOptions::default()).await.unwrap();
    let second = bench.take(&engine, BackupOptions::default()).await.unwrap();
    let prose = bench.take(&Text::of("a").named("prose"), BackupOptions::default()).await.unwrap();

    let latest = bench.plan(&engine, RecoveryTarget::latest()).await.unwrap();
    assert_eq!(latest.backup.id, second.id, "the latest of this engine");
    assert_eq!((latest.footprint.entries, latest.footprint.bytes), (1, 9));
    assert_eq!(bench.plan(&engine, RecoveryTarget::backup(first.id)).await.unwrap().backup, first);
    for refused in [
        Goal::Backup(prose.id),
        Goal::Backup(BackupId::from_bytes([9; 16])),
        Goal::Time(bench.env.now()),
        Goal::Position("0/16B3740".into()),
        Goal::Named("before-the-accident".into()),
    ] {
        let error = bench.plan(&engine, RecoveryTarget::new(refused.clone())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{refused:?}: {error}");
    }
}

#[tokio::test]
async fn a_selection_that_matches_nothing_is_refused() {
    let bench = Bench::new();
    let engine = Text::of("a");
    bench.take(&engine, BackupOptions::default()).await.unwrap();
    let plan = async |selector| {
        plan_restore(&bench.repository, &engine, RecoveryTarget::latest(), selector, &bench.work()).await
    };
    let error = plan(Selector::parse(["poem"]).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(plan(Selector::parse(["text"]).unwrap()).await.unwrap().footprint.entries, 1);
}

#[tokio::test]
async fn a_blocked_target_is_planned_but_not_restored() {
    let bench = Bench::new();
    bench.take(&Text::of("a"), BackupOptions::default()).await.unwrap();
    let target = Text::of("target").with_finding(Severity::Warning).with_finding(Severity::Blocker);
    let plan = bench.plan(&target, RecoveryTarget::latest()).await.unwrap();
    assert_eq!((plan.findings.len(), plan.blockers().count()), (2, 1));
    let error = restore(&target, &plan, &bench.work()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(target.restored.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_restore_does_what_was_planned_until_it_is_cancelled() {
    let bench = Bench::new();
    bench.take(&Text::of("a"), BackupOptions::default()).await.unwrap();
    let target = Text::of("target").with_finding(Severity::Warning);
    let plan = bench.plan(&target, RecoveryTarget::latest()).await.unwrap();
    restore(&target, &plan, &bench.work()).await.unwrap();
    assert_eq!(target.restored.load(Ordering::Relaxed), 1);

    let cancel = CancellationToken::new();
    let hanging = Text::of("target").with_trouble(Trouble::Hangs(CancelOnce(cancel.clone())));
    let error = restore(&hanging, &plan, &bench.work().with_cancel(cancel)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(hanging.restored.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_check_is_of_one_backup_that_exists() {
    let bench = Bench::new();
    let engine = Text::of("a");
    let record = bench.take(&engine, BackupOptions::default()).await.unwrap();
    let repository: Arc<dyn Repository> = Arc::new(bench.repository.reopen());
    assert_eq!(check(repository.as_ref(), &engine, record.id, &bench.work()).await.unwrap().entries, 1);
    let ghost = BackupId::from_bytes([9; 16]);
    let error = check(repository.as_ref(), &engine, ghost, &bench.work()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}
