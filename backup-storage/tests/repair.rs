//! What damage leads to once it is known, and how a region undoes it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::BackupRecord;
use backup_core::engine::{LogOptions, Work};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::log::{LineageRecord, LogRange, Notation};
use backup_core::repository::{BackupSession, ParentChoice, Repository as _, VerifyLevel, VerifyReport};
use backup_core::{BackupSinkExt, Consistency, Lineage, ServiceId, Snapshot};
use backup_crypto::{Identity, RawKey};
use backup_storage::error::ErrorKind;
use backup_storage::store::Store;
use backup_storage::{CreateOptions, Repaired, Repository, RepositorySettings};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

mod content;

use content::{Content, read};

const MIB: u64 = 1 << 20;

/// Raw stores, and what is opened on them.
struct World {
    here: Arc<InMemory>,
    there: Arc<InMemory>,
    env: Env,
    repository: Repository,
}

fn settings() -> RepositorySettings {
    RepositorySettings::default().workers(1).memory_budget(64 << 20).pack_size(4 << 20)
}

fn service() -> ServiceId {
    ServiceId::new("svc").unwrap()
}

fn content(seed: u64, files: u64) -> Content {
    let file = |n: u64| {
        let mut bytes = vec![0; 400_000];
        let version = if n.is_multiple_of(2) { seed } else { 0 };
        blake3::Hasher::new().update(&n.to_le_bytes()).update(&version.to_le_bytes()).finalize_xof().fill(&mut bytes);
        (format!("file-{n:03}"), bytes)
    };
    (0..files).map(file).collect()
}

impl World {
    async fn new(seed: u64) -> Self {
        let (here, there, env) = (Arc::new(InMemory::new()), Arc::new(InMemory::new()), Env::seeded(seed));
        let store = Store::from_object_store(Arc::clone(&here) as _).with_env(env.clone());
        let (recipients, settings) = (vec![RawKey::take(&mut [1; 32]).into()], settings());
        let made = Repository::create(&store, service(), recipients, CreateOptions::default(), &settings, env.clone());
        let repository = made.await.unwrap();
        Self { here, there, env, repository }
    }

    /// One with two backups and some log, and a region that has all of it.
    async fn filled(seed: u64) -> (Self, [BackupRecord; 2]) {
        let world = Self::new(seed).await;
        let first = world.backup(&content(1, 12)).await;
        let second = world.backup(&content(2, 12)).await;
        world.capture(0..3).await;
        world.repository.replicate(&world.region(), &world.work()).await.unwrap();
        (world, [first, second])
    }

    fn region(&self) -> Store {
        Store::from_object_store(Arc::clone(&self.there) as _).with_env(self.env.clone())
    }

    fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    /// Opens what is stored as a process does that has seen nothing of it.
    async fn fresh(&self) -> Repository {
        let store = Store::from_object_store(Arc::clone(&self.here) as _).with_env(self.env.clone());
        let identity = Identity::from(RawKey::take(&mut [1; 32]));
        Repository::open(&store, service(), identity, &settings(), self.env.clone()).await.unwrap()
    }

    async fn begin(&self, parent: ParentChoice, content: &Content) -> Box<dyn BackupSession> {
        let session = self.repository.begin(parent, &self.work()).await.unwrap();
        for (path, bytes) in content {
            let meta = EntryMeta::file(EntryPath::new(path.as_str()).unwrap());
            session.sink().put_bytes(meta, bytes.clone().into()).await.unwrap();
        }
        session
    }

    async fn backup(&self, content: &Content) -> BackupRecord {
        let session = self.begin(ParentChoice::Newest, content).await;
        session.commit(self.snapshot().await).await.unwrap()
    }

    async fn snapshot(&self) -> Snapshot {
        self.env.clock().sleep(Duration::from_secs(10)).await;
        let now = self.env.now();
        Snapshot::new("test", "1", "source", "memory", Consistency::PointInTime, (now, now))
    }

    async fn capture(&self, pieces: std::ops::Range<u64>) {
        let sink = self.repository.open_log(LogOptions::default(), &self.work()).await.unwrap();
        let lineage = Lineage::new("1");
        if pieces.start == 0 {
            let record = LineageRecord::new(lineage.clone(), "source", Notation::Decimal, self.env.now());
            sink.declare(record).await.unwrap();
        }
        let mut known = sink.durable();
        for number in pieces {
            let range = LogRange::new(lineage.clone(), number * 100..(number + 1) * 100);
            sink.append(range, Bytes::from(vec![7; 100]), &[]).await.unwrap();
            sink.flush();
            known = sink.advanced(known.as_ref()).await.unwrap();
        }
        sink.close().await.unwrap();
    }

    /// Up to where the log is stored, which begins at 0 and has no hole before that.
    async fn covered(&self) -> Option<u64> {
        let ledger = self.fresh().await.log().await.unwrap().ledger();
        ledger.covered(&Lineage::new("1")).as_slice().first().filter(|range| range.start == 0).map(|range| range.end)
    }

    async fn verify(&self, level: VerifyLevel) -> VerifyReport {
        self.repository.verify(level, &self.work()).await.unwrap()
    }

    async fn repair(&self, level: VerifyLevel) -> Repaired {
        self.repository.repair(&self.region(), level, &self.work()).await.unwrap()
    }

    async fn put(&self, name: &str, bytes: impl Into<Bytes>) {
        self.here.put(&Path::from(format!("svc/{name}")), bytes.into().into()).await.unwrap();
    }

    async fn remove(&self, name: &str) {
        self.here.delete(&Path::from(format!("svc/{name}"))).await.unwrap();
    }

    async fn flip(&self, name: &str) {
        let mut bytes = all(&self.here).await[name].to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.put(name, bytes).await;
    }
}

/// Every object of the service, by its name in the repository.
async fn all(store: &InMemory) -> BTreeMap<String, Bytes> {
    let names: Vec<_> = store.list(Some(&Path::from("svc"))).try_collect().await.unwrap();
    let mut objects = BTreeMap::new();
    for object in names {
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        objects.insert(object.location.as_ref().strip_prefix("svc/").unwrap().to_owned(), bytes);
    }
    objects
}

fn pack(record: &BackupRecord) -> String {
    format!("packs/{}/000000", record.session)
}

#[tokio::test]
async fn every_object_comes_back_from_the_region_whatever_happened_to_it() {
    let (world, [first, second]) = World::filled(1).await;
    let before = all(&world.here).await;
    let kinds: std::collections::BTreeSet<_> = before.keys().filter_map(|name| name.split('/').next()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["catalog", "keys", "log", "packs", "repository"]);
    for name in before.keys() {
        // What tells that a session lives matters to nobody afterwards, and a witness that is gone is not missed.
        let spare = name.contains("alive-");
        for remove in [false, true] {
            match remove {
                true => world.remove(name).await,
                false => world.flip(name).await,
            }
            let repository = if name == "repository" { world.repository.clone() } else { world.fresh_or(name).await };
            let done = repository.repair(&world.region(), VerifyLevel::Full, &world.work()).await.unwrap();
            assert_eq!(done.left, [], "{name} {remove}");
            let forgiven = spare || (remove && name.ends_with("/commit"));
            assert!(forgiven || done.mended == [name.clone()], "{name} {remove}: {done:?}");
            let now = all(&world.here).await;
            let same = now.get(name) == before.get(name);
            assert!(same || forgiven, "{name} {remove}");
            if !same {
                world.put(name, before[name].clone()).await;
            }
        }
    }
    let repository = world.fresh().await;
    let report = repository.verify(VerifyLevel::Full, &world.work()).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.damages);
    assert_eq!(read(repository.open(first.id).await.unwrap().as_ref()).await, content(1, 12));
    assert_eq!(read(repository.open(second.id).await.unwrap().as_ref()).await, content(2, 12));
    assert_eq!(world.covered().await, Some(300));
}

impl World {
    /// A wrap of the only key cannot be done without.
    async fn fresh_or(&self, name: &str) -> Repository {
        if name.starts_with("keys/") { self.repository.clone() } else { self.fresh().await }
    }
}

#[tokio::test]
async fn a_store_that_brought_back_an_older_state_is_told_the_rest_by_the_region() {
    let (world, [_, second]) = World::filled(2).await;
    let before = all(&world.here).await;
    let last = before.keys().rfind(|name| name.starts_with("catalog/")).unwrap().clone();
    let pack = pack(&second);
    world.remove(&last).await;
    world.remove(&pack).await;
    let done = world.fresh().await.repair(&world.region(), VerifyLevel::Objects, &world.work()).await.unwrap();
    assert_eq!(done.mended, [last.clone(), pack.clone()]);
    // Who lost the end of the journal and wrote on has gone another way.
    for name in all(&world.here).await.into_keys().filter(|name| name.starts_with("catalog/") && *name >= last) {
        world.remove(&name).await;
    }
    let other = world.fresh().await;
    other.begin(ParentChoice::None, &world.work()).await.unwrap();
    let refused = other.repair(&world.region(), VerifyLevel::Objects, &world.work()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
}

#[tokio::test]
async fn what_the_region_has_in_no_better_state_stays_and_is_told() {
    let (world, [first, second]) = World::filled(3).await;
    for record in [&first, &second] {
        world.flip(&pack(record)).await;
    }
    let theirs = |record: &BackupRecord| Path::from(format!("svc/{}", pack(record)));
    world.there.delete(&theirs(&first)).await.unwrap();
    let mut flipped = world.there.get(&theirs(&second)).await.unwrap().bytes().await.unwrap().to_vec();
    flipped[200_000] ^= 1;
    world.there.put(&theirs(&second), flipped.into()).await.unwrap();
    let before = all(&world.here).await;
    let done = world.repair(VerifyLevel::Full).await;
    assert_eq!(done.mended, [] as [String; 0]);
    let reasons: Vec<_> = done.left.iter().map(|left| (left.damage.object.clone(), left.reason.as_str())).collect();
    assert_eq!(reasons[0], (pack(&first), "the region does not have it"));
    assert_eq!(reasons[1].0, pack(&second));
    assert!(reasons[1].1.starts_with("in the region it is no better"), "{}", reasons[1].1);
    let now = all(&world.here).await;
    assert!(before.iter().all(|(name, bytes)| now[name] == bytes), "nothing was put");
    // A region of something else is none.
    let stranger = World::new(4).await;
    stranger.repository.replicate(&stranger.region(), &stranger.work()).await.unwrap();
    let refused = world.repository.repair(&stranger.region(), VerifyLevel::Objects, &world.work()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
}

#[tokio::test]
async fn nothing_builds_on_what_is_known_to_be_damaged() {
    let (world, [first, second]) = World::filled(5).await;
    let open = world.begin(ParentChoice::Newest, &content(2, 12)).await;
    assert_eq!(open.parent().unwrap().id, second.id);
    world.flip(&pack(&second)).await;
    // Cheap levels see nothing of it, and say what others have seen.
    assert!(world.verify(VerifyLevel::Objects).await.is_sound());
    let report = world.verify(VerifyLevel::Full).await;
    assert_eq!(report.harmed(), [second.id]);
    assert_eq!(world.verify(VerifyLevel::Catalog).await.harmed(), [second.id]);
    let catalog = world.repository.catalog().await.unwrap();
    assert!(catalog.is_sound(first.id) && !catalog.is_sound(second.id));
    // Who had begun before cannot commit what it took from there.
    let refused = open.commit(world.snapshot().await).await.unwrap_err();
    assert_eq!(refused.kind(), backup_core::ErrorKind::Conflict, "{refused}");
    assert!(refused.to_string().contains("found damaged meanwhile"), "{refused}");
    let refused = world.repository.begin(ParentChoice::Backup(second.id), &world.work()).await.unwrap_err();
    assert!(refused.to_string().contains("is damaged"), "{refused}");
    // The next one stores again what was lost.
    let third = world.backup(&content(2, 12)).await;
    assert_eq!(third.parent, Some(first.id));
    assert_eq!(read(world.repository.open(third.id).await.unwrap().as_ref()).await, content(2, 12));
    let report = world.verify(VerifyLevel::Full).await;
    assert_eq!(report.harmed(), [second.id]);
    // It is mended by whoever puts the object back.
    let original = all(&world.there).await[&pack(&second)].clone();
    world.put(&pack(&second), original).await;
    assert!(world.verify(VerifyLevel::Sample(1)).await.is_sound());
    assert!(world.repository.catalog().await.unwrap().is_sound(second.id));
}

#[tokio::test]
async fn a_piece_of_log_counts_again_when_it_was_put_back() {
    let (world, _) = World::filled(6).await;
    let pieces: Vec<_> = all(&world.here).await.into_keys().filter(|name| name.starts_with("log/")).collect();
    world.flip(&pieces[1]).await;
    world.remove(&pieces[2]).await;
    assert!(!world.verify(VerifyLevel::Full).await.is_sound());
    assert_eq!(world.covered().await, Some(100));
    // Known damage is mended at every level.
    let done = world.repair(VerifyLevel::Catalog).await;
    assert_eq!(done.mended, pieces[1..]);
    assert_eq!(world.covered().await, Some(300));
    assert!(world.verify(VerifyLevel::Full).await.is_sound());
}

#[tokio::test]
async fn a_budget_reads_everything_in_turn() {
    let world = World::new(7).await;
    for seed in 1..=4 {
        world.backup(&content(seed, 12)).await;
    }
    world.capture(0..5).await;
    let stored = all(&world.here).await;
    let of =
        |start: &str| stored.keys().filter(|name| name.starts_with(start) && !name.contains("alive")).count() as u64;
    let began = world.env.now();
    let mut catalog = world.repository.catalog().await.unwrap();
    let (mut rounds, mut read) = (0, 0);
    while catalog.read_since().is_none() {
        world.env.clock().sleep(Duration::from_secs(60)).await;
        let report = world.verify(VerifyLevel::Budget(3 * MIB)).await;
        assert!(report.is_sound(), "{:?}", report.damages);
        read += report.read_bytes;
        rounds += 1;
        catalog = world.repository.catalog().await.unwrap();
        assert_eq!(report.read_since, catalog.read_since());
        assert!(rounds < of("packs/") + of("log/"), "it does not come to an end");
    }
    let total: u64 = stored.values().map(|bytes| bytes.len() as u64).sum();
    assert!(rounds > 2 && read >= total, "{rounds} rounds, {read} of {total} bytes");
    assert!(catalog.read_since().is_some_and(|since| since > began));
    // Damage in any of the packs is found before everything was read again.
    let victim = stored.keys().rfind(|name| name.ends_with("/000000")).unwrap();
    world.flip(victim).await;
    let mut found = false;
    for _ in 0..rounds {
        found |= !world.verify(VerifyLevel::Budget(3 * MIB)).await.is_sound();
    }
    assert!(found);
}
