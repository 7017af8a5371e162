//! Which backup of an hour, a day, … is kept.
//!
//! It is the first one that ended. Backups come in the order of their ends, so what comes later never takes the place of what
//! is kept already; with the last one of each period, every backup would expire the one before it in its month. The period is
//! that of the backup's start, which the schedule decides and the length of the backup does not.

use jiff::Timestamp;
use jiff::tz::Offset;

use super::Reason;
use super::claims::{Claims, Placed};
use crate::profile::{Period, Tier};

const DAY: i64 = 86_400;

/// Adds the claims of `tier`.
pub(super) fn claim(index: usize, tier: Tier, counted: &[Placed], claims: &mut Claims) {
    let claim = claims.reason(Reason::Tier { index, tier });
    let keepers = keepers(tier.period(), counted);
    let now = claims.now();
    for (number, place) in keepers.iter().enumerate() {
        let by_age = tier.age().map(|age| Some(age.after(counted[*place].ended)));
        let by_count = tier.count().map(|count| {
            let next = usize::try_from(count).ok().and_then(|count| keepers.get(number.checked_add(count)?));
            next.map(|next| counted[*next].ended.min(now))
        });
        // Either is enough, so the later end counts, and none is the latest.
        let until = match (by_age, by_count) {
            (Some(age), Some(count)) => age.zip(count).map(|(age, count)| age.max(count)),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => continue,
        };
        claims.add(*place, claim, until);
    }
}

/// The places of the first backup of each period, by period.
fn keepers(period: Period, counted: &[Placed]) -> Vec<usize> {
    if period == Period::Every {
        return (0..counted.len()).collect();
    }
    let numbers = counted.iter().enumerate().map(|(place, placed)| (number(period, placed.began), place));
    let mut numbers: Vec<(i64, usize)> = numbers.collect();
    // By places inside of a period, so that the first one is the one that ended first.
    if !numbers.is_sorted() {
        numbers.sort_unstable();
    }
    numbers.dedup_by_key(|(number, _)| *number);
    numbers.into_iter().map(|(_, place)| place).collect()
}

/// The number of the period that `at` lies in; periods that follow each other have ascending numbers.
fn number(period: Period, at: Timestamp) -> i64 {
    // Rounded down, also before 1970.
    let second = at.as_second() - i64::from(at.subsec_nanosecond() < 0);
    let day = second.div_euclid(DAY);
    match period {
        Period::Every => second,
        Period::Hourly => second.div_euclid(3600),
        Period::Daily => day,
        // The first of January 1970 was a Thursday.
        Period::Weekly => (day + 3).div_euclid(7),
        Period::Monthly => {
            let date = Offset::UTC.to_datetime(at);
            i64::from(date.year()) * 12 + i64::from(date.month())
        }
        Period::Yearly => i64::from(Offset::UTC.to_datetime(at).year()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_where_the_calendar_says() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (period, last, first) in [
            (Period::Hourly, "2026-11-27T07:59:59.999Z", "2026-11-27T08:00:00Z"),
            (Period::Daily, "2026-11-27T23:59:59.999Z", "2026-11-28T00:00:00Z"),
            (Period::Weekly, "2026-11-29T23:59:59.999Z", "2026-11-30T00:00:00Z"),
            (Period::Monthly, "2026-11-30T23:59:59.999Z", "2026-12-01T00:00:00Z"),
            (Period::Yearly, "2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"),
            (Period::Hourly, "1969-12-31T23:59:59.5Z", "1970-01-01T00:00:00Z"),
            (Period::Daily, "1969-12-30T23:59:59.5Z", "1969-12-31T00:00:00Z"),
            (Period::Weekly, "1969-12-28T23:59:59.5Z", "1969-12-29T00:00:00Z"),
        ] {
            assert_eq!(number(period, at(last)) + 1, number(period, at(first)), "{period} {first}");
        }
    }
}
