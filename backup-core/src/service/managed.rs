//! One service under management.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::capture::Following;
use super::drill::Drilling;
use super::lease::Held;
use super::platform::{Platform, backup_time};
use super::role::Action;
use super::{Notice, facts};
use crate::catalog::{Actor, Catalog, Event, Rejected, ServiceChange, ServiceRejected, ServiceState};
use crate::engine::Work;
use crate::error::{Error, Result};
use crate::id::{BackupId, ServiceId};
use crate::repository::Repository;

/// After a notice that could not be delivered the next attempt waits so long, twice as long after each further one, up to the second.
const TELL_AGAIN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// A handle on a service under management. Cheap to clone; all state is in the service's own catalog, so any number of handles in any
/// number of processes agree.
///
/// What people ask for is checked against their role, committed as an event, and done while a lease is held. A process that dies in
/// the middle leaves what it was doing in the catalog, and the next [`tick`](Self::tick) of anybody finishes it.
#[derive(Debug, Clone)]
pub struct ManagedService {
    pub(super) id: ServiceId,
    pub(super) platform: Arc<Platform>,
    pub(super) repository: Arc<dyn Repository>,
    /// The earliest moment at which this handle asked what is due since it knows the backup that was made last.
    pub(super) asked: Arc<Mutex<(Option<BackupId>, Option<Timestamp>)>>,
    /// When this handle last looked for what is not kept any more.
    pub(super) swept: Arc<Mutex<Option<Timestamp>>>,
    /// When this handle has last taken away what nobody needs.
    pub(super) collected: Arc<Mutex<Option<Timestamp>>>,
    /// When this handle has last read a part of what is stored.
    pub(super) verified: Arc<Mutex<Option<Timestamp>>>,
    /// Whether its log is to be followed.
    pub(super) following: Arc<Mutex<Following>>,
    /// Something was decided through this handle or one that shares its state: the fleet looks at the service with its next tick.
    pub(super) woken: Arc<AtomicBool>,
    /// When people are told again of what they could not be told of, and after how many attempts.
    pub(super) silence: Arc<Mutex<(u32, Option<Timestamp>)>>,
    /// Whether its backups are to be proven.
    pub(super) drilling: Arc<Mutex<Drilling>>,
}

impl ManagedService {
    pub(super) fn new(platform: Arc<Platform>, repository: Arc<dyn Repository>) -> Self {
        Self {
            id: repository.service().clone(),
            platform,
            repository,
            asked: Arc::default(),
            swept: Arc::default(),
            collected: Arc::default(),
            verified: Arc::default(),
            following: Arc::default(),
            woken: Arc::default(),
            silence: Arc::default(),
            drilling: Arc::default(),
        }
    }

    /// Which service.
    #[must_use]
    pub fn id(&self) -> &ServiceId {
        &self.id
    }

    /// Its repository.
    #[must_use]
    pub fn repository(&self) -> &Arc<dyn Repository> {
        &self.repository
    }

    /// The catalog, of a service that somebody has created.
    pub(super) async fn catalog(&self) -> Result<Arc<Catalog>> {
        let catalog = self.repository.catalog().await?;
        state_of(&catalog)?;
        Ok(catalog)
    }

    /// Work of this platform.
    pub(super) fn work(&self) -> Work {
        Work::new(self.platform.env().clone())
    }

    /// Commits a decision of `actor` that takes no time to carry out, and tells of it.
    async fn decided(
        &self,
        actor: &Actor,
        action: Action,
        mut decide: impl FnMut(&ServiceState) -> Result<ServiceChange> + Send,
    ) -> Result<()> {
        action.permit(actor)?;
        let at = self.platform.env().now();
        let mut decide = |catalog: &Catalog| {
            let change = decide(state_of(catalog)?)?;
            Ok(vec![Event::Service { change, lease: None, by: actor.clone(), at }])
        };
        let catalog = self.repository.decide(&mut decide).await.map_err(explained)?;
        self.tell(&catalog).await;
        Ok(())
    }

    /// Tells of what was committed and not told of yet. What cannot be delivered changes nothing else, and later ticks try again.
    pub(super) async fn tell(&self, catalog: &Catalog) {
        self.woken.store(true, Ordering::Relaxed);
        if let Err(error) = self.try_tell(catalog).await {
            tracing::warn!(service = %self.id, %error, "a notice was not delivered");
        }
    }

    /// Tells of what was committed and not told of yet, in order, and commits up to where that went well: at least once, and twice only if
    /// a process ends between the two, or two of them tell at the same time.
    ///
    /// # Errors
    /// When a notice was not delivered, or that could not be committed.
    pub(super) async fn try_tell(&self, catalog: &Catalog) -> Result<()> {
        let Some(service) = catalog.service() else { return Ok(()) };
        self.note_following(service);
        let mut told = None;
        let mut outcome = Ok(());
        for (lines, audited) in service.untold() {
            outcome = self.platform.notifier().notify(&self.id, &Notice::Changed(Box::new(audited.clone()))).await;
            if outcome.is_err() {
                break;
            }
            told = Some(lines);
        }
        self.note_silence(outcome.is_ok());
        let Some(lines) = told else { return outcome };
        let told = super::lease::event(&self.platform, None, ServiceChange::Told { lines });
        let mut decide = |catalog: &Catalog| {
            let behind = catalog.service().is_some_and(|service| service.told < lines);
            Ok(behind.then(|| told.clone()).into_iter().collect())
        };
        self.repository.decide(&mut decide).await?;
        outcome
    }

    fn note_silence(&self, delivered: bool) {
        let mut silence = self.silence.lock();
        if delivered {
            *silence = (0, None);
            return;
        }
        let pause = TELL_AGAIN.0.saturating_mul(1 << silence.0.min(16)).min(TELL_AGAIN.1);
        let again = SignedDuration::try_from(pause).ok().and_then(|p| self.platform.env().now().checked_add(p).ok());
        *silence = (silence.0.saturating_add(1), again);
    }

    /// When people are told of what they do not know yet; none when they know everything.
    pub(super) fn tell_at(&self, service: &ServiceState, now: Timestamp) -> Option<Timestamp> {
        service.untold().next()?;
        Some(self.silence.lock().1.unwrap_or(now))
    }

    /// Tells of something that went wrong and is tried again.
    pub(super) async fn trouble(&self, text: String) {
        if let Err(error) = self.platform.notifier().notify(&self.id, &Notice::Trouble { text }).await {
            tracing::warn!(service = %self.id, %error, "a notice was not delivered");
        }
    }

    /// Changes the plan. What the new one keeps is decided by the next tick; a smaller one may expire backups at once.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the plan does not exist for the service or `actor` may not.
    pub async fn change_plan(&self, actor: &Actor, plan: &str) -> Result<()> {
        self.decided(actor, Action::Configure, |service| {
            let profile = self.platform.profile(&service.spec.kind, plan)?;
            // A time that the user has chosen must mean something on the new plan, too.
            let time = backup_time(service.spec.backup_hour.map(i64::from), service.spec.backup_minute.map(i64::from))?;
            backup_policy::Schedule::new(profile.cadence().clone(), time, self.id.as_str())
                .map_err(super::platform::refused)?;
            Ok(ServiceChange::PlanChanged { plan: plan.to_owned() })
        })
        .await
    }

    /// Sets at which hour and minute (UTC) backups begin. None returns to the service's own default. If a backup was made recently, the
    /// new time may take effect one cycle later.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that says what is allowed.
    pub async fn set_schedule(&self, actor: &Actor, hour: Option<i64>, minute: Option<i64>) -> Result<()> {
        let time = backup_time(hour, minute)?;
        self.decided(actor, Action::Configure, |service| {
            let spec = service.spec.clone().with_schedule(time.hour(), time.minute());
            self.platform.schedule(&self.id, &spec)?;
            Ok(ServiceChange::ScheduleChanged { hour: time.hour(), minute: time.minute() })
        })
        .await
    }

    /// Notes that the service runs in another provider or zone. Its backups stay where they are.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when `actor` may not.
    pub async fn move_to(&self, actor: &Actor, zone: &str) -> Result<()> {
        let change = ServiceChange::Moved { zone: zone.to_owned() };
        self.decided(actor, Action::Configure, |_| Ok(change.clone())).await
    }

    /// Stops taking backups for `reason` (`redis_persistence is off`), or takes them again. While they are suspended there is no fork
    /// either. Stored backups stay as long as the plan keeps them.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when `actor` may not, and for a service whose backups are always on.
    pub async fn suspend(&self, actor: &Actor, reason: Option<&str>) -> Result<()> {
        self.decided(actor, Action::Configure, |service| {
            let profile = self.platform.profile(&service.spec.kind, &service.spec.plan)?;
            if profile.always_on() && reason.is_some() {
                return Err(Error::invalid(format!("backups of {} are always on", service.spec.kind)));
            }
            Ok(ServiceChange::Suspended { reason: reason.map(str::to_owned) })
        })
        .await
    }

    /// Keeps `backup` whatever its age, until [`release`](Self::release)d under the same name.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when there is no such backup or `actor` may not.
    pub async fn hold(&self, actor: &Actor, backup: BackupId, name: &str, reason: &str) -> Result<()> {
        self.place_hold(actor, (backup, false), name, reason).await
    }

    /// As [`hold`](Self::hold), with the log that follows the backup: every moment behind it that is restorable stays so.
    ///
    /// # Errors
    /// As [`hold`](Self::hold).
    pub async fn hold_with_log(&self, actor: &Actor, backup: BackupId, name: &str, reason: &str) -> Result<()> {
        self.place_hold(actor, (backup, true), name, reason).await
    }

    async fn place_hold(&self, actor: &Actor, what: (BackupId, bool), name: &str, reason: &str) -> Result<()> {
        Action::Hold.permit(actor)?;
        let at = self.platform.env().now();
        let ((backup, log), hold, reason) = (what, name.to_owned(), reason.to_owned());
        let placed = Event::HoldPlaced { backup, hold, reason, by: actor.clone(), at, log };
        self.repository.decide(&mut |_| Ok(vec![placed.clone()])).await.map(drop).map_err(explained)
    }

    /// Ends a hold.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when there is no such hold or `actor` may not.
    pub async fn release(&self, actor: &Actor, backup: BackupId, name: &str) -> Result<()> {
        Action::Hold.permit(actor)?;
        let released =
            Event::HoldReleased { backup, hold: name.to_owned(), by: actor.clone(), at: self.platform.env().now() };
        self.repository.decide(&mut |_| Ok(vec![released.clone()])).await.map(drop).map_err(explained)
    }

    /// Deletes the service. Its backups stay for the grace period, in which it can be [recovered](Self::recover). Its machines are given
    /// up by the next tick.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it is deleted already, is just being powered off, or `actor` may not.
    pub async fn delete(&self, actor: &Actor) -> Result<()> {
        self.decided(actor, Action::Delete, |_| Ok(ServiceChange::Deleted { reason: None })).await
    }

    /// Calls a deleted service back. It is off then; [`power_on`](Self::power_on) restores it. A billable event.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it is not deleted, when it is too late, or `actor` may not.
    pub async fn recover(&self, actor: &Actor) -> Result<()> {
        let (lifecycle, now) = (self.platform.lifecycle(), self.platform.env().now());
        self.decided(actor, Action::Recover, |service| {
            facts::lifecycle(service).recover(lifecycle, now).map_err(super::platform::refused)?;
            Ok(ServiceChange::Recovered)
        })
        .await
    }

    /// Takes the lease.
    pub(super) async fn lease(&self) -> Result<Held<'_>> {
        Held::take(&self.platform, &self.repository).await
    }

    /// Commits a change of `actor` and takes the lease to carry it out, in one step.
    pub(super) async fn begin(&self, actor: &Actor, change: ServiceChange) -> Result<Held<'_>> {
        let held = self.lease().await.map_err(explained)?;
        let begun = Event::Service { change, lease: None, by: actor.clone(), at: self.platform.env().now() };
        match held.commit_with(Vec::new(), |_| Ok(vec![begun.clone()])).await {
            Ok(catalog) => {
                self.tell(&catalog).await;
                Ok(held)
            }
            Err(error) => {
                held.release().await;
                Err(explained(error))
            }
        }
    }
}

/// The state of the service.
///
/// # Errors
/// Conflict, when nobody has created it.
pub(super) fn state_of(catalog: &Catalog) -> Result<&ServiceState> {
    catalog.service().ok_or_else(|| Rejected::from(ServiceRejected::NotCreated).into())
}

/// A decision that the state of the service does not allow is the asker's mistake; that somebody else is at work is not.
pub(super) fn explained(error: Error) -> Error {
    let rejected = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Rejected>());
    match rejected {
        Some(Rejected::Service(
            ServiceRejected::LeaseHeld { .. }
            | ServiceRejected::LeaseLost(_)
            | ServiceRejected::LeaseTaken(_)
            | ServiceRejected::CaptureHeld { .. }
            | ServiceRejected::CaptureLost(_)
            | ServiceRejected::CaptureTaken(_)
            | ServiceRejected::BeingRead { .. }
            | ServiceRejected::RunUnderWay(_),
        ))
        | Some(Rejected::DrillUnderWay { .. } | Rejected::DrillOver(_))
        | None => error,
        Some(rejected) => Error::invalid(rejected.to_string()),
    }
}
