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
    /// The earliest `now` with which the same runner has asked since it knows `last`; [`asked`](Self::asked) keeps it. It
    /// shows that a clock went back: the backup that was made last began after the time at which it was known already. Without
    /// it nothing is lost but slots that the runner did not see come.
    pub asked_since: Option<Timestamp>,
}

impl History {
    /// The same history, asked about at `now`.
    #[must_use]
    pub fn asked(self, now: Timestamp) -> Self {
        Self { asked_since: Some(self.asked_since.map_or(now, |known| known.min(now))), ..self }
    }

    /// The history after a backup has committed.
    #[must_use]
    pub fn committed(self, run: Run) -> Self {
        Self { last: Some(run), running: false, asked_since: None, ..self }
    }
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
    /// - After a change of the time, the first slot is left out if it is less than half an interval after the last backup. A
    ///   slot that had passed when it was chosen is made up for an interval after the last backup. So a change leaves two backups
    ///   never less than half an interval, and never more than one and a half, apart, however often it is changed.
    /// - A clock that goes forward makes one backup due early at the most. After one that went back, slots go on as they come.
    #[must_use]
    pub fn due(&self, now: Timestamp, history: &History) -> Due {
        let not_yet = Due::NotYet { next: self.next(now) };
        let decision = match (history.last, self.previous(now)) {
            (None, _) => Due::Due { slot: now, since: now },
            (Some(_), None) => not_yet,
            (Some(last), Some(slot)) => self.after(now, slot, last, history).unwrap_or(not_yet),
        };
        match decision {
            Due::Due { slot, .. } if history.running && history.last.is_some() => Due::Waiting { slot },
            Due::Due { .. } if history.running => not_yet,
            decision => decision,
        }
    }

    /// What is due after the backup `last`, when `slot` is the newest slot that is not after `now`.
    fn after(&self, now: Timestamp, slot: Timestamp, last: Run, history: &History) -> Option<Due> {
        let due = |slot: Timestamp| Some(Due::Due { slot, since: slot.max(last.ended.min(now)) });
        let asked = history.asked_since.map_or(now, |asked| asked.min(now));
        if last.started > later(asked, CLOCK_TOLERANCE) {
            // When it began is not known, so only what was seen to come is due.
            return if slot >= asked { due(slot) } else { None };
        }
        if last.started >= slot {
            return None;
        }
        let Some(changed) = history.changed_at else { return due(slot) };
        let passed = slot < changed && last.started < changed;
        let first = slot >= changed && self.previous(just_before(slot)).is_none_or(|before| before < changed);
        let interval = self.interval(slot);
        if (passed || first) && slot.duration_since(last.started) < interval / 2 {
            return None;
        }
        if !passed {
            return due(slot);
        }
        let turn = later(last.started, interval);
        if turn <= now { due(turn) } else { Some(Due::NotYet { next: Some(turn) }) }
    }
}

fn just_before(at: Timestamp) -> Timestamp {
    at.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MIN)
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
