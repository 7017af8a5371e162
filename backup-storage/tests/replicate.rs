//! A second region: what is there when the first one is gone, and what is told of it before.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::{Actor, BackupRecord, Event, Role};
use backup_core::engine::Work;
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::repository::{CollectOptions, ParentChoice, Repository as _, VerifyLevel};
use backup_core::{BackupId, BackupSinkExt, Consistency, ServiceId, Snapshot};
use backup_crypto::{Identity, RawKey};
use backup_storage::error::ErrorKind;
use backup_storage::fault::{DroppedAfter, Fault, FaultPlan, FaultStore, WriteOnceGuard};
use backup_storage::store::Store;
use backup_storage::{CreateOptions, Quorum, Repository, RepositorySettings};
use futures::TryStreamExt;

mod content;

use content::{Content, read};

struct World {
    here: Store,
    there: Store,
    faults: Arc<FaultStore>,
    guard: Arc<WriteOnceGuard>,
    env: Env,
    repository: Repository,
}

fn service() -> ServiceId {
    ServiceId::new("svc").unwrap()
}

fn settings() -> RepositorySettings {
    RepositorySettings::default().workers(1).memory_budget(64 << 20).pack_size(4 << 20)
}

fn content(seed: u64, files: u64) -> Content {
    let file = |n: u64| {
        let mut bytes = vec![0; 150_000];
        // Every third file is another one in each backup.
        let version = if n.is_multiple_of(3) { seed } else { 0 };
        blake3::Hasher::new().update(&n.to_le_bytes()).update(&version.to_le_bytes()).finalize_xof().fill(&mut bytes);
        (format!("file-{n:03}"), bytes)
    };
    (0..files).map(file).collect()
}

impl World {
    async fn new(seed: u64) -> Self {
        let env = Env::seeded(seed);
        let here = Store::memory().with_env(env.clone());
        let guard = Arc::new(WriteOnceGuard::new(Arc::new(object_store::memory::InMemory::new())));
        // A probe finds out whether the store keeps the first of two.
        guard.excuse("/probe/");
        let faults = Arc::new(FaultStore::new(Arc::clone(&guard) as _, seed, FaultPlan::quiet()));
        let there = Store::from_object_store(Arc::clone(&faults) as _).with_env(env.clone());
        let (recipients, settings) = (vec![RawKey::take(&mut [1; 32]).into()], settings());
        let made = Repository::create(&here, service(), recipients, CreateOptions::default(), &settings, env.clone());
        let repository = made.await.unwrap();
        Self { here, there, faults, guard, env, repository }
    }

    fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    async fn open(&self, store: &Store) -> Repository {
        let identity = Identity::from(RawKey::take(&mut [1; 32]));
        Repository::open(store, service(), identity, &settings(), self.env.clone()).await.unwrap()
    }

    async fn backup(&self, repository: &Repository, content: &Content) -> BackupRecord {
        let session = repository.begin(ParentChoice::Newest, &self.work()).await.unwrap();
        for (path, bytes) in content {
            let meta = EntryMeta::file(EntryPath::new(path.as_str()).unwrap());
            session.sink().put_bytes(meta, bytes.clone().into()).await.unwrap();
        }
        let now = self.env.now();
        let snapshot = Snapshot::new("test", "1", "source", "memory", Consistency::PointInTime, (now, now));
        session.commit(snapshot).await.unwrap()
    }

    async fn expire(&self, record: &BackupRecord) {
        let (by, at) = (Actor::new(Role::Operator, "test"), self.env.now());
        let event = Event::BackupExpired { backup: record.id, reason: "a test".to_owned(), by, at };
        self.repository.decide(&mut |_| Ok(vec![event.clone()])).await.unwrap();
    }

    async fn names(store: &Store) -> Vec<String> {
        let objects: Vec<_> = store.at("svc").unwrap().list("").try_collect().await.unwrap();
        objects.into_iter().map(|object| object.name.to_string()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_as_good_as_the_first_one_and_says_what_it_lacks() {
    let world = World::new(1).await;
    let first = world.backup(&world.repository, &content(1, 30)).await;
    let empty = world.repository.region(&world.there).await.unwrap();
    assert_eq!((empty.missing.as_slice(), empty.newest, empty.until), (&[first.id][..], None, None));
    let done = world.repository.replicate(&world.there, &world.work()).await.unwrap();
    assert_eq!((done.region.entries_behind, done.region.missing.len()), (0, 0), "{done:?}");
    let again = world.repository.replicate(&world.there, &world.work()).await.unwrap();
    assert_eq!((again.objects, again.bytes), (0, 0), "nothing is copied twice");
    let second = world.backup(&world.repository, &content(2, 30)).await;
    let state = world.repository.region(&world.there).await.unwrap();
    assert_eq!((state.missing.as_slice(), state.newest), (&[second.id][..], Some(first.id)));
    assert!(state.entries_behind > 0);
    world.repository.replicate(&world.there, &world.work()).await.unwrap();
    let third = world.backup(&world.repository, &content(3, 30)).await;

    // The first region burns down.
    let missing = world.repository.region(&world.there).await.unwrap().missing;
    assert_eq!(missing, [third.id]);
    let region = world.open(&world.there).await;
    assert_eq!(region.id(), world.repository.id());
    for (record, seed) in [(&first, 1), (&second, 2)] {
        assert_eq!(read(region.open(record.id).await.unwrap().as_ref()).await, content(seed, 30));
    }
    let report = region.verify(VerifyLevel::Full, &world.work()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.damages);
    // Nobody writes to it by mistake: neither a backup nor what a verification has found.
    let refused = region.begin(ParentChoice::Newest, &world.work()).await.unwrap_err();
    assert!(refused.to_string().contains("has to be promoted"), "{refused}");
    let done = world.repository.replicate(&world.there, &world.work()).await.unwrap();
    assert_eq!(done.region.missing, [] as [backup_core::BackupId; 0], "it still follows");
    region.promote().await.unwrap();
    // It goes on as the first region; what comes back of the old one cannot be mixed with it.
    let next = world.backup(&region, &content(4, 30)).await;
    assert_eq!(next.parent, done.region.newest);
    let refused = world.repository.replicate(&world.there, &world.work()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert_eq!(read(region.open(next.id).await.unwrap().as_ref()).await, content(4, 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_swept_goes_there_too_and_what_is_merely_missing_stays() {
    let world = World::new(2).await;
    let first = world.backup(&world.repository, &content(1, 60)).await;
    let second = world.backup(&world.repository, &content(2, 60)).await;
    world.repository.replicate(&world.there, &world.work()).await.unwrap();
    // Something is lost here.
    let lost = format!("packs/{}", second.manifest.pack);
    let name = backup_storage::store::ObjectName::new(lost.as_str()).unwrap();
    world.repository.store().delete(&name).await.unwrap();
    let done = world.repository.replicate(&world.there, &world.work()).await.unwrap();
    assert_eq!(done.deleted, 0);
    let object = world.there.at("svc").unwrap().get(&name).await.unwrap();
    assert!(world.repository.store().create(&name, object).await.unwrap().is_ours(), "it comes back from there");

    world.expire(&first).await;
    let options = CollectOptions::default().grace(Duration::ZERO).dead_percent(20);
    let collected = world.repository.collect(&options, &world.work()).await;
    assert!(collected.unwrap().plan.repacked > 0);
    let done = world.repository.replicate(&world.there, &world.work()).await.unwrap();
    assert!(done.deleted > 0, "{done:?}");
    let there = World::names(&world.there).await.into_iter().filter(|name| name != "region");
    assert_eq!(World::names(&world.here).await, there.collect::<Vec<_>>());
    let region = world.open(&world.there).await;
    assert_eq!(read(region.open(second.id).await.unwrap().as_ref()).await, content(2, 60));
    world.guard.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_is_not_written_over() {
    let (world, other) = (World::new(3).await, World::new(4).await);
    world.backup(&world.repository, &content(1, 3)).await;
    let before = World::names(&other.here).await;
    let refused = world.repository.replicate(&other.here, &world.work()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert_eq!(World::names(&other.here).await, before);
}

/// Runs that die anywhere, over a store that misbehaves, while backups and collections go on: whatever is there is a region, and one run that lives
/// makes it whole.
#[tokio::test(start_paused = true)]
async fn a_run_may_die_anywhere() {
    for seed in 0..40 {
        let world = World::new(100 + seed).await;
        let mut records = Vec::new();
        for round in 0..4 {
            records.push((world.backup(&world.repository, &content(round, 12)).await, round));
            if round == 2 {
                let (first, _) = records.remove(0);
                world.expire(&first).await;
                world
                    .repository
                    .collect(&CollectOptions::default().grace(Duration::ZERO), &world.work())
                    .await
                    .unwrap();
            }
            world.faults.set_plan(FaultPlan::stormy(0.02));
            let work = world.work();
            let run = world.repository.replicate(&world.there, &work);
            let _ = DroppedAfter::new((seed * 7 + round * 13) % 90, run).await;
            world.faults.set_plan(FaultPlan::quiet());
            world.faults.revive();
            world.faults.flush_late().await;
        }
        let done = world.repository.replicate(&world.there, &world.work()).await.unwrap();
        assert_eq!((done.region.entries_behind, done.region.missing.len()), (0, 0), "seed {seed}: {done:?}");
        let region = world.open(&world.there).await;
        for (record, round) in &records {
            assert_eq!(read(region.open(record.id).await.unwrap().as_ref()).await, content(*round, 12), "seed {seed}");
        }
        let report = region.verify(VerifyLevel::Full, &world.work()).await.unwrap();
        assert!(report.is_sound(), "seed {seed}: {:?}", report.damages);
        world.guard.assert_clean();
    }
}

/// A backup that is to be in further regions before anybody is told that it was taken.
#[tokio::test(start_paused = true)]
async fn a_quorum_is_reached_or_says_who_was_missing() {
    let world = World::new(5).await;
    let near = Store::memory().with_env(world.env.clone());
    let regions = || [("near".to_owned(), near.clone()), ("far".to_owned(), world.there.clone())];
    for (regions, needed) in [(regions().to_vec(), 0), (regions().to_vec(), 3), (vec![], 1)] {
        assert_eq!(Quorum::new(regions, needed).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let twice = [("near".to_owned(), near.clone()), ("near".to_owned(), world.there.clone())];
    assert_eq!(Quorum::new(twice, 1).unwrap_err().kind(), ErrorKind::InvalidInput);
    let (one, both) = (Quorum::new(regions(), 1).unwrap(), Quorum::new(regions(), 2).unwrap());

    let first = world.backup(&world.repository, &content(1, 12)).await;
    let held = world.repository.replicate_until(&both, first.id, &world.work()).await.unwrap();
    assert_eq!((held.held.len(), held.behind.len(), held.failed.len()), (2, 0, 0), "{held:?}");
    assert_eq!(read(world.open(&world.there).await.open(first.id).await.unwrap().as_ref()).await, content(1, 12));

    // One of them is away.
    world.faults.set_plan(FaultPlan::quiet().with(Fault::Refused, 1.0));
    let second = world.backup(&world.repository, &content(2, 12)).await;
    let missed = world.repository.replicate_until(&both, second.id, &world.work()).await.unwrap_err();
    assert_eq!(missed.kind(), ErrorKind::Unavailable, "{missed}");
    let told = missed.to_string();
    assert!(told.contains("in 1 of 2 further regions") && told.contains("far: "), "{told}");
    assert_eq!(read(world.repository.open(second.id).await.unwrap().as_ref()).await, content(2, 12), "it stays here");
    assert_eq!(read(world.open(&near).await.open(second.id).await.unwrap().as_ref()).await, content(2, 12));
    let third = world.backup(&world.repository, &content(3, 12)).await;
    let held = world.repository.replicate_until(&one, third.id, &world.work()).await.unwrap();
    assert_eq!(held.held, ["near"], "{held:?}");

    // It is back, and gets everything.
    world.faults.set_plan(FaultPlan::quiet());
    world.repository.replicate_until(&both, third.id, &world.work()).await.unwrap();
    assert_eq!(world.repository.region(&world.there).await.unwrap().missing, []);
    let unknown = BackupId::from_bytes([7; 16]);
    let refused = world.repository.replicate_until(&one, unknown, &world.work()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    // Somebody has gone on with a region: waiting for it would be in vain.
    world.open(&near).await.promote().await.unwrap();
    let apart = world.open(&near).await;
    world.backup(&apart, &content(4, 12)).await;
    let fourth = world.backup(&world.repository, &content(5, 12)).await;
    let refused = world.repository.replicate_until(&both, fourth.id, &world.work()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    world.guard.assert_clean();
}
