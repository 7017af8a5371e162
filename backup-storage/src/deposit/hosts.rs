//! Adding and removing hosts that only write, and adopting what they deposit.

use backup_core::HostId;
use backup_core::catalog::{Actor, Event, HostChange};
use backup_core::engine::Work;
use backup_crypto::{EpochId, HostSecret};

use super::adopt::{self, Adoption};
use super::file::HostFile;
use crate::error::{Error, Result};
use crate::repository::Repository;

/// A host that may deposit backups.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct HostInfo {
    /// The host.
    pub host: HostId,
    /// What people call it.
    pub label: String,
    /// The epoch from whose key its secret follows.
    pub epoch: u32,
    /// Since when.
    pub since: jiff::Timestamp,
    /// Its newest adopted backup.
    pub last: Option<backup_core::BackupId>,
    /// Whether a recipient was removed since: nothing that it deposits is adopted until it has another file.
    pub outdated: bool,
}

impl Repository {
    /// Adds a host that only writes, and makes its file. The file is nowhere else: lost, the host is removed and added again.
    ///
    /// # Cancel safety
    /// When dropped, the host may have been added, and nobody has its file: remove it, and add it again.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) for a name that is no name, [`Conflict`](crate::error::ErrorKind::Conflict) when there is a host with that name.
    #[tracing::instrument(skip_all, fields(service = %self.context().service, label))]
    pub async fn add_host(&self, label: &str, by: &Actor) -> Result<HostFile> {
        let length = label.chars().count();
        if !(1..=64).contains(&length) || label.chars().any(char::is_control) || label.trim() != label {
            return Err(Error::invalid("the name of a host must be 1 to 64 characters that can be printed"));
        }
        let host = HostId::mint(&self.context().env);
        let mut epoch = 0;
        let at = self.context().env.now();
        self.journal()
            .commit_by(|_, catalog| {
                epoch = catalog.keys().current();
                let change = HostChange::Added { host, label: label.to_owned(), epoch };
                Ok(vec![Event::Hosts { change, by: by.clone(), at }])
            })
            .await?;
        let (keyring, epoch) = (&self.context().keyring, EpochId(epoch));
        let (key, repository) = (keyring.key(epoch)?, keyring.repository());
        Ok(HostFile {
            repository,
            service: self.context().service.clone(),
            suite: keyring.suite(),
            host,
            label: label.to_owned(),
            epoch,
            public: key.deposit_key(repository, epoch).public_key(),
            secret: HostSecret::derive(&key, repository, epoch, &host.to_bytes()),
        })
    }

    /// Adds the host of `file` again after the catalog was rebuilt, which forgets hosts.
    ///
    /// # Cancel safety
    /// When dropped, it was done or not.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) for a file of another repository, [`Conflict`](crate::error::ErrorKind::Conflict) when the host is known, was removed, or
    /// may be known to a recipient who was removed.
    pub async fn add_host_again(&self, file: &HostFile, by: &Actor) -> Result<()> {
        let catalog = self.journal().refresh().await?;
        let (keyring, host) = (&self.context().keyring, file.host);
        let known = catalog.keys().epochs().any(|(epoch, _)| epoch == file.epoch.0);
        let secret = match file.repository == keyring.repository() && known {
            true => HostSecret::derive(&keyring.key(file.epoch)?, file.repository, file.epoch, &host.to_bytes()),
            false => return Err(Error::invalid("the file of the host was made for another repository")),
        };
        if secret != file.secret {
            return Err(Error::invalid("the file of the host was made by nobody who has the keys of this repository"));
        }
        let change = HostChange::Added { host, label: file.label.clone(), epoch: file.epoch.0 };
        let event = Event::Hosts { change, by: by.clone(), at: self.context().env.now() };
        self.journal().commit(vec![event]).await.map(drop)
    }

    /// Removes a host: nothing that it deposits is adopted from here on. What was adopted stays.
    ///
    /// # Cancel safety
    /// When dropped, it was removed or not.
    ///
    /// # Errors
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when there is no such host.
    #[tracing::instrument(skip_all, fields(service = %self.context().service, %host))]
    pub async fn remove_host(&self, host: HostId, by: &Actor) -> Result<()> {
        let change = HostChange::Removed { host };
        let event = Event::Hosts { change, by: by.clone(), at: self.context().env.now() };
        self.journal().commit(vec![event]).await?;
        self.tell_hosts().await;
        Ok(())
    }

    /// Tells the hosts of which nothing is adopted any more. Where that fails, the next adoption does it.
    pub(crate) async fn tell_hosts(&self) {
        if let Err(error) = adopt::notify(self.context(), self.journal()).await {
            tracing::warn!(%error, "hosts could not be told that they are none any more");
        }
    }

    /// The hosts that may deposit backups, oldest first.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn hosts(&self) -> Result<Vec<HostInfo>> {
        let catalog = self.journal().refresh().await?;
        let info = |(host, known): (HostId, &backup_core::catalog::HostRecord)| HostInfo {
            host,
            label: known.label.clone(),
            epoch: known.epoch,
            since: known.since,
            last: known.last.map(|(_, backup)| backup),
            outdated: catalog.trusted_host(host).is_err(),
        };
        Ok(catalog.hosts().map(info).collect())
    }

    /// Makes backups of what hosts that only write have deposited. A collection begins with the same.
    ///
    /// May be called at any time, beside everything else, and twice at once.
    ///
    /// # Cancel safety
    /// When dropped, the next call goes on.
    ///
    /// # Errors
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when collections are faster, again and again; [`Unavailable`](crate::error::ErrorKind::Unavailable), and
    /// [`Damaged`](crate::error::ErrorKind::Damaged) for a catalog that cannot be read. A deposit that is not good is told, and no error.
    #[tracing::instrument(skip_all, fields(service = %self.context().service))]
    pub async fn adopt_deposits(&self, work: &Work) -> Result<Adoption> {
        adopt::adopt(self.context(), self.journal(), work).await
    }
}
