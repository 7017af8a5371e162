//! Whether a backup is due.

use backup_policy::{Due, History, Run, Schedule};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::slots::{at, schedule};

const LENGTH: SignedDuration = SignedDuration::from_mins(20);

fn after(started: &str) -> History {
    let started = at(started);
    History { last: Some(Run { started, ended: started + LENGTH }), ..History::default() }
}

fn due(slot: &str) -> Due {
    Due::Due { slot: at(slot), since: at(slot) }
}

fn not_yet(next: &str) -> Due {
    Due::NotYet { next: Some(at(next)) }
}

#[test]
fn a_service_without_any_backup_gets_one_at_once() {
    let daily = schedule("daily", Some(3), Some(0));
    assert_eq!(daily.due(at("2026-11-27T10:00:00Z"), &History::default()), due("2026-11-27T10:00:00Z"));
    let running = History { running: true, ..History::default() };
    assert_eq!(daily.due(at("2026-11-27T10:00:00Z"), &running), not_yet("2026-11-28T03:00:00Z"));
}

#[test]
fn each_slot_is_served_once() {
    let daily = schedule("daily", Some(3), Some(0));
    let history = after("2026-11-26T03:00:00Z");
    assert_eq!(daily.due(at("2026-11-27T02:59:59Z"), &history), not_yet("2026-11-27T03:00:00Z"));
    assert_eq!(daily.due(at("2026-11-27T03:00:00Z"), &history), due("2026-11-27T03:00:00Z"));
    assert_eq!(daily.due(at("2026-11-27T09:00:00Z"), &history), due("2026-11-27T03:00:00Z"), "late, but not lost");
    assert_eq!(daily.due(at("2026-11-27T09:00:00Z"), &after("2026-11-27T03:00:01Z")), not_yet("2026-11-28T03:00:00Z"));
}

#[test]
fn what_was_missed_is_caught_up_once() {
    let hourly = schedule("every 1h", None, Some(30));
    let now = at("2026-11-27T10:10:00Z");
    assert_eq!(hourly.due(now, &after("2026-11-24T10:30:00Z")), due("2026-11-27T09:30:00Z"));
    assert_eq!(hourly.due(now, &after("2026-11-27T10:10:00Z")), not_yet("2026-11-27T10:30:00Z"));
}

#[test]
fn the_next_one_waits_for_the_end_of_the_one_before() {
    let hourly = schedule("every 1h", None, Some(30));
    let now = at("2026-11-27T10:40:00Z");
    let running = History { running: true, ..after("2026-11-27T08:30:00Z") };
    assert_eq!(hourly.due(now, &running), Due::Waiting { slot: at("2026-11-27T10:30:00Z") });
    // It ended five minutes ago: since then the next one could have begun.
    let last = Some(Run { started: at("2026-11-27T09:30:00Z"), ended: at("2026-11-27T10:35:00Z") });
    let since = Due::Due { slot: at("2026-11-27T10:30:00Z"), since: at("2026-11-27T10:35:00Z") };
    assert_eq!(hourly.due(now, &History { last, ..History::default() }), since);
}

#[test]
fn a_change_of_the_time_may_take_a_cycle_more() {
    let changed = |at_text: &str| History { changed_at: Some(at(at_text)), ..after("2026-11-27T03:00:00Z") };
    let now = |text: &str| at(text);
    // A backup was made 9 hours before: that is recent.
    let noon = schedule("daily", Some(12), Some(0));
    let history = changed("2026-11-27T10:00:00Z");
    assert_eq!(noon.due(now("2026-11-27T12:30:00Z"), &history), not_yet("2026-11-28T12:00:00Z"));
    assert_eq!(noon.due(now("2026-11-28T12:00:00Z"), &history), due("2026-11-28T12:00:00Z"));
    // 17 hours before is not.
    let evening = schedule("daily", Some(20), Some(0));
    assert_eq!(evening.due(now("2026-11-27T20:00:00Z"), &history), due("2026-11-27T20:00:00Z"));
    // A time that had passed when it was chosen is not made up for at once, but when the old time comes.
    let history = changed("2026-11-27T22:00:00Z");
    assert_eq!(evening.due(now("2026-11-27T22:00:00Z"), &history), not_yet("2026-11-28T03:00:00Z"));
    assert_eq!(evening.due(now("2026-11-28T03:00:00Z"), &history), due("2026-11-28T03:00:00Z"));
    // After the first backup since the change, nothing reminds of it.
    let history = History { changed_at: Some(at("2026-11-27T22:00:00Z")), ..after("2026-11-28T03:00:00Z") };
    assert_eq!(evening.due(now("2026-11-28T20:00:00Z"), &history), due("2026-11-28T20:00:00Z"));
    // What was missed before the change is not forgotten for it.
    let history = History { changed_at: Some(at("2026-11-27T04:00:00Z")), ..after("2026-11-26T03:00:00Z") };
    assert_eq!(
        schedule("daily", Some(2), Some(0)).due(now("2026-11-27T04:00:00Z"), &history),
        due("2026-11-27T03:00:00Z")
    );
}

#[test]
fn answers_are_written_down() {
    let history =
        History { running: true, changed_at: Some(at("2026-11-27T04:00:00Z")), ..after("2026-11-26T03:00:00Z") };
    let text = serde_json::to_string(&history).unwrap();
    assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
    assert_eq!(serde_json::from_str::<History>("{}").unwrap(), History::default());
    for answer in [due("2026-11-27T03:00:00Z"), not_yet("2026-11-27T03:00:00Z"), Due::Waiting { slot: Timestamp::MAX }]
    {
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Due>(&text).unwrap(), answer);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// However often the time is changed, backups are between half an interval and one and a half apart.
    #[test]
    fn changes_leave_no_gap(cadence in prop_oneof![Just(("daily", 24)), Just(("every 12h", 12)), Just(("every 1h", 1))], changes in prop::collection::vec((1..3000_i64, 0..24_i64, 0..60_i64), 0..12)) {
        let (cadence, hours) = cadence;
        let interval = SignedDuration::from_hours(hours);
        let tick = SignedDuration::from_mins(3);
        let mut now = at("2026-11-27T00:00:00Z");
        let mut history = History { last: Some(Run { started: now, ended: now + LENGTH }), ..History::default() };
        let mut current: Schedule = schedule(cadence, Some(0), Some(0));
        for (minutes, hour, minute) in changes {
            let end = now + SignedDuration::from_mins(minutes);
            while now < end {
                if matches!(current.due(now, &history), Due::Due { .. }) {
                    let gap = now.duration_since(history.last.unwrap().started);
                    prop_assert!(gap + tick >= interval / 2 && gap <= interval + interval / 2 + tick, "{gap:?} at {now}");
                    history.last = Some(Run { started: now, ended: now });
                }
                now += tick;
            }
            prop_assert!(now.duration_since(history.last.unwrap().started) <= interval + interval / 2 + tick);
            current = schedule(cadence, Some(hour), Some(minute));
            history.changed_at = Some(now);
        }
    }
}
