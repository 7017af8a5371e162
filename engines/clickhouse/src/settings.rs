//! What an engine is told about its deployment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use backup_core::Error;

use crate::client::{Client, ClientSettings};
use crate::objects::ObjectDisk;
use crate::server::Server;
use crate::staging::Staging;

/// What is stored of parts that the server has merged since the parent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Merged {
    /// They are, as they are: a restore has the parts of the server.
    #[default]
    Store,
    /// The parts of the parent whose rows they have stand for them, where that is certain: each row is stored once, however often it is
    /// merged. Tables in which nothing has changed are not frozen. For backups that follow one another within minutes.
    FromParent,
}

/// One ClickHouse server. Data, not components.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ClickHouseSettings {
    /// Where its HTTP interface is: `http://user:password@host:8123/` or `https://…`.
    pub url: Option<String>,
    /// PEM file with the certificates that are trusted. None: those of the operating system.
    pub tls_roots: Option<PathBuf>,
    /// By what the deployment is known, whatever its address. None: by what the server says of itself, or its address without user and
    /// password where it says nothing (before 21.12).
    pub identity: Option<String>,
    /// Where the server's data directory (`path` of its configuration) is on this machine. None: where the server says it is.
    pub data_dir: Option<PathBuf>,
    /// Where its other disks are on this machine, by their names. Those that are not named are where the server says they are.
    pub disks: BTreeMap<String, PathBuf>,
    /// How the objects of its object disks are reached, by the names of the disks. Of those that are not named nothing is stored, which is told.
    pub object_disks: BTreeMap<String, ObjectDisk>,
    /// How many tables are frozen at a time, and how many are attached to.
    pub parallel: usize,
    /// Whether parts that are new are compared with their own checksums while they are read. True; it costs a little time.
    pub verify: bool,
    /// What is stored of merged parts. As they are: backups that are kept for long are then restored with as few parts as the server had.
    pub merged: Merged,
    /// Where the server writes and reads by its own `BACKUP` and `RESTORE`, for servers whose data directory is not on this machine. None: its
    /// files are read and written where they are.
    pub staging: Option<Staging>,
    /// The path in Keeper below which users and roles are, where the server does not say it (`system.user_directories`, from 20.9 on).
    pub access_in_keeper: Option<String>,
}

impl Default for ClickHouseSettings {
    fn default() -> Self {
        Self {
            url: None,
            tls_roots: None,
            identity: None,
            data_dir: None,
            disks: BTreeMap::new(),
            object_disks: BTreeMap::new(),
            parallel: 4,
            verify: true,
            merged: Merged::default(),
            staging: None,
            access_in_keeper: None,
        }
    }
}

impl fmt::Debug for ClickHouseSettings {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClickHouseSettings")
            .field("url", &self.url.as_ref().map(|_| format_args!("..")))
            .field("tls_roots", &self.tls_roots)
            .field("identity", &self.identity)
            .field("data_dir", &self.data_dir)
            .field("disks", &self.disks)
            .field("object_disks", &self.object_disks)
            .field("parallel", &self.parallel)
            .field("verify", &self.verify)
            .field("merged", &self.merged)
            .field("staging", &self.staging)
            .field("access_in_keeper", &self.access_in_keeper)
            .finish()
    }
}

impl ClickHouseSettings {
    /// Sets where it is.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Sets the trusted certificates.
    #[must_use]
    pub fn tls_roots(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls_roots = Some(file.into());
        self
    }

    /// Sets by what it is known.
    #[must_use]
    pub fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// Sets where its data directory is on this machine.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Sets where one of its disks is on this machine.
    #[must_use]
    pub fn disk(mut self, name: impl Into<String>, dir: impl Into<PathBuf>) -> Self {
        self.disks.insert(name.into(), dir.into());
        self
    }

    /// Sets how the objects of one of its object disks are reached.
    #[must_use]
    pub fn object_disk(mut self, name: impl Into<String>, disk: ObjectDisk) -> Self {
        self.object_disks.insert(name.into(), disk);
        self
    }

    /// Sets how many tables are worked on at a time; at least one.
    #[must_use]
    pub fn parallel(mut self, tables: usize) -> Self {
        self.parallel = tables.max(1);
        self
    }

    /// Sets whether new parts are verified while they are read.
    #[must_use]
    pub fn verify(mut self, on: bool) -> Self {
        self.verify = on;
        self
    }

    /// Sets what is stored of merged parts.
    #[must_use]
    pub fn merged(mut self, merged: Merged) -> Self {
        self.merged = merged;
        self
    }

    /// Sets where the server writes and reads by its own `BACKUP` and `RESTORE`.
    #[must_use]
    pub fn staging(mut self, staging: Staging) -> Self {
        self.staging = Some(staging);
        self
    }

    /// What a backup says of how it was taken.
    pub(crate) fn method(&self) -> &'static str {
        if self.staging.is_some() { "native" } else { "local" }
    }

    /// Why the server's files cannot be reached from here, if they cannot.
    pub(crate) fn place(&self, server: &Server) -> crate::Result<Option<String>> {
        let (dir, what) = match &self.staging {
            Some(staging) => (&staging.dir, "a staging folder must be"),
            None => (&server.default_disk()?.dir, "data_dir says where it is"),
        };
        Ok((!dir.is_dir()).then(|| format!("{} is not on this machine: {what}", dir.display())))
    }

    /// Sets the path in Keeper below which users and roles are.
    #[must_use]
    pub fn access_in_keeper(mut self, path: impl Into<String>) -> Self {
        self.access_in_keeper = Some(path.into());
        self
    }

    /// A client for it.
    ///
    /// # Errors
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when there is no URL, or it is none.
    pub fn client(&self) -> Result<Client, Error> {
        let url = self.url.as_deref().ok_or_else(|| Error::invalid("no url says where the clickhouse server is"))?;
        Ok(Client::new(ClientSettings::new(url)?.roots(self.tls_roots.clone()))?)
    }
}
