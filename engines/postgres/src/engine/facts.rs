//! What the snapshot of a PostgreSQL backup says, by the names under which it stands there.

use std::str::FromStr;

use backup_core::{Error, Lineage, LogPosition, Result, Snapshot};

use jiff::Timestamp;

use crate::lsn::{Lsn, TimelineId};
use crate::wire::Session;

/// `server_version_num`, e.g. `170006`.
pub(super) const VERSION_NUM: &str = "server_version_num";
/// Size of WAL segments in bytes.
pub(super) const WAL_SEGMENT_SIZE: &str = "wal_segment_size";
/// `on` or `off`.
pub(super) const DATA_CHECKSUMS: &str = "data_checksums";
/// Whether the server was in recovery: `yes` or `no`.
pub(super) const STANDBY: &str = "standby";
/// JSON array of [`Tablespace`].
pub(super) const TABLESPACES: &str = "tablespaces";
/// Permissions of the data directory in octal, `0700` or `0750`.
pub(super) const MODE: &str = "data_directory_mode";
/// Where the files were read: host and data directory. Only of local backups.
pub(super) const ORIGIN: &str = "origin";

/// How it was found out what changed since the parent: `log`, `summaries`, `compared` or `verified`.
pub(super) const CHANGES: &str = "changes";
/// How it is known that the server's history is the parent's, where its summaries were believed: `recognised` by the bytes of the
/// log, or `named` by cluster, timeline and position only.
pub(super) const HISTORY: &str = "history";
/// Bytes of data files that were read, or that the server sent.
pub(super) const READ_BYTES: &str = "read_bytes";

/// By what the log that ends with the backup can be recognised: SHA-256 of the last bytes of it, in hex. Only of local backups.
pub(super) const WITNESS: &str = "log_witness";

/// A tablespace outside of the data directory.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Tablespace {
    /// Its object identifier.
    pub(super) oid: u32,
    /// Where it was. A location that is not UTF-8 has its other bytes escaped and must be mapped to be restored.
    pub(super) location: String,
}

/// A position in the log of a timeline.
pub(super) fn position(timeline: TimelineId, lsn: Lsn) -> LogPosition {
    LogPosition::new(Lineage::new(timeline.to_string()), lsn.0, lsn.to_string())
}

/// The server's clock. Asked behind the end of a backup: whatever the backup contains was committed before.
pub(super) async fn clock(session: &mut Session) -> Result<Timestamp> {
    let row = session.query_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now").await?;
    let now: i64 = row.parse("now")?;
    Timestamp::from_microsecond(now).map_err(|e| Error::damaged("the server's clock is out of range").with_source(e))
}

/// The facts of a stored backup that a restore or a check needs.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) system_id: u64,
    pub(super) timeline: TimelineId,
    pub(super) start: Lsn,
    pub(super) stop: Lsn,
    pub(super) wal_segment_size: crate::wal::SegmentSize,
    /// The server's major version.
    pub(super) major: u32,
    /// Permissions of the data directory.
    pub(super) mode: u32,
    pub(super) tablespaces: Vec<Tablespace>,
}

impl Facts {
    /// Reads them back.
    ///
    /// # Errors
    /// Damaged, when one is missing or not readable.
    pub(super) fn of(snapshot: &Snapshot) -> Result<Self> {
        let missing = |what: &str| Error::damaged(format!("the snapshot of the backup has no readable {what}"));
        let (Some(start), Some(stop)) = (&snapshot.start, &snapshot.stop) else {
            return Err(missing("positions"));
        };
        let timeline = stop.lineage.as_str().parse().ok().and_then(TimelineId::new);
        let size = snapshot.fact(WAL_SEGMENT_SIZE).and_then(|text| u32::from_str(text).ok());
        let size = size.and_then(|bytes| crate::wal::SegmentSize::new(bytes).ok());
        let tablespaces = snapshot.fact(TABLESPACES).and_then(|text| serde_json::from_str(text).ok());
        let version: Option<u32> = snapshot.fact(VERSION_NUM).and_then(|text| text.parse().ok());
        let mode = snapshot.fact(MODE).and_then(|text| u32::from_str_radix(text, 8).ok());
        Ok(Self {
            major: version.ok_or_else(|| missing(VERSION_NUM))? / 10_000,
            // A server starts only with one of two.
            mode: mode.filter(|mode| matches!(mode, 0o700 | 0o750)).ok_or_else(|| missing(MODE))?,
            system_id: snapshot.source.parse().map_err(|_| missing("system identifier"))?,
            timeline: timeline.ok_or_else(|| missing("timeline"))?,
            start: Lsn(start.offset),
            stop: Lsn(stop.offset),
            wal_segment_size: size.ok_or_else(|| missing(WAL_SEGMENT_SIZE))?,
            tablespaces: tablespaces.ok_or_else(|| missing(TABLESPACES))?,
        })
    }
}
