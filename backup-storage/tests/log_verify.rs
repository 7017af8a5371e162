//! What verification finds in the log that no single object tells.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use backup_core::engine::{LogOptions, Work};
use backup_core::env::Env;
use backup_core::log::{LineageRecord, LogRange, Notation};
use backup_core::repository::{Repository as _, VerifyLevel, VerifyReport};
use backup_core::{Lineage, ServiceId};
use backup_crypto::{Identity, RawKey};
use backup_storage::store::Store;
use backup_storage::{CompactLog, CreateOptions, Repository, RepositorySettings};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

struct Vault {
    inner: Arc<InMemory>,
    repository: Repository,
    env: Env,
}

fn service() -> ServiceId {
    ServiceId::new("svc").unwrap()
}

impl Vault {
    async fn open(inner: InMemory, seed: u64) -> Self {
        let (inner, env) = (Arc::new(inner), Env::seeded(seed));
        let store = Store::from_object_store(Arc::clone(&inner) as _).with_env(env.clone());
        let identity = Identity::from(RawKey::take(&mut [1; 32]));
        let settings = RepositorySettings::default().workers(1);
        let repository = Repository::open(&store, service(), identity, &settings, env.clone()).await.unwrap();
        Self { inner, repository, env }
    }

    /// Two vaults in which the same writer has stored the same log.
    async fn twins() -> (Self, Self) {
        let (inner, env) = (Arc::new(InMemory::new()), Env::seeded(1));
        let store = Store::from_object_store(Arc::clone(&inner) as _).with_env(env.clone());
        let (recipients, settings) = (vec![RawKey::take(&mut [1; 32]).into()], RepositorySettings::default());
        Repository::create(&store, service(), recipients, CreateOptions::default(), &settings, env).await.unwrap();
        let twins = (Self::open(inner.fork(), 2).await, Self::open(inner.fork(), 3).await);
        for vault in [&twins.0, &twins.1] {
            vault.capture().await;
        }
        twins
    }

    async fn capture(&self) {
        let sink = self.repository.open_log(LogOptions::default(), &self.work()).await.unwrap();
        let lineage = Lineage::new("1");
        sink.declare(LineageRecord::new(lineage.clone(), "source", Notation::Decimal, self.env.now())).await.unwrap();
        let mut known = None;
        for number in 0..5 {
            let range = LogRange::new(lineage.clone(), number * 100..(number + 1) * 100);
            sink.append(range, Bytes::from(vec![7; 100]), &[]).await.unwrap();
            sink.flush();
            known = sink.advanced(known.as_ref()).await.unwrap();
        }
        sink.close().await.unwrap();
    }

    fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    async fn verify(&self) -> VerifyReport {
        self.repository.verify(VerifyLevel::Full, &self.work()).await.unwrap()
    }

    async fn names(&self) -> Vec<Path> {
        let mut names: Vec<Path> =
            self.inner.list(Some(&"svc/log".into())).map_ok(|object| object.location).try_collect().await.unwrap();
        names.sort();
        names
    }

    async fn get(&self, name: &Path) -> Bytes {
        self.inner.get(name).await.unwrap().bytes().await.unwrap()
    }

    async fn covered(&self) -> Option<u64> {
        self.repository.log().await.unwrap().ledger().covered(&Lineage::new("1")).end()
    }
}

fn problems(report: &VerifyReport) -> Vec<(String, &str)> {
    report.damages.iter().map(|damage| (format!("svc/{}", damage.object), damage.problem.as_str())).collect()
}

#[tokio::test]
async fn an_object_that_took_the_place_of_another_is_found_by_the_next_one() {
    let (vault, twin) = Vault::twins().await;
    let names = vault.names().await;
    assert_eq!((names.len(), &names), (5, &twin.names().await));
    assert!(vault.verify().await.is_sound());
    // It opens, its name is right, and it is not what this writer wrote.
    let theirs = twin.get(&names[1]).await;
    assert!(theirs != vault.get(&names[1]).await);
    vault.inner.put(&names[1], theirs.into()).await.unwrap();
    let report = vault.verify().await;
    let follows = |number: u64| format!("it does not follow object {number} of writer 1 as that is stored");
    let expected = [(names[1].to_string(), follows(1)), (names[2].to_string(), follows(2))];
    let expected: Vec<_> = expected.iter().map(|(object, problem)| (object.clone(), problem.as_str())).collect();
    assert_eq!(problems(&report), expected);
    assert_eq!(vault.covered().await, Some(500), "what holds the right log goes on counting");
    // Where there is nothing to compare, nothing is said.
    let compact = CompactLog::default().least_age(Duration::ZERO);
    vault.repository.compact_log(&compact, &vault.work()).await.unwrap();
    assert!(vault.verify().await.is_sound());
}

#[tokio::test]
async fn objects_between_which_others_are_gone_are_not_compared() {
    let (vault, twin) = Vault::twins().await;
    let names = vault.names().await;
    vault.inner.put(&names[1], twin.get(&names[1]).await.into()).await.unwrap();
    vault.inner.delete(&names[2]).await.unwrap();
    let report = vault.verify().await;
    assert!(problems(&report).iter().all(|(object, _)| *object != names[3].to_string()), "{report:?}");
}

#[tokio::test]
async fn an_object_under_a_key_that_is_missing_is_a_finding_and_not_the_end() {
    let (vault, _) = Vault::twins().await;
    let names = vault.names().await;
    for (name, at) in [(&names[1], 12), (&names[3], 200)] {
        let mut bytes = vault.get(name).await.to_vec();
        // The epoch stands at 12; a byte of content at 200.
        bytes[at] ^= 8;
        vault.inner.put(name, bytes.into()).await.unwrap();
    }
    let report = vault.verify().await;
    let found = problems(&report);
    assert_eq!(
        found.iter().map(|(object, _)| object.as_str()).collect::<Vec<_>>(),
        [names[1].as_ref(), names[3].as_ref()]
    );
    assert!(found[0].1.contains("key of epoch"), "{found:?}");
    // The one may be sound for who has the key; the other is sound for nobody.
    let source = vault.repository.log().await.unwrap();
    assert_eq!(source.ledger().covered(&Lineage::new("1")).as_slice(), &[0..300, 400..500]);
}
