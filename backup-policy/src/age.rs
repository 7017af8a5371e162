//! Lengths of time that a policy may name.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;

const ALLOWED: &str = "a whole number with a unit (s, m, h, d, w), from 1s to 36525d (100 years)";

/// A length of time from one second to 100 years, in whole seconds. A day is 24 hours: everything is UTC.
///
/// As text, and so in documents: `90s`, `30m`, `12h`, `14d`, `8w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Age(i64);

impl Age {
    /// The shortest.
    pub const MIN: Self = Self(1);
    /// The longest: 100 years.
    pub const MAX: Self = Self(36_525 * DAY);

    /// An age of `seconds`.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside of [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
    pub fn from_seconds(seconds: i64) -> Result<Self> {
        if (Self::MIN.0..=Self::MAX.0).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(Error::invalid("age", format!("{seconds}s"), ALLOWED))
        }
    }

    /// An age of `hours`.
    ///
    /// # Errors
    /// As [`from_seconds`](Self::from_seconds).
    pub fn from_hours(hours: i64) -> Result<Self> {
        Self::of(hours, HOUR, || format!("{hours}h"))
    }

    /// An age of `days`.
    ///
    /// # Errors
    /// As [`from_seconds`](Self::from_seconds).
    pub fn from_days(days: i64) -> Result<Self> {
        Self::of(days, DAY, || format!("{days}d"))
    }

    pub(crate) const fn hours(hours: u16) -> Self {
        Self(hours as i64 * HOUR)
    }

    pub(crate) const fn days(days: u16) -> Self {
        Self(days as i64 * DAY)
    }

    fn of(number: i64, unit: i64, found: impl Fn() -> String) -> Result<Self> {
        number
            .checked_mul(unit)
            .and_then(|seconds| Self::from_seconds(seconds).ok())
            .ok_or_else(|| Error::invalid("age", found(), ALLOWED))
    }

    /// In whole seconds.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// As a duration.
    #[must_use]
    pub const fn duration(self) -> SignedDuration {
        SignedDuration::from_secs(self.0)
    }

    /// The moment this long after `start`; the end of all time where there is none so late.
    #[must_use]
    pub fn after(self, start: Timestamp) -> Timestamp {
        start.checked_add(self.duration()).unwrap_or(Timestamp::MAX)
    }

    /// The moment this long before `end`; the beginning of all time where there is none so early.
    #[must_use]
    pub fn before(self, end: Timestamp) -> Timestamp {
        end.checked_sub(self.duration()).unwrap_or(Timestamp::MIN)
    }
}

impl FromStr for Age {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error::invalid("age", if text.is_empty() { "empty" } else { text }, ALLOWED);
        let unit = match text.bytes().last().ok_or_else(refused)? {
            b's' => 1,
            b'm' => MINUTE,
            b'h' => HOUR,
            b'd' => DAY,
            b'w' => WEEK,
            _ => return Err(refused()),
        };
        let digits = &text[..text.len() - 1];
        if !digits.bytes().next_back().is_some_and(|b| b.is_ascii_digit()) || digits.starts_with('+') {
            return Err(refused());
        }
        let number: i64 = digits.parse().map_err(|_| refused())?;
        Self::of(number, unit, || text.to_owned())
    }
}

impl TryFrom<String> for Age {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Age> for String {
    fn from(age: Age) -> Self {
        age.to_string()
    }
}

/// In the largest unit of which it is a whole number, weeks aside, and days only from two on: `24h`, `3d`.
impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            s if s % DAY == 0 && s > DAY => (DAY, "d"),
            s if s % HOUR == 0 => (HOUR, "h"),
            s if s % MINUTE == 0 => (MINUTE, "m"),
            _ => (1, "s"),
        };
        write!(f, "{}{name}", self.0 / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for (text, seconds, shown) in [
            ("90s", 90, "90s"),
            ("30m", 1800, "30m"),
            ("120m", 7200, "2h"),
            ("1d", 86_400, "24h"),
            ("14d", 14 * 86_400, "14d"),
            ("2w", 14 * 86_400, "14d"),
            ("36525d", 36_525 * 86_400, "36525d"),
        ] {
            let age: Age = text.parse().unwrap();
            assert_eq!((age.seconds(), age.to_string().as_str()), (seconds, shown), "{text}");
            assert_eq!(age.to_string().parse(), Ok(age));
        }
    }

    #[test]
    fn what_is_no_age_is_told_what_is() {
        for text in
            ["", "d", "0d", "-3d", "1000000000d", "36526d", "99999999999999999999d", "1.5h", "+1d", "12", "3 d", "5é"]
        {
            let error = text.parse::<Age>().unwrap_err().to_string();
            assert!(error.contains("from 1s to 36525d"), "{text}: {error}");
        }
        assert_eq!(
            Age::from_days(1_000_000_000).unwrap_err().to_string(),
            "age is 1000000000d; allowed is a whole number with a unit (s, m, h, d, w), from 1s to 36525d (100 years)"
        );
        assert!(Age::from_seconds(0).is_err() && Age::from_hours(i64::MIN).is_err());
    }

    #[test]
    fn the_ends_of_time_are_not_passed() {
        assert_eq!(Age::MAX.after(Timestamp::MAX), Timestamp::MAX);
        assert_eq!(Age::MAX.before(Timestamp::MIN), Timestamp::MIN);
    }
}
