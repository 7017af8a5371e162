//! Engines whose backups can be proven: restored into a scratch instance that nobody else can reach, and looked at there.

use std::fmt::{Debug, Display};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{BackupEngine, EngineDescriptor, RestoreContext, Work};
use crate::catalog::{DrillCheck, DrillOutcome};
use crate::error::Result;
use crate::position::LogPosition;
use crate::scratch::Scratch;
use crate::snapshot::Finding;

/// What an instance has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reached {
    /// The position of its last change, as it tells it itself.
    pub position: Option<LogPosition>,
    /// The moment of that change.
    pub time: Option<Timestamp>,
}

impl Reached {
    /// An instance that tells this.
    #[must_use]
    pub fn new(position: Option<LogPosition>, time: Option<Timestamp>) -> Self {
        Self { position, time }
    }
}

/// What was seen in an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Examined {
    /// The checks, in the order in which they were made.
    pub checks: Vec<DrillCheck>,
    /// What was noticed, with what it is about.
    pub findings: Vec<Finding>,
    /// Whether it is what it must be.
    pub outcome: DrillOutcome,
    /// Why it is not, in one line.
    pub problem: Option<String>,
}

impl Default for Examined {
    fn default() -> Self {
        Self { checks: Vec::new(), findings: Vec::new(), outcome: DrillOutcome::Passed, problem: None }
    }
}

impl Examined {
    /// Notes that something is wrong. Damage counts more than anything else, and of two the first is told.
    pub fn wrong(&mut self, outcome: DrillOutcome, problem: impl Into<String>) {
        if self.outcome == DrillOutcome::Passed || (self.outcome == DrillOutcome::Failed && outcome != self.outcome) {
            (self.outcome, self.problem) = (outcome, Some(problem.into()));
        }
    }
}

/// An engine whose backups can be restored into a scratch instance and proven there. `Display` names it.
#[async_trait]
pub trait DrillEngine: Debug + Display + Send + Sync + 'static {
    /// Whose backups.
    fn descriptor(&self) -> &EngineDescriptor;

    /// An instance that will live in `scratch`. Nothing is started yet, unless the engine restores only into what runs.
    ///
    /// # Cancel safety
    /// When dropped, nothing runs.
    ///
    /// # Errors
    /// [`Environment`](crate::ErrorKind::Environment) when there can be none here.
    async fn prepare(&self, scratch: &mut Scratch, work: &Work) -> Result<Box<dyn ScratchInstance>>;
}

/// A database that lives for one drill. Nobody else can reach it, and it reaches nobody. Dropping it ends its server.
///
/// The calls come in the order in which they stand here. Each is measured by the caller.
#[async_trait]
pub trait ScratchInstance: Debug + Send + Sync {
    /// What restores into it.
    fn engine(&self) -> &dyn BackupEngine;

    /// Makes ready for the restore that `cx` describes: looks whether there is a server here for its backup, and makes the places that the restore
    /// needs. Returns what the server calls itself, e.g. `postgres (PostgreSQL) 17.6`.
    ///
    /// # Errors
    /// [`Environment`](crate::ErrorKind::Environment) when there is none, or when a drill of this target could act on something outside of
    /// `scratch`. Nothing was restored then.
    async fn make_ready(&mut self, scratch: &mut Scratch, cx: &RestoreContext) -> Result<String>;

    /// Starts the server on what was restored by `cx`.
    ///
    /// # Errors
    /// [`Environment`](crate::ErrorKind::Environment) when it does not start.
    async fn start(&mut self, scratch: &mut Scratch, cx: &RestoreContext) -> Result<()>;

    /// Waits until it has reached the target and serves.
    ///
    /// # Errors
    /// [`Damaged`](crate::ErrorKind::Damaged) when it says that what it was given is; [`Environment`](crate::ErrorKind::Environment) when it ends
    /// for another reason, or takes too long.
    async fn reach(&mut self, cx: &RestoreContext) -> Result<Reached>;

    /// Looks at everything that is in it. What is wrong is in the answer.
    ///
    /// # Errors
    /// When it could not be looked at.
    async fn examine(&mut self, scratch: &Scratch, cx: &RestoreContext) -> Result<Examined>;
}
