//! What the platform does for a service: it has the machines.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use super::DrillPlace;
use crate::catalog::ServiceSpec;
use crate::engine::BackupEngine;
use crate::error::Result;
use crate::id::ServiceId;
use crate::position::LogPosition;

/// How a deployment ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// Where its change log ends, if it was stopped cleanly and that is known: whoever has the log up to there has everything.
    pub log_end: Option<LogPosition>,
}

impl Stopped {
    /// Stopped with a log that ends there.
    #[must_use]
    pub fn at(log_end: Option<LogPosition>) -> Self {
        Self { log_end }
    }
}

/// Runs the deployments of services. Implemented by whoever embeds the library.
///
/// Every call may be repeated after a crash of the caller, also when the first one was carried out: what is asked for already is done.
#[async_trait]
pub trait ServiceHost: Debug + Send + Sync + 'static {
    /// The engine of the deployment that runs: it has replayed its log and serves.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when it does not.
    async fn running(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<Arc<dyn BackupEngine>>;

    /// Makes an empty deployment that nobody uses, and returns the engine that restores into it. What an earlier call has left is discarded.
    ///
    /// # Errors
    /// When there is no machine for it.
    async fn provision(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<Arc<dyn BackupEngine>>;

    /// Starts what was restored, or stopped. Returns once it has replayed its log and serves. One that runs is let to serve again.
    ///
    /// # Errors
    /// When it does not come up.
    async fn start(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<()>;

    /// Keeps clients out, so that nothing is written any more while the last of it is stored. Ends with [`stop`](Self::stop), or with
    /// [`start`](Self::start) when the deployment stays on after all.
    ///
    /// # Errors
    /// When somebody may still be writing.
    async fn quiesce(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<()>;

    /// Stops the deployment, cleanly if it can. One that does not run counts as stopped. Its data stays until it is discarded.
    ///
    /// # Errors
    /// When it is still running.
    async fn stop(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<Stopped>;

    /// Gives up the machines and their disks.
    ///
    /// # Errors
    /// When something of it is still there.
    async fn discard(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<()>;

    /// Where its backups may be proven by restoring them. None, unless the host says otherwise: then drills are left to other runners. A place that
    /// has no account in common with the deployment, and a disk of its own, is the best one.
    ///
    /// # Errors
    /// When that cannot be told.
    async fn drill_place(&self, _service: &ServiceId, _spec: &ServiceSpec) -> Result<Option<DrillPlace>> {
        Ok(None)
    }
}
