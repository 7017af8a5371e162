//! A repository, somebody with its keys, and hosts that have none.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::{Actor, BackupRecord, Event, Role};
use backup_core::engine::Work;
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::repository::{BackupSession, CollectOptions, Collected, ParentChoice, Repository as _, VerifyLevel};
use backup_core::{BackupId, BackupSinkExt, Consistency, ServiceId, SessionId, Snapshot};
use backup_crypto::{HostSecret, Identity, Passphrase, PassphraseParams, RawKey, Recipient, X25519SecretKey};
use backup_storage::fault::{FaultPlan, FaultStore, WriteOnceGuard};
use backup_storage::store::{ObjectName, Store, StoreSettings};
use backup_storage::{Adoption, CreateOptions, DepositRepository, HostFile, Repository, RepositorySettings};
use bytes::Bytes;
use futures::TryStreamExt;

use crate::content::{Content, read};

pub(crate) struct World {
    pub(crate) guard: WriteOnceGuard,
    pub(crate) faults: FaultStore,
    pub(crate) store: Store,
    /// The store as whoever can do anything to it sees it, at the repository's prefix.
    pub(crate) raw: Store,
    pub(crate) env: Env,
    /// As whom the repository is opened.
    owner: Arc<Identity>,
}

pub(crate) fn service() -> ServiceId {
    ServiceId::new("svc").unwrap()
}

pub(crate) fn by() -> Actor {
    Actor::new(Role::Operator, "test")
}

pub(crate) fn settings() -> RepositorySettings {
    RepositorySettings::default().workers(1).memory_budget(64 << 20).pack_size(4 << 20)
}

pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Entries of which some change in each round.
pub(crate) fn content(round: u64) -> Content {
    let mut table = noise(0, 600_000);
    table[150_000..150_008].copy_from_slice(&round.to_le_bytes());
    [("table".to_owned(), table), ("other".to_owned(), noise(1, 9_000)), ("round".to_owned(), noise(round, 300))].into()
}

pub(crate) fn at_once() -> CollectOptions {
    CollectOptions::default().grace(Duration::ZERO)
}

/// Somebody with a key of both ways.
pub(crate) fn raw(seed: u8) -> (Recipient, Identity) {
    let key = RawKey::take(&mut [seed; 32]);
    (key.clone().into(), key.into())
}

/// Somebody with a key pair.
pub(crate) fn pair(seed: u8) -> (Recipient, Identity) {
    let secret = X25519SecretKey::take(&mut [seed; 32]);
    (secret.public_key().into(), secret.into())
}

/// Somebody with a passphrase that is cheap to check.
pub(crate) fn words(words: &str) -> (Recipient, Identity) {
    let words = Passphrase::new(words).unwrap();
    (Recipient::Passphrase(words.clone(), PassphraseParams::new(64, 1, 1).unwrap()), words.into())
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        Self::of(seed, vec![raw(1)]).await
    }

    /// A repository of these people, opened as the first of them.
    pub(crate) async fn of(seed: u64, people: Vec<(Recipient, Identity)>) -> Self {
        Self::build(seed, people, true).await
    }

    /// In a store that lets what was planted be replaced.
    pub(crate) async fn replaceable(seed: u64) -> Self {
        Self::build(seed, vec![raw(1)], false).await
    }

    async fn build(seed: u64, people: Vec<(Recipient, Identity)>, write_once: bool) -> Self {
        let inner: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        let guard = WriteOnceGuard::new(Arc::clone(&inner));
        let beneath: Arc<dyn object_store::ObjectStore> =
            if write_once { Arc::new(guard.clone()) } else { Arc::clone(&inner) };
        let faults = FaultStore::new(beneath, seed, FaultPlan::quiet());
        let env = Env::seeded(seed);
        let store =
            Store::from_object_store(Arc::new(faults.clone())).with_settings(StoreSettings::default().retries(2));
        let store = store.with_env(env.clone());
        let raw = Store::from_object_store(inner).at("svc").unwrap();
        let owner = Arc::new(people[0].1.clone());
        let recipients = people.into_iter().map(|(recipient, _)| recipient).collect();
        let limits = settings();
        let made = Repository::create(&store, service(), recipients, CreateOptions::default(), &limits, env.clone());
        made.await.unwrap();
        Self { guard, faults, store, raw, env, owner }
    }

    pub(crate) fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    /// Opens it as another process with the keys would.
    pub(crate) async fn open(&self) -> Repository {
        self.open_as(&self.owner).await.unwrap()
    }

    pub(crate) async fn open_as(&self, identity: &Arc<Identity>) -> backup_core::Result<Repository> {
        let (identity, limits) = (Arc::clone(identity), settings());
        Ok(Repository::open(&self.store, service(), identity, &limits, self.env.clone()).await?)
    }

    pub(crate) async fn add_host(&self, label: &str) -> HostFile {
        let file = self.open().await.add_host(label, &by()).await.unwrap();
        // What a host has came through a file.
        HostFile::parse(&file.to_text().unwrap()).unwrap()
    }

    pub(crate) async fn host(&self, file: &HostFile, state: Option<&Path>) -> backup_core::Result<DepositRepository> {
        let limits = settings();
        Ok(DepositRepository::open(&self.store, file.clone(), state, &limits, self.env.clone()).await?)
    }

    /// Deposits `content` as another run of the host would.
    pub(crate) async fn deposit(&self, file: &HostFile, state: Option<&Path>, content: &Content) -> BackupRecord {
        self.try_deposit(file, state, content).await.unwrap()
    }

    pub(crate) async fn try_deposit(
        &self,
        file: &HostFile,
        state: Option<&Path>,
        content: &Content,
    ) -> backup_core::Result<BackupRecord> {
        let session = self.begin(file, state, content).await?;
        session.commit(self.snapshot().await).await
    }

    /// Puts `content` as another run of the host would, and does not end.
    pub(crate) async fn begin(
        &self,
        file: &HostFile,
        state: Option<&Path>,
        content: &Content,
    ) -> backup_core::Result<Box<dyn BackupSession>> {
        let host = self.host(file, state).await?;
        let session = host.begin(ParentChoice::Newest, &self.work()).await?;
        put(session.as_ref(), content).await?;
        Ok(session)
    }

    /// Ends a session that was begun.
    pub(crate) async fn end(&self, session: Box<dyn BackupSession>) -> BackupRecord {
        session.commit(self.snapshot().await).await.unwrap()
    }

    /// Each backup is newer than the one before: the clock only goes on where it is waited for.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        self.env.clock().sleep(Duration::from_secs(10)).await;
        let now = self.env.now();
        Snapshot::new("test", "1", "source", "memory", Consistency::PointInTime, (now, now))
    }

    /// Adopts what there is, over a store that may fail.
    pub(crate) async fn try_adopt(&self) -> backup_core::Result<Adoption> {
        Ok(self.open_as(&self.owner).await?.adopt_deposits(&self.work()).await?)
    }

    pub(crate) async fn adopt(&self) -> Adoption {
        self.open().await.adopt_deposits(&self.work()).await.unwrap()
    }

    /// Adopts everything, and all of it is good.
    pub(crate) async fn adopt_all(&self) -> Vec<BackupRecord> {
        let done = self.adopt().await;
        assert!(done.refused.is_empty() && done.waiting.is_empty(), "{done:?}");
        done.adopted.into_iter().map(|adopted| adopted.record).collect()
    }

    /// Adopts everything but what waits in one session.
    pub(crate) async fn adopt_all_but(&self, waits: SessionId) {
        let done = self.adopt().await;
        assert!(done.refused.is_empty() && done.waiting.iter().all(|waiting| waiting.session == waits), "{done:?}");
    }

    pub(crate) async fn backups(&self) -> Vec<BackupId> {
        self.open().await.catalog().await.unwrap().backups().map(|backup| backup.id).collect()
    }

    pub(crate) async fn expire(&self, backup: BackupId) {
        let expired = Event::BackupExpired { backup, reason: "a test".to_owned(), by: by(), at: self.env.now() };
        self.open().await.decide(&mut |_| Ok(vec![expired.clone()])).await.unwrap();
    }

    pub(crate) async fn collect(&self, options: &CollectOptions) -> Collected {
        self.open().await.collect(options, &self.work()).await.unwrap()
    }

    pub(crate) async fn assert_restores(&self, expected: &[(BackupId, &Content)]) {
        let repository = self.open().await;
        for (backup, content) in expected {
            let found = read(&*repository.open(*backup).await.unwrap()).await;
            assert!(found.keys().eq(content.keys()), "backup {backup} has {:?}", found.keys());
            for (path, bytes) in &found {
                assert!(*bytes == content[path], "{path} of backup {backup}");
            }
        }
    }

    /// What verification finds fault with.
    pub(crate) async fn faults(&self) -> Vec<(String, String)> {
        let report = self.open().await.verify(VerifyLevel::Full, &self.work()).await.unwrap();
        report.damages.into_iter().map(|damage| (damage.object, damage.problem)).collect()
    }

    pub(crate) async fn names(&self, folder: &str) -> Vec<String> {
        let objects: Vec<_> = self.raw.list(folder).try_collect().await.unwrap();
        objects.into_iter().map(|object| object.name.to_string()).collect()
    }

    pub(crate) async fn folder(&self, session: SessionId) -> Vec<String> {
        self.names(&format!("packs/{session}")).await
    }

    pub(crate) async fn get(&self, name: &str) -> Bytes {
        self.raw.get(&ObjectName::new(name).unwrap()).await.unwrap()
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.raw.delete(&ObjectName::new(name).unwrap()).await.unwrap();
    }

    pub(crate) async fn put(&self, name: &str, object: impl Into<Bytes>) {
        let object: Bytes = object.into();
        assert!(self.raw.create(&ObjectName::new(name).unwrap(), object).await.unwrap().is_ours(), "{name}");
    }

    /// Puts something else in the place of an object.
    pub(crate) async fn replace(&self, name: &str, object: impl Into<Bytes>) {
        self.delete(name).await;
        self.put(name, object).await;
    }

    pub(crate) async fn entries(&self) -> usize {
        self.names("catalog").await.len()
    }
}

pub(crate) fn deposit_of(session: SessionId) -> String {
    format!("packs/{session}/deposit")
}

pub(crate) fn answer_of(session: SessionId) -> String {
    format!("packs/{session}/answer")
}

pub(crate) async fn put(session: &dyn BackupSession, content: &Content) -> backup_core::Result<()> {
    let sink = session.sink();
    for (path, bytes) in content {
        let meta = EntryMeta::file(EntryPath::new(path.as_str())?);
        sink.put_bytes(meta, bytes.clone().into()).await?;
    }
    Ok(())
}

/// The secret of a host, as a thief reads it.
pub(crate) fn secret_of(file: &HostFile) -> HostSecret {
    let json: serde_json::Value = serde_json::from_str(&file.to_text().unwrap()).unwrap();
    json["secret"].as_str().unwrap().parse().unwrap()
}
