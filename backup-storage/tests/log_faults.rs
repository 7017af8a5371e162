//! Capturing a log over a store that loses replies, stalls, refuses, lies about conflicts and dies, by seed, with a source that
//! throws away what was acknowledged.
//!
//! Whatever happens: what was acknowledged is stored and readable, once; there is no hole; of two writers at once the older
//! acknowledges nothing that the newer does not know; nothing is ever written twice; and the next writer goes on.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::engine::{LogOptions, LogSink, LogSource, Work};
use backup_core::env::{Entropy, Env, SeededEntropy};
use backup_core::log::{LineageRecord, LogEpoch, LogRange, Mark, Notation};
use backup_core::repository::Repository as _;
use backup_core::{ErrorKind, Lineage, LogPosition, ServiceId};
use backup_crypto::{Identity, RawKey};
use backup_storage::fault::{Crash, DroppedAfter, FaultPlan, FaultStore, WriteOnceGuard};
use backup_storage::store::{Store, StoreSettings};
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use bytes::Bytes;
use futures::TryStreamExt;
use parking_lot::Mutex;

/// Seeds of each test; more by `BACKUP_FAULT_SEEDS`, one by `BACKUP_FAULT_SEED`.
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("BACKUP_FAULT_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("BACKUP_FAULT_SEEDS").unwrap_or(300)).collect(),
    }
}

struct Dice(SeededEntropy);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed ^ 0xd1ce))
    }

    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound.max(1)
    }

    fn chance(&self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

const BEGIN: u64 = 0x1_0000_0000;

fn lineage(number: u64) -> Lineage {
    Lineage::new(number.to_string())
}

fn log(number: u64, offsets: std::ops::Range<u64>) -> Bytes {
    offsets.map(|offset| (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number) >> 53) as u8).collect()
}

/// A database that keeps its log only until it is acknowledged.
#[derive(Default)]
struct Source(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// For each lineage from 1 on: where it was forked, and its end.
    lineages: Vec<(u64, u64)>,
    /// What was acknowledged, by lineage. All before is gone.
    acknowledged: BTreeMap<u64, u64>,
    /// What each writer has called durable.
    promised: BTreeMap<LogEpoch, BTreeMap<Lineage, u64>>,
}

impl Source {
    fn new() -> Self {
        let source = Self::default();
        source.0.lock().lineages.push((BEGIN, BEGIN));
        source
    }

    fn acknowledge(&self, epoch: LogEpoch, durable: Option<LogPosition>) {
        let Some(position) = durable else { return };
        let mut kept = self.0.lock();
        let number = position.lineage.as_str().parse().unwrap();
        let acknowledged = kept.acknowledged.entry(number).or_default();
        *acknowledged = (*acknowledged).max(position.offset);
        let ends = kept.promised.entry(epoch).or_default();
        let end = ends.entry(position.lineage).or_default();
        *end = (*end).max(position.offset);
    }

    fn records(&self, env: &Env) -> Vec<LineageRecord> {
        let kept = self.0.lock();
        let record = |(number, (fork, _)): (u64, &(u64, u64))| {
            let record = LineageRecord::new(lineage(number), "source", Notation::HexHalves, env.now());
            if number == 1 { record } else { record.with_fork(lineage(number - 1), *fork) }
        };
        (1..).zip(&kept.lineages).map(record).collect()
    }
}

struct World {
    seed: u64,
    guard: Arc<WriteOnceGuard>,
    faults: Arc<FaultStore>,
    store: Store,
    env: Env,
    service: ServiceId,
    source: Source,
    dice: Dice,
}

impl World {
    async fn new(seed: u64) -> Self {
        let guard = Arc::new(WriteOnceGuard::new(Arc::new(object_store::memory::InMemory::new())));
        let faults = Arc::new(FaultStore::new(Arc::clone(&guard) as _, seed, FaultPlan::quiet()));
        let env = Env::seeded(seed);
        // Every fourth store has no patience, so that the writer has to have it.
        let patience = StoreSettings::default();
        let patience = if seed % 4 == 1 { patience.retries(0) } else { patience };
        let store = Store::from_object_store(Arc::clone(&faults) as _).with_settings(patience).with_env(env.clone());
        let (source, dice) = (Source::new(), Dice::new(seed));
        let world = Self { seed, guard, faults, store, env, service: ServiceId::new("svc").unwrap(), source, dice };
        let (recipients, options) = (vec![RawKey::take(&mut [1; 32]).into()], CreateOptions::default());
        let (service, env) = (world.service.clone(), world.env.clone());
        Repository::create(&world.store, service, recipients, options, &Self::settings(), env).await.unwrap();
        world
    }

    fn settings() -> RepositorySettings {
        RepositorySettings::default().workers(1).memory_budget(64 << 20)
    }

    async fn repository(&self) -> backup_core::Result<Repository> {
        let identity = Identity::from(RawKey::take(&mut [1; 32]));
        let (service, env) = (self.service.clone(), self.env.clone());
        Ok(Repository::open(&self.store, service, identity, &Self::settings(), env).await?)
    }

    /// Opens a writer as a new process would.
    async fn writer(&self) -> backup_core::Result<Arc<dyn LogSink>> {
        let after = if self.dice.chance(3) { Duration::ZERO } else { Duration::from_millis(self.dice.below(2000)) };
        let options = LogOptions::default().flush_after(after).flush_bytes(1 + self.dice.below(60_000));
        self.repository().await?.open_log(options, &Work::new(self.env.clone())).await
    }

    /// Follows the source for a number of steps, as an engine does. Every position that the writer calls durable is one that the
    /// source may forget. `gone` is what it had forgotten before the writer was opened.
    async fn follow(&self, sink: &dyn LogSink, gone: &BTreeMap<u64, u64>, steps: u64) -> backup_core::Result<()> {
        for record in self.source.records(&self.env) {
            sink.declare(record).await?;
        }
        let ledger = sink.ledger();
        let count = self.source.0.lock().lineages.len() as u64;
        let mut at = BTreeMap::new();
        for number in 1..=count {
            let fork = self.source.0.lock().lineages[number as usize - 1].0;
            let stored = ledger.covered(&lineage(number)).end().unwrap_or(fork);
            let gone = gone.get(&number).copied().unwrap_or(fork);
            assert!(
                stored >= gone,
                "seed {}: {stored:#x} is stored of {number}, {gone:#x} was acknowledged",
                self.seed
            );
            at.insert(number, stored);
        }
        // What an earlier writer has left behind of earlier lineages comes first.
        for number in 1..count {
            let end = self.source.0.lock().lineages[number as usize - 1].1;
            let from = at[&number];
            if from < end {
                self.append(sink, number, from..end).await?;
            }
        }
        let mut from = at[&count];
        for _ in 0..steps {
            let end = {
                let mut kept = self.source.0.lock();
                let (_, end) = &mut kept.lineages[count as usize - 1];
                let size = if self.dice.chance(5) { 40_000 } else { 500 };
                *end = (*end).max(from) + 1 + self.dice.below(size);
                *end
            };
            while from < end {
                let to = end.min(from + 1 + self.dice.below(50_000));
                self.append(sink, count, from..to).await?;
                from = to;
            }
            if self.dice.chance(4) {
                let quiet = [Mark::AsOf { offset: end, at: self.env.now() }];
                sink.append(LogRange::new(lineage(count), end..end), Bytes::new(), &quiet).await?;
            }
            if self.dice.chance(2) {
                sink.flush();
            }
            if self.dice.chance(3) {
                let known = sink.durable();
                if known.as_ref().is_none_or(|k| k.lineage != lineage(count) || k.offset < end) {
                    sink.flush();
                    self.source.acknowledge(sink.epoch(), sink.advanced(known.as_ref()).await?);
                }
            }
            self.source.acknowledge(sink.epoch(), sink.durable());
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn append(&self, sink: &dyn LogSink, number: u64, offsets: std::ops::Range<u64>) -> backup_core::Result<()> {
        let mark = Mark::Commit { offset: offsets.end, at: self.env.now() };
        sink.append(LogRange::new(lineage(number), offsets.clone()), log(number, offsets), &[mark]).await
    }

    /// One life of a writer, to its orderly end.
    async fn life(&self, steps: u64) -> backup_core::Result<()> {
        let gone = self.source.0.lock().acknowledged.clone();
        let sink = self.writer().await?;
        let outcome = self.follow(sink.as_ref(), &gone, steps).await;
        self.source.acknowledge(sink.epoch(), sink.durable());
        outcome?;
        if self.dice.chance(2) {
            sink.close().await?;
            self.source.acknowledge(sink.epoch(), sink.durable());
        }
        Ok(())
    }

    /// The deployment fails over: what was not acknowledged of the old lineage may be lost.
    fn fail_over(&self) {
        let mut kept = self.source.0.lock();
        let number = kept.lineages.len() as u64;
        let (fork, end) = kept.lineages[number as usize - 1];
        let acknowledged = kept.acknowledged.get(&number).copied().unwrap_or(fork).clamp(fork, end);
        let at = acknowledged + self.dice.below(end - acknowledged + 1);
        kept.lineages[number as usize - 1].1 = at;
        kept.lineages.push((at, at));
    }

    /// The process has died and the store is well again.
    async fn recover(&self) {
        self.faults.revive();
        self.faults.set_plan(FaultPlan::quiet());
        if self.dice.chance(3) {
            self.faults.flush_late().await;
        }
    }

    /// What was promised is there, once, and the next writer goes on.
    async fn assert_sound(&self) {
        let seed = self.seed;
        let gone = self.source.0.lock().acknowledged.clone();
        let sink = self.writer().await.unwrap_or_else(|e| panic!("seed {seed}: {e}: {:?}", e.causes()));
        self.follow(sink.as_ref(), &gone, 3).await.unwrap_or_else(|e| panic!("seed {seed}: {e}: {:?}", e.causes()));
        sink.close().await.unwrap();
        self.faults.flush_late().await;

        let repository = self.repository().await.unwrap();
        let catalog = repository.catalog().await.unwrap();
        let (promised, lineages) = {
            let kept = self.source.0.lock();
            (kept.promised.clone(), kept.lineages.clone())
        };
        for (epoch, ends) in &promised {
            let sealed = catalog.log().writer(*epoch).unwrap().ends.clone();
            let sealed = sealed.unwrap_or_else(|| panic!("seed {seed}: writer {epoch} was not sealed"));
            for (lineage, end) in ends {
                let known = sealed.get(lineage).copied().unwrap_or(0);
                assert!(known >= *end, "seed {seed}: writer {epoch} promised {end:#x} and was sealed at {known:#x}");
            }
        }
        let log_source = repository.log().await.unwrap();
        let ledger = log_source.ledger();
        assert!(ledger.holes().is_empty(), "seed {seed}: {:?}", ledger.holes());
        for (number, (fork, end)) in (1..).zip(lineages) {
            if fork == end {
                continue;
            }
            // What was lost in a failover may have been stored before.
            let covered = ledger.covered(&lineage(number)).as_slice().to_vec();
            assert_eq!(covered.len(), 1, "seed {seed}: lineage {number}: {covered:x?}");
            assert!(
                covered[0].start == fork && covered[0].end >= end,
                "seed {seed}: {covered:x?} of {fork:x}..{end:x}"
            );
            self.assert_reads(log_source.as_ref(), LogRange::new(lineage(number), fork..end)).await;
        }
        self.guard.assert_clean();
    }

    async fn assert_reads(&self, source: &dyn LogSource, range: LogRange) {
        let pieces: Vec<Bytes> = source.read(range.clone()).try_collect().await.unwrap();
        let number = range.lineage.as_str().parse().unwrap();
        assert!(pieces.concat() == log(number, range.offsets()), "seed {}: {range} has other content", self.seed);
        let mut reached = range.start;
        let told: Vec<_> = source.index(range.clone()).try_collect().await.unwrap();
        for (piece, index) in told {
            assert!(piece.start <= reached, "seed {}: the index leaves out {reached:#x}", self.seed);
            reached = reached.max(piece.end);
            let inside = |offset: u64| piece.start <= offset && offset <= piece.end;
            assert!(index.samples.iter().all(|sample| inside(sample.offset)), "seed {}: {piece}", self.seed);
        }
        assert!(reached >= range.end, "seed {}: the index ends at {reached:#x}", self.seed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stormy_store() {
    let mut acknowledged = 0;
    for seed in seeds() {
        let world = World::new(seed).await;
        for round in 0..3 {
            world.faults.set_plan(FaultPlan::stormy(0.01 + (seed % 5) as f64 / 100.0));
            let outcome = world.life(12).await;
            if let Err(error) = &outcome {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "seed {seed}: {error}: {:?}", error.causes());
            }
            if round == 1 {
                world.fail_over();
            }
            world.recover().await;
        }
        acknowledged += world.source.0.lock().acknowledged.values().count();
        world.assert_sound().await;
    }
    assert!(seeds().len() < 100 || acknowledged > 100, "{acknowledged} lineages");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_at_any_request() {
    let mut deaths = 0;
    for seed in seeds() {
        let world = World::new(seed).await;
        for round in 0..3 {
            let after = world.dice.below(40);
            world.faults.crash(Crash { after, lands: world.dice.chance(2), hangs: world.dice.chance(2) });
            tokio::select! {
                outcome = world.life(12) => deaths += u64::from(outcome.is_err()),
                () = world.faults.crashed() => deaths += 1,
            }
            if round == 1 {
                world.fail_over();
            }
            world.recover().await;
        }
        world.assert_sound().await;
    }
    assert!(deaths as usize >= seeds().len(), "{deaths} deaths");
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_dropped_at_any_await() {
    for seed in seeds() {
        let world = World::new(seed).await;
        for round in 0..3 {
            world.faults.set_plan(FaultPlan::quiet().yields(3));
            let polls = world.dice.below(200);
            DroppedAfter::new(polls, world.life(12)).await;
            if round == 1 {
                world.fail_over();
            }
            world.recover().await;
        }
        world.assert_sound().await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_writers_at_once() {
    let mut fenced = 0;
    for seed in seeds() {
        let world = World::new(seed).await;
        for _ in 0..3 {
            let odds = if seed.is_multiple_of(2) { 0.0 } else { 0.01 };
            world.faults.set_plan(FaultPlan::stormy(odds).yields(5));
            let late = async {
                for _ in 0..world.dice.below(60) {
                    tokio::task::yield_now().await;
                }
                world.life(8).await
            };
            let (first, second) = futures::join!(world.life(20), late);
            for error in [first, second].into_iter().filter_map(Result::err) {
                let expected = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Unavailable);
                assert!(expected, "seed {seed}: {error}: {:?}", error.causes());
                fenced += u64::from(error.kind() == ErrorKind::Conflict);
            }
            world.recover().await;
        }
        world.assert_sound().await;
    }
    assert!(seeds().len() < 100 || fenced > 20, "{fenced} writers were fenced");
}
