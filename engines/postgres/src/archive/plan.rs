//! Which segments the stored log makes. Nothing here does I/O.

use std::collections::BTreeSet;

use backup_core::log::{Ledger, LineageRecord, LogRange};
use backup_core::{Error, Result};

use super::LogExport;
use super::files::Segment;
use crate::capture::{SEGMENT_SIZE, timeline_of};
use crate::lsn::Lsn;
use crate::wal::SegmentSize;

/// Segments that follow each other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) size: SegmentSize,
    pub(super) segments: Vec<Segment>,
    /// Their log, in order.
    pub(super) ranges: Vec<LogRange>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) runs: Vec<Run>,
    /// Segments of which the beginning is not stored.
    pub(super) headless: u64,
}

/// The segments that hold stored log of any timeline, as far as they are whole from their first byte on.
///
/// # Errors
/// InvalidInput for a lineage that no capture of this engine has written.
pub(super) fn plan(ledger: &Ledger, wanted: &LogExport) -> Result<Plan> {
    let mut plan = Plan::default();
    for record in ledger.lineages() {
        timeline(ledger, record, wanted, &mut plan)?;
    }
    Ok(plan)
}

fn timeline(ledger: &Ledger, record: &LineageRecord, wanted: &LogExport, plan: &mut Plan) -> Result<()> {
    let lineage = &record.lineage;
    let unknown =
        || Error::invalid(format!("the stored log is not one of PostgreSQL: lineage {lineage} is no timeline"));
    let timeline = timeline_of(lineage).ok_or_else(unknown)?;
    let size = record.fact(SEGMENT_SIZE).ok_or_else(unknown)?.parse::<SegmentSize>()?;
    let line = ledger.ancestry(lineage);
    let fork = line.last().map_or(0, |own| own.start);
    let from = wanted.from.map_or(0, |from| size.floor(from).0);
    let until = wanted
        .until
        .map_or(u64::MAX, |until| size.floor(Lsn(until.0.saturating_sub(1))).0.saturating_add(size.bytes()));
    let mut headless = BTreeSet::new();
    let mut done = 0;
    for own in ledger.covered(lineage).as_slice() {
        let (mut start, end) = (size.floor(Lsn(own.start.max(fork))).0.max(done).max(from), own.end.min(until));
        while start < end {
            // What comes before a fork was written by the timeline before.
            let before = line.iter().find(|part| part.start <= start && start < part.end);
            let path = before.and_then(|part| ledger.path(&ledger.position(&part.lineage, start), lineage));
            let Some(path) = path.filter(|path| path.passes(lineage, own.start.max(start).max(fork))) else {
                headless.insert(start);
                start += size.bytes();
                continue;
            };
            let end = path.end().1.min(until);
            let cut = |at: u64| {
                let end = Lsn((at + size.bytes()).min(end));
                let partial = end.0 - at < size.bytes();
                Segment { name: size.name(timeline, Lsn(at)), partial, start: Lsn(at), end }
            };
            let segments = (0..).map(|number| start + number * size.bytes()).take_while(|at| *at < end).map(cut);
            let segments: Vec<_> = segments.collect();
            let ranges = path.until(lineage, end).ranges;
            plan.runs.push(Run { size, segments, ranges });
            start = size.floor(Lsn(end)).0 + if end.is_multiple_of(size.bytes()) { 0 } else { size.bytes() };
        }
        done = done.max(start);
    }
    plan.headless += headless.len() as u64;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::lineage_of;
    use crate::lsn::TimelineId;
    use backup_core::catalog::{Catalog, Event};
    use backup_core::log::{LineageRecord, Notation};

    const MIB: u64 = 1 << 20;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn range(number: u32, offsets: std::ops::Range<u64>) -> LogRange {
        LogRange::new(lineage_of(timeline(number)), offsets)
    }

    /// Timelines with segments of 1 MiB, the second one left the first at `fork`.
    fn ledger(fork: u64, covered: &[LogRange]) -> Ledger {
        let mut catalog = Catalog::default();
        for number in [1, 2] {
            let at = "2026-01-01T00:00:00Z".parse().unwrap();
            let mut record = LineageRecord::new(lineage_of(timeline(number)), "7", Notation::HexHalves, at)
                .with_fact(SEGMENT_SIZE, MIB.to_string());
            if number == 2 {
                record = record.with_fork(lineage_of(timeline(1)), fork);
            }
            catalog.apply(&Event::LineageAdded { record: Box::new(record) }).unwrap();
        }
        Ledger::new(catalog.log(), covered.to_vec())
    }

    /// Each file, with where its log begins and ends.
    fn files(plan: &Plan) -> Vec<(String, u64, u64)> {
        let segments = plan.runs.iter().flat_map(|run| &run.segments);
        segments.map(|segment| (segment.file_name(), segment.start.0, segment.end.0)).collect()
    }

    fn name(number: u32, segment: u64, suffix: &str) -> String {
        format!("{number:08X}00000000{segment:08X}{suffix}")
    }

    #[test]
    fn a_timeline_ends_in_a_partial_segment_and_the_next_one_has_it_whole() {
        let fork = 5 * MIB + 300;
        let ledger = ledger(fork, &[range(1, 3 * MIB..fork), range(2, fork..7 * MIB)]);
        let plan = super::plan(&ledger, &LogExport::default()).unwrap();
        assert_eq!(
            files(&plan),
            [
                (name(1, 3, ""), 3 * MIB, 4 * MIB),
                (name(1, 4, ""), 4 * MIB, 5 * MIB),
                (name(1, 5, ".partial"), 5 * MIB, fork),
                (name(2, 5, ""), 5 * MIB, 6 * MIB),
                (name(2, 6, ""), 6 * MIB, 7 * MIB),
            ]
        );
        // The bytes before the fork are those of the timeline before.
        assert_eq!(plan.runs[1].ranges, [range(1, 5 * MIB..fork), range(2, fork..7 * MIB)]);
        assert_eq!(plan.headless, 0);
        // What a primary wrote that lost: its segment has other bytes under another name.
        let ledger = self::ledger(fork, &[range(1, 3 * MIB..6 * MIB), range(2, fork..7 * MIB)]);
        let plan = super::plan(&ledger, &LogExport::default()).unwrap();
        assert!(files(&plan).contains(&(name(1, 5, ""), 5 * MIB, 6 * MIB)));
        assert_eq!(plan.runs[1].ranges, [range(1, 5 * MIB..fork), range(2, fork..7 * MIB)]);
    }

    #[test]
    fn what_a_segment_begins_with_must_be_stored() {
        // Captured from inside a segment, with a hole inside another one.
        let covered = [range(1, MIB + 5..3 * MIB + 10), range(1, 3 * MIB + 20..5 * MIB)];
        let ledger = ledger(9 * MIB, &covered);
        let plan = super::plan(&ledger, &LogExport::default()).unwrap();
        assert_eq!(
            files(&plan),
            [
                (name(1, 2, ""), 2 * MIB, 3 * MIB),
                (name(1, 3, ".partial"), 3 * MIB, 3 * MIB + 10),
                (name(1, 4, ""), 4 * MIB, 5 * MIB),
            ]
        );
        assert_eq!(plan.headless, 1);
        // A timeline whose ancestor is not stored.
        let fork = 5 * MIB + 300;
        let ledger = self::ledger(fork, &[range(2, fork..7 * MIB)]);
        let plan = super::plan(&ledger, &LogExport::default()).unwrap();
        assert_eq!(files(&plan), [(name(2, 6, ""), 6 * MIB, 7 * MIB)]);
        assert_eq!(plan.headless, 1);
    }

    #[test]
    fn the_log_of_something_else_is_refused() {
        let mut catalog = Catalog::default();
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        let record = LineageRecord::new(backup_core::Lineage::new("8371b4fb"), "7", Notation::Decimal, at);
        catalog.apply(&Event::LineageAdded { record: Box::new(record) }).unwrap();
        let ledger = Ledger::new(catalog.log(), []);
        let error = super::plan(&ledger, &LogExport::default()).unwrap_err();
        assert_eq!(error.kind(), backup_core::ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("8371b4fb"), "{error}");
    }

    #[test]
    fn segments_that_meet_what_is_wanted_are_taken() {
        let ledger = ledger(9 * MIB, &[range(1, MIB..8 * MIB + 1)]);
        let numbers = |wanted: LogExport| -> Vec<u64> {
            files(&super::plan(&ledger, &wanted).unwrap()).iter().map(|(_, start, _)| start / MIB).collect()
        };
        let wanted = LogExport::default();
        assert_eq!(numbers(wanted), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(numbers(wanted.from(Lsn(6 * MIB - 1))), [5, 6, 7, 8]);
        assert_eq!(numbers(wanted.from(Lsn(6 * MIB))), [6, 7, 8]);
        assert_eq!(numbers(wanted.until(Lsn(3 * MIB))), [1, 2]);
        assert_eq!(numbers(wanted.until(Lsn(3 * MIB + 1))), [1, 2, 3]);
        assert_eq!(numbers(wanted.from(Lsn(3 * MIB)).until(Lsn(3 * MIB + 7))), [3]);
        assert_eq!(numbers(wanted.until(Lsn(0))), [0_u64; 0]);
        assert_eq!(numbers(wanted.until(Lsn(u64::MAX))), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(numbers(wanted.from(Lsn(u64::MAX))), [0_u64; 0]);
        assert_eq!(numbers(wanted.from(Lsn(60 * MIB))), [0_u64; 0]);
    }
}
