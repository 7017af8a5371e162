//! Letting go what is not kept any more.
//!
//! What is let go is gone from the catalog at once: it cannot be restored, and nothing new refers to it. Its objects are deleted later, by
//! whoever collects garbage.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_policy::Profile;
use backup_policy::retention::{Backup, Facts, Fork, LineageKey, Log, LogRange, Position, RetentionPlan, Verdict};
use jiff::Timestamp;

use crate::catalog::{Actor, Catalog, Event};
use crate::engine::Work;
use crate::error::Result;
use crate::id::BackupId;
use crate::log::Ledger;
use crate::position::Lineage;
use crate::repository::Repository;

/// Log before the position from which it is needed that is kept nevertheless: a restore may read the piece from its beginning, and an
/// engine's own pieces have up to so many bytes (a WAL segment of PostgreSQL can have 1 GiB).
const BEFORE: u64 = 1 << 30;

/// The numbers that the policy has for lineages: the order in which they were met, then those that only backups tell of.
#[derive(Debug, Default)]
struct Numbers(BTreeMap<Lineage, LineageKey>);

impl Numbers {
    fn of(&mut self, lineage: &Lineage) -> LineageKey {
        let next = LineageKey(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
        *self.0.entry(lineage.clone()).or_insert(next)
    }
}

/// What there is in a repository, and what becomes of it. Nothing is changed by making one.
#[derive(Debug)]
#[non_exhaustive]
pub struct Retention {
    /// What becomes of each backup and of each lineage's log, with all reasons.
    pub plan: RetentionPlan<BackupId>,
    lineages: Vec<Lineage>,
}

impl Retention {
    /// What `profile` keeps at `now`. Without a ledger nothing is said about the log, and no backup is taken for the base of any.
    ///
    /// A backup that is known to be harmed is no reason to let a sound one go, nor log behind that: what is kept is what would be kept if
    /// the harmed ones were not there, and of those what would be kept if they were sound.
    #[must_use]
    pub fn of(profile: &Profile, catalog: &Catalog, ledger: Option<&Ledger>, now: Timestamp) -> Self {
        let all = Self::among(profile, catalog, ledger, now, |_| true);
        if catalog.backups().all(|backup| catalog.is_sound(backup.id)) {
            return all;
        }
        let mut sound = Self::among(profile, catalog, ledger, now, |backup| catalog.is_sound(backup));
        let harmed = all.plan.backups.into_iter().filter(|plan| !catalog.is_sound(plan.id));
        sound.plan.backups.extend(harmed);
        sound.plan.backups.sort_by_key(|plan| plan.id);
        for log in &mut sound.plan.logs {
            let other =
                all.plan.logs.iter().find(|other| other.lineage == log.lineage).and_then(|other| other.keep_from);
            log.keep_from = match (log.keep_from, other) {
                (Some(own), Some(other)) => Some(own.min(other)),
                (own, other) => own.or(other),
            };
        }
        sound
    }

    fn among(
        profile: &Profile,
        catalog: &Catalog,
        ledger: Option<&Ledger>,
        now: Timestamp,
        counts: impl Fn(BackupId) -> bool,
    ) -> Self {
        let mut numbers = Numbers::default();
        let logs = ledger.map(|ledger| logs(ledger, catalog, &mut numbers, now)).unwrap_or_default();
        let following = ledger.and_then(|ledger| ledger.trunk().map(|trunk| numbers.of(trunk)));
        let lineages = ledger.map(|ledger| ledger.lineages().map(|record| record.lineage.clone()).collect());
        let backups = catalog.backups().filter(|record| counts(record.id)).map(|record| {
            let mut backup = Backup::new(record.id, record.started_at, record.ended_at).with_bytes(record.data_bytes);
            for (_, hold) in catalog.holds(record.id) {
                backup = if hold.log { backup.held_with_log() } else { backup.held() };
            }
            match record.snapshot.stop.as_ref().filter(|_| ledger.is_some()) {
                Some(stop) => backup.at(Position::new(numbers.of(&stop.lineage), stop.offset)),
                None => backup,
            }
        });
        let facts = Facts { backups: backups.collect(), logs, following };
        Self { plan: RetentionPlan::of(profile, now, &facts), lineages: lineages.unwrap_or_default() }
    }

    /// The log that is not kept any more: everything before these offsets.
    pub(crate) fn expired_log<'a>(
        &'a self,
        ledger: &'a Ledger,
        catalog: &'a Catalog,
    ) -> impl Iterator<Item = (Lineage, u64)> + 'a {
        self.plan.logs.iter().filter_map(|log| {
            let lineage = self.lineages.get(usize::try_from(log.lineage.0).ok()?)?;
            let covered = ledger.covered(lineage);
            let before = match log.keep_from {
                Some(from) => from.saturating_sub(BEFORE),
                None => covered.end()?,
            };
            let first = covered.as_slice().first()?.start;
            let known = catalog.log().expired_before(lineage);
            (before > first && before > known).then(|| (lineage.clone(), before))
        })
    }
}

/// The stored log. Its moments are bounds on the side of keeping: the index of the log knows better, and would have to be read.
fn logs(ledger: &Ledger, catalog: &Catalog, numbers: &mut Numbers, now: Timestamp) -> Vec<Log> {
    let records: Vec<_> = ledger.lineages().collect();
    let keys: Vec<_> = records.iter().map(|record| numbers.of(&record.lineage)).collect();
    let met = |at: usize| records.get(at).map(|record| record.at);
    let stored = |range: &std::ops::Range<u64>| range.end - range.start;
    let trunk = ledger.trunk();
    let mut logs = Vec::with_capacity(records.len());
    for (at, record) in records.iter().enumerate() {
        let parent = record.fork.as_ref().map(|fork| Fork { lineage: numbers.of(&fork.lineage), offset: fork.offset });
        let backups = catalog.backups().filter_map(|backup| {
            let stop = backup.snapshot.stop.as_ref()?;
            (stop.lineage == record.lineage).then(|| backup.snapshot.consistent_at())
        });
        let oldest = backups.min().map_or(record.at, |first| first.min(record.at));
        // The source has left it when the next one was met.
        let last = if trunk == Some(&record.lineage) { now } else { met(at + 1).unwrap_or(now) };
        let mut log = Log::new(keys[at], parent);
        for range in ledger.covered(&record.lineage).as_slice() {
            log = log.with(LogRange { start: range.start, end: range.end, first: oldest, last, bytes: stored(range) });
        }
        logs.push(log);
    }
    logs
}

/// What was let go, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Expired {
    /// The backups.
    pub backups: Vec<BackupId>,
    /// Log before these offsets.
    pub log: Vec<(Lineage, u64)>,
}

impl Expired {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.backups.is_empty() && self.log.is_empty()
    }
}

/// The stored log, when there is any: what comes after it was listed is newer than anything that expires.
pub(crate) async fn stored_log(repository: &dyn Repository, catalog: &Catalog) -> Result<Option<Arc<Ledger>>> {
    Ok(match catalog.log().lineages() {
        [] => None,
        _ => Some(repository.log().await?.ledger()),
    })
}

/// The events that let go what `profile` does not keep of `catalog`, and what that is.
pub(crate) fn expiring(
    profile: &Profile,
    catalog: &Catalog,
    ledger: Option<&Ledger>,
    by: &Actor,
    at: Timestamp,
) -> (Vec<Event>, Expired) {
    let retention = Retention::of(profile, catalog, ledger, at);
    let mut events = Vec::new();
    let mut expired = Expired::default();
    for plan in &retention.plan.backups {
        if let Verdict::Expire { reason, .. } = &plan.verdict {
            expired.backups.push(plan.id);
            events.push(Event::BackupExpired { backup: plan.id, reason: reason.to_string(), by: by.clone(), at });
        }
    }
    for (lineage, before) in ledger.into_iter().flat_map(|ledger| retention.expired_log(ledger, catalog)) {
        events.push(Event::LogExpired { lineage: lineage.clone(), before, at });
        expired.log.push((lineage, before));
    }
    (events, expired)
}

/// What `profile` keeps of what is stored in `repository` now, and why. Changes nothing.
///
/// # Errors
/// Those of reading the catalog and the list of the log.
pub async fn plan_expiry(repository: &dyn Repository, profile: &Profile, work: &Work) -> Result<Retention> {
    let catalog = work.run(repository.catalog()).await?;
    let ledger = work.run(stored_log(repository, &catalog)).await?;
    Ok(Retention::of(profile, &catalog, ledger.as_deref(), work.env().now()))
}

/// Lets go what `profile` does not keep. What is decided is decided about the catalog as it is at the commit: a backup that somebody has
/// put on hold in between stays.
///
/// # Cancel safety
/// When dropped, all of it was let go or nothing.
///
/// # Errors
/// As [`plan_expiry`], and those of committing.
#[tracing::instrument(skip_all, fields(%repository, %by))]
pub async fn expire(repository: &dyn Repository, profile: &Profile, by: &Actor, work: &Work) -> Result<Expired> {
    let catalog = work.run(repository.catalog()).await?;
    let ledger = work.run(stored_log(repository, &catalog)).await?;
    let at = work.env().now();
    let mut expired = Expired::default();
    let mut decide = |catalog: &Catalog| {
        let (events, what) = expiring(profile, catalog, ledger.as_deref(), by, at);
        expired = what;
        Ok(events)
    };
    work.run(repository.decide(&mut decide)).await?;
    Ok(expired)
}
