//! Where a node's history continues what is stored. Pure.

use backup_core::log::Ledger;

use super::lineage::{lineage_of, timeline_of};
use crate::lsn::{Lsn, TimelineId};
use crate::wal::TimelineHistory;

/// What a node says of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) timeline: TimelineId,
    /// Where its log ends.
    pub(super) end: Lsn,
    /// How its timeline came to be.
    pub(super) history: TimelineHistory,
}

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Nothing of this history is stored.
    Begin,
    /// From here.
    From { timeline: TimelineId, at: Lsn },
    /// The node is on a timeline that the cluster has left for `stored`.
    Stale { stored: TimelineId },
    /// The node's log ends before what is stored of its own timeline.
    Behind { timeline: TimelineId, at: Lsn },
}

/// Where the history of `node` continues what is stored.
pub(super) fn route(ledger: &Ledger, node: &View) -> Route {
    if let Some(stored) = ledger.trunk().and_then(timeline_of)
        && stored > node.timeline
    {
        // A new timeline always has a higher number than every one that its server knew of.
        return Route::Stale { stored };
    }
    let mut start = Lsn(0);
    let mut line = Vec::new();
    for ancestor in &node.history.ancestors {
        line.push((ancestor.timeline, start, ancestor.end));
        start = ancestor.end;
    }
    line.push((node.timeline, start, Lsn(u64::MAX)));
    for (number, (timeline, start, end)) in line.iter().enumerate().rev() {
        let pieces = ledger.covered(&lineage_of(*timeline)).as_slice();
        let Some(last) = pieces.iter().rfind(|piece| piece.start < end.0 && piece.end > start.0) else { continue };
        if last.end >= end.0
            && let Some((next, start, _)) = line.get(number + 1)
        {
            return Route::From { timeline: *next, at: *start };
        }
        let at = Lsn(last.end);
        return if *timeline == node.timeline && at > node.end {
            Route::Behind { timeline: *timeline, at }
        } else {
            Route::From { timeline: *timeline, at }
        };
    }
    Route::Begin
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::catalog::{Catalog, Event};
    use backup_core::log::{LineageRecord, LogRange, Notation};
    use jiff::Timestamp;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    /// A ledger of timelines with their forks and what is stored of them.
    fn ledger(lines: &[(u32, Option<(u32, u64)>)], stored: &[(u32, u64, u64)]) -> Ledger {
        let mut catalog = Catalog::new();
        for (number, fork) in lines {
            let lineage = lineage_of(timeline(*number));
            let mut record = LineageRecord::new(lineage, "1", Notation::HexHalves, Timestamp::UNIX_EPOCH);
            if let Some((parent, at)) = fork {
                record = record.with_fork(lineage_of(timeline(*parent)), *at);
            }
            catalog.apply(&Event::LineageAdded { record: Box::new(record) }).unwrap();
        }
        let ranges = stored.iter().map(|(t, start, end)| LogRange::new(lineage_of(timeline(*t)), *start..*end));
        Ledger::new(catalog.log(), ranges)
    }

    fn node(number: u32, end: u64, ancestors: &[(u32, u64)]) -> View {
        let text: String = ancestors.iter().map(|(t, end)| format!("{t}\t{}\treason\n", Lsn(*end))).collect();
        let history = TimelineHistory::parse(timeline(number), text.as_bytes()).unwrap();
        View { timeline: timeline(number), end: Lsn(end), history }
    }

    fn from(number: u32, at: u64) -> Route {
        Route::From { timeline: timeline(number), at: Lsn(at) }
    }

    #[test]
    fn the_first_capture_begins() {
        assert_eq!(route(&ledger(&[], &[]), &node(1, 100, &[])), Route::Begin);
        assert_eq!(route(&ledger(&[(1, None)], &[]), &node(1, 100, &[])), Route::Begin);
    }

    #[test]
    fn a_restart_goes_on_where_the_last_piece_ended() {
        let ledger = ledger(&[(1, None)], &[(1, 10, 40), (1, 50, 80)]);
        assert_eq!(route(&ledger, &node(1, 100, &[])), from(1, 80));
        assert_eq!(route(&ledger, &node(1, 80, &[])), from(1, 80));
        assert_eq!(route(&ledger, &node(1, 79, &[])), Route::Behind { timeline: timeline(1), at: Lsn(80) });
    }

    #[test]
    fn after_a_failover_the_rest_of_the_old_timeline_comes_first() {
        let ledger = ledger(&[(1, None)], &[(1, 10, 40)]);
        assert_eq!(route(&ledger, &node(2, 100, &[(1, 60)])), from(1, 40));
        assert_eq!(route(&ledger, &node(2, 100, &[(1, 40)])), from(2, 40));
    }

    #[test]
    fn what_the_failed_primary_had_more_is_left_aside() {
        let ledger = ledger(&[(1, None)], &[(1, 10, 40)]);
        assert_eq!(route(&ledger, &node(2, 100, &[(1, 30)])), from(2, 30));
    }

    #[test]
    fn two_failovers_that_nobody_saw() {
        let ledger = ledger(&[(1, None)], &[(1, 10, 40)]);
        assert_eq!(route(&ledger, &node(3, 100, &[(1, 40), (2, 70)])), from(2, 40));
        assert_eq!(route(&ledger, &node(3, 100, &[(1, 40), (2, 40)])), from(2, 40));
    }

    #[test]
    fn a_primary_that_comes_back_is_not_followed() {
        let ledger = ledger(&[(1, None), (2, Some((1, 40)))], &[(1, 10, 45), (2, 40, 90)]);
        assert_eq!(route(&ledger, &node(1, 200, &[])), Route::Stale { stored: timeline(2) });
        assert_eq!(route(&ledger, &node(2, 90, &[(1, 40)])), from(2, 90));
    }

    #[test]
    fn a_sibling_continues_from_the_common_ancestor() {
        let ledger = ledger(&[(1, None), (2, Some((1, 40)))], &[(1, 10, 45), (2, 40, 90)]);
        assert_eq!(route(&ledger, &node(3, 100, &[(1, 43)])), from(3, 43));
        assert_eq!(route(&ledger, &node(3, 100, &[(1, 60)])), from(1, 45));
    }
}
