//! Cron expressions, in UTC. The only place that knows the library for them.

use std::cmp::Ordering;
use std::fmt;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{CivilDate, CivilDateTime, CivilTime, Cron, CronDateTime, Resolution, Weekday};
use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use crate::error::{Error, Result};

const ALLOWED: &str = "five fields (minute, hour, day of the month, month, day of the week; UTC) that come true at some time, at most every minute";

/// An expression of five fields. Equal when it is written alike.
#[derive(Clone)]
pub(crate) struct CronRule {
    text: String,
    cron: Cron,
    longest: SignedDuration,
}

impl CronRule {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let refused = |why: String| Error::invalid("cron", format!("{text:?} ({why})"), ALLOWED);
        // Longer than any sensible expression, short enough for an error message.
        if text.len() > 200 {
            return Err(Error::invalid("cron", format!("{} bytes long", text.len()), ALLOWED));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| refused(error.to_string()))?;
        let longest = longest(&cron).ok_or_else(|| refused("it never comes true".to_owned()))?;
        Ok(Self { text: text.split_whitespace().collect::<Vec<_>>().join(" "), cron, longest })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The longest time between two moments at which it is true.
    pub(crate) fn longest_interval(&self) -> SignedDuration {
        self.longest
    }

    /// The first moment after `after`.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        next(&self.cron, civil(after), false).and_then(timestamp)
    }

    /// The last moment that is not after `at`.
    pub(crate) fn previous(&self, at: Timestamp) -> Option<Timestamp> {
        self.cron.find_previous_occurrence(&Utc(civil(at)), true).ok().and_then(|found| timestamp(found.0))
    }
}

impl PartialEq for CronRule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for CronRule {}

impl fmt::Debug for CronRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CronRule").field(&self.text).finish()
    }
}

fn next(cron: &Cron, from: DateTime, inclusive: bool) -> Option<DateTime> {
    cron.find_next_occurrence(&Utc(from), inclusive).ok().map(|found| found.0)
}

/// The longest time between two occurrences, or none if there is no second one. The times of day are the same on each day
/// that has any, so the gaps inside of one day and those between days tell everything. Nine years have seen each leap day
/// but those around the end of a century.
fn longest(cron: &Cron) -> Option<SignedDuration> {
    let first = next(cron, DateTime::constant(2023, 1, 1, 0, 0, 0, 0), true)?;
    let end = DateTime::constant(2032, 12, 31, 23, 59, 59, 0);
    let (mut longest, mut last) = (SignedDuration::ZERO, first);
    while let Some(later) = next(cron, last, false).filter(|later| later.date() == first.date()) {
        longest = longest.max(later.duration_since(last));
        last = later;
    }
    let tail = last.duration_since(first);
    let mut day = first;
    while let Some(later) = next(cron, last, false) {
        longest = longest.max(later.duration_since(day) - tail);
        if later > end {
            break;
        }
        day = later;
        last = later.checked_add(tail).ok()?;
    }
    (longest > SignedDuration::ZERO).then_some(longest)
}

fn civil(at: Timestamp) -> DateTime {
    Offset::UTC.to_datetime(at)
}

fn timestamp(at: DateTime) -> Option<Timestamp> {
    Offset::UTC.to_timestamp(at).ok()
}

/// A civil time of UTC, which has neither gaps nor folds.
#[derive(Debug, Clone, Copy)]
struct Utc(DateTime);

impl CronDateTime for Utc {
    fn to_civil(&self) -> CivilDateTime {
        let part = |value: i8| u32::from(value.unsigned_abs());
        let at = self.0;
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(i32::from(at.year()), part(at.month()), part(at.day())),
            CivilTime::from_parts_unchecked(part(at.hour()), part(at.minute()), part(at.second())),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        Weekday::from_days_from_sunday(u32::from(self.0.weekday().to_sunday_zero_offset().unsigned_abs()))
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let part = |value: u32| i8::try_from(value).map_err(|_| CronError::InvalidDate);
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let (month, day) = (part(civil.month())?, part(civil.day())?);
        let (hour, minute, second) = (part(civil.hour())?, part(civil.minute())?, part(civil.second())?);
        let at = DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| CronError::InvalidDate)?;
        Ok(Resolution::Single(Self(at)))
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Self)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> CronRule {
        CronRule::parse(text).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn moments_before_and_after() {
        let monday = rule("15 3 * * MON");
        assert_eq!(monday.next(at("2026-11-27T07:00:00Z")), Some(at("2026-11-30T03:15:00Z")));
        assert_eq!(monday.next(at("2026-11-30T03:15:00Z")), Some(at("2026-12-07T03:15:00Z")));
        assert_eq!(monday.previous(at("2026-11-30T03:15:00Z")), Some(at("2026-11-30T03:15:00Z")));
        assert_eq!(monday.previous(at("2026-11-30T03:14:59.999Z")), Some(at("2026-11-23T03:15:00Z")));
        assert_eq!(monday.next(at("2026-11-30T03:14:59.999Z")), Some(at("2026-11-30T03:15:00Z")));
    }

    #[test]
    fn the_longest_interval_is_exact() {
        let hours = |n| SignedDuration::from_hours(n);
        for (text, longest) in [
            ("* * * * *", SignedDuration::from_mins(1)),
            ("0 1,22 * * *", hours(21)),
            ("0 3 * * *", hours(24)),
            ("30 3 * * MON", hours(7 * 24)),
            ("0 0 1 * *", hours(31 * 24)),
            ("0 0 29 2 *", hours((365 * 4 + 1) * 24)),
            ("* * * 1 *", hours((365 - 31 + 1) * 24) + SignedDuration::from_mins(1)),
        ] {
            assert_eq!(rule(text).longest_interval(), longest, "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_is_told_what_is() {
        for text in
            ["", "* * * *", "60 * * * *", "0 24 * * *", "0 0 30 2 *", "0 0 0 * * *", "0 0 3 * * * 2030", "every day"]
        {
            let error = CronRule::parse(text).unwrap_err().to_string();
            assert!(error.contains("five fields"), "{text}: {error}");
        }
        assert!(CronRule::parse(&"*".repeat(5000)).is_err());
    }
}
