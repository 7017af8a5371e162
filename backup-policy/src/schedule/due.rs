//! Whether a backup is to be made at this moment.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Schedule;
use crate::CLOCK_TOLERANCE;

/// A backup that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// When it began.
    pub started: Timestamp,
    /// When it had committed.
    pub ended: Timestamp,
}

/// What a schedule has to know of what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// The backup that *committed* last, in the order of commits and not of its times, whoever asked for it. Attempts that
    /// failed do not count: their slot stays due. How fast they are tried again is the caller's decision.
    pub last: Option<Run>,
    /// Whether a backup is being made.
    pub running: bool,
    /// When cadence or time were changed last.
    pub changed_at: Option<Timestamp>,
    /// The `now` with which the same runner asked before, if it did. Only used while the last backup's start lies in the
    /// future, that is after a clock went back: without knowledge of the time that passed, a slot counts only if the runner
    /// saw it come.
    pub asked_at: Option<Timestamp>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Due {
    /// Begin a backup. However many slots were missed, it is one.
    Due {
        /// The newest slot that it serves; for the first backup of a service, now.
        slot: Timestamp,
        /// Since when it could have begun: the slot, or the end of a backup that was still running then.
        since: Timestamp,
    },
    /// One is due, and the one before has not ended.
    Waiting {
        /// The newest slot that waits.
        slot: Timestamp,
    },
    /// Nothing is due.
    NotYet {
        /// When to ask again, if nothing else happens. None at the end of all time.
        next: Option<Timestamp>,
    },
}

impl Schedule {
    /// Whether a backup is to be made at `now`. A function of its arguments alone: asked twice, it answers twice the same, so
    /// the caller says in `history.running` what it has begun.
    ///
    /// - A service without any backup is due at once.
    /// - Slots that were missed, for whatever reason, are caught up by one backup.
    /// - A backup begins only when the one before has ended. One that takes longer than the interval is followed by the next
    ///   one at once.
    /// - After a change of the time, a slot less than half an interval after the last backup is left out, and one that lies
    ///   before the change is made up for an interval after the last backup. So two backups are never more than one and a half
    ///   intervals apart because of a change, however often it is changed.
    /// - A clock that goes forward makes one backup due early at the most. After one that went back, slots go on as they come.
    #[must_use]
    pub fn due(&self, now: Timestamp, history: &History) -> Due {
        let not_yet = Due::NotYet { next: self.next(now) };
        let decision = match history.last {
            None => Due::Due { slot: now, since: now },
            Some(last) => match self.previous(now) {
                None => not_yet,
                Some(slot) if last.started > later(now, CLOCK_TOLERANCE) => {
                    let seen = history.asked_at.is_some_and(|asked| asked < slot);
                    if seen { Due::Due { slot, since: slot } } else { not_yet }
                }
                Some(slot) if last.started >= slot => not_yet,
                Some(slot) => self.unserved(now, slot, last, history.changed_at),
            },
        };
        match decision {
            Due::Due { slot, .. } if history.running && history.last.is_some() => Due::Waiting { slot },
            Due::Due { .. } if history.running => not_yet,
            decision => decision,
        }
    }

    /// What follows from `slot`, at or before `now`, after which no backup has begun.
    fn unserved(&self, now: Timestamp, slot: Timestamp, last: Run, changed_at: Option<Timestamp>) -> Due {
        let due = |slot: Timestamp| Due::Due { slot, since: slot.max(last.ended.min(now)) };
        let Some(changed) = changed_at.filter(|changed| *changed > last.started) else { return due(slot) };
        let interval = self.interval(slot);
        if slot.duration_since(last.started) < interval / 2 {
            return Due::NotYet { next: self.next(now) };
        }
        if slot >= changed {
            return due(slot);
        }
        let turn = later(last.started, interval);
        if turn <= now { due(turn) } else { Due::NotYet { next: Some(turn) } }
    }
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
