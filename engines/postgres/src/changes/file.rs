//! What a map says about one file.

use std::ops::Range;

use crate::page::{Fork, RelationFile};
use crate::wal::RelationId;

/// `DEFAULTTABLESPACE_OID`, the directory `base`.
const DEFAULT_TABLESPACE: u32 = 1663;
/// `GLOBALTABLESPACE_OID`, the directory `global`.
const GLOBAL_TABLESPACE: u32 = 1664;

/// What may have changed in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Anything: it has to be read whole.
    Whole,
    /// These blocks of 8 KiB, counted from the start of the file: in order, not adjacent. The last range may reach beyond the
    /// end of the file. Whatever the file has beyond its former length may have changed, too.
    Blocks(Vec<Range<u32>>),
    /// Nothing, as far as it was there before.
    Unchanged,
}

/// Which relation a file is of, by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) relation: RelationId,
    pub(super) fork: Fork,
    pub(super) segment: u32,
}

impl Placed {
    /// Reads a path below the data directory, as [`RelationFile::parse_path`] does.
    pub(super) fn parse(path: &[u8]) -> Option<Self> {
        let file = RelationFile::parse_path(path)?;
        let number = |part: Option<&[u8]>| std::str::from_utf8(part?).ok()?.parse().ok();
        let mut parts = path.split(|byte| *byte == b'/');
        let (tablespace, database) = match parts.next()? {
            b"global" => (GLOBAL_TABLESPACE, 0),
            b"base" => (DEFAULT_TABLESPACE, number(parts.next())?),
            // Then `PG_<version>`, then the database.
            _ => (number(parts.next())?, number(parts.nth(1))?),
        };
        let relation = RelationId { tablespace, database, number: file.number };
        Some(Self { relation, fork: file.fork, segment: file.segment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_places() {
        let placed = |path: &str| {
            Placed::parse(path.as_bytes()).map(|placed| {
                let RelationId { tablespace, database, number } = placed.relation;
                (tablespace, database, number, placed.fork, placed.segment)
            })
        };
        assert_eq!(placed("base/16384/16385_fsm.1"), Some((1663, 16384, 16385, Fork::FreeSpace, 1)));
        assert_eq!(placed("global/1262"), Some((1664, 0, 1262, Fork::Main, 0)));
        assert_eq!(placed("pg_tblspc/99/PG_17_202406281/5/7_vm"), Some((99, 5, 7, Fork::Visibility, 0)));
        for path in ["global/pg_control", "base/5/PG_VERSION", "pg_xact/0000", "base/99999999999/5", "base/5/t3_16384"]
        {
            assert_eq!(placed(path), None, "{path}");
        }
    }
}
