//! The map that the server's own summaries make.
//!
//! From version 17 on a server can write down which blocks its log changes ("WAL Summarization" in the manual; `blkreftable.c`). A
//! summary leaves out less than it could and more than we do, and what that is, is put right here.

use super::map::{ChangeMap, ForkIndex, PER_VISIBILITY_BLOCK};
use crate::lsn::Lsn;
use crate::page::Fork;
use crate::version::ServerVersion;
use crate::wal::RelationId;

/// One row of `pg_wal_summary_contents`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summarized {
    /// The relation; number 0 stands for the database.
    pub relation: RelationId,
    /// Its fork.
    pub fork: Fork,
    /// The block.
    pub block: u32,
    /// Whether nothing is left from this block on of what was there before, instead of this block having changed.
    pub limit: bool,
}

/// Whether the records of this version name the blocks of visibility maps in which they clear bits, so that the summaries of its
/// server tell of them. Known of these minor versions and the later ones.
#[must_use]
pub fn summarizes_visibility(version: ServerVersion) -> bool {
    match version.major() {
        ..=16 => false,
        17 => version.number() >= 170_011,
        18 => version.number() >= 180_006,
        _ => true,
    }
}

impl ChangeMap {
    /// A map of the log from `start` to `end`, of which nothing is known but what [`summarized`](Self::summarized) adds.
    #[must_use]
    pub fn of_summaries(start: Lsn, end: Lsn) -> Self {
        let mut map = Self::new(start);
        map.end = end;
        map
    }

    /// Adds what a summary says.
    pub fn summarized(&mut self, row: &Summarized) {
        let Summarized { relation, fork, block, limit } = *row;
        if relation.number == 0 {
            self.databases.insert((relation.tablespace, relation.database));
            return;
        }
        let Some(index) = ForkIndex::of(fork) else { return };
        match (index, limit) {
            (ForkIndex::Visibility, true) => {
                // Where a map was cut off, the summary has the number of the table's block.
                self.fork(relation, index).insert_from(block / PER_VISIBILITY_BLOCK);
            }
            (_, true) => self.fork(relation, index).insert_from(block),
            (_, false) => self.fork(relation, index).insert(block),
        }
        if index == ForkIndex::Main {
            // A bit of a block that is gone is cleared without a record, and so is, by early minor versions, one of a changed block.
            let visibility = self.fork(relation, ForkIndex::Visibility);
            if limit {
                visibility.insert_from(block / PER_VISIBILITY_BLOCK);
            } else {
                visibility.insert(block / PER_VISIBILITY_BLOCK);
            }
        }
    }

    /// From which block of the file at `path` on nothing is left of what was there before, whatever its length says.
    #[must_use]
    pub fn reset(&self, path: &[u8]) -> Option<u32> {
        let placed = super::file::Placed::parse(path)?;
        let from = self.forks.get(&(placed.relation, ForkIndex::of(placed.fork)?))?.from?;
        let first = u64::from(placed.segment) * super::map::PER_SEGMENT;
        u32::try_from(u64::from(from).saturating_sub(first)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::Changed;

    fn row(number: u32, fork: Fork, block: u32, limit: bool) -> Summarized {
        let relation = RelationId { tablespace: 1663, database: 5, number };
        Summarized { relation, fork, block, limit }
    }

    #[test]
    fn a_summary_is_a_map() {
        let mut map = ChangeMap::of_summaries(Lsn(100), Lsn(200));
        for row in [
            row(7, Fork::Main, 3, false),
            row(7, Fork::Main, 140_000, false),
            row(8, Fork::Main, 70_000, true),
            row(8, Fork::Main, 80_000, false),
            row(9, Fork::Visibility, 70_000, true),
            row(9, Fork::FreeSpace, 1, false),
        ] {
            map.summarized(&row);
        }
        assert_eq!((map.start(), map.end(), map.doubt()), (Lsn(100), Lsn(200), None));
        let blocks = |path: &str| match map.file(path.as_bytes()) {
            Changed::Blocks(ranges) => ranges.into_iter().map(|range| (range.start, range.end)).collect(),
            Changed::Whole => vec![(0, u32::MAX)],
            Changed::Unchanged => Vec::new(),
        };
        assert_eq!(blocks("base/5/7"), [(3, 4)]);
        assert_eq!(blocks("base/5/7.1"), [(8928, 8929)]);
        assert_eq!(blocks("base/5/7_vm"), [(0, 1), (4, 5)]);
        assert_eq!(blocks("base/5/8"), [(70_000, 131_072)]);
        assert_eq!(blocks("base/5/8_vm"), [(2, 131_072)]);
        assert_eq!(blocks("base/5/9_vm"), [(2, 131_072)]);
        assert_eq!(blocks("base/5/10"), []);
        let reset = |path: &str| map.reset(path.as_bytes());
        assert_eq!((reset("base/5/7"), reset("base/5/8"), reset("base/5/8.1")), (None, Some(70_000), Some(0)));
        assert_eq!((reset("base/5/8_vm"), reset("base/5/9_vm"), reset("base/6/8")), (Some(2), Some(2), None));
        map.summarized(&row(0, Fork::Main, 0, true));
        assert_eq!(map.file(b"base/5/10"), Changed::Whole);
        assert_eq!(map.file(b"base/6/10"), Changed::Unchanged);
    }

    #[test]
    fn versions_that_forget_visibility_maps() {
        let told = [170_010, 170_011, 180_005, 180_006, 160_099]
            .map(|n| summarizes_visibility(ServerVersion::new(n).unwrap()));
        assert_eq!(told, [false, true, false, true, false]);
    }
}
