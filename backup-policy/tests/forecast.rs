//! What there will be.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use backup_policy::forecast::{ForecastId, forecast};
use backup_policy::retention::{Backup, Facts, LineageKey, Log, LogRange, Position, RetentionPlan};
use backup_policy::{BackupTime, Matrix, Plan, Profile, Schedule, ServiceKind};
use jiff::{SignedDuration, Timestamp};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn profile(kind: &ServiceKind, plan: &Plan) -> Profile {
    Matrix::built_in().offer(kind, plan).unwrap().profile().unwrap().clone()
}

fn schedule(profile: &Profile) -> Schedule {
    Schedule::new(profile.cadence().clone(), BackupTime::new(Some(3), Some(0)).unwrap(), "service").unwrap()
}

const NOW: &str = "2026-11-27T12:00:00Z";

#[test]
fn what_will_exist_and_how_many_bytes() {
    let redis = profile(&ServiceKind::REDIS, &Plan::BUSINESS);
    let started = at("2026-11-27T03:00:00Z");
    let backup = Backup::new(7_u32, started, started + SignedDuration::from_mins(10)).with_bytes(100);
    let facts = Facts::of_backups(vec![backup]);
    let soon = forecast(&redis, &schedule(&redis), &facts, at(NOW), at("2026-11-28T12:00:00Z")).unwrap();
    let names: Vec<_> = soon.backups.iter().map(|backup| backup.id).collect();
    assert_eq!(names, [ForecastId::Existing(7), ForecastId::Planned(0), ForecastId::Planned(1)]);
    assert_eq!((soon.planned, soon.backup_bytes, soon.log_bytes), (2, 300, 0));
    assert_eq!(soon.backups[1].ended, at("2026-11-27T15:10:00Z"));
    // One that has not ended by then is not there.
    let running = forecast(&redis, &schedule(&redis), &facts, at(NOW), at("2026-11-27T15:05:00Z")).unwrap();
    assert_eq!((running.planned, running.backups.len()), (0, 1));
    // Three days of two backups each.
    let later = forecast(&redis, &schedule(&redis), &facts, at(NOW), at("2027-03-01T12:00:00Z")).unwrap();
    assert_eq!((later.backups.len(), later.backup_bytes), (6, 600));
    assert_eq!(later.backups[0].id.to_string(), "planned 182");
    let past = forecast(&redis, &schedule(&redis), &facts, at(NOW), at("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!((past.planned, past.backups.len(), past.plan.now), (0, 1, at(NOW)));
}

#[test]
fn log_grows_as_it_did() {
    let postgres = profile(&ServiceKind::POSTGRES, &Plan::STARTUP);
    let start = at("2026-11-27T03:00:00Z");
    // 10 MB of log, stored in 5, in ten hours.
    let range = LogRange {
        start: 0,
        end: 10_000_000,
        first: start,
        last: start + SignedDuration::from_hours(10),
        bytes: 5_000_000,
    };
    let backup = Backup::new(1_u32, start, start).with_bytes(1000).at(Position::new(LineageKey(0), 0));
    let facts = Facts { backups: vec![backup], logs: vec![Log::new(LineageKey(0), None).with(range)], following: None };
    let now = start + SignedDuration::from_hours(10);
    let later = forecast(&postgres, &schedule(&postgres), &facts, now, at("2026-12-10T03:00:00Z")).unwrap();
    // Two days of backups and one before the window, with the log since it: 48 hours at 0.5 MB each.
    assert_eq!(later.backups.len(), 3);
    assert_eq!(later.log_bytes, 24_000_000);
    assert!(later.plan.log(LineageKey(0)).unwrap().expired_bytes > 100_000_000);
    // Twelve hours after the last backup there is more log.
    let afternoon = forecast(&postgres, &schedule(&postgres), &facts, now, at("2026-12-10T15:00:00Z")).unwrap();
    assert_eq!((afternoon.backups.len(), afternoon.log_bytes), (3, 30_000_000));
}

/// Expiring day by day comes to the same as deciding at the end.
#[test]
fn the_forecast_comes_true() {
    for (kind, plan) in [
        (ServiceKind::OPENSEARCH, Plan::BUSINESS),
        (ServiceKind::REDIS, Plan::PREMIUM),
        (ServiceKind::CASSANDRA, Plan::STARTUP),
        (ServiceKind::POSTGRES, Plan::BUSINESS),
    ] {
        let profile = profile(&kind, &plan);
        let schedule = schedule(&profile);
        let (now, end) = (at(NOW), at("2027-01-10T17:30:00Z"));
        let predicted = forecast(&profile, &schedule, &Facts::<u32>::none(), now, end).unwrap();
        let mut facts = Facts::none();
        for (slot, number) in schedule.slots(now).take_while(|slot| *slot <= end).zip(0_u32..) {
            facts.backups.push(Backup::new(number, slot, slot));
            let plan = RetentionPlan::of(&profile, slot, &facts);
            let kept: Vec<u32> = plan.kept().collect();
            facts.backups.retain(|backup| kept.contains(&backup.id));
        }
        let plan = RetentionPlan::of(&profile, end, &facts);
        let stepwise: Vec<_> = plan.kept().map(ForecastId::Planned).collect();
        let predicted: Vec<_> = predicted.backups.iter().map(|backup| backup.id).collect();
        assert_eq!(predicted, stepwise, "{kind}");
    }
}

#[test]
fn too_far_away_is_told() {
    let cron = Profile::builder("cron * * * * *".parse().unwrap());
    let tier = backup_policy::Tier::by_age(backup_policy::Period::Every, "1h".parse().unwrap());
    let profile = cron.tier(tier).build().unwrap();
    let schedule = Schedule::new(profile.cadence().clone(), BackupTime::DEFAULT, "service").unwrap();
    let error = forecast(&profile, &schedule, &Facts::<u32>::none(), at(NOW), at("2126-01-01T00:00:00Z")).unwrap_err();
    assert!(error.to_string().starts_with("until is 2126-01-01T00:00:00Z; allowed is a time before 2028-"), "{error}");
}
