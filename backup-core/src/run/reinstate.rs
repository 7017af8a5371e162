//! Keeping again what had expired.

use crate::catalog::{Actor, BackupRecord, Event, Rejected};
use crate::engine::Work;
use crate::error::{Error, Result};
use crate::id::BackupId;
use crate::repository::Repository;

/// Keeps an expired backup again, and gives up the collections that might take something of it.
///
/// Possible until the sweep of such a collection has begun. Retention may let go of it again at its next turn: a hold keeps it.
///
/// # Cancel safety
/// When dropped, it is kept again or not; the catalog tells.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it has not expired, when it is not known, or when something of it is gone.
pub async fn reinstate(repository: &dyn Repository, backup: BackupId, by: &Actor, work: &Work) -> Result<BackupRecord> {
    let mut decide = |catalog: &crate::catalog::Catalog| {
        let at = work.env().now();
        let taken = catalog.collections().filter(|collection| collection.backups.contains(&backup));
        // The newest first: one that copied packs can be given up only while it is the last.
        let mut numbers: Vec<_> = taken.map(|collection| collection.condemned.number).collect();
        numbers.reverse();
        let withdrawn =
            numbers.into_iter().map(|collection| Event::CollectionWithdrawn { collection, by: by.clone(), at });
        let kept = Event::BackupReinstated { backup, by: by.clone(), at };
        let events: Vec<_> = withdrawn.chain([kept]).collect();
        // Asked here, what does not fit is the wish and not a race.
        let mut then = catalog.clone();
        events.iter().try_for_each(|event| then.apply(event)).map_err(Rejected::asked)?;
        Ok(events)
    };
    let catalog = work.run(repository.decide(&mut decide)).await?;
    catalog.backup(backup).cloned().ok_or_else(|| Error::internal("a backup that was reinstated is not there"))
}
