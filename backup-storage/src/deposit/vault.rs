//! A vault, as a host sees it that only writes: one service, and nothing can be made or destroyed.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::ServiceId;
use backup_core::engine::Work;
use backup_core::env::Env;
use backup_core::repository::{Destroyed, Found, Repository, Vault};

use super::file::HostFile;
use super::repository::{DepositRepository, only_writes};
use crate::settings::RepositorySettings;
use crate::store::Store;

/// A store with the repository of the one service that a host that only writes has a file for.
#[derive(Clone)]
pub struct DepositVault {
    store: Store,
    file: HostFile,
    state: Option<PathBuf>,
    settings: RepositorySettings,
    env: Env,
}

impl DepositVault {
    /// The vault in `store`, for the host of `file`, which remembers its backups in the folder `state`.
    pub fn new(store: Store, file: HostFile, state: Option<PathBuf>, env: Env) -> Self {
        Self { store, file, state, settings: RepositorySettings::default(), env }
    }

    /// Sets the limits of the repository.
    #[must_use]
    pub fn with_settings(mut self, settings: RepositorySettings) -> Self {
        self.settings = settings;
        self
    }
}

#[async_trait]
impl Vault for DepositVault {
    async fn services(&self) -> backup_core::Result<Vec<ServiceId>> {
        Ok(vec![self.file.service().clone()])
    }

    async fn create(&self, service: &ServiceId) -> backup_core::Result<Arc<dyn Repository>> {
        Err(only_writes(format!("create a repository for service {service}")).into())
    }

    async fn find(&self, service: &ServiceId) -> backup_core::Result<Found> {
        if service != self.file.service() {
            return Err(only_writes(format!("look for service {service}")).into());
        }
        let (file, state) = (self.file.clone(), self.state.as_deref());
        let opened = DepositRepository::open(&self.store, file, state, &self.settings, self.env.clone()).await?;
        Ok(Found::Repository(Arc::new(opened)))
    }

    async fn destroy(&self, service: &ServiceId, _: &Work) -> backup_core::Result<Destroyed> {
        Err(only_writes(format!("destroy service {service}")).into())
    }
}

impl fmt::Display for DepositVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store)
    }
}

impl fmt::Debug for DepositVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DepositVault").field("store", &self.store).field("file", &self.file).finish_non_exhaustive()
    }
}
