//! Why events are refused.

use jiff::Timestamp;

use super::{Actor, KeyRejected, ServiceRejected};
use crate::error::{Error, ErrorKind};
use crate::id::{BackupId, DrillId, HostId, SessionId};
use crate::log::LogEpoch;
use crate::position::Lineage;

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
    /// A drill is over: its record was written.
    #[error("drill {0} is over")]
    DrillOver(DrillId),
    /// Another drill is under way.
    #[error("{by} does a drill until {until}")]
    DrillUnderWay {
        /// Who.
        by: Actor,
        /// Until when, if it gives no sign of life.
        until: Timestamp,
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
    /// A session builds on another one of which something was condemned.
    #[error("content of session {0} was condemned, so nobody can build on it")]
    SessionCollected(SessionId),
    /// A session that has not ended was to be condemned.
    #[error("session {0} has not ended")]
    SessionOpen(SessionId),
    /// A collection was condemned by somebody else in the meantime.
    #[error("collection {0} was condemned in the meantime")]
    CollectionTaken(u64),
    /// Something was pinned since a collection was worked out.
    #[error("something was pinned since collection {0} was worked out")]
    CollectionStale(u64),
    /// A collection is not known, or swept.
    #[error("collection {0} is not known, or swept already")]
    CollectionUnknown(u64),
    /// The sweep of a collection has begun.
    #[error("collection {0} is being swept")]
    CollectionSwept(u64),
    /// The sweep of a collection has not begun.
    #[error("the sweep of collection {0} has not begun")]
    SweepNotBegun(u64),
    /// A collection that copied packs is followed by another one.
    #[error("collection {0} copied packs and was followed by another one")]
    CollectionFollowed(u64),
    /// Packs are condemned already.
    #[error("packs of session {0} are condemned already")]
    PacksCondemned(SessionId),
    /// Log is kept that was to be condemned.
    #[error("the log of lineage {lineage} before {before} is kept")]
    LogKept {
        /// The lineage.
        lineage: Lineage,
        /// Up to where it was to be condemned.
        before: u64,
    },
    /// A backup that has not expired was to be reinstated.
    #[error("backup {0} has not expired")]
    BackupNotExpired(BackupId),
    /// What an expired backup was made of is gone.
    #[error("what backup {0} was made of has been taken away")]
    BackupSwept(BackupId),
    /// What an expired backup is made of was condemned.
    #[error(
        "what backup {backup} is made of was condemned by collection {collection}, which has to be withdrawn first"
    )]
    BackupCondemned {
        /// The backup.
        backup: BackupId,
        /// The collection.
        collection: u64,
    },
    /// A backup that is harmed by damage cannot be built on.
    #[error("backup {backup} is damaged: {problem}")]
    BackupDamaged {
        /// The backup.
        backup: BackupId,
        /// What is wrong.
        problem: String,
    },
    /// A backup reuses content of a session of which something was found damaged after it had begun.
    #[error("content of session {session}, which backup {backup} reuses, was found damaged meanwhile")]
    ReuseDamaged {
        /// The backup.
        backup: BackupId,
        /// The session.
        session: SessionId,
    },
    /// A session builds on another one of which something was found damaged.
    #[error("content of session {0} was found damaged, so nobody can build on it")]
    SessionDamaged(SessionId),
    /// There is a host of this name, or with this id.
    #[error("there is a host {0:?} already")]
    HostExists(String),
    /// A host is not known.
    #[error("host {0} is not known")]
    HostUnknown(HostId),
    /// A host was removed.
    #[error("host {0} was removed")]
    HostRemoved(HostId),
    /// A recipient was removed since a host was added.
    #[error("a recipient was removed since host {0} was added: it needs another file")]
    HostOutdated(HostId),
    /// Something was condemned or found damaged since a deposit was looked at.
    #[error("something was condemned or found damaged since the deposit of session {0} was looked at")]
    DepositStale(SessionId),
    /// The service is being destroyed.
    #[error("the service is being purged")]
    Purging,
    /// A change of the service does not fit.
    #[error(transparent)]
    Service(#[from] ServiceRejected),
    /// A change of the keys does not fit.
    #[error(transparent)]
    Keys(#[from] KeyRejected),
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
