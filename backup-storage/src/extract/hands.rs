//! Blocking work of one extraction: bounded, stoppable, and waited for.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

/// Runs blocking work, as much at a time as there are workers.
///
/// What is running when the extraction ends for whatever reason stops at the next segment; [`settle`](Self::settle) waits
/// for that, so that nothing writes any more once a failure has been reported.
#[derive(Debug)]
pub(super) struct Hands {
    free: Arc<Semaphore>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// Whether to go on.
#[derive(Debug, Clone)]
pub(super) struct Stop(CancellationToken);

impl Stop {
    /// # Errors
    /// Cancelled, when the work is to stop.
    pub(super) fn check(&self) -> Result<()> {
        if self.0.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }
}

impl Hands {
    pub(super) fn new(workers: usize, cancel: &CancellationToken) -> Self {
        let free = Arc::new(Semaphore::new(workers));
        Self { free, tracker: TaskTracker::new(), stop: cancel.child_token() }
    }

    /// What stops everything when it is dropped.
    pub(super) fn guard(&self) -> DropGuard {
        self.stop.clone().drop_guard()
    }

    /// Runs `work` on a thread where it may take its time, when a worker is free.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Stop) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.free).acquire_owned().await;
        let permit = permit.map_err(|e| Error::internal("the workers have ended").with_source(e))?;
        let stop = Stop(self.stop.clone());
        let span = tracing::Span::current();
        let task = self.tracker.spawn_blocking(move || {
            let _permit = permit;
            stop.check()?;
            span.in_scope(|| work(&stop))
        });
        task.await.map_err(|e| Error::internal("a worker panicked").with_source(e))?
    }

    /// Runs `work` beside the workers.
    pub(super) fn aside(&self, work: impl FnOnce(&Stop) + Send + 'static) {
        let stop = Stop(self.stop.clone());
        self.tracker.spawn_blocking(move || work(&stop));
    }

    /// Stops what is running and waits until it has stopped.
    pub(super) async fn settle(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
