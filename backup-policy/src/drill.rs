//! When it is to be proven again that a backup can be restored.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::CLOCK_TOLERANCE;
use crate::error::Result;
use crate::profile::Cadence;
use crate::schedule::{BackupTime, Due, Run, Schedule};

/// A drill that failed is due again after a day: long enough for somebody to have mended what was wrong, and not so long as to leave a service
/// unproven for a month because a disk was full.
const AGAIN: SignedDuration = SignedDuration::from_hours(24);

/// What a schedule of drills has to know of what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrillHistory {
    /// Since when there is something to prove: when the service came into being. None while it has no backup.
    pub since: Option<Timestamp>,
    /// The drill whose record was committed last, whoever asked for it, and however it ended.
    pub last: Option<Run>,
    /// Whether that one failed.
    pub failed: bool,
    /// Whether one is under way.
    pub running: bool,
}

/// The moments at which a service is to be proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillSchedule(Schedule);

impl DrillSchedule {
    /// The schedule of the service with the stable name `service`. Its moments follow from the name alone, and have nothing to do with those of its
    /// backups: so the drills of many services are spread over the whole interval.
    ///
    /// # Errors
    /// None for a cadence that stands in a profile.
    pub fn new(cadence: Cadence, service: &str) -> Result<Self> {
        Schedule::new(cadence, BackupTime::DEFAULT, &format!("drill {service}")).map(Self)
    }

    /// The moments after `after`, one after the other.
    pub fn slots(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        self.0.slots(after)
    }

    /// Whether a drill is to be done at `now`. A function of its arguments alone.
    ///
    /// - The first one is due at the first moment of the schedule behind [`since`](DrillHistory::since), not at once: whoever brings a thousand services
    ///   under management does not restore them all on the same day.
    /// - Moments that were missed are caught up by one drill.
    /// - One that failed is due again a day after it ended.
    /// - A drill of the future was recorded by a wrong clock and counts for nothing.
    #[must_use]
    pub fn due(&self, now: Timestamp, history: &DrillHistory) -> Due {
        let not_yet = Due::NotYet { next: self.0.next(now) };
        let believed = now.checked_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX);
        let Some(since) = history.since.filter(|since| *since <= believed) else { return not_yet };
        let last = history.last.filter(|last| last.started <= believed);
        let failed = history.failed && last.is_some();
        let last = last.unwrap_or(Run { started: since, ended: since });
        let decision = match self.0.previous(now) {
            Some(slot) if last.started < slot => Due::Due { slot, since: slot },
            _ => not_yet,
        };
        let decision = match (decision, failed) {
            (Due::NotYet { next }, true) => match last.ended.checked_add(AGAIN) {
                Ok(again) if again <= now => Due::Due { slot: again, since: again },
                Ok(again) => Due::NotYet { next: next.map_or(Some(again), |next| Some(next.min(again))) },
                Err(_) => Due::NotYet { next },
            },
            (decision, _) => decision,
        };
        match decision {
            Due::Due { slot, .. } if history.running => Due::Waiting { slot },
            decision => decision,
        }
    }
}
