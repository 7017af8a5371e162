//! What can be restored.

use std::sync::Arc;

use jiff::Timestamp;

use crate::catalog::{BackupRecord, Catalog};
use crate::engine::{LogSource, RestoreLog, Work};
use crate::error::Result;
use crate::log::{BackupPoint, Hole, Window};
use crate::repository::Repository;

/// A window with the moments of its ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimedWindow {
    /// Backups and log.
    pub window: Window,
    /// The first restorable moment.
    pub from_time: Timestamp,
    /// The last moment of which everything is known to be there.
    pub to_time: Timestamp,
}

/// Everything that can be restored, and what is missing in between.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Restorable {
    /// What can be restored: first along the history that the source follows, oldest first, then what was orphaned.
    pub windows: Vec<TimedWindow>,
    /// The holes of the log.
    pub holes: Vec<Hole>,
}

/// What can be restored of `engine`'s backups in `repository`; of all its backups when no engine is named.
///
/// # Errors
/// Those of reading the catalog and the index of the log.
pub async fn windows(repository: &dyn Repository, engine: Option<&str>, work: &Work) -> Result<Restorable> {
    let catalog = work.run(repository.catalog()).await?;
    let log = work.run(repository.log()).await?;
    work.run(timed(&catalog, &log, engine)).await
}

/// As [`windows`], of what was read already.
pub(super) async fn timed(catalog: &Catalog, log: &Arc<dyn LogSource>, engine: Option<&str>) -> Result<Restorable> {
    let ledger = log.ledger();
    // Nothing can be reached from a backup that is known to be harmed.
    let own = |b: &&BackupRecord| engine.is_none_or(|engine| b.snapshot.engine == engine);
    let chosen = catalog.backups().filter(own).filter(|b| catalog.is_sound(b.id));
    let mut windows = Vec::new();
    for window in ledger.windows(chosen.filter_map(BackupPoint::of)) {
        let newest = window.backups.iter().map(|backup| backup.at).max();
        let known = RestoreLog::new(Arc::clone(log), window.path.clone()).known_until().await?;
        let (Some(from_time), Some(to_time)) = (window.from_time(), newest.max(known)) else { continue };
        windows.push(TimedWindow { window, from_time, to_time });
    }
    windows.sort_by_key(|w| (w.window.orphaned, w.from_time));
    Ok(Restorable { windows, holes: ledger.holes() })
}
