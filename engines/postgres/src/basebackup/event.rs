//! What happens during a base backup, independent of the server's version.

use bytes::Bytes;

use crate::error::ServerError;
use crate::lsn::{Lsn, TimelineId};

/// One step of a running base backup.
///
/// The order is always: `Started`; for every tablespace and lastly the main directory `Archive` and its `Data`;
/// `ManifestStart` and its `ManifestData`, if a manifest was asked for; `Finished`. `Progress` may come anywhere between.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The backup has begun.
    Started(Started),
    /// The next archive begins.
    Archive {
        /// The tablespace it holds, `None` for the main data directory.
        tablespace: Option<Tablespace>,
        /// Its file name: `base.tar`, `16384.tar`, with a suffix when the server compresses.
        name: String,
    },
    /// The next bytes of the current archive.
    Data(Bytes),
    /// The manifest begins.
    ManifestStart,
    /// The next bytes of the manifest.
    ManifestData(Bytes),
    /// How many bytes (before compression) the server has sent, or this client has received.
    Progress(u64),
    /// The backup is complete.
    Finished(Finished),
}

/// The start of a base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Started {
    /// Where the write-ahead log that the backup needs begins.
    pub position: Lsn,
    /// The timeline of that position.
    pub timeline: TimelineId,
    /// The tablespaces outside of the main data directory, in the order in which they will come.
    pub tablespaces: Vec<Tablespace>,
    /// The estimated size of the main directory in kB, if an estimate was asked for.
    pub main_kb: Option<u64>,
}

impl Started {
    /// The estimated size of everything in bytes, if an estimate was asked for.
    #[must_use]
    pub fn estimated_bytes(&self) -> Option<u64> {
        let kb = self.tablespaces.iter().try_fold(self.main_kb?, |sum, space| sum.checked_add(space.size_kb?))?;
        kb.checked_mul(1024)
    }
}

/// A tablespace outside of the main data directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tablespace {
    /// Its object identifier, which is also the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its directory on the server, in bytes that need not be UTF-8.
    pub location: Bytes,
    /// Its estimated size in kB, if an estimate was asked for.
    pub size_kb: Option<u64>,
}

/// The end of a base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finished {
    /// Up to where the write-ahead log must be replayed before the backup is consistent.
    pub end: Lsn,
    /// The timeline of that position.
    pub timeline: TimelineId,
    /// Whether the server met pages with wrong checksums (SQLSTATE XX001 after everything was sent): the backup is
    /// complete, and exactly as damaged as the server. The notices name the files and blocks, five per file.
    pub checksum_failures: bool,
    /// All warnings and notices that the server sent meanwhile, at most 1000.
    pub notices: Vec<ServerError>,
}
