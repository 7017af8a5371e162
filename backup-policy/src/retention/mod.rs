//! What is kept, what is not, and why.
//!
//! Each rule makes *claims* on backups: a reason and the moment at which it ends by the passing of time alone, or none. A
//! backup is kept while it has a claim. So all reasons are known, and also when a backup would expire if nothing else happened.
//! Rules only ever add claims; none can take one away from another rule's backup.

mod claims;
mod facts;
mod history;
mod logs;
mod reason;
mod tiers;

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use self::claims::{Claims, Places};
pub use self::facts::{Backup, Facts, Fork, LineageKey, Log, LogRange, Position};
use self::history::Histories;
use self::logs::Needs;
pub use self::reason::{ExpireReason, LogReason, Reason};
use crate::profile::Profile;

/// A reason to keep a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Kept {
    /// The reason.
    pub reason: Reason,
    /// When it ends if nothing else happens; none if time alone does not end it.
    pub until: Option<Timestamp>,
}

/// What becomes of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It stays.
    Keep {
        /// All reasons; never empty.
        reasons: Vec<Kept>,
        /// When it would expire if nothing else happened; none if time alone does not expire it.
        expires_at: Option<Timestamp>,
    },
    /// It goes.
    Expire {
        /// Why.
        reason: ExpireReason,
        /// Since when nothing keeps it.
        since: Timestamp,
    },
}

impl Verdict {
    /// Whether it stays.
    #[must_use]
    pub const fn is_keep(&self) -> bool {
        matches!(self, Self::Keep { .. })
    }
}

/// What becomes of one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BackupPlan<Id> {
    /// The backup.
    pub id: Id,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// A reason to keep log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogKept<Id> {
    /// The reason.
    pub reason: LogReason<Id>,
    /// From which offset on; 0 for all of it.
    pub from: u64,
    /// When it ends if nothing else happens; none if time alone does not end it.
    pub until: Option<Timestamp>,
}

/// What becomes of the log of one history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogPlan<Id> {
    /// The history.
    pub lineage: LineageKey,
    /// From which offset on its log is kept: 0 if all of it is, none if none of it is. A piece that ends behind it is kept whole.
    pub keep_from: Option<u64>,
    /// Why: of each kind of reason the one that reaches back furthest.
    pub reasons: Vec<LogKept<Id>>,
    /// Bytes stored for pieces that are kept.
    pub kept_bytes: u64,
    /// Bytes stored for pieces that are not.
    pub expired_bytes: u64,
}

impl<Id> LogPlan<Id> {
    /// Whether a piece is kept.
    #[must_use]
    pub fn keeps(&self, range: &LogRange) -> bool {
        self.keep_from.is_some_and(|from| range.end > from)
    }
}

/// What becomes of everything that is stored of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RetentionPlan<Id> {
    /// The moment for which it holds.
    pub now: Timestamp,
    /// Each backup, in the order of the facts.
    pub backups: Vec<BackupPlan<Id>>,
    /// Each history, in the order of the facts.
    pub logs: Vec<LogPlan<Id>>,
}

impl<Id: Copy + Ord + fmt::Display> RetentionPlan<Id> {
    /// What `profile` keeps of `facts` at `now`.
    ///
    /// - Kept whatever the profile says: what is on hold; the newest good backup; the one that the log being written is replayed
    ///   from, and that log; the profile's minimum count of good ones; what is younger than its minimum age.
    /// - A tier keeps of each period the first good backup that ended.
    /// - A window of N keeps every good backup that ended in it and the newest that ended before its start, in each history that
    ///   reaches into the window, and all log from the oldest of them on.
    /// - What claims to have ended more than [`CLOCK_TOLERANCE`](crate::CLOCK_TOLERANCE) after `now` is not counted by any rule,
    ///   so it displaces nothing; it is kept until its time has come. What claims to have begun after its end counts as
    ///   begun at its end.
    /// - What is proven bad is not kept, unless it is on hold, too young, or there is no good one.
    ///
    /// With the same facts, a later `now` never keeps more. Of *n* backups it takes O(*n* log *n*), and O(*n*) if they are in the
    /// order of their ends.
    #[must_use]
    pub fn of(profile: &Profile, now: Timestamp, facts: &Facts<Id>) -> Self {
        let places = Places::new(now, &facts.backups);
        let mut claims = Claims::new(now, &places);
        claims.common(profile, &facts.backups, &places);
        for (index, tier) in profile.tiers.iter().enumerate() {
            tiers::claim(index, *tier, places.counted(), &mut claims);
        }
        let histories = Histories::new(facts, &places);
        let mut needs = Needs::new(&histories, facts);
        needs.replay(places.counted(), &mut claims);
        if let Some(window) = profile.pitr {
            needs.window(window, &mut claims);
        }
        let logs = needs.plan();
        let verdicts = claims.verdicts(&facts.backups, &places);
        let backups = facts.backups.iter().zip(verdicts).map(|(backup, verdict)| BackupPlan { id: backup.id, verdict });
        Self { now, backups: backups.collect(), logs }
    }

    /// The backups that stay.
    pub fn kept(&self) -> impl Iterator<Item = Id> + '_ {
        self.backups.iter().filter(|plan| plan.verdict.is_keep()).map(|plan| plan.id)
    }

    /// The backups that go.
    pub fn expired(&self) -> impl Iterator<Item = Id> + '_ {
        self.backups.iter().filter(|plan| !plan.verdict.is_keep()).map(|plan| plan.id)
    }

    /// What becomes of backup `id`; of the first of that name.
    #[must_use]
    pub fn verdict(&self, id: Id) -> Option<&Verdict> {
        self.backups.iter().find(|plan| plan.id == id).map(|plan| &plan.verdict)
    }

    /// What becomes of a history's log.
    #[must_use]
    pub fn log(&self, lineage: LineageKey) -> Option<&LogPlan<Id>> {
        self.logs.iter().find(|plan| plan.lineage == lineage)
    }
}
