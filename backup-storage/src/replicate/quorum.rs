//! Backups that count once enough regions have them.
//!
//! A backup is committed in the first vault, and nothing takes that back. What may wait for further regions is whoever calls it taken: so a quorum is
//! asked for behind the commit, and one that is not reached is an error that says where the backup is.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::BackupId;
use backup_core::catalog::Catalog;
use backup_core::engine::Work;
use futures::stream::{FuturesUnordered, StreamExt};

use super::replicate;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::store::Store;

/// Further regions, and how many of them are to hold a backup.
#[derive(Debug, Clone)]
pub struct Quorum {
    regions: Vec<(String, Store)>,
    needed: usize,
}

impl Quorum {
    /// `needed` of `regions`, each a name (an address, a place) and its vault.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a number that is zero or above that of the regions, and for a name that comes twice.
    pub fn new(regions: impl IntoIterator<Item = (String, Store)>, needed: usize) -> Result<Self> {
        let regions: Vec<_> = regions.into_iter().collect();
        let names: BTreeSet<_> = regions.iter().map(|(name, _)| name.as_str()).collect();
        if names.len() < regions.len() {
            return Err(Error::invalid("a region is named twice: it would count twice"));
        }
        if needed == 0 || needed > regions.len() {
            return Err(Error::invalid(format!("{needed} of {} further regions cannot be waited for", regions.len())));
        }
        Ok(Self { regions, needed })
    }
}

/// Where a backup is, when a quorum has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct QuorumHeld {
    /// Regions that have it, in the order in which they had it.
    pub held: Vec<String>,
    /// Regions that were still being copied to, whose next run goes on.
    pub behind: Vec<String>,
    /// Regions that failed, and why.
    pub failed: Vec<(String, String)>,
}

/// Copies to all regions at once until enough of them have `backup`.
///
/// # Errors
/// InvalidInput when the backup is not known here. When too few have it in the end: Unavailable where trying again may help, or else the kind of the
/// first region's failure; the message names every region.
pub(crate) async fn reach(
    context: &Arc<Context>,
    journal: &Journal<Catalog>,
    (quorum, service): (&Quorum, &str),
    backup: BackupId,
    work: &Work,
) -> Result<QuorumHeld> {
    if journal.refresh().await?.backup(backup).is_none() {
        return Err(Error::invalid(format!("backup {backup} is not known")));
    }
    // The progress of several runs at once would be told as one.
    let quiet = &Work::new(work.env().clone()).with_cancel(work.cancel().clone());
    let runs = quorum.regions.iter().map(|(name, vault)| async move {
        let copied = async {
            let there = vault.at(service)?;
            let done = replicate(context, journal, &there, quiet).await?;
            match done.region.missing.contains(&backup) {
                true => Err(Error::conflict("it was copied to, and does not know the backup")),
                false => Ok(()),
            }
        };
        (name, copied.await)
    });
    let mut runs: FuturesUnordered<_> = runs.collect();
    let (mut held, mut problems) = (QuorumHeld::default(), Vec::new());
    while let Some((name, outcome)) = runs.next().await {
        match outcome {
            Ok(()) => held.held.push(name.clone()),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => {
                tracing::warn!(region = %name, %error, "a region could not be copied to");
                held.failed.push((name.clone(), error.to_string()));
                problems.push(error);
            }
        }
        if held.held.len() == quorum.needed {
            let over =
                |name: &&String| !held.held.contains(name) && held.failed.iter().all(|(failed, _)| failed != *name);
            held.behind = quorum.regions.iter().map(|(name, _)| name).filter(over).cloned().collect();
            return Ok(held);
        }
    }
    let told: Vec<_> = held.failed.iter().map(|(name, problem)| format!("{name}: {problem}")).collect();
    let (have, needed) = (held.held.len(), quorum.needed);
    let passing = problems.iter().position(|error| error.kind() == ErrorKind::Unavailable).unwrap_or(0);
    let kind = problems.get(passing).map_or(ErrorKind::Internal, Error::kind);
    let message =
        format!("backup {backup} is in the first vault and in {have} of {needed} further regions; {}", told.join("; "));
    Err(Error::new(kind, message))
}
