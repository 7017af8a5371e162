//! What can happen to a repository: the entries of its journal.

use std::collections::BTreeMap;

use jiff::Timestamp;
use minicbor::{Decode, Encode};

use super::{
    Actor, BackupRecord, Condemned, Deposit, DrillRecord, HostChange, KeyChange, PackDamage, PackId, PackMove, Refusal,
    ServiceChange, Verification,
};
use crate::error::Error;
use crate::id::{BackupId, DrillId, HostId, SessionId};
use crate::log::{LineageRecord, LogEpoch, LogPurpose};
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
    /// It copied what is still needed of other packs, and a collection says what.
    #[n(2)]
    Repacked,
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
        /// Whether the log that follows the backup is kept as well: then every moment behind it that is restorable stays so.
        #[cbor(n(5), skip_if = "crate::cbor::is_false")]
        log: bool,
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
    /// Maintenance is about to take away what nobody needs, see [`Condemned`].
    #[n(21)]
    Condemned {
        /// What.
        #[n(0)]
        collection: Box<Condemned>,
        /// When.
        #[cbor(n(1), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// From here on a collection cannot be withdrawn, and what it names is deleted.
    #[n(22)]
    SweepBegun {
        /// The number of the collection.
        #[n(0)]
        collection: u64,
        /// When.
        #[cbor(n(1), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// Everything that a collection names is gone.
    #[n(23)]
    Swept {
        /// The number of the collection.
        #[n(0)]
        collection: u64,
        /// When.
        #[cbor(n(1), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// A collection is given up before its sweep: everything that it names stays.
    #[n(24)]
    CollectionWithdrawn {
        /// The number of the collection.
        #[n(0)]
        collection: u64,
        /// Who wants it.
        #[n(1)]
        by: Actor,
        /// When.
        #[cbor(n(2), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// A backup that had expired is kept again.
    #[n(25)]
    BackupReinstated {
        /// The backup.
        #[n(0)]
        backup: BackupId,
        /// Who wants it.
        #[n(1)]
        by: Actor,
        /// When.
        #[cbor(n(2), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// Copies of packs were found again by a rebuild of the catalog. Their session counts as ended.
    #[n(26)]
    PacksRecovered {
        /// The session that copied them.
        #[n(0)]
        session: SessionId,
        /// Where what was.
        #[n(1)]
        moves: Vec<PackMove>,
    },
    /// A backup was restored into a scratch instance and looked at there.
    #[n(27)]
    Drilled {
        /// What that has shown.
        #[n(0)]
        record: Box<DrillRecord>,
    },
    /// A drill of a service under management begins, or goes on: nobody else begins one before the time has come.
    #[n(28)]
    DrillBegun {
        /// Which.
        #[n(0)]
        drill: DrillId,
        /// Who does it.
        #[n(1)]
        by: Actor,
        /// When, by their clock.
        #[cbor(n(2), with = "crate::cbor::timestamp")]
        at: Timestamp,
        /// From here on it counts as given up, unless something more was said.
        #[cbor(n(3), with = "crate::cbor::timestamp")]
        until: Timestamp,
    },
    /// Packs were found missing or damaged. No backup builds on those that are harmed by it any more.
    #[n(29)]
    PacksDamaged {
        /// What is wrong with which pack. What was said of the same pack before is replaced.
        #[n(0)]
        packs: Vec<PackDamage>,
        /// When it was noticed.
        #[cbor(n(1), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// What was damaged is there again as it was written.
    #[n(30)]
    Mended {
        /// The packs.
        #[n(0)]
        packs: Vec<PackId>,
        /// The names of objects of the log.
        #[n(1)]
        log: Vec<String>,
        /// Who saw it.
        #[n(2)]
        by: Actor,
        /// When.
        #[cbor(n(3), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// Stored content was read and compared with what was written.
    #[n(31)]
    Verified {
        /// How much, and how it came out.
        #[n(0)]
        verification: Box<Verification>,
    },
    /// Something happened to a host that only writes.
    #[n(32)]
    Hosts {
        /// What.
        #[n(0)]
        change: HostChange,
        /// Who does it.
        #[n(1)]
        by: Actor,
        /// When, by their clock.
        #[cbor(n(2), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// What a host has deposited is a backup from here on.
    #[n(33)]
    DepositAdopted {
        /// What makes it one.
        #[n(0)]
        deposit: Box<Deposit>,
        /// When, by the clock of who adopted it.
        #[cbor(n(1), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// What a host has deposited is no backup and never will be.
    #[n(34)]
    DepositRefused {
        /// The session in which it was stored.
        #[n(0)]
        session: SessionId,
        /// The host.
        #[n(1)]
        host: HostId,
        /// Why.
        #[n(2)]
        reason: Refusal,
        /// When.
        #[cbor(n(3), with = "crate::cbor::timestamp")]
        at: Timestamp,
    },
    /// A rebuild of the catalog has found the key of a deposit that had been adopted. Its backup is recovered by an event of its own.
    #[n(35)]
    DepositRecovered {
        /// The session in which it was stored.
        #[n(0)]
        session: SessionId,
        /// The host.
        #[n(1)]
        host: HostId,
        /// The key of the session, sealed.
        #[cbor(n(2), with = "minicbor::bytes")]
        key: Vec<u8>,
    },
    /// Something happened to the repository's keys.
    #[n(20)]
    Keys {
        /// What.
        #[n(0)]
        change: KeyChange,
        /// Who does it.
        #[n(1)]
        by: Actor,
        /// When, by their clock.
        #[cbor(n(2), with = "crate::cbor::timestamp")]
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
            | Self::CollectionWithdrawn { .. }
            | Self::BackupReinstated { .. }
            | Self::Drilled { .. }
            | Self::DrillBegun { .. }
            | Self::Service { .. }
            | Self::LogExpired { .. } => true,
            Self::SessionClosed { reason, .. } => *reason == CloseReason::Fenced,
            _ => false,
        }
    }

    /// The events, if all of them are decisions.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput).
    pub fn decisions(events: Vec<Self>) -> Result<Vec<Self>, Error> {
        match events.iter().find(|event| !event.is_decision()) {
            Some(other) => Err(Error::invalid(format!("{other:?} cannot be decided"))),
            None => Ok(events),
        }
    }
}
