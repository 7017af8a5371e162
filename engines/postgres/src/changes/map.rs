//! The map and how it grows.

use std::collections::{BTreeMap, BTreeSet};

use super::blocks::{BlockSet, add_range};
use super::doubt::Doubt;
use super::file::{Changed, Placed};
use crate::lsn::Lsn;
use crate::page::{Fork, PAGE_SIZE};
use crate::wal::{self, Cursor, Event, Record, RelationId, Rmgr, WalLevel};

/// Blocks in every full segment file of a relation (`RELSEG_SIZE`, 1 GiB in every packaged server).
pub(super) const PER_SEGMENT: u64 = 131_072;
/// Blocks of a table for which one block of its visibility map has the bits (`HEAPBLOCKS_PER_PAGE`, `visibilitymap.c`): two
/// bits for each, behind a page header of 24 bytes.
pub(super) const PER_VISIBILITY_BLOCK: u32 = (PAGE_SIZE as u32 - 24) * 4;

/// Which blocks may have changed in a range of the log.
///
/// Beyond what records name, it holds:
/// - *new and shortened files* from where nothing of what was there is left, up to any end;
/// - *whole databases* that were copied file by file, made or dropped;
/// - *relations that were dropped*, whose numbers may have been given out again;
/// - *visibility maps* wherever their table was changed: clearing a bit in them has no record of its own, and the record of the
///   change names their block only in late minor versions of 17 and 18 (17.11 and 18.6 do, 16.15 does not).
///
/// Free space maps are not logged as a whole and always count as changed.
///
/// # Example
/// ```
/// use backup_postgres::changes::{ChangeMap, Changed};
/// use backup_postgres::wal::WalReader;
/// use backup_postgres::{Lsn, Result};
///
/// /// Follows the log that `reader` has been given.
/// fn follow(map: &mut ChangeMap, reader: &mut WalReader) -> Result<()> {
///     while let Some(record) = reader.next()? {
///         map.add(&record);
///     }
///     Ok(())
/// }
///
/// let map = ChangeMap::new(Lsn(0x300_0028));
/// assert_eq!(map.file(b"base/5/16384"), Changed::Unchanged);
/// assert_eq!(map.file(b"base/5/16384_fsm"), Changed::Whole);
/// assert_eq!(map.file(b"base/5/pg_filenode.map"), Changed::Whole);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeMap {
    pub(super) start: Lsn,
    pub(super) end: Lsn,
    /// Where the last record begins.
    pub(super) last: Option<Lsn>,
    pub(super) doubt: Option<Doubt>,
    /// By tablespace and number.
    pub(super) databases: BTreeSet<(u32, u32)>,
    pub(super) forks: BTreeMap<(RelationId, ForkIndex), ForkChanges>,
}

/// A fork that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ForkIndex {
    Main = 0,
    Visibility = 2,
    Init = 3,
}

impl ForkIndex {
    pub(super) fn of(fork: Fork) -> Option<Self> {
        match fork {
            Fork::Main => Some(Self::Main),
            Fork::FreeSpace => None,
            Fork::Visibility => Some(Self::Visibility),
            Fork::Init => Some(Self::Init),
        }
    }

    const ALL: [Self; 3] = [Self::Main, Self::Visibility, Self::Init];
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ForkChanges {
    /// Every block from this one on.
    pub(super) from: Option<u32>,
    /// Blocks before that.
    pub(super) blocks: BlockSet,
}

impl ForkChanges {
    pub(super) fn insert(&mut self, block: u32) {
        if self.from.is_none_or(|from| block < from) {
            self.blocks.insert(block);
        }
    }

    pub(super) fn insert_from(&mut self, block: u32) {
        if self.from.is_none_or(|from| block < from) {
            self.from = Some(block);
            self.blocks.truncate(block);
        }
    }

    fn merge(&mut self, other: &Self) {
        if let Some(from) = other.from {
            self.insert_from(from);
        }
        self.blocks.merge(&other.blocks);
        if let Some(from) = self.from {
            self.blocks.truncate(from);
        }
    }
}

impl ChangeMap {
    /// A map of the log from `start` on, of which nothing has been seen. A backup's redo position is the start that serves a
    /// later backup.
    #[must_use]
    pub fn new(start: Lsn) -> Self {
        let (databases, forks) = (BTreeSet::new(), BTreeMap::new());
        Self { start, end: start, last: None, doubt: None, databases, forks }
    }

    /// Where it starts: it knows all records that begin here or later.
    #[must_use]
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// The end of the last record that it knows.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Why it cannot be relied on, if so. Such a map calls everything changed, and stays in doubt for good: what follows
    /// starts with another one.
    #[must_use]
    pub fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// Takes in the next record of the log. Records that begin before the start are passed over; one that does not follow the
    /// last one puts the map in doubt, as does one that it does not understand.
    pub fn add(&mut self, record: &Record) {
        if record.start < self.start {
            return;
        }
        let follows = match self.last {
            Some(last) => record.prev == last,
            // The one before began too early.
            None => record.prev < self.start,
        };
        if !follows {
            self.raise(Doubt::Gap { from: self.end, to: record.start });
        }
        self.last = Some(record.start);
        self.end = record.end;
        if self.doubt.is_none() {
            match self.changes(record) {
                Ok(None) => {}
                Ok(Some(doubt)) => self.raise(doubt),
                Err(_) => self.raise(Doubt::Unreadable { at: record.start }),
            }
        }
    }

    /// Gives up the claim to know the log from `end` on. What it knows of it is kept: it may have happened.
    pub fn claim_until(&mut self, end: Lsn) {
        if end < self.end {
            self.end = end;
            self.last = None;
        }
    }

    /// Whether a log that begins at `start` goes on where this one ends, or begins before that.
    #[must_use]
    pub fn meets(&self, start: Lsn) -> bool {
        // The end of a record at the end of a page is the start of the next page, and a record there begins behind its header.
        let header = start.0.saturating_sub(self.end.0);
        header == 0 || matches!(header, 24 | 40) && self.end.0.is_multiple_of(1024)
    }

    /// Adds what `later` knows, a map of the log that follows, and that may begin before this one ends. If it leaves something out,
    /// the result is in doubt.
    pub fn merge(&mut self, later: &Self) {
        if !self.meets(later.start) || later.start < self.start {
            self.raise(Doubt::Gap { from: self.end, to: later.start });
        }
        if let Some(doubt) = later.doubt {
            self.raise(doubt);
        }
        if later.end > self.end {
            self.end = later.end;
            self.last = later.last.or(self.last);
        }
        self.databases.extend(&later.databases);
        for (key, changes) in &later.forks {
            self.forks.entry(*key).or_default().merge(changes);
        }
    }

    /// What may have changed in the file at `path`, below the data directory and with tablespaces at `pg_tblspc/<oid>`. What is
    /// no file of a relation counts as changed.
    #[must_use]
    pub fn file(&self, path: &[u8]) -> Changed {
        let Some(Placed { relation, fork, segment }) = Placed::parse(path) else { return Changed::Whole };
        let (Some(fork), None) = (ForkIndex::of(fork), self.doubt) else { return Changed::Whole };
        if self.databases.contains(&(relation.tablespace, relation.database)) {
            return Changed::Whole;
        }
        let Some(changes) = self.forks.get(&(relation, fork)) else { return Changed::Unchanged };
        let first = u64::from(segment) * PER_SEGMENT;
        let window = first..first + PER_SEGMENT;
        let mut ranges = changes.blocks.ranges(window.clone());
        if let Some(from) = changes.from.map(u64::from).filter(|from| *from < window.end) {
            add_range(&mut ranges, from.max(first)..window.end);
        }
        match ranges[..] {
            [] => Changed::Unchanged,
            [ref range] if *range == window => Changed::Whole,
            _ => {
                let within = |range: std::ops::Range<u64>| (range.start - first) as u32..(range.end - first) as u32;
                Changed::Blocks(ranges.into_iter().map(within).collect())
            }
        }
    }

    fn raise(&mut self, doubt: Doubt) {
        // The first reason is the one to act on.
        self.doubt.get_or_insert(doubt);
    }

    pub(super) fn fork(&mut self, relation: RelationId, fork: ForkIndex) -> &mut ForkChanges {
        self.forks.entry((relation, fork)).or_default()
    }

    fn changes(&mut self, record: &Record) -> Result<Option<Doubt>, String> {
        let unknown = Some(Doubt::Unknown { at: record.start, rmgr: record.rmgr, info: record.info });
        let known = match record.rmgr {
            Rmgr::XLOG => {
                if level(record)? == Some(WalLevel::Minimal) {
                    return Ok(Some(Doubt::Minimal { at: record.start }));
                }
                match record.opcode() {
                    0x00..=0xb0 | 0xd0 => true,
                    0xe0 => record.major() >= 17,
                    _ => false,
                }
            }
            Rmgr::TRANSACTION => self.transaction(record)?,
            Rmgr::STORAGE => self.storage(record)?,
            Rmgr::DATABASE => self.database(record)?,
            // A directory made or removed: relations in it have records of their own.
            Rmgr::TABLESPACE => matches!(record.opcode(), 0x00 | 0x10),
            rmgr => !rmgr.is_custom() && !record.changes_more_than_blocks(),
        };
        if !known {
            return Ok(unknown);
        }
        let decoded = record.decode().map_err(|error| error.to_string())?;
        let table = matches!(record.rmgr, Rmgr::HEAP | Rmgr::HEAP2);
        for block in decoded.blocks {
            let Some(fork) = ForkIndex::of(block.fork) else { continue };
            self.fork(block.relation, fork).insert(block.block);
            // Whether a bit was cleared is in the record, in a different place for each kind; one block more does not matter.
            if table && fork == ForkIndex::Main {
                self.fork(block.relation, ForkIndex::Visibility).insert(block.block / PER_VISIBILITY_BLOCK);
            }
        }
        Ok(None)
    }

    /// `SummarizeXactRecord`.
    fn transaction(&mut self, record: &Record) -> Result<bool, String> {
        let Some(dropped) = wal::dropped(record)? else { return Ok(false) };
        for relation in dropped {
            for fork in ForkIndex::ALL {
                self.fork(relation, fork).insert_from(0);
            }
        }
        Ok(true)
    }

    /// `SummarizeSmgrRecord`; `xl_smgr_create` and `xl_smgr_truncate` in `storage_xlog.h`.
    fn storage(&mut self, record: &Record) -> Result<bool, String> {
        const CREATE: u8 = 0x10;
        const TRUNCATE: u8 = 0x20;
        const MAIN: u32 = 1;
        const VISIBILITY: u32 = 2;
        let mut data = Cursor(record.main_data().map_err(|error| error.to_string())?);
        match record.opcode() {
            CREATE => {
                let relation = RelationId::parse(data.take()?);
                let fork = match data.u32()? {
                    0 => ForkIndex::Main,
                    // Free space maps are always read.
                    1 => return Ok(true),
                    2 => ForkIndex::Visibility,
                    3 => ForkIndex::Init,
                    _ => return Ok(false),
                };
                self.fork(relation, fork).insert_from(0);
            }
            TRUNCATE => {
                let (block, relation, forks) = (data.u32()?, RelationId::parse(data.take()?), data.u32()?);
                if forks & MAIN != 0 {
                    self.fork(relation, ForkIndex::Main).insert_from(block);
                }
                if forks & VISIBILITY != 0 {
                    // The block number is the table's. The last block of the map that stays loses its bits for what is gone.
                    self.fork(relation, ForkIndex::Visibility).insert_from(block / PER_VISIBILITY_BLOCK);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `SummarizeDbaseRecord`; `dbcommands_xlog.h`, where the record for a logged copy was put between the others in 15.
    fn database(&mut self, record: &Record) -> Result<bool, String> {
        let mut data = Cursor(record.main_data().map_err(|error| error.to_string())?);
        let database = data.u32()?;
        match (record.opcode(), record.major() >= 15) {
            (0x00, _) | (0x10, true) => {
                let tablespace = data.u32()?;
                self.databases.insert((tablespace, database));
            }
            (0x10, false) | (0x20, true) => {
                for _ in 0..data.u32()? {
                    let tablespace = data.u32()?;
                    self.databases.insert((tablespace, database));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// How much the server logs from `record` on, or has logged before it, if that is what it tells.
fn level(record: &Record) -> Result<Option<WalLevel>, String> {
    Ok(match record.event().map_err(|error| error.to_string())? {
        Some(Event::ParameterChange { wal_level, .. } | Event::CheckpointRedo { wal_level }) => Some(wal_level),
        Some(Event::Checkpoint(checkpoint)) => checkpoint.wal_level,
        Some(Event::EndOfRecovery { wal_level, .. }) => wal_level,
        _ => None,
    })
}
