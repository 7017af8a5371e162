//! Each rule by example.

use backup_policy::Period;
use backup_policy::retention::{
    Backup, ExpireReason, Facts, Kept, LineageKey, LogReason, Reason, RetentionPlan, Verdict,
};
use jiff::Timestamp;

use super::stage::{age, at, by_age, day, hour, log, minute, newest, on, piece, profile, with};

fn plan(profile: &backup_policy::Profile, now: Timestamp, backups: &[Backup<u32>]) -> RetentionPlan<u32> {
    RetentionPlan::of(profile, now, &Facts::of_backups(backups.to_vec()))
}

fn kept(plan: &RetentionPlan<u32>) -> Vec<u32> {
    plan.kept().collect()
}

fn reasons(plan: &RetentionPlan<u32>, id: u32) -> Vec<Reason> {
    match plan.verdict(id) {
        Some(Verdict::Keep { reasons, .. }) => reasons.iter().map(|kept| kept.reason).collect(),
        _ => Vec::new(),
    }
}

fn expires_at(plan: &RetentionPlan<u32>, id: u32) -> Option<Timestamp> {
    match plan.verdict(id) {
        Some(Verdict::Keep { expires_at, .. }) => *expires_at,
        _ => None,
    }
}

#[test]
fn one_backup_is_replaced_when_the_next_has_committed() {
    let one = profile(&[newest(1, Period::Every)]);
    assert_eq!(kept(&plan(&one, day(900), &[at(1, day(0))])), [1]);
    let both = plan(&one, day(900), &[at(1, day(0)), at(2, day(1))]);
    assert_eq!(kept(&both), [2]);
    let expire = Verdict::Expire { reason: ExpireReason::NoLonger(Reason::LastGood), since: day(1) };
    assert_eq!(both.verdict(1), Some(&expire));
    assert_eq!(expires_at(&both, 2), None, "only another backup ends it");
}

#[test]
fn what_is_proven_bad_replaces_nothing() {
    let one = profile(&[newest(1, Period::Every)]);
    let bad = plan(&one, day(9), &[at(1, day(0)), at(2, day(1)).bad()]);
    assert_eq!(kept(&bad), [1]);
    assert_eq!(bad.verdict(2), Some(&Verdict::Expire { reason: ExpireReason::ProvenBad, since: day(1) }));
    let nothing_else = plan(&one, day(9), &[at(1, day(0)).bad(), at(2, day(1)).bad()]);
    assert_eq!(kept(&nothing_else), [1, 2]);
    assert_eq!(reasons(&nothing_else, 1), [Reason::NothingBetter]);
    let held = plan(&one, day(9), &[at(1, day(0)), at(2, day(1)).bad().held()]);
    assert_eq!(reasons(&held, 2), [Reason::Hold]);
    let young = with(&[newest(1, Period::Every)], |builder| builder.minimum_age(age("3d")));
    assert_eq!(reasons(&plan(&young, day(3), &[at(1, day(0)), at(2, day(1)).bad()]), 2), [Reason::MinimumAge]);
    let old = plan(&young, day(5), &[at(1, day(0)), at(2, day(1)).bad()]);
    assert_eq!(old.verdict(2), Some(&Verdict::Expire { reason: ExpireReason::ProvenBad, since: day(4) }));
}

#[test]
fn newer_ones_expire_nothing_before_its_time() {
    let two = with(&[newest(2, Period::Every)], |builder| builder.minimum_age(age("5d")));
    let flood: Vec<_> = (0..100).map(|id| at(id, day(0) + jiff::SignedDuration::from_secs(i64::from(id)))).collect();
    assert_eq!(kept(&plan(&two, day(1), &flood)).len(), 100);
    assert_eq!(kept(&plan(&two, day(6), &flood)), [98, 99]);
    let aged = profile(&[by_age(Period::Every, "2d")]);
    assert_eq!(kept(&plan(&aged, day(1), &flood)).len(), 100);
}

#[test]
fn two_tiers_over_the_same_backups() {
    let tiers = [by_age(Period::Every, "24h"), by_age(Period::Daily, "3d")];
    let profile = profile(&tiers);
    // Hourly from 22:00 on; the third one is the first of its day.
    let backups: Vec<_> = (0..100).map(|id| at(id, hour(i64::from(id)))).collect();
    let plan = plan(&profile, minute(99 * 60 + 30), &backups);
    assert_eq!(kept(&plan)[..3], [50, 74, 76]);
    assert_eq!(kept(&plan).len(), 2 + 24);
    let tier = |index: usize| Reason::Tier { index, tier: tiers[index] };
    assert_eq!(reasons(&plan, 74), [tier(1)]);
    assert_eq!(reasons(&plan, 98), [tier(0), tier(1)]);
    assert_eq!(expires_at(&plan, 98), Some(hour(98 + 72)));
    assert_eq!(expires_at(&plan, 97), Some(hour(97 + 24)));
    assert_eq!(reasons(&plan, 99), [Reason::LastGood, tier(0)]);
    let expired = Verdict::Expire { reason: ExpireReason::NoLonger(tier(1)), since: hour(26 + 72) };
    assert_eq!(plan.verdict(26), Some(&expired));
    let expired = Verdict::Expire { reason: ExpireReason::NoLonger(tier(0)), since: hour(28 + 24) };
    assert_eq!(plan.verdict(28), Some(&expired));
}

#[test]
fn age_or_count_is_enough() {
    let tier = by_age(Period::Daily, "3d").and_count(2).unwrap();
    let both = profile(&[tier]);
    let backups: Vec<_> = (0..10).map(|id| at(id, day(i64::from(id)))).collect();
    assert_eq!(kept(&plan(&both, day(9), &backups)), [7, 8, 9]);
    assert_eq!(kept(&plan(&both, day(100), &backups)), [8, 9]);
}

#[test]
fn of_a_period_the_first_good_one_stays() {
    let monthly = profile(&[by_age(Period::Monthly, "365d")]);
    // From the 30th of January on.
    let mut backups: Vec<_> = (0..40).map(|id| at(id, day(i64::from(id)))).collect();
    assert_eq!(kept(&plan(&monthly, day(40), &backups)), [0, 2, 30, 39]);
    backups[2] = backups[2].bad();
    assert_eq!(kept(&plan(&monthly, day(40), &backups)), [0, 3, 30, 39]);
}

#[test]
fn a_long_backup_belongs_to_where_it_began() {
    let daily = profile(&[by_age(Period::Daily, "10d")]);
    // Of two that began on the same day the one that ended first stays, though it began later.
    let long = Backup::new(1, hour(3), hour(80));
    let backups = [long, at(2, hour(4)), at(3, hour(60)), at(4, hour(90))];
    assert_eq!(kept(&plan(&daily, hour(91), &backups)), [2, 3, 4]);
    // A start behind the end is not believed.
    let forged = Backup::new(1, day(5000), hour(3));
    assert_eq!(kept(&plan(&daily, hour(91), &[forged, at(2, hour(4)), at(4, hour(90))])), [1, 4]);
}

#[test]
fn the_minimum_number_stays_however_old() {
    let three = with(&[by_age(Period::Every, "1h")], |builder| builder.minimum_count(3).unwrap());
    let backups: Vec<_> = (0..6).map(|id| at(id, day(i64::from(id)))).collect();
    let plan = plan(&three, day(100), &backups);
    assert_eq!(kept(&plan), [3, 4, 5]);
    assert_eq!(reasons(&plan, 5), [Reason::LastGood, Reason::MinimumCount]);
    let expired = Verdict::Expire { reason: ExpireReason::NoLonger(Reason::MinimumCount), since: day(5) };
    assert_eq!(plan.verdict(2), Some(&expired));
}

#[test]
fn a_time_in_the_future_counts_for_nothing_until_it_has_come() {
    let one = profile(&[newest(1, Period::Every)]);
    let backups = [at(1, day(0)), at(2, day(50))];
    let early = plan(&one, day(1), &backups);
    assert_eq!(kept(&early), [1, 2]);
    assert_eq!(reasons(&early, 1), [Reason::LastGood, Reason::Tier { index: 0, tier: newest(1, Period::Every) }]);
    assert_eq!(reasons(&early, 2), [Reason::FutureTimestamp { believed_at: day(50) - backup_policy::CLOCK_TOLERANCE }]);
    assert_eq!(kept(&plan(&one, day(50), &backups)), [2]);
    // A clock that is a little ahead is believed, and what it displaces is displaced now.
    let ahead = plan(&one, day(1), &[at(1, day(0)), at(2, day(1) + jiff::SignedDuration::from_mins(9))]);
    let expired = Verdict::Expire { reason: ExpireReason::NoLonger(Reason::LastGood), since: day(1) };
    assert_eq!(ahead.verdict(1), Some(&expired));
    let nothing_believed = plan(&one, day(1), &[at(1, day(0)).bad(), at(2, day(50))]);
    assert_eq!(kept(&nothing_believed), [1, 2]);
    assert_eq!(kept(&plan(&one, day(1), &[at(1, Timestamp::MAX), at(2, Timestamp::MIN)])), [1, 2]);
}

/// Daily backups at offsets of 100 a day on one history with all of its log.
fn daily(days: u32) -> Facts<u32> {
    let offset = |day: u32| u64::from(day) * 100;
    let backups = (0..days).map(|n| at(n, day(i64::from(n))).at(on(0, offset(n)))).collect();
    let pieces: Vec<_> =
        (0..days).map(|n| piece(offset(n), offset(n + 1), day(i64::from(n)), day(i64::from(n) + 1))).collect();
    Facts { backups, logs: vec![log(0, None, &pieces)], following: None }
}

#[test]
fn a_window_keeps_the_base_before_its_start_and_all_log_since() {
    let window = with(&[newest(1, Period::Every)], |builder| builder.pitr(age("3d")));
    let now = day(10) - jiff::SignedDuration::from_hours(1);
    let plan = RetentionPlan::of(&window, now, &daily(10));
    assert_eq!(kept(&plan), [6, 7, 8, 9]);
    let lineage = LineageKey(0);
    assert_eq!(reasons(&plan, 6), [Reason::Window { lineage }]);
    assert_eq!(expires_at(&plan, 6), Some(day(10)), "when the next one ended before the window");
    let expired = Verdict::Expire { reason: ExpireReason::NoLonger(Reason::Window { lineage }), since: day(9) };
    assert_eq!(plan.verdict(5), Some(&expired));
    let decision = plan.log(lineage).unwrap();
    assert_eq!((decision.keep_from, decision.kept_bytes, decision.expired_bytes), (Some(600), 400, 600));
    let kinds: Vec<_> = decision.reasons.iter().map(|kept| (kept.reason, kept.from, kept.until)).collect();
    let window = (LogReason::Window { base: 6 }, 600, Some(day(10)));
    assert_eq!(kinds, [(LogReason::Replay { base: 9 }, 900, None), window]);
}

#[test]
fn the_first_moment_of_the_window_is_in_it() {
    let window = with(&[newest(1, Period::Every)], |builder| builder.pitr(age("3d")));
    // What a failed primary had and nobody follows; its last moment is that of day 10.
    let mut facts = daily(10);
    facts.logs.push(log(1, None, &[piece(0, 10, day(0), day(20))]));
    facts.backups.push(at(20, day(1)).at(on(1, 0)));
    let at_the_start = RetentionPlan::of(&window, day(13), &facts);
    assert_eq!((kept(&at_the_start), at_the_start.log(LineageKey(0)).unwrap().keep_from), (vec![9, 20], Some(900)));
    let later = RetentionPlan::of(&window, day(13) + jiff::SignedDuration::from_nanos(1), &facts);
    assert_eq!(later.log(LineageKey(0)).unwrap().reasons.len(), 1, "only what leads to its end");
    let reasons = reasons(&at_the_start, 9);
    assert!(reasons.contains(&Reason::Window { lineage: LineageKey(0) }), "{reasons:?}");
}

#[test]
fn without_a_window_log_is_kept_from_the_newest_backup_on() {
    let one = profile(&[newest(1, Period::Every)]);
    let plan = RetentionPlan::of(&one, day(10), &daily(10));
    assert_eq!(kept(&plan), [9]);
    assert_eq!(plan.log(LineageKey(0)).unwrap().keep_from, Some(900));
    // An older backup that stays needs no log: it is complete.
    let mut held = daily(10);
    held.backups[2].hold = true;
    assert_eq!(RetentionPlan::of(&one, day(10), &held).log(LineageKey(0)).unwrap().keep_from, Some(900));
}

#[test]
fn a_window_leads_over_a_fork_to_a_base_on_the_parent() {
    let window = with(&[newest(1, Period::Every)], |builder| builder.pitr(age("3d")));
    // The successor went on from offset 750 and has no backup yet.
    let mut facts = daily(8);
    facts.logs.push(log(1, Some((0, 750)), &[piece(750, 900, day(8), day(9))]));
    facts.following = Some(LineageKey(1));
    let plan = RetentionPlan::of(&window, day(9), &facts);
    assert_eq!(kept(&plan), [6, 7]);
    assert_eq!(plan.log(LineageKey(0)).unwrap().keep_from, Some(600));
    assert_eq!(plan.log(LineageKey(1)).unwrap().keep_from, Some(0));
    // With a backup of its own before the window's start the parent is not needed any more.
    facts.backups.push(at(20, day(9)).at(on(1, 900)));
    facts.logs[1].ranges.push(piece(900, 1300, day(9), day(13)));
    let plan = RetentionPlan::of(&window, day(13), &facts);
    assert_eq!(kept(&plan), [20]);
    assert_eq!(plan.log(LineageKey(0)).unwrap().keep_from, None);
    assert_eq!(plan.log(LineageKey(1)).unwrap().keep_from, Some(900));
}

#[test]
fn the_followed_log_keeps_its_base_though_a_newer_backup_was_orphaned() {
    let one = profile(&[newest(1, Period::Every)]);
    // Backup 7, at offset 700, is behind the fork at 650: the successor cannot be replayed from it.
    let mut facts = daily(8);
    facts.logs.push(log(1, Some((0, 650)), &[piece(650, 900, day(8), day(9))]));
    let plan = RetentionPlan::of(&one, day(9), &facts);
    assert_eq!(kept(&plan), [6, 7]);
    assert_eq!(reasons(&plan, 6), [Reason::Replay { lineage: LineageKey(1) }]);
    assert_eq!(plan.log(LineageKey(0)).unwrap().keep_from, Some(600));
    assert_eq!(plan.log(LineageKey(1)).unwrap().keep_from, Some(0));
}

#[test]
fn log_waits_for_its_first_backup() {
    let one = profile(&[newest(1, Period::Every)]);
    let facts = Facts {
        backups: Vec::<Backup<u32>>::new(),
        logs: vec![log(0, None, &[piece(5, 9, day(0), day(1))])],
        following: None,
    };
    let plan = RetentionPlan::of(&one, day(400), &facts);
    let decision = plan.log(LineageKey(0)).unwrap();
    assert_eq!((decision.keep_from, decision.reasons[0].reason), (Some(0), LogReason::NoBackupYet));
}

#[test]
fn facts_that_make_no_sense_are_planned_for() {
    let window = with(&[newest(1, Period::Every)], |builder| builder.pitr(age("3d")));
    let circle = |key: u32, parent: u32| log(key, Some((parent, 10)), &[piece(0, 20, day(0), day(1))]);
    let backups = vec![at(1, day(0)).at(on(2, 5)), at(1, day(1)).at(on(77, 5)), at(2, day(1)).at(on(5, 5))];
    let logs = vec![circle(1, 2), circle(2, 3), circle(3, 1), circle(4, 4), circle(5, 6), circle(5, 1)];
    let facts = Facts { backups, logs, following: Some(LineageKey(99)) };
    let plan = RetentionPlan::of(&window, day(1), &facts);
    assert_eq!(kept(&plan), [1, 1, 2]);
    assert_eq!(plan.logs.len(), 6);
}

#[test]
fn reasons_are_sentences() {
    let tier = by_age(Period::Daily, "14d");
    assert_eq!(Reason::Tier { index: 0, tier }.to_string(), "daily for 14d");
    assert_eq!(ExpireReason::NoLonger(Reason::Tier { index: 0, tier }).to_string(), "no longer kept as: daily for 14d");
    assert_eq!(newest(3, Period::Monthly).to_string(), "newest 3 monthly");
    let plan = plan(&profile(&[tier]), day(1), &[at(1, day(0))]);
    let Some(Verdict::Keep { reasons, .. }) = plan.verdict(1) else { panic!("not kept") };
    let text = serde_json::to_value(reasons).unwrap();
    assert_eq!(text[0], serde_json::json!({ "reason": "last_good", "until": null }));
    assert_eq!(text[1]["reason"]["tier"]["tier"], serde_json::json!({ "period": "daily", "age": "14d" }));
    assert!(matches!(reasons[1], Kept { until: Some(end), .. } if end == day(14)));
}
