//! What can be restored: windows, and the holes between them.

use jiff::Timestamp;

use super::{LogPath, LogRange};
use crate::catalog::BackupRecord;
use crate::error::Error;
use crate::id::BackupId;
use crate::position::LogPosition;

/// What the ledger needs of a backup: from where the log has to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupPoint {
    /// The backup.
    pub id: BackupId,
    /// The position from which it is consistent.
    pub stop: LogPosition,
    /// The moment of that position.
    pub at: Timestamp,
}

impl BackupPoint {
    /// A backup that is consistent from `stop` on, which was at `at`.
    #[must_use]
    pub fn new(id: BackupId, stop: LogPosition, at: Timestamp) -> Self {
        Self { id, stop, at }
    }

    /// That of a stored backup, if it has a position.
    #[must_use]
    pub fn of(record: &BackupRecord) -> Option<Self> {
        let stop = record.snapshot.stop.clone()?;
        Some(Self { id: record.id, stop, at: record.snapshot.consistent_at() })
    }
}

/// A maximal run of restorable positions: from the end of a backup on, along a log without a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Window {
    /// The backups that lie in it, oldest first. Any position is reached from the newest one before it.
    pub backups: Vec<BackupPoint>,
    /// The log from the first of them on.
    pub path: LogPath,
    /// The last restorable position.
    pub to: LogPosition,
    /// Whether it is off the history that the source follows: what a failed primary had and its successor has not.
    pub orphaned: bool,
}

impl Window {
    /// The first restorable position.
    #[must_use]
    pub fn from(&self) -> &LogPosition {
        &self.path.from
    }

    /// The first restorable moment.
    #[must_use]
    pub fn from_time(&self) -> Option<Timestamp> {
        self.backups.first().map(|backup| backup.at)
    }
}

/// Log that is missing between what is stored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Hole {
    /// What is missing; empty where the history was cut.
    pub range: LogRange,
    /// Its start in the engine's notation.
    pub from: LogPosition,
    /// Its end in the engine's notation.
    pub to: LogPosition,
    /// Why, as far as it is known.
    pub reason: Option<String>,
}

impl Hole {
    /// What a reader of the missing log is told: [`Damaged`](crate::ErrorKind::Damaged), with both ends.
    #[must_use]
    pub fn error(&self) -> Error {
        let Self { range, from, to, reason } = self;
        let mut text = if range.is_empty() {
            format!("the log of lineage {} was cut at {from}", range.lineage)
        } else {
            format!("the log of lineage {} is missing between {from} and {to}", range.lineage)
        };
        if let Some(reason) = reason {
            text.push_str(": ");
            text.push_str(reason);
        }
        Error::damaged(text)
    }
}
