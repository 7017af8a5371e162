//! The moments of a schedule.

use std::collections::BTreeSet;

use backup_policy::{BackupTime, Cadence, Schedule};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn schedule(cadence: &str, hour: Option<i64>, minute: Option<i64>) -> Schedule {
    let time = BackupTime::new(hour, minute).unwrap();
    Schedule::new(cadence.parse().unwrap(), time, "service-1").unwrap()
}

fn day(schedule: &Schedule) -> Vec<String> {
    let midnight = at("2026-11-27T00:00:00Z") - SignedDuration::from_nanos(1);
    let slots = schedule.slots(midnight).take_while(|slot| *slot < at("2026-11-28T00:00:00Z"));
    slots.map(|slot| slot.strftime("%H:%M:%S").to_string()).collect()
}

#[test]
fn hour_and_minute_are_utc_and_apply_to_each_cadence() {
    assert_eq!(day(&schedule("daily", Some(3), Some(15))), ["03:15:00"]);
    assert_eq!(day(&schedule("daily", Some(0), Some(0))), ["00:00:00"]);
    assert_eq!(day(&schedule("daily", Some(23), Some(59))), ["23:59:00"]);
    // A service that is backed up every 12 hours stays one, whatever hour is chosen.
    assert_eq!(day(&schedule("every 12h", Some(3), Some(30))), ["03:30:00", "15:30:00"]);
    assert_eq!(day(&schedule("every 12h", Some(15), Some(30))), ["03:30:00", "15:30:00"]);
    assert_eq!(day(&schedule("every 8h", Some(23), Some(0))), ["07:00:00", "15:00:00", "23:00:00"]);
    let hourly = day(&schedule("every 1h", Some(5), Some(7)));
    assert!(hourly.len() == 24 && hourly.iter().all(|slot| slot.ends_with(":07:00")));
    let two_days = schedule("every 2d", Some(3), Some(15));
    let slots: Vec<_> = two_days.slots(at("2026-11-27T00:00:00Z")).take(2).collect();
    assert_eq!(slots[1].duration_since(slots[0]), SignedDuration::from_hours(48));
    assert_eq!(slots[0].strftime("%H:%M").to_string(), "03:15");
    // Not all services are backed up on the same days.
    let time = BackupTime::new(Some(3), Some(15)).unwrap();
    let next =
        |n: u32| Schedule::new("every 2d".parse().unwrap(), time, &format!("service-{n}")).unwrap().next(slots[0]);
    let early = (0..100).filter(|n| next(*n) != Some(slots[1])).count();
    assert!((30..70).contains(&early), "{early}");
}

#[test]
fn what_is_null_follows_from_the_name() {
    let hour = day(&schedule("daily", Some(3), None));
    assert!(hour.len() == 1 && hour[0].starts_with("03:"));
    let minute = day(&schedule("daily", None, Some(15)));
    assert!(minute.len() == 1 && minute[0].ends_with(":15:00"));
    // The default of this name, for ever; computed apart from this code.
    assert_eq!(day(&schedule("daily", None, None)), ["08:09:54"]);
    assert_eq!(schedule("daily", Some(5), Some(6)).time().with_hour(None).unwrap().hour(), None);
}

#[test]
fn defaults_spread_over_the_interval() {
    for (cadence, hours) in [("every 1h", 1), ("every 12h", 12), ("daily", 24)] {
        let sixth = |n: u32| {
            let schedule =
                Schedule::new(cadence.parse().unwrap(), BackupTime::DEFAULT, &format!("service-{n}")).unwrap();
            let start = at("2026-11-27T00:00:00Z");
            schedule.next(start).unwrap().duration_since(start).as_secs() * 6 / (hours * 3600)
        };
        let mut counts = [0_u32; 6];
        (0..3000).for_each(|n| counts[usize::try_from(sixth(n).min(5)).unwrap()] += 1);
        assert!(counts.iter().all(|count| (420..580).contains(count)), "{cadence}: {counts:?}");
    }
}

#[test]
fn what_is_no_time_is_told_what_is() {
    for (hour, minute, message) in [
        (Some(24), None, "backup_hour is 24; allowed is 0 to 23 (UTC), or null for the default"),
        (Some(-1), None, "backup_hour is -1; allowed is 0 to 23 (UTC), or null for the default"),
        (None, Some(60), "backup_minute is 60; allowed is 0 to 59 (UTC), or null for the default"),
        (None, Some(-1), "backup_minute is -1; allowed is 0 to 59 (UTC), or null for the default"),
        (
            Some(i64::MAX),
            Some(0),
            "backup_hour is 9223372036854775807; allowed is 0 to 23 (UTC), or null for the default",
        ),
    ] {
        assert_eq!(BackupTime::new(hour, minute).unwrap_err().to_string(), message);
    }
    let document = r#"{ "backup_hour": 24 }"#;
    assert!(serde_json::from_str::<BackupTime>(document).unwrap_err().to_string().starts_with("backup_hour is 24"));
    for (document, time) in [
        ("{}", BackupTime::DEFAULT),
        (r#"{ "backup_hour": null, "backup_minute": 5 }"#, BackupTime::new(None, Some(5)).unwrap()),
        (r#"{ "backup_hour": 23, "backup_minute": 59 }"#, BackupTime::new(Some(23), Some(59)).unwrap()),
    ] {
        let read: BackupTime = serde_json::from_str(document).unwrap();
        assert_eq!(read, time);
        assert_eq!(serde_json::from_str::<BackupTime>(&serde_json::to_string(&time).unwrap()).unwrap(), time);
    }
}

#[test]
fn a_cron_expression_says_its_times_itself() {
    let cron = schedule("cron 15 3 * * MON", None, None);
    assert_eq!(cron.next(at("2026-11-27T00:00:00Z")), Some(at("2026-11-30T03:15:00Z")));
    let time = BackupTime::new(Some(3), None).unwrap();
    let error = Schedule::new("cron 15 3 * * MON".parse().unwrap(), time, "service-1").unwrap_err().to_string();
    assert!(error.contains("is 03:** UTC; allowed is null, since the plan's cadence (cron 15 3 * * MON)"), "{error}");
}

#[test]
fn the_ends_of_time_are_reached_without_harm() {
    for cadence in ["every 1h", "daily", "every 31d", "cron 0 0 29 2 *"] {
        let schedule = schedule(cadence, None, None);
        assert_eq!(schedule.next(Timestamp::MAX), None, "{cadence}");
        assert_eq!(schedule.previous(Timestamp::MIN), None, "{cadence}");
        assert!(schedule.slots(Timestamp::MAX - SignedDuration::from_hours(5)).count() < 10);
    }
}

fn cadences() -> impl Strategy<Value = Cadence> {
    let hours = prop_oneof![
        Just(1),
        Just(2),
        Just(3),
        Just(4),
        Just(6),
        Just(8),
        Just(12),
        Just(24),
        Just(48),
        Just(168),
        Just(744)
    ];
    let cron = prop_oneof![Just("*/7 * * * *"), Just("15 3 * * MON"), Just("0 0 31 * *"), Just("30 1,13 * 2 *")];
    prop_oneof![
        3 => hours.prop_map(|hours| Cadence::every_hours(hours).unwrap()),
        1 => cron.prop_map(|text| Cadence::cron(text).unwrap()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slots_are_a_row(cadence in cadences(), name in "[a-z]{1,8}", hour in prop::option::of(0..24_i64), nanos in -4_000_000_000_000_000_000_i128..4_000_000_000_000_000_000) {
        let time = if cadence.to_string().starts_with("cron") { BackupTime::DEFAULT } else { BackupTime::new(hour, None).unwrap() };
        let schedule = Schedule::new(cadence.clone(), time, &name).unwrap();
        let at = Timestamp::from_nanosecond(nanos).unwrap();
        let (before, after) = (schedule.previous(at).unwrap(), schedule.next(at).unwrap());
        prop_assert!(before <= at && at < after);
        prop_assert_eq!(schedule.next(before), Some(after));
        prop_assert_eq!(schedule.previous(after), Some(after));
        prop_assert_eq!(schedule.previous(after - SignedDuration::from_nanos(1)), Some(before));
        prop_assert!(after.duration_since(before) <= cadence.longest_interval());
        let row: Vec<_> = schedule.slots(before - SignedDuration::from_nanos(1)).take(4).collect();
        prop_assert_eq!(row.iter().collect::<BTreeSet<_>>().len(), 4);
        prop_assert_eq!(&row[..2], &[before, after]);
        if let Some(hour) = hour.filter(|_| !cadence.to_string().starts_with("cron") && cadence.longest_interval() >= SignedDuration::from_hours(24)) {
            prop_assert_eq!(after.strftime("%H").to_string(), format!("{hour:02}"));
        }
    }
}
