//! The catalog: what a repository knows, as a pure fold over its journal.
//!
//! The same [`Catalog::apply`] runs in the writer that wants to commit, in every reader, in maintenance and in the tests, so
//! that they cannot disagree. Nothing here does I/O or reads a clock. An event that does not fit the state is
//! [`Rejected`] and leaves the state as it was: a writer that lost a race folds what others committed, applies its own
//! event again and learns from the rejection that it must not commit it.

mod collect;
mod damage;
mod drill;
mod event;
mod hosts;
mod keys;
mod log;
mod record;
mod rejected;
mod service;

pub use collect::{Collection, Condemned, PackMove, SessionPacks};
pub use damage::{Harm, PackDamage, Verification, VerifyPass, VerifyPlace};
pub use drill::{CheckOutcome, DrillCheck, DrillOutcome, DrillRecord, DrillStep, DrillUnderWay, Drills};
pub use event::{CloseReason, Event};
pub use hosts::{Deposit, HostChange, HostRecord, Refusal};
pub use keys::{KeyChange, KeyRecipient, KeyRejected, KeyState, Wrap};
pub use record::{BackupKind, BackupRecord, ManifestRef, PackId, Totals};
pub use rejected::Rejected;
pub use service::{
    Actor, Audited, ExpiredBackup, FinishedRun, Hold, Lease, Origin, RestorePurpose, Role, Run, RunPurpose,
    ServiceChange, ServiceRejected, ServiceSpec, ServiceState, Stage, Trail,
};

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use rpds::RedBlackTreeMapSync;

use crate::id::{BackupId, SessionId};
use crate::log::LogState;

/// Where a session stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// Writing, or dead without having said so.
    Open {
        /// When it was opened, by its own clock.
        at: Timestamp,
        /// The backup it pins.
        parent: Option<BackupId>,
        /// The sessions it pins.
        adopted: Vec<SessionId>,
        /// How often damage had been reported by then.
        reports: u64,
    },
    /// It became this backup.
    Committed(BackupId),
    /// It ended without a backup.
    Closed(CloseReason),
}

/// The state of a repository after some events.
///
/// A clone shares what grows with the history, so that a commit, which tries its events on a clone, costs the same after years.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    backups: RedBlackTreeMapSync<BackupId, BackupRecord>,
    sessions: RedBlackTreeMapSync<SessionId, SessionState>,
    log: Arc<LogState>,
    expired: RedBlackTreeMapSync<BackupId, ExpiredBackup>,
    holds: BTreeMap<BackupId, BTreeMap<String, Hold>>,
    service: Option<Box<ServiceState>>,
    collect: collect::State,
    damage: damage::State,
    keys: Arc<KeyState>,
    drills: Arc<Drills>,
    hosts: hosts::State,
}

impl Catalog {
    /// The state before any event.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The state before any event of a repository with these keys.
    #[must_use]
    pub fn with_keys(keys: KeyState) -> Self {
        Self { keys: Arc::new(keys), ..Self::default() }
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// [`Rejected`] when the event does not fit; the state is then unchanged.
    pub fn apply(&mut self, event: &Event) -> Result<(), Rejected> {
        if self.service.as_ref().is_some_and(|service| service.is_ending()) && !matches!(event, Event::Service { .. }) {
            return Err(Rejected::Purging);
        }
        match event {
            Event::SessionOpened { session, at, parent, adopted } => {
                if self.sessions.contains_key(session) {
                    return Err(Rejected::SessionExists(*session));
                }
                if let Some(parent) = parent
                    && !self.backups.contains_key(parent)
                {
                    return Err(Rejected::BackupUnknown(*parent));
                }
                if let Some(unknown) = adopted.iter().find(|s| !self.sessions.contains_key(s)) {
                    return Err(Rejected::SessionUnknown(*unknown));
                }
                if let Some(gone) = adopted.iter().find(|s| self.collect.is_touched(**s)) {
                    return Err(Rejected::SessionCollected(*gone));
                }
                if let Some(parent) = parent {
                    self.sound(*parent)?;
                }
                if let Some(damaged) = adopted.iter().find(|s| self.damage.is_touched(**s)) {
                    return Err(Rejected::SessionDamaged(*damaged));
                }
                let (parent, adopted, reports) = (*parent, adopted.clone(), self.damage.reports());
                let state = SessionState::Open { at: *at, parent, adopted, reports };
                self.sessions.insert_mut(*session, state);
                self.collect.pin();
            }
            Event::BackupCommitted { record } => {
                self.open_session(record.session)?;
                self.reuses_nothing_damaged(record)?;
                self.insert(record)?;
            }
            Event::SessionClosed { session, reason, .. } => {
                self.open_session(*session)?;
                self.sessions.insert_mut(*session, SessionState::Closed(*reason));
            }
            Event::BackupRecovered { record } => {
                if self.backups.contains_key(&record.id) {
                    return Err(Rejected::BackupExists(record.id));
                }
                // Content may have been adopted from a session that never became a backup, or from one that could not be
                // recovered. Nothing else tells of it, and it must never commit.
                for session in &record.reused {
                    if !self.sessions.contains_key(session) {
                        self.sessions.insert_mut(*session, SessionState::Closed(CloseReason::Fenced));
                    }
                }
                self.insert(record)?;
                self.collect.pin();
            }
            Event::LogOpened { .. }
            | Event::LogSealed { .. }
            | Event::LineageAdded { .. }
            | Event::LogGap { .. }
            | Event::LogDamaged { .. }
            | Event::LogExpired { .. } => log::apply(Arc::make_mut(&mut self.log), event)?,
            Event::BackupExpired { backup, reason, at, .. } => self.expire(*backup, reason, *at)?,
            Event::HoldPlaced { backup, hold, reason, by, at, log } => {
                self.existing(*backup)?;
                let placed = Hold { reason: reason.clone(), by: by.clone(), since: *at, log: *log };
                self.holds.entry(*backup).or_default().insert(hold.clone(), placed);
            }
            Event::HoldReleased { backup, hold, .. } => {
                let unknown = || Rejected::HoldUnknown { backup: *backup, hold: hold.clone() };
                let holds = self.holds.get_mut(backup).ok_or_else(unknown)?;
                holds.remove(hold).ok_or_else(unknown)?;
                if holds.is_empty() {
                    self.holds.remove(backup);
                }
            }
            Event::Condemned { collection, at } => self.condemn(collection, *at)?,
            Event::SweepBegun { collection, at } => self.begin_sweep(*collection, *at)?,
            Event::Swept { collection, .. } => self.end_sweep(*collection)?,
            Event::CollectionWithdrawn { collection, .. } => self.withdraw(*collection)?,
            Event::BackupReinstated { backup, .. } => self.reinstate(*backup)?,
            Event::PacksRecovered { session, moves } => {
                if !self.sessions.contains_key(session) {
                    self.sessions.insert_mut(*session, SessionState::Closed(CloseReason::Repacked));
                }
                moves.iter().for_each(|moved| self.collect.add_move(*moved));
            }
            Event::PacksDamaged { packs, at } => self.report_damage(packs, *at),
            Event::Mended { packs, log, .. } => {
                self.damage.mend(packs);
                let state = Arc::make_mut(&mut self.log);
                log.iter().for_each(|object| drop(state.damages.remove(object)));
            }
            Event::Verified { verification } => self.damage.verified(verification),
            Event::Service { change, lease, by, at } => {
                service::apply(&mut self.service, (change, *lease), (by, *at), self.holds.len())?;
            }
            Event::Drilled { record } => Arc::make_mut(&mut self.drills).end(record)?,
            Event::DrillBegun { drill, by, at, until } => {
                Arc::make_mut(&mut self.drills).begin(*drill, by, (*at, *until))?;
            }
            Event::Keys { change, .. } => Arc::make_mut(&mut self.keys).apply(change)?,
            Event::Hosts { change, at, .. } => self.change_host(change, *at)?,
            Event::DepositAdopted { deposit, .. } => self.adopt_deposit(deposit)?,
            Event::DepositRefused { session, host, .. } => self.refuse_deposit(*session, *host)?,
            Event::DepositRecovered { session, host, .. } => self.note_deposit(*session, *host),
        }
        Ok(())
    }

    /// One backup that somebody has named.
    ///
    /// # Errors
    /// [`Rejected::BackupExpired`] with the reason, or [`Rejected::BackupUnknown`].
    pub fn existing(&self, backup: BackupId) -> Result<&BackupRecord, Rejected> {
        let absent = || match self.expired.get(&backup) {
            Some(expired) => Rejected::BackupExpired { backup, at: expired.at, reason: expired.reason.clone() },
            None => Rejected::BackupUnknown(backup),
        };
        self.backups.get(&backup).ok_or_else(absent)
    }

    fn expire(&mut self, backup: BackupId, reason: &str, at: Timestamp) -> Result<(), Rejected> {
        let record = self.existing(backup)?.clone();
        if let Some((hold, _)) = self.holds(backup).next() {
            return Err(Rejected::BackupHeld { backup, hold: hold.to_owned() });
        }
        self.backups.remove_mut(&backup);
        let (session, record) = (record.session, Some(Box::new(record)));
        self.expired.insert_mut(backup, ExpiredBackup { session, reason: reason.to_owned(), at, record });
        Ok(())
    }

    /// The backups that are not kept any more, oldest first.
    pub fn expired(&self) -> impl DoubleEndedIterator<Item = (BackupId, &ExpiredBackup)> {
        self.expired.iter().map(|(id, expired)| (*id, expired))
    }

    /// What keeps `backup` from being expired, by name.
    pub fn holds(&self, backup: BackupId) -> impl Iterator<Item = (&str, &Hold)> {
        self.holds.get(&backup).into_iter().flatten().map(|(name, hold)| (name.as_str(), hold))
    }

    /// The service under management, if it is.
    #[must_use]
    pub fn service(&self) -> Option<&ServiceState> {
        self.service.as_deref()
    }

    /// The epochs and recipients of the repository's keys.
    #[must_use]
    pub fn keys(&self) -> &KeyState {
        &self.keys
    }

    /// What drills have shown.
    #[must_use]
    pub fn drills(&self) -> &Drills {
        &self.drills
    }

    /// What the journal tells of the log.
    #[must_use]
    pub fn log(&self) -> &LogState {
        &self.log
    }

    fn open_session(&self, session: SessionId) -> Result<(), Rejected> {
        match self.sessions.get(&session) {
            Some(SessionState::Open { .. }) => Ok(()),
            None => Err(Rejected::SessionUnknown(session)),
            Some(SessionState::Committed(_)) => Err(Rejected::SessionEnded { session, state: "committed" }),
            Some(SessionState::Closed(CloseReason::Abandoned)) => {
                Err(Rejected::SessionEnded { session, state: "abandoned" })
            }
            Some(SessionState::Closed(CloseReason::Fenced)) => Err(Rejected::SessionEnded { session, state: "fenced" }),
            Some(SessionState::Closed(CloseReason::Repacked)) => {
                Err(Rejected::SessionEnded { session, state: "repacked" })
            }
        }
    }

    fn insert(&mut self, record: &BackupRecord) -> Result<(), Rejected> {
        if self.backups.contains_key(&record.id) {
            return Err(Rejected::BackupExists(record.id));
        }
        if let Some(session) = record.reused.iter().find(|s| !self.sessions.contains_key(s)) {
            return Err(Rejected::ReuseUnknown { backup: record.id, session: *session });
        }
        self.sessions.insert_mut(record.session, SessionState::Committed(record.id));
        self.expired.remove_mut(&record.id);
        self.backups.insert_mut(record.id, record.clone());
        Ok(())
    }

    /// The backups, oldest first.
    pub fn backups(&self) -> impl DoubleEndedIterator<Item = &BackupRecord> {
        self.backups.values()
    }

    /// One backup.
    #[must_use]
    pub fn backup(&self, id: BackupId) -> Option<&BackupRecord> {
        self.backups.get(&id)
    }

    /// The newest backup: the one whose content ended last.
    #[must_use]
    pub fn latest(&self) -> Option<&BackupRecord> {
        self.backups.values().max_by_key(|b| (b.ended_at, b.id))
    }

    /// The sessions, oldest first.
    pub fn sessions(&self) -> impl DoubleEndedIterator<Item = (SessionId, &SessionState)> {
        self.sessions.iter().map(|(id, state)| (*id, state))
    }

    /// One session.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&SessionState> {
        self.sessions.get(&id)
    }
}

#[cfg(test)]
mod tests;
