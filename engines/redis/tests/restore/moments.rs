//! Any moment of a busy server comes back, to the command: transactions and scripts whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::BackupRecord;
use backup_core::{Goal, RecoveryTarget, run};
use backup_redis::RestoreSettings;
use backup_redis::stream::stop;
use backup_testkit::wait::{self, Stopwatch};
use backup_testkit::{Redis, RedisVersion, require_or_skip};
use jiff::SignedDuration;

use crate::harness::{Vault, client, work};
use crate::ledger::{Dice, Ledger, brief_keys_are_gone, observe, prepare};

/// Seconds of load, where more is wanted than what a run of all tests has time for. The load is then 20,000 writes in a second.
const SECONDS: &str = "BACKUP_REDIS_LOAD_SECONDS";
/// Targets of each kind.
const TARGETS: usize = 10;
/// Servers that are restored into at a time.
const SERVERS: usize = 5;
/// Changes that came within 10 ms share a moment, and what we know of the source's clock is as exact as it answers on a busy machine.
const EARLY: SignedDuration = SignedDuration::from_millis(100);
/// What was on its way when the moment came counts as later; a busy machine makes that longer.
const LATE: SignedDuration = SignedDuration::from_secs(2);

/// How long, and how many writes in a second.
fn load() -> (Duration, usize) {
    match std::env::var(SECONDS) {
        Ok(text) => (Duration::from_secs(text.parse().unwrap()), 20_000),
        Err(_) => (Duration::from_secs(4), 4_000),
    }
}

/// A source that was written to while it was captured, with two backups, and the ledger of all that was written.
struct Written {
    vault: Vault,
    source: Arc<Redis>,
    ledger: Ledger,
    first: BackupRecord,
}

#[expect(clippy::print_stdout, reason = "how much it was belongs to what the test says")]
async fn write(version: RedisVersion, seed: u64) -> Option<Written> {
    let started = Redis::builder(version).raw("repl-backlog-size", "64mb").start().await;
    let source = Arc::new(require_or_skip!(started, None));
    prepare(&source).await;
    let (time, rate) = load();
    let vault = Vault::memory();
    let server = Arc::clone(&source);
    let writer = tokio::spawn(async move { Ledger::write(&server, seed, time, rate).await });
    let first = vault.backup(&source).await;
    let mut ledger = Ledger::default();
    let writing = async {
        // Later targets are reached from a backup that was taken in the middle of the load.
        let watch = Stopwatch::start();
        wait::until_async(time, || (watch.elapsed() >= time / 2).then_some(())).await;
        vault.backup(&source).await;
        ledger = writer.await.unwrap();
    };
    vault.capture(&source, writing).await;
    brief_keys_are_gone(&source).await;
    let (begin, end) = ledger.times();
    let seconds = end.duration_since(begin).as_secs_f64();
    println!("{version}: {} writes in {seconds:.1} s, {} bytes of log", ledger.writes, ledger.end());
    Some(Written { vault, source, ledger, first })
}

impl Written {
    /// Places and times, all behind the first backup.
    fn targets(&self, dice: &mut Dice) -> Vec<RecoveryTarget> {
        let from = self.first.snapshot.stop.as_ref().unwrap().offset;
        // The moment of a snapshot is told to the next second.
        let begin = self.first.snapshot.ended_at + SignedDuration::from_secs(1);
        let micros = self.ledger.times().1.duration_since(begin).as_micros() as u64;
        let mut goals = Vec::new();
        for _ in 0..TARGETS {
            let offset = from + 1 + dice.below(self.ledger.end() - from);
            goals.push(Goal::Position(offset.to_string()));
            goals.push(Goal::Time(begin + SignedDuration::from_micros(dice.below(micros) as i64)));
        }
        goals.into_iter().map(RecoveryTarget::new).collect()
    }

    /// How many units there are at `target`, for which the log is followed to `stop`.
    fn count(&self, target: &RecoveryTarget, stop: u64) -> usize {
        match &target.goal {
            Goal::Position(offset) => self.ledger.done(offset.parse().unwrap()),
            Goal::Time(time) => {
                let count = self.ledger.done(stop);
                let (last, next) = self.ledger.sent(count);
                assert!(last <= *time + EARLY, "{target} contains what was written at {last}");
                assert!(next.is_none_or(|next| next + LATE >= *time), "{target} ends before {next:?}");
                count
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn any_moment_comes_back(version: RedisVersion, seed: u64) {
    let Some(written) = write(version, seed).await else { return };
    // A server takes a second for a restore, whatever there is, so several are restored into at a time.
    let targets = futures::future::try_join_all((0..SERVERS).map(|_| Redis::builder(version).start())).await.unwrap();
    let mut plans = Vec::new();
    for (goal, target) in written.targets(&mut Dice::new(seed + 1)).into_iter().zip(targets.iter().cycle()) {
        let way = RestoreSettings::live(client(target));
        let (engine, plan) = written.vault.plan(goal, way).await.unwrap();
        let stop = stop(plan.log().unwrap(), &plan.target, None).await.unwrap();
        plans.push((written.count(&plan.target, stop.offset), target, engine, plan));
    }
    let all = written.ledger.done(u64::MAX);
    let counts = plans.iter().map(|(count, ..)| *count).chain([all]).collect();
    let states = written.ledger.states(&counts);
    assert_eq!(observe(&written.source).await, states[&all], "the ledger itself");
    for together in plans.chunks(SERVERS) {
        let restores = together.iter().map(async |(count, target, engine, plan)| {
            run::restore(engine, plan, &work()).await.unwrap();
            // Redis 6.2 tells replicas how long a key lives, not until when: from the restore on, that is.
            if !version.since_7() {
                brief_keys_are_gone(target).await;
            }
            let (there, ledger) = (observe(target).await, &states[count]);
            let wrong = ledger.iter().filter(|(key, value)| there.get(*key) != Some(*value));
            let more = there.iter().filter(|(key, _)| !ledger.contains_key(*key));
            let wrong: Vec<_> = wrong.chain(more).collect();
            assert!(wrong.is_empty(), "{version}, seed {seed}, {}, {count} units: {wrong:?}", plan.target);
        });
        futures::future::join_all(restores).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_moment_of_a_busy_redis_comes_back() {
    any_moment_comes_back(RedisVersion::Redis82, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_moment_of_a_busy_valkey_comes_back() {
    any_moment_comes_back(RedisVersion::Valkey91, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_moment_of_an_old_redis_comes_back() {
    any_moment_comes_back(RedisVersion::Redis62, 3).await;
}
