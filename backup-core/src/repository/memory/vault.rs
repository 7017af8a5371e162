//! A vault in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::MemoryRepository;
use crate::engine::Work;
use crate::error::{Error, Result};
use crate::id::ServiceId;
use crate::repository::{Destroyed, Found, Repository, Vault};

/// A vault of [`MemoryRepository`]s. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryVault {
    repositories: Arc<Mutex<BTreeMap<ServiceId, MemoryRepository>>>,
}

impl MemoryVault {
    /// An empty vault.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle on the repository of `service`.
    #[must_use]
    pub fn repository(&self, service: &ServiceId) -> Option<MemoryRepository> {
        self.repositories.lock().get(service).cloned()
    }
}

impl fmt::Display for MemoryVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

#[async_trait]
impl Vault for MemoryVault {
    async fn services(&self) -> Result<Vec<ServiceId>> {
        Ok(self.repositories.lock().keys().cloned().collect())
    }

    async fn create(&self, service: &ServiceId) -> Result<Arc<dyn Repository>> {
        let mut repositories = self.repositories.lock();
        if repositories.contains_key(service) {
            return Err(Error::conflict(format!("service {service} already has a repository")));
        }
        let repository = MemoryRepository::new(service.clone());
        repositories.insert(service.clone(), repository.clone());
        Ok(Arc::new(repository))
    }

    async fn find(&self, service: &ServiceId) -> Result<Found> {
        Ok(match self.repository(service) {
            Some(repository) => Found::Repository(Arc::new(repository)),
            None => Found::Nothing,
        })
    }

    async fn destroy(&self, service: &ServiceId, work: &Work) -> Result<Destroyed> {
        work.checkpoint()?;
        let Some(repository) = self.repository(service) else { return Ok(Destroyed::default()) };
        if !repository.catalog().await?.service().is_some_and(crate::catalog::ServiceState::is_ending) {
            return Err(Error::conflict(format!("service {service} is not being purged")));
        }
        self.repositories.lock().remove(service);
        Ok(Destroyed { keys: 1, objects: 0 })
    }
}
