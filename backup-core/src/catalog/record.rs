//! What the catalog keeps of a committed backup.

use std::fmt;

use jiff::Timestamp;
use minicbor::{Decode, Encode};

use crate::id::{BackupId, ServiceId, SessionId};
use crate::snapshot::Snapshot;

/// Whether a backup stored everything anew.
///
/// Both kinds are complete: either is restored without any other backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum BackupKind {
    /// Everything was stored by its own session.
    #[n(0)]
    Full,
    /// Content of a parent was reused.
    #[n(1)]
    Incremental,
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        })
    }
}

/// A pack of a repository: one write-once object of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, serde::Serialize)]
pub struct PackId {
    /// The session that wrote it.
    #[n(0)]
    pub session: SessionId,
    /// Its number in that session, from 0.
    #[n(1)]
    pub number: u32,
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:06}", self.session, self.number)
    }
}

/// Where the manifest of a backup begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct ManifestRef {
    /// The pack that holds the manifest's root.
    #[n(0)]
    pub pack: PackId,
    /// The segment of that pack.
    #[n(1)]
    pub segment: u32,
    /// BLAKE3 of the root's plaintext.
    #[cbor(n(2), with = "minicbor::bytes")]
    #[serde(skip)]
    pub digest: [u8; 32],
}

/// A committed backup.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct BackupRecord {
    /// Its id.
    #[n(0)]
    pub id: BackupId,
    /// Whose backup it is.
    #[n(1)]
    pub service: ServiceId,
    /// The session that wrote it.
    #[n(2)]
    pub session: SessionId,
    /// Whether it stored everything anew.
    #[n(3)]
    pub kind: BackupKind,
    /// The backup whose content it shares.
    #[n(4)]
    pub parent: Option<BackupId>,
    /// When the session was opened.
    #[cbor(n(5), with = "crate::cbor::timestamp")]
    pub started_at: Timestamp,
    /// When it was committed.
    #[cbor(n(6), with = "crate::cbor::timestamp")]
    pub ended_at: Timestamp,
    /// Bytes of content that a restore writes.
    #[n(7)]
    pub data_bytes: u64,
    /// Bytes of content that were not in the repository before.
    #[n(8)]
    pub new_bytes: u64,
    /// Bytes of the objects that its session stored.
    #[n(9)]
    pub stored_bytes: u64,
    /// Number of entries.
    #[n(10)]
    pub entries: u64,
    /// Where its manifest begins.
    #[n(11)]
    pub manifest: ManifestRef,
    /// The sessions, besides its own, whose packs it needs.
    #[n(12)]
    pub reused: Vec<SessionId>,
    /// What the engine said about it.
    #[n(13)]
    pub snapshot: Snapshot,
}

/// The parts of a [`BackupRecord`] that its session counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of content that a restore writes.
    pub data_bytes: u64,
    /// Bytes of content that were not in the repository before.
    pub new_bytes: u64,
    /// Bytes of the objects that the session stored.
    pub stored_bytes: u64,
    /// Number of entries.
    pub entries: u64,
}

impl BackupRecord {
    /// A record of a backup that is about to be committed.
    #[expect(clippy::too_many_arguments, reason = "every part is named at the only two places that make records")]
    #[must_use]
    pub fn new(
        id: BackupId,
        service: ServiceId,
        session: SessionId,
        parent: Option<BackupId>,
        (started_at, ended_at): (Timestamp, Timestamp),
        totals: Totals,
        manifest: ManifestRef,
        reused: Vec<SessionId>,
        snapshot: Snapshot,
    ) -> Self {
        let kind = if parent.is_some() { BackupKind::Incremental } else { BackupKind::Full };
        let Totals { data_bytes, new_bytes, stored_bytes, entries } = totals;
        Self {
            id,
            service,
            session,
            kind,
            parent,
            started_at,
            ended_at,
            data_bytes,
            new_bytes,
            stored_bytes,
            entries,
            manifest,
            reused,
            snapshot,
        }
    }
}
