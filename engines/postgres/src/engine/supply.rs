//! The log that a restored server needs: what its backup has, and what was captured behind it.
//!
//! Along the way from a backup to a target offsets only grow, whatever timelines they belong to: so there is one line of bytes, and
//! each of them comes from the backup's own segments before the backup's end, and from the captured log behind it.

use std::sync::Arc;

use backup_core::engine::{BackupSource, RestoreLog};
use backup_core::entry::EntryPath;
use backup_core::log::LogRange;
use backup_core::{Error, Result};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::facts::Facts;
use super::scan;
use super::stop::Stop;
use crate::archive::Segment;
use crate::capture::{self, HISTORY};
use crate::lsn::{Lsn, TimelineId};
use crate::wal::SegmentSize;

/// The line of log from a backup to where its recovery stops.
#[derive(Debug, Clone)]
pub(super) struct Supply {
    source: Arc<dyn BackupSource>,
    log: RestoreLog,
    facts: Facts,
    stop: Stop,
    /// From the backup's end to the stop.
    ranges: Vec<LogRange>,
}

impl Supply {
    pub(super) fn new(source: Arc<dyn BackupSource>, log: RestoreLog, facts: Facts, stop: Stop) -> Self {
        let path = log.path().until(&capture::lineage_of(stop.timeline), stop.end.0);
        Self { source, log, facts, stop, ranges: path.ranges }
    }

    pub(super) fn stop(&self) -> Stop {
        self.stop
    }

    pub(super) fn segment_size(&self) -> SegmentSize {
        self.facts.wal_segment_size
    }

    pub(super) fn system_id(&self) -> u64 {
        self.facts.system_id
    }

    /// The first byte that there is.
    pub(super) fn first(&self) -> Lsn {
        self.facts.wal_segment_size.floor(self.facts.start)
    }

    /// The segments from the one in which the backup ends on, which continue what the backup has.
    pub(super) fn segments(&self) -> Result<Vec<Segment>> {
        let size = self.facts.wal_segment_size;
        let mut segments = Vec::new();
        let mut start = size.floor(self.facts.stop);
        while start < self.stop.end {
            let end = Lsn((start.0 + size.bytes()).min(self.stop.end.0));
            segments.push(Segment { name: size.name(self.timeline_before(end)?, start), partial: false, start, end });
            start = Lsn(start.0 + size.bytes());
        }
        Ok(segments)
    }

    /// The timeline of the byte before `end`.
    fn timeline_before(&self, end: Lsn) -> Result<TimelineId> {
        let range = self.ranges.iter().find(|range| range.start < end.0 && end.0 <= range.end);
        range.map_or(Ok(self.facts.timeline), |range| scan::timeline(&range.lineage))
    }

    /// Contents of the history files of all timelines that are known: a server that becomes a primary takes a number that is in none
    /// of them.
    pub(super) fn histories(&self) -> Vec<(TimelineId, Bytes)> {
        let ledger = self.log.source().ledger();
        let content = |record: &backup_core::log::LineageRecord| {
            let timeline = capture::timeline_of(&record.lineage)?;
            let content = record.fact(HISTORY).filter(|content| !content.is_empty())?;
            Some((timeline, Bytes::copy_from_slice(content.as_bytes())))
        };
        ledger.lineages().filter_map(content).collect()
    }

    /// The bytes from `start` to before `end`.
    pub(super) fn read(&self, start: Lsn, end: Lsn) -> BoxStream<'_, Result<Bytes>> {
        let mut parts: Vec<BoxStream<'_, Result<Bytes>>> = Vec::new();
        if start < self.facts.stop {
            let size = self.facts.wal_segment_size;
            let mut at = start;
            let own_end = end.min(self.facts.stop);
            while at < own_end {
                let next = Lsn((size.floor(at).0 + size.bytes()).min(own_end.0));
                let name = size.name(self.facts.timeline, at);
                match EntryPath::new(format!("pg_wal/{name}")) {
                    Ok(path) => {
                        let range = size.offset(at)..size.offset(at) + (next.0 - at.0);
                        parts.push(self.entry(path, range));
                    }
                    Err(error) => parts.push(stream::once(async { Err(error) }).boxed()),
                }
                at = next;
            }
        }
        for range in &self.ranges {
            let wanted = range.start.max(start.0)..range.end.min(end.0);
            if wanted.start < wanted.end {
                parts.push(self.log.source().read(LogRange::new(range.lineage.clone(), wanted)));
            }
        }
        stream::iter(parts).flatten().boxed()
    }

    /// A part of an entry of the backup.
    fn entry(&self, path: EntryPath, range: std::ops::Range<u64>) -> BoxStream<'_, Result<Bytes>> {
        // The stream borrows the path that it reads, so it is read whole: at most a segment, and only the first one.
        let read = async move {
            let mut bytes = BytesMut::new();
            let mut pieces = self.source.read(&path, range);
            while let Some(piece) = pieces.try_next().await? {
                bytes.extend_from_slice(&piece);
            }
            Ok::<_, Error>(bytes.freeze())
        };
        stream::once(read).boxed()
    }
}
