//! A repository that breaks exactly one rule.

mod log;
mod session;
mod source;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::catalog::Catalog;
use backup_core::engine::{BackupSource, LogOptions, LogSink, LogSource, Work};
use backup_core::log::LogPurpose;
use backup_core::repository::{
    BackupSession, CollectOptions, Collected, CollectionPlan, Damage, Decision, ParentChoice, Repository, VerifyLevel,
    VerifyReport,
};
use backup_core::{BackupId, Result, ServiceId};
use parking_lot::Mutex;

/// The rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None: what shows that the wrapper itself breaks nothing.
    None,
    LosesLastByte,
    FlipsByte,
    LosesModes,
    NeverReuses,
    AcceptsDuplicates,
    FollowsSources,
    ReadsAlways,
    IgnoresChanges,
    BelievesChanges,
    ForgetsPatches,
    TakesAnyPatch,
    BelievesPatches,
    TrustsYoungFiles,
    InspectsTwice,
    InspectsNoZeros,
    CommitsWhenDropped,
    IgnoresFences,
    Miscounts,
    ListsBackwards,
    IgnoresSelectors,
    ClampsRanges,
    ReadsInOnePiece,
    ForgetsLast,
    ExtractsNaively,
    IgnoresKeep,
    IgnoresFolders,
    WritesEverything,
    CriesWolf,
    OpensAnything,
    ShowsOldCatalog,
    AcknowledgesEarly,
    SwallowsConflicts,
    NeverFencesLogs,
    FencesByImport,
    ForgetsForks,
    ForgetsReasons,
    ForgetsMarks,
    StaysOpen,
    ReadsOverHoles,
    DescribesTwice,
    DecidesByHalves,
}

#[derive(Debug)]
pub(crate) struct Mutant {
    inner: Arc<dyn Repository>,
    fault: Fault,
    seen: Mutex<Option<Arc<Catalog>>>,
}

impl Mutant {
    pub(crate) fn boxed(inner: Arc<dyn Repository>, fault: Fault) -> Arc<dyn Repository> {
        Arc::new(Self { inner, fault, seen: Mutex::default() })
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mutant({}, {:?})", self.inner, self.fault)
    }
}

#[async_trait]
impl Repository for Mutant {
    fn service(&self) -> &ServiceId {
        self.inner.service()
    }

    async fn catalog(&self) -> Result<Arc<Catalog>> {
        let catalog = self.inner.catalog().await?;
        if self.fault == Fault::ShowsOldCatalog {
            return Ok(Arc::clone(self.seen.lock().get_or_insert(Arc::new(Catalog::new()))));
        }
        Ok(catalog)
    }

    async fn decide(&self, decide: &mut Decision<'_>) -> Result<Arc<Catalog>> {
        if self.fault != Fault::DecidesByHalves {
            return self.inner.decide(decide).await;
        }
        let events = decide(&*self.inner.catalog().await?)?;
        for event in events {
            self.inner.decide(&mut |_| Ok(vec![event.clone()])).await?;
        }
        self.inner.catalog().await
    }

    async fn begin(&self, parent: ParentChoice, work: &Work) -> Result<Box<dyn BackupSession>> {
        let parent = if self.fault == Fault::NeverReuses { ParentChoice::None } else { parent };
        let inner = self.inner.begin(parent, work).await?;
        let spare = self.inner.begin(ParentChoice::None, work).await?;
        Ok(session::MutantSession::boxed(inner, spare, self.fault, work.env().now()))
    }

    async fn open(&self, backup: BackupId) -> Result<Arc<dyn BackupSource>> {
        let mut opened = self.inner.open(backup).await;
        if self.fault == Fault::OpensAnything
            && opened.is_err()
            && let Some(latest) = self.inner.catalog().await?.latest()
        {
            opened = self.inner.open(latest.id).await;
        }
        Ok(Arc::new(source::MutantSource { inner: opened?, fault: self.fault }))
    }

    async fn verify(&self, level: VerifyLevel, work: &Work) -> Result<VerifyReport> {
        let mut report = self.inner.verify(level, work).await?;
        if self.fault == Fault::CriesWolf {
            report.damages.push(Damage::new("nothing", "looks odd", Vec::new()));
        }
        Ok(report)
    }

    async fn plan_collection(&self, options: &CollectOptions, work: &Work) -> Result<CollectionPlan> {
        self.inner.plan_collection(options, work).await
    }

    async fn collect(&self, options: &CollectOptions, work: &Work) -> Result<Collected> {
        self.inner.collect(options, work).await
    }

    async fn open_log(&self, mut options: LogOptions, work: &Work) -> Result<Arc<dyn LogSink>> {
        match self.fault {
            Fault::NeverFencesLogs => options.purpose = LogPurpose::Import,
            Fault::FencesByImport => options.purpose = LogPurpose::Stream,
            _ => {}
        }
        let inner = self.inner.open_log(options, work).await?;
        Ok(Arc::new(log::MutantSink { inner, fault: self.fault, held: Mutex::default() }))
    }

    async fn log(&self) -> Result<Arc<dyn LogSource>> {
        Ok(Arc::new(log::MutantLog { inner: self.inner.log().await?, fault: self.fault }))
    }
}
