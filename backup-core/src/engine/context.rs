//! What an engine is given for one piece of work. Private fields: contexts grow without breaking engines.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::log::{LogSource, RestoreLog};
use super::sink::BackupSink;
use super::source::BackupSource;
use crate::catalog::BackupRecord;
use crate::entry::Selector;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::observe::{Observer, Phase, Progress, Unit, silent};
use crate::target::RecoveryTarget;

/// What every piece of work has: environment, observer, cancellation.
#[derive(Debug, Clone)]
pub struct Work {
    env: Env,
    observer: Arc<dyn Observer>,
    cancel: CancellationToken,
}

impl Default for Work {
    fn default() -> Self {
        Self::new(Env::system())
    }
}

impl Work {
    /// Work in `env` that nobody observes or cancels.
    #[must_use]
    pub fn new(env: Env) -> Self {
        Self { env, observer: silent(), cancel: CancellationToken::new() }
    }

    /// Sets who observes it.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Sets by what it is cancelled.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancellationToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Clock and randomness.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Who observes.
    #[must_use]
    pub fn observer(&self) -> &Arc<dyn Observer> {
        &self.observer
    }

    /// Cancelled when the work is to stop.
    #[must_use]
    pub fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// An error of kind [`Cancelled`](crate::ErrorKind::Cancelled) when the work is to stop.
    ///
    /// # Errors
    /// Only that one.
    pub fn checkpoint(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Runs `future` until it ends or the work is cancelled; then it is dropped.
    ///
    /// # Errors
    /// Those of `future`, or [`Cancelled`](crate::ErrorKind::Cancelled).
    pub async fn run<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        match self.cancel.run_until_cancelled(future).await {
            Some(outcome) => outcome,
            None => Err(Error::cancelled()),
        }
    }

    /// Reports that `phase` begins.
    pub fn started(&self, phase: Phase, total: Option<u64>, unit: Unit) {
        self.observer.on(&Progress::Started { phase, total, unit });
    }

    /// Reports that `by` more of `phase` is done.
    pub fn advanced(&self, phase: Phase, by: u64) {
        self.observer.on(&Progress::Advanced { phase, by });
    }

    /// Reports that `phase` has ended.
    pub fn ended(&self, phase: Phase) {
        self.observer.on(&Progress::Ended { phase });
    }
}

/// What an engine is given to take a backup.
#[derive(Debug, Clone)]
pub struct BackupContext {
    work: Work,
    sink: Arc<dyn BackupSink>,
    parent: Option<BackupRecord>,
    parent_source: Option<Arc<dyn BackupSource>>,
    log: Option<Arc<dyn LogSource>>,
}

impl BackupContext {
    /// A context that writes into `sink`, whose content may be shared with `parent`.
    pub fn new(work: Work, sink: Arc<dyn BackupSink>, parent: Option<BackupRecord>) -> Self {
        Self { work, sink, parent, parent_source: None, log: None }
    }

    /// Sets where the parent can be read.
    #[must_use]
    pub fn with_parent_source(mut self, source: Option<Arc<dyn BackupSource>>) -> Self {
        self.parent_source = source;
        self
    }

    /// Sets the log of the same service.
    #[must_use]
    pub fn with_log(mut self, log: Option<Arc<dyn LogSource>>) -> Self {
        self.log = log;
        self
    }

    /// The stored log of the same service, as it was when the backup began. It knows what changed since the parent.
    #[must_use]
    pub fn log(&self) -> Option<&Arc<dyn LogSource>> {
        self.log.as_ref()
    }

    /// Environment, observer, cancellation.
    #[must_use]
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Takes the entries.
    #[must_use]
    pub fn sink(&self) -> &Arc<dyn BackupSink> {
        &self.sink
    }

    /// The backup whose content is reused. Only an optimisation: what the engine puts must be complete without it.
    #[must_use]
    pub fn parent(&self) -> Option<&BackupRecord> {
        self.parent.as_ref()
    }

    /// The same backup for reading. What an engine may want to know of it is what a source compares with.
    #[must_use]
    pub fn parent_source(&self) -> Option<&Arc<dyn BackupSource>> {
        self.parent_source.as_ref()
    }
}

/// What an engine is given to restore.
#[derive(Debug, Clone)]
pub struct RestoreContext {
    work: Work,
    source: Arc<dyn BackupSource>,
    target: RecoveryTarget,
    selector: Selector,
    log: Option<RestoreLog>,
}

impl RestoreContext {
    /// A context that restores all of `source`.
    pub fn new(work: Work, source: Arc<dyn BackupSource>, target: RecoveryTarget) -> Self {
        Self { work, source, target, selector: Selector::all(), log: None }
    }

    /// Restricts the restore to some entries; what that means is the engine's rule.
    #[must_use]
    pub fn with_selector(mut self, selector: Selector) -> Self {
        self.selector = selector;
        self
    }

    /// Environment, observer, cancellation.
    #[must_use]
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// The backup.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn BackupSource> {
        &self.source
    }

    /// What is to be reached.
    #[must_use]
    pub fn target(&self) -> &RecoveryTarget {
        &self.target
    }

    /// Hands on the log behind the backup.
    #[must_use]
    pub fn with_log(mut self, log: Option<RestoreLog>) -> Self {
        self.log = log;
        self
    }

    /// The log behind the backup, up to where a restore may go. None when the backup is restored alone.
    #[must_use]
    pub fn log(&self) -> Option<&RestoreLog> {
        self.log.as_ref()
    }

    /// Which entries are wanted.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.selector
    }
}

/// What an engine is given to check a stored backup offline.
#[derive(Debug, Clone)]
pub struct CheckContext {
    work: Work,
    source: Arc<dyn BackupSource>,
}

impl CheckContext {
    /// A context that checks `source`.
    pub fn new(work: Work, source: Arc<dyn BackupSource>) -> Self {
        Self { work, source }
    }

    /// Environment, observer, cancellation.
    #[must_use]
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// The backup.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn BackupSource> {
        &self.source
    }
}
