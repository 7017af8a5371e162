//! The stores, the clocks and what is true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use backup_core::BackupId;
use backup_core::ServiceId;
use backup_core::engine::Work;
use backup_core::env::{Clock, Env, ManualClock, SeededEntropy};
use backup_core::repository::Repository as _;
use backup_crypto::{Identity, RawKey};
use backup_storage::fault::{FaultPlan, FaultStore, WriteOnceGuard};
use backup_storage::store::Store;
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use object_store::ObjectStore;
use parking_lot::Mutex;

use super::Outcome;
use crate::content::Content;
use crate::dated::Dated;

/// A small generator of choices.
pub(crate) struct Choices(pub(crate) u64);

impl Choices {
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    }
}

/// A clock that is wrong by as much all the time.
#[derive(Debug)]
struct Wrong {
    true_clock: Arc<ManualClock>,
    by: SignedDuration,
}

#[async_trait::async_trait]
impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        self.true_clock.now() + self.by
    }

    fn monotonic(&self) -> Duration {
        self.true_clock.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        self.true_clock.sleep(duration).await;
    }
}

/// A store that can be made to misbehave, with a clock of its own.
pub(crate) struct Place {
    guard: Arc<WriteOnceGuard>,
    faults: Arc<FaultStore>,
}

impl Place {
    fn new(seed: u64, clock: &Arc<ManualClock>) -> Self {
        let guard = Arc::new(WriteOnceGuard::new(Arc::new(object_store::memory::InMemory::new())));
        // A probe finds out whether the store keeps the first of two.
        guard.excuse("/probe/");
        let dated = Arc::new(Dated::new(Arc::clone(&guard) as _, Arc::clone(clock)));
        let faults = Arc::new(FaultStore::new(dated, seed, FaultPlan::quiet()));
        Self { guard, faults }
    }

    pub(crate) fn store(&self, env: &Env) -> Store {
        Store::from_object_store(Arc::clone(&self.faults) as _).with_env(env.clone())
    }

    /// How many objects of probes lie there.
    pub(crate) async fn probes(&self) -> u64 {
        let objects: Vec<_> = self.guard.list(Some(&"svc/probe".into())).try_collect().await.unwrap();
        objects.len() as u64
    }

    pub(crate) fn assert_clean(&self) {
        self.guard.assert_clean();
    }
}

/// What may have been committed, and what was.
#[derive(Default)]
pub(crate) struct Truth {
    /// By the file that says its name: each backup has another one.
    pub(crate) contents: BTreeMap<String, Content>,
    /// Those of which somebody was told.
    pub(crate) committed: BTreeSet<BackupId>,
    pub(crate) outcome: Outcome,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) first: Place,
    pub(crate) regions: Vec<Place>,
    pub(crate) truth: Mutex<Truth>,
    entropy: Arc<SeededEntropy>,
}

fn service() -> ServiceId {
    ServiceId::new("svc").unwrap()
}

fn key() -> RawKey {
    RawKey::take(&mut [1; 32])
}

fn settings() -> RepositorySettings {
    RepositorySettings::default().workers(1).memory_budget(64 << 20).pack_size(4 << 20)
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_second(1_767_225_600).unwrap()));
        let regions = (0..1 + seed % 2).map(|n| Place::new(seed ^ (0x5eed << n), &clock)).collect();
        let first = Place::new(seed, &clock);
        let entropy = Arc::new(SeededEntropy::new(seed));
        let world = Self { seed, clock, first, regions, truth: Mutex::default(), entropy };
        let (env, settings) = (world.env(SignedDuration::ZERO), settings());
        let (store, options) = (world.first.store(&env), CreateOptions::default());
        Repository::create(&store, service(), vec![key().into()], options, &settings, env).await.unwrap();
        world
    }

    /// The surroundings of somebody whose clock is wrong by `by`.
    pub(crate) fn env(&self, by: SignedDuration) -> Env {
        let clock = Wrong { true_clock: Arc::clone(&self.clock), by };
        Env::new(Arc::new(clock), Arc::clone(&self.entropy) as _)
    }

    /// Those of somebody, up to a day wrong.
    pub(crate) fn somebody(&self, choices: &mut Choices) -> Env {
        let seconds = i64::try_from(choices.below(2 * 86_400 + 1)).unwrap() - 86_400;
        self.env(SignedDuration::from_secs(seconds))
    }

    /// Opens the repository as another process would.
    pub(crate) async fn open(&self, place: &Place, env: &Env) -> backup_storage::error::Result<Repository> {
        let identity = Identity::from(key());
        Repository::open(&place.store(env), service(), identity, &settings(), env.clone()).await
    }

    /// From here on things go wrong.
    pub(crate) fn storm(&self) {
        let storm = |of: u64| match of % 3 {
            0 => FaultPlan::quiet().yields(8),
            1 => FaultPlan::stormy(0.005).yields(4),
            _ => FaultPlan::stormy(0.02),
        };
        self.first.faults.set_plan(storm(self.seed));
        for (n, region) in (1..).zip(&self.regions) {
            region.faults.set_plan(storm(self.seed / 3 + n));
        }
    }

    /// From here on nothing does any more.
    pub(crate) async fn calm(&self) {
        for place in self.regions.iter().chain([&self.first]) {
            place.faults.set_plan(FaultPlan::quiet());
            place.faults.revive();
            place.faults.flush_late().await;
        }
    }

    pub(crate) async fn outcome(&self) -> Outcome {
        let env = self.env(SignedDuration::ZERO);
        let catalog = self.open(&self.first, &env).await.unwrap().catalog().await.unwrap();
        let outcome = self.truth.lock().outcome;
        Outcome { kept: catalog.backups().count(), moved: catalog.moves().next().is_some(), ..outcome }
    }
}

pub(crate) fn work(env: &Env) -> Work {
    Work::new(env.clone())
}
