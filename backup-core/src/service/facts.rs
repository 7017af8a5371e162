//! What is stored, in the words of the policy.

use std::collections::BTreeMap;

use backup_policy::Profile;
use backup_policy::lifecycle::{Lifecycle, LifecyclePolicy, Notice, SentNotice};
use backup_policy::retention::{Backup, Facts, Fork, LineageKey, Log, LogRange, Position, RetentionPlan};
use jiff::Timestamp;

use crate::catalog::{Catalog, ServiceState, Stage};
use crate::id::BackupId;
use crate::log::Ledger;
use crate::position::Lineage;

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

/// What there is, and what becomes of it.
#[derive(Debug)]
pub(super) struct Retention {
    pub(super) plan: RetentionPlan<BackupId>,
    lineages: Vec<Lineage>,
}

impl Retention {
    /// What `profile` keeps at `now`. Without a ledger nothing is said about the log, and no backup is taken for the base of any.
    pub(super) fn of(profile: &Profile, catalog: &Catalog, ledger: Option<&Ledger>, now: Timestamp) -> Self {
        let mut numbers = Numbers::default();
        let logs = ledger.map(|ledger| logs(ledger, catalog, &mut numbers, now)).unwrap_or_default();
        let following = ledger.and_then(|ledger| ledger.trunk().map(|trunk| numbers.of(trunk)));
        let lineages = ledger.map(|ledger| ledger.lineages().map(|record| record.lineage.clone()).collect());
        let backups = catalog.backups().map(|record| {
            let mut backup = Backup::new(record.id, record.started_at, record.ended_at).with_bytes(record.data_bytes);
            if catalog.holds(record.id).next().is_some() {
                backup = backup.held();
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
    pub(super) fn expired_log<'a>(
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

/// The life of a service, in the words of the policy.
pub(super) fn lifecycle(service: &ServiceState) -> Lifecycle {
    use backup_policy::lifecycle::DeletionCause;
    match service.stage {
        Stage::Off { since } => Lifecycle::PoweredOff { since },
        Stage::Deleted { since } => Lifecycle::Deleted { since, cause: DeletionCause::Requested },
        Stage::Purging { since } => Lifecycle::Purged { since },
        _ => Lifecycle::Running { since: service.created },
    }
}

/// The name of a notice in the journal.
pub(super) fn notice_name(notice: &Notice) -> String {
    format!("deletion-in-{}", notice.before)
}

/// The notices that were given in this stage.
pub(super) fn sent(service: &ServiceState, policy: &LifecyclePolicy) -> Vec<SentNotice> {
    let Some(deadline) = lifecycle(service).deadline(policy) else { return Vec::new() };
    let all = policy.notices().iter().map(|before| Notice { deadline, before: *before });
    all.filter_map(|notice| service.notices.get(&notice_name(&notice)).map(|at| SentNotice { notice, at: *at }))
        .collect()
}
