//! A store that holds the repositories of many services.

mod destroy;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::ServiceId;
use backup_core::engine::Work;
use backup_core::env::Env;
use backup_core::repository::{Destroyed, Found, Repository as _};
use backup_crypto::{Identity, KeyWrapper, Recipient};
use futures::TryStreamExt;

use crate::error::{Error, Result};
use crate::keys::Unlock;
use crate::layout;
use crate::repository::{CreateOptions, Repository};
use crate::settings::RepositorySettings;
use crate::store::Store;

/// Who can open the repositories of a vault.
pub trait VaultKeys: fmt::Debug + Send + Sync + 'static {
    /// Those for whom the keys of a new repository are wrapped.
    ///
    /// # Errors
    /// When they cannot be had.
    fn recipients(&self, service: &ServiceId) -> Result<Vec<Recipient>>;

    /// As whom the repository of `service` is opened.
    ///
    /// # Errors
    /// When it cannot be had.
    fn identity(&self, service: &ServiceId) -> Result<Arc<Identity>>;

    /// Key management services for which the keys of a new repository are wrapped, besides the recipients.
    ///
    /// # Errors
    /// When they cannot be had.
    fn services(&self, _service: &ServiceId) -> Result<Vec<Arc<dyn KeyWrapper>>> {
        Ok(Vec::new())
    }

    /// As whom the repository of `service` is opened: the identity, unless it is a key management service.
    ///
    /// # Errors
    /// When it cannot be had.
    fn unlock(&self, service: &ServiceId) -> Result<Unlock> {
        Ok(self.identity(service)?.into())
    }
}

/// The same recipients and identity for every service.
#[derive(Debug, Clone)]
pub struct SharedKeys {
    recipients: Vec<Recipient>,
    identity: Arc<Identity>,
}

impl SharedKeys {
    /// Keys are wrapped for `recipients` and opened as `identity`, who should be one of them.
    pub fn new(recipients: Vec<Recipient>, identity: impl Into<Arc<Identity>>) -> Self {
        Self { recipients, identity: identity.into() }
    }
}

impl VaultKeys for SharedKeys {
    fn recipients(&self, _: &ServiceId) -> Result<Vec<Recipient>> {
        Ok(self.recipients.clone())
    }

    fn identity(&self, _: &ServiceId) -> Result<Arc<Identity>> {
        Ok(Arc::clone(&self.identity))
    }
}

/// A store with the repositories of many services, each below a prefix that bears its name.
#[derive(Clone)]
pub struct Vault {
    store: Store,
    keys: Arc<dyn VaultKeys>,
    options: CreateOptions,
    settings: RepositorySettings,
    env: Env,
}

impl Vault {
    /// The vault in `store`.
    pub fn new(store: Store, keys: impl VaultKeys, env: Env) -> Self {
        let (options, settings) = (CreateOptions::default(), RepositorySettings::default());
        Self { store, keys: Arc::new(keys), options, settings, env }
    }

    /// Sets how repositories are created.
    #[must_use]
    pub fn with_options(mut self, options: CreateOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the limits of each repository that is opened.
    #[must_use]
    pub fn with_settings(mut self, settings: RepositorySettings) -> Self {
        self.settings = settings;
        self
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    async fn create(&self, service: &ServiceId) -> Result<Repository> {
        let recipients = self.keys.recipients(service)?;
        let (mut options, env) = (self.options.clone(), self.env.clone());
        options.services.extend(self.keys.services(service)?);
        Repository::create(&self.store, service.clone(), recipients, options, &self.settings, env).await
    }

    async fn open(&self, service: &ServiceId) -> Result<Repository> {
        let unlock = self.keys.unlock(service)?;
        Repository::open(&self.store, service.clone(), unlock, &self.settings, self.env.clone()).await
    }

    async fn find(&self, service: &ServiceId) -> Result<Option<Remaining>> {
        let store = self.store.at(service.as_str())?;
        if store.list(layout::KEYS).try_next().await?.is_none() {
            if store.head(&destroy::marker()?).await?.is_some() {
                return Ok(Some(Remaining::Rest));
            }
            if store.list("").try_next().await?.is_none() {
                return Ok(None);
            }
        }
        let repository = self.open(service).await?;
        // Whoever dies while the keys are deleted leaves some of them.
        if store.head(&destroy::marker()?).await?.is_some() && repository.has_lost_an_epoch().await? {
            return Ok(Some(Remaining::Rest));
        }
        Ok(Some(Remaining::Whole(repository)))
    }

    async fn services(&self) -> Result<Vec<ServiceId>> {
        let names = self.store.list_dirs("").await?;
        let mut services: Vec<_> = names.into_iter().filter_map(|name| ServiceId::new(name).ok()).collect();
        services.sort_unstable();
        Ok(services)
    }

    async fn destroy(&self, service: &ServiceId, work: &Work) -> Result<Destroyed> {
        let store = self.store.at(service.as_str())?;
        match self.find(service).await? {
            None => Ok(Destroyed::default()),
            Some(Remaining::Rest) => destroy::destroy(&store, &[], work).await,
            Some(Remaining::Whole(repository)) => {
                let catalog = repository.catalog().await?;
                if !catalog.service().is_some_and(backup_core::catalog::ServiceState::is_ending) {
                    return Err(Error::conflict(format!("service {service} is not being purged")));
                }
                destroy::destroy(&store, &repository.own_keys(&catalog).await?, work).await
            }
        }
    }
}

/// What there is of a repository.
enum Remaining {
    Whole(Repository),
    Rest,
}

#[async_trait]
impl backup_core::repository::Vault for Vault {
    async fn services(&self) -> backup_core::Result<Vec<ServiceId>> {
        Ok(self.services().await?)
    }

    async fn create(&self, service: &ServiceId) -> backup_core::Result<Arc<dyn backup_core::repository::Repository>> {
        Ok(Arc::new(self.create(service).await?))
    }

    async fn find(&self, service: &ServiceId) -> backup_core::Result<Found> {
        Ok(match self.find(service).await? {
            None => Found::Nothing,
            Some(Remaining::Rest) => Found::Remains,
            Some(Remaining::Whole(repository)) => Found::Repository(Arc::new(repository)),
        })
    }

    async fn destroy(&self, service: &ServiceId, work: &Work) -> backup_core::Result<Destroyed> {
        Ok(work.run(async { Ok(self.destroy(service, work).await?) }).await?)
    }
}

impl fmt::Display for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("store", &self.store).finish_non_exhaustive()
    }
}
