//! What there is: the catalog, the stored pieces, and where everybody stands.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use backup_core::catalog::Catalog;
use backup_core::log::{LogEpoch, LogPurpose, LogState};
use backup_core::{BackupId, Lineage};

/// How many objects of a writer may be on their way: 16 in production.
pub(crate) const WINDOW: u8 = 2;
/// Positions of the backups that there are.
pub(crate) const BACKUPS: [u8; 2] = [0, 2];

/// A piece of log, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Piece {
    pub(crate) epoch: u32,
    pub(crate) sequence: u8,
    pub(crate) start: u8,
    pub(crate) end: u8,
}

pub(crate) type Pieces = BTreeSet<Piece>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Writer {
    Idle,
    /// It has its number, unless it is one that lists first.
    Enrolled {
        epoch: Option<u32>,
    },
    Listing {
        epoch: Option<u32>,
        seen: Pieces,
        version: u32,
    },
    Listed {
        epoch: Option<u32>,
        found: Pieces,
    },
    /// `sent`: what is not acknowledged, in order. `looked`: for how many of them the journal was looked at.
    Writing {
        epoch: u32,
        at: u8,
        next: u8,
        sent: Vec<Piece>,
        looked: Option<usize>,
    },
    Over,
}

/// Who merges pieces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Merger {
    Idle,
    Listing { seen: Pieces, version: u32 },
    Listed { found: Pieces, version: u32 },
    Open { epoch: u32, pair: [Piece; 2] },
    Written { epoch: u32, pair: [Piece; 2] },
    Clearing { epoch: Option<u32>, spare: Pieces },
    Done,
}

/// Who collects log that was let go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Collector {
    Idle,
    Condemned,
    Sweeping { doomed: Pieces },
    Done,
}

/// Who lets backups and log go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Operator {
    /// Up to where it has seen that log is not needed.
    pub(crate) read: Option<u8>,
    pub(crate) expiries: u8,
    pub(crate) reinstatements: u8,
    pub(crate) lettings: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) catalog: Catalog,
    /// How often something of the log was committed.
    pub(crate) version: u32,
    pub(crate) store: Pieces,
    /// Puts that land some time, or never.
    pub(crate) flying: Pieces,
    pub(crate) writers: [Writer; 3],
    pub(crate) merger: Merger,
    pub(crate) collector: Collector,
    pub(crate) operator: Operator,
    /// The source has forgotten what is before this.
    pub(crate) acknowledged: u8,
    /// A writer has begun before what the source has forgotten.
    pub(crate) behind: bool,
    /// Log was let go that a kept backup leads to.
    pub(crate) broken: bool,
    pub(crate) refused: bool,
    pub(crate) merged: bool,
    pub(crate) swept: bool,
}

/// What an actor can tell apart.
impl Hash for State {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Self { catalog, version, store, flying, writers, merger, collector, operator, .. } = self;
        (version, store, flying, writers, merger, collector, operator).hash(to);
        (self.acknowledged, self.behind, self.broken, self.refused, self.merged, self.swept).hash(to);
        for (epoch, writer) in catalog.log().writers() {
            (epoch, writer.purpose, &writer.ends).hash(to);
        }
        catalog.log().expired_before(&lineage()).hash(to);
        (catalog.pins(), catalog.next_collection()).hash(to);
        catalog.backups().for_each(|backup| backup.id.hash(to));
        for collection in catalog.collections() {
            (collection.condemned.number, &collection.condemned.log, collection.sweeping.is_some()).hash(to);
        }
    }
}

pub(crate) fn lineage() -> Lineage {
    Lineage::new("1")
}

pub(crate) fn backup(position: u8) -> BackupId {
    BackupId::from_bytes([position + 1; 16])
}

/// Whether a piece counts by what the catalog says.
pub(crate) fn counts(log: &LogState, piece: &Piece) -> bool {
    let end = u64::from(piece.end);
    log.counts(LogEpoch(piece.epoch), &lineage(), end) && end >= log.expired_before(&lineage())
}

/// Whether the writer of a piece may still write, and the piece is one of those by which it is told how far it has come.
pub(crate) fn is_asked(log: &LogState, all: &Pieces, piece: &Piece) -> bool {
    let writer = log.writer(LogEpoch(piece.epoch));
    let open = writer.is_some_and(|writer| writer.purpose == LogPurpose::Stream && writer.ends.is_none());
    let top = all.iter().filter(|other| other.epoch == piece.epoch).map(|other| other.sequence).max().unwrap_or(0);
    open && piece.sequence + WINDOW > top
}

/// Where the log of a writer ends that can write no more.
pub(crate) fn ends_of(found: &Pieces, epoch: u32) -> BTreeMap<Lineage, u64> {
    let own: Vec<_> = found.iter().filter(|piece| piece.epoch == epoch).collect();
    let settled = own.last().map_or(0, |top| top.sequence.saturating_sub(WINDOW));
    let mut next = settled + 1;
    let mut ends = BTreeMap::new();
    for piece in own {
        if piece.sequence > next {
            break;
        }
        next = next.max(piece.sequence + 1);
        let end = ends.entry(lineage()).or_insert(0);
        *end = u64::from(piece.end).max(*end);
    }
    ends
}

impl State {
    /// Where the ledger of whoever has found these ends.
    pub(crate) fn end(&self, found: &Pieces) -> u8 {
        let counting = found.iter().filter(|piece| counts(self.catalog.log(), piece));
        let expired = u8::try_from(self.catalog.log().expired_before(&lineage())).unwrap();
        counting.map(|piece| piece.end).max().unwrap_or(0).max(expired)
    }

    /// From where on log is needed: the oldest backup that is kept.
    pub(crate) fn floor(&self) -> u8 {
        let kept = BACKUPS.iter().filter(|position| self.catalog.backup(backup(**position)).is_some());
        kept.copied().min().unwrap_or(0)
    }

    /// Whether everything that was acknowledged and not let go counts.
    pub(crate) fn is_whole(&self) -> bool {
        let log = self.catalog.log();
        let from = u8::try_from(log.expired_before(&lineage())).unwrap();
        let there = |offset: u8| {
            self.store.iter().any(|piece| (piece.start..piece.end).contains(&offset) && counts(log, piece))
        };
        (from..self.acknowledged).all(there)
    }
}
