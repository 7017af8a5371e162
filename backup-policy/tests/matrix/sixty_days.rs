//! Sixty days of every cell.

use backup_policy::retention::{Backup, Facts, LineageKey, Log, LogRange, Position, RetentionPlan};
use backup_policy::{BackupTime, Due, History, Matrix, Offer, Profile, Run, Schedule};
use jiff::{SignedDuration, Timestamp};

use super::promise::{PAGE, Promise, Sight};

const STEP: SignedDuration = SignedDuration::from_mins(1);
/// How long each backup takes.
const LENGTH: SignedDuration = SignedDuration::from_mins(10);
const STEPS: u32 = 60 * 24 * 60;

/// A service that is backed up as its plan says. Its log moves one byte a step.
struct Service {
    schedule: Schedule,
    profile: Profile,
    created: Timestamp,
    facts: Facts<u32>,
    began: Option<Timestamp>,
    last: Option<Run>,
    made: u32,
}

impl Service {
    fn new(name: &str, profile: &Profile, created: Timestamp, with_log: bool) -> Self {
        let schedule = Schedule::new(profile.cadence().clone(), BackupTime::DEFAULT, name).unwrap();
        let logs = if with_log { vec![Log::new(LineageKey(0), None)] } else { Vec::new() };
        let facts = Facts { backups: Vec::new(), logs, following: None };
        Self { schedule, profile: profile.clone(), created, facts, began: None, last: None, made: 0 }
    }

    fn offset(&self, at: Timestamp) -> u64 {
        u64::try_from(at.duration_since(self.created).as_mins()).unwrap()
    }

    fn step(&mut self, now: Timestamp) {
        let (start, end) = (self.offset(now), self.offset(now) + 1);
        if let Some(log) = self.facts.logs.first_mut() {
            log.ranges.push(LogRange { start, end, first: now, last: now + STEP, bytes: 1 });
        }
        let committed = self.began.filter(|began| now >= *began + LENGTH);
        if let Some(started) = committed {
            let backup = Backup::new(self.made, started, now).at(Position::new(LineageKey(0), start));
            self.facts.backups.push(backup);
            (self.last, self.began, self.made) = (Some(Run { started, ended: now }), None, self.made + 1);
        }
        let history = History { last: self.last, running: self.began.is_some(), ..History::default() };
        if matches!(self.schedule.due(now, &history), Due::Due { .. }) {
            self.began = Some(now);
        }
        if committed.is_some() || now.as_second() % 3600 == 0 {
            self.expire(now);
        }
    }

    fn expire(&mut self, now: Timestamp) {
        let plan = RetentionPlan::of(&self.profile, now, &self.facts);
        let mut verdicts = plan.backups.iter();
        self.facts.backups.retain(|_| verdicts.next().unwrap().verdict.is_keep());
        for (log, decision) in self.facts.logs.iter_mut().zip(&plan.logs) {
            log.ranges.retain(|range| decision.keeps(range));
        }
    }

    /// There is a backup that ended before, and each byte of log from there to that moment.
    fn restorable(&self, moment: Timestamp) -> bool {
        let Some(base) = self.facts.backups.iter().rfind(|backup| backup.ended <= moment) else { return false };
        let (Some(position), Some(log)) = (base.position, self.facts.logs.first()) else { return false };
        let first = log.ranges.partition_point(|range| range.start < position.offset);
        let ranges = &log.ranges[first..];
        let last = usize::try_from(self.offset(moment) - position.offset).unwrap();
        ranges.first().is_some_and(|range| range.start == position.offset)
            && ranges.get(last).is_some_and(|range| range.start == self.offset(moment))
    }

    fn sight<'a>(&'a self, now: Timestamp, restorable: &'a dyn Fn(Timestamp) -> bool) -> Sight<'a> {
        Sight {
            now,
            created: self.created,
            slack: LENGTH + STEP + STEP,
            backups: &self.facts.backups,
            newest_made: self.last.unwrap().ended,
            restorable,
        }
    }
}

#[test]
fn every_cell_keeps_what_the_page_says() {
    let matrix = Matrix::built_in();
    assert_eq!(matrix.kinds().count(), PAGE.len());
    for (kind, promises) in PAGE {
        for (plan, promise) in matrix.plans().iter().zip(promises) {
            let offer = matrix.offer(&kind.parse().unwrap(), plan).unwrap();
            let cell = format!("{kind} on {plan}");
            match (offer, promise) {
                (Offer::NotAvailable, Promise::NotAvailable) | (Offer::NoBackups { .. }, Promise::None) => {}
                (Offer::Backups(profile), promise) => simulate(&cell, profile, promise),
                (offer, promise) => panic!("{cell}: {offer:?} instead of {promise:?}"),
            }
        }
    }
}

fn simulate(cell: &str, profile: &Profile, promise: Promise) {
    let rights = profile.rights();
    assert_eq!((rights.restore, rights.fork), (promise.for_users(), promise.for_users()), "{cell}");
    assert_eq!(profile.always_on(), promise == Promise::Configuration, "{cell}");
    assert_eq!(profile.pitr().is_some(), matches!(promise, Promise::DaysAndPitr(_)), "{cell}");
    let created: Timestamp = "2026-02-20T16:40:00Z".parse().unwrap();
    let mut service = Service::new(cell, profile, created, profile.pitr().is_some());
    for step in 0..STEPS {
        let now = created + STEP * i32::try_from(step).unwrap();
        service.step(now);
        // At different times of the day.
        if step % 197 == 196 {
            let restorable = |moment| service.restorable(moment);
            if let Some(broken) = promise.broken(&service.sight(now, &restorable)) {
                panic!("{cell} at {now}: {broken}; promised was {promise:?}");
            }
        }
    }
    let interval = profile.cadence().longest_interval().as_hours();
    let expected = 60 * 24 / interval;
    // The first one is made at once, so there may be one more.
    assert!((expected..=expected + 1).contains(&i64::from(service.made)), "{cell}: {} backups", service.made);
}
