//! The ledger: which log is stored, and what follows from it.
//!
//! Pure. It is made of the catalog's [`LogState`] and of the intervals that stored objects cover, and answers every question
//! about what can be restored without looking at a byte of the log.

use std::collections::{BTreeMap, BTreeSet};

use super::{BackupPoint, Hole, Intervals, LineageRecord, LogRange, LogState, Window};
use crate::position::{Lineage, LogPosition};

/// Which log of a service is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// In the order in which they were met.
    order: Vec<Lineage>,
    branches: BTreeMap<Lineage, Branch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Branch {
    record: LineageRecord,
    covered: Intervals,
    /// Why log is missing, by where it is.
    reasons: Vec<(LogRange, String)>,
}

/// Log without a hole, along a line of lineages.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogPath {
    /// Where it begins.
    pub from: LogPosition,
    /// Its pieces: each goes on where the one before was left. Empty when there is no log behind `from`.
    pub ranges: Vec<LogRange>,
}

impl LogPath {
    /// A path of no log.
    #[must_use]
    pub fn none(from: LogPosition) -> Self {
        Self { from, ranges: Vec::new() }
    }

    /// Bytes of log.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(LogRange::len).sum()
    }

    /// Whether there is no log.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lineage and offset of its end.
    #[must_use]
    pub fn end(&self) -> (&Lineage, u64) {
        self.ranges.last().map_or((&self.from.lineage, self.from.offset), |range| (&range.lineage, range.end))
    }

    /// Whether a restore along it passes `offset` of `lineage`, its beginning and its end included.
    #[must_use]
    pub fn passes(&self, lineage: &Lineage, offset: u64) -> bool {
        let begins = self.from.lineage == *lineage && self.from.offset == offset;
        let within = |range: &LogRange| range.lineage == *lineage && (range.start..=range.end).contains(&offset);
        begins || self.ranges.iter().any(within)
    }

    /// The path up to `offset` of `lineage`, which it must pass.
    #[must_use]
    pub fn until(&self, lineage: &Lineage, offset: u64) -> Self {
        let mut ranges = Vec::new();
        if !(self.from.lineage == *lineage && self.from.offset == offset) {
            for range in &self.ranges {
                if range.lineage == *lineage && (range.start..=range.end).contains(&offset) {
                    ranges.push(LogRange::new(range.lineage.clone(), range.start..offset));
                    break;
                }
                ranges.push(range.clone());
            }
        }
        ranges.retain(|range| !range.is_empty());
        Self { from: self.from.clone(), ranges }
    }

    /// Whether `other` is this path, or a beginning of it.
    fn begins_with(&self, other: &Self) -> bool {
        let (lineage, offset) = other.end();
        self.from == other.from && self.passes(lineage, offset)
    }
}

impl Ledger {
    /// The ledger of what the journal tells and of the intervals that are stored.
    #[must_use]
    pub fn new(state: &LogState, covered: impl IntoIterator<Item = LogRange>) -> Self {
        let mut stored: BTreeMap<Lineage, Vec<std::ops::Range<u64>>> = BTreeMap::new();
        for range in covered {
            let kept = range.start.max(state.expired_before(&range.lineage))..range.end;
            stored.entry(range.lineage).or_default().push(kept);
        }
        let branches = state.lineages().iter().map(|record| {
            let lineage = record.lineage.clone();
            let ranges = stored.remove(&lineage).unwrap_or_default();
            let covered = Intervals::new(ranges, &state.breaks(&lineage));
            let gaps = state.gaps().iter().filter(|gap| gap.range.lineage == lineage);
            let damages = state.damages().values().filter(|damage| damage.range.lineage == lineage);
            let reasons = gaps.map(|gap| (gap.range.clone(), gap.reason.clone()));
            let reasons = reasons.chain(damages.map(|damage| {
                (damage.range.clone(), format!("object {} is damaged: {}", damage.object, damage.problem))
            }));
            let reasons = reasons.collect();
            (lineage, Branch { record: record.clone(), covered, reasons })
        });
        let branches = branches.collect();
        Self { order: state.lineages().iter().map(|record| record.lineage.clone()).collect(), branches }
    }

    /// The lineages, in the order in which they were met.
    pub fn lineages(&self) -> impl DoubleEndedIterator<Item = &LineageRecord> {
        self.order.iter().filter_map(|lineage| self.lineage(lineage))
    }

    /// One lineage.
    #[must_use]
    pub fn lineage(&self, lineage: &Lineage) -> Option<&LineageRecord> {
        self.branches.get(lineage).map(|branch| &branch.record)
    }

    /// The lineage that the source follows, as far as it is known: of those that no other was forked from, the one that was
    /// met last. An ancestor may be met after its successor, when its log is imported.
    #[must_use]
    pub fn trunk(&self) -> Option<&Lineage> {
        let left = |lineage: &&Lineage| {
            let forks = self.branches.values().filter_map(|branch| branch.record.fork.as_ref());
            forks.filter(|fork| fork.lineage == **lineage).count() > 0
        };
        self.order.iter().rev().find(|lineage| !left(lineage)).or(self.order.last())
    }

    /// What is stored of `lineage`.
    #[must_use]
    pub fn covered(&self, lineage: &Lineage) -> &Intervals {
        static NOTHING: std::sync::OnceLock<Intervals> = std::sync::OnceLock::new();
        self.branches.get(lineage).map_or_else(|| NOTHING.get_or_init(Intervals::default), |branch| &branch.covered)
    }

    /// Position `offset` of `lineage`, in its notation.
    #[must_use]
    pub fn position(&self, lineage: &Lineage, offset: u64) -> LogPosition {
        self.lineage(lineage).map_or_else(
            || LogPosition::new(lineage.clone(), offset, offset.to_string()),
            |record| record.position(offset),
        )
    }

    /// How `lineage` is reached from its root: each lineage with the offsets in which it is followed. The last one has no end.
    #[must_use]
    pub fn ancestry(&self, lineage: &Lineage) -> Vec<LogRange> {
        let mut line = Vec::new();
        let mut seen = BTreeSet::new();
        let (mut next, mut end) = (lineage.clone(), u64::MAX);
        // Forks that form a circle are nonsense that only a broken writer could commit.
        while seen.insert(next.clone()) {
            let fork = self.lineage(&next).and_then(|record| record.fork.clone());
            let start = fork.as_ref().map_or(0, |fork| fork.offset);
            line.push(LogRange::new(next, start.min(end)..end));
            let Some(fork) = fork else { break };
            (next, end) = (fork.lineage, fork.offset.min(end));
        }
        line.reverse();
        line
    }

    /// The log from `from` on towards the end of `lineage`, as far as it has no hole. None when `from` is not on the way to it.
    #[must_use]
    pub fn path(&self, from: &LogPosition, lineage: &Lineage) -> Option<LogPath> {
        let line = self.ancestry(lineage);
        let number = line.iter().position(|range| range.lineage == from.lineage)?;
        if !(line[number].start..=line[number].end).contains(&from.offset) {
            return None;
        }
        let mut path = LogPath::none(from.clone());
        let mut at = from.offset;
        for followed in &line[number..] {
            at = at.max(followed.start);
            if at < followed.end {
                let Some(found) = self.covered(&followed.lineage).containing(at) else { break };
                let end = found.end.min(followed.end);
                path.ranges.push(LogRange::new(followed.lineage.clone(), at..end));
                if end < followed.end {
                    break;
                }
            }
            at = followed.end;
        }
        Some(path)
    }

    /// The ways that the log goes on behind `from`, none of which is only the beginning of another: first the one along the
    /// history that the source follows.
    #[must_use]
    pub fn paths(&self, from: &LogPosition) -> Vec<LogPath> {
        let mut paths: Vec<LogPath> = Vec::new();
        let known = self.order.iter().rev().filter_map(|lineage| self.path(from, lineage));
        let mut known: Vec<_> = known.collect();
        if known.is_empty() {
            known.push(LogPath::none(from.clone()));
        }
        for path in known {
            if paths.iter().any(|longer| longer.begins_with(&path)) {
                continue;
            }
            paths.retain(|shorter| !path.begins_with(shorter));
            paths.push(path);
        }
        paths
    }

    /// What can be restored from `backups`: the windows of the history that the source follows first, each with its backups.
    #[must_use]
    pub fn windows(&self, backups: impl IntoIterator<Item = BackupPoint>) -> Vec<Window> {
        let trunk = self.trunk().map(|trunk| self.ancestry(trunk)).unwrap_or_default();
        let mut windows: Vec<Window> = Vec::new();
        let mut backups: Vec<_> = backups.into_iter().collect();
        // Along a history offsets grow; between histories the moment has to do.
        backups.sort_by_key(|backup| (backup.at, backup.stop.offset, backup.id));
        for backup in backups {
            for path in self.paths(&backup.stop) {
                let (lineage, offset) = path.end();
                let to = self.position(lineage, offset);
                let same = |window: &&mut Window| {
                    window.to == to && window.path.passes(&backup.stop.lineage, backup.stop.offset)
                };
                if let Some(window) = windows.iter_mut().find(same) {
                    window.backups.push(backup.clone());
                    continue;
                }
                let on_trunk =
                    trunk.is_empty() || trunk.iter().any(|range| range.lineage == *lineage && offset <= range.end);
                windows.push(Window { backups: vec![backup.clone()], path, to, orphaned: !on_trunk });
            }
        }
        windows.sort_by_key(|window| window.orphaned);
        windows
    }

    /// What is missing between what is stored, lineage by lineage. What comes before the first stored piece of the first
    /// lineage, and behind the last piece of the last one, is not missing.
    #[must_use]
    pub fn holes(&self) -> Vec<Hole> {
        let mut holes = Vec::new();
        for lineage in &self.order {
            let Some(branch) = self.branches.get(lineage) else { continue };
            let pieces = branch.covered.as_slice();
            // A lineage goes on at least up to where another one was forked from it, if that one is stored.
            let forks = self.branches.values().filter(|other| !other.covered.is_empty());
            let forks = forks.filter_map(|other| other.record.fork.as_ref().filter(|fork| fork.lineage == *lineage));
            let needed = forks.map(|fork| fork.offset).max();
            let mut at = match &branch.record.fork {
                Some(fork) if !pieces.is_empty() && !self.covered(&fork.lineage).is_empty() => Some(fork.offset),
                _ => None,
            };
            for piece in pieces {
                if let Some(before) = at
                    && (before < piece.start || (before == piece.start && before != pieces[0].start))
                {
                    holes.push(self.hole(lineage, before, piece.start));
                }
                at = Some(piece.end);
            }
            if let (Some(before), Some(needed)) = (at, needed)
                && before < needed
            {
                holes.push(self.hole(lineage, before, needed));
            }
        }
        holes
    }

    /// The first hole in `range`: from where the log ends or was cut to where it goes on, or to the end of the range when it does
    /// not. None when all of the range is stored.
    #[must_use]
    pub fn first_hole(&self, range: &LogRange) -> Option<Hole> {
        let covered = self.covered(&range.lineage);
        if covered.contains(&range.offsets()) {
            return None;
        }
        let at = covered.containing(range.start).map_or(range.start, |found| found.end);
        let next = covered.next_from(at).map_or(range.end, |next| next.start);
        Some(self.hole(&range.lineage, at, next))
    }

    fn hole(&self, lineage: &Lineage, start: u64, end: u64) -> Hole {
        let reasons = self.branches.get(lineage).map(|branch| &branch.reasons);
        let meets = |range: &LogRange| range.start <= end && start <= range.end;
        let reason = reasons.and_then(|all| all.iter().rev().find(|(range, _)| meets(range)));
        Hole {
            range: LogRange::new(lineage.clone(), start..end),
            from: self.position(lineage, start),
            to: self.position(lineage, end),
            reason: reason.map(|(_, reason)| reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
