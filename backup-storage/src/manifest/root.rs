//! The root of a manifest.

use backup_core::catalog::{BackupRecord, ManifestRef, PackId, Totals};
use backup_core::entry::EntryPath;
use backup_core::{BackupId, ServiceId, SessionId, Snapshot};
use jiff::Timestamp;
use minicbor::{Decode, Encode};

use super::Extent;
use crate::error::{Error, Result};

/// Bytes that stand in the root itself, or where they are stored.
///
/// The extents of a root's blobs do not use the pack table, which is such a blob itself: their `pack` is one more than the
/// number of a pack of the root's own session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Blob {
    /// The bytes.
    #[n(0)]
    Inline(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Where they are.
    #[n(1)]
    Stored(#[n(0)] Vec<Extent>),
}

/// A pack that a manifest refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct PackUse {
    #[n(0)]
    pub(crate) pack: PackId,
    /// Length of the object in bytes.
    #[n(1)]
    pub(crate) stored_len: u64,
    /// Bytes of its plaintext that the backup uses.
    #[n(2)]
    pub(crate) live: u64,
}

/// A part of a run.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct PartRef {
    /// Which run it belongs to, from 0.
    #[n(0)]
    pub(crate) run: u32,
    /// The path of its first entry.
    #[n(1)]
    pub(crate) first: EntryPath,
    /// How many entries it has.
    #[n(2)]
    pub(crate) entries: u32,
    /// Number of the pack of the root's own session.
    #[n(3)]
    pub(crate) pack: u32,
    /// The segment.
    #[n(4)]
    pub(crate) segment: u32,
}

/// What a manifest begins with: everything that the catalog knows of the backup, and where the rest is.
///
/// The catalog's record repeats most of it. It stands here too, because the catalog can be rebuilt from packs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Root {
    /// Format version, as in the journal's first entry.
    #[n(0)]
    pub(crate) format: u32,
    #[n(1)]
    pub(crate) backup: BackupId,
    #[n(2)]
    pub(crate) service: ServiceId,
    #[n(3)]
    pub(crate) session: SessionId,
    #[n(4)]
    pub(crate) parent: Option<BackupId>,
    #[cbor(n(5), with = "backup_core::cbor::timestamp")]
    pub(crate) started_at: Timestamp,
    /// When the root was written, shortly before the commit.
    #[cbor(n(6), with = "backup_core::cbor::timestamp")]
    pub(crate) ended_at: Timestamp,
    #[n(7)]
    pub(crate) data_bytes: u64,
    #[n(8)]
    pub(crate) new_bytes: u64,
    #[n(9)]
    pub(crate) entries: u64,
    #[n(10)]
    pub(crate) snapshot: Snapshot,
    /// CBOR array of [`PartRef`], runs in order, parts in order.
    #[n(11)]
    pub(crate) parts: Blob,
    /// CBOR array of [`PackUse`]: the pack table.
    #[n(12)]
    pub(crate) packs: Blob,
    /// The sessions, besides its own, whose packs it needs.
    #[n(13)]
    pub(crate) reused: Vec<SessionId>,
}

impl Root {
    /// Reads a root whose digest was committed, or whose segment was authenticated.
    ///
    /// # Errors
    /// Environment, when it was written by a newer version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        minicbor::decode(bytes)
            .map_err(|e| Error::environment("a manifest was written by a newer version of this library").with_source(e))
    }

    /// What the catalog knows of the backup: this root, which stands at `place`, its end, and the bytes that its session stored.
    pub(crate) fn record(&self, place: ManifestRef, ended_at: Timestamp, stored_bytes: u64) -> BackupRecord {
        let Self { data_bytes, new_bytes, entries, .. } = *self;
        BackupRecord::new(
            self.backup,
            self.service.clone(),
            self.session,
            self.parent,
            (self.started_at, ended_at),
            Totals { data_bytes, new_bytes, stored_bytes, entries },
            place,
            self.reused.clone(),
            self.snapshot.clone(),
        )
    }
}

/// The pack table in the bytes of its blob.
pub(crate) fn decode_packs(bytes: &[u8]) -> Result<Vec<PackUse>> {
    minicbor::decode(bytes).map_err(|e| Error::damaged("a manifest's pack table is not readable").with_source(e))
}

/// The parts in the bytes of their blob.
pub(crate) fn decode_parts(bytes: &[u8]) -> Result<Vec<PartRef>> {
    minicbor::decode(bytes).map_err(|e| Error::damaged("a manifest's list of parts is not readable").with_source(e))
}
