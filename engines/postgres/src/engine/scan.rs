//! Reading stored log record by record.

use std::ops::ControlFlow;

use backup_core::engine::RestoreLog;
use backup_core::log::{LogPath, LogRange};
use backup_core::{Error, Lineage, Result};
use futures::stream::TryStreamExt;

use crate::capture::{self, SEGMENT_SIZE, VERSION_NUM};
use crate::lsn::{Lsn, TimelineId};
use crate::wal::{Event, Record, SegmentSize, WalFormat, WalReader};

/// How much log is looked at first when its last record is looked for: many times the usual record.
const TAIL: u64 = 256 << 10;

/// A record that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) timeline: TimelineId,
    pub(super) start: Lsn,
    pub(super) end: Lsn,
    /// Where the record before begins.
    pub(super) prev: Lsn,
}

impl Place {
    fn of(timeline: TimelineId, record: &Record) -> Self {
        Self { timeline, start: record.start, end: record.end, prev: record.prev }
    }
}

/// The timeline of a piece of log.
pub(super) fn timeline(lineage: &Lineage) -> Result<TimelineId> {
    let wrong = || Error::damaged(format!("lineage {lineage} is no timeline"));
    capture::timeline_of(lineage).ok_or_else(wrong)
}

/// How the log of `lineage` is written.
pub(super) fn format(log: &RestoreLog, lineage: &Lineage) -> Result<WalFormat> {
    let ledger = log.source().ledger();
    let wrong = |what: &str| Error::damaged(format!("lineage {lineage} has no readable {what}"));
    let record = ledger.lineage(lineage).ok_or_else(|| wrong("record"))?;
    let number = |name: &str| record.fact(name).and_then(|text| text.parse::<u32>().ok()).ok_or_else(|| wrong(name));
    let size = SegmentSize::new(number(SEGMENT_SIZE)?)?;
    let system_id = record.source.parse().map_err(|_| wrong("system identifier"))?;
    Ok(WalFormat::new(number(VERSION_NUM)? / 10_000, size, system_id, timeline(lineage)?)?)
}

/// Reads the records of `range`, which begins with a record or with a page, and hands them to `visit` until it breaks.
async fn records<T>(
    log: &RestoreLog,
    range: &LogRange,
    mut visit: impl FnMut(&Record) -> Result<ControlFlow<T>>,
) -> Result<Option<T>> {
    let mut reader = WalReader::new(format(log, &range.lineage)?, Lsn(range.start))?.skimming();
    let mut bytes = log.source().read(range.clone());
    while let Some(piece) = bytes.try_next().await? {
        reader.push(piece);
        while let Some(record) = reader.next()? {
            if let ControlFlow::Break(found) = visit(&record)? {
                return Ok(Some(found));
            }
        }
        if reader.end().is_some() {
            break;
        }
    }
    Ok(None)
}

/// The first record for which `wanted` holds, along `path` and behind `from`, which is where a record or a page begins.
pub(super) async fn first(
    log: &RestoreLog,
    path: &LogPath,
    from: Option<(&Lineage, u64)>,
    wanted: impl Fn(&Record) -> Result<bool>,
) -> Result<Option<Place>> {
    let mut waiting = from;
    for range in &path.ranges {
        let mut range = range.clone();
        if let Some((lineage, offset)) = waiting {
            if *lineage != range.lineage || offset >= range.end {
                continue;
            }
            range.start = range.start.max(offset);
            waiting = None;
        }
        let timeline = timeline(&range.lineage)?;
        let found = records(log, &range, |record| {
            Ok(if wanted(record)? {
                ControlFlow::Break(Place::of(timeline, record))
            } else {
                ControlFlow::Continue(())
            })
        });
        if let Some(place) = found.await? {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// The last whole record along `path`.
pub(super) async fn last(log: &RestoreLog, path: &LogPath) -> Result<Option<Place>> {
    for range in path.ranges.iter().rev() {
        let page = u64::from(WalFormat::PAGE_SIZE);
        let timeline = timeline(&range.lineage)?;
        let mut tail = TAIL;
        loop {
            let page_start = range.end.saturating_sub(tail) / page * page;
            let start = if page_start <= range.start { range.start } else { page_start };
            let part = LogRange::new(range.lineage.clone(), start..range.end);
            let mut place = None;
            let seen = |record: &Record| {
                place = Some(Place::of(timeline, record));
                Ok(ControlFlow::<()>::Continue(()))
            };
            records(log, &part, seen).await?;
            if place.is_some() {
                return Ok(place);
            }
            if start == range.start {
                break;
            }
            tail = tail.saturating_mul(16);
        }
    }
    Ok(None)
}

/// Whether the record ends transaction `xid`.
pub(super) fn ends(record: &Record, xid: u32) -> Result<bool> {
    Ok(matches!(
        record.event()?,
        Some(Event::Commit(end) | Event::CommitPrepared(end) | Event::Abort(end) | Event::AbortPrepared(end)) if end.xid == xid
    ))
}

/// Where transaction `xid` ended.
pub(super) async fn transaction(log: &RestoreLog, xid: u32) -> Result<Option<(Lineage, u64)>> {
    let found = first(log, log.path(), None, |record| ends(record, xid)).await?;
    Ok(found.map(|place| (capture::lineage_of(place.timeline), place.end.0)))
}
