//! The repository under the conformance suite of `backup-core`, on memory and on local disk.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use backup_core::conformance::repository::{RepositoryHarness, run};
use backup_core::env::Env;
use backup_core::repository::Repository as _;
use backup_core::{ServiceId, SessionId};
use backup_crypto::{RawKey, Suite};
use backup_storage::fault::WriteOnceGuard;
use backup_storage::store::Store;
use backup_storage::{CreateOptions, Repository, RepositorySettings};

struct Harness {
    store: Store,
    env: Env,
    suite: Suite,
    services: AtomicU32,
}

impl Harness {
    fn new(store: Store, suite: Suite) -> Self {
        Self { store, env: Env::seeded(7), suite, services: AtomicU32::new(0) }
    }

    fn key() -> RawKey {
        RawKey::take(&mut [9; 32])
    }

    fn settings() -> RepositorySettings {
        RepositorySettings::default().workers(3)
    }

    async fn open(&self, service: &ServiceId) -> Repository {
        let identity = backup_crypto::Identity::from(Self::key());
        Repository::open(&self.store, service.clone(), identity, &Self::settings(), self.env.clone()).await.unwrap()
    }
}

#[async_trait]
impl RepositoryHarness for Harness {
    fn env(&self) -> Env {
        self.env.clone()
    }

    async fn fresh(&self) -> Arc<dyn backup_core::repository::Repository> {
        let number = self.services.fetch_add(1, Ordering::Relaxed);
        let service = ServiceId::new(format!("service-{number}")).unwrap();
        let recipients = vec![Self::key().into()];
        let options = CreateOptions::default().suite(self.suite);
        let settings = Self::settings();
        let made = Repository::create(&self.store, service.clone(), recipients, options, &settings, self.env.clone());
        let made = made.await.unwrap();
        assert_eq!(made.service(), &service);
        Arc::new(made)
    }

    async fn reopen(&self, service: &ServiceId) -> Arc<dyn backup_core::repository::Repository> {
        Arc::new(self.open(service).await)
    }

    async fn fence(&self, service: &ServiceId, session: SessionId) -> bool {
        self.open(service).await.fence(session).await.unwrap();
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory() {
    let guard = Arc::new(WriteOnceGuard::new(Arc::new(object_store::memory::InMemory::new())));
    let store = Store::from_object_store(guard);
    run(&Harness::new(store, Suite::ChaCha20Poly1305)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_local_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::local(dir.path()).unwrap();
    run(&Harness::new(store, Suite::Aes256Gcm)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_conforms_in_memory() {
    backup_core::conformance::log::run(&Harness::new(Store::memory(), Suite::Aes256Gcm)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_conforms_on_local_disk() {
    let dir = tempfile::tempdir().unwrap();
    backup_core::conformance::log::run(&Harness::new(Store::local(dir.path()).unwrap(), Suite::ChaCha20Poly1305)).await;
}
