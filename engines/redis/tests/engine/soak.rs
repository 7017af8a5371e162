//! Connections that break at random while the server is written to: what is stored has no hole that is not written down, and nothing
//! twice, and the backups lead on to what the server holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backup_core::catalog::BackupRecord;
use backup_core::log::LogPath;
use backup_core::{LogPosition, run};
use backup_redis::stream::Framer;
use backup_testkit::redis::RedisPersistence;
use backup_testkit::wait::{self, Stopwatch};
use backup_testkit::{Redis, RedisVersion, require_or_skip};
use futures::TryStreamExt as _;

use crate::capture::assert_complete;
use crate::harness::{Capture, PATIENCE, Vault, engine, position, settings, work};

/// How many seconds, where more is wanted than what a run of all tests has time for.
const SECONDS: &str = "BACKUP_REDIS_SOAK_SECONDS";
/// Decides what happens.
const SEED: &str = "BACKUP_REDIS_SOAK_SEED";
/// The server itself counts, so that the numbers in any history of it follow each other, whatever it forgot.
const COUNT: &str = "local n=redis.call('INCR','number') redis.call('SET','k:'..(n%100),ARGV[1]) \
                     redis.call('HINCRBY','n:'..n,'x',1) redis.call('DEL','n:'..n)";
/// More than the smallest backlog keeps.
const FAR: u64 = 300_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Writes until it is told to stop, or the server ends.
struct Writer {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    async fn start(server: &Redis) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&stop);
        let mut client = server.connect().await.unwrap();
        let task = tokio::spawn(async move {
            let value = "x".repeat(200);
            let commands = vec![["EVAL", COUNT, "0", &value]; 20];
            while !end.load(Ordering::Relaxed) && client.send(&commands).await.is_ok() {
                let watch = Stopwatch::start();
                wait::until_async(PATIENCE, || (watch.elapsed() >= Duration::from_millis(10)).then_some(())).await;
            }
        });
        Self { stop, task }
    }

    async fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.task).await.unwrap();
    }
}

async fn run_on(server: &Redis, line: &str) {
    server.connect().await.unwrap().run(line).await.unwrap();
}

struct Soak {
    server: Redis,
    vault: Vault,
    capture: Capture,
    writer: Writer,
    dice: u64,
    backups: Vec<BackupRecord>,
}

impl Soak {
    async fn start(version: RedisVersion, seed: u64) -> Option<Self> {
        let builder = Redis::builder(version).persistence(RedisPersistence::Snapshots(3600));
        let server = require_or_skip!(builder.raw("repl-backlog-size", "64mb").start().await, None);
        let vault = Vault::memory();
        let backups = vec![vault.backup(&engine(&server)).await];
        let capture = Capture::start(&vault, settings(&server));
        let writer = Writer::start(&server).await;
        let dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Some(Self { server, vault, capture, writer, dice, backups })
    }

    fn below(&mut self, end: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % end
    }

    /// Lets the server be written to for a while.
    async fn pass(&mut self, most: u64) {
        let time = Duration::from_millis(self.below(most));
        let watch = Stopwatch::start();
        wait::until_async(PATIENCE, || (watch.elapsed() >= time).then_some(())).await;
    }

    /// Breaks something, and says what.
    async fn disturb(mut self) -> (Self, &'static str) {
        let what = match self.below(7) {
            0 | 1 => {
                run_on(&self.server, "CLIENT KILL TYPE replica").await;
                "cut"
            }
            2 => {
                self.server.pause();
                self.pass(500).await;
                self.server.resume();
                "hung"
            }
            3 => {
                self.capture.abort().await;
                self.capture = Capture::start(&self.vault, settings(&self.server));
                "capture killed"
            }
            4 => {
                self.writer.end().await;
                self.server.restart().await.unwrap();
                self.writer = Writer::start(&self.server).await;
                "restarted"
            }
            5 => {
                if self.below(2) == 0 {
                    // A save that a backup asked for may be going on still.
                    let ended = |running: &str| running == "0";
                    self.server.wait_info("persistence", "rdb_bgsave_in_progress", ended).await.unwrap();
                    run_on(&self.server, "SAVE").await;
                }
                self.pass(100).await;
                self.server.kill9().await;
                self.writer.end().await;
                self.server.start().await.unwrap();
                self.writer = Writer::start(&self.server).await;
                "killed"
            }
            _ => {
                self.capture.abort().await;
                run_on(&self.server, "CONFIG SET repl-backlog-size 16384").await;
                let from = position(&self.server).await.offset;
                while position(&self.server).await.offset < from + FAR {}
                self.capture = Capture::start(&self.vault, settings(&self.server));
                self.capture.finds("log-hole").await;
                run_on(&self.server, "CONFIG SET repl-backlog-size 67108864").await;
                "backlog lost"
            }
        };
        (self, what)
    }

    /// The newest backup from which the log leads to `here`. A server that was put back may have left the history of newer ones.
    async fn leading_to(&self, here: &LogPosition) -> Option<&BackupRecord> {
        for backup in self.backups.iter().rev() {
            if self.vault.path(backup).await.passes(&here.lineage, here.offset) {
                return Some(backup);
            }
        }
        None
    }

    /// Waits until the log goes on. Where no backup leads on to it, that was said, and there is a new one.
    async fn settle(&mut self, what: &str) {
        let here = position(&self.server).await;
        self.capture.reaches(&here).await;
        if self.leading_to(&here).await.is_none() {
            let found = &self.capture.found;
            assert!(found.has("log-hole"), "{what}: a hole that nobody speaks of, {found:?}");
            self.backups.push(self.vault.backup(&engine(&self.server)).await);
        }
    }

    /// All that is stored is whole, and leads to what the server holds.
    async fn finish(mut self) {
        self.writer.end().await;
        let end = position(&self.server).await;
        self.capture.reaches(&end).await;
        let backup = self.leading_to(&end).await.unwrap().clone();
        self.capture.stop().await;
        let restorable = run::windows(self.vault.0.as_ref(), None, &work()).await.unwrap();
        let unspoken: Vec<_> = restorable.holes.iter().filter(|hole| hole.reason.is_none()).collect();
        let ledger = self.vault.log().await.ledger();
        let lineages = ledger.lineages().map(|record| (&record.lineage, &record.fork, ledger.covered(&record.lineage)));
        assert!(unspoken.is_empty(), "{unspoken:?} of {:#?}", lineages.collect::<Vec<_>>());
        let mut numbers = 0;
        for timed in &restorable.windows {
            numbers += assert_numbers(&self.vault, &timed.window.path).await;
        }
        assert!(numbers > 0);
        assert_complete(&self.vault, &backup, &self.server).await;
    }
}

/// The numbers along `path` follow each other.
async fn assert_numbers(vault: &Vault, path: &LogPath) -> usize {
    let log = vault.log().await;
    let mut framer = Framer::new(path.from.offset);
    let (mut last, mut count) = (None, 0);
    for range in &path.ranges {
        let mut bytes = log.read(range.clone());
        while let Some(bytes) = bytes.try_next().await.unwrap() {
            framer
                .push(&bytes, |command| {
                    if let (b"HINCRBY", Some(number)) = (command.name, command.argument.strip_prefix(b"n:")) {
                        let number: u64 = std::str::from_utf8(number).unwrap().parse().unwrap();
                        assert!(last.is_none_or(|last| last + 1 == number), "{number} follows {last:?} in {range}");
                        (last, count) = (Some(number), count + 1);
                    }
                    Ok(())
                })
                .unwrap();
        }
    }
    count
}

#[expect(clippy::print_stdout, reason = "what happened belongs to what the test says")]
async fn soak(version: RedisVersion, seed: u64) {
    let time = Duration::from_secs(setting(SECONDS, 6));
    let Some(mut soak) = Soak::start(version, seed).await else { return };
    let watch = Stopwatch::start();
    let mut done = Vec::new();
    while watch.elapsed() < time {
        soak.pass(300).await;
        let what;
        (soak, what) = soak.disturb().await;
        soak.pass(200).await;
        soak.settle(what).await;
        done.push(what);
    }
    println!("{version}, seed {seed}: {} backups, {done:?}", soak.backups.len());
    soak.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_connections_break_at_random_is_whole() {
    let seed = setting(SEED, 1);
    tokio::join!(soak(RedisVersion::Redis74, seed), soak(RedisVersion::Valkey91, seed + 1));
}
