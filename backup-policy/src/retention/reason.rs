//! Why something is kept, and why it no longer is.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::LineageKey;
use crate::profile::Tier;

/// Why a backup is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// Somebody put it on hold.
    Hold,
    /// It is the newest good one.
    LastGood,
    /// It is the one from which the log that the source writes now would be replayed.
    Replay {
        /// That log's history.
        lineage: LineageKey,
    },
    /// It is one of the newest good ones that the profile keeps however old they are.
    MinimumCount,
    /// It is younger than anything that may be expired.
    MinimumAge,
    /// It is the one of its hour, day, … that a tier keeps.
    Tier {
        /// Which one of the profile's tiers.
        index: usize,
        /// That tier.
        tier: Tier,
    },
    /// Moments in the restorable window are reached from it.
    Window {
        /// In this history.
        lineage: LineageKey,
    },
    /// It claims to have ended in the future. It is not counted for anything until then, and not expired either.
    FutureTimestamp {
        /// When it is believed.
        believed_at: Timestamp,
    },
    /// It is proven bad, but there is no good one.
    NothingBetter,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hold => f.write_str("on hold"),
            Self::LastGood => f.write_str("the newest good backup"),
            Self::Replay { .. } => f.write_str("the base of the log that is being written"),
            Self::MinimumCount => f.write_str("one of the minimum number of backups"),
            Self::MinimumAge => f.write_str("younger than the minimum age"),
            Self::Tier { tier, .. } => tier.fmt(f),
            Self::Window { .. } => f.write_str("the base of moments in the restorable window"),
            Self::FutureTimestamp { believed_at } => {
                write!(f, "its time lies in the future; not counted before {believed_at}")
            }
            Self::NothingBetter => f.write_str("damaged, but there is no good backup"),
        }
    }
}

/// Why a backup is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExpireReason {
    /// It is proven bad.
    ProvenBad,
    /// This kept it longest, and does so no more.
    NoLonger(Reason),
}

impl fmt::Display for ExpireReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProvenBad => f.write_str("damaged"),
            Self::NoLonger(reason) => write!(f, "no longer kept as: {reason}"),
        }
    }
}

/// Why log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogReason<Id> {
    /// It leads to moments in the restorable window.
    Window {
        /// The oldest backup that it is replayed from.
        base: Id,
    },
    /// It leads from the newest backup to the present.
    Replay {
        /// That backup.
        base: Id,
    },
    /// It follows a backup that claims to have ended in the future.
    FutureTimestamp {
        /// That backup.
        base: Id,
    },
    /// It follows a backup that somebody put on hold together with its log.
    Hold {
        /// The one furthest back.
        base: Id,
    },
    /// There is no backup yet that it could be replayed from.
    NoBackupYet,
}

impl<Id: fmt::Display> fmt::Display for LogReason<Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window { base } => write!(f, "leads from backup {base} to moments in the restorable window"),
            Self::Replay { base } => write!(f, "leads from backup {base} to the present"),
            Self::FutureTimestamp { base } => write!(f, "follows backup {base}, whose time lies in the future"),
            Self::Hold { base } => write!(f, "follows backup {base}, which is on hold with its log"),
            Self::NoBackupYet => f.write_str("there is no backup yet that it could be replayed from"),
        }
    }
}
