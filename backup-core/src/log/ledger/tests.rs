#![allow(clippy::single_range_in_vec_init, reason = "sets of offsets are compared, often of one interval")]

use super::*;
use crate::id::BackupId;
use crate::log::{LogGap, Notation};
use jiff::Timestamp;
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn name(number: u64) -> Lineage {
    Lineage::new(number.to_string())
}

fn record(number: u64, fork: Option<(u64, u64)>) -> LineageRecord {
    let record = LineageRecord::new(name(number), "source", Notation::Decimal, at(0));
    match fork {
        Some((parent, offset)) => record.with_fork(name(parent), offset),
        None => record,
    }
}

fn state(records: impl IntoIterator<Item = LineageRecord>) -> LogState {
    LogState { lineages: records.into_iter().collect(), ..LogState::default() }
}

fn range(lineage: u64, offsets: std::ops::Range<u64>) -> LogRange {
    LogRange::new(name(lineage), offsets)
}

fn backup(number: u8, lineage: u64, offset: u64) -> BackupPoint {
    let stop = LogPosition::new(name(lineage), offset, offset.to_string());
    BackupPoint::new(BackupId::from_bytes([number; 16]), stop, at(i64::from(number)))
}

fn ends(windows: &[Window]) -> Vec<(String, String, usize, bool)> {
    let end = |w: &Window| (w.from().text.clone(), w.to.text.clone(), w.backups.len(), w.orphaned);
    windows.iter().map(end).collect()
}

#[test]
fn a_window_goes_from_a_backup_to_the_first_hole() {
    let ledger = Ledger::new(&state([record(1, None)]), [range(1, 10..50), range(1, 50..70), range(1, 80..90)]);
    let windows = ledger.windows([backup(1, 1, 20), backup(2, 1, 60), backup(3, 1, 75), backup(4, 1, 85)]);
    let text = |a: &str, b: &str, n| (a.to_owned(), b.to_owned(), n, false);
    assert_eq!(ends(&windows), [text("20", "70", 2), text("75", "75", 1), text("85", "90", 1)]);
    let holes = ledger.holes();
    assert_eq!(holes.len(), 1);
    assert_eq!((holes[0].range.start, holes[0].range.end), (70, 80));
}

#[test]
fn a_window_follows_the_fork_and_the_old_history_is_an_orphan() {
    let state = state([record(1, None), record(2, Some((1, 40)))]);
    let ledger = Ledger::new(&state, [range(1, 0..55), range(2, 40..100)]);
    let windows = ledger.windows([backup(1, 1, 20), backup(2, 1, 50), backup(3, 2, 60)]);
    let text = |a: &str, b: &str, n, orphaned| (a.to_owned(), b.to_owned(), n, orphaned);
    assert_eq!(
        ends(&windows),
        [text("20", "100", 2, false), text("20", "55", 2, true)],
        "the second backup is behind the fork and reaches only the old history's end"
    );
    assert_eq!(windows[0].path.ranges, [range(1, 20..40), range(2, 40..100)]);
    assert_eq!(windows[1].path.ranges, [range(1, 20..55)]);
    assert!(ledger.holes().is_empty());
}

#[test]
fn a_backup_exactly_at_a_fork_belongs_to_both_histories() {
    let state = state([record(1, None), record(2, Some((1, 40)))]);
    let ledger = Ledger::new(&state, [range(1, 0..45), range(2, 40..60)]);
    let paths = ledger.paths(&backup(1, 1, 40).stop);
    assert_eq!(paths.len(), 2);
    assert_eq!(paths[0].ranges, [range(2, 40..60)]);
    assert_eq!(paths[1].ranges, [range(1, 40..45)]);
}

#[test]
fn log_that_a_successor_needs_and_nobody_has_is_a_hole() {
    let mut state = state([record(1, None), record(2, Some((1, 40)))]);
    state.gaps.push(LogGap { range: range(2, 40..48), reason: "removed".to_owned(), at: at(0) });
    let ledger = Ledger::new(&state, [range(1, 0..35), range(2, 48..60)]);
    let holes: Vec<_> = ledger.holes().into_iter().map(|hole| (hole.range, hole.reason)).collect();
    assert_eq!(holes, [(range(1, 35..40), None), (range(2, 40..48), Some("removed".to_owned()))]);
}

#[test]
fn a_cut_in_the_history_ends_a_window_though_no_byte_is_missing() {
    let mut state = state([record(1, None)]);
    state.gaps.push(LogGap { range: range(1, 30..30), reason: "reset".to_owned(), at: at(0) });
    let ledger = Ledger::new(&state, [range(1, 0..60)]);
    let windows = ledger.windows([backup(1, 1, 10), backup(2, 1, 40)]);
    assert_eq!(windows.iter().map(|w| w.to.offset).collect::<Vec<_>>(), [30, 60]);
    assert_eq!(ledger.holes()[0].reason.as_deref(), Some("reset"));
}

#[test]
fn expired_log_does_not_count() {
    let mut state = state([record(1, None)]);
    state.expired.insert(name(1), 25);
    let ledger = Ledger::new(&state, [range(1, 0..60)]);
    assert_eq!(ledger.covered(&name(1)).as_slice(), [25..60]);
}

#[test]
fn forks_in_a_circle_end() {
    let state = state([record(1, Some((2, 5))), record(2, Some((1, 9)))]);
    let ledger = Ledger::new(&state, [range(1, 0..60), range(2, 0..60)]);
    assert_eq!(ledger.ancestry(&name(1)).len(), 2);
    let _ = ledger.windows([backup(1, 1, 3)]);
    let _ = ledger.holes();
}

#[test]
fn an_ancestor_that_is_met_late_is_not_what_the_source_follows() {
    let state = state([record(2, Some((1, 40))), record(3, Some((2, 50))), record(1, None)]);
    let ledger = Ledger::new(&state, []);
    assert_eq!(ledger.trunk(), Some(&name(3)));
}

#[test]
fn the_first_hole_ends_where_the_log_goes_on() {
    let mut state = state([record(1, None)]);
    state.gaps.push(LogGap { range: range(1, 30..30), reason: "reset".to_owned(), at: at(0) });
    let ledger = Ledger::new(&state, [range(1, 10..40), range(1, 50..60)]);
    let hole = |asked: std::ops::Range<u64>| ledger.first_hole(&range(1, asked)).map(|hole| hole.range.offsets());
    for whole in [10..30, 30..40, 50..60, 55..55, 45..45] {
        assert_eq!(hole(whole.clone()), None, "{whole:?}");
    }
    for (asked, missing) in
        [(10..31, 30..30), (35..60, 40..50), (42..45, 42..50), (5..20, 5..10), (55..70, 60..70), (80..90, 80..90)]
    {
        assert_eq!(hole(asked.clone()), Some(missing), "{asked:?}");
    }
    assert!(ledger.first_hole(&range(1, 10..31)).unwrap().error().to_string().contains("cut at 30: reset"));
}

prop_compose! {
    /// A tree of up to four lineages, each forked from an earlier one, and pieces of log.
    fn world()(
        forks in prop::collection::vec((any::<prop::sample::Index>(), 1_u64..40), 0..4),
        pieces in prop::collection::vec((any::<prop::sample::Index>(), 0_u64..50, 1_u64..20), 0..14),
        start in (any::<prop::sample::Index>(), 0_u64..50),
    ) -> (LogState, Vec<LogRange>, LogPosition) {
        let mut records = vec![record(1, None)];
        for (number, (parent, offset)) in forks.iter().enumerate() {
            let parent = parent.index(records.len()) as u64 + 1;
            let least = records[parent as usize - 1].fork.as_ref().map_or(0, |fork| fork.offset);
            records.push(record(number as u64 + 2, Some((parent, least + offset))));
        }
        let count = records.len();
        let pieces = pieces.iter().map(|(l, from, len)| range(l.index(count) as u64 + 1, *from..from + len)).collect();
        let from = LogPosition::new(name(start.0.index(count) as u64 + 1), start.1, String::new());
        (state(records), pieces, from)
    }
}

proptest! {
    /// Compared with walking byte by byte.
    #[test]
    fn paths_are_what_a_walk_finds((state, pieces, from) in world()) {
        let ledger = Ledger::new(&state, pieces.clone());
        let stored = |lineage: &Lineage, offset: u64| {
            pieces.iter().any(|piece| piece.lineage == *lineage && piece.offsets().contains(&offset))
        };
        for target in state.lineages() {
            let line = ledger.ancestry(&target.lineage);
            let walked = line.iter().position(|r| r.lineage == from.lineage
                && r.start <= from.offset && from.offset <= r.end).map(|mut number| {
                let mut at = from.offset;
                loop {
                    while at == line[number].end && number + 1 < line.len() {
                        number += 1;
                    }
                    if at == line[number].end || !stored(&line[number].lineage, at) {
                        break at;
                    }
                    at += 1;
                }
            });
            let path = ledger.path(&from, &target.lineage);
            prop_assert_eq!(path.as_ref().map(|path| path.end().1), walked, "{}", target.lineage);
            if let Some(path) = path {
                prop_assert_eq!(path.len(), path.end().1 - from.offset);
                for range in &path.ranges {
                    prop_assert!(range.offsets().all(|offset| stored(&range.lineage, offset)));
                    for offset in [range.start, range.end] {
                        prop_assert!(path.passes(&range.lineage, offset));
                        prop_assert_eq!(path.until(&range.lineage, offset).len(), offset - from.offset);
                    }
                }
            }
        }
    }

    #[test]
    fn every_window_is_real_and_every_backup_is_in_one((state, pieces, _) in world(), stops in prop::collection::vec((1_u64..4, 0_u64..50), 1..6)) {
        let ledger = Ledger::new(&state, pieces);
        let known = state.lineages().len() as u64;
        let backups: Vec<_> = stops.iter().enumerate()
            .map(|(number, (lineage, offset))| backup(number as u8 + 1, (*lineage).min(known), *offset)).collect();
        let windows = ledger.windows(backups.clone());
        for backup in &backups {
            prop_assert!(windows.iter().any(|w| w.backups.contains(backup)));
        }
        for window in &windows {
            prop_assert!(!window.backups.is_empty());
            for backup in &window.backups {
                let (lineage, offset) = window.path.end();
                prop_assert!(ledger.paths(&backup.stop).iter().any(|path| path.passes(lineage, offset)));
            }
        }
    }
}
