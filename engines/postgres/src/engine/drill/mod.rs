//! Drills: a backup restored into a scratch instance of PostgreSQL, replayed to its target, and read to the last row.
//!
//! The instance is alone. It listens on a socket in a directory that only its account can enter, and on no port; it archives nothing, and no
//! subscription, event trigger or preloaded library of the source runs in it. Nothing of the source's configuration acts: the drill writes its own,
//! because what was right for a large machine keeps a server on a small one from starting, and because a restored `data_directory`,
//! `archive_command` or `restore_command` would act on the world. See `docs/decisions/0022-drills.md`.

mod config;
mod files;
mod instance;
mod programs;
mod reading;
mod relations;
mod structure;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::Result;
use backup_core::engine::{DrillEngine, EngineDescriptor, ScratchInstance, Work};
use backup_core::scratch::Scratch;

use super::{DESCRIPTOR, PostgresEngine, PostgresSettings};

/// How drills of PostgreSQL are done. Data, not components.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PostgresDrillSettings {
    /// The directory of `postgres`. When not set, it is looked for in the usual places, by the version of the backup.
    pub bin_dir: Option<PathBuf>,
    /// A superuser of the cluster. Only a superuser can read every table.
    pub role: String,
    /// Libraries that the server loads (`shared_preload_libraries`). None: what the source had loaded may start processes that act on the world. Needed
    /// where the log has records of an extension, which the server cannot replay without it.
    pub preload: Vec<String>,
    /// How long the server may take to replay its log and serve. Six hours.
    pub patience: Duration,
    /// Whether tables and indexes are checked by the server's `amcheck`, where it has that.
    pub amcheck: bool,
}

impl Default for PostgresDrillSettings {
    fn default() -> Self {
        Self {
            bin_dir: None,
            role: "postgres".to_owned(),
            preload: Vec::new(),
            patience: Duration::from_secs(6 * 3600),
            amcheck: true,
        }
    }
}

impl PostgresDrillSettings {
    /// Sets the directory of the programs.
    #[must_use]
    pub fn bin_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.bin_dir = Some(dir.into());
        self
    }

    /// Sets the superuser.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.role = role.into();
        self
    }

    /// Sets the libraries that the server loads.
    #[must_use]
    pub fn preload(mut self, libraries: Vec<String>) -> Self {
        self.preload = libraries;
        self
    }

    /// Sets how long the server may take until it serves.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets whether `amcheck` is used.
    #[must_use]
    pub fn amcheck(mut self, amcheck: bool) -> Self {
        self.amcheck = amcheck;
        self
    }
}

/// Proves backups of PostgreSQL.
#[derive(Debug, Clone)]
pub struct PostgresDrill {
    settings: PostgresDrillSettings,
}

impl PostgresDrill {
    /// Drills by these settings. Nothing is looked at yet.
    #[must_use]
    pub fn new(settings: PostgresDrillSettings) -> Self {
        Self { settings }
    }
}

impl fmt::Display for PostgresDrill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres")
    }
}

#[async_trait]
impl DrillEngine for PostgresDrill {
    fn descriptor(&self) -> &EngineDescriptor {
        &DESCRIPTOR
    }

    async fn prepare(&self, scratch: &mut Scratch, _work: &Work) -> Result<Box<dyn ScratchInstance>> {
        let settings =
            PostgresSettings::default().data_dir(scratch.data()).tablespace_root(scratch.dir().join("tablespaces"));
        let engine = PostgresEngine::new(settings)?;
        Ok(Box::new(instance::Instance::new(engine, self.settings.clone(), scratch)?))
    }
}
