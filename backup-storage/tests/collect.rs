//! Collection of garbage: what is freed, what stays, and what happens when others work at the same time or somebody dies.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::{Actor, BackupRecord, Event, Role};
use backup_core::engine::Work;
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::repository::{BackupSession, CollectOptions, Collected, ParentChoice, Repository as _, VerifyLevel};
use backup_core::{BackupId, BackupSinkExt, Consistency, ErrorKind, ServiceId, Snapshot};
use backup_crypto::{Identity, RawKey};
use backup_storage::fault::{Fault, FaultPlan, FaultStore, WriteOnceGuard};
use backup_storage::store::Store;
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;

mod content;

use content::{Content, read};

const KIB: usize = 1 << 10;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Files of 200 KiB whose content follows from the numbers.
fn files(numbers: impl IntoIterator<Item = u64>) -> Content {
    numbers.into_iter().enumerate().map(|(n, seed)| (format!("file-{n:03}"), noise(seed, 200 * KIB))).collect()
}

/// A vault of one service, whose store can be made to misbehave.
struct World {
    inner: Arc<object_store::memory::InMemory>,
    guard: Arc<WriteOnceGuard>,
    faults: Arc<FaultStore>,
    store: Store,
    env: Env,
    repository: Repository,
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

fn at_once() -> CollectOptions {
    CollectOptions::default().grace(Duration::ZERO)
}

fn by() -> Actor {
    Actor::new(Role::Operator, "test")
}

impl World {
    async fn new(seed: u64) -> Self {
        let inner = Arc::new(object_store::memory::InMemory::new());
        let guard = Arc::new(WriteOnceGuard::new(Arc::clone(&inner) as _));
        let faults = Arc::new(FaultStore::new(Arc::clone(&guard) as _, seed, FaultPlan::quiet()));
        let env = Env::seeded(seed);
        let store = Store::from_object_store(Arc::clone(&faults) as _).with_env(env.clone());
        let (recipients, options, settings) = (vec![key().into()], CreateOptions::default(), settings());
        let made = Repository::create(&store, service(), recipients, options, &settings, env.clone());
        let repository = made.await.unwrap();
        Self { inner, guard, faults, store, env, repository }
    }

    fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    /// Opens it as another process would.
    async fn open(&self) -> Repository {
        let identity = Identity::from(key());
        Repository::open(&self.store, service(), identity, &settings(), self.env.clone()).await.unwrap()
    }

    async fn begin(&self, parent: ParentChoice, content: &Content) -> Box<dyn BackupSession> {
        let session = self.repository.begin(parent, &self.work()).await.unwrap();
        put(session.as_ref(), content).await.unwrap();
        session
    }

    async fn commit(&self, session: Box<dyn BackupSession>) -> backup_core::Result<BackupRecord> {
        session.commit(snapshot(&self.env)).await
    }

    async fn backup(&self, content: &Content) -> BackupRecord {
        let session = self.begin(ParentChoice::Newest, content).await;
        self.commit(session).await.unwrap()
    }

    async fn expire(&self, backup: BackupId) {
        let at = self.env.now();
        let expired = Event::BackupExpired { backup, reason: "a test".to_owned(), by: by(), at };
        self.repository.decide(&mut |_| Ok(vec![expired.clone()])).await.unwrap();
    }

    async fn decide(&self, event: Event) -> backup_core::Result<()> {
        self.repository.decide(&mut |_| Ok(vec![event.clone()])).await.map(drop)
    }

    async fn collect(&self, options: &CollectOptions) -> Collected {
        self.open().await.collect(options, &self.work()).await.unwrap()
    }

    /// Bytes and names of the packs that are stored.
    async fn packs(&self) -> BTreeMap<String, u64> {
        let objects: Vec<_> = self.repository.store().list("packs").try_collect().await.unwrap();
        objects.into_iter().map(|object| (object.name.to_string(), object.size)).collect()
    }

    async fn stored(&self) -> u64 {
        self.packs().await.values().sum()
    }

    /// Every backup of the catalog is whole, by a process that knows nothing.
    async fn all_is_well(&self, expected: &[(BackupId, Content)]) {
        let repository = self.open().await;
        let report = repository.verify(VerifyLevel::Full, &self.work()).await.unwrap();
        assert!(report.is_sound(), "{:?}", report.damages);
        let catalog = repository.catalog().await.unwrap();
        let ids: Vec<_> = catalog.backups().map(|backup| backup.id).collect();
        let mut known: Vec<_> = expected.iter().map(|(id, _)| *id).collect();
        known.sort_unstable();
        assert_eq!(ids, known);
        self.guard.assert_clean();
        for (id, content) in expected {
            assert_eq!(&read(repository.open(*id).await.unwrap().as_ref()).await, content, "{id}");
        }
    }
}

async fn put(session: &dyn BackupSession, content: &Content) -> backup_core::Result<()> {
    for (path, bytes) in content {
        session.sink().put_bytes(EntryMeta::file(EntryPath::new(path.as_str())?), bytes.clone().into()).await?;
    }
    Ok(())
}

fn snapshot(env: &Env) -> Snapshot {
    let now = env.now();
    Snapshot::new("test", "1", "source", "memory", Consistency::PointInTime, (now, now))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_hardly_more_than_a_fresh_repository_would_be() {
    let world = World::new(1).await;
    // In each round a tenth of the files is other; the last backup has files of all rounds.
    let round = |n: u64| files((0..100).map(|file| if file % 10 < n { file + 1_000 * (file % 10 + 1) } else { file }));
    let mut backups = Vec::new();
    for n in 0..10 {
        backups.push(world.backup(&round(n)).await);
    }
    let last = backups.pop().unwrap();
    for backup in backups {
        world.expire(backup.id).await;
    }
    let before = world.stored().await;
    let plan = world.open().await.plan_collection(&at_once(), &world.work()).await.unwrap();
    assert!(plan.repacked > 0 && plan.repacked_bytes > plan.copied_bytes, "{plan:?}");
    assert_eq!(world.stored().await, before, "a plan changes nothing");
    let done = world.collect(&at_once()).await;
    assert_eq!((done.findings.len(), done.condemned, done.swept.as_slice()), (0, Some(1), &[1][..]), "{done:?}");
    world.all_is_well(&[(last.id, round(9))]).await;

    let fresh = World::new(2).await;
    fresh.backup(&round(9)).await;
    let (left, fresh) = (world.stored().await, fresh.stored().await);
    assert!(left as f64 <= 1.15 * fresh as f64, "{left} bytes of {before} are left, a fresh repository has {fresh}");
    // There is nothing more to be done, and what is left is still a parent.
    let again = world.collect(&at_once()).await;
    assert!(again.plan.repacked == 0 && again.plan.packs == 0, "{again:?}");
    let next = world.backup(&round(9)).await;
    assert!(next.new_bytes == 0, "{} bytes were stored again", next.new_bytes);
    world.all_is_well(&[(last.id, round(9)), (next.id, round(9))]).await;
    // Copies are copied again, and the names in manifests stay what they were.
    world.expire(last.id).await;
    let less = files((0..100).map(|file| if file % 3 == 0 { file + 1_000 * (file % 10 + 1) } else { file + 77_000 }));
    let newest = world.backup(&less).await;
    world.expire(next.id).await;
    world.collect(&at_once()).await;
    world.all_is_well(&[(newest.id, less)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_condemned_can_be_had_again_until_it_is_swept() {
    let world = World::new(3).await;
    let (old, new) = (files(0..40), files(30..70));
    let first = world.backup(&old).await;
    let second = world.backup(&new).await;
    world.expire(first.id).await;
    let done = world.collect(&CollectOptions::default()).await;
    assert_eq!((done.condemned, done.deleted), (Some(1), 0));
    let reinstated = || Event::BackupReinstated { backup: first.id, by: by(), at: world.env.now() };
    let withdrawn = || Event::CollectionWithdrawn { collection: 1, by: by(), at: world.env.now() };
    let refused = world.decide(reinstated()).await.unwrap_err();
    assert!(refused.to_string().contains("withdrawn first"), "{refused}");
    world.decide(withdrawn()).await.unwrap();
    world.decide(reinstated()).await.unwrap();
    world.all_is_well(&[(first.id, old.clone()), (second.id, new.clone())]).await;
    // What had been copied meanwhile is garbage now, and nothing else is.
    world.collect(&at_once()).await;
    world.all_is_well(&[(first.id, old), (second.id, new.clone())]).await;

    world.expire(first.id).await;
    let done = world.collect(&at_once()).await;
    assert!(done.deleted > 0, "{done:?}");
    let gone = world.decide(reinstated()).await.unwrap_err();
    assert!(gone.to_string().contains("taken away"), "{gone}");
    world.all_is_well(&[(second.id, new)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_built_on_stays() {
    let world = World::new(4).await;
    let (old, new) = (files(0..40), files((0..38).chain([900, 901])));
    let first = world.backup(&old).await;
    let under_way = world.begin(ParentChoice::Newest, &new).await;
    world.expire(first.id).await;
    let done = world.collect(&at_once()).await;
    assert_eq!(done.plan.fenced, [], "it has only begun");
    let second = world.commit(under_way).await.unwrap();
    world.all_is_well(&[(second.id, new.clone())]).await;
    world.collect(&at_once()).await;
    world.all_is_well(&[(second.id, new)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_taken_for_dead_never_commits() {
    let world = World::new(5).await;
    let first = world.backup(&files(0..10)).await;
    let zombie = world.begin(ParentChoice::Newest, &files(0..40)).await;
    let done = world.collect(&at_once().silence(Duration::ZERO)).await;
    assert_eq!(done.plan.fenced, [zombie.id()]);
    let refused = world.commit(zombie).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    // What it went on to store after it had been fenced is taken away by the next run.
    world.collect(&at_once()).await;
    let own = format!("packs/{}", first.session);
    let left = world.packs().await;
    assert!(left.keys().all(|name| name.starts_with(&own)), "{left:?}");
    world.all_is_well(&[(first.id, files(0..10))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_backup_stored_is_kept_for_the_next_one() {
    let world = World::new(6).await;
    let interrupted = world.begin(ParentChoice::None, &files(0..60)).await;
    let session = interrupted.id();
    while world.stored().await == 0 {
        tokio::task::yield_now().await;
    }
    interrupted.abort().await.unwrap();
    let kept = world.stored().await;
    assert!(kept > 0);
    world.collect(&at_once()).await;
    assert_eq!(world.stored().await, kept);
    let days = at_once().interrupted(Duration::ZERO);
    world.collect(&days).await;
    let folder = format!("packs/{session}");
    assert!(world.packs().await.keys().all(|name| !name.starts_with(&folder)));
    // Nobody builds on what was there.
    let record = world.backup(&files(0..60)).await;
    world.all_is_well(&[(record.id, files(0..60))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_may_only_add_leave_what_they_condemned() {
    let world = World::new(7).await;
    let first = world.backup(&files(0..20)).await;
    let second = world.backup(&files(100..120)).await;
    world.expire(first.id).await;
    world.faults.set_plan(FaultPlan::quiet().with(Fault::DeleteDenied, 1.0));
    let before = world.packs().await;
    let done = world.collect(&at_once()).await;
    assert_eq!((done.condemned, done.deleted, done.swept.len()), (Some(1), 0, 0));
    assert!(done.findings.iter().any(|finding| finding.code == "delete-refused"), "{done:?}");
    assert_eq!(world.packs().await, before);
    let again = world.collect(&at_once()).await;
    assert_eq!((again.condemned, again.deleted), (None, 0), "nothing is condemned twice");
    // Somebody who may comes later.
    world.faults.set_plan(FaultPlan::quiet());
    let done = world.collect(&at_once()).await;
    assert_eq!(done.swept, [1]);
    let folder = format!("packs/{}", first.session);
    assert!(world.packs().await.keys().all(|name| !name.starts_with(&folder)));
    world.all_is_well(&[(second.id, files(100..120))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_cannot_be_read_keeps_what_it_might_need() {
    let world = World::new(8).await;
    let expected = files((0..20).chain(100..120));
    let first = world.backup(&files(0..40)).await;
    let second = world.backup(&expected).await;
    world.expire(first.id).await;
    let root = object_store::path::Path::from(format!("svc/packs/{}", second.manifest.pack));
    let object = world.inner.get(&root).await.unwrap().bytes().await.unwrap();
    world.inner.delete(&root).await.unwrap();
    let done = world.collect(&at_once()).await;
    assert_eq!(done.plan.unreadable.first().map(|(id, _)| *id), Some(second.id));
    assert_eq!(done.condemned, None);
    // It is found again, and all of it is there.
    world.inner.put(&root, object.into()).await.unwrap();
    world.all_is_well(&[(second.id, expected)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_catalog_is_told_again_what_was_copied() {
    let world = World::new(10).await;
    let first = world.backup(&files(0..60)).await;
    let expected = files((0..60).map(|file| if file % 3 == 0 { file } else { file + 100 }));
    let second = world.backup(&expected).await;
    world.expire(first.id).await;
    let done = world.collect(&at_once()).await;
    assert!(done.plan.repacked > 0, "{done:?}");
    let entries: Vec<_> = world.repository.store().list("catalog").try_collect().await.unwrap();
    for entry in entries {
        world.repository.store().delete(&entry.name).await.unwrap();
    }
    let (identity, settings, work) = (Identity::from(key()), settings(), world.work());
    let salvaged = Repository::salvage(&world.store, service(), identity, &settings, world.env.clone(), &work);
    let (_, rebuilt) = salvaged.await.unwrap();
    assert_eq!(rebuilt.backups.iter().map(|backup| backup.record.id).collect::<Vec<_>>(), [second.id]);
    assert!(rebuilt.skipped.is_empty(), "{:?}", rebuilt.skipped);
    world.all_is_well(&[(second.id, expected.clone())]).await;
    world.collect(&at_once()).await;
    world.all_is_well(&[(second.id, expected)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_which_only_the_witness_tells_is_nobodys_garbage() {
    let world = World::new(11).await;
    let (old, new) = (files(0..20), files((0..18).chain([900, 901])));
    let first = world.backup(&old).await;
    let second = world.backup(&new).await;
    // The last entry is destroyed in such a way that nobody can tell it from something planted.
    let entries: Vec<_> = world.repository.store().list("catalog").try_collect().await.unwrap();
    let last = entries.iter().map(|entry| entry.name.to_string()).max().unwrap();
    let path = object_store::path::Path::from(format!("svc/{last}"));
    let mut object = world.inner.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    object[60] ^= 1;
    world.inner.put(&path, object.into()).await.unwrap();
    // Whoever comes now knows nothing of it, and lets go of what it builds on.
    let later = world.open().await;
    assert!(later.catalog().await.unwrap().backup(second.id).is_none());
    let (backup, at) = (first.id, world.env.now());
    let expired = Event::BackupExpired { backup, reason: "a test".to_owned(), by: by(), at };
    later.decide(&mut |_| Ok(vec![expired.clone()])).await.unwrap();
    let before = world.packs().await;
    for _ in 0..2 {
        let done = world.collect(&at_once().silence(Duration::ZERO)).await;
        assert_eq!(done.plan.fenced, []);
        assert!(done.findings.iter().any(|finding| finding.code == "backup-unreadable"), "{done:?}");
    }
    assert_eq!(world.packs().await, before);
    let report = world.open().await.verify(VerifyLevel::Catalog, &world.work()).await.unwrap();
    let told = report.damages.iter().any(|damage| damage.object == last && damage.backups.contains(&second.id));
    assert!(told, "{report:?}");
    let (identity, settings, work) = (Identity::from(key()), settings(), world.work());
    let salvaged = Repository::salvage(&world.store, service(), identity, &settings, world.env.clone(), &work);
    salvaged.await.unwrap();
    world.all_is_well(&[(first.id, old), (second.id, new)]).await;
}
