//! Taking a backup.

use crate::catalog::{BackupRecord, Rejected};
use crate::engine::{BackupContext, BackupEngine, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::{ParentChoice, Repository};
use crate::snapshot::{Severity, Snapshot};

/// How a backup is taken.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BackupOptions {
    /// From where stored content is reused.
    pub parent: ParentChoice,
}

impl BackupOptions {
    /// Stores everything anew.
    #[must_use]
    pub fn full() -> Self {
        Self { parent: ParentChoice::None }
    }
}

/// Takes a backup of `engine` into `repository` and commits it.
///
/// A deployment with a [blocker](Severity::Blocker) is refused before anything is written. A parent of another source is
/// never used: content is compared only with a backup of the same deployment, because sizes, times and identities mean
/// nothing across deployments. The newest one is looked for among those that nothing is known to harm and that no host has deposited that only writes; one that was named must be of the same.
///
/// # Cancel safety
/// Dropping the future, or cancelling `work`, leaves no visible backup unless the commit had already landed.
///
/// # Errors
/// Those of the engine and of the repository. When the engine fails, the session is closed as far as the store allows and
/// the engine's error is returned.
#[tracing::instrument(skip_all, fields(%engine, %repository))]
pub async fn backup(
    repository: &dyn Repository,
    engine: &dyn BackupEngine,
    options: BackupOptions,
    work: &Work,
) -> Result<BackupRecord> {
    let deployment = work.run(engine.inspect()).await?;
    if let Some(blocker) = deployment.findings.iter().find(|f| f.severity == Severity::Blocker) {
        return Err(Error::environment(format!("{engine} cannot be backed up: {blocker}")));
    }
    let own =
        |b: &&BackupRecord| b.snapshot.engine == engine.descriptor().name && b.snapshot.source == deployment.source;
    let parent = match options.parent {
        ParentChoice::Newest => {
            let catalog = work.run(repository.catalog()).await?;
            catalog
                .backups()
                .filter(|backup| {
                    own(backup) && catalog.is_sound(backup.id) && catalog.depositor(backup.session).is_none()
                })
                .max_by_key(|b| (b.ended_at, b.id))
                .map_or(ParentChoice::None, |b| ParentChoice::Backup(b.id))
        }
        ParentChoice::Backup(id) => {
            let catalog = work.run(repository.catalog()).await?;
            let named = catalog.existing(id).map_err(Rejected::asked)?;
            catalog.sound(id).map_err(Rejected::asked)?;
            if !own(&named) {
                let Snapshot { engine: other, source, .. } = &named.snapshot;
                return Err(Error::invalid(format!(
                    "backup {id} of {other} {source} cannot be the parent of a backup of {} {}",
                    engine.descriptor().name,
                    deployment.source
                )));
            }
            ParentChoice::Backup(id)
        }
        ParentChoice::None => ParentChoice::None,
    };
    // What changed since the parent may stand in the log. A log that cannot be read is no reason against a backup.
    let mut log = None;
    if parent != ParentChoice::None && engine.log().is_some() {
        match work.run(repository.log()).await {
            Ok(found) => log = Some(found),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => tracing::warn!(%error, "the log cannot tell what changed since the parent"),
        }
    }
    let session = work.run(repository.begin(parent, work)).await?;
    let cx = BackupContext::new(work.clone(), session.sink(), session.parent().cloned());
    let cx = cx.with_parent_source(session.parent_source()).with_log(log);
    let snapshot = match work.run(engine.backup(&cx)).await.and_then(|snapshot| work.checkpoint().map(|()| snapshot)) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            // The engine's error is what the caller needs; a session that could not be closed is fenced later.
            if let Err(closing) = session.abort().await {
                tracing::warn!(error = %closing, "the session of a failed backup could not be closed");
            }
            return Err(error);
        }
    };
    drop(cx);
    work.run(session.commit(snapshot)).await
}
