//! What becomes of services that are off or deleted.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use backup_policy::Age;
use backup_policy::lifecycle::{
    Action, DeletionCause, Lifecycle, LifecyclePolicy, Notice, Outlook, Refusal, SentNotice,
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

fn day(days: i64) -> Timestamp {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    start + SignedDuration::from_hours(24 * days)
}

fn age(days: i64) -> Age {
    Age::from_days(days).unwrap()
}

fn off() -> Lifecycle {
    Lifecycle::running(day(-10)).power_off(day(0)).unwrap()
}

fn notice(before: i64) -> Notice {
    Notice { deadline: day(180), before: age(before) }
}

fn sent(before: i64, at: Timestamp) -> SentNotice {
    SentNotice { notice: notice(before), at }
}

fn seen(outlook: Outlook) -> (Option<Action>, Option<Notice>, Option<Timestamp>) {
    (outlook.action, outlook.notice, outlook.next)
}

#[test]
fn a_service_that_is_off_is_deleted_after_180_days_with_notices_before() {
    let policy = LifecyclePolicy::default();
    let mut given = Vec::new();
    for (now, expected) in [
        (day(0), (None, None, Some(day(150)))),
        (day(149), (None, None, Some(day(150)))),
        (day(150), (None, Some(notice(30)), Some(day(173)))),
        (day(151), (None, None, Some(day(173)))),
        (day(173), (None, Some(notice(7)), Some(day(179)))),
        (day(179), (None, Some(notice(1)), None)),
        (day(179), (None, None, Some(day(180)))),
        (day(180), (Some(Action::Delete), None, None)),
    ] {
        let outlook = off().due(&policy, now, &given);
        assert_eq!(seen(outlook), expected, "at {now}");
        given.extend(outlook.notice.map(|notice| SentNotice { notice, at: now }));
    }
    let deleted = off().expire(&policy, day(180), &given).unwrap();
    assert_eq!(deleted, Lifecycle::Deleted { since: day(180), cause: DeletionCause::OffTooLong });
    assert_eq!(deleted.deadline(&policy), Some(day(210)));
}

#[test]
fn nobody_is_deleted_without_the_last_notice() {
    let policy = LifecyclePolicy::default();
    // Nobody looked for half a year.
    let late = off().due(&policy, day(200), &[]);
    assert_eq!(seen(late), (None, Some(notice(1)), None), "only the last notice is made up for");
    assert_eq!(off().expire(&policy, day(200), &[]), Err(Refusal::NotOffLongEnough { deadline: day(180) }));
    let given = [sent(1, day(200))];
    assert_eq!(seen(off().due(&policy, day(200), &given)), (None, None, Some(day(201))));
    assert_eq!(off().expire(&policy, day(200), &given), Err(Refusal::NotOffLongEnough { deadline: day(201) }));
    assert_eq!(seen(off().due(&policy, day(201), &given)), (Some(Action::Delete), None, None));
    assert!(off().expire(&policy, day(201), &given).is_ok());
    // Five days before the end the notice of 7 days makes that of 30 pointless, also afterwards.
    assert_eq!(off().due(&policy, day(175), &[]).notice, Some(notice(7)));
    assert_eq!(off().due(&policy, day(176), &[sent(7, day(175))]).notice, None);
}

#[test]
fn toggling_begins_anew() {
    let policy = LifecyclePolicy::default();
    let given = [sent(30, day(150)), sent(7, day(173)), sent(1, day(179))];
    let toggled = off().power_on(day(179)).unwrap().power_off(day(179)).unwrap();
    assert_eq!(toggled.deadline(&policy), Some(day(359)));
    assert_eq!(seen(toggled.due(&policy, day(181), &given)), (None, None, Some(day(329))));
    // Its notices are others than those that were given before.
    let again = Notice { deadline: day(359), before: age(30) };
    assert_eq!(toggled.due(&policy, day(329), &given).notice, Some(again));
}

#[test]
fn a_deleted_service_can_be_recovered_for_30_days() {
    let policy = LifecyclePolicy::default();
    let deleted = Lifecycle::running(day(-1)).delete(day(0)).unwrap();
    assert_eq!(seen(deleted.due(&policy, day(29), &[])), (None, None, Some(day(30))));
    assert_eq!(deleted.recover(&policy, day(29)), Ok(Lifecycle::PoweredOff { since: day(29) }));
    assert_eq!(deleted.purge(&policy, day(29)), Err(Refusal::InGrace { deadline: day(30) }));
    assert_eq!(seen(deleted.due(&policy, day(30), &[])), (Some(Action::Purge), None, None));
    let late = deleted.recover(&policy, day(30)).unwrap_err();
    assert_eq!(late, Refusal::GraceOver { deadline: day(30) });
    assert_eq!(late.to_string(), "recover is not possible: the service could be recovered until 2026-01-31T00:00:00Z");
    let purged = deleted.purge(&policy, day(31)).unwrap();
    assert_eq!(seen(purged.due(&policy, day(9000), &[])), (None, None, None));
    assert_eq!(
        purged.recover(&policy, day(31)).unwrap_err().to_string(),
        "recover is not possible: the service is purged; possible for one that is deleted"
    );
}

#[test]
fn transitions_are_only_possible_from_where_they_make_sense() {
    let policy = LifecyclePolicy::default();
    let states = [
        Lifecycle::running(day(0)),
        off(),
        off().delete(day(0)).unwrap(),
        off().delete(day(0)).unwrap().purge(&policy, day(40)).unwrap(),
    ];
    let now = day(500);
    let given = [sent(1, day(179))];
    let possible = |state: &Lifecycle| {
        [
            state.power_off(now).is_ok(),
            state.power_on(now).is_ok(),
            state.delete(now).is_ok(),
            state.expire(&policy, now, &given).is_ok(),
            state.recover(&policy, day(1)).is_ok(),
            state.purge(&policy, now).is_ok(),
        ]
    };
    assert_eq!(
        states.each_ref().map(possible),
        [
            [true, false, true, false, false, false],
            [false, true, true, true, false, false],
            [false, false, false, false, true, true],
            [false; 6],
        ]
    );
    let error = states[3].power_on(now).unwrap_err().to_string();
    assert_eq!(error, "power_on is not possible: the service is purged; possible for one that is powered_off");
}

#[test]
fn a_policy_is_data_and_is_checked() {
    let policy: LifecyclePolicy =
        serde_json::from_str(r#"{ "off_limit": "90d", "notices": ["24h", "14d"], "grace": "7d" }"#).unwrap();
    assert_eq!((policy.off_limit(), policy.notices(), policy.grace()), (age(90), &[age(14), age(1)][..], age(7)));
    for policy in [policy, LifecyclePolicy::default(), LifecyclePolicy::new(age(1), [], age(1)).unwrap()] {
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<LifecyclePolicy>(&text).unwrap(), policy);
    }
    for (document, message) in [
        (r#"{ "off_limit": "-1d", "notices": [], "grace": "7d" }"#, "off_limit is -1d; allowed is a whole number"),
        (r#"{ "off_limit": "9d", "notices": ["1d", "0d"], "grace": "7d" }"#, "notices[1] is 0d; allowed is"),
        (r#"{ "off_limit": "9d", "notices": [], "grace": "1000000000d" }"#, "grace is 1000000000d; allowed is"),
        (
            r#"{ "off_limit": "9d", "notices": ["9d"], "grace": "7d" }"#,
            "notices is 9d; allowed is less than off_limit (9d)",
        ),
        (r#"{ "off_limit": "9d", "notices": ["1d", "24h"], "grace": "7d" }"#, "notices is 24h twice"),
        (r#"{ "off_limit": "9d", "notices": [], "grace": "7d", "more": 1 }"#, "unknown field"),
    ] {
        let error = serde_json::from_str::<LifecyclePolicy>(document).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    assert!(LifecyclePolicy::new(age(99), (1..40).map(age), age(1)).is_err());
}

#[test]
fn states_are_written_down() {
    for state in [off(), off().delete(day(3)).unwrap(), Lifecycle::running(day(1)), Lifecycle::Purged { since: day(2) }]
    {
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<Lifecycle>(&text).unwrap(), state, "{text}");
    }
    assert_eq!(
        serde_json::to_value(off()).unwrap(),
        serde_json::json!({ "state": "powered_off", "since": "2026-01-01T00:00:00Z" })
    );
    let given = sent(1, day(179));
    assert_eq!(serde_json::from_str::<SentNotice>(&serde_json::to_string(&given).unwrap()).unwrap(), given);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whenever somebody looks, each notice is given once, in order, and the deletion comes in time, or the last notice's
    /// length after a late one.
    #[test]
    fn whenever_somebody_looks(steps in prop::collection::vec(1..60_000_i64, 1..40), notices in prop::collection::btree_set(1..100_i64, 0..5)) {
        let policy = LifecyclePolicy::new(age(100), notices.iter().map(|days| age(*days)), age(30)).unwrap();
        let (mut now, mut given): (_, Vec<SentNotice>) = (day(0), Vec::new());
        for minutes in steps {
            let outlook = off().due(&policy, now, &given);
            prop_assert!(outlook.action.is_none() || outlook.notice.is_none());
            prop_assert!(outlook.next.is_none_or(|next| next > now));
            if outlook.action.is_some() {
                prop_assert!(now >= day(100));
                prop_assert!(notices.is_empty() || now.duration_since(given[given.len() - 1].at) >= age(*notices.first().unwrap()).duration());
                break;
            }
            prop_assert!(outlook.notice.is_some() || now < day(100) || given.last().is_some_and(|last| last.at > day(0)));
            if let Some(notice) = outlook.notice {
                prop_assert!(notice.before.before(notice.deadline) <= now);
                prop_assert!(given.last().is_none_or(|last| last.notice.before > notice.before));
                given.push(SentNotice { notice, at: now });
                // Asked at once again there is nothing more to say.
                prop_assert_eq!(off().due(&policy, now, &given).notice, None);
            }
            now += SignedDuration::from_mins(minutes);
        }
    }
}
