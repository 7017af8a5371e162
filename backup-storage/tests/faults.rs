//! Backups and commits over a store that loses replies, stalls, refuses, lies about conflicts and dies, by seed.
//!
//! Whatever happens: a backup that was reported as committed is there and whole; one that was not is there whole or not at
//! all; nothing is ever written twice; and the next backup succeeds.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use backup_core::catalog::BackupRecord;
use backup_core::engine::Work;
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::repository::{ParentChoice, Repository as _, VerifyLevel};
use backup_core::{BackupSinkExt, Consistency, ServiceId, Snapshot};
use backup_crypto::{Identity, RawKey};
use backup_storage::fault::{Crash, DroppedAfter, FaultPlan, FaultStore, WriteOnceGuard};
use backup_storage::store::{Store, StoreSettings};
use backup_storage::{CreateOptions, Repository, RepositorySettings};

mod content;

use content::{Content, read};

/// Seeds of each test; more by `BACKUP_FAULT_SEEDS`, one by `BACKUP_FAULT_SEED`.
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("BACKUP_FAULT_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("BACKUP_FAULT_SEEDS").unwrap_or(1_000)).collect(),
    }
}

/// Some entries whose content follows from the seed and the round.
fn content(seed: u64, round: u64) -> Content {
    let mut content = Content::new();
    for (index, len) in [0_usize, 10, 5_000, 131_072, 300_000, 1_200_000].into_iter().enumerate() {
        let mut bytes = vec![0; len];
        // The first half of each entry never changes; the second half does in every round.
        let mut half = |range: std::ops::Range<usize>, round: u64| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes()).update(&round.to_le_bytes()).update(&[index as u8]);
            hasher.finalize_xof().fill(&mut bytes[range]);
        };
        half(0..len / 2, 0);
        half(len / 2..len, round);
        content.insert(format!("dir/file-{index}"), bytes);
    }
    content
}

struct World {
    guard: Arc<WriteOnceGuard>,
    faults: Arc<FaultStore>,
    store: Store,
    env: Env,
    service: ServiceId,
}

impl World {
    async fn new(seed: u64) -> Self {
        let guard = Arc::new(WriteOnceGuard::new(Arc::new(object_store::memory::InMemory::new())));
        let faults = Arc::new(FaultStore::new(Arc::clone(&guard) as _, seed, FaultPlan::quiet()));
        let env = Env::seeded(seed);
        // Every fourth writer has no patience, so that it gives up with commits whose fate it does not know.
        let patience = StoreSettings::default();
        let patience = if seed % 4 == 1 { patience.retries(0) } else { patience };
        let store = Store::from_object_store(Arc::clone(&faults) as _).with_settings(patience);
        let world =
            Self { guard, faults, store: store.with_env(env.clone()), env, service: ServiceId::new("svc").unwrap() };
        let options = CreateOptions::default();
        let recipients = vec![RawKey::take(&mut [1; 32]).into()];
        let settings = Self::settings();
        Repository::create(&world.store, world.service.clone(), recipients, options, &settings, world.env.clone())
            .await
            .unwrap();
        world
    }

    fn settings() -> RepositorySettings {
        RepositorySettings::default().workers(2).memory_budget(64 << 20)
    }

    async fn open(&self) -> backup_core::Result<Repository> {
        let identity = Identity::from(RawKey::take(&mut [1; 32]));
        let opened =
            Repository::open(&self.store, self.service.clone(), identity, &Self::settings(), self.env.clone()).await;
        Ok(opened?)
    }

    /// Takes a backup as a new process would.
    async fn backup(&self, content: &Content) -> backup_core::Result<BackupRecord> {
        let repository = self.open().await?;
        let work = Work::new(self.env.clone());
        let session = repository.begin(ParentChoice::Newest, &work).await?;
        let sink = session.sink();
        for (path, bytes) in content {
            let meta = EntryMeta::file(EntryPath::new(path.as_str())?);
            sink.put_bytes(meta, bytes.clone().into()).await?;
        }
        let now = self.env.now();
        let snapshot = Snapshot::new("test", "1", "source", "memory", Consistency::PointInTime, (now, now));
        session.commit(snapshot).await
    }

    /// The process has died and the store is well again.
    async fn recover(&self, late: bool) {
        self.faults.revive();
        self.faults.set_plan(FaultPlan::quiet());
        if late {
            self.faults.flush_late().await;
        }
    }
}

/// Lives every seed, and makes sure that the faults were worth the name: some backups were prevented, and some were not.
async fn live_all(strike: impl AsyncFn(u64, &World, &Content) -> Option<backup_core::Result<BackupRecord>>) {
    let seeds = seeds();
    let mut done = 0;
    for seed in &seeds {
        done += u64::from(live(*seed, async |world, content| strike(*seed, world, content).await).await);
    }
    assert!(
        seeds.len() < 100 || (done > 0 && done < seeds.len() as u64),
        "{done} of {} backups were taken",
        seeds.len()
    );
}

/// One life: a quiet first backup on every second seed, one that `strike` disturbs, and what is left afterwards. Whether
/// the disturbed backup was taken.
async fn live<T>(seed: u64, strike: T) -> bool
where
    T: AsyncFnOnce(&World, &Content) -> Option<backup_core::Result<BackupRecord>>,
{
    let world = World::new(seed).await;
    let mut expected = Vec::new();
    if seed.is_multiple_of(2) {
        let first = content(seed, 1);
        let record = world.backup(&first).await.unwrap();
        expected.push((record.id, first));
    }
    let attempted = content(seed, 2);
    let outcome = strike(&world, &attempted).await;
    world.recover(seed.is_multiple_of(3)).await;

    let repository = world.open().await.unwrap();
    let catalog = repository.catalog().await.unwrap();
    if let Some(Ok(record)) = &outcome {
        assert!(catalog.backup(record.id).is_some(), "seed {seed}: a committed backup is not there");
    }
    for backup in catalog.backups() {
        if !expected.iter().any(|(id, _)| *id == backup.id) {
            expected.push((backup.id, attempted.clone()));
        }
    }
    // The next one succeeds, whatever was left behind.
    let next = content(seed, 3);
    let record = world.backup(&next).await.unwrap_or_else(|e| panic!("seed {seed}: {e}: {:?}", e.causes()));
    expected.push((record.id, next));
    world.faults.flush_late().await;

    let repository = world.open().await.unwrap();
    let catalog = repository.catalog().await.unwrap();
    assert_eq!(catalog.backups().count(), expected.len(), "seed {seed}");
    for (id, content) in &expected {
        let source = repository.open(*id).await.unwrap();
        assert!(read(&*source).await == *content, "seed {seed}: backup {id} has other content");
    }
    let report = repository.verify(VerifyLevel::Full, &Work::new(world.env.clone())).await.unwrap();
    assert!(report.is_sound(), "seed {seed}: {:?}", report.damages);
    world.guard.assert_clean();
    matches!(outcome, Some(Ok(_)))
}

#[tokio::test(start_paused = true)]
async fn a_stormy_store() {
    live_all(async |seed, world, content| {
        world.faults.set_plan(FaultPlan::stormy(0.02 + (seed % 7) as f64 / 100.0));
        Some(world.backup(content).await)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_at_any_request() {
    live_all(async |seed, world, content| {
        let crash = Crash { after: seed / 4 % 24, lands: seed.is_multiple_of(2), hangs: seed % 4 < 2 };
        world.faults.crash(crash);
        tokio::select! {
            outcome = world.backup(content) => Some(outcome),
            () = world.faults.crashed() => None,
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_dropped_at_any_await() {
    live_all(async |seed, world, content| {
        world.faults.set_plan(FaultPlan::quiet().yields(3));
        DroppedAfter::new(seed % 80, world.backup(content)).await
    })
    .await;
}
