//! Facts and profiles for the tests.

use backup_policy::retention::{Backup, Facts, Fork, LineageKey, Log, LogRange, Position};
use backup_policy::{Age, Cadence, Period, Profile, Tier};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

/// A moment: so many minutes after the start of all tests.
pub(crate) fn minute(minutes: i64) -> Timestamp {
    let start: Timestamp = "2026-01-30T22:00:00Z".parse().unwrap();
    start + SignedDuration::from_mins(minutes)
}

pub(crate) fn hour(hours: i64) -> Timestamp {
    minute(hours * 60)
}

pub(crate) fn day(days: i64) -> Timestamp {
    hour(days * 24)
}

pub(crate) fn age(text: &str) -> Age {
    text.parse().unwrap()
}

pub(crate) fn by_age(period: Period, text: &str) -> Tier {
    Tier::by_age(period, age(text))
}

pub(crate) fn newest(count: i64, period: Period) -> Tier {
    Tier::by_count(period, count).unwrap()
}

/// A profile of hourly backups, so that no tier promises too much.
pub(crate) fn profile(tiers: &[Tier]) -> Profile {
    with(tiers, |builder| builder)
}

pub(crate) fn with(
    tiers: &[Tier],
    set: impl FnOnce(backup_policy::ProfileBuilder) -> backup_policy::ProfileBuilder,
) -> Profile {
    let builder = Profile::builder(Cadence::every_hours(1).unwrap());
    set(tiers.iter().fold(builder, |builder, tier| builder.tier(*tier))).build().unwrap()
}

/// A good backup that took no time.
pub(crate) fn at(id: u32, ended: Timestamp) -> Backup<u32> {
    Backup::new(id, ended, ended)
}

pub(crate) fn on(lineage: u32, offset: u64) -> Position {
    Position::new(LineageKey(lineage), offset)
}

/// A piece of log of one byte an offset.
pub(crate) fn piece(start: u64, end: u64, first: Timestamp, last: Timestamp) -> LogRange {
    LogRange { start, end, first, last, bytes: end - start }
}

pub(crate) fn log(lineage: u32, parent: Option<(u32, u64)>, ranges: &[LogRange]) -> Log {
    let parent = parent.map(|(lineage, offset)| Fork { lineage: LineageKey(lineage), offset });
    ranges.iter().fold(Log::new(LineageKey(lineage), parent), |log, range| log.with(*range))
}

/// Any profile; `pitr` says whether it has a window.
pub(crate) fn any_profile(pitr: bool) -> impl Strategy<Value = Profile> {
    let period = prop_oneof![
        Just(Period::Every),
        Just(Period::Hourly),
        Just(Period::Daily),
        Just(Period::Weekly),
        Just(Period::Monthly),
        Just(Period::Yearly)
    ];
    let tier =
        (period, 1..4_i64, prop::option::of(1..6_i64), any::<bool>()).prop_map(|(period, factor, count, aged)| {
            let unit = period.length().unwrap_or(age("1h")).seconds();
            let aged = aged.then(|| Tier::by_age(period, Age::from_seconds(unit * factor).unwrap()));
            match (aged, count) {
                (Some(tier), Some(count)) => tier.and_count(count).unwrap(),
                (Some(tier), None) => tier,
                (None, count) => newest(count.unwrap_or(1), period),
            }
        });
    let tiers = prop::collection::vec(tier, 1..4);
    let minimum = (1..4_i64, prop::option::of(1..200_i64));
    (tiers, minimum, 1..300_i64).prop_map(move |(tiers, (count, young), window)| {
        with(&tiers, |builder| {
            let builder = builder.minimum_count(count).unwrap();
            let builder = match young {
                Some(hours) => builder.minimum_age(Age::from_hours(hours).unwrap()),
                None => builder,
            };
            if pitr { builder.pitr(Age::from_hours(window).unwrap()) } else { builder }
        })
    })
}

/// Any facts over some weeks around `now` of [`hour`] 500: bad, held, overlapping and future backups on up to four histories
/// that may fork from each other, with or without log.
pub(crate) fn any_facts() -> impl Strategy<Value = Facts<u32>> {
    let position = prop::option::weighted(0.8, (0..4_u32, 0..40_u64));
    let ended = prop_oneof![8 => 0..30_000_i64, 1 => 29_900..30_040_i64, 1 => 30_000..40_000_i64];
    let backup = (
        ended,
        0..180_i64,
        prop::bool::weighted(0.8),
        prop::sample::select(vec![
            (false, false),
            (false, false),
            (false, false),
            (false, false),
            (false, false),
            (false, false),
            (false, false),
            (false, false),
            (true, false),
            (true, true),
        ]),
        position,
    );
    let backups = prop::collection::vec(backup, 0..14);
    let range = (0..40_u64, 1..8_u64, 0..30_500_i64, 0..600_i64);
    let log = (prop::option::of((0..4_u32, 0..40_u64)), prop::collection::vec(range, 0..5), prop::bool::weighted(0.8));
    (backups, prop::collection::vec(log, 4), prop::option::of(0..4_u32)).prop_map(|(backups, logs, following)| {
        let backups = backups.into_iter().zip(0..).map(|((ended, length, good, hold, position), id)| Backup {
            id,
            started: minute(ended - length),
            ended: minute(ended),
            bytes: 1,
            good,
            hold: hold.0,
            hold_log: hold.1,
            position: position.map(|(lineage, offset)| on(lineage, offset)),
        });
        let logs = logs.into_iter().zip(0..).filter(|((.., known), _)| *known).map(|((parent, ranges, _), lineage)| {
            let ranges = ranges
                .into_iter()
                .map(|(start, length, first, time)| piece(start, start + length, minute(first), minute(first + time)));
            // Histories fork from those with lower numbers.
            super::stage::log(lineage, parent.filter(|(parent, _)| *parent < lineage), &ranges.collect::<Vec<_>>())
        });
        Facts { backups: backups.collect(), logs: logs.collect(), following: following.map(LineageKey) }
    })
}

/// Facts as a service really has them: backups along the followed history at growing offsets, log between all of them, and
/// failovers in between, some of which leave a rest that nobody follows.
pub(crate) fn service() -> impl Strategy<Value = Facts<u32>> {
    let step = prop_oneof![6 => Just(Step::Log), 4 => Just(Step::Backup), 1 => Just(Step::Bad), 1 => (0..5_u64).prop_map(Step::Fail)];
    prop::collection::vec((step, 1..1_500_i64), 1..60).prop_map(|steps| {
        let mut facts = Facts { backups: Vec::new(), logs: vec![log(0, None, &[])], following: Some(LineageKey(0)) };
        let (mut time, mut offset, mut lineage) = (0, 10, 0);
        for (step, minutes) in steps {
            let before = time;
            time += minutes;
            match step {
                Step::Log | Step::Backup | Step::Bad => {
                    let range = piece(offset, offset + 10, minute(before), minute(time));
                    facts.logs[lineage as usize].ranges.push(range);
                    offset += 10;
                }
                Step::Fail(lost) => {
                    let fork = (lineage, offset - lost.min(offset));
                    lineage += 1;
                    facts.logs.push(log(lineage, Some(fork), &[]));
                    (facts.following, offset) = (Some(LineageKey(lineage)), fork.1);
                }
            }
            if matches!(step, Step::Backup | Step::Bad) {
                let id = u32::try_from(facts.backups.len()).unwrap();
                let backup = Backup::new(id, minute(before), minute(time)).at(on(lineage, offset));
                facts.backups.push(if matches!(step, Step::Bad) { backup.bad() } else { backup });
            }
        }
        facts
    })
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Log,
    Backup,
    Bad,
    /// Another primary goes on from so many bytes before the end.
    Fail(u64),
}
