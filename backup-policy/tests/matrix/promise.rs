//! The sentences of the platform's page, cell by cell, and what a user who reads them would look for.
//!
//! Written from the page alone: nothing here asks the library how it understands a sentence.

use backup_policy::retention::Backup;
use jiff::{SignedDuration, Timestamp};

/// A sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// "Plan not available".
    NotAvailable,
    /// "None".
    None,
    /// "One backup, disaster recovery only".
    OneForDisasters,
    /// "N d + PITR".
    DaysAndPitr(i64),
    /// "Hourly for 24 h and daily for N d".
    HourlyAndDaily(i64),
    /// "One day's backup".
    OneDays,
    /// "Every H hours up to so many hours".
    Every(i64, i64),
    /// "Always on, every 3 h, latest restored at power-on".
    Configuration,
}

use Promise::{Configuration, DaysAndPitr, Every, HourlyAndDaily, NotAvailable, OneDays, OneForDisasters};

/// The page's table: hobbyist, startup, business, premium.
pub(crate) const PAGE: [(&str, [Promise; 4]); 13] = [
    ("kafka", [Promise::None; 4]),
    ("postgres", [OneForDisasters, DaysAndPitr(2), DaysAndPitr(14), DaysAndPitr(30)]),
    ("mysql", [OneForDisasters, DaysAndPitr(2), DaysAndPitr(14), DaysAndPitr(30)]),
    ("opensearch", [OneForDisasters, HourlyAndDaily(3), HourlyAndDaily(14), HourlyAndDaily(30)]),
    ("cassandra", [NotAvailable, OneDays, OneDays, OneDays]),
    ("redis", [OneForDisasters, Every(12, 24), Every(12, 3 * 24), Every(12, 13 * 24)]),
    ("flink", [NotAvailable, Every(1, 2), Every(1, 2), NotAvailable]),
    ("m3db", [NotAvailable, OneDays, Every(24, 6 * 24), Every(24, 13 * 24)]),
    ("m3aggregator", [NotAvailable, NotAvailable, Promise::None, Promise::None]),
    ("m3coordinator", [NotAvailable, NotAvailable, Promise::None, Promise::None]),
    ("grafana", [NotAvailable, Every(1, 24), NotAvailable, NotAvailable]),
    ("clickhouse", [Every(24, 2 * 24), Every(24, 2 * 24), Every(24, 14 * 24), Every(24, 30 * 24)]),
    ("kafka-config", [Configuration; 4]),
];

/// What a user sees of a service at some moment.
pub(crate) struct Sight<'a> {
    pub(crate) now: Timestamp,
    /// When the service was created.
    pub(crate) created: Timestamp,
    /// How long a backup takes, and how late anything may be noticed.
    pub(crate) slack: SignedDuration,
    /// The backups that exist, oldest first.
    pub(crate) backups: &'a [Backup<u32>],
    /// The end of the newest one that was ever made.
    pub(crate) newest_made: Timestamp,
    /// Whether a moment can be restored.
    pub(crate) restorable: &'a dyn Fn(Timestamp) -> bool,
}

impl Promise {
    /// Whether users may restore and fork.
    pub(crate) fn for_users(self) -> bool {
        !matches!(self, OneForDisasters | Configuration)
    }

    /// What is not as it was promised.
    pub(crate) fn broken(self, sight: &Sight<'_>) -> Option<String> {
        let newest = sight.backups.last()?;
        if newest.ended != sight.newest_made {
            return Some("the newest backup is gone".to_owned());
        }
        match self {
            NotAvailable | Self::None => Some("there are backups".to_owned()),
            OneForDisasters => sight.exactly_one(24),
            OneDays => sight.one_days(),
            Configuration => sight.exactly_one(3),
            Every(hours, up_to) => sight.each(hours, up_to).or_else(|| sight.none_older(up_to)),
            DaysAndPitr(days) => sight.each(24, 24 * days).or_else(|| sight.every_moment(24 * days)),
            HourlyAndDaily(days) => {
                sight.each(1, 24).or_else(|| sight.one_a_day(days)).or_else(|| sight.none_older(24 * days))
            }
        }
    }
}

impl Sight<'_> {
    fn age(&self, backup: &Backup<u32>) -> SignedDuration {
        self.now.duration_since(backup.ended)
    }

    fn exactly_one(&self, every: i64) -> Option<String> {
        let [one] = self.backups else { return Some(format!("there are {} backups", self.backups.len())) };
        let late = self.age(one) > SignedDuration::from_hours(every) + self.slack;
        late.then(|| format!("the only backup is of {}", one.ended))
    }

    /// The day's, and if another one was made on the same day, that too. On the first day there are two: the one that was made
    /// when the service was created, and the one of the schedule.
    fn one_days(&self) -> Option<String> {
        let date = |backup: &Backup<u32>| backup.started.strftime("%F").to_string();
        match self.backups {
            [one, other] if date(one) == date(other) => None,
            _ => self.exactly_one(24),
        }
    }

    /// From now on backwards there is a backup every `hours`, until they are `up_to` hours old or the service was created.
    fn each(&self, hours: i64, up_to: i64) -> Option<String> {
        let step = SignedDuration::from_hours(hours) + self.slack;
        let end = (self.now - SignedDuration::from_hours(up_to)).max(self.created);
        let mut last = self.now;
        for backup in self.backups.iter().rev() {
            if last - step <= end {
                break;
            }
            if backup.ended < last - step {
                return Some(format!("nothing between {} and {last}", backup.ended));
            }
            last = backup.ended;
        }
        (last - step > end).then(|| format!("nothing before {last}"))
    }

    fn none_older(&self, up_to: i64) -> Option<String> {
        let limit = SignedDuration::from_hours(up_to) + self.slack;
        let old = self.backups.iter().find(|backup| self.age(backup) > limit)?;
        Some(format!("a backup of {} is still there", old.ended))
    }

    /// Every moment of so many hours, looked at every 50 minutes and at the very beginning; nothing much older is stored.
    fn every_moment(&self, hours: i64) -> Option<String> {
        let first = self.created + self.slack;
        let start = (self.now - SignedDuration::from_hours(hours)).max(first);
        let mut moment = start;
        while moment <= self.now {
            if !(self.restorable)(moment) {
                return Some(format!("{moment} cannot be restored"));
            }
            moment += SignedDuration::from_mins(50);
        }
        // One base before the window, which is at most a day older.
        self.none_older(hours + 24)
    }

    /// Of each UTC day, as long as its first backup is young enough, one; older than a day, only one.
    fn one_a_day(&self, days: i64) -> Option<String> {
        let date = |at: Timestamp| at.strftime("%F").to_string();
        let old = |backup: &&Backup<u32>| self.age(backup) > SignedDuration::from_hours(24) + self.slack;
        let mut seen: Vec<String> = self.backups.iter().filter(old).map(|backup| date(backup.started)).collect();
        let many = seen.len();
        seen.dedup();
        if seen.len() != many {
            return Some("more than one of a day".to_owned());
        }
        let all: Vec<String> = self.backups.iter().map(|backup| date(backup.started)).collect();
        for back in 0..days {
            let at = self.now - SignedDuration::from_hours(24 * back);
            // The day's first hour must be young enough still, and after the creation.
            let whole = self.created + SignedDuration::from_hours(24) < at;
            if whole && !all.contains(&date(at)) && at.strftime("%H").to_string() != "00" {
                return Some(format!("nothing of {}", date(at)));
            }
        }
        None
    }
}
