//! When the next backup is made.
//!
//! A schedule is a row of moments, its *slots*. Slots follow from cadence, time and the service's name alone, never from what
//! ran before, so they do not drift and a runner needs no memory to know them.

mod due;
mod spread;
mod time;

use jiff::{SignedDuration, Timestamp};

pub use self::due::{Due, History, Run};
use self::spread::spread;
pub use self::time::BackupTime;
use crate::error::{Error, Result};
use crate::profile::{Cadence, Rhythm};

const HOUR: i64 = 3600;

/// The moments at which a service is to be backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    cadence: Cadence,
    time: BackupTime,
    /// Of a cadence in hours: seconds from each multiple of the interval to the slot.
    phase: i64,
}

impl Schedule {
    /// The schedule of the service with the stable name `service`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `time` is given for a cron expression, which says its times itself.
    pub fn new(cadence: Cadence, time: BackupTime, service: &str) -> Result<Self> {
        let phase = match &cadence.0 {
            Rhythm::Hours(hours) => phase(i64::from(*hours), time, service),
            Rhythm::Cron(_) if time == BackupTime::DEFAULT => 0,
            Rhythm::Cron(_) => {
                let allowed = format!("null, since the plan's cadence ({cadence}) says the times itself");
                return Err(Error::invalid("backup_hour and backup_minute", time, allowed));
            }
        };
        Ok(Self { cadence, time, phase })
    }

    /// How often.
    #[must_use]
    pub fn cadence(&self) -> &Cadence {
        &self.cadence
    }

    /// What the user chose.
    #[must_use]
    pub fn time(&self) -> BackupTime {
        self.time
    }

    /// The first slot after `after`. None at the end of all time.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.cadence.0 {
            Rhythm::Hours(hours) => {
                let slot = self.grid(i64::from(*hours), after.as_second());
                Timestamp::from_second(slot)
                    .ok()
                    .filter(|slot| *slot > after)
                    .or_else(|| Timestamp::from_second(slot.checked_add(i64::from(*hours) * HOUR)?).ok())
            }
            Rhythm::Cron(rule) => rule.next(after),
        }
    }

    /// The last slot that is not after `at`. None at the beginning of all time.
    #[must_use]
    pub fn previous(&self, at: Timestamp) -> Option<Timestamp> {
        match &self.cadence.0 {
            Rhythm::Hours(hours) => {
                // Seconds round towards the epoch, so before it the grid's point may be later.
                let slot = self.grid(i64::from(*hours), at.as_second());
                Timestamp::from_second(slot).ok().filter(|slot| *slot <= at).or_else(|| {
                    Timestamp::from_second(slot.checked_sub(i64::from(*hours) * HOUR)?).ok().filter(|slot| *slot <= at)
                })
            }
            Rhythm::Cron(rule) => rule.previous(at),
        }
    }

    /// The slots after `after`, one after the other.
    pub fn slots(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.next(after), |slot| self.next(*slot))
    }

    /// The time from a slot to the one after it.
    fn interval(&self, slot: Timestamp) -> SignedDuration {
        self.next(slot).map_or(SignedDuration::MAX, |next| next.duration_since(slot))
    }

    /// The point of the grid of `hours`, moved by the phase, at or before `second`.
    fn grid(&self, hours: i64, second: i64) -> i64 {
        let length = hours * HOUR;
        (second - self.phase).div_euclid(length) * length + self.phase
    }
}

/// Where in an interval of `hours` the slot lies, in seconds. Intervals begin at multiples of their length since 1970.
fn phase(hours: i64, time: BackupTime, service: &str) -> i64 {
    let pick = |purpose: &str, bound: i64| i64::try_from(spread(purpose, service, bound.unsigned_abs())).unwrap_or(0);
    let length = hours * HOUR;
    let seconds = match (time.hour(), time.minute()) {
        (None, None) => pick("phase", length),
        (Some(hour), None) => i64::from(hour) * HOUR + pick("minute", HOUR),
        (None, Some(minute)) => pick("hour", 24) * HOUR + i64::from(minute) * 60,
        (Some(hour), Some(minute)) => i64::from(hour) * HOUR + i64::from(minute) * 60,
    };
    let day = if hours > 24 && time != BackupTime::DEFAULT { pick("day", hours / 24) * 24 * HOUR } else { 0 };
    (day + seconds).rem_euclid(length)
}
