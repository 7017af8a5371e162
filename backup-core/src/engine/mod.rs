//! What an engine is: a handle on one deployment that can be read into a backup and written from one.
//!
//! An engine never sees a key, an object name, a retention rule or another engine. It gets a [sink](BackupSink) or a
//! [source](BackupSource) and returns facts.

mod context;
mod drill;
mod log;
pub mod members;
mod patch;
mod sink;
mod source;

pub use context::{BackupContext, CheckContext, RestoreContext, Work};
pub use drill::{DrillEngine, Examined, Reached, ScratchInstance};
pub(crate) use log::no_position;
pub use log::{Imported, LogContext, LogEngine, LogOptions, LogSink, LogSource, RestoreLog, StatedPosition};
pub use patch::Patch;
pub use sink::{BackupSink, BackupSinkExt, BlockInspector, Changes, LocalFile, OnShrink, Put, Stored, Unchanged};
pub use source::{BackupSource, BackupSourceExt, Existing, Extract, Extracted, Footprint};

use std::fmt::{Debug, Display};

use async_trait::async_trait;

use crate::error::Result;
use crate::position::LogPosition;
use crate::snapshot::{Consistency, Finding, Severity, Snapshot};

/// What an engine can do, known without a connection.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct EngineDescriptor {
    /// Its name on command lines, in catalogs and in records, e.g. `postgres`.
    pub name: &'static str,
    /// Its name for people, e.g. `PostgreSQL`.
    pub title: &'static str,
    /// How the parts of its backups belong together.
    pub consistency: Consistency,
    /// What its selectors choose, one line, e.g. `paths inside the data directory`.
    pub selectors: &'static str,
}

impl EngineDescriptor {
    /// A descriptor.
    #[must_use]
    pub const fn new(
        name: &'static str,
        title: &'static str,
        consistency: Consistency,
        selectors: &'static str,
    ) -> Self {
        Self { name, title, consistency, selectors }
    }
}

/// What an engine found at its deployment.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Deployment {
    /// Identity that two deployments never share; equal to [`Snapshot::source`].
    pub source: String,
    /// Version of the server.
    pub version: String,
    /// How a backup would be read, e.g. `local` or `protocol`.
    pub method: String,
    /// Size of what a backup reads, where it can be estimated, in bytes.
    pub bytes: Option<u64>,
    /// Where the change stream stands, where there is one.
    pub position: Option<LogPosition>,
    /// What was noticed. A [blocker](Severity::Blocker) means that a backup would fail.
    pub findings: Vec<Finding>,
}

impl Deployment {
    /// A deployment without findings.
    pub fn new(source: impl Into<String>, version: impl Into<String>, method: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            version: version.into(),
            method: method.into(),
            bytes: None,
            position: None,
            findings: Vec::new(),
        }
    }
}

/// What a restore did.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Restored {
    /// What was written.
    pub extracted: Extracted,
    /// What was noticed.
    pub findings: Vec<Finding>,
}

impl Restored {
    /// A restore that wrote `extracted`.
    #[must_use]
    pub fn new(extracted: Extracted) -> Self {
        Self { extracted, findings: Vec::new() }
    }
}

/// What an offline check saw.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// Entries that were looked at.
    pub entries: u64,
    /// Bytes of content that were looked at.
    pub bytes: u64,
    /// What was noticed. A [blocker](Severity::Blocker) means that the backup cannot be trusted.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// Whether nothing was found that makes the backup untrustworthy.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|f| f.severity < Severity::Blocker)
    }
}

/// A handle on one deployment of a database. `Display` names it without secrets.
#[async_trait]
pub trait BackupEngine: Debug + Display + Send + Sync + 'static {
    /// What it can do.
    fn descriptor(&self) -> &EngineDescriptor;

    /// Looks at the deployment without changing it.
    ///
    /// # Errors
    /// When it cannot be reached or understood. What merely stands in the way of a backup is a finding.
    async fn inspect(&self) -> Result<Deployment>;

    /// Reads the deployment and puts everything that a restore needs into the context's sink. Never commits.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the deployment as it was, at the latest when its connections have closed.
    ///
    /// # Errors
    /// Whatever prevents a backup that can be restored.
    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot>;

    /// Says why a restore into this deployment would be refused, or what about it deserves attention. Changes nothing.
    ///
    /// # Errors
    /// When the target cannot be looked at.
    async fn assess_restore(&self, cx: &RestoreContext) -> Result<Vec<Finding>>;

    /// Writes the context's source into this deployment. Refuses what [`assess_restore`](Self::assess_restore) blocks.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a target that does not start, and that the same restore can complete.
    ///
    /// # Errors
    /// [`Damaged`](crate::ErrorKind::Damaged) when stored content is not what it must be: then the target does not start.
    async fn restore(&self, cx: &RestoreContext) -> Result<Restored>;

    /// Checks a stored backup with what only this engine knows, without a server.
    ///
    /// # Errors
    /// When the backup cannot be read. What is wrong inside of it is a finding.
    async fn check(&self, cx: &CheckContext) -> Result<CheckReport>;

    /// Its change stream, where it has one that can be captured.
    fn log(&self) -> Option<&dyn LogEngine> {
        None
    }
}
