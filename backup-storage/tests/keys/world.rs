//! A repository whose keys change, and the people who have them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::{Actor, BackupRecord, Role};
use backup_core::engine::{LogOptions, Work};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::log::{LineageRecord, LogRange, Notation};
use backup_core::repository::{CollectOptions, Collected, ParentChoice, Repository as _, VerifyLevel, VerifyReport};
use backup_core::{BackupSinkExt, Consistency, Lineage, ServiceId, Snapshot};
use backup_crypto::{Identity, Passphrase, PassphraseParams, RawKey, Recipient, RecipientId, X25519SecretKey};
use backup_storage::fault::{FaultPlan, FaultStore, WriteOnceGuard};
use backup_storage::store::{ObjectName, Store, StoreSettings};
use backup_storage::{AddRecipient, ChangedKeys, CreateOptions, KeyHolder, Repository, RepositorySettings};
use bytes::Bytes;
use futures::TryStreamExt;

use crate::content::{Content, read};

/// Somebody with a key.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) identity: Arc<Identity>,
    recipient: Recipient,
}

impl Person {
    /// With a key pair.
    pub(crate) fn pair(seed: u8) -> Self {
        let secret = X25519SecretKey::take(&mut [seed; 32]);
        Self { recipient: secret.public_key().into(), identity: Arc::new(secret.into()) }
    }

    /// With a key of both ways.
    pub(crate) fn raw(seed: u8) -> Self {
        let key = RawKey::take(&mut [seed; 32]);
        Self { recipient: key.clone().into(), identity: Arc::new(key.into()) }
    }

    /// With a passphrase that is cheap to check.
    pub(crate) fn passphrase(words: &str) -> Self {
        let words = Passphrase::new(words).unwrap();
        let cheap = PassphraseParams::new(64, 1, 1).unwrap();
        Self { recipient: Recipient::Passphrase(words.clone(), cheap), identity: Arc::new(words.into()) }
    }

    pub(crate) fn holder(&self) -> KeyHolder {
        KeyHolder::Recipient(self.recipient.clone())
    }

    pub(crate) fn recipient(&self) -> Recipient {
        self.recipient.clone()
    }

    /// The name of a key.
    pub(crate) fn id(&self) -> RecipientId {
        self.recipient.stable_id().unwrap()
    }
}

/// Entries of which one changes in each round.
pub(crate) fn content(round: u64) -> Content {
    let noise = |seed: u64, len: usize| {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    };
    let mut table = noise(0, 400_000);
    table[150_000..150_008].copy_from_slice(&round.to_le_bytes());
    [("table".to_owned(), table), ("other".to_owned(), noise(1, 9_000)), ("round".to_owned(), noise(round, 300))].into()
}

pub(crate) struct World {
    pub(crate) guard: WriteOnceGuard,
    pub(crate) faults: FaultStore,
    /// The store as whoever can do anything to it sees it.
    pub(crate) raw: Store,
    pub(crate) store: Store,
    pub(crate) env: Env,
}

pub(crate) fn service() -> ServiceId {
    ServiceId::new("svc").unwrap()
}

pub(crate) fn lineage() -> Lineage {
    Lineage::new("1")
}

pub(crate) fn log_bytes(range: std::ops::Range<u64>) -> Bytes {
    range.map(|offset| (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51) as u8).collect()
}

impl World {
    pub(crate) async fn new(seed: u64, people: &[&Person]) -> Self {
        let inner: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        let guard = WriteOnceGuard::new(Arc::clone(&inner));
        let faults = FaultStore::new(Arc::new(guard.clone()), seed, FaultPlan::quiet());
        let env = Env::seeded(seed);
        let store =
            Store::from_object_store(Arc::new(faults.clone())).with_settings(StoreSettings::default().retries(2));
        let store = store.with_env(env.clone());
        let raw = Store::from_object_store(inner).at("svc").unwrap();
        let recipients = people.iter().map(|person| person.recipient()).collect();
        let (options, settings) = (CreateOptions::default(), Self::settings());
        Repository::create(&store, service(), recipients, options, &settings, env.clone()).await.unwrap();
        Self { guard, faults, raw, store, env }
    }

    pub(crate) fn settings() -> RepositorySettings {
        RepositorySettings::default().workers(1).memory_budget(64 << 20)
    }

    pub(crate) fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    pub(crate) async fn open(&self, as_whom: &Person) -> backup_core::Result<Repository> {
        let identity = Arc::clone(&as_whom.identity);
        let opened = Repository::open(&self.store, service(), identity, &Self::settings(), self.env.clone()).await;
        Ok(opened?)
    }

    /// Whether somebody can open what there is.
    pub(crate) async fn lets_in(&self, person: &Person) -> bool {
        match self.open(person).await {
            Ok(repository) => repository.catalog().await.is_ok(),
            Err(_) => false,
        }
    }

    pub(crate) async fn add(&self, by: &Repository, new: &Person) -> backup_core::Result<ChangedKeys> {
        let added = by.add_recipient(&new.holder(), &AddRecipient::default(), &actor(), &self.work()).await;
        Ok(added?)
    }

    pub(crate) async fn remove(
        &self,
        by: &Repository,
        id: &RecipientId,
        given: &[KeyHolder],
    ) -> backup_core::Result<ChangedKeys> {
        Ok(by.remove_recipient(id, given, &actor(), &self.work()).await?)
    }

    pub(crate) async fn rotate(&self, by: &Repository, given: &[KeyHolder]) -> backup_core::Result<ChangedKeys> {
        Ok(by.rotate_keys(given, &actor(), &self.work()).await?)
    }

    /// Seals up to `bytes` of packs of earlier epochs anew, and takes away what was copied.
    pub(crate) async fn reseal(&self, by: &Repository, bytes: u64) -> backup_core::Result<Collected> {
        let options = CollectOptions::default().grace(Duration::ZERO).reseal(bytes);
        by.collect(&options, &self.work()).await
    }

    pub(crate) async fn backup(&self, by: &Repository, content: &Content) -> backup_core::Result<BackupRecord> {
        let session = by.begin(ParentChoice::Newest, &self.work()).await?;
        put(&*session, content).await?;
        session.commit(self.snapshot().await).await
    }

    /// Each backup is newer than the one before: the clock only goes on where it is waited for.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        self.env.clock().sleep(Duration::from_secs(10)).await;
        let now = self.env.now();
        Snapshot::new("test", "1", "source", "memory", Consistency::PointInTime, (now, now))
    }

    /// Appends to the log as a writer that is opened for it.
    pub(crate) async fn log(&self, by: &Repository, range: std::ops::Range<u64>) -> backup_core::Result<()> {
        let sink = by.open_log(LogOptions::default(), &self.work()).await?;
        sink.declare(LineageRecord::new(lineage(), "source", Notation::Decimal, self.env.now())).await?;
        sink.append(LogRange::new(lineage(), range.clone()), log_bytes(range), &[]).await?;
        sink.close().await.map(drop)
    }

    pub(crate) async fn assert_restores(&self, by: &Repository, expected: &[(BackupRecord, Content)], log: u64) {
        for (record, content) in expected {
            let source = by.open(record.id).await.unwrap();
            let found = read(&*source).await;
            assert!(found.keys().eq(content.keys()), "backup {} has {:?}", record.id, found.keys());
            for (path, bytes) in &found {
                let differs = bytes.iter().zip(&content[path]).position(|(a, b)| a != b);
                assert_eq!(differs, None, "{path} of backup {} ({} bytes)", record.id, bytes.len());
                assert_eq!(bytes.len(), content[path].len(), "{path} of backup {}", record.id);
            }
        }
        if log > 0 {
            let source = by.log().await.unwrap();
            let pieces: Vec<Bytes> = source.read(LogRange::new(lineage(), 0..log)).try_collect().await.unwrap();
            assert!(pieces.concat() == log_bytes(0..log));
        }
    }

    pub(crate) async fn verify(&self, by: &Repository) -> VerifyReport {
        by.verify(VerifyLevel::Full, &self.work()).await.unwrap()
    }

    /// The objects that verification finds fault with.
    pub(crate) async fn faults(&self, by: &Repository) -> Vec<(String, String)> {
        let report = self.verify(by).await;
        report.damages.into_iter().map(|damage| (damage.object, damage.problem)).collect()
    }

    pub(crate) async fn names(&self, folder: &str) -> Vec<String> {
        let objects: Vec<_> = self.raw.list(folder).try_collect().await.unwrap();
        objects.into_iter().map(|object| object.name.to_string()).collect()
    }

    pub(crate) async fn get(&self, name: &str) -> Bytes {
        self.raw.get(&ObjectName::new(name).unwrap()).await.unwrap()
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.raw.delete(&ObjectName::new(name).unwrap()).await.unwrap();
    }

    pub(crate) async fn put(&self, name: &str, object: impl Into<Bytes>) {
        let object: Bytes = object.into();
        assert!(self.raw.create(&ObjectName::new(name).unwrap(), object).await.unwrap().is_ours());
    }

    /// The epochs in which the objects of `folder` are sealed.
    pub(crate) async fn epochs_in(&self, folder: &str) -> BTreeMap<String, u32> {
        let mut epochs = BTreeMap::new();
        for name in self.names(folder).await {
            let object = self.get(&name).await;
            epochs.insert(name, u32::from_le_bytes(object[12..16].try_into().unwrap()));
        }
        epochs
    }
}

pub(crate) fn actor() -> Actor {
    Actor::new(Role::Operator, "test")
}

pub(crate) async fn put(
    session: &dyn backup_core::repository::BackupSession,
    content: &Content,
) -> backup_core::Result<()> {
    let sink = session.sink();
    for (path, bytes) in content {
        let meta = EntryMeta::file(EntryPath::new(path.as_str())?);
        sink.put_bytes(meta, bytes.clone().into()).await?;
    }
    Ok(())
}
