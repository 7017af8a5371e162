//! Clocks that jump, runners that sleep, ticks that come twice.

use backup_policy::{BackupTime, Due, History, Run, Schedule};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::slots::{at, schedule};

/// A runner with a clock of its own, as far from the true time as it likes.
struct Runner {
    schedule: Schedule,
    history: History,
    skew: SignedDuration,
    /// The true time at which the running backup ends, and its start by the runner's clock.
    running: Option<(Timestamp, Timestamp)>,
    /// The true times at which backups began.
    began: Vec<Timestamp>,
    length: SignedDuration,
}

impl Runner {
    fn new(schedule: Schedule) -> Self {
        let length = SignedDuration::from_mins(4);
        Self {
            schedule,
            history: History::default(),
            skew: SignedDuration::ZERO,
            running: None,
            began: Vec::new(),
            length,
        }
    }

    fn tick(&mut self, truth: Timestamp) {
        let now = truth + self.skew;
        if let Some((end, started)) = self.running
            && truth >= end
        {
            self.history = self.history.committed(Run { started, ended: now });
            self.running = None;
        }
        self.history.running = self.running.is_some();
        self.history = self.history.asked(now);
        if matches!(self.schedule.due(now, &self.history), Due::Due { .. }) {
            assert!(self.running.is_none(), "two at a time");
            self.running = Some((truth + self.length, now));
            self.began.push(truth);
        }
    }

    /// Ticks every two minutes until `end`, each time twice.
    fn run(&mut self, from: Timestamp, end: Timestamp) {
        let mut truth = from;
        while truth < end {
            self.tick(truth);
            self.tick(truth);
            truth += SignedDuration::from_mins(2);
        }
    }

    /// Each slot was served once, the first backup and the jump may have added one each.
    fn made(&self, cadence: &str, slots: i64) {
        let made = i64::try_from(self.began.len()).unwrap();
        assert!((slots..=slots + 2).contains(&made), "{cadence}: {made} of {slots}");
    }

    fn longest_gap(&self) -> SignedDuration {
        self.began.windows(2).map(|pair| pair[1].duration_since(pair[0])).max().unwrap_or(SignedDuration::ZERO)
    }
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

const START: &str = "2026-11-20T00:00:00Z";

#[test]
fn ticks_that_come_twice_begin_one_backup() {
    let mut runner = Runner::new(schedule("every 1h", None, Some(0)));
    runner.run(at(START), at(START) + hours(48));
    assert_eq!(runner.began.len(), 48, "the first one is the slot of its hour");
    assert!(runner.longest_gap() <= hours(1));
}

#[test]
fn a_runner_that_slept_for_three_days_makes_one_backup() {
    let mut runner = Runner::new(schedule("every 1h", None, Some(0)));
    runner.run(at(START), at(START) + hours(5));
    let awake = at(START) + hours(5 + 72) + SignedDuration::from_mins(10);
    let before = runner.began.len();
    runner.run(awake, awake + SignedDuration::from_mins(30));
    assert_eq!(runner.began[before..], [awake]);
    runner.run(awake + SignedDuration::from_mins(30), awake + hours(3));
    assert_eq!(runner.began.len(), before + 4);
}

#[test]
fn a_clock_that_is_a_day_ahead_for_a_while() {
    for (cadence, interval) in [("daily", 24), ("every 1h", 1)] {
        let mut runner = Runner::new(schedule(cadence, Some(3), Some(0)));
        let [wrong, right, end] = [58, 63, 200].map(|n| at(START) + hours(n));
        runner.run(at(START), wrong);
        runner.skew = hours(24);
        runner.run(wrong, right);
        runner.skew = SignedDuration::ZERO;
        runner.run(right, end);
        assert!(runner.longest_gap() <= hours(interval), "{cadence}: {:?}", runner.longest_gap());
        runner.made(cadence, (200 + interval - 3) / interval);
    }
}

#[test]
fn a_clock_that_goes_back_for_good() {
    for (cadence, interval) in [("daily", 24), ("every 1h", 1)] {
        let mut runner = Runner::new(schedule(cadence, Some(3), Some(0)));
        let [wrong, end] = [58, 200].map(|n| at(START) + hours(n));
        runner.run(at(START), wrong);
        runner.skew = -hours(24);
        runner.run(wrong, end);
        assert!(runner.longest_gap() <= hours(interval), "{cadence}: {:?}", runner.longest_gap());
        runner.made(cadence, (200 + interval - 3) / interval);
    }
}

/// A runner that does not know that time has passed waits for a slot that it sees coming.
#[test]
fn after_a_clock_went_back_a_new_runner_waits_for_the_next_slot() {
    let hourly = schedule("every 1h", None, Some(0));
    let started = at("2026-11-28T09:00:00Z");
    let history = History { last: Some(Run { started, ended: started }), ..History::default() };
    let now = at("2026-11-27T09:30:00Z");
    assert_eq!(hourly.due(now, &history), Due::NotYet { next: Some(at("2026-11-27T10:00:00Z")) });
    let history = history.asked(now);
    let slot = at("2026-11-27T10:00:00Z");
    assert_eq!(hourly.due(slot, &history), Due::Due { slot, since: slot });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_jump_loses_or_doubles(hour in prop::option::of(0..24_i64), cadence in prop_oneof![Just(("daily", 24)), Just(("every 3h", 3)), Just(("every 1h", 1))], jumps in prop::collection::vec((1..2400_i64, -1440..=1440_i64, 0..4320_i64), 1..6)) {
        let (cadence, interval) = cadence;
        let schedule = Schedule::new(cadence.parse().unwrap(), BackupTime::new(hour, None).unwrap(), "service").unwrap();
        let mut runner = Runner::new(schedule);
        let mut truth = at(START);
        let (mut awake, mut slept) = (SignedDuration::ZERO, SignedDuration::ZERO);
        let count = i64::try_from(jumps.len()).unwrap();
        for (minutes, skew, sleep) in jumps {
            let end = truth + SignedDuration::from_mins(minutes);
            runner.run(truth, end);
            awake += SignedDuration::from_mins(minutes);
            let sleep = SignedDuration::from_mins(sleep);
            slept += sleep;
            truth = end + sleep;
            runner.skew = SignedDuration::from_mins(skew);
        }
        // A jump may come just before a slot or carry the clock over it, so that one interval is added to the one that ran. A clock
        // that is behind does not know that its runner slept, so sleeps with little time awake between them add up.
        let gap = runner.longest_gap();
        prop_assert!(gap <= hours(interval) * 2 + slept + SignedDuration::from_mins(4), "{gap:?}");
        let made = i64::try_from(runner.began.len()).unwrap();
        let most = awake.as_secs() / (interval * 3600) + 1 + 2 * count;
        prop_assert!(made <= most, "{made} of {most}");
    }
}
