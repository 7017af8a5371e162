//! Which pieces of log are stored, by one listing, and which of them count.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use backup_core::Lineage;
use backup_core::catalog::Catalog;
use backup_core::log::{Ledger, LogEpoch, LogPurpose, LogRange, LogState};
use futures::TryStreamExt;
use jiff::Timestamp;

use super::name::{self, Piece};
use super::writer::WINDOW;
use crate::error::Result;
use crate::journal::Journal;
use crate::layout;
use crate::store::Store;

/// How often a listing is repeated because the journal went on meanwhile. Each time is a commit of somebody else.
const TRIES: usize = 4;

/// A piece that was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) piece: Piece,
    /// Length of its object in bytes.
    pub(crate) size: u64,
    /// Whether it lies in the spool of this host, and not in the vault.
    pub(crate) spooled: bool,
    /// When it was stored, by the store's clock.
    pub(crate) at: Timestamp,
}

/// Every piece of log of a repository, and the state that says which of them count.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) generation: u32,
    pub(crate) catalog: Arc<Catalog>,
    /// By lineage; each in the order of names.
    pub(crate) pieces: BTreeMap<Lineage, Vec<Listed>>,
}

impl Stored {
    /// Lists all pieces in the vault, and those in the spool that are not there.
    ///
    /// Compaction deletes objects only after a commit that follows the last object which replaces them. A listing during which
    /// nothing was committed has therefore seen one or the other.
    ///
    /// # Errors
    /// Those of the store and of the journal.
    pub(crate) async fn survey(store: &Store, journal: &Journal<Catalog>, spool: Option<&Store>) -> Result<Self> {
        let mut before = journal.refresh_placed().await?.1;
        let mut tries = 0;
        loop {
            let mut pieces = BTreeMap::new();
            // What is copied while both are listed is in the vault at the latest.
            if let Some(spool) = spool {
                list(spool, true, &mut pieces).await?;
            }
            list(store, false, &mut pieces).await?;
            let (generation, after) = journal.refresh_placed().await?;
            tries += 1;
            if tries == TRIES || Arc::ptr_eq(&before, &after) || before.log() == after.log() {
                return Ok(Self::of(generation, after, pieces));
            }
            before = after;
        }
    }

    fn of(generation: u32, catalog: Arc<Catalog>, found: BTreeMap<(Lineage, Piece), Listed>) -> Self {
        Self { generation, catalog, pieces: by_lineage(found) }
    }

    pub(crate) fn state(&self) -> &LogState {
        self.catalog.log()
    }

    /// Whether `piece` is part of the log.
    pub(crate) fn counts(&self, lineage: &Lineage, piece: &Piece) -> bool {
        let state = self.state();
        state.lineage(lineage).is_some()
            && state.counts(piece.epoch, lineage, piece.end)
            && piece.end >= state.expired_before(lineage)
            && (state.damages().is_empty()
                || piece.name(lineage).is_ok_and(|name| !state.damages().contains_key(name.as_str())))
    }

    /// The pieces of the log.
    pub(crate) fn counting(&self) -> impl Iterator<Item = (&Lineage, &Listed)> {
        let all = self.pieces.iter().flat_map(|(lineage, pieces)| pieces.iter().map(move |listed| (lineage, listed)));
        all.filter(|(lineage, listed)| self.counts(lineage, &listed.piece))
    }

    /// What of the log is stored.
    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::new(self.state(), self.counting().map(|(lineage, listed)| listed.piece.range(lineage)))
    }

    /// What of the log is stored, lineage by lineage, as few ranges.
    pub(crate) fn covered(&self) -> BTreeMap<Lineage, Vec<Range<u64>>> {
        let mut covered: BTreeMap<Lineage, Vec<Range<u64>>> = BTreeMap::new();
        for (lineage, listed) in self.counting() {
            covered.entry(lineage.clone()).or_default().push(listed.piece.offsets());
        }
        covered.values_mut().for_each(merge);
        covered
    }

    /// The writers that followed the stream before `epoch` and were not sealed, with where their log ends.
    pub(crate) fn unsealed_before(&self, epoch: LogEpoch) -> Vec<(LogEpoch, BTreeMap<Lineage, u64>)> {
        let open = self
            .state()
            .writers()
            .filter(|(other, writer)| *other < epoch && writer.purpose == LogPurpose::Stream && writer.ends.is_none());
        open.map(|(other, _)| (other, self.ends_of(other))).collect()
    }

    /// Where the log of a writer ends that can write no more.
    ///
    /// A writer acknowledges in order and has at most [`WINDOW`] objects on their way: whatever it wrote before that window was
    /// acknowledged, also if some of it was lost or compacted since. Inside of the window an object that did not arrive was not
    /// acknowledged, nor was any behind it.
    pub(crate) fn ends_of(&self, epoch: LogEpoch) -> BTreeMap<Lineage, u64> {
        let own = self.pieces.iter().flat_map(|(lineage, pieces)| {
            pieces.iter().filter(|listed| listed.piece.epoch == epoch).map(move |listed| (listed.piece, lineage))
        });
        let mut own: Vec<_> = own.map(|(piece, lineage)| (piece.sequence, piece.end, lineage)).collect();
        own.sort_unstable();
        let settled = own.last().map_or(0, |(top, ..)| top.saturating_sub(WINDOW));
        let mut next = settled + 1;
        let mut ends: BTreeMap<Lineage, u64> = BTreeMap::new();
        for (sequence, end, lineage) in own {
            if sequence > next {
                break;
            }
            next = next.max(sequence + 1);
            let known = ends.entry(lineage.clone()).or_insert(end);
            *known = (*known).max(end);
        }
        ends
    }
}

/// The pieces in the vault, whether they count or not: by lineage, each in the order of names.
///
/// # Errors
/// Those of the store.
pub(crate) async fn list_vault(store: &Store) -> Result<BTreeMap<Lineage, Vec<Listed>>> {
    let mut found = BTreeMap::new();
    list(store, false, &mut found).await?;
    Ok(by_lineage(found))
}

fn by_lineage(found: BTreeMap<(Lineage, Piece), Listed>) -> BTreeMap<Lineage, Vec<Listed>> {
    let mut pieces: BTreeMap<Lineage, Vec<Listed>> = BTreeMap::new();
    for ((lineage, _), listed) in found {
        pieces.entry(lineage).or_default().push(listed);
    }
    pieces
}

/// Lists the pieces of `store` into `found`. Those of the vault replace those of the spool.
async fn list(store: &Store, spooled: bool, found: &mut BTreeMap<(Lineage, Piece), Listed>) -> Result<()> {
    let mut objects = store.list(layout::LOG);
    while let Some(object) = objects.try_next().await? {
        if let Some((lineage, piece)) = name::parse(object.name.as_str()) {
            let listed = Listed { piece, size: object.size, spooled, at: object.last_modified };
            found.insert((lineage, piece), listed);
        }
    }
    Ok(())
}

/// Sorts `ranges`, and makes one of those that meet.
pub(crate) fn merge(ranges: &mut Vec<Range<u64>>) {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges.drain(..).filter(|range| !range.is_empty()) {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    *ranges = merged;
}

/// The ledger of what `state` tells and `covered` holds.
pub(crate) fn ledger(state: &LogState, covered: &BTreeMap<Lineage, Vec<Range<u64>>>) -> Ledger {
    let ranges = covered
        .iter()
        .flat_map(|(lineage, ranges)| ranges.iter().map(|range| LogRange::new(lineage.clone(), range.clone())));
    Ledger::new(state, ranges)
}
