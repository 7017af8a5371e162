//! Turning a service off without losing anything, and on again.
//!
//! ```text
//! off: PowerOffBegun → everything is stored and the deployment stopped → PoweredOff → machines given up → Discarded
//! on:  RestoreBegun  → an empty deployment, the newest state restored, started           → Restored
//! ```
//! Every arrow may be the last thing that a process does. The next tick looks at what is there and goes on.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::capture::LAST_WORDS;
use super::lease::Held;
use super::managed::{ManagedService, state_of};
use super::role::Action;
use super::tick::Done;
use crate::catalog::{
    Actor, Audited, Catalog, Event, Origin, RestorePurpose, RunPurpose, ServiceChange, ServiceSpec, ServiceState, Stage,
};
use crate::engine::{BackupEngine, LogOptions, LogSink, Work};
use crate::entry::Selector;
use crate::env::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::id::BackupId;
use crate::position::LogPosition;
use crate::repository::{Found, Repository};
use crate::run;
use crate::target::{Goal, RecoveryTarget};

/// How long a capture may take to catch up with a deployment that is to be stopped, and with its end.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often a power-off whose writer was fenced begins again.
const REPEATS: usize = 2;

/// How the names of holds begin that keep the base of a fork; the fork's name follows.
pub(super) const FORK_HOLD: &str = "fork:";

/// The hold that keeps the base of a fork.
pub(super) fn fork_hold(fork: &crate::ServiceId) -> String {
    format!("{FORK_HOLD}{fork}")
}

impl ManagedService {
    /// Powers the service off, after everything of it is in the repository: the log up to its end where the engine has one, else a final
    /// backup. Without that it stays on, unless `accept_data_loss`.
    ///
    /// # Cancel safety
    /// When dropped after it has begun, the next tick goes on.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it does not run or `actor` may not; [`Conflict`](crate::ErrorKind::Conflict)
    /// while somebody works on it; what kept it from being stored, and then it stays on.
    pub async fn power_off(&self, actor: &Actor, accept_data_loss: bool, work: &Work) -> Result<()> {
        Action::Power.permit(actor)?;
        let held = self.begin(actor, ServiceChange::PowerOffBegun { accept_data_loss }).await?;
        let outcome = held.during(work, |work| async { self.finish_power_off(&held, &{ work }).await }).await;
        held.release().await;
        outcome.map(drop)
    }

    /// Powers the service on: restores its newest state, to the end of its log.
    ///
    /// # Cancel safety
    /// As [`power_off`](Self::power_off).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it is not off or `actor` may not; those of the restore, which the next tick
    /// repeats.
    pub async fn power_on(&self, actor: &Actor, work: &Work) -> Result<()> {
        Action::Power.permit(actor)?;
        self.restored(actor, RestorePurpose::PowerOn, work).await
    }

    /// Restores the newest state onto a new node, because the old one is lost.
    ///
    /// # Cancel safety
    /// As [`power_off`](Self::power_off).
    ///
    /// # Errors
    /// As [`power_on`](Self::power_on).
    pub async fn replace_node(&self, actor: &Actor, work: &Work) -> Result<()> {
        Action::Repair.permit(actor)?;
        if self.catalog().await?.latest_sound().is_none() {
            return Err(Error::invalid(format!("service {} has no backup that could be restored", self.id)));
        }
        self.restored(actor, RestorePurpose::Disaster, work).await
    }

    async fn restored(&self, actor: &Actor, purpose: RestorePurpose, work: &Work) -> Result<()> {
        let held = self.begin(actor, ServiceChange::RestoreBegun { purpose }).await?;
        let outcome = held.during(work, |work| async { self.finish_restore(&held, &{ work }).await }).await;
        held.release().await;
        outcome.map(drop)
    }

    /// Goes on with a power-off that has begun.
    pub(super) async fn finish_power_off(&self, held: &Held<'_>, work: &Work) -> Result<Done> {
        let catalog = self.catalog().await?;
        let service = state_of(&catalog)?;
        let Stage::PoweringOff { accept_data_loss } = service.stage else {
            return Err(Error::internal("a service that is not being powered off cannot be"));
        };
        let host = self.platform.host();
        let mut secured = self.secure(held, service, work).await;
        for _ in 0..REPEATS {
            // A capture that was about to open its writer has fenced ours. It finds out that it should not have, and there is no other.
            match &secured {
                Err(error) if error.kind() == ErrorKind::Conflict => secured = self.secure(held, service, work).await,
                _ => break,
            }
        }
        let loss = match secured {
            Ok(()) => None,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) if accept_data_loss => {
                host.stop(&self.id, &service.spec).await?;
                Some(error.to_string())
            }
            Err(error) => {
                host.start(&self.id, &service.spec).await?;
                let given_up = ServiceChange::PowerOffGivenUp { reason: error.to_string() };
                let catalog = held.commit(vec![given_up]).await?;
                self.tell(&catalog).await;
                return Err(error.context(format!("service {} stays on", self.id)));
            }
        };
        let catalog = held.commit(vec![ServiceChange::PoweredOff { loss }]).await?;
        self.tell(&catalog).await;
        self.discard(held, &service.spec).await?;
        Ok(Done::PoweredOff)
    }

    /// Gives up the machines.
    pub(super) async fn discard(&self, held: &Held<'_>, spec: &ServiceSpec) -> Result<()> {
        self.platform.host().discard(&self.id, spec).await?;
        held.commit(vec![ServiceChange::Discarded]).await.map(drop)
    }

    /// Makes sure that everything is in the repository and that the deployment has stopped.
    async fn secure(&self, held: &Held<'_>, service: &ServiceState, work: &Work) -> Result<()> {
        if let Some(reason) = &service.suspended {
            return Err(Error::invalid(format!(
                "no backups are taken of {} ({reason}): powering it off loses its data, which has to be accepted",
                self.id
            )));
        }
        let host = self.platform.host();
        let mut engine = match host.running(&self.id, &service.spec).await {
            Ok(engine) => Some(engine),
            // It was stopped before whoever stopped it could say so.
            Err(error) if error.kind() == ErrorKind::Unavailable => None,
            Err(error) => return Err(error),
        };
        if engine.is_none() {
            let stopped = host.stop(&self.id, &service.spec).await?;
            let begun = |audited: &&Audited| matches!(audited.change, ServiceChange::PowerOffBegun { .. });
            let begun = service.trail.iter().rev().find(begun).map_or(Timestamp::MAX, |audited| audited.at);
            if self.is_secured(service, stopped.log_end.as_ref(), begun).await? {
                return Ok(());
            }
            host.start(&self.id, &service.spec).await?;
            engine = Some(host.running(&self.id, &service.spec).await?);
        }
        let Some(engine) = engine else { return Err(Error::internal("a deployment that runs has no engine")) };
        host.quiesce(&self.id, &service.spec).await?;
        if engine.log().is_none() {
            self.take(held, RunPurpose::Final, self.platform.env().now(), work).await?;
            host.stop(&self.id, &service.spec).await?;
            return Ok(());
        }
        if self.catalog().await?.latest_sound().is_none() {
            self.take(held, RunPurpose::Final, self.platform.env().now(), work).await?;
        }
        self.drain(&engine, held, &service.spec, work).await
    }

    /// Whether a deployment that is stopped was secured before: by its log up to where it ends, or by the final backup of whoever turned it
    /// off or deleted it, which was `begun` then.
    async fn is_secured(
        &self,
        service: &ServiceState,
        log_end: Option<&LogPosition>,
        begun: Timestamp,
    ) -> Result<bool> {
        match log_end {
            Some(end) => self.leads_to(end).await,
            None => Ok(Self::has_final(service, begun)),
        }
    }

    /// Whether a final backup was taken since then.
    fn has_final(service: &ServiceState, since: Timestamp) -> bool {
        let last = service.last_made.as_ref();
        last.is_some_and(|made| made.run.purpose == RunPurpose::Final && made.run.started >= since)
    }

    /// Fetches what was written since the last look of a service that was deleted while it ran, before its machines are given up: whoever
    /// recovers it gets everything. For some hours after the deletion a failure is an error, so that it is tried again; then it is told.
    pub(super) async fn save_last_words(&self, held: &Held<'_>, service: &ServiceState, work: &Work) -> Result<()> {
        let Stage::Deleted { since } = service.stage else { return Ok(()) };
        if !Self::ran_when_deleted(service) || service.suspended.is_some() {
            return Ok(());
        }
        match self.secure_deleted(held, service, since, work).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) if self.platform.env().now().duration_since(since) < LAST_WORDS => {
                Err(error.context("what was written last to a deleted service is not stored yet"))
            }
            Err(error) => {
                let lost = format!("service {} was deleted, and what was written last is lost: {error}", self.id);
                self.trouble(lost).await;
                Ok(())
            }
        }
    }

    async fn secure_deleted(
        &self,
        held: &Held<'_>,
        service: &ServiceState,
        since: Timestamp,
        work: &Work,
    ) -> Result<()> {
        let (host, spec) = (self.platform.host(), &service.spec);
        let engine = match host.running(&self.id, spec).await {
            Ok(engine) => engine,
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                let stopped = host.stop(&self.id, spec).await?;
                // Of an engine with a log, a deployment that tells no end is gone: it was given up by whoever could not say so any more.
                let gone = stopped.log_end.is_none() && !self.catalog().await?.log().lineages().is_empty();
                if gone || self.is_secured(service, stopped.log_end.as_ref(), since).await? {
                    return Ok(());
                }
                host.start(&self.id, spec).await?;
                host.running(&self.id, spec).await?
            }
            Err(error) => return Err(error),
        };
        if engine.log().is_none() && Self::has_final(service, since) {
            return Ok(());
        }
        host.quiesce(&self.id, spec).await?;
        if engine.log().is_none() || self.catalog().await?.latest_sound().is_none() {
            self.take(held, RunPurpose::Final, self.platform.env().now(), work).await?;
        }
        if engine.log().is_none() { Ok(()) } else { self.drain(&engine, held, spec, work).await }
    }

    /// Whether a restore would come to `end`: a backup ends there, or the log behind it goes on to there without a hole.
    async fn leads_to(&self, end: &LogPosition) -> Result<bool> {
        let ledger = self.repository.log().await?.ledger();
        let catalog = self.catalog().await?;
        let sound = catalog.backups().filter(|backup| catalog.is_sound(backup.id));
        let mut stops = sound.filter_map(|backup| backup.snapshot.stop.as_ref());
        Ok(stops.any(|stop| {
            stop.lineage == end.lineage && stop.offset == end.offset
                || ledger.paths(stop).iter().any(|path| path.passes(&end.lineage, end.offset))
        }))
    }

    /// Follows the log while the deployment is being stopped, until all of it is durable.
    ///
    /// Where the log has a hole behind every backup (the server had removed it, or its history is another one), a backup is taken while it
    /// still runs: log that no backup leads to saves nothing.
    async fn drain(
        &self,
        engine: &Arc<dyn BackupEngine>,
        held: &Held<'_>,
        spec: &ServiceSpec,
        work: &Work,
    ) -> Result<()> {
        let (repository, clock) = (&self.repository, self.platform.env().clock());
        let log = engine.log().ok_or_else(|| Error::internal("an engine has lost its log"))?;
        let newest = self.catalog().await?.latest_sound().and_then(|backup| backup.snapshot.stop.clone());
        let now = engine.inspect().await?.position;
        let sink = repository.open_log(LogOptions::default(), work).await?;
        let cancel = work.cancel().child_token();
        let inner = work.clone().with_cancel(cancel.clone());
        let cx = crate::engine::LogContext::new(inner, Arc::clone(&sink)).with_backup(newest);
        let host = self.platform.host();
        let stopping = async {
            if let Some(now) = &now {
                within(&**clock, reached(&*sink, now)).await?;
                if !self.leads_to(now).await? {
                    self.take(held, RunPurpose::Final, self.platform.env().now(), work).await?;
                }
            }
            let ending = async {
                let stopped = host.stop(&self.id, spec).await?;
                let end = stopped.log_end.ok_or_else(|| {
                    Error::environment(
                        "nobody knows where the log of the stopped deployment ends, so some of it may be missing",
                    )
                })?;
                reached(&*sink, &end).await?;
                Ok(end)
            };
            let end = within(&**clock, ending).await?;
            if self.leads_to(&end).await? {
                return Ok(());
            }
            Err(Error::environment("the log has a hole between the newest backup and its end"))
        };
        let outcome = {
            let mut stream = std::pin::pin!(log.stream(&cx));
            let mut stopping = std::pin::pin!(stopping);
            tokio::select! {
                done = &mut stopping => {
                    cancel.cancel();
                    let ended = stream.await;
                    done.and(ended)
                }
                ended = &mut stream => match ended {
                    Ok(()) => Err(Error::cancelled()),
                    Err(error) => Err(error.context("the log could not be followed to its end")),
                },
            }
        };
        let closed = sink.close().await;
        outcome.and(closed)
    }

    /// Goes on with a restore that has begun.
    pub(super) async fn finish_restore(&self, held: &Held<'_>, work: &Work) -> Result<Done> {
        let catalog = self.catalog().await?;
        let service = state_of(&catalog)?;
        let Stage::Restoring { purpose, .. } = service.stage else {
            return Err(Error::internal("a service that is not being restored cannot be"));
        };
        let (host, spec) = (self.platform.host(), &service.spec);
        if let Some(backup) = self.restored_already(&catalog, service, purpose).await? {
            return self.commit_restored(held, spec, purpose, backup).await;
        }
        let engine = host.provision(&self.id, spec).await?;
        let backup = match (purpose, &spec.origin) {
            (RestorePurpose::Fork, Some(origin)) => {
                let source = self.origin(origin).await?;
                Some(put_back(&*source, &engine, fork_target(origin), work).await?)
            }
            _ if catalog.latest().is_none() => None,
            _ => Some(put_back(&*self.repository, &engine, RecoveryTarget::latest(), work).await?),
        };
        host.start(&self.id, spec).await?;
        self.commit_restored(held, spec, purpose, backup).await
    }

    /// The backup of a deployment that serves already, because whoever has started it could not say so any more. Clients may have written
    /// since, so it is not restored again. A node that was lost is another matter: what serves there is what is to be replaced.
    async fn restored_already(
        &self,
        catalog: &Catalog,
        service: &ServiceState,
        purpose: RestorePurpose,
    ) -> Result<Option<Option<BackupId>>> {
        if purpose == RestorePurpose::Disaster {
            return Ok(None);
        }
        match self.platform.host().running(&self.id, &service.spec).await {
            Ok(_) => {
                let origin = service.spec.origin.as_ref().filter(|_| purpose == RestorePurpose::Fork);
                Ok(Some(origin.map(|o| o.backup).or(catalog.latest().map(|backup| backup.id))))
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says that the service runs, and lets go of what was only needed until then.
    async fn commit_restored(
        &self,
        held: &Held<'_>,
        spec: &ServiceSpec,
        purpose: RestorePurpose,
        backup: Option<BackupId>,
    ) -> Result<Done> {
        let catalog = held.commit(vec![ServiceChange::Restored { backup }]).await?;
        self.tell(&catalog).await;
        if let (RestorePurpose::Fork, Some(origin)) = (purpose, &spec.origin) {
            self.let_go(origin).await;
        }
        Ok(Done::Restored(backup))
    }

    async fn origin(&self, origin: &Origin) -> Result<Arc<dyn Repository>> {
        match self.platform.regions().vault(&origin.location)?.find(&origin.service).await? {
            Found::Repository(repository) => Ok(repository),
            _ => Err(Error::invalid(format!(
                "service {}, which is being forked, does not exist any more",
                origin.service
            ))),
        }
    }

    /// Ends the hold on the base of this fork. If that fails, the source finds out by itself.
    async fn let_go(&self, origin: &Origin) {
        let hold = fork_hold(&self.id);
        let released = async {
            let source = self.origin(origin).await?;
            let at = self.platform.env().now();
            let mut decide = |catalog: &Catalog| {
                let there = catalog.holds(origin.backup).any(|(name, _)| name == hold);
                let by = self.platform.actor();
                let event = Event::HoldReleased { backup: origin.backup, hold: hold.clone(), by, at };
                Ok(there.then_some(event).into_iter().collect())
            };
            source.decide(&mut decide).await
        };
        if let Err(error) = released.await {
            tracing::warn!(service = %self.id, %error, "the hold on the base of a fork could not be released");
        }
    }
}

/// What comes of `waiting` for the log, which takes no longer than [`PATIENCE`].
async fn within<T>(clock: &dyn Clock, waiting: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = waiting => done,
        () = clock.sleep(PATIENCE) => Err(Error::unavailable(format!(
            "the log was not stored to its end within {} s", PATIENCE.as_secs()
        ))),
    }
}

/// Waits until the log is durable up to `end`.
async fn reached(sink: &dyn LogSink, end: &LogPosition) -> Result<()> {
    sink.flush();
    loop {
        let durable = sink.durable();
        if durable.as_ref().is_some_and(|durable| durable.lineage == end.lineage && durable.offset >= end.offset)
            || end.offset > 0 && sink.ledger().covered(&end.lineage).containing(end.offset - 1).is_some()
        {
            return Ok(());
        }
        sink.advanced(durable.as_ref()).await?;
    }
}

fn fork_target(origin: &Origin) -> RecoveryTarget {
    match origin.time {
        Some(time) => RecoveryTarget::new(Goal::Time(time)),
        None if origin.latest => RecoveryTarget::latest(),
        None => RecoveryTarget::backup(origin.backup),
    }
}

/// Restores `target` from `repository`.
async fn put_back(
    repository: &dyn Repository,
    engine: &Arc<dyn BackupEngine>,
    target: RecoveryTarget,
    work: &Work,
) -> Result<BackupId> {
    let plan = run::plan_restore(repository, &**engine, target, Selector::all(), work).await?;
    run::restore(&**engine, &plan, work).await?;
    Ok(plan.backup.id)
}
