//! What can be taken away: worked out from a listing, the catalog and what is needed. Pure, but for the records of copies.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::catalog::{BackupRecord, Catalog, CloseReason, PackId, SessionPacks, SessionState};
use backup_core::log::LogPurpose;
use backup_core::repository::CollectOptions;
use backup_core::{BackupId, Lineage, SessionId};
use jiff::SignedDuration;

use super::need::Need;
use super::protect::Protected;
use super::survey::Survey;
use crate::log::stored::Listed;
use crate::log::writer::WINDOW;

/// What nobody needs.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    /// By session; with a session of which nothing is left afterwards.
    pub(super) packs: BTreeMap<SessionId, (BTreeSet<u32>, bool)>,
    pub(super) log: BTreeMap<Lineage, u64>,
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) log_objects: u64,
    pub(super) log_bytes: u64,
}

impl Garbage {
    pub(super) fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.log.is_empty()
    }

    /// As it stands in the journal.
    pub(super) fn session_packs(&self) -> Vec<SessionPacks> {
        let packs = self
            .packs
            .iter()
            .map(|(session, (numbers, whole))| SessionPacks::new(*session, numbers.iter().copied(), *whole));
        packs.collect()
    }
}

/// The open sessions that have given no sign of life for so long that they are taken for dead.
///
/// One that has a witness is not dead but lost to the catalog. By the clock of the store alone: when it took the newest object of the session, and when the newest of all. Of a session that has stored nothing
/// only its own clock tells, and it holds nothing but what it builds on. Being wrong costs that session its commit, and nobody any data.
pub(super) fn silent(
    catalog: &Catalog,
    survey: &Survey,
    (options, witnessed): (&CollectOptions, &BTreeMap<SessionId, BackupId>),
    now: jiff::Timestamp,
) -> Vec<SessionId> {
    let open = catalog.sessions().filter_map(|(session, state)| match state {
        SessionState::Open { at, .. } => Some((session, *at)),
        _ => None,
    });
    let silent = open.filter(|(session, at)| {
        let last = survey.folders.get(session).and_then(|folder| folder.last);
        let ago = last.map_or_else(|| now.duration_since(*at), |last| survey.since(last));
        ago >= signed(options.silence)
    });
    silent.map(|(session, _)| session).filter(|session| !witnessed.contains_key(session)).collect()
}

/// What of the listing nobody needs.
pub(super) fn garbage(
    catalog: &Catalog,
    survey: &Survey,
    (need, protected): (&Need, Option<&Protected>),
    options: &CollectOptions,
) -> Garbage {
    let pending: BTreeSet<PackId> =
        catalog.collections().flat_map(|c| c.condemned.packs.iter().flat_map(SessionPacks::packs)).collect();
    let ending: BTreeSet<SessionId> = catalog
        .collections()
        .flat_map(|collection| collection.condemned.packs.iter().filter(|packs| packs.whole).map(|packs| packs.session))
        .collect();
    // All packs of a backup that is kept may have been copied elsewhere: its witness stays.
    let kept: BTreeSet<SessionId> = kept(catalog).iter().map(|record| record.session).collect();
    let mut garbage = Garbage::default();
    for (session, folder) in &survey.folders {
        if need.held.contains(session) {
            continue;
        }
        let known = catalog.session(*session).is_some();
        // Whoever opened it in a catalog that was succeeded since finds out at the next commit; until then it goes on.
        let fresh = folder.last.is_some_and(|last| survey.since(last) < signed(options.silence));
        if !known && fresh {
            continue;
        }
        let of = |number: &u32| PackId { session: *session, number: *number };
        let dead = folder.packs.iter().filter(|(number, _)| !need.live.contains(&of(number)));
        // By what is needed, not by what was listed: what the session stored after the listing may be needed as well.
        let all = PackId { session: *session, number: 0 }..=PackId { session: *session, number: u32::MAX };
        let whole = need.live.range(all).next().is_none() && !kept.contains(session);
        let new: BTreeMap<_, _> = dead.filter(|(number, _)| !pending.contains(&of(number))).collect();
        if new.is_empty() && (!whole || ending.contains(session)) {
            continue;
        }
        garbage.objects += new.len() as u64;
        garbage.bytes += new.values().copied().sum::<u64>() + if whole { folder.other_bytes } else { 0 };
        garbage.packs.insert(*session, (new.into_keys().copied().collect(), whole));
    }
    log(catalog, survey, protected, &mut garbage);
    garbage
}

fn log(catalog: &Catalog, survey: &Survey, protected: Option<&Protected>, garbage: &mut Garbage) {
    for lineage in survey.log.keys() {
        let state = catalog.log();
        if state.lineage(lineage).is_none() {
            continue;
        }
        let before = state.expired_before(lineage);
        let condemned = catalog.collections().filter_map(|c| c.condemned.log.get(lineage)).max().copied().unwrap_or(0);
        let free = |listed: &&Listed| protected.is_none_or(|protected| !protected.has_log(listed.at));
        let dead = expired(catalog, survey, lineage, before).filter(|l| l.piece.end >= condemned).filter(free);
        let dead: Vec<_> = dead.collect();
        if !dead.is_empty() {
            garbage.log_objects += dead.len() as u64;
            garbage.log_bytes += dead.iter().map(|listed| listed.size).sum::<u64>();
            garbage.log.insert(lineage.clone(), before);
        }
    }
}

/// The pieces of a lineage that end before `before` and that nobody will ask about.
///
/// The last ones of a writer that may still write tell a successor how far it has come, whatever they hold.
pub(super) fn expired<'a>(
    catalog: &'a Catalog,
    survey: &'a Survey,
    lineage: &'a Lineage,
    before: u64,
) -> impl Iterator<Item = &'a Listed> + 'a {
    let mut tops: BTreeMap<_, u64> = BTreeMap::new();
    for piece in survey.log.values().flatten().map(|listed| listed.piece) {
        let top = tops.entry(piece.epoch).or_default();
        *top = (*top).max(piece.sequence);
    }
    let pieces = survey.log.get(lineage).into_iter().flatten();
    pieces.filter(move |listed| {
        let piece = listed.piece;
        let writer = catalog.log().writer(piece.epoch);
        let open = writer.is_some_and(|writer| writer.purpose == LogPurpose::Stream && writer.ends.is_none());
        let top = tops.get(&piece.epoch).copied().unwrap_or(0);
        piece.end < before && !(open && piece.sequence.saturating_add(WINDOW) > top)
    })
}

/// Objects of which so much may be dead that the rest is worth copying: those whose own backup is gone.
pub(super) fn partly_dead(catalog: &Catalog, survey: &Survey, need: &Need) -> BTreeSet<PackId> {
    let whole = |session: &SessionId| match catalog.session(*session) {
        Some(SessionState::Committed(backup)) => catalog.backup(*backup).is_some(),
        Some(SessionState::Open { .. }) | None => true,
        Some(SessionState::Closed(CloseReason::Abandoned | CloseReason::Fenced | CloseReason::Repacked)) => false,
        Some(_) => true,
    };
    movable(survey, need).filter(|(id, _)| !whole(&id.session)).map(|(id, _)| id).collect()
}

/// The objects that are needed and may be copied, with their bytes: those that nobody builds on at this moment.
pub(super) fn movable<'a>(survey: &'a Survey, need: &'a Need) -> impl Iterator<Item = (PackId, u64)> + 'a {
    let free = need.live.iter().filter(|id| !need.pinned.contains(id) && !need.held.contains(&id.session));
    // What is not there, or not any more, is for verification to say.
    free.filter_map(|id| Some((*id, *survey.folders.get(&id.session)?.packs.get(&id.number)?)))
}

/// The records of everything that needs anything: backups that are kept, and those that somebody builds on at this moment.
pub(super) fn kept(catalog: &Catalog) -> Vec<&BackupRecord> {
    let pinned: BTreeSet<_> = catalog.pinned().collect();
    let expired = catalog.expired().filter(|(id, _)| pinned.contains(id));
    let expired = expired.filter_map(|(_, expired)| expired.record.as_deref());
    catalog.backups().chain(expired).collect()
}

pub(super) fn signed(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
