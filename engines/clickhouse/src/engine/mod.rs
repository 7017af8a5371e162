//! The engine: a ClickHouse server as something that can be backed up and restored.

mod backup;
mod check;
mod cluster;
mod extras;
pub mod facts;
mod frozen;
mod keeper;
mod merged;
mod mutations;
mod native;
mod patches;
mod quiet;
mod record;
mod remote;
mod shadow;
mod share;
mod snapshot;
mod unsent;

pub use cluster::{ClickHouseCluster, ClusterSettings, MemberSettings};
pub(crate) use extras::FunctionDef;
pub(crate) use record::{PartRecord, PartsRecord, Stand};

use std::fmt;

use async_trait::async_trait;
use backup_core::engine::{
    BackupContext, CheckContext, CheckReport, Deployment, EngineDescriptor, RestoreContext, Restored,
};
use backup_core::{BackupEngine, Consistency, Error, Finding, Result, Severity, Snapshot};

use crate::client::Client;
use crate::objects::Objects;
use crate::restore::{self, RestoreSettings};
use crate::server::{ObjectKind, Server};
use crate::settings::{ClickHouseSettings, Merged};
use share::Share;

pub(crate) static DESCRIPTOR: EngineDescriptor = EngineDescriptor::new(
    "clickhouse",
    "ClickHouse",
    Consistency::PerPart,
    "data/DATABASE, data/DATABASE/TABLE, data/DATABASE/TABLE/PARTITION; metadata/… for definitions without rows",
);

/// A ClickHouse server.
///
/// As the source of a backup it is a running server whose data directory is on this machine, or one that writes to a [`Staging`](crate::Staging) folder. As the
/// target of a restore it is a running server, too: tables are made by statements, and parts are attached to them, or brought in by its own `RESTORE`.
#[derive(Debug, Clone)]
pub struct ClickHouse {
    settings: ClickHouseSettings,
    restore: RestoreSettings,
}

impl ClickHouse {
    /// An engine for the deployment that `settings` describe. Nothing is connected or opened yet.
    ///
    /// # Errors
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when the address is none, or that of an object disk;
    /// [`Environment`](backup_core::ErrorKind::Environment) when an object disk has incomplete credentials.
    pub fn new(settings: ClickHouseSettings) -> Result<Self> {
        if settings.url.is_some() {
            settings.client()?;
        }
        if settings.staging.is_some() && settings.merged == Merged::FromParent {
            let text = "parts of the parent can only stand for merged ones where the data directory is read, and not a staging folder";
            return Err(Error::invalid(text));
        }
        Objects::open(&settings.object_disks)?;
        Ok(Self { settings, restore: RestoreSettings::default() })
    }

    /// Sets how it is restored.
    #[must_use]
    pub fn with_restore(mut self, restore: RestoreSettings) -> Self {
        self.restore = restore;
        self
    }

    /// What it was told.
    #[must_use]
    pub fn settings(&self) -> &ClickHouseSettings {
        &self.settings
    }

    pub(crate) async fn ask(&self) -> Result<(Client, Server)> {
        let client = self.settings.client()?;
        let server = Server::ask(&client, &self.settings).await?;
        Ok((client, server))
    }
}

#[async_trait]
impl BackupEngine for ClickHouse {
    fn descriptor(&self) -> &EngineDescriptor {
        &DESCRIPTOR
    }

    async fn inspect(&self) -> Result<Deployment> {
        let (client, server) = self.ask().await?;
        let mut deployment = Deployment::new(server.source.clone(), server.version.to_string(), self.settings.method());
        let tables = server.tables(&client).await?;
        let parts = tables.values().filter(|table| table.kind() == ObjectKind::Parts);
        deployment.bytes = parts.map(|table| table.bytes).sum();
        let blocker = match self.settings.place(&server) {
            Ok(None) => None,
            Ok(Some(text)) => Some(Finding::new(Severity::Blocker, "data-directory", text).in_surroundings()),
            Err(error) => Some(Finding::new(Severity::Blocker, "data-directory", error.to_string())),
        };
        deployment.findings.extend(blocker);
        Ok(deployment)
    }

    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot> {
        let (client, server) = self.ask().await?;
        let (snapshot, _) = backup::backup(cx, &client, &server, &self.settings, &Share::default()).await?;
        Ok(snapshot)
    }

    async fn assess_restore(&self, cx: &RestoreContext) -> Result<Vec<Finding>> {
        let (client, server) = self.ask().await?;
        restore::assess(cx, &client, &server, &self.settings, &self.restore).await
    }

    async fn restore(&self, cx: &RestoreContext) -> Result<Restored> {
        let (client, server) = self.ask().await?;
        restore::restore(cx, &client, &server, &self.settings, &self.restore).await
    }

    async fn check(&self, cx: &CheckContext) -> Result<CheckReport> {
        check::check(cx).await
    }
}

impl fmt::Display for ClickHouse {
    /// Names the deployment without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("clickhouse")?;
        match self.settings.client() {
            Ok(client) => write!(f, " at {}", client.address()),
            Err(_) => Ok(()),
        }
    }
}
