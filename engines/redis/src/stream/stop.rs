//! Where in the stored log a restore to a target stops.

use backup_core::engine::RestoreLog;
use backup_core::log::LogRange;
use backup_core::{Error, Goal, Lineage, RecoveryTarget, Result};
use futures::TryStreamExt as _;
use jiff::Timestamp;

use super::cut::{Cut, limit_at};
use super::note::StreamNote;

/// A place in the log where nothing is half done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The history that is followed to it.
    pub lineage: Lineage,
    /// The offset.
    pub offset: u64,
    /// The database that the stream is in there, as far as it is known.
    pub database: Option<u64>,
}

/// Where a restore along `log` to `target` stops: behind the last whole change at or before it. `database` is the one that the stream is in
/// at the beginning of the path, as the backup says.
///
/// A position is the offset behind a change; exclusive means before the change that ends there or around it. A time is compared with the
/// moments at which changes came; where the log has no moments of its own, the index of the pieces tells them to a second.
///
/// # Errors
/// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) for a target that is not in the log, or of another kind; those of reading the log.
pub async fn stop(log: &RestoreLog, target: &RecoveryTarget, database: Option<u64>) -> Result<Stop> {
    let path = log.path();
    let (last, end) = path.end();
    let (lineage, limit) = match &target.goal {
        Goal::Backup(_) => (path.from.lineage.clone(), path.from.offset),
        Goal::Latest => (last.clone(), end),
        Goal::Position(text) => position(log, target, text)?,
        Goal::Time(time) => time_limit(log, *time, target.inclusive).await?.unwrap_or((last.clone(), end)),
        _ => return Err(Error::invalid(format!("redis cannot be restored to {target}"))),
    };
    walk(log, &lineage, limit, database).await
}

fn position(log: &RestoreLog, target: &RecoveryTarget, text: &str) -> Result<(Lineage, u64)> {
    let absent = || Error::invalid(format!("{target} is not in the log behind the backup"));
    let offset: u64 = text.split('@').next().unwrap_or_default().parse().map_err(|_| absent())?;
    let limit = if target.inclusive { offset } else { offset.saturating_sub(1) };
    let from = &log.path().from;
    if offset < from.offset {
        return Err(absent());
    }
    let within = |range: &&LogRange| (range.start..=range.end).contains(&offset);
    match log.path().ranges.iter().rfind(within) {
        Some(range) => Ok((range.lineage.clone(), limit.max(range.start))),
        None if offset == from.offset => Ok((from.lineage.clone(), offset)),
        None => Err(absent()),
    }
}

/// The last place before the first change that is known to have come later than `time`. None when there is none.
async fn time_limit(log: &RestoreLog, time: Timestamp, inclusive: bool) -> Result<Option<(Lineage, u64)>> {
    for range in &log.path().ranges {
        let mut pieces = log.source().index(range.clone());
        while let Some((_, index)) = pieces.try_next().await? {
            let notes: Vec<_> =
                index.notes.iter().filter_map(|note| StreamNote::decode(note.offset, &note.bytes)).collect();
            let own = limit_at(&notes, range.start, time, inclusive);
            // The index of the piece keeps the moments of some changes, too; notes may have been lost.
            let later = index
                .samples
                .iter()
                .find(|sample| sample.offset > range.start && (sample.at > time || (!inclusive && sample.at == time)));
            let coarse = later.map(|sample| sample.offset - 1);
            if let Some(limit) = own.into_iter().chain(coarse).min() {
                return Ok(Some((range.lineage.clone(), limit.clamp(range.start, range.end))));
            }
        }
    }
    Ok(None)
}

/// The last place at or before `limit` of `lineage` where nothing is half done.
async fn walk(log: &RestoreLog, lineage: &Lineage, limit: u64, database: Option<u64>) -> Result<Stop> {
    let from = &log.path().from;
    let mut stop = Stop { lineage: from.lineage.clone(), offset: from.offset, database };
    if *lineage == from.lineage && limit <= from.offset {
        return Ok(stop);
    }
    // Offsets go on from one history to the next, and so does what is in them.
    let mut cut = Cut::new(from.offset, database, from.offset);
    for range in &log.path().ranges {
        let is_last = range.lineage == *lineage;
        cut.extend(if is_last { limit.min(range.end) } else { range.end });
        let mut bytes = log.source().read(range.clone());
        while let Some(bytes) = bytes.try_next().await? {
            if !cut.push(&bytes)? {
                break;
            }
        }
        if cut.stop() > range.start || stop.lineage == range.lineage {
            stop = Stop { lineage: range.lineage.clone(), offset: cut.stop(), database: cut.database() };
        }
        if is_last {
            break;
        }
    }
    Ok(stop)
}
