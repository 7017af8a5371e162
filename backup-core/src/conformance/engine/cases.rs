//! Backups that restore, and targets that are refused.

use std::sync::Arc;
use std::time::Duration;

use super::{EngineTarget, Suite};
use crate::catalog::BackupRecord;
use crate::engine::{BackupEngine, Work};
use crate::entry::Selector;
use crate::error::{ErrorKind, Result};
use crate::repository::{ParentChoice, Repository};
use crate::run::{self, BackupOptions};
use crate::snapshot::Severity;
use crate::target::RecoveryTarget;

impl Suite<'_> {
    pub(super) fn work(&self) -> Work {
        Work::new(self.harness.env())
    }

    /// Changes the deployment; its digest then.
    pub(super) async fn mutate(&mut self) -> String {
        let before = self.harness.digest().await;
        self.steps += 1;
        self.harness.mutate(self.steps).await;
        let after = self.harness.digest().await;
        assert_ne!(before, after, "the harness must change its digest with every step");
        after
    }

    /// Takes a backup that nothing disturbs.
    pub(super) async fn backup(&self, repository: &dyn Repository, options: BackupOptions) -> BackupRecord {
        let engine = self.harness.engine().await;
        let taken = run::backup(repository, engine.as_ref(), options, &self.work()).await;
        // Backups are ordered by time, and a manual clock stands still by itself.
        self.harness.env().clock().sleep(Duration::from_millis(10)).await;
        taken.expect("a running deployment can be backed up")
    }

    pub(super) async fn fresh(&self) -> Arc<dyn Repository> {
        self.harness.repository().await
    }

    /// Restores `backup` into a fresh target and panics unless its digest is `expected`.
    pub(super) async fn assert_restores(&self, repository: &dyn Repository, backup: &BackupRecord, expected: &str) {
        let target = self.harness.target().await;
        restore(repository, target.as_ref(), backup, &self.work()).await.expect("an empty target can be restored into");
        let digest = target.digest().await.expect("what was restored starts");
        assert_eq!(digest, expected, "digest of what was restored from backup {}", backup.id);
        assert_eq!(self.harness.engine().await.descriptor().name, target.engine().descriptor().name);
    }
}

/// Plans and does a restore of one backup.
pub(super) async fn restore(
    repository: &dyn Repository,
    target: &dyn EngineTarget,
    backup: &BackupRecord,
    work: &Work,
) -> Result<()> {
    let engine = target.engine();
    let goal = RecoveryTarget::backup(backup.id);
    let plan = run::plan_restore(repository, engine.as_ref(), goal, Selector::all(), work).await?;
    run::restore(engine.as_ref(), &plan, work).await.map(drop)
}

/// The descriptor has a name that can stand on a command line, and says something to people.
pub async fn describes_itself(suite: &mut Suite<'_>) {
    let engine = suite.harness.engine().await;
    let descriptor = engine.descriptor();
    let name = descriptor.name;
    let alphabet = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    assert!(!name.is_empty() && name.bytes().all(alphabet), "engine name {name:?} must be of a-z, 0-9 and -");
    assert!(!descriptor.title.is_empty(), "an engine has a title");
    assert!(!descriptor.selectors.is_empty(), "an engine says what its selectors choose");
    assert!(!engine.to_string().is_empty(), "an engine has a name for people");
}

/// Looking twice sees the same deployment, which can be backed up.
pub async fn inspects_its_deployment(suite: &mut Suite<'_>) {
    let engine = suite.harness.engine().await;
    let before = suite.harness.digest().await;
    let first = engine.inspect().await.expect("a running deployment can be looked at");
    let second = engine.inspect().await.expect("a running deployment can be looked at");
    assert!(!first.source.is_empty() && !first.version.is_empty() && !first.method.is_empty(), "{first:?}");
    assert_eq!((&first.source, &first.version), (&second.source, &second.version), "identity and version");
    let blockers: Vec<_> = first.findings.iter().filter(|f| f.severity == Severity::Blocker).collect();
    assert!(blockers.is_empty(), "the deployment of the harness cannot be backed up: {blockers:?}");
    assert_eq!(suite.harness.digest().await, before, "looking changes nothing");
}

/// A full backup says what it is of, and restores to what the deployment was.
pub async fn full_backup_restores(suite: &mut Suite<'_>) {
    let digest = suite.mutate().await;
    let repository = suite.fresh().await;
    let engine = suite.harness.engine().await;
    let deployment = engine.inspect().await.expect("a running deployment can be looked at");
    let record = suite.backup(repository.as_ref(), BackupOptions::full()).await;
    assert_eq!(suite.harness.digest().await, digest, "a backup changes nothing");
    let snapshot = &record.snapshot;
    assert_eq!(snapshot.engine, engine.descriptor().name, "engine of the snapshot");
    assert_eq!(snapshot.source, deployment.source, "source of the snapshot");
    assert_eq!(snapshot.version, deployment.version, "version of the snapshot");
    assert_eq!(snapshot.consistency, engine.descriptor().consistency, "consistency of the snapshot");
    assert!(!snapshot.method.is_empty(), "the snapshot says how it was read");
    assert!(snapshot.started_at <= snapshot.ended_at, "a snapshot ends after it started");
    assert_eq!(snapshot.start.is_some(), snapshot.stop.is_some(), "log positions come in pairs");
    if let (Some(start), Some(stop)) = (&snapshot.start, &snapshot.stop) {
        assert!(
            start.lineage != stop.lineage || start <= stop,
            "the snapshot stops at {stop}, before its start {start}"
        );
    }
    assert!(snapshot.findings.iter().all(|f| f.severity < Severity::Blocker), "{:?}", snapshot.findings);
    assert!(record.entries > 0, "a backup has entries");
    suite.assert_restores(repository.as_ref(), &record, &digest).await;
}

/// An incremental backup stores less than a full one, and restores to what the deployment was.
pub async fn incremental_backup_restores(suite: &mut Suite<'_>) {
    suite.mutate().await;
    let repository = suite.fresh().await;
    let full = suite.backup(repository.as_ref(), BackupOptions::full()).await;
    let digest = suite.mutate().await;
    let second = suite.backup(repository.as_ref(), BackupOptions::default()).await;
    assert_eq!(second.parent, Some(full.id), "the newest backup of the same source is the parent");
    assert!(second.new_bytes < full.new_bytes, "{} bytes were stored again", second.new_bytes);
    suite.assert_restores(repository.as_ref(), &second, &digest).await;
    let named = BackupOptions { parent: ParentChoice::Backup(full.id) };
    let third = suite.backup(repository.as_ref(), named).await;
    assert_eq!(third.parent, Some(full.id), "the named parent");
    suite.assert_restores(repository.as_ref(), &third, &digest).await;
}

/// Every backup restores to its own moment, in any order, after all of them were taken.
pub async fn every_backup_restores_alone(suite: &mut Suite<'_>) {
    let repository = suite.fresh().await;
    let mut history = Vec::new();
    for _ in 0..3 {
        let digest = suite.mutate().await;
        history.push((suite.backup(repository.as_ref(), BackupOptions::default()).await, digest));
    }
    // The deployment goes on without being backed up.
    suite.mutate().await;
    for (record, digest) in [&history[2], &history[0], &history[1]] {
        suite.assert_restores(repository.as_ref(), record, digest).await;
    }
    let target = suite.harness.target().await;
    let engine = target.engine();
    let latest = RecoveryTarget::latest();
    let plan = run::plan_restore(repository.as_ref(), engine.as_ref(), latest, Selector::all(), &suite.work()).await;
    assert_eq!(plan.expect("it can be planned").backup.id, history[2].0.id, "the latest backup");
}

/// A target that holds something is refused, by the plan and by the engine itself, and stays as it is.
pub async fn occupied_targets_are_refused(suite: &mut Suite<'_>) {
    let repository = suite.fresh().await;
    let first_digest = suite.mutate().await;
    let first = suite.backup(repository.as_ref(), BackupOptions::full()).await;
    suite.mutate().await;
    let second = suite.backup(repository.as_ref(), BackupOptions::default()).await;
    let target = suite.harness.target().await;
    let work = suite.work();
    restore(repository.as_ref(), target.as_ref(), &first, &work).await.expect("an empty target can be restored into");
    for backup in [&first, &second] {
        let engine = target.engine();
        let goal = RecoveryTarget::backup(backup.id);
        let plan = run::plan_restore(repository.as_ref(), engine.as_ref(), goal.clone(), Selector::all(), &work).await;
        let plan = plan.expect("planning is possible, whatever the target is");
        assert!(plan.blockers().next().is_some(), "the plan does not say that the target is occupied");
        let error = run::restore(engine.as_ref(), &plan, &work).await.expect_err("the target is occupied");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let source = repository.open(backup.id).await.expect("it can be opened");
        let cx = crate::engine::RestoreContext::new(work.clone(), source, goal);
        let outcome = engine.restore(&cx).await;
        assert!(outcome.is_err(), "the engine itself restored into an occupied target");
        assert_eq!(target.digest().await.as_deref(), Some(first_digest.as_str()), "the target is as it was");
    }
}

/// What was stored is found sound, of every backup.
pub async fn checks_find_sound_backups_sound(suite: &mut Suite<'_>) {
    let repository = suite.fresh().await;
    for _ in 0..2 {
        suite.mutate().await;
        let record = suite.backup(repository.as_ref(), BackupOptions::default()).await;
        let engine = suite.harness.engine().await;
        let report = run::check(repository.as_ref(), engine.as_ref(), record.id, &suite.work()).await;
        let report = report.expect("a sound backup can be checked");
        assert!(report.is_sound(), "{:?}", report.findings);
        assert!(report.entries > 0, "a check looks at something");
    }
}

/// A deployment that is not there is an error of the surroundings, and leaves nothing behind.
pub async fn unreachable_deployments(suite: &mut Suite<'_>) {
    let Some(engine) = suite.harness.unreachable().await else {
        tracing::warn!("the harness has no unreachable deployment: the case is skipped");
        return;
    };
    let repository = suite.fresh().await;
    let inspected = engine.inspect().await.map(drop);
    let taken = run::backup(repository.as_ref(), engine.as_ref(), BackupOptions::default(), &suite.work()).await;
    for outcome in [inspected, taken.map(drop)] {
        let error = outcome.expect_err("there is no deployment");
        let kind = error.kind();
        assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::Environment), "{kind}: {error}");
    }
    let catalog = repository.catalog().await.expect("the catalog can be read");
    assert_eq!(catalog.backups().count(), 0, "backups of nothing");
    // Its name must still be printable for the message.
    let _: &dyn BackupEngine = engine.as_ref();
    assert!(!engine.to_string().is_empty());
}
