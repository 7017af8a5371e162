//! The moment that a restore is to reach.

use std::fmt;

use jiff::Timestamp;

use crate::id::BackupId;

/// What a restore is to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Goal {
    /// The newest state that is stored.
    Latest,
    /// Exactly this backup's end.
    Backup(BackupId),
    /// The last change committed by this moment.
    Time(Timestamp),
    /// This log position, in the engine's notation.
    Position(String),
    /// A restore point that was named in the engine.
    Named(String),
    /// The end of this transaction, in the engine's notation of its name.
    Transaction(String),
}

/// A [`Goal`] and whether the change that lies exactly on it is included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryTarget {
    /// What is to be reached.
    pub goal: Goal,
    /// Whether a change exactly at the goal is applied. True by default, as in PostgreSQL's `recovery_target_inclusive`.
    pub inclusive: bool,
}

impl RecoveryTarget {
    /// Reaches `goal` and includes a change exactly on it.
    #[must_use]
    pub fn new(goal: Goal) -> Self {
        Self { goal, inclusive: true }
    }

    /// The newest state.
    #[must_use]
    pub fn latest() -> Self {
        Self::new(Goal::Latest)
    }

    /// Exactly one backup.
    #[must_use]
    pub fn backup(id: BackupId) -> Self {
        Self::new(Goal::Backup(id))
    }

    /// Stops just before a change that lies exactly on the goal.
    #[must_use]
    pub fn exclusive(mut self) -> Self {
        self.inclusive = false;
        self
    }
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.goal {
            Goal::Latest => f.write_str("latest"),
            Goal::Backup(id) => write!(f, "backup {id}"),
            Goal::Time(time) => write!(f, "time {time}"),
            Goal::Position(text) => write!(f, "position {text}"),
            Goal::Named(name) => write!(f, "restore point {name}"),
            Goal::Transaction(name) => write!(f, "transaction {name}"),
        }?;
        if self.inclusive { Ok(()) } else { f.write_str(" (exclusive)") }
    }
}
