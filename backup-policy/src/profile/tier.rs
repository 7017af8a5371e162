//! Which backups are kept for how long.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::TierDocument;
use crate::age::Age;
use crate::error::{Error, Result};

/// Of which stretches of time a tier keeps one backup. All of them are of the UTC calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Period {
    /// Every backup.
    Every,
    /// One of each hour.
    Hourly,
    /// One of each day.
    Daily,
    /// One of each week, Monday to Sunday.
    Weekly,
    /// One of each month.
    Monthly,
    /// One of each year.
    Yearly,
}

impl Period {
    const ALL: [Self; 6] = [Self::Every, Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    /// Its name in documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Every => "every",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// Its length; of months and years the longest. None for every backup.
    #[must_use]
    pub fn length(self) -> Option<Age> {
        match self {
            Self::Every => None,
            Self::Hourly => Some(Age::hours(1)),
            Self::Daily => Some(Age::days(1)),
            Self::Weekly => Some(Age::days(7)),
            Self::Monthly => Some(Age::days(31)),
            Self::Yearly => Some(Age::days(366)),
        }
    }

    pub(crate) fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|period| period.name() == name);
        found.ok_or_else(|| Error::invalid("period", name, "one of every, hourly, daily, weekly, monthly, yearly"))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Keeps one backup of each [`Period`], by age, by count, or both. With both, either is enough.
///
/// The kept one is the *first* of its period that ended and is good, so that a later backup never takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "TierDocument", try_from = "TierDocument")]
pub struct Tier {
    pub(super) period: Period,
    pub(super) age: Option<Age>,
    pub(super) count: Option<u32>,
}

impl Tier {
    /// The most that a tier may keep by count.
    pub const MAX_COUNT: u32 = 10_000;

    /// Keeps one backup of each period until it is older than `age`, counted from its end.
    #[must_use]
    pub const fn by_age(period: Period, age: Age) -> Self {
        Self { period, age: Some(age), count: None }
    }

    /// Keeps one backup of each of the newest `count` periods that have one.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside of 1 to [`MAX_COUNT`](Self::MAX_COUNT).
    pub fn by_count(period: Period, count: i64) -> Result<Self> {
        Ok(Self { period, age: None, count: Some(Self::count_of(count)?) })
    }

    /// Also keeps one backup of each of the newest `count` periods that have one, however old.
    ///
    /// # Errors
    /// As [`by_count`](Self::by_count).
    pub fn and_count(self, count: i64) -> Result<Self> {
        Ok(Self { count: Some(Self::count_of(count)?), ..self })
    }

    pub(crate) const fn newest(period: Period) -> Self {
        Self { period, age: None, count: Some(1) }
    }

    fn count_of(count: i64) -> Result<u32> {
        u32::try_from(count)
            .ok()
            .filter(|count| (1..=Self::MAX_COUNT).contains(count))
            .ok_or_else(|| Error::invalid("count", count, format!("1 to {}", Self::MAX_COUNT)))
    }

    /// Of which stretches of time it keeps one.
    #[must_use]
    pub const fn period(self) -> Period {
        self.period
    }

    /// How long.
    #[must_use]
    pub const fn age(self) -> Option<Age> {
        self.age
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> Option<u32> {
        self.count
    }
}

/// For people: `hourly for 24h`, `newest 3 monthly`, `daily for 14d and newest 3`.
impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = self.period;
        match (self.age, self.count) {
            (Some(age), Some(count)) => write!(f, "{period} for {age} and newest {count}"),
            (Some(age), None) => write!(f, "{period} for {age}"),
            (None, Some(count)) => write!(f, "newest {count} {period}"),
            (None, None) => write!(f, "{period} never"),
        }
    }
}
