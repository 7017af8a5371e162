//! Drills: a backup loaded by a scratch instance of Redis or Valkey, and compared with what the instance writes itself.
//!
//! The instance is a replica of nobody: of a port of this process that never answers. A primary leaves out keys that have expired since the backup, when it
//! loads and afterwards, and nothing could be compared; a replica keeps every key until its primary says otherwise. It listens on a socket in a
//! directory that only its account can enter, and on no port; no module is loaded unasked, and users are not restored.

mod instance;
mod programs;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::Result;
use backup_core::engine::{DrillEngine, EngineDescriptor, ScratchInstance, Work};
use backup_core::scratch::Scratch;

use super::{DESCRIPTOR, RedisEngine, RedisSettings};
use crate::restore::RestoreSettings;

/// How drills of Redis and Valkey are done. Data, not components.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RedisDrillSettings {
    /// The program, `redis-server` or `valkey-server`. When not set, it is looked for in the usual places.
    pub server: Option<PathBuf>,
    /// Modules that the server loads, without which it cannot load data of theirs.
    pub modules: Vec<PathBuf>,
    /// How long the server may take to load everything. Six hours.
    pub patience: Duration,
    /// The memory in bytes by which keys are compared: 512 MiB are enough for eleven million keys at a time.
    pub memory: usize,
}

impl Default for RedisDrillSettings {
    fn default() -> Self {
        Self { server: None, modules: Vec::new(), patience: Duration::from_secs(6 * 3600), memory: 512 << 20 }
    }
}

impl RedisDrillSettings {
    /// Sets the program.
    #[must_use]
    pub fn server(mut self, program: impl Into<PathBuf>) -> Self {
        self.server = Some(program.into());
        self
    }

    /// Adds a module.
    #[must_use]
    pub fn module(mut self, library: impl Into<PathBuf>) -> Self {
        self.modules.push(library.into());
        self
    }

    /// Sets how long the server may take.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// Proves backups of Redis and Valkey.
#[derive(Debug, Clone)]
pub struct RedisDrill {
    settings: RedisDrillSettings,
}

impl RedisDrill {
    /// Drills by these settings. Nothing is looked at yet.
    #[must_use]
    pub fn new(settings: RedisDrillSettings) -> Self {
        Self { settings }
    }
}

impl fmt::Display for RedisDrill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis")
    }
}

#[async_trait]
impl DrillEngine for RedisDrill {
    fn descriptor(&self) -> &EngineDescriptor {
        &DESCRIPTOR
    }

    async fn prepare(&self, scratch: &mut Scratch, _work: &Work) -> Result<Box<dyn ScratchInstance>> {
        let mut restore = RestoreSettings::files(scratch.data());
        // Whoever could log in only with a password of the source could not look at anything.
        restore.users = false;
        let engine = RedisEngine::new(RedisSettings::default())?.with_restore(restore);
        Ok(Box::new(instance::Instance::new(engine, self.settings.clone(), scratch)?))
    }
}
