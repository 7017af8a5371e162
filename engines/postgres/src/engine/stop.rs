//! Where a recovery stops: every target becomes a record of the stored log.
//!
//! A server is never told a time, a name or a transaction, and never "the end": it is told the position of the last record that it
//! applies, and that record has been seen. So a target that the log does not hold is refused before anything is written, and a log that
//! ends early can't be mistaken for a target that was reached.
//!
//! The meaning is the server's own (`recoveryStopsBefore` and `recoveryStopsAfter`, `xlogrecovery.c`): a time stops before the first
//! commit that is later, or at least as late when it is exclusive; a position stops behind the first record that begins there or later,
//! or before it.

use backup_core::engine::RestoreLog;
use backup_core::log::LogRange;
use backup_core::{Error, Goal, Lineage, RecoveryTarget, Result};
use jiff::{SignedDuration, Timestamp};

use super::scan::{self, Place};
use crate::capture;
use crate::lsn::{Lsn, TimelineId};
use crate::wal::{Event, Record, WalFormat};

/// The last record that is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    /// The timeline that is followed to it.
    pub(super) timeline: TimelineId,
    /// Where it begins.
    pub(super) record: Lsn,
    /// Where it ends: log is needed up to here.
    pub(super) end: Lsn,
}

/// The record at which a recovery to `target` stops. None when it is the end of the backup itself.
///
/// # Errors
/// InvalidInput when the log does not hold the target.
pub(super) async fn resolve(log: &RestoreLog, target: &RecoveryTarget) -> Result<Option<Stop>> {
    match &target.goal {
        Goal::Backup(_) => Ok(None),
        Goal::Latest => Ok(scan::last(log, log.path()).await?.map(at)),
        Goal::Time(time) => by_time(log, *time, target.inclusive).await,
        Goal::Position(text) => by_position(log, target, text).await,
        Goal::Named(name) => {
            let places = log.named(name).await?;
            let Some((position, _)) = places.first() else { return Err(absent(target)) };
            let offset = position.offset;
            let named = |record: &Record| Ok(record.end.0 == offset);
            behind_or_before(log, target, search(log, &position.lineage, offset, named).await?)
        }
        Goal::Transaction(name) => {
            let xid: u32 = name.parse().map_err(|_| Error::invalid(format!("{name:?} is no transaction id")))?;
            let found = scan::first(log, log.path(), None, |record| scan::ends(record, xid)).await?;
            behind_or_before(log, target, found)
        }
        _ => Err(Error::invalid(format!("PostgreSQL cannot be restored to {target}"))),
    }
}

fn absent(target: &RecoveryTarget) -> Error {
    Error::invalid(format!("{target} is not in the log behind the backup"))
}

/// Stops behind `place`.
fn at(place: Place) -> Stop {
    Stop { timeline: place.timeline, record: place.start, end: place.end }
}

/// Stops before `place`: behind the record before it. None when that one is part of the backup.
fn before(log: &RestoreLog, place: Place) -> Result<Option<Stop>> {
    let from = &log.path().from;
    let own = capture::lineage_of(place.timeline) == from.lineage || log.path().ranges.len() == 1;
    if own && place.prev.0 < from.offset {
        return Ok(None);
    }
    // The first record of a timeline stands behind one of the timeline before.
    let mut ranges = log.path().ranges.iter().rev().skip_while(|r| r.lineage != capture::lineage_of(place.timeline));
    let range = ranges.find(|range| range.start <= place.prev.0);
    match range {
        Some(range) => {
            Ok(Some(Stop { timeline: scan::timeline(&range.lineage)?, record: place.prev, end: place.start }))
        }
        None => Ok(None),
    }
}

fn behind_or_before(log: &RestoreLog, target: &RecoveryTarget, found: Option<Place>) -> Result<Option<Stop>> {
    let place = found.ok_or_else(|| absent(target))?;
    if target.inclusive { Ok(Some(at(place))) } else { before(log, place) }
}

async fn by_time(log: &RestoreLog, time: Timestamp, inclusive: bool) -> Result<Option<Stop>> {
    // Exclusive: a commit at exactly that time counts as later.
    let limit = if inclusive { time } else { time.checked_sub(SignedDuration::from_micros(1)).unwrap_or(time) };
    let Some((from, _)) = log.first_later(limit).await? else {
        return Ok(scan::last(log, log.path()).await?.map(at));
    };
    let later = |record: &Record| {
        Ok(match record.event()? {
            Some(Event::Commit(end) | Event::CommitPrepared(end)) => end.time > limit,
            _ => false,
        })
    };
    match scan::first(log, log.path(), Some((&from.lineage, from.offset)), later).await? {
        Some(place) => before(log, place),
        // Where the clock went backwards just before the backup ended, only the log itself can tell.
        None => Ok(scan::last(log, log.path()).await?.map(at)),
    }
}

/// The first record for which `wanted` holds, which is expected to begin or end at `offset` or soon behind it.
///
/// Reading can begin with any page, but behind a switch the pages of a segment are empty: then it begins with the segment. And a record
/// may have begun long before: then it begins with the log.
async fn search(
    log: &RestoreLog,
    lineage: &Lineage,
    offset: u64,
    wanted: impl Fn(&Record) -> Result<bool>,
) -> Result<Option<Place>> {
    const LONG_RECORD: u64 = 64 << 10;
    let page = u64::from(WalFormat::PAGE_SIZE);
    let segment = scan::format(log, lineage)?.segment_size().floor(Lsn(offset.saturating_sub(1))).0;
    let near = (offset.saturating_sub(LONG_RECORD) / page * page).max(segment);
    for start in [near, segment, 0] {
        if let Some(place) = scan::first(log, log.path(), Some((lineage, start)), &wanted).await? {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

async fn by_position(log: &RestoreLog, target: &RecoveryTarget, text: &str) -> Result<Option<Stop>> {
    let lsn: Lsn = text.split('@').next().unwrap_or_default().parse()?;
    let from = &log.path().from;
    if lsn.0 < from.offset {
        return Err(absent(target));
    }
    let Some(last) = scan::last(log, log.path()).await? else { return Ok(None) };
    if last.start < lsn {
        // No record begins there any more: the position is the end of the log.
        return Ok(Some(at(last)));
    }
    let within = |range: &&LogRange| (range.start..=range.end).contains(&lsn.0);
    let Some(range) = log.path().ranges.iter().rfind(within) else { return Err(absent(target)) };
    let found = search(log, &range.lineage, lsn.0, |record| Ok(record.start >= lsn)).await?;
    behind_or_before(log, target, found)
}
