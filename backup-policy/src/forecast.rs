//! What there will be on some day.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::profile::Profile;
use crate::retention::{Backup, Facts, LineageKey, LogRange, Position, RetentionPlan, Verdict};
use crate::schedule::Schedule;

/// A backup that exists, or one that will be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ForecastId<Id> {
    /// It exists.
    Existing(Id),
    /// It will be made: the first one has the number 0.
    Planned(u32),
}

impl<Id: fmt::Display> fmt::Display for ForecastId<Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Existing(id) => id.fmt(f),
            Self::Planned(number) => write!(f, "planned {number}"),
        }
    }
}

/// What there will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Forecast<Id> {
    /// The backups that will be there, by the order of those that exist and then of the schedule.
    pub backups: Vec<Backup<ForecastId<Id>>>,
    /// What will have become of everything, with all reasons.
    pub plan: RetentionPlan<ForecastId<Id>>,
    /// How many backups will have been made.
    pub planned: u32,
    /// Bytes of the backups if each were stored alone. Backups share what did not change, so less will be stored.
    pub backup_bytes: u64,
    /// Bytes of stored log.
    pub log_bytes: u64,
}

/// The most backups that a forecast plans.
pub const MAX_PLANNED: u32 = 1_000_000;

/// What there will be at `until`, if from `now` on each backup of `schedule` is made in time and is good, takes as long and is
/// as large as the newest good one of `facts`, and log grows as it did on average while it was stored.
///
/// # Errors
/// [`Error::Invalid`] if more than [`MAX_PLANNED`] backups would be made until then.
pub fn forecast<Id: Copy + Ord + fmt::Display>(
    profile: &Profile,
    schedule: &Schedule,
    facts: &Facts<Id>,
    now: Timestamp,
    until: Timestamp,
) -> Result<Forecast<Id>> {
    let growth = Growth::of(facts, now);
    let mut future = existing(facts);
    let newest =
        facts.backups.iter().filter(|backup| backup.good && backup.ended <= now).max_by_key(|backup| backup.ended);
    let (bytes, length) =
        newest.map_or((0, None), |backup| (backup.bytes, Some(backup.ended.duration_since(backup.started))));
    let mut pieces: Vec<LogRange> = Vec::new();
    let mut planned: u32 = 0;
    let mut piece_start = now;
    for started in schedule.slots(now).take_while(|slot| *slot <= until) {
        let ended = length.and_then(|length| started.checked_add(length).ok()).unwrap_or(started);
        if ended > until {
            break;
        }
        if planned == MAX_PLANNED {
            let allowed = format!("a time before {started}, when {MAX_PLANNED} more backups will have been made");
            return Err(Error::invalid("until", until, allowed));
        }
        let mut backup = Backup::new(ForecastId::Planned(planned), started, ended).with_bytes(bytes);
        if let Some(growth) = growth {
            pieces.push(growth.piece(piece_start, ended));
            piece_start = ended;
            backup.position = growth.with_backups.then(|| Position::new(growth.lineage, growth.offset(ended)));
        }
        future.backups.push(backup);
        planned += 1;
    }
    if let Some(growth) = growth {
        if piece_start < until {
            pieces.push(growth.piece(piece_start, until));
        }
        if let Some(log) = future.logs.iter_mut().find(|log| log.lineage == growth.lineage) {
            log.ranges.append(&mut pieces);
        }
    }
    Ok(Forecast::new(profile, until.max(now), future, planned))
}

impl<Id: Copy + Ord + fmt::Display> Forecast<Id> {
    fn new(profile: &Profile, at: Timestamp, facts: Facts<ForecastId<Id>>, planned: u32) -> Self {
        let plan = RetentionPlan::of(profile, at, &facts);
        let verdicts = facts.backups.into_iter().zip(&plan.backups);
        let backups: Vec<_> = verdicts
            .filter(|(_, plan)| matches!(plan.verdict, Verdict::Keep { .. }))
            .map(|(backup, _)| backup)
            .collect();
        let backup_bytes = backups.iter().fold(0_u64, |sum, backup| sum.saturating_add(backup.bytes));
        let log_bytes = plan.logs.iter().fold(0_u64, |sum, log| sum.saturating_add(log.kept_bytes));
        Self { backups, plan, planned, backup_bytes, log_bytes }
    }
}

/// The facts as they are, under names that leave room for what will be.
fn existing<Id: Copy>(facts: &Facts<Id>) -> Facts<ForecastId<Id>> {
    let named = |backup: &Backup<Id>| Backup {
        id: ForecastId::Existing(backup.id),
        started: backup.started,
        ended: backup.ended,
        bytes: backup.bytes,
        good: backup.good,
        hold: backup.hold,
        hold_log: backup.hold_log,
        position: backup.position,
    };
    Facts { backups: facts.backups.iter().map(named).collect(), logs: facts.logs.clone(), following: facts.following }
}

/// How the followed log grows.
#[derive(Debug, Clone, Copy)]
struct Growth {
    lineage: LineageKey,
    now: Timestamp,
    /// Its end now.
    end: u64,
    /// What was stored in how many seconds.
    offsets: u64,
    bytes: u64,
    seconds: u64,
    /// Whether backups have positions in a log.
    with_backups: bool,
}

impl Growth {
    fn of<Id>(facts: &Facts<Id>, now: Timestamp) -> Option<Self> {
        let followed = facts.followed()?;
        let log = facts.logs.iter().find(|log| log.lineage == followed)?;
        let first = log.ranges.iter().map(|range| range.first).min()?;
        let seconds = u64::try_from(log.last()?.duration_since(first).as_secs()).unwrap_or(0).max(1);
        let sum = |part: fn(&LogRange) -> u64| log.ranges.iter().map(part).fold(0, u64::saturating_add);
        Some(Self {
            lineage: log.lineage,
            now,
            end: log.ranges.iter().map(|range| range.end).max()?,
            offsets: sum(|range| range.end.saturating_sub(range.start)),
            bytes: sum(|range| range.bytes),
            seconds,
            with_backups: facts.backups.iter().any(|backup| backup.position.is_some()),
        })
    }

    fn offset(&self, at: Timestamp) -> u64 {
        self.end.saturating_add(self.share(self.offsets, self.now, at))
    }

    fn piece(&self, first: Timestamp, last: Timestamp) -> LogRange {
        let bytes = self.share(self.bytes, first, last);
        LogRange { start: self.offset(first), end: self.offset(last), first, last, bytes }
    }

    /// What of `whole`, which took all the seconds, falls on the time between two moments.
    fn share(&self, whole: u64, from: Timestamp, to: Timestamp) -> u64 {
        let seconds = u128::try_from(to.duration_since(from).as_secs()).unwrap_or(0);
        u64::try_from(u128::from(whole) * seconds / u128::from(self.seconds)).unwrap_or(u64::MAX)
    }
}
