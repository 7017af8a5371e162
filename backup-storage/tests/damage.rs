//! What verification says about damage, and what a rebuild brings back.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::{BackupRecord, PackId};
use backup_core::engine::{BackupSinkExt, Extract, Work};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::repository::{BackupSession, ParentChoice, Repository as _, VerifyLevel, VerifyReport};
use backup_core::{BackupId, BackupSourceExt, Consistency, ErrorKind, ServiceId, Snapshot};
use backup_crypto::{Identity, RawKey, Recipient, Suite};
use backup_storage::store::Store;
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

const MIB: usize = 1 << 20;

/// A vault of one service that a test can do anything to.
struct Vault {
    inner: Arc<object_store::memory::InMemory>,
    store: Store,
    env: Env,
    repository: Repository,
}

fn service() -> ServiceId {
    ServiceId::new("pg").unwrap()
}

fn noise(seed: u8, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_derive_key("noise of tests").update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn path(name: &str) -> EntryPath {
    EntryPath::new(name).unwrap()
}

fn pack(record: &BackupRecord, number: u32) -> String {
    format!("packs/{}", PackId { session: record.session, number })
}

impl Vault {
    async fn new(keys: &[u8]) -> Self {
        let inner = Arc::new(object_store::memory::InMemory::new());
        let store = Store::from_object_store(Arc::clone(&inner) as _);
        let env = Env::seeded(11);
        let recipients: Vec<Recipient> = keys.iter().map(|key| RawKey::take(&mut [*key; 32]).into()).collect();
        let options = CreateOptions::default().suite(Suite::ChaCha20Poly1305);
        let settings = RepositorySettings::default().workers(1).pack_size(4 << 20);
        let made = Repository::create(&store, service(), recipients, options, &settings, env.clone());
        let repository = made.await.unwrap();
        Self { inner, store, env, repository }
    }

    fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    async fn reopen(&self, key: u8) -> Repository {
        let identity = Identity::from(RawKey::take(&mut [key; 32]));
        let settings = RepositorySettings::default().workers(1).pack_size(4 << 20);
        Repository::open(&self.store, service(), identity, &settings, self.env.clone()).await.unwrap()
    }

    /// A copy, opened while it was whole. What is told its catalog stays there.
    async fn twin(&self) -> Self {
        let inner = Arc::new(self.inner.fork());
        let (store, env) = (Store::from_object_store(Arc::clone(&inner) as _), self.env.clone());
        let twin = Self { inner, store, env, repository: self.repository.clone() };
        Self { repository: twin.reopen(1).await, ..twin }
    }

    async fn begin(&self, parent: ParentChoice, files: &[(&str, Bytes)]) -> Box<dyn BackupSession> {
        let session = self.repository.begin(parent, &self.work()).await.unwrap();
        let sink = session.sink();
        for (name, bytes) in files {
            sink.put_bytes(EntryMeta::file(path(name)), bytes.clone()).await.unwrap();
        }
        session
    }

    async fn backup(&self, parent: ParentChoice, files: &[(&str, Bytes)]) -> BackupRecord {
        let session = self.begin(parent, files).await;
        self.commit(session).await
    }

    async fn commit(&self, session: Box<dyn BackupSession>) -> BackupRecord {
        self.env.clock().sleep(Duration::from_secs(10)).await;
        let now = self.env.now();
        let snapshot = Snapshot::new("test", "1", "source", "none", Consistency::PointInTime, (now, now));
        session.commit(snapshot).await.unwrap()
    }

    async fn verify(&self, level: VerifyLevel) -> VerifyReport {
        self.repository.verify(level, &self.work()).await.unwrap()
    }

    /// Every object of the service, by its name in the repository.
    async fn objects(&self) -> BTreeMap<String, Bytes> {
        let mut objects = BTreeMap::new();
        let prefix = Path::from("pg");
        let names: Vec<_> = self.inner.list(Some(&prefix)).try_collect().await.unwrap();
        for object in names {
            let bytes = self.inner.get(&object.location).await.unwrap().bytes().await.unwrap();
            objects.insert(object.location.as_ref().strip_prefix("pg/").unwrap().to_owned(), bytes);
        }
        objects
    }

    async fn put(&self, name: &str, bytes: impl Into<Bytes>) {
        let bytes: Bytes = bytes.into();
        self.inner.put(&Path::from(format!("pg/{name}")), bytes.into()).await.unwrap();
    }

    async fn remove(&self, name: &str) {
        self.inner.delete(&Path::from(format!("pg/{name}"))).await.unwrap();
    }

    async fn flip(&self, name: &str, at: usize) {
        let mut bytes = self.objects().await[name].to_vec();
        bytes[at] ^= 0x10;
        self.put(name, bytes).await;
    }
}

fn problems(report: &VerifyReport) -> BTreeMap<&str, &[BackupId]> {
    report.damages.iter().map(|d| (d.object.as_str(), &d.backups[..])).collect()
}

fn small() -> [(&'static str, Bytes); 3] {
    [("a", Bytes::from_static(b"some content")), ("b/c", noise(1, 40)), ("empty", Bytes::new())]
}

/// Two backups, the second of which reuses content of the first.
async fn tiny() -> (Vault, BackupRecord, BackupRecord) {
    let vault = Vault::new(&[1]).await;
    let first = vault.backup(ParentChoice::None, &small()).await;
    let mut changed = small();
    changed[1].1 = noise(2, 50);
    let second = vault.backup(ParentChoice::Newest, &changed).await;
    assert_eq!(second.reused, [first.session]);
    (vault, first, second)
}

#[tokio::test]
async fn every_flipped_byte_is_found() {
    let (vault, first, second) = tiny().await;
    let both = [first.id, second.id];
    let sound = vault.twin().await.verify(VerifyLevel::Full).await;
    assert!(sound.is_sound() && sound.garbage_objects == 0, "{sound:?}");
    let mut flips = 0;
    for (name, bytes) in vault.objects().await {
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << (at % 8);
            let twin = vault.twin().await;
            twin.put(&name, flipped).await;
            let report = twin.verify(VerifyLevel::Full).await;
            let found = problems(&report);
            let harmed = found.get(name.as_str());
            let harmed = harmed.unwrap_or_else(|| panic!("byte {at} of {name} was not found: {report:?}"));
            match name.as_str() {
                name if name.ends_with("/commit") => assert_eq!(report.harmed(), [], "byte {at} of {name}"),
                "repository" => assert_eq!(*harmed, both, "byte {at} of {name}"),
                name if name.starts_with("keys/") => assert_eq!(*harmed, both, "byte {at} of {name}"),
                name if name.starts_with(&format!("packs/{}", second.session)) => {
                    assert_eq!(*harmed, [second.id], "byte {at} of {name}");
                }
                _ => assert!(!harmed.is_empty(), "byte {at} of {name} harms nobody"),
            }
            flips += 1;
        }
    }
    assert!(flips > 3000, "{flips} bytes were flipped");
}

#[tokio::test]
async fn objects_that_are_gone_cut_or_swapped_are_found() {
    let (vault, first, second) = tiny().await;
    let objects = vault.objects().await;
    for (name, bytes) in &objects {
        let twin = vault.twin().await;
        twin.remove(name).await;
        let report = twin.verify(VerifyLevel::Objects).await;
        // A writer may die between its commit and its witness.
        assert_eq!(report.is_sound(), name.ends_with("/commit"), "{name} is gone: {report:?}");
        assert!(report.is_sound() || problems(&report).contains_key(name.as_str()), "{name} is gone: {report:?}");
        for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            let twin = vault.twin().await;
            twin.put(name, bytes.slice(..len)).await;
            let report = twin.verify(VerifyLevel::Full).await;
            assert!(problems(&report).contains_key(name.as_str()), "{name} was cut to {len}: {report:?}");
        }
        for (other, theirs) in objects.iter().filter(|(other, _)| *other != name) {
            let twin = vault.twin().await;
            twin.put(name, theirs.clone()).await;
            let report = twin.verify(VerifyLevel::Full).await;
            assert!(problems(&report).contains_key(name.as_str()), "{other} is called {name}: {report:?}");
        }
        vault.put(name, bytes.clone()).await;
    }
    let report = vault.verify(VerifyLevel::Full).await;
    assert!(report.is_sound() && report.backups == 2 && first.id != second.id, "{report:?}");
}

#[tokio::test]
async fn only_backups_that_need_a_segment_are_harmed_by_it() {
    let vault = Vault::new(&[1]).await;
    let content = noise(1, 3 * MIB);
    let first = vault.backup(ParentChoice::None, &[("a", content.clone())]).await;
    // All of the first segment is replaced; the second and the third are shared.
    let changed = [noise(2, MIB), content.slice(MIB..)].concat();
    let second = vault.backup(ParentChoice::Newest, &[("a", changed.into())]).await;
    let third = vault.backup(ParentChoice::None, &[("b", noise(3, 100))]).await;
    let name = pack(&first, 0);
    // Header, then segments of noise, each with its tag.
    let in_segment = |segment: usize| 80 + segment * (MIB + 16) + 1000;
    for (segment, harmed) in [(0, vec![first.id]), (1, vec![first.id, second.id])] {
        vault.flip(&name, in_segment(segment)).await;
        let report = vault.verify(VerifyLevel::Full).await;
        assert_eq!(report.harmed(), harmed, "segment {segment}: {report:?}");
        assert_eq!(problems(&report).keys().collect::<Vec<_>>(), [&name], "segment {segment}");
        vault.flip(&name, in_segment(segment)).await;
    }
    // The header belongs to all that is in the pack, the third backup not among it.
    vault.flip(&name, 20).await;
    let report = vault.verify(VerifyLevel::Full).await;
    assert_eq!(report.harmed(), [first.id, second.id], "{report:?}");
    assert!(report.damages.iter().all(|d| !d.backups.contains(&third.id)));
    vault.flip(&name, 20).await;
    // What is not read is not judged, but its size is.
    let object = vault.objects().await[&name].clone();
    vault.put(&name, object.slice(..object.len() - 1)).await;
    assert!(!vault.verify(VerifyLevel::Objects).await.is_sound());
    vault.put(&name, object).await;
    assert!(vault.verify(VerifyLevel::Sample(1)).await.is_sound());
}

#[tokio::test]
async fn a_lost_end_of_the_journal_is_noticed() {
    let (vault, first, second) = tiny().await;
    let entry = |number: u32| format!("catalog/0001/{number:020}");
    // 1 begins it, 2 and 3 are the first backup, 4 and 5 the second.
    for (number, harmed) in
        [(5, vec![second.id]), (4, vec![second.id]), (3, vec![first.id, second.id]), (1, vec![first.id, second.id])]
    {
        let bytes = vault.objects().await[&entry(number)].clone();
        vault.remove(&entry(number)).await;
        let report = vault.verify(VerifyLevel::Catalog).await;
        assert_eq!(problems(&report).get(entry(number).as_str()), Some(&&harmed[..]), "{number}: {report:?}");
        vault.put(&entry(number), bytes).await;
    }
    // Whoever opens the shortened repository sees an older state, and cannot know better. Verification does.
    vault.remove(&entry(5)).await;
    let reopened = vault.reopen(1).await;
    assert_eq!(reopened.catalog().await.unwrap().backups().count(), 1);
    assert!(!reopened.verify(VerifyLevel::Catalog, &vault.work()).await.unwrap().is_sound());
    // All of it.
    for number in 1..=4 {
        vault.remove(&entry(number)).await;
    }
    let report = reopened.verify(VerifyLevel::Catalog, &vault.work()).await.unwrap();
    assert_eq!(report.harmed(), [first.id, second.id], "{report:?}");
}

#[tokio::test]
async fn a_key_that_others_have_too_harms_nobody() {
    let vault = Vault::new(&[1, 2]).await;
    let backup = vault.backup(ParentChoice::None, &small()).await;
    let keys: Vec<_> = vault.objects().await.into_keys().filter(|name| name.starts_with("keys/")).collect();
    assert_eq!(keys.len(), 2);
    vault.flip(&keys[0], 5).await;
    let report = vault.verify(VerifyLevel::Catalog).await;
    assert_eq!((report.damages.len(), report.harmed()), (1, vec![]), "{report:?}");
    vault.remove(&keys[1]).await;
    assert_eq!(vault.verify(VerifyLevel::Catalog).await.harmed(), [backup.id]);
}

#[tokio::test]
async fn garbage_is_counted_and_harms_nobody() {
    let (vault, ..) = tiny().await;
    vault.put("packs/readme", "foreign").await;
    let session = vault.begin(ParentChoice::Newest, &[("x", noise(9, 12 * MIB))]).await;
    while vault.objects().await.keys().filter(|name| name.starts_with(&format!("packs/{}", session.id()))).count() == 0
    {
        tokio::task::yield_now().await;
    }
    let report = vault.verify(VerifyLevel::Full).await;
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.garbage_objects, report.garbage_bytes), (1, 7), "what an open session owns is no garbage");
    session.abort().await.unwrap();
    let report = vault.verify(VerifyLevel::Full).await;
    assert!(report.is_sound() && report.garbage_objects > 1 && report.garbage_bytes > MIB as u64, "{report:?}");
}

async fn assert_holds(repository: &Repository, record: &BackupRecord, files: &[(&str, Bytes)]) {
    let source = repository.open(record.id).await.unwrap();
    for (name, bytes) in files {
        let read = source.read_small(&path(name), 1 << 30).await.unwrap();
        assert!(read == *bytes, "{name}");
    }
    let target = tempfile::tempdir().unwrap();
    source.extract(Extract::into_dir(target.path()), &Work::default()).await.unwrap();
    for (name, bytes) in files {
        assert!(std::fs::read(target.path().join(name)).unwrap() == *bytes, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_is_rebuilt_from_packs_and_keys() {
    let (vault, first, second) = tiny().await;
    // A backup whose content was sent by a session that never became one.
    let sent = [("big", noise(7, 20 * MIB))];
    let session = vault.begin(ParentChoice::None, &sent).await;
    let lost = session.id();
    while vault.objects().await.keys().filter(|name| name.starts_with(&format!("packs/{lost}"))).count() == 0 {
        tokio::task::yield_now().await;
    }
    session.abort().await.unwrap();
    let third = vault.backup(ParentChoice::None, &sent).await;
    assert_eq!(third.reused, [lost], "what an interrupted session sent is not sent again");
    // Complete, but nobody says that it was committed.
    let fourth = vault.backup(ParentChoice::Newest, &small()).await;
    vault.remove(&format!("packs/{}/commit", fourth.session)).await;

    for name in vault.objects().await.into_keys().filter(|name| name.starts_with("catalog/")) {
        vault.remove(&name).await;
    }
    let reopened = vault.reopen(1).await;
    assert_eq!(reopened.catalog().await.unwrap_err().kind(), ErrorKind::Damaged);
    let rebuilt = reopened.rebuild_catalog(&vault.work()).await.unwrap();
    // What once was generation 1 never is again, although nothing is left of it.
    assert_eq!((rebuilt.generation, rebuilt.skipped.len()), (2, 0), "{:?}", rebuilt.skipped);
    let found: Vec<_> = rebuilt.backups.iter().map(|b| (b.record.id, b.witnessed)).collect();
    assert_eq!(found, [(first.id, true), (second.id, true), (third.id, true), (fourth.id, false)]);
    for (found, was) in rebuilt.backups.iter().zip([&first, &second, &third, &fourth]) {
        let mut expected = was.clone();
        // The moment of the commit itself stands only in the journal.
        expected.ended_at = found.record.ended_at;
        assert_eq!(found.record, expected);
    }
    assert_holds(&reopened, &second, &[("a", small()[0].1.clone()), ("b/c", noise(2, 50))]).await;
    assert_holds(&reopened, &third, &sent).await;
    let report = reopened.verify(VerifyLevel::Full, &vault.work()).await.unwrap();
    assert!(report.is_sound() && report.backups == 4 && report.garbage_objects == 0, "{report:?}");

    // Life goes on, also for those who had the old catalog open.
    let fifth = vault.backup(ParentChoice::Newest, &small()).await;
    assert_eq!(fifth.parent, Some(fourth.id));
    // A damaged generation is succeeded by the next, and a lost pack takes its backups along.
    vault.flip(&format!("catalog/0002/{:020}", 1), 100).await;
    vault.remove(&pack(&third, third.manifest.pack.number)).await;
    let reopened = vault.reopen(1).await;
    let rebuilt = reopened.rebuild_catalog(&vault.work()).await.unwrap();
    assert_eq!((rebuilt.generation, rebuilt.backups.len()), (3, 4), "{rebuilt:?}");
    assert!(rebuilt.backups.iter().all(|b| b.record.id != third.id));
    assert_holds(&reopened, &fifth, &small()).await;
    assert!(reopened.verify(VerifyLevel::Full, &vault.work()).await.unwrap().is_sound());
}

#[tokio::test]
async fn damaged_content_never_reaches_a_target() {
    let vault = Vault::new(&[1]).await;
    let content = noise(1, 3 * MIB);
    let record = vault.backup(ParentChoice::None, &[("a", content.clone()), ("control", noise(2, 10))]).await;
    vault.flip(&pack(&record, 0), 80 + MIB + 16 + 500).await;
    let reopened = vault.reopen(1).await;
    let source = reopened.open(record.id).await.unwrap();
    let target = tempfile::tempdir().unwrap();
    let order = Extract::into_dir(target.path()).with_last([path("control")]);
    let error = source.extract(order.clone(), &vault.work()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let text = format!("{error} {:?}", error.causes());
    assert!(text.contains(&pack(&record, 0)), "{text}");
    assert!(!target.path().join("control").exists());
    let read = source.read(&path("a"), 0..content.len() as u64).try_collect::<Vec<_>>().await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Damaged);
    // Repaired, a delta completes what was begun.
    vault.flip(&pack(&record, 0), 80 + MIB + 16 + 500).await;
    let delta = order.with_existing(backup_core::engine::Existing::Delta);
    source.extract(delta, &vault.work()).await.unwrap();
    assert!(std::fs::read(target.path().join("a")).unwrap() == content);
}
