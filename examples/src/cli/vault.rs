//! From options to an open repository.

use std::path::Path;

use backup_core::engine::Work;
use backup_core::{Error, Result, ServiceId};
use backup_crypto::Identity;
use backup_storage::store::{Store, StoreSettings};
use backup_storage::{CreateOptions, DepositRepository, HostFile, Repository, RepositorySettings};

/// Which repository, and how it is unlocked.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) vault: String,
    pub(crate) service: String,
    pub(crate) identity: Identity,
}

impl Place {
    /// Opens the repository.
    pub(crate) async fn open(self, work: &Work) -> Result<Repository> {
        let service = ServiceId::new(self.service)?;
        must_exist(&self.vault)?;
        work.run(async {
            let store = Store::open(&self.vault, &StoreSettings::default())?;
            let settings = RepositorySettings::default();
            Ok(Repository::open(&store, service, self.identity, &settings, work.env().clone()).await?)
        })
        .await
    }

    /// Creates the repository.
    pub(crate) async fn create(self, work: &Work) -> Result<Repository> {
        let service = ServiceId::new(self.service)?;
        work.run(async {
            let store = Store::open(&self.vault, &StoreSettings::default())?;
            let recipients = vec![self.identity.to_recipient()];
            let (options, settings) = (CreateOptions::default(), RepositorySettings::default());
            Ok(Repository::create(&store, service, recipients, options, &settings, work.env().clone()).await?)
        })
        .await
    }
}

/// Opens the repository of a host that only writes.
pub(crate) async fn open_as_host(
    vault: &str,
    file: HostFile,
    state: Option<&Path>,
    work: &Work,
) -> Result<DepositRepository> {
    must_exist(vault)?;
    work.run(async {
        let store = Store::open(vault, &StoreSettings::default())?;
        let settings = RepositorySettings::default();
        Ok(DepositRepository::open(&store, file, state, &settings, work.env().clone()).await?)
    })
    .await
}

/// Opening a store makes its directory. Only what creates a repository may do that: elsewhere a missing one is a mistyped URL.
pub(crate) fn must_exist(vault: &str) -> Result<()> {
    match is_missing(vault) {
        true => Err(Error::invalid(format!("vault {vault} does not exist; init creates it"))),
        false => Ok(()),
    }
}

/// The same for a further region.
pub(crate) fn region_must_exist(region: &str) -> Result<()> {
    match is_missing(region) {
        true => Err(Error::invalid(format!("region {region} does not exist; replicate --to creates it"))),
        false => Ok(()),
    }
}

/// Whether a vault is a directory that does not exist.
fn is_missing(vault: &str) -> bool {
    let directory = vault.strip_prefix("file://").filter(|d| d.starts_with('/') && !d.contains('%'));
    directory.is_some_and(|d| std::fs::metadata(d).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound))
}
