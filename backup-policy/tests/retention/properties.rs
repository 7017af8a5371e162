//! What holds for all facts and profiles.

use std::collections::BTreeSet;

use backup_policy::retention::{Backup, Facts, Kept, Reason, RetentionPlan, Verdict};
use backup_policy::{CLOCK_TOLERANCE, Profile};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::oracle;
use super::restore::{carried_out, restorable};
use super::stage::{any_facts, any_profile, hour, minute, service};

const NOW: i64 = 500;
const NANO: SignedDuration = SignedDuration::from_nanos(1);

fn kept(profile: &Profile, now: Timestamp, facts: &Facts<u32>) -> BTreeSet<u32> {
    RetentionPlan::of(profile, now, facts).kept().collect()
}

fn counts(backup: &Backup<u32>, now: Timestamp) -> bool {
    backup.good && backup.ended <= now + CLOCK_TOLERANCE
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_slow_planner_decides_alike(profile in any_profile(true), plain in any_profile(false), facts in any_facts()) {
        for profile in [profile, plain] {
            let plan = RetentionPlan::of(&profile, hour(NOW), &facts);
            let oracle = oracle::plan(&profile, hour(NOW), &facts);
            prop_assert_eq!(plan.kept().collect::<BTreeSet<_>>(), oracle.backups);
            for log in &plan.logs {
                prop_assert_eq!(log.keep_from, oracle.logs[&log.lineage], "lineage {}", log.lineage);
            }
        }
    }

    #[test]
    fn what_was_carried_out_changes_nothing_more(profile in any_profile(true), any in any_facts(), service in service(), later in 0..20_000_i64) {
        // Pieces of log whose times contradict their offsets may be gone the second time, so only a real service has log here.
        let any = Facts::of_backups(any.backups);
        for (now, facts) in [(hour(NOW), any), (minute(10_000 + later), service)] {
            let plan = RetentionPlan::of(&profile, now, &facts);
            let rest = carried_out(&facts, &plan);
            let again = RetentionPlan::of(&profile, now, &rest);
            prop_assert_eq!(again.expired().count(), 0);
            prop_assert_eq!(carried_out(&rest, &again), rest);
        }
    }

    #[test]
    fn later_is_never_more(profile in any_profile(true), facts in any_facts(), steps in prop::collection::vec(0..20_000_i64, 1..4)) {
        let mut now = minute(25_000);
        let mut before = RetentionPlan::of(&profile, now, &facts);
        for step in steps {
            now += SignedDuration::from_mins(step);
            let after = RetentionPlan::of(&profile, now, &facts);
            let (old, new): (BTreeSet<_>, BTreeSet<_>) = (before.kept().collect(), after.kept().collect());
            prop_assert!(new.is_subset(&old), "{:?} came back", new.difference(&old));
            for (before, after) in before.logs.iter().zip(&after.logs) {
                let from = |plan: Option<u64>| plan.map_or(u128::MAX, u128::from);
                prop_assert!(from(after.keep_from) >= from(before.keep_from), "log of lineage {} came back", after.lineage);
            }
            before = after;
        }
    }

    #[test]
    fn the_newest_good_ones_and_held_ones_stay(profile in any_profile(false), facts in any_facts()) {
        let kept = kept(&profile, hour(NOW), &facts);
        let mut good: Vec<_> = facts.backups.iter().filter(|backup| counts(backup, hour(NOW))).collect();
        good.sort_by_key(|backup| std::cmp::Reverse((backup.ended, backup.id)));
        for backup in good.into_iter().take(profile.minimum_count() as usize) {
            prop_assert!(kept.contains(&backup.id));
        }
        for backup in facts.backups.iter().filter(|backup| backup.hold) {
            prop_assert!(kept.contains(&backup.id));
        }
        let young = |backup: &&Backup<u32>| profile.minimum_age().is_some_and(|age| age.after(backup.ended) > hour(NOW));
        prop_assert!(facts.backups.iter().filter(young).all(|backup| kept.contains(&backup.id)));
    }

    #[test]
    fn moments_of_the_window_stay_restorable(profile in any_profile(true), facts in service(), offsets in prop::collection::vec(0..3_000_i64, 1..6)) {
        let end = facts.logs.iter().flat_map(|log| &log.ranges).map(|range| range.last).max().unwrap_or(hour(0));
        let mut now = end;
        let mut rest = facts.clone();
        for offset in offsets {
            now += SignedDuration::from_mins(offset / 4);
            rest = carried_out(&rest, &RetentionPlan::of(&profile, now, &rest));
            let start = now - profile.pitr().unwrap().duration();
            let length = now.duration_since(start).as_secs() / 60;
            for log in &facts.logs {
                for minutes in (0..=length).step_by(37) {
                    let moment = start + SignedDuration::from_mins(minutes);
                    let (was, is) = (restorable(&facts, log.lineage, moment), restorable(&rest, log.lineage, moment));
                    prop_assert!(is || !was, "lineage {} at {moment}, now {now}", log.lineage);
                }
            }
        }
    }

    #[test]
    fn the_end_of_the_followed_log_stays_restorable(profile in any_profile(false), facts in service(), later in 0..10_000_i64) {
        let following = facts.following.unwrap();
        let log = facts.logs.iter().find(|log| log.lineage == following).unwrap();
        if let Some(end) = log.ranges.iter().map(|range| range.last).max() {
            let now = end + SignedDuration::from_hours(later);
            let rest = carried_out(&facts, &RetentionPlan::of(&profile, now, &facts));
            prop_assert_eq!(restorable(&rest, following, end), restorable(&facts, following, end));
        }
    }

    #[test]
    fn a_time_in_the_future_displaces_nothing(profile in any_profile(true), facts in any_facts(), ahead in 11..100_000_i64, place in (0..4_u32, 0..40_u64)) {
        let mut more = facts.clone();
        let forged = hour(NOW) + SignedDuration::from_mins(ahead);
        more.backups.push(super::stage::at(99, forged).at(super::stage::on(place.0, place.1)));
        let (without, plan) = (RetentionPlan::of(&profile, hour(NOW), &facts), RetentionPlan::of(&profile, hour(NOW), &more));
        let with: BTreeSet<_> = plan.kept().collect();
        prop_assert!(without.kept().all(|id| with.contains(&id)));
        for (before, after) in without.logs.iter().zip(&plan.logs) {
            prop_assert!(before.keep_from.is_none_or(|from| after.keep_from.is_some_and(|after| after <= from)));
        }
        let Some(Verdict::Keep { reasons, .. }) = plan.verdict(99) else { return Err(TestCaseError::fail("expired")) };
        let allowed = |kept: &Kept| matches!(kept.reason, Reason::FutureTimestamp { .. } | Reason::MinimumAge);
        prop_assert!(reasons.iter().all(allowed));
    }

    #[test]
    fn one_more_takes_no_keeper_of_another_period(profile in any_profile(true), facts in any_facts(), new in (0..30_000_i64, 0..180_i64)) {
        let (ended, length) = new;
        let newest = facts.backups.iter().filter(|backup| counts(backup, hour(NOW))).map(|backup| backup.ended).max();
        let new = Backup::new(99, minute(ended - length), minute(ended));
        let mut more = facts.clone();
        more.backups.push(new);
        let (before, after) = (RetentionPlan::of(&profile, hour(NOW), &facts), RetentionPlan::of(&profile, hour(NOW), &more));
        for (before, (after, backup)) in before.backups.iter().zip(after.backups.iter().zip(&facts.backups)) {
            let Verdict::Keep { reasons, .. } = &before.verdict else { continue };
            for Kept { reason, .. } in reasons {
                let Reason::Tier { tier, .. } = reason else { continue };
                let aged = tier.age().is_some_and(|age| age.after(backup.ended) > hour(NOW));
                let other = newest.is_none_or(|newest| new.ended > newest)
                    || oracle_label(*reason, backup) != oracle_label(*reason, &new);
                if aged && other {
                    let Verdict::Keep { reasons, .. } = &after.verdict else { return Err(TestCaseError::fail("expired")) };
                    prop_assert!(reasons.iter().any(|kept| kept.reason == *reason));
                }
            }
        }
    }

    #[test]
    fn what_is_said_of_the_end_comes_true(profile in any_profile(true), facts in any_facts()) {
        let mut facts = facts;
        facts.backups.retain(|backup| backup.ended <= hour(NOW));
        let plan = RetentionPlan::of(&profile, hour(NOW), &facts);
        let newest = facts.backups.iter().map(|backup| backup.ended).max();
        for (backup, known) in plan.backups.iter().zip(&facts.backups) {
            match &backup.verdict {
                Verdict::Keep { expires_at: Some(end), reasons } => {
                    prop_assert!(!reasons.is_empty());
                    prop_assert!(kept(&profile, *end - NANO, &facts).contains(&backup.id), "expired before {end}");
                    prop_assert!(!kept(&profile, *end, &facts).contains(&backup.id), "still there at {end}");
                }
                Verdict::Keep { expires_at: None, .. } => {
                    prop_assert!(kept(&profile, hour(10_000_000), &facts).contains(&backup.id));
                }
                Verdict::Expire { since, .. } => {
                    prop_assert!(*since <= hour(NOW) && *since >= known.ended);
                    if newest.is_some_and(|newest| *since > newest) {
                        prop_assert!(kept(&profile, *since - NANO, &facts).contains(&backup.id), "expired before {since}");
                    }
                }
            }
        }
    }

    #[test]
    fn plans_are_written_down(profile in any_profile(true), facts in any_facts()) {
        let text = serde_json::to_string(&facts).unwrap();
        prop_assert_eq!(serde_json::from_str::<Facts<u32>>(&text).unwrap(), facts.clone());
        let text = serde_json::to_string(&profile).unwrap();
        prop_assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), profile.clone());
        let plan = serde_json::to_value(RetentionPlan::of(&profile, hour(NOW), &facts)).unwrap();
        prop_assert_eq!(plan["backups"].as_array().map(Vec::len), Some(facts.backups.len()));
    }
}

fn oracle_label(reason: Reason, backup: &Backup<u32>) -> String {
    let Reason::Tier { tier, .. } = reason else { return String::new() };
    oracle::label(tier.period(), backup)
}
