//! Two hosts that capture one log in turn and at once, each with its spool, over a vault that misbehaves, while they die anywhere.
//!
//! Whatever happens: what a host has acknowledged is stored once it has opened its spool again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use backup_core::ErrorKind;
use backup_core::engine::LogSink;
use backup_core::env::{Entropy, SeededEntropy};
use backup_core::log::Mark;
use backup_storage::fault::{Crash, DroppedAfter, FaultPlan};

use crate::host::{Vault, files, lineage, log, range};

/// Seeds of each test; more by `BACKUP_FAULT_SEEDS`, one by `BACKUP_FAULT_SEED`.
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("BACKUP_FAULT_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("BACKUP_FAULT_SEEDS").unwrap_or(30)).collect(),
    }
}

struct World {
    seed: u64,
    vault: Vault,
    dice: SeededEntropy,
    /// What each host has acknowledged.
    acknowledged: RefCell<BTreeMap<&'static str, u64>>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let vault = Vault::seeded(seed, if seed % 3 == 1 { 0 } else { 4 }).await;
        Self { seed, vault, dice: SeededEntropy::new(seed ^ 0xd1ce), acknowledged: RefCell::default() }
    }

    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.dice.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound.max(1)
    }

    fn acknowledge(&self, host: &'static str, sink: &dyn LogSink) {
        if let Some(durable) = sink.durable() {
            let mut acknowledged = self.acknowledged.borrow_mut();
            let end = acknowledged.entry(host).or_default();
            *end = durable.offset.max(*end);
        }
    }

    fn acknowledged_by(&self, host: &str) -> u64 {
        self.acknowledged.borrow().get(host).copied().unwrap_or(0)
    }

    /// Opens a writer as a new process of `host` would: everything that it has acknowledged is stored then.
    async fn open(&self, host: &'static str) -> backup_core::Result<std::sync::Arc<dyn LogSink>> {
        let before = self.acknowledged_by(host);
        let after = if self.below(3) == 0 { Duration::ZERO } else { Duration::from_millis(self.below(2000)) };
        let options = self.vault.options(host).flush_after(after).flush_bytes(1 + self.below(20_000));
        let options = if self.below(3) == 0 { options.spool_bytes(30_000) } else { options };
        let sink = self.vault.try_writer(options).await?;
        let ledger = sink.ledger();
        let covered = ledger.covered(&lineage());
        assert!(covered.contains(&(0..before)), "seed {}: {before} of {host} in {covered:?}", self.seed);
        Ok(sink)
    }

    /// One life of a writer.
    async fn life(&self, host: &'static str, steps: u64) -> backup_core::Result<()> {
        let sink = self.open(host).await?;
        let outcome = self.follow(host, sink.as_ref(), steps).await;
        self.acknowledge(host, sink.as_ref());
        outcome?;
        if self.below(2) == 0 {
            sink.close().await?;
            self.acknowledge(host, sink.as_ref());
        }
        Ok(())
    }

    async fn follow(&self, host: &'static str, sink: &dyn LogSink, steps: u64) -> backup_core::Result<()> {
        let mut at = sink.ledger().covered(&lineage()).end().unwrap_or(0);
        for _ in 0..steps {
            let next = range(at, at + 1 + self.below(if self.below(4) == 0 { 20_000 } else { 500 }));
            let (bytes, mark) = (log(&next), Mark::Commit { offset: next.end, at: self.vault.env.now() });
            at = next.end;
            sink.append(next, bytes, &[mark]).await?;
            if self.below(2) == 0 {
                sink.flush();
            }
            if self.below(3) == 0 {
                let known = sink.durable();
                if known.as_ref().is_none_or(|known| known.offset < at) {
                    sink.flush();
                    sink.advanced(known.as_ref()).await?;
                }
            }
            self.acknowledge(host, sink);
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The process has died, and the vault is well again, most times.
    async fn recover(&self) {
        self.vault.faults.revive();
        self.vault.come_back();
        if self.below(3) == 0 {
            self.vault.faults.flush_late().await;
        }
    }

    /// Every host comes back once.
    async fn assert_sound(&self) {
        let seed = self.seed;
        for host in ["a", "b"] {
            let sink = self.open(host).await.unwrap_or_else(|e| panic!("seed {seed}: {e}: {:?}", e.causes()));
            self.follow(host, sink.as_ref(), 2).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            sink.close().await.unwrap();
            assert!(files(&self.vault.spool(host)).is_empty(), "seed {seed}: {:?}", files(&self.vault.spool(host)));
        }
        self.vault.faults.flush_late().await;
        let covered = self.vault.covered().await;
        assert_eq!((covered.len(), covered[0].start), (1, 0), "seed {seed}: {covered:?}");
        self.vault.assert_reads(range(0, covered[0].end)).await;
        self.vault.guard.assert_clean();
    }
}

#[tokio::test(start_paused = true)]
async fn stormy_vaults_and_futures_that_are_dropped() {
    let mut spooled = 0;
    for seed in seeds() {
        let world = World::new(seed).await;
        for _ in 0..4 {
            let host = if world.below(3) == 0 { "b" } else { "a" };
            let plan = FaultPlan::stormy(0.01 + (seed % 5) as f64 / 100.0);
            world.vault.faults.set_plan(if world.below(2) == 0 { plan } else { FaultPlan::quiet().yields(3) });
            let polls = 20 + world.below(120);
            let outcome = DroppedAfter::new(polls, world.life(host, 12)).await;
            if let Some(Err(error)) = outcome {
                let expected = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Conflict);
                assert!(expected, "seed {seed}: {error}: {:?}", error.causes());
            }
            spooled += usize::from(world.vault.spool(host).exists() && !files(&world.vault.spool(host)).is_empty());
            world.recover().await;
        }
        world.assert_sound().await;
    }
    assert!(spooled >= seeds().len(), "{spooled} spools had something left");
}

#[tokio::test(start_paused = true)]
async fn processes_that_die_while_another_host_takes_over() {
    let (mut deaths, mut fenced) = (0, 0);
    for seed in seeds() {
        let world = World::new(seed).await;
        for _ in 0..3 {
            let after = world.below(250);
            world.vault.faults.set_plan(FaultPlan::quiet().yields(3));
            world.vault.faults.crash(Crash { after, lands: world.below(2) == 0, hangs: world.below(2) == 0 });
            let late = async {
                for _ in 0..world.below(80) {
                    tokio::task::yield_now().await;
                }
                world.life("b", 6).await
            };
            tokio::select! {
                (first, second) = futures::future::join(world.life("a", 12), late) => {
                    let conflicts = |outcome: &backup_core::Result<()>| {
                        u64::from(outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict))
                    };
                    fenced += conflicts(&first) + conflicts(&second);
                }
                () = world.vault.faults.crashed() => deaths += 1,
            }
            world.recover().await;
        }
        world.assert_sound().await;
    }
    assert!(seeds().len() < 20 || (deaths > 10 && fenced > 5), "{deaths} deaths, {fenced} fenced");
}
