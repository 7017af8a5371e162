//! The loop of a runner: ticks, and beside them the captures of all services whose log is to be followed.
//!
//! A tick decides and ends; a capture goes on for as long as its service runs. So ticks say what should be followed and stay a function of
//! catalog and clock, and the tasks that follow belong to this loop: one for each service, started and cancelled as the ticks say. Drills are done beside
//! both, one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::fleet::{Fleet, FleetTick, PULSE};
use super::managed::ManagedService;
use crate::engine::Work;
use crate::error::{ErrorKind, Result};
use crate::id::ServiceId;

impl Fleet {
    /// Runs all services until `work` is cancelled, which is its usual end and no error: does what is due, and follows the logs of those
    /// that run. Of several runners one follows a log, and another one takes over when it has given no sign of life for the length of a lease.
    ///
    /// # Cancel safety
    /// Cancelling `work` stores what was received of each log and gives the captures back before this returns. When the future is dropped,
    /// nothing is lost that was acknowledged.
    ///
    /// # Errors
    /// None that a later tick might not have: those are logged.
    pub async fn run(&self, work: &Work) -> Result<()> {
        self.run_with(work, |_| {}).await
    }

    /// [Runs](Self::run) all services and shows what each tick did.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_with(&self, work: &Work, seen: impl FnMut(&FleetTick) + Send) -> Result<()> {
        futures::join!(self.keep_ticking(work, seen), self.keep_captures(work), self.keep_drilling(work));
        Ok(())
    }

    async fn keep_ticking(&self, work: &Work, mut seen: impl FnMut(&FleetTick) + Send) {
        loop {
            match self.tick(work).await {
                Ok(tick) => {
                    for (service, problem) in &tick.failed {
                        tracing::warn!(%service, problem, "a service could not be run");
                    }
                    seen(&tick);
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => return,
                Err(error) => tracing::warn!(%error, "the services could not be run"),
            }
            let pause = self.next().map_or(PULSE, |next| {
                let left = next.duration_since(self.platform().env().now());
                Duration::try_from(left).unwrap_or(Duration::ZERO).clamp(Duration::from_millis(100), PULSE)
            });
            let waited = work.cancel().run_until_cancelled(self.platform().env().clock().sleep(pause)).await;
            if waited.is_none() {
                return;
            }
        }
    }

    /// One drill at a time, and none of them holds up a tick.
    async fn keep_drilling(&self, work: &Work) {
        loop {
            match self.drill(work).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::Cancelled => return,
                Err(error) => tracing::warn!(%error, "a drill could not be begun"),
            }
            tokio::select! {
                () = self.platform().changed_drills().notified() => {}
                // Pauses of drills that could not be done end by the clock.
                () = self.platform().env().clock().sleep(PULSE) => {}
                () = work.cancel().cancelled() => return,
            }
        }
    }

    async fn keep_captures(&self, work: &Work) {
        let mut captures = Captures::default();
        while !work.cancel().is_cancelled() {
            captures.reconcile(&self.to_capture(), work);
            tokio::select! {
                () = self.platform().changed().notified() => {}
                () = captures.ended() => {}
                // Another loop of this process may have been told instead of this one.
                () = self.platform().env().clock().sleep(PULSE) => {}
                () = work.cancel().cancelled() => {}
            }
        }
        captures.finish().await;
    }
}

/// The captures of this process.
#[derive(Default)]
struct Captures {
    tasks: JoinSet<()>,
    services: BTreeMap<ServiceId, (Id, CancellationToken)>,
}

impl Captures {
    /// Ends those that are not wanted any more and begins those that are.
    fn reconcile(&mut self, wanted: &[ManagedService], work: &Work) {
        let names: BTreeSet<_> = wanted.iter().map(ManagedService::id).collect();
        for (service, (_, cancel)) in &self.services {
            if !names.contains(service) {
                cancel.cancel();
            }
        }
        for service in wanted {
            if self.services.contains_key(service.id()) {
                continue;
            }
            let cancel = work.cancel().child_token();
            let (of, work) = (service.clone(), work.clone().with_cancel(cancel.clone()));
            let task = self.tasks.spawn(async move {
                if let Err(error) = of.capture(&work).await {
                    tracing::error!(service = %of.id(), %error, "a capture has ended by a bug");
                }
            });
            self.services.insert(service.id().clone(), (task.id(), cancel));
        }
    }

    /// Returns when one has ended; never, while there is none.
    async fn ended(&mut self) {
        let id = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => {
                tracing::error!(%error, "a capture has ended by a bug");
                error.id()
            }
            None => std::future::pending().await,
        };
        self.services.retain(|_, (task, _)| *task != id);
    }

    /// Waits until all have ended. They were cancelled.
    async fn finish(mut self) {
        while !self.services.is_empty() {
            self.ended().await;
        }
    }
}
