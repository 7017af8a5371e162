//! What an engine is told about its deployment.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use backup_core::Error;

/// How the data directory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Method {
    /// Directly, in parallel. Needs to run where the server runs, with permission to read its files.
    Local,
    /// Through the server, by `BASE_BACKUP`. Works from anywhere; one stream.
    Protocol,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Local => "local",
            Self::Protocol => "protocol",
        })
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        match s {
            "local" => Ok(Self::Local),
            "protocol" => Ok(Self::Protocol),
            _ => Err(Error::invalid(format!("method {s:?} is neither local nor protocol"))),
        }
    }
}

/// The checkpoint that a backup begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Checkpoint {
    /// At once. The default: a spread one delays the backup by minutes, a fast one costs seconds on most servers.
    #[default]
    Fast,
    /// Spread over `checkpoint_completion_target`, sparing a busy server.
    Spread,
}

/// The replication slot that makes the server keep its log until it is stored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogSlot {
    /// A slot of this name, made on every node if it does not exist. Lower-case letters, digits and `_`.
    Named(String),
    /// None: the server removes log when it sees fit, and what was removed before it was stored is a hole.
    None,
}

impl Default for LogSlot {
    fn default() -> Self {
        Self::Named("backup_log".to_owned())
    }
}

/// Whether a backup that has a parent learns which blocks it need not read: the local way from the log, the way through the server
/// from the server, if that is of version 17 or later and has `summarize_wal`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeTracking {
    /// Where what changed since the parent is known without a doubt, other blocks are taken from the parent; where not, every block
    /// is read and compared, and the snapshot says why.
    #[default]
    Auto,
    /// Every block is read and compared.
    Never,
    /// Every block is read and compared, and whatever changed without a word in the log becomes a finding. Through the server both
    /// are sent, what changed and then everything, so on a busy one what changes in between is reported, too.
    Verify,
    /// As [`Auto`](Self::Auto), and where the log does not tell, the local way believes the server's own summaries. They are
    /// recognised by names: cluster, timeline and position. Of a cluster that was copied and goes on twice under the same names that
    /// is not enough.
    Summaries,
}

/// How a restored server gets the log behind its backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Replay {
    /// As files in its `pg_wal`. The restore ends when everything is written; the server is started when it suits. Needs room for the
    /// log.
    #[default]
    Files,
    /// From this process, by streaming replication. The restore goes on until the server, which is started meanwhile, has reached the
    /// target. Needs no room but what the server itself wants.
    Serve,
}

/// What a restored server does when it has reached the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TargetAction {
    /// Becomes a primary on a timeline of its own.
    #[default]
    Promote,
    /// Waits, readable, for `pg_wal_replay_resume()` or a further target.
    Pause,
    /// Shuts down.
    Shutdown,
}

/// One deployment of PostgreSQL: a running cluster to back up, or a directory to restore into. Data, not components.
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PostgresSettings {
    /// A libpq connection string or URI. What it leaves open is filled from the usual `PG*` variables.
    pub url: Option<String>,
    /// The data directory: where a backup may read if it is the very same cluster, and where a restore writes.
    pub data_dir: Option<PathBuf>,
    /// How to read. When not set: local where the server's data directory can be read here, by protocol otherwise.
    pub method: Option<Method>,
    /// Where tablespaces are restored: an object identifier or the location at the time of the backup, and the directory to
    /// use instead.
    pub tablespaces: Vec<(String, PathBuf)>,
    /// Where tablespaces are restored that are not named above: below this directory, each in a folder with the name of its object
    /// identifier. When not set: where they were.
    pub tablespace_root: Option<PathBuf>,
    /// Restore into an existing data directory by rewriting only what differs.
    pub delta: bool,
    /// The checkpoint that a backup begins with.
    pub checkpoint: Checkpoint,
    /// How a backup finds out what changed since its parent.
    pub changes: ChangeTracking,
    /// The slot that keeps the log for capture.
    pub slot: LogSlot,
    /// How a restored server gets its log.
    pub replay: Replay,
    /// What a restored server does at the target.
    pub target_action: TargetAction,
}

impl fmt::Debug for PostgresSettings {
    /// Without the connection string, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("url", &self.url.as_ref().map(|_| format_args!("..")))
            .field("data_dir", &self.data_dir)
            .field("method", &self.method)
            .field("tablespaces", &self.tablespaces)
            .field("tablespace_root", &self.tablespace_root)
            .field("delta", &self.delta)
            .field("checkpoint", &self.checkpoint)
            .field("changes", &self.changes)
            .field("slot", &self.slot)
            .field("replay", &self.replay)
            .field("target_action", &self.target_action)
            .finish()
    }
}

impl PostgresSettings {
    /// Sets the connection string.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Sets the data directory.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Sets how to read.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Restores the tablespace `which` into `dir`.
    #[must_use]
    pub fn tablespace(mut self, which: impl Into<String>, dir: impl Into<PathBuf>) -> Self {
        self.tablespaces.push((which.into(), dir.into()));
        self
    }

    /// Restores every tablespace that is not named below `dir`.
    #[must_use]
    pub fn tablespace_root(mut self, dir: impl Into<PathBuf>) -> Self {
        self.tablespace_root = Some(dir.into());
        self
    }

    /// Sets whether an existing data directory is rewritten.
    #[must_use]
    pub fn delta(mut self, delta: bool) -> Self {
        self.delta = delta;
        self
    }

    /// Sets the checkpoint.
    #[must_use]
    pub fn checkpoint(mut self, checkpoint: Checkpoint) -> Self {
        self.checkpoint = checkpoint;
        self
    }

    /// Sets how a backup finds out what changed.
    #[must_use]
    pub fn changes(mut self, changes: ChangeTracking) -> Self {
        self.changes = changes;
        self
    }

    /// Sets the slot that keeps the log.
    #[must_use]
    pub fn slot(mut self, slot: LogSlot) -> Self {
        self.slot = slot;
        self
    }

    /// Sets how a restored server gets its log.
    #[must_use]
    pub fn replay(mut self, replay: Replay) -> Self {
        self.replay = replay;
        self
    }

    /// Sets what a restored server does at the target.
    #[must_use]
    pub fn target_action(mut self, action: TargetAction) -> Self {
        self.target_action = action;
        self
    }
}
