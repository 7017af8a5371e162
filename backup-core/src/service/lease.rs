//! One runner at a time.
//!
//! A lease is taken by a commit, kept by commits, and named by every commit of the work that is done under it. Whoever is overtaken
//! learns it from the refusal of the next one, and its work is dropped; what it has stored stays invisible, because the one who overtook it
//! has fenced its sessions in the same commit that took the lease.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::platform::Platform;
use crate::catalog::{Catalog, CloseReason, Event, Rejected, ServiceChange, ServiceRejected, SessionState};
use crate::engine::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::repository::Repository;

/// The right to work on one service.
#[derive(Debug)]
pub(super) struct Held<'a> {
    platform: &'a Platform,
    repository: &'a Arc<dyn Repository>,
    number: u64,
}

/// An event about the service.
pub(super) fn event(platform: &Platform, lease: Option<u64>, change: ServiceChange) -> Event {
    Event::Service { change, lease, by: platform.actor(), at: platform.env().now() }
}

/// Whether somebody else is at work.
pub(super) fn is_busy(catalog: &Catalog, now: Timestamp) -> bool {
    catalog.service().and_then(|service| service.lease.as_ref()).is_some_and(|lease| now < lease.until)
}

impl<'a> Held<'a> {
    /// Takes the lease, and ends what the one who held it before has left open.
    ///
    /// # Errors
    /// Conflict while somebody else is at work.
    pub(super) async fn take(platform: &'a Platform, repository: &'a Arc<dyn Repository>) -> Result<Self> {
        let mut number = 0;
        let mut decide = |catalog: &Catalog| {
            let service = catalog.service().ok_or(Rejected::from(ServiceRejected::NotCreated))?;
            let at = platform.env().now();
            number = service.leases + 1;
            let until = until(at, platform.lease())?;
            let taken = ServiceChange::LeaseTaken { lease: number, runner: platform.runner().to_owned(), until };
            let mut events = vec![event(platform, None, taken)];
            // A backup that is under way without a lease was left by a runner that is gone.
            if let Some(run) = service.run {
                let left = catalog.sessions().filter_map(|(session, state)| match state {
                    SessionState::Open { at, .. } if *at >= run.started => Some(session),
                    _ => None,
                });
                let fenced = |session| Event::SessionClosed { session, at, reason: CloseReason::Fenced };
                events.extend(left.map(fenced));
                let made = catalog.backups().filter(|backup| backup.started_at >= run.started);
                let backup = made.max_by_key(|backup| (backup.started_at, backup.id)).map(|backup| backup.id);
                let problem = backup.is_none().then(|| "its runner has ended in the middle of it".to_owned());
                events.push(event(platform, Some(number), ServiceChange::RunEnded { backup, problem }));
            }
            Ok(events)
        };
        repository.decide(&mut decide).await?;
        Ok(Self { platform, repository, number })
    }

    /// Commits `changes` if the lease is still held.
    ///
    /// # Errors
    /// Conflict when it is not, or when they do not fit.
    pub(super) async fn commit(&self, changes: Vec<ServiceChange>) -> Result<Arc<Catalog>> {
        self.commit_with(changes, |_| Ok(Vec::new())).await
    }

    /// Commits `changes` and what `more` makes of the catalog, if the lease is still held.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), and those of `more`.
    pub(super) async fn commit_with(
        &self,
        changes: Vec<ServiceChange>,
        mut more: impl FnMut(&Catalog) -> Result<Vec<Event>> + Send,
    ) -> Result<Arc<Catalog>> {
        let own = |change| event(self.platform, Some(self.number), change);
        let mut decide = |catalog: &Catalog| {
            let more = more(catalog)?;
            if changes.is_empty() && more.is_empty() {
                return Ok(Vec::new());
            }
            let mut events: Vec<_> = changes.iter().cloned().map(own).collect();
            if events.is_empty() {
                let until = until(self.platform.env().now(), self.platform.lease())?;
                events.push(own(ServiceChange::LeaseRenewed { until }));
            }
            events.extend(more);
            Ok(events)
        };
        self.repository.decide(&mut decide).await
    }

    /// Does `task`, and says now and then that it is still being done.
    ///
    /// # Errors
    /// Those of the task; Conflict when the lease was lost, and then the task was cancelled.
    pub(super) async fn during<T, F: Future<Output = Result<T>>>(
        &self,
        work: &Work,
        task: impl FnOnce(Work) -> F,
    ) -> Result<T> {
        let cancel = work.cancel().child_token();
        let task = task(work.clone().with_cancel(cancel.clone()));
        let mut task = std::pin::pin!(task);
        let mut renewing = std::pin::pin!(self.renew());
        let lost = tokio::select! {
            outcome = &mut task => return outcome,
            lost = &mut renewing => lost,
        };
        // What can be undone gets the chance to be.
        cancel.cancel();
        let _ = task.await;
        Err(lost)
    }

    /// Renews the lease until that is not possible any more.
    async fn renew(&self) -> Error {
        let clock = self.platform.env().clock();
        let (third, mut until_known) = (self.platform.lease() / 3, clock.monotonic() + self.platform.lease());
        loop {
            clock.sleep(third).await;
            let now = self.platform.env().now();
            let renewed = match until(now, self.platform.lease()) {
                Ok(until) => self.commit(vec![ServiceChange::LeaseRenewed { until }]).await,
                Err(error) => Err(error),
            };
            match renewed {
                Ok(_) => until_known = clock.monotonic() + self.platform.lease(),
                // A store that is away for a moment takes nothing from us before the lease ends.
                Err(error) if error.kind() == ErrorKind::Unavailable && clock.monotonic() < until_known => {
                    tracing::warn!(%error, repository = %self.repository, "the lease could not be renewed");
                }
                Err(error) => return error,
            }
        }
    }

    /// Gives the lease back. One that cannot be given back ends by itself.
    pub(super) async fn release(self) {
        if let Err(error) = self.commit(vec![ServiceChange::LeaseReleased]).await {
            tracing::warn!(%error, repository = %self.repository, "the lease could not be given back");
        }
    }
}

pub(super) fn until(now: Timestamp, lease: Duration) -> Result<Timestamp> {
    let lease = SignedDuration::try_from(lease).unwrap_or(SignedDuration::MAX);
    now.checked_add(lease).map_err(|e| Error::internal("a lease ends after all time").with_source(e))
}
