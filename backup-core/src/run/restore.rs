//! Planning and doing a restore.

use std::sync::Arc;

use super::choose::{Choice, Choices};
use crate::catalog::{BackupRecord, Catalog};
use crate::engine::{
    BackupEngine, BackupSource, CheckContext, CheckReport, Footprint, RestoreContext, RestoreLog, Restored, Work,
};
use crate::entry::Selector;
use crate::error::{Error, Result};
use crate::id::BackupId;
use crate::repository::Repository;
use crate::snapshot::{Finding, Severity};
use crate::target::RecoveryTarget;

/// What a restore would do, before it does anything.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RestorePlan {
    /// The backup that is restored.
    pub backup: BackupRecord,
    /// What is to be reached.
    pub target: RecoveryTarget,
    /// Which of its entries.
    pub selector: Selector,
    /// What is read from the repository.
    pub footprint: Footprint,
    /// What the engine says about the target. A [blocker](Severity::Blocker) means that the restore would be refused.
    pub findings: Vec<Finding>,
    source: Arc<dyn BackupSource>,
    log: Option<RestoreLog>,
}

impl RestorePlan {
    /// The log behind the backup, up to the last position that it can reach. The engine reads of it what the target needs.
    #[must_use]
    pub fn log(&self) -> Option<&RestoreLog> {
        self.log.as_ref()
    }

    /// What an engine is given to do it.
    pub(super) fn context(&self, work: &Work) -> RestoreContext {
        RestoreContext::new(work.clone(), Arc::clone(&self.source), self.target.clone())
            .with_selector(self.selector.clone())
            .with_log(self.log.clone())
    }

    /// Why the restore would be refused.
    pub fn blockers(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.severity == Severity::Blocker)
    }
}

/// Plans the restore of `target` from `repository` into the deployment of `engine`. Writes nothing.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the target cannot be reached; the message says what can.
#[tracing::instrument(skip_all, fields(%engine, %repository, %target))]
pub async fn plan_restore(
    repository: &dyn Repository,
    engine: &dyn BackupEngine,
    target: RecoveryTarget,
    selector: Selector,
    work: &Work,
) -> Result<RestorePlan> {
    let catalog = work.run(repository.catalog()).await?;
    let log = work.run(repository.log()).await?;
    let choices = Choices { catalog: &catalog, log: &log, engine };
    let Choice { backup, path } = work.run(choices.choose(&target)).await?;
    let log = path.map(|path| RestoreLog::new(log, path));
    let source = work.run(repository.open(backup.id)).await?;
    let footprint = work.run(source.footprint(&selector)).await?;
    if footprint.entries == 0 && !selector.is_all() {
        return Err(Error::invalid(format!("the selection matches nothing in backup {}", backup.id)));
    }
    let cx = RestoreContext::new(work.clone(), Arc::clone(&source), target.clone())
        .with_selector(selector.clone())
        .with_log(log.clone());
    let mut findings = work.run(engine.assess_restore(&cx)).await?;
    findings.extend(harm(&catalog, &backup));
    Ok(RestorePlan { backup, target, selector, footprint, findings, source, log })
}

/// What is known to harm the backup that was chosen, and newer ones that were passed over for being harmed.
fn harm(catalog: &Catalog, chosen: &BackupRecord) -> Vec<Finding> {
    let finding = |code: &'static str, backup: &BackupRecord, text: String| {
        Finding::new(Severity::Warning, code, text).about(backup.id.to_string())
    };
    let own = catalog.harm(chosen.id).map(|(pack, harm)| {
        finding("backup-damaged", chosen, format!("what lies in pack {pack} cannot be restored: {}", harm.problem))
    });
    let same = |b: &&BackupRecord| b.snapshot.engine == chosen.snapshot.engine && b.ended_at > chosen.ended_at;
    let newer = catalog.backups().filter(same).filter(|b| !catalog.is_sound(b.id) && catalog.is_sound(chosen.id));
    let newer = newer.map(|b| finding("newer-backup-damaged", b, format!("it ended at {} and is damaged", b.ended_at)));
    own.chain(newer).collect()
}

/// Does what `plan` says.
///
/// # Cancel safety
/// Dropping the future, or cancelling `work`, leaves a target that does not start; the same restore can be repeated.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) or [`Environment`](crate::ErrorKind::Environment) when the plan has blockers, by what they are
/// about; otherwise those of the engine.
#[tracing::instrument(skip_all, fields(%engine, backup = %plan.backup.id))]
pub async fn restore(engine: &dyn BackupEngine, plan: &RestorePlan, work: &Work) -> Result<Restored> {
    if let Some(blocker) = plan.blockers().next() {
        return Err(blocker.refusal(format_args!("restore into {engine}")));
    }
    work.run(engine.restore(&plan.context(work))).await
}

/// Lets the engine check the stored backup `backup`, offline.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) when there is no such backup; otherwise those of reading it.
pub async fn check(
    repository: &dyn Repository,
    engine: &dyn BackupEngine,
    backup: BackupId,
    work: &Work,
) -> Result<CheckReport> {
    let source = work.run(repository.open(backup)).await?;
    work.run(engine.check(&CheckContext::new(work.clone(), source))).await
}
