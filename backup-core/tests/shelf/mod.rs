//! A harness of repositories in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::conformance::repository::RepositoryHarness;
use backup_core::env::Env;
use backup_core::repository::{MemoryRepository, Repository};
use backup_core::{ServiceId, SessionId};
use parking_lot::Mutex;

/// What stands between the suite and a repository.
type Wrap = fn(Arc<dyn Repository>) -> Arc<dyn Repository>;

/// Repositories in memory by their services, each behind a wrapper.
pub(crate) struct Shelf {
    env: Env,
    wrap: Wrap,
    made: Mutex<BTreeMap<ServiceId, MemoryRepository>>,
}

impl Shelf {
    /// Repositories behind `wrap`.
    pub(crate) fn wrapped(wrap: Wrap) -> Self {
        Self { env: Env::seeded(7), wrap, made: Mutex::default() }
    }
}

#[async_trait]
impl RepositoryHarness for Shelf {
    fn env(&self) -> Env {
        self.env.clone()
    }

    async fn fresh(&self) -> Arc<dyn Repository> {
        let mut made = self.made.lock();
        let service = ServiceId::new(format!("service-{}", made.len())).unwrap();
        let repository = MemoryRepository::new(service.clone());
        made.insert(service, repository.clone());
        (self.wrap)(Arc::new(repository))
    }

    async fn reopen(&self, service: &ServiceId) -> Arc<dyn Repository> {
        (self.wrap)(Arc::new(self.made.lock()[service].reopen()))
    }

    async fn fence(&self, service: &ServiceId, session: SessionId) -> bool {
        self.made.lock()[service].fence(session, &self.env).unwrap();
        true
    }
}
