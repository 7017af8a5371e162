//! What maintenance says in the journal when it takes away what nobody needs.
//!
//! A *collection* goes through three entries. It is **condemned**: from here on nobody may build on what it names, and whoever still reads it has
//! the readers' grace. Its **sweep begins**: from here on it cannot be taken back. It is **swept**: everything it names is gone. Between the first and the second
//! it can be withdrawn, and then backups that had expired can be had again. Whoever comes after a crash goes on where the entries end.
//!
//! What a collection names was worked out from a state of the catalog that may have passed when the entry is written. So the entry says how often
//! something had been pinned by then ([`Condemned::pins`]), and is refused when something was pinned since: a session that has opened, a backup that came
//! back. Everything else that can happen in between only makes more garbage. No clock takes part in this.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use minicbor::{Decode, Encode};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::{Catalog, CloseReason, PackId, Rejected, SessionState};
use crate::id::{BackupId, SessionId};
use crate::position::Lineage;

/// Packs of one session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct SessionPacks {
    /// The session that wrote them.
    #[n(0)]
    pub session: SessionId,
    /// Their numbers, as ranges from the first to the last, in order.
    #[n(1)]
    pub numbers: Vec<(u32, u32)>,
    /// Whether nothing of the session is left afterwards, so that what else lies in its folder goes as well.
    #[n(2)]
    pub whole: bool,
}

impl SessionPacks {
    /// The packs with these numbers, which are sorted.
    pub fn new(session: SessionId, numbers: impl IntoIterator<Item = u32>, whole: bool) -> Self {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        Self { session, numbers: ranges, whole }
    }

    /// The packs, one by one.
    pub fn packs(&self) -> impl Iterator<Item = PackId> + '_ {
        let all = self.numbers.iter().flat_map(|(first, last)| *first..=*last);
        all.map(|number| PackId { session: self.session, number })
    }
}

/// Where the segments of a pack are, after they were copied into another one.
///
/// The new pack has a place for each segment of the old one, in the same order, so that every address in a manifest stays true:
/// segment `n` of the old pack is segment `base + n` of the new one. Places of segments that nobody needed are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct PackMove {
    /// The pack that manifests name.
    #[n(0)]
    pub from: PackId,
    /// The pack that has its segments.
    #[n(1)]
    pub to: PackId,
    /// Where the first of them is.
    #[n(2)]
    pub base: u32,
    /// How many there are.
    #[n(3)]
    pub count: u32,
}

/// What a collection takes away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct Condemned {
    /// Its number: the next one, from 1.
    #[n(0)]
    pub number: u64,
    /// [`Catalog::pins`] of the state that it was worked out from.
    #[n(1)]
    pub pins: u64,
    /// The packs.
    #[n(2)]
    pub packs: Vec<SessionPacks>,
    /// The log, up to these offsets: what lies wholly before them.
    #[n(3)]
    pub log: BTreeMap<Lineage, u64>,
    /// The session that copied what is still needed of some of the packs. It ends with this.
    #[n(4)]
    pub session: Option<SessionId>,
    /// What it copied.
    #[n(5)]
    pub moves: Vec<PackMove>,
    /// Bytes that are freed, as far as they were known.
    #[n(6)]
    pub bytes: u64,
}

/// A collection that is not swept yet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Collection {
    /// What it takes away.
    pub condemned: Condemned,
    /// Since when, by the clock of whoever condemned it.
    pub at: Timestamp,
    /// When its sweep began, if it has. It cannot be withdrawn any more.
    pub sweeping: Option<Timestamp>,
    /// Backups that had expired and of which something may be named here: they can be had again only if it is withdrawn.
    pub backups: BTreeSet<BackupId>,
}

/// What the catalog knows of collections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    /// How often something was pinned.
    pins: u64,
    /// The number of the newest collection.
    last: u64,
    pending: RedBlackTreeMapSync<u64, Collection>,
    /// Sessions of which some packs were condemned: nobody can adopt them any more.
    touched: RedBlackTreeSetSync<SessionId>,
    moves: RedBlackTreeMapSync<PackId, PackMove>,
}

impl State {
    pub(super) fn pin(&mut self) {
        self.pins += 1;
    }

    pub(super) fn is_touched(&self, session: SessionId) -> bool {
        self.touched.contains(&session)
    }

    fn existing(&self, number: u64) -> Result<&Collection, Rejected> {
        self.pending.get(&number).ok_or(Rejected::CollectionUnknown(number))
    }

    pub(super) fn add_move(&mut self, moved: PackMove) {
        self.moves.insert_mut(moved.from, moved);
    }

    /// The collection that may have something of an expired backup.
    pub(super) fn taken(&self, backup: BackupId) -> Option<u64> {
        self.pending.iter().find(|(_, collection)| collection.backups.contains(&backup)).map(|(number, _)| *number)
    }
}

impl Catalog {
    /// How often something was pinned: by a session that opened, or by a backup that came back.
    #[must_use]
    pub fn pins(&self) -> u64 {
        self.collect.pins
    }

    /// The number of the next collection.
    #[must_use]
    pub fn next_collection(&self) -> u64 {
        self.collect.last + 1
    }

    /// The collections that are not swept yet, oldest first.
    pub fn collections(&self) -> impl Iterator<Item = &Collection> {
        self.collect.pending.values()
    }

    /// Where the segments of `pack` are now, and after which other segments.
    #[must_use]
    pub fn locate(&self, pack: PackId) -> Option<PackMove> {
        let mut found = *self.collect.moves.get(&pack)?;
        // Each move was condemned by a collection of its own, so they cannot go in a circle; a journal that says so anyhow ends here.
        for _ in 0..self.collect.moves.size() {
            match self.collect.moves.get(&found.to) {
                Some(next) => {
                    found.to = next.to;
                    found.base = found.base.saturating_add(next.base);
                }
                None => return Some(found),
            }
        }
        None
    }

    /// All copies of packs, also those that were copied again.
    pub fn moves(&self) -> impl Iterator<Item = &PackMove> {
        self.collect.moves.values()
    }

    /// Whether some packs of `session` were ever condemned.
    #[must_use]
    pub fn is_collected(&self, session: SessionId) -> bool {
        self.collect.is_touched(session)
    }

    pub(super) fn condemn(&mut self, condemned: &Condemned, at: Timestamp) -> Result<(), Rejected> {
        let number = condemned.number;
        if number != self.next_collection() {
            return Err(Rejected::CollectionTaken(number));
        }
        if condemned.pins != self.collect.pins {
            return Err(Rejected::CollectionStale(number));
        }
        for packs in &condemned.packs {
            if let Some(SessionState::Open { .. }) = self.sessions.get(&packs.session) {
                return Err(Rejected::SessionOpen(packs.session));
            }
            let named =
                |other: &SessionPacks| other.session == packs.session && overlap(&other.numbers, &packs.numbers);
            if self.collections().any(|pending| pending.condemned.packs.iter().any(named)) {
                return Err(Rejected::PacksCondemned(packs.session));
            }
        }
        for (lineage, before) in &condemned.log {
            if self.log.lineage(lineage).is_none() {
                return Err(Rejected::LineageUnknown(lineage.clone()));
            }
            if self.log.expired_before(lineage) < *before {
                return Err(Rejected::LogKept { lineage: lineage.clone(), before: *before });
            }
        }
        if let Some(session) = condemned.session {
            self.open_session(session)?;
        }
        // Nothing is refused from here on.
        for packs in &condemned.packs {
            if !self.sessions.contains_key(&packs.session) {
                self.sessions.insert_mut(packs.session, SessionState::Closed(CloseReason::Fenced));
            }
            self.collect.touched.insert_mut(packs.session);
        }
        if let Some(session) = condemned.session {
            self.sessions.insert_mut(session, SessionState::Closed(CloseReason::Repacked));
        }
        condemned.moves.iter().for_each(|moved| self.collect.add_move(*moved));
        // What an open session builds on was kept, so it is not among what is named.
        let pinned: BTreeSet<_> = self.pinned().collect();
        let backups = self.expired.iter().filter(|(id, expired)| expired.record.is_some() && !pinned.contains(id));
        let backups = backups.map(|(id, _)| *id).collect();
        let collection = Collection { condemned: condemned.clone(), at, sweeping: None, backups };
        self.collect.pending.insert_mut(number, collection);
        self.collect.last = number;
        Ok(())
    }

    /// The backups that open sessions build on, and those that hosts that only write may build on.
    pub fn pinned(&self) -> impl Iterator<Item = BackupId> + '_ {
        let open = self.sessions.values().filter_map(|state| match state {
            SessionState::Open { parent, .. } => *parent,
            _ => None,
        });
        open.chain(self.pinned_by_hosts())
    }

    pub(super) fn begin_sweep(&mut self, number: u64, at: Timestamp) -> Result<(), Rejected> {
        let collection = self.collect.existing(number)?;
        if collection.sweeping.is_some() {
            return Err(Rejected::CollectionSwept(number));
        }
        let mut collection = collection.clone();
        for backup in &collection.backups {
            if let Some(expired) = self.expired.get(backup) {
                let mut expired = expired.clone();
                expired.record = None;
                self.expired.insert_mut(*backup, expired);
            }
        }
        collection.sweeping = Some(at);
        self.collect.pending.insert_mut(number, collection);
        Ok(())
    }

    pub(super) fn end_sweep(&mut self, number: u64) -> Result<(), Rejected> {
        let collection = self.collect.existing(number)?;
        if collection.sweeping.is_none() {
            return Err(Rejected::SweepNotBegun(number));
        }
        // What was wrong with what is gone is nobody's concern.
        self.damage.forget(&collection.condemned.packs);
        self.collect.pending.remove_mut(&number);
        Ok(())
    }

    pub(super) fn withdraw(&mut self, number: u64) -> Result<(), Rejected> {
        let collection = self.collect.existing(number)?.clone();
        if collection.sweeping.is_some() {
            return Err(Rejected::CollectionSwept(number));
        }
        // A later one may have taken the copies for what they were copied from.
        if self.collect.last != number && !collection.condemned.moves.is_empty() {
            return Err(Rejected::CollectionFollowed(number));
        }
        for moved in &collection.condemned.moves {
            self.collect.moves.remove_mut(&moved.from);
        }
        self.collect.pending.remove_mut(&number);
        // Who is only now needed again was not pinned when others looked.
        self.collect.pin();
        Ok(())
    }

    pub(super) fn reinstate(&mut self, backup: BackupId) -> Result<(), Rejected> {
        let Some(expired) = self.expired.get(&backup) else { return Err(Rejected::BackupNotExpired(backup)) };
        let Some(record) = expired.record.clone() else { return Err(Rejected::BackupSwept(backup)) };
        if let Some(collection) = self.collect.taken(backup) {
            return Err(Rejected::BackupCondemned { backup, collection });
        }
        self.expired.remove_mut(&backup);
        self.backups.insert_mut(backup, *record);
        self.collect.pin();
        Ok(())
    }
}

fn overlap(a: &[(u32, u32)], b: &[(u32, u32)]) -> bool {
    a.iter().any(|(first, last)| b.iter().any(|(other_first, other_last)| first <= other_last && other_first <= last))
}

#[cfg(test)]
mod tests;
