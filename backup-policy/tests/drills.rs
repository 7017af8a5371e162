//! Whether a drill is due.
#![allow(clippy::unwrap_used)]

use backup_policy::{Cadence, DrillHistory, DrillSchedule, Due, Matrix, Offer, Plan, Run};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn schedule(cadence: &str) -> DrillSchedule {
    DrillSchedule::new(cadence.parse::<Cadence>().unwrap(), "shop").unwrap()
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

fn run(started: Timestamp, took: SignedDuration) -> Run {
    Run { started, ended: started + took }
}

#[test]
fn there_is_nothing_to_prove_without_a_backup_and_the_first_drill_waits_for_its_turn() {
    let monthly = schedule("every 30d");
    let first = at("2026-11-01T00:00:00Z");
    let slot = monthly.slots(first).next().unwrap();
    let none = DrillHistory::default();
    assert!(matches!(monthly.due(slot, &none), Due::NotYet { .. }));
    let history = DrillHistory { since: Some(first), ..none };
    assert_eq!(monthly.due(first, &history), Due::NotYet { next: Some(slot) });
    assert_eq!(monthly.due(slot, &history), Due::Due { slot, since: slot });
    let running = DrillHistory { running: true, ..history };
    assert_eq!(monthly.due(slot, &running), Due::Waiting { slot });
    // An upgrade of a service that has backups for years does not make it due at once either, unless its turn has passed.
    let next = monthly.slots(slot).next().unwrap();
    let done = DrillHistory { last: Some(run(slot, hours(3))), ..history };
    assert_eq!(monthly.due(slot + hours(3), &done), Due::NotYet { next: Some(next) });
}

#[test]
fn what_failed_is_due_again_a_day_later() {
    let weekly = schedule("every 7d");
    let slot = weekly.slots(at("2026-11-01T00:00:00Z")).next().unwrap();
    let history = DrillHistory {
        since: Some(at("2026-11-01T00:00:00Z")),
        last: Some(run(slot, hours(1))),
        failed: true,
        running: false,
    };
    assert_eq!(weekly.due(slot + hours(2), &history), Due::NotYet { next: Some(slot + hours(25)) });
    assert_eq!(weekly.due(slot + hours(25), &history), Due::Due { slot: slot + hours(25), since: slot + hours(25) });
    let passed = DrillHistory { failed: false, ..history };
    assert_eq!(weekly.due(slot + hours(25), &passed), Due::NotYet { next: Some(slot + hours(7 * 24)) });
}

#[test]
fn a_drill_of_the_future_counts_for_nothing() {
    let weekly = schedule("every 7d");
    let first = at("2026-11-01T00:00:00Z");
    let slot = weekly.slots(first).next().unwrap();
    let history = DrillHistory {
        since: Some(first),
        last: Some(run(at("2031-01-01T00:00:00Z"), hours(1))),
        ..DrillHistory::default()
    };
    assert_eq!(weekly.due(slot, &history), Due::Due { slot, since: slot });
    let only = DrillHistory { since: Some(at("2031-01-01T00:00:00Z")), ..DrillHistory::default() };
    assert!(matches!(weekly.due(slot, &only), Due::NotYet { .. }));
}

#[test]
fn every_plan_with_backups_has_drills() {
    let matrix = Matrix::built_in();
    let mut cells = 0;
    for kind in matrix.kinds() {
        for plan in matrix.plans() {
            let Offer::Backups(profile) = matrix.offer(kind, plan).unwrap() else { continue };
            let expected = if *plan == Plan::PREMIUM { "every 7d" } else { "every 30d" };
            assert_eq!(profile.drills().map(ToString::to_string).as_deref(), Some(expected), "{kind} on {plan}");
            cells += 1;
        }
    }
    assert!(cells > 20, "{cells}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whenever somebody looks, however seldom, the newest turn has been taken or is being taken; and none is taken twice.
    #[test]
    fn turns_are_neither_missed_nor_taken_twice(
        cadence in prop_oneof![Just("every 30d"), Just("every 7d"), Just("every 24h"), Just("cron 0 3 1 * *")],
        steps in prop::collection::vec((1..200_i64, 0..60_i64), 1..300),
    ) {
        let schedule = schedule(cadence);
        let first = at("2026-11-01T00:00:00Z");
        let mut history = DrillHistory { since: Some(first), ..DrillHistory::default() };
        let (mut now, mut begun, mut ends): (_, Vec<Timestamp>, Option<Timestamp>) = (first, Vec::new(), None);
        for (pause, takes) in steps {
            now += hours(pause);
            if let (Some(end), Some(started)) = (ends.filter(|end| *end <= now), begun.last()) {
                history = DrillHistory { last: Some(Run { started: *started, ended: end }), running: false, ..history };
                ends = None;
            }
            let turn = schedule.slots(first).take_while(|slot| *slot <= now).last();
            match schedule.due(now, &history) {
                Due::Due { slot, .. } => {
                    prop_assert_eq!(Some(slot), turn);
                    prop_assert!(begun.last().is_none_or(|last| *last < slot), "taken twice at {}", now);
                    begun.push(now);
                    ends = Some(now + hours(takes));
                    history.running = true;
                }
                Due::Waiting { slot } => prop_assert!(history.running && Some(slot) == turn),
                Due::NotYet { next } => {
                    prop_assert!(turn.is_none_or(|turn| begun.last().is_some_and(|last| *last >= turn)), "missed at {}", now);
                    prop_assert!(next.is_some_and(|next| next > now));
                }
            }
        }
    }
}
