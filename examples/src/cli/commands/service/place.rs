//! From options to a fleet: the vault as the storage of a region, and the machines of this host.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::repository::{Found, Vault as _};
use backup_core::service::{Fleet, ManagedService, Platform, Regions};
use backup_core::{Error, Result, ServiceId};
use backup_storage::store::{Store, StoreSettings};
use backup_storage::{SharedKeys, Vault};

use super::Context;
use crate::cli::failure::Failure;
use crate::cli::vault::must_exist;
use crate::machines::{HostFile, PostgresHost};

/// What every command of a service works with.
pub(super) struct Premises {
    pub(super) vault: Vault,
    pub(super) file: HostFile,
    path: Option<PathBuf>,
    host: PostgresHost,
}

impl Premises {
    /// Opens the vault and reads the file of this host.
    pub(super) fn open(cx: &mut Context<'_, '_>, path: Option<PathBuf>) -> Result<Self, Failure> {
        let url = cx.vault_url()?;
        let identity = cx.identity()?;
        let keys = SharedKeys::new(vec![identity.to_recipient()], identity);
        let file = match &path {
            Some(path) => HostFile::read(path)?.unwrap_or_default(),
            None => HostFile::default(),
        };
        if file.region.is_empty() {
            // Only the first service makes a vault: elsewhere a missing one is a mistyped URL.
            if path.is_none() {
                must_exist(&url)?;
            }
        }
        let store = Store::open(&url, &StoreSettings::default())?;
        let vault = Vault::new(store, keys, cx.work().env().clone());
        let host = PostgresHost::new(file.services()?, cx.work().env().clone());
        Ok(Self { vault, file, path, host })
    }

    /// The path of the file of this host.
    pub(super) fn path(&self) -> Result<&Path> {
        self.path.as_deref().ok_or_else(|| {
            Error::invalid("--host-file <FILE> was not given and BACKUP_HOST_FILE is not set: it says which machines this host has")
        })
    }

    /// Sets below which directory backups of the services of this host are proven.
    pub(super) fn drill_below(&mut self, scratch: Option<PathBuf>) {
        self.host = self.host.clone().with_scratch(scratch);
    }

    /// Removes the machine of a service that is no more. Others may have written the file meanwhile.
    pub(super) fn forget(&mut self, service: &ServiceId) -> Result<()> {
        let path = self.path()?.to_owned();
        let Some(mut file) = HostFile::read(&path)? else { return Ok(()) };
        if file.machines.remove(service.as_str()).is_some() {
            file.write(&path)?;
        }
        Ok(())
    }

    /// Reads the file again, and says whether other commands have changed it since.
    pub(super) fn reread(&mut self) -> Result<bool> {
        let file = HostFile::read(self.path()?)?.unwrap_or_default();
        if file == self.file {
            return Ok(false);
        }
        self.file = file;
        self.host.replace(self.file.services()?);
        Ok(true)
    }

    /// Writes the file of this host.
    pub(super) fn save(&self) -> Result<()> {
        self.file.write(self.path()?)?;
        self.host.replace(self.file.services()?);
        Ok(())
    }

    /// The platform of this host, whose vault is the storage of `region`.
    pub(super) fn platform(&self, cx: &Context<'_, '_>, region: &str) -> Platform {
        let env = cx.work().env().clone();
        let regions = Regions::new().with_vault(region, Arc::new(self.vault.clone()));
        let host = Arc::new(self.host.clone());
        Platform::new(regions, host, env, format!("backupctl {}", std::process::id()))
    }

    /// The fleet of this host.
    pub(super) fn fleet(&self, cx: &Context<'_, '_>, region: &str) -> Fleet {
        Fleet::new(self.platform(cx, region)).with_revisit(REVISIT)
    }

    /// The service that the options name. Its region is what its own catalog says, so this needs no file.
    pub(super) async fn service(&self, cx: &Context<'_, '_>) -> Result<(Fleet, ManagedService), Failure> {
        let id = cx.service_id()?;
        let found = cx.work().run(self.vault.find(&id)).await?;
        let spec = match found {
            Found::Repository(repository) => {
                let catalog = cx.work().run(repository.catalog()).await?;
                catalog.service().map(|service| service.spec.clone())
            }
            Found::Remains => return Err(Error::invalid(format!("service {id} was purged")).into()),
            _ => None,
        };
        let Some(spec) = spec else { return Err(self.unknown(cx, &id).await?.into()) };
        let fleet = self.fleet(cx, &spec.location);
        let service = cx.work().run(fleet.open(&id)).await?;
        Ok((fleet, service))
    }

    /// There is no such service: says which there are.
    async fn unknown(&self, cx: &Context<'_, '_>, id: &ServiceId) -> Result<Error> {
        let stored = cx.work().run(backup_core::repository::Vault::services(&self.vault)).await?;
        let names: Vec<_> = stored.iter().map(ServiceId::as_str).collect();
        let known = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
        let hint =
            if stored.contains(id) { "is not under management: service create --adopt" } else { "does not exist" };
        Ok(Error::invalid(format!("service {id} {hint} in {}; {known}", self.vault)))
    }
}

/// What other commands have decided is noticed soon: one host has few services, and the log of one that was turned on is to be followed.
pub(super) const REVISIT: Duration = Duration::from_secs(10);
