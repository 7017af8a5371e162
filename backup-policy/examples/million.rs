//! How long it takes to plan a million backups: `cargo run --release -p backup-policy --example million`.
#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::time::Instant;

use backup_policy::retention::{Backup, Facts, Fork, LineageKey, Log, LogRange, Position, RetentionPlan};
use backup_policy::{Age, Cadence, Period, Profile, Tier};
use jiff::{SignedDuration, Timestamp};

const COUNT: u64 = 1_000_000;

const EVERYTHING: Tier = Tier::by_age(Period::Every, Age::MAX);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let profile = profile()?;
    for (what, histories, shuffled) in [
        ("one history, in order", 1, false),
        ("one history, shuffled", 1, true),
        ("1000 histories, shuffled", 1000, true),
    ] {
        let facts = facts(histories, shuffled);
        let now = facts.backups.iter().map(|backup| backup.ended).max().ok_or("no backups")?;
        let (plan, took) = timed(|| RetentionPlan::of(&profile, now, &facts));
        println!("{what}: {} of {COUNT} backups kept, planned in {took:?}", plan.kept().count());
    }
    let (facts, everything) = (facts(1, false), Profile::builder(Cadence::every_hours(1)?).tier(EVERYTHING).build()?);
    let now = Timestamp::UNIX_EPOCH + Age::MAX.duration();
    let (plan, took) = timed(|| RetentionPlan::of(&everything, now, &facts));
    println!("nothing expires: {} of {COUNT} backups kept, planned in {took:?}", plan.kept().count());
    Ok(())
}

fn profile() -> backup_policy::Result<Profile> {
    Profile::builder(Cadence::every_hours(1)?)
        .tier(Tier::by_age(Period::Every, Age::from_hours(24)?))
        .tier(Tier::by_age(Period::Daily, Age::from_days(30)?))
        .tier(Tier::by_age(Period::Weekly, Age::from_days(364)?))
        .tier(Tier::by_age(Period::Monthly, Age::from_days(3650)?))
        .tier(Tier::by_count(Period::Yearly, 100)?)
        .minimum_count(24)?
        .minimum_age(Age::from_hours(2)?)
        .pitr(Age::from_days(30)?)
        .build()
}

/// Backups every hour along histories that fork one from the other, with log between all of them.
fn facts(histories: u64, shuffled: bool) -> Facts<u64> {
    let start = Timestamp::UNIX_EPOCH;
    let hour = |n: u64| start + SignedDuration::from_hours(i64::try_from(n).unwrap_or(0));
    let each = COUNT / histories;
    let key = |n: u64| LineageKey(u32::try_from(n / each).unwrap_or(0));
    let backup = |n: u64| Backup::new(n, hour(n), hour(n)).at(Position::new(key(n), n * 10)).with_bytes(1);
    let log = |first: u64| {
        let parent = (first > 0).then(|| Fork { lineage: key(first - 1), offset: first * 10 });
        let range = |n: u64| LogRange { start: n * 10, end: (n + 1) * 10, first: hour(n), last: hour(n + 1), bytes: 1 };
        (first..first + each).fold(Log::new(key(first), parent), |log, n| log.with(range(n)))
    };
    let place = |n: u64| if shuffled { n.wrapping_mul(0x9e37_79b9_7f4a_7c15) } else { n };
    let mut backups: Vec<_> = (0..COUNT).map(backup).collect();
    backups.sort_by_key(|backup| place(backup.id));
    Facts { backups, logs: (0..histories).map(|history| log(history * each)).collect(), following: None }
}

#[expect(clippy::disallowed_methods, reason = "it measures; nothing is decided by it")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, std::time::Duration) {
    let began = Instant::now();
    (work(), began.elapsed())
}
