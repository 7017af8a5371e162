//! The vaults of the benches.

use std::path::Path;

use backup_core::ServiceId;
use backup_core::env::Env;
use backup_crypto::{Identity, Passphrase, RawKey, Recipient};
use backup_storage::store::{Store, StoreSettings};
use backup_storage::{CreateOptions, Repository, RepositorySettings};

use crate::Error;

fn service() -> Result<ServiceId, Error> {
    Ok(ServiceId::new("bench")?)
}

/// A raw key, unless the environment has a passphrase: then each opening pays for its stretching, as with programs that know
/// nothing else.
pub(crate) const PASSPHRASE: &str = "BACKUP_BENCHES_PASSPHRASE";

fn passphrase() -> Result<Option<Passphrase>, Error> {
    Ok(std::env::var(PASSPHRASE).ok().map(Passphrase::new).transpose()?)
}

fn key() -> RawKey {
    RawKey::take(&mut [7; 32])
}

fn identity() -> Result<Identity, Error> {
    Ok(passphrase()?.map_or_else(|| Identity::from(key()), Identity::from))
}

fn recipient() -> Result<Recipient, Error> {
    Ok(passphrase()?.map_or_else(|| Recipient::from(key()), Recipient::from))
}

/// The store at a directory, or at an address such as `s3://bucket/prefix`.
fn store(vault: &Path) -> Result<Store, Error> {
    match vault.to_str().filter(|address| address.contains("://")) {
        Some(address) => Ok(Store::open(address, &StoreSettings::default())?),
        None => Ok(Store::local(vault)?),
    }
}

pub(crate) async fn open(vault: &Path) -> Result<Repository, Error> {
    open_with(vault, &RepositorySettings::default()).await
}

async fn open_with(vault: &Path, settings: &RepositorySettings) -> Result<Repository, Error> {
    Ok(Repository::open(&store(vault)?, service()?, identity()?, settings, Env::system()).await?)
}

pub(super) async fn create(vault: &Path) -> Result<Repository, Error> {
    create_with(vault, &RepositorySettings::default()).await
}

async fn create_with(vault: &Path, settings: &RepositorySettings) -> Result<Repository, Error> {
    let (recipients, options) = (vec![recipient()?], CreateOptions::default());
    Ok(Repository::create(&store(vault)?, service()?, recipients, options, settings, Env::system()).await?)
}

/// The vault, which is made if its directory does not exist.
pub(crate) async fn made(vault: &Path) -> Result<Repository, Error> {
    made_with(vault, &RepositorySettings::default()).await
}

pub(crate) async fn made_with(vault: &Path, settings: &RepositorySettings) -> Result<Repository, Error> {
    let remote = vault.to_str().is_some_and(|address| address.contains("://"));
    if remote || vault.exists() { open_with(vault, settings).await } else { create_with(vault, settings).await }
}
