//! The catalog: what a repository knows, as a pure fold over its journal.
//!
//! The same [`Catalog::apply`] runs in the writer that wants to commit, in every reader, in maintenance and in the tests, so
//! that they cannot disagree. Nothing here does I/O or reads a clock. An event that does not fit the state is
//! [`Rejected`] and leaves the state as it was: a writer that lost a race folds what others committed, applies its own
//! event again and learns from the rejection that it must not commit it.

mod log;
mod record;
mod service;

pub use record::{BackupKind, BackupRecord, ManifestRef, PackId, Totals};
pub use service::{
    Actor, Audited, ExpiredBackup, FinishedRun, Hold, Lease, Origin, RestorePurpose, Role, Run, RunPurpose,
    ServiceChange, ServiceRejected, ServiceSpec, ServiceState, Stage, Trail,
};

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use minicbor::{Decode, Encode};
use rpds::RedBlackTreeMapSync;

use crate::error::{Error, ErrorKind};
use crate::id::{BackupId, SessionId};
use crate::log::{LineageRecord, LogEpoch, LogPurpose, LogState};
use crate::position::Lineage;

/// Why a session ended without a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum CloseReason {
    /// Its own writer gave up.
    #[n(0)]
    Abandoned,
    /// Somebody else ended it because it gave no sign of life. It can never commit after this.
    #[n(1)]
    Fenced,
}

/// One thing that happened to a repository.
///
/// An event that a reader does not know makes it refuse the repository as written by a newer version: folding on without
/// it could bring a deleted thing back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum Event {
    /// A writer begins. From here on the content of its parent and of adopted sessions is pinned.
    #[n(0)]
    SessionOpened {
        /// The session.
        #[n(0)]
        session: SessionId,
        /// When, by the writer's clock.
        #[cbor(n(1), with = "crate::cbor::timestamp")]
        at: Timestamp,
        /// The backup whose content it wants to reuse.
        #[n(2)]
        parent: Option<BackupId>,
        /// Sessions that ended without a backup and whose stored content it wants to reuse.
        #[n(3)]
        adopted: Vec<SessionId>,
    },
    /// A session became a backup.
    #[n(1)]
    BackupCommitted {
        /// The backup.
        #[n(0)]
        record: Box<BackupRecord>,
    },
    /// A session ended without a backup.
    #[n(2)]
    SessionClosed {
        /// The session.
        #[n(0)]
        session: SessionId,
        /// When, by the closer's clock.
        #[cbor(n(1), with = "crate::cbor::timestamp")]
        at: Timestamp,
        /// Why.
        #[n(2)]
        reason: CloseReason,
    },
    /// A backup was found again by a rebuild of the catalog from packs. Sessions that it reuses and that nothing is known of
    /// count as fenced from here on, unless they are recovered themselves.
    #[n(3)]
    BackupRecovered {
        /// The backup, as its manifest describes it.
        #[n(0)]
        record: Box<BackupRecord>,
    },
    /// A log writer begins. One that follows the stream fences the one before.
    #[n(4)]
    LogOpened {
        /// Its number: the next one.
        #[n(0)]
        epoch: LogEpoch,
        /// What it does.
        #[n(1)]
        purpose: LogPurpose,
        /// When, by its own clock.
        #[cbor(n(2), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// A log writer has ended, or was fenced: nothing that it stores beyond these ends counts.
    #[n(5)]
    LogSealed {
        /// The writer.
        #[n(0)]
        epoch: LogEpoch,
        /// Where its log ended, for each lineage that it wrote.
        #[n(1)]
        ends: BTreeMap<Lineage, u64>,
        /// When, by the sealer's clock.
        #[cbor(n(2), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// A lineage was met for the first time.
    #[n(6)]
    LineageAdded {
        /// What is known of it.
        #[n(0)]
        record: Box<LineageRecord>,
    },
    /// Log was lost before it could be stored, or the history of the source was cut.
    #[n(7)]
    LogGap {
        /// The lineage.
        #[n(0)]
        lineage: Lineage,
        /// First missing offset.
        #[n(1)]
        start: u64,
        /// Offset behind the last missing one; equal to the first where the history was cut.
        #[n(2)]
        end: u64,
        /// Why, for people.
        #[n(3)]
        reason: String,
        /// When it was noticed.
        #[cbor(n(4), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// A stored object of the log was found damaged. It does not count any more.
    #[n(8)]
    LogDamaged {
        /// Its name.
        #[n(0)]
        object: String,
        /// The lineage that it held.
        #[n(1)]
        lineage: Lineage,
        /// Its first offset.
        #[n(2)]
        start: u64,
        /// The offset behind its last one.
        #[n(3)]
        end: u64,
        /// What is wrong.
        #[n(4)]
        problem: String,
        /// When it was noticed.
        #[cbor(n(5), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// The log of a lineage before an offset is not kept any more.
    #[n(9)]
    LogExpired {
        /// The lineage.
        #[n(0)]
        lineage: Lineage,
        /// The first offset that is kept.
        #[n(1)]
        before: u64,
        /// When.
        #[cbor(n(2), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// A backup is not kept any more. It cannot be restored from here on, and its content may be collected.
    #[n(10)]
    BackupExpired {
        /// The backup.
        #[n(0)]
        backup: BackupId,
        /// Why, for people.
        #[n(1)]
        reason: String,
        /// Who decided it.
        #[n(2)]
        by: Actor,
        /// When.
        #[cbor(n(3), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// A backup is kept whatever its age, until the hold is released.
    #[n(11)]
    HoldPlaced {
        /// The backup.
        #[n(0)]
        backup: BackupId,
        /// The name of the hold. The same name again replaces it.
        #[n(1)]
        hold: String,
        /// Why, for people.
        #[n(2)]
        reason: String,
        /// Who wants it.
        #[n(3)]
        by: Actor,
        /// When.
        #[cbor(n(4), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// A hold ends.
    #[n(12)]
    HoldReleased {
        /// The backup.
        #[n(0)]
        backup: BackupId,
        /// The name of the hold.
        #[n(1)]
        hold: String,
        /// Who ends it.
        #[n(2)]
        by: Actor,
        /// When.
        #[cbor(n(3), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// Something was decided about the service under management, or happened to it.
    #[n(13)]
    Service {
        /// What.
        #[n(0)]
        change: ServiceChange,
        /// The lease of the runner that does it. It must be the one that is held.
        #[n(1)]
        lease: Option<u64>,
        /// Who.
        #[n(2)]
        by: Actor,
        /// When, by their clock.
        #[cbor(n(3), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
}

impl Event {
    /// Whether it is something that is decided about what is stored, and not a part of storing it.
    #[must_use]
    pub fn is_decision(&self) -> bool {
        match self {
            Self::BackupExpired { .. }
            | Self::HoldPlaced { .. }
            | Self::HoldReleased { .. }
            | Self::Service { .. }
            | Self::LogExpired { .. } => true,
            Self::SessionClosed { reason, .. } => *reason == CloseReason::Fenced,
            _ => false,
        }
    }

    /// The events, if all of them are decisions.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput).
    pub fn decisions(events: Vec<Self>) -> Result<Vec<Self>, Error> {
        match events.iter().find(|event| !event.is_decision()) {
            Some(other) => Err(Error::invalid(format!("{other:?} cannot be decided"))),
            None => Ok(events),
        }
    }
}

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
    },
    /// It became this backup.
    Committed(BackupId),
    /// It ended without a backup.
    Closed(CloseReason),
}

/// Why an event does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// A session id was used before.
    #[error("session {0} was already opened")]
    SessionExists(SessionId),
    /// A session was never opened.
    #[error("session {0} is not known")]
    SessionUnknown(SessionId),
    /// A session has ended, so it can neither commit nor end again.
    #[error("session {session} has ended: {state}")]
    SessionEnded {
        /// The session.
        session: SessionId,
        /// How it ended.
        state: &'static str,
    },
    /// A backup id was used before.
    #[error("backup {0} already exists")]
    BackupExists(BackupId),
    /// A backup that is referred to does not exist.
    #[error("backup {0} does not exist")]
    BackupUnknown(BackupId),
    /// A backup refers to a session that nothing is known of.
    #[error("backup {backup} reuses content of session {session}, which is not known")]
    ReuseUnknown {
        /// The backup.
        backup: BackupId,
        /// The session.
        session: SessionId,
    },
    /// A log writer was opened by somebody else in the meantime.
    #[error("log writer {0} was opened in the meantime")]
    LogEpochTaken(LogEpoch),
    /// A log writer was never opened.
    #[error("log writer {0} is not known")]
    LogEpochUnknown(LogEpoch),
    /// A log writer was sealed already.
    #[error("log writer {0} has ended")]
    LogEpochSealed(LogEpoch),
    /// A lineage is known, and what is known of it is something else.
    #[error("lineage {0} is known with another source or origin")]
    LineageDiffers(Lineage),
    /// A lineage is known already.
    #[error("lineage {0} is known already")]
    LineageExists(Lineage),
    /// A lineage was never met.
    #[error("lineage {0} is not known")]
    LineageUnknown(Lineage),
    /// A range ends before it begins.
    #[error("offsets {start} to {end} are no range")]
    NoRange {
        /// Its start.
        start: u64,
        /// Its end.
        end: u64,
    },
    /// A backup is kept by somebody.
    #[error("backup {backup} is on hold: {hold}")]
    BackupHeld {
        /// The backup.
        backup: BackupId,
        /// By what.
        hold: String,
    },
    /// A backup has no such hold.
    #[error("backup {backup} has no hold {hold:?}")]
    HoldUnknown {
        /// The backup.
        backup: BackupId,
        /// The name.
        hold: String,
    },
    /// A backup is not kept any more.
    #[error("backup {backup} was expired at {at}: {reason}")]
    BackupExpired {
        /// The backup.
        backup: BackupId,
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
    /// The service is being destroyed.
    #[error("the service is being purged")]
    Purging,
    /// A change of the service does not fit.
    #[error(transparent)]
    Service(#[from] ServiceRejected),
}

impl Rejected {
    /// The error of somebody who has asked for this, where nobody was faster.
    #[must_use]
    pub fn asked(self) -> Error {
        Error::invalid(self.to_string()).with_source(self)
    }
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        Self::new(ErrorKind::Conflict, rejected.to_string()).with_source(rejected)
    }
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
}

impl Catalog {
    /// The state before any event.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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
                let state = SessionState::Open { at: *at, parent: *parent, adopted: adopted.clone() };
                self.sessions.insert_mut(*session, state);
            }
            Event::BackupCommitted { record } => {
                self.open_session(record.session)?;
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
            }
            Event::LogOpened { .. }
            | Event::LogSealed { .. }
            | Event::LineageAdded { .. }
            | Event::LogGap { .. }
            | Event::LogDamaged { .. }
            | Event::LogExpired { .. } => log::apply(Arc::make_mut(&mut self.log), event)?,
            Event::BackupExpired { backup, reason, at, .. } => self.expire(*backup, reason, *at)?,
            Event::HoldPlaced { backup, hold, reason, by, at } => {
                self.existing(*backup)?;
                let placed = Hold { reason: reason.clone(), by: by.clone(), since: *at };
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
            Event::Service { change, lease, by, at } => {
                service::apply(&mut self.service, (change, *lease), (by, *at), self.holds.len())?;
            }
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
        let session = self.existing(backup)?.session;
        if let Some((hold, _)) = self.holds(backup).next() {
            return Err(Rejected::BackupHeld { backup, hold: hold.to_owned() });
        }
        self.backups.remove_mut(&backup);
        self.expired.insert_mut(backup, ExpiredBackup { session, reason: reason.to_owned(), at });
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
