//! Which backup of an hour, a day, … is kept.
//!
//! It is the first one that ended. Backups come in the order of their ends, so what comes later never takes the place of what
//! is kept already; with the last one of each period, every backup would expire the one before it in its month. The period is
//! that of the backup's start, which the schedule decides and the length of the backup does not.

use jiff::Timestamp;
use jiff::tz::Offset;

use super::claims::Claims;
use super::{Backup, Reason};
use crate::profile::{Period, Tier};

const DAY: i64 = 86_400;

/// Adds the claims of `tier`. `order` are the indices of the backups that count, by their ends.
pub(super) fn claim<Id>(index: usize, tier: Tier, backups: &[Backup<Id>], order: &[usize], claims: &mut Claims) {
    let keepers = keepers(tier.period(), backups, order);
    let reason = Reason::Tier { index, tier };
    for (place, keeper) in keepers.iter().enumerate() {
        let ended = backups[*keeper].ended;
        let by_age = tier.age().map(|age| Some(age.after(ended)));
        let by_count = tier.count().map(|count| {
            let next = usize::try_from(count).ok().and_then(|count| keepers.get(place.checked_add(count)?));
            next.map(|next| backups[*next].ended.min(claims.now()))
        });
        // Either is enough, so the later end counts, and none is the latest.
        let until = match (by_age, by_count) {
            (Some(age), Some(count)) => age.zip(count).map(|(age, count)| age.max(count)),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => continue,
        };
        claims.add(*keeper, reason, until);
    }
}

/// The first backup of each period, by period.
fn keepers<Id>(period: Period, backups: &[Backup<Id>], order: &[usize]) -> Vec<usize> {
    if period == Period::Every {
        return order.to_vec();
    }
    let number = |index: usize| {
        let backup = &backups[index];
        number(period, backup.started.min(backup.ended))
    };
    let mut numbered: Vec<(i64, usize)> = order.iter().map(|index| (number(*index), *index)).collect();
    // Stable, so that inside of a period the order of the ends stays.
    numbered.sort_by_key(|(number, _)| *number);
    numbered.dedup_by_key(|(number, _)| *number);
    numbered.into_iter().map(|(_, index)| index).collect()
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
