//! What is stored, as far as retention has to know it.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The caller's number for a history of changes (a PostgreSQL timeline, a Redis replication id). Any number will do, as long as
/// it is the same everywhere in the same [`Facts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LineageKey(pub u32);

impl fmt::Display for LineageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A place in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The history.
    pub lineage: LineageKey,
    /// Bytes from its origin.
    pub offset: u64,
}

impl Position {
    /// The place `offset` of `lineage`.
    #[must_use]
    pub const fn new(lineage: LineageKey, offset: u64) -> Self {
        Self { lineage, offset }
    }
}

/// A backup that has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup<Id> {
    /// Its name.
    pub id: Id,
    /// When it began. Says of which hour, day, … it is.
    pub started: Timestamp,
    /// When it had ended. Its age counts from here, and from here on moments are restorable from it.
    pub ended: Timestamp,
    /// Bytes of it if it were stored alone.
    pub bytes: u64,
    /// Whether it is usable as far as anybody knows. Only what was *proven* bad is not good.
    pub good: bool,
    /// Whether somebody wants it to stay.
    pub hold: bool,
    /// Whether the log that follows it is to stay as well, on every history that it leads to.
    pub hold_log: bool,
    /// Where in the log it is consistent, for engines with a log.
    pub position: Option<Position>,
}

impl<Id> Backup<Id> {
    /// A good backup without hold, of an engine without a log.
    #[must_use]
    pub const fn new(id: Id, started: Timestamp, ended: Timestamp) -> Self {
        Self { id, started, ended, bytes: 0, good: true, hold: false, hold_log: false, position: None }
    }

    /// Sets its size.
    #[must_use]
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Says that it is proven bad.
    #[must_use]
    pub fn bad(mut self) -> Self {
        self.good = false;
        self
    }

    /// Puts it on hold.
    #[must_use]
    pub fn held(mut self) -> Self {
        self.hold = true;
        self
    }

    /// Puts it on hold together with the log that follows it.
    #[must_use]
    pub fn held_with_log(mut self) -> Self {
        self.hold_log = true;
        self.held()
    }

    /// Sets where it is consistent.
    #[must_use]
    pub fn at(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }
}

/// A stored piece of log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRange {
    /// Offset of its first byte.
    pub start: u64,
    /// Offset behind its last byte.
    pub end: u64,
    /// The moment of its first change, or one before it.
    pub first: Timestamp,
    /// The moment of its last change, or one after it.
    pub last: Timestamp,
    /// Bytes that are stored for it.
    pub bytes: u64,
}

/// Where a history was left by another one: bytes before the offset are common to both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The parent.
    pub lineage: LineageKey,
    /// Where it was left.
    pub offset: u64,
}

/// A history and what is stored of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The history.
    pub lineage: LineageKey,
    /// Where it was forked, if it was.
    pub parent: Option<Fork>,
    /// Its stored pieces, in any order.
    pub ranges: Vec<LogRange>,
}

impl Log {
    /// A history of which nothing is stored yet.
    #[must_use]
    pub const fn new(lineage: LineageKey, parent: Option<Fork>) -> Self {
        Self { lineage, parent, ranges: Vec::new() }
    }

    /// The moment of its last change that is stored.
    #[must_use]
    pub fn last(&self) -> Option<Timestamp> {
        self.ranges.iter().map(|range| range.last).max()
    }

    /// Adds a stored piece.
    #[must_use]
    pub fn with(mut self, range: LogRange) -> Self {
        self.ranges.push(range);
        self
    }
}

/// Everything that is stored of a service.
///
/// Nothing of it is trusted to make sense: names that stand twice, histories that fork from themselves or from unknown ones
/// are planned for as well as they can be, always in the direction of keeping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts<Id> {
    /// Backups that have committed, in any order.
    pub backups: Vec<Backup<Id>>,
    /// The histories, each once.
    pub logs: Vec<Log>,
    /// The history that the source follows now. If it is not named, it is the one with the latest log of those that no other
    /// one was forked from.
    pub following: Option<LineageKey>,
}

impl<Id> Facts<Id> {
    /// Of an engine without a log.
    #[must_use]
    pub const fn of_backups(backups: Vec<Backup<Id>>) -> Self {
        Self { backups, logs: Vec::new(), following: None }
    }

    /// The history that the source follows, named or not. Nothing of it depends on the present.
    #[must_use]
    pub fn followed(&self) -> Option<LineageKey> {
        self.following.or_else(|| {
            let parents: BTreeSet<_> = self.logs.iter().filter_map(|log| Some(log.parent?.lineage)).collect();
            let leaves = self.logs.iter().filter(|log| !parents.contains(&log.lineage));
            leaves.max_by_key(|log| (log.last(), log.lineage)).map(|log| log.lineage)
        })
    }

    /// Nothing yet.
    #[must_use]
    pub const fn none() -> Self {
        Self::of_backups(Vec::new())
    }
}

impl<Id> Default for Facts<Id> {
    fn default() -> Self {
        Self::none()
    }
}
