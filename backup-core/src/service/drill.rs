//! Drills of services under management: due by plan, one at a time, beside everything else.
//!
//! A drill may take hours, so it holds no lease: a backup that is due while it goes on begins on time. Who does it says so in the catalog
//! ([`Event::DrillBegun`]), again every third of a lease's length, and nobody else begins one meanwhile; when the word is not renewed, another runner may.
//! A drill is not begun while a backup is due or under way.

use std::sync::Arc;
use std::time::Duration;

use backup_policy::{DrillHistory, DrillSchedule, Due, Run};
use jiff::{SignedDuration, Timestamp};

use super::lease::{is_busy, until};
use super::managed::{ManagedService, explained, state_of};
use super::role::Action;
use super::tick::Done;
use super::{Notice, platform};
use crate::catalog::{Actor, Catalog, DrillRecord, DrillUnderWay, Event, ServiceState, Stage};
use crate::engine::{DrillEngine, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BackupId, DrillId};
use crate::run::{self, DrillOptions, DrillTarget};
use crate::scratch::ScratchRoot;

/// After a drill that could not begin the next attempt waits so long, twice as long after each further one, up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));

/// Where drills of a service may be done, and by what. Components, not data.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DrillPlace {
    /// What proves its backups.
    pub engine: Arc<dyn DrillEngine>,
    /// Where the instance lives.
    pub scratch: ScratchRoot,
}

impl DrillPlace {
    /// `engine` below `scratch`.
    pub fn new(engine: Arc<dyn DrillEngine>, scratch: ScratchRoot) -> Self {
        Self { engine, scratch }
    }
}

/// What a handle knows about the drills of its service without asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Drilling {
    /// Since when one is due, as of the last look at the catalog.
    due: Option<Timestamp>,
    /// How many in a row could not begin.
    failures: u32,
    /// Not before.
    after: Option<Timestamp>,
}

/// When the backups of a service were last proven.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct DrillStatus {
    /// When the last drill that passed was over. None: nothing was ever proven.
    pub last_proven: Option<Timestamp>,
    /// The backup that it began with.
    pub proven_backup: Option<BackupId>,
    /// How long it took until the restored instance served, in milliseconds: the measured time to recover.
    pub recovery_ms: Option<u64>,
    /// The last drill, however it ended.
    pub last: Option<DrillRecord>,
    /// The one that is under way.
    pub under_way: Option<DrillUnderWay>,
    /// When the next one is due, where the plan has them.
    pub next: Option<Timestamp>,
}

impl ManagedService {
    /// When the next drill is due, and since when one is. None where the plan has none, and while the service does not run.
    fn drill_due(
        &self,
        service: &ServiceState,
        catalog: &Catalog,
        now: Timestamp,
    ) -> Result<(Option<Timestamp>, Option<Timestamp>)> {
        let profile = self.platform.profile(&service.spec.kind, &service.spec.plan)?;
        let Some(cadence) = profile.drills().filter(|_| service.stage == Stage::Running) else {
            return Ok((None, None));
        };
        let schedule = DrillSchedule::new(cadence.clone(), self.id.as_str()).map_err(platform::refused)?;
        let drills = catalog.drills();
        let last = drills.last();
        let history = DrillHistory {
            // Not the oldest backup, which may be a day old at most: its turn would be missed with it.
            since: catalog.backups().next().map(|_| service.created),
            last: last.map(|record| Run { started: record.began, ended: record.ended }),
            failed: last.is_some_and(|record| !record.has_passed()),
            running: drills.under_way(now).is_some(),
        };
        Ok(match schedule.due(now, &history) {
            Due::Due { slot, .. } => (Some(now), Some(slot)),
            Due::Waiting { .. } => (None, None),
            Due::NotYet { next } => (next, None),
        })
    }

    /// Notes whether a drill is due, and tells the fleet when that is new.
    pub(super) fn note_drill(&self, catalog: &Catalog, now: Timestamp) -> Result<()> {
        let due = self.drill_due(state_of(catalog)?, catalog, now)?.1;
        let mut drilling = self.drilling.lock();
        if drilling.due != due {
            drilling.due = due;
            drop(drilling);
            self.platform.changed_drills().notify_one();
        }
        Ok(())
    }

    /// Since when a drill is due, as of the last tick, unless one that could not begin is waited for.
    #[must_use]
    pub fn wants_drill(&self) -> Option<Timestamp> {
        let drilling = *self.drilling.lock();
        let waits = drilling.after.is_some_and(|after| self.platform.env().now() < after);
        drilling.due.filter(|_| !waits)
    }

    /// Does the drill that is due, of something drawn among all that can be restored. Nothing is done when none is due any more, while a backup is
    /// due or under way, while somebody else does it, and when the host has no place for it.
    ///
    /// [`Fleet::run`](super::Fleet::run) calls it, for one service at a time.
    ///
    /// # Cancel safety
    /// When dropped, or when `work` is cancelled, the instance is gone and no record is written; the drill stays due.
    ///
    /// # Errors
    /// [`Cancelled`](crate::ErrorKind::Cancelled), and when the catalog cannot be read. A drill that could not be done is told and tried again after
    /// a pause.
    pub async fn drill_if_due(&self, work: &Work) -> Result<Option<Done>> {
        work.checkpoint()?;
        let catalog = self.catalog().await?;
        let (service, now) = (state_of(&catalog)?, self.platform.env().now());
        self.note_drill(&catalog, now)?;
        if self.wants_drill().is_none() || is_busy(&catalog, now) || self.due(service, &catalog, now)?.1.is_some() {
            return Ok(None);
        }
        let Some(place) = self.platform.host().drill_place(&self.id, &service.spec).await? else {
            self.put_off(1);
            return Ok(None);
        };
        let by = self.platform.actor();
        match self.do_drill(&by, place, DrillTarget::Random, true, work).await {
            Ok(None) => Ok(None),
            Ok(Some(record)) => {
                *self.drilling.lock() = Drilling::default();
                Ok(Some(Done::Drilled { record: Box::new(record) }))
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) => {
                let failures = self.drilling.lock().failures + 1;
                self.put_off(failures);
                if failures == 1 {
                    self.trouble(format!("a drill of service {} could not be done: {error}", self.id)).await;
                }
                Ok(Some(Done::Failed { problem: error.to_string() }))
            }
        }
    }

    /// Does a drill now, because `actor` asks for it. Whether it passed is in the record.
    ///
    /// # Cancel safety
    /// As [`drill_if_due`](Self::drill_if_due).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when `actor` may not, the host has no place for drills, or the target cannot be reached;
    /// [`Conflict`](crate::ErrorKind::Conflict) while another one is under way; those of [`run::drill`].
    pub async fn drill(&self, actor: &Actor, target: DrillTarget, work: &Work) -> Result<DrillRecord> {
        Action::Drill.permit(actor)?;
        let catalog = self.catalog().await?;
        let place = self.platform.host().drill_place(&self.id, &state_of(&catalog)?.spec).await?;
        let place =
            place.ok_or_else(|| Error::invalid(format!("this host has no place for drills of service {}", self.id)))?;
        let record = self.do_drill(actor, place, target, false, work).await?;
        record.ok_or_else(|| Error::internal("a drill that was asked for was not done"))
    }

    /// Says that it begins, does it, and keeps saying that it goes on.
    async fn do_drill(
        &self,
        by: &Actor,
        place: DrillPlace,
        target: DrillTarget,
        if_due: bool,
        work: &Work,
    ) -> Result<Option<DrillRecord>> {
        let id = DrillId::mint(self.platform.env());
        let mut begun = false;
        let mut decide = |catalog: &Catalog| {
            let now = self.platform.env().now();
            begun = !if_due || self.drill_due(state_of(catalog)?, catalog, now)?.1.is_some();
            if !begun {
                return Ok(Vec::new());
            }
            Ok(vec![Event::DrillBegun {
                drill: id,
                by: by.clone(),
                at: now,
                until: until(now, self.platform.lease())?,
            }])
        };
        self.repository.decide(&mut decide).await?;
        if !begun {
            return Ok(None);
        }
        let options = DrillOptions::new(place.scratch, by.clone()).target(target).id(id);
        let cancel = work.cancel().child_token();
        let own = work.clone().with_cancel(cancel.clone());
        let outcome = {
            let drill = run::drill(&*self.repository, &*place.engine, &options, &own);
            let mut drill = std::pin::pin!(run::while_reading(&*self.repository, "drill", &own, drill));
            tokio::select! {
                outcome = &mut drill => outcome,
                lost = self.keep_saying(id, by) => {
                    cancel.cancel();
                    let _ = drill.await;
                    Err(lost)
                }
            }
        };
        let record = match outcome {
            Ok(record) => record,
            Err(error) => {
                self.give_up(id, by).await;
                return Err(explained(error));
            }
        };
        if !record.has_passed() {
            let notice = Notice::DrillFailed { record: Box::new(record.clone()) };
            if let Err(error) = self.platform.notifier().notify(&self.id, &notice).await {
                tracing::warn!(service = %self.id, %error, "a notice was not delivered");
            }
        }
        Ok(Some(record))
    }

    /// Renews the word until that is not possible any more.
    async fn keep_saying(&self, drill: DrillId, by: &Actor) -> Error {
        let clock = self.platform.env().clock();
        loop {
            clock.sleep(self.platform.lease() / 3).await;
            match self.say(drill, by, self.platform.lease()).await {
                Ok(()) => {}
                // Whether it still counts is found out when the store is back.
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(service = %self.id, %error, "a drill could not say that it goes on");
                }
                Err(error) => return error,
            }
        }
    }

    async fn say(&self, drill: DrillId, by: &Actor, span: Duration) -> Result<()> {
        let at = self.platform.env().now();
        let event = Event::DrillBegun { drill, by: by.clone(), at, until: until(at, span)? };
        self.repository.decide(&mut |_: &Catalog| Ok(vec![event.clone()])).await.map(drop)
    }

    /// Lets others begin at once. What cannot be said is over when the time has come.
    async fn give_up(&self, drill: DrillId, by: &Actor) {
        if let Err(error) = self.say(drill, by, Duration::ZERO).await {
            tracing::debug!(service = %self.id, %error, "a drill that was given up could not say so");
        }
    }

    fn put_off(&self, failures: u32) {
        let pause = PAUSES.0.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(PAUSES.1);
        let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
        let mut drilling = self.drilling.lock();
        drilling.failures = failures;
        drilling.after = self.platform.env().now().checked_add(pause).ok();
    }

    /// When its backups were last proven.
    pub(super) fn drills(&self, service: &ServiceState, catalog: &Catalog, now: Timestamp) -> Result<DrillStatus> {
        let drills = catalog.drills();
        let proof = drills.last_passed();
        Ok(DrillStatus {
            last_proven: proof.map(|record| record.ended),
            proven_backup: proof.map(|record| record.backup),
            recovery_ms: proof.map(DrillRecord::recovery_ms),
            last: drills.last().cloned(),
            under_way: drills.under_way(now).cloned(),
            next: self.drill_due(service, catalog, now)?.0,
        })
    }
}
