//! What time brings for a service.

use std::collections::BTreeSet;
use std::time::Duration;

use backup_policy::lifecycle::Action as Ending;
use backup_policy::{Due, History, Run};
use jiff::{SignedDuration, Timestamp};

use super::facts;
use super::lease::{self, Held};
use super::managed::{ManagedService, state_of};
use super::power::FORK_HOLD;
use super::{Notice, Regions};
use crate::catalog::{
    Actor, Catalog, DrillRecord, Event, Lease, RestorePurpose, RunPurpose, ServiceChange, ServiceState, Stage,
};
use crate::engine::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BackupId, ServiceId};
use crate::repository::{Destroyed, Found};
use crate::run::{BackupOptions, Expired, backup, expiring, stored_log};

/// After a backup that failed the next attempt waits so long, twice as long after each further one, up to the second.
const RETRIES: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(3600));
/// Retention is looked at this often, besides after each backup.
const SWEEP_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// A hold of a fork that is not to be found is released after so long: whoever was about to make it has given up.
const FORK_PATIENCE: SignedDuration = SignedDuration::from_hours(1);

/// Something that a tick has done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "done")]
#[non_exhaustive]
pub enum Done {
    /// A backup that was due.
    Backup {
        /// It.
        backup: BackupId,
        /// When it was due.
        due: Timestamp,
        /// When it began.
        started: Timestamp,
    },
    /// A backup was due and failed. It is tried again.
    BackupFailed {
        /// Why.
        problem: String,
    },
    /// Backups and log that the plan does not keep any more were let go.
    Expired {
        /// The backups.
        backups: Vec<BackupId>,
        /// On how many lineages log was let go.
        lineages: usize,
    },
    /// What nobody needs was taken away.
    Collected {
        /// The collection that was condemned, to be deleted after its grace.
        condemned: Option<u64>,
        /// Objects that were deleted.
        deleted: u64,
    },
    /// A part of what is stored was read, and something is damaged.
    Damaged {
        /// The backups that cannot be restored completely.
        harmed: Vec<BackupId>,
        /// How many objects are damaged.
        objects: usize,
    },
    /// A backup was restored for proof. Whether that has passed is in the record.
    Drilled {
        /// What it has shown.
        record: Box<DrillRecord>,
    },
    /// A power-off that was interrupted was finished.
    PoweredOff,
    /// A restore that was asked for or interrupted was finished, from this backup.
    Restored(Option<BackupId>),
    /// The owner was told of a deadline.
    Noticed {
        /// Which.
        notice: String,
    },
    /// It was off for too long.
    Deleted,
    /// Its machines were given up.
    Discarded,
    /// Nothing is left of it.
    Purged {
        /// How much was destroyed.
        destroyed: Destroyed,
    },
    /// People could not be told of something. It is tried again.
    Untold {
        /// What went wrong.
        problem: String,
    },
    /// Something that was due failed. It is tried again.
    Failed {
        /// What went wrong.
        problem: String,
    },
}

/// What a tick did, and when to come again.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Ticked {
    /// What was done, in order.
    pub done: Vec<Done>,
    /// Who is at work, when it was somebody else.
    pub busy: Option<Lease>,
    /// Whether the log is to be followed, if the engine has one: then [`ManagedService::capture`] should be under way somewhere.
    pub capture: bool,
    /// Since when a drill is due: then [`ManagedService::drill_if_due`] should be called, beside the ticks.
    pub drill: Option<Timestamp>,
    /// When something is due next, as far as is known now. None when nothing will ever be.
    pub next: Option<Timestamp>,
}

impl ManagedService {
    /// Does what is due now: finishes what was interrupted, backs up, expires, gives notice, deletes, purges.
    ///
    /// Decided by the catalog and the clock alone, so any number of runners may call it at any time: whatever is due is done once. What
    /// fails is reported and tried again by later ticks.
    ///
    /// # Cancel safety
    /// When dropped, what was under way is finished or given up by a later tick, at the latest when the lease has ended.
    ///
    /// # Errors
    /// When the catalog cannot be read, and [`Cancelled`](crate::ErrorKind::Cancelled).
    pub async fn tick(&self, work: &Work) -> Result<Ticked> {
        work.checkpoint()?;
        let mut ticked = Ticked::default();
        let catalog = self.catalog().await?;
        let now = self.platform.env().now();
        self.note_following(state_of(&catalog)?);
        ticked.capture = state_of(&catalog)?.is_followed();
        self.note_drill(&catalog, now)?;
        ticked.drill = self.wants_drill();
        if lease::is_busy(&catalog, now) {
            ticked.busy = state_of(&catalog)?.lease.clone();
            ticked.next = ticked.busy.as_ref().map(|lease| lease.until);
            return Ok(ticked);
        }
        if self.tell_at(state_of(&catalog)?, now).is_some_and(|at| at <= now)
            && let Err(error) = self.try_tell(&catalog).await
        {
            ticked.done.push(Done::Untold { problem: error.to_string() });
        }
        if matches!(state_of(&catalog)?.stage, Stage::Purging { .. }) {
            let destroyed = self.destroy(work).await?;
            ticked.done.push(Done::Purged { destroyed });
            return Ok(ticked);
        }
        if self.tasks(&catalog, now)?.is_empty() {
            ticked.next = self.next(&catalog, now)?;
            self.note_asked(&catalog, now)?;
            return Ok(ticked);
        }
        let held = match self.lease().await {
            Ok(held) => held,
            // Somebody was faster.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                ticked.next = now.checked_add(SignedDuration::from_secs(1)).ok();
                return Ok(ticked);
            }
            Err(error) => return Err(error),
        };
        let outcome =
            held.during(work, |work| async { self.work_through(&held, &mut ticked.done, &{ work }).await }).await;
        if let Err(error) = &outcome
            && error.kind() != ErrorKind::Cancelled
        {
            ticked.done.push(Done::Failed { problem: error.to_string() });
            self.trouble(error.to_string()).await;
        }
        held.release().await;
        work.checkpoint()?;
        let catalog = self.catalog().await?;
        let now = self.platform.env().now();
        self.note_asked(&catalog, now)?;
        self.note_following(state_of(&catalog)?);
        ticked.capture = state_of(&catalog)?.is_followed();
        self.note_drill(&catalog, now)?;
        ticked.drill = self.wants_drill();
        if matches!(state_of(&catalog)?.stage, Stage::Purging { .. }) {
            let destroyed = self.destroy(work).await?;
            ticked.done.push(Done::Purged { destroyed });
            return Ok(ticked);
        }
        ticked.next = match outcome {
            Ok(()) => self.next(&catalog, now)?,
            Err(_) => now.checked_add(SignedDuration::from_mins(1)).ok(),
        };
        Ok(ticked)
    }

    /// Takes a backup now, because `actor` asks for it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the service does not run, has no backups, or `actor` may not;
    /// [`Conflict`](crate::ErrorKind::Conflict) while somebody works on it; those of the backup.
    pub async fn back_up(&self, actor: &Actor, work: &Work) -> Result<BackupId> {
        super::role::Action::BackUp.permit(actor)?;
        let catalog = self.catalog().await?;
        let service = state_of(&catalog)?;
        self.platform.profile(&service.spec.kind, &service.spec.plan)?;
        if let Some(reason) = &service.suspended {
            return Err(Error::invalid(format!("no backups are taken of service {}: {reason}", self.id)));
        }
        if service.stage != Stage::Running {
            return Err(Error::invalid(format!("service {} is {}, so it cannot be backed up", self.id, service.stage)));
        }
        let held = self.lease().await?;
        let now = self.platform.env().now();
        let outcome =
            held.during(work, |work| async { self.take(&held, RunPurpose::Asked, now, &{ work }).await }).await;
        held.release().await;
        outcome
    }

    /// Takes a backup and says in the catalog what became of it.
    pub(super) async fn take(
        &self,
        held: &Held<'_>,
        purpose: RunPurpose,
        due: Timestamp,
        work: &Work,
    ) -> Result<BackupId> {
        let catalog = held.commit(vec![ServiceChange::RunStarted { purpose, due }]).await?;
        let spec = &state_of(&catalog)?.spec;
        let taken = async {
            let engine = self.platform.host().running(&self.id, spec).await?;
            backup(&*self.repository, &*engine, BackupOptions::default(), work).await
        };
        match taken.await {
            Ok(record) => {
                held.commit(vec![ServiceChange::RunEnded { backup: Some(record.id), problem: None }]).await?;
                Ok(record.id)
            }
            Err(error) => {
                let ended = ServiceChange::RunEnded { backup: None, problem: Some(error.to_string()) };
                // What went wrong matters more than that it could not be written down: the next lease does that.
                if let Err(unsaid) = held.commit(vec![ended]).await {
                    tracing::warn!(service = %self.id, error = %unsaid, "the end of a backup could not be committed");
                }
                Err(error)
            }
        }
    }

    /// What is to be done now, in order. Nothing is done here.
    fn tasks(&self, catalog: &Catalog, now: Timestamp) -> Result<Vec<Task>> {
        let service = state_of(catalog)?;
        let mut tasks = Vec::new();
        if service.run.is_some() {
            tasks.push(Task::EndRun);
        }
        match service.stage {
            Stage::PoweringOff { .. } => tasks.push(Task::FinishPowerOff),
            Stage::Restoring { .. } => tasks.push(Task::FinishRestore),
            Stage::Running => {
                if let Some(due) = self.due(service, catalog, now)?.1 {
                    tasks.push(Task::BackUp { due });
                }
            }
            Stage::Off { .. } | Stage::Deleted { .. } => {
                if !service.discarded {
                    tasks.push(Task::Discard);
                }
                let policy = self.platform.lifecycle();
                let outlook = facts::lifecycle(service).due(policy, now, &facts::sent(service, policy));
                tasks.extend(outlook.notice.map(Task::Notice));
                match outlook.action {
                    Some(Ending::Delete) => tasks.push(Task::Delete),
                    Some(Ending::Purge) => tasks.extend(purging(service, catalog, now)),
                    _ => {}
                }
            }
            Stage::Purging { .. } => {}
        }
        // Of a deleted service everything stays as it was, until all of it goes.
        if !matches!(service.stage, Stage::Deleted { .. } | Stage::Purging { .. }) && self.sweep_due(now) {
            tasks.push(Task::Sweep);
        }
        if matches!(service.stage, Stage::Running | Stage::Off { .. }) && self.collect_due(catalog, now) {
            tasks.push(Task::Collect);
        }
        if matches!(service.stage, Stage::Running | Stage::Off { .. }) && self.verify_due(catalog, now) {
            tasks.push(Task::Verify);
        }
        Ok(tasks)
    }

    /// Since when this handle asks and knows the backup that was made last.
    fn asked_since(&self, service: &ServiceState) -> Option<Timestamp> {
        let (known, since) = *self.asked.lock();
        since.filter(|_| known == service.last_made.as_ref().and_then(|made| made.backup))
    }

    fn note_asked(&self, catalog: &Catalog, now: Timestamp) -> Result<()> {
        let service = state_of(catalog)?;
        let since = self.asked_since(service).map_or(now, |since| since.min(now));
        *self.asked.lock() = (service.last_made.as_ref().and_then(|made| made.backup), Some(since));
        Ok(())
    }

    fn sweep_due(&self, now: Timestamp) -> bool {
        self.swept.lock().is_none_or(|swept| now.duration_since(swept).abs() >= SWEEP_EVERY)
    }

    /// When a backup is due next, and since when one is.
    pub(super) fn due(
        &self,
        service: &ServiceState,
        catalog: &Catalog,
        now: Timestamp,
    ) -> Result<(Option<Timestamp>, Option<Timestamp>)> {
        if service.suspended.is_some() {
            return Ok((None, None));
        }
        let schedule = self.platform.schedule(&self.id, &service.spec)?;
        let made = service.last_made.as_ref().map(|made| Run { started: made.run.started, ended: made.ended });
        // Of a service that was backed up before it came under management.
        let found = || catalog.latest().map(|latest| Run { started: latest.started_at, ended: latest.ended_at });
        let changed = (service.scheduled_since > service.created).then_some(service.scheduled_since);
        let history = History {
            last: made.or_else(found),
            running: false,
            changed_at: changed,
            asked_since: self.asked_since(service),
        };
        Ok(match schedule.due(now, &history) {
            Due::Due { slot, .. } => match retry_at(service).filter(|at| *at > now) {
                Some(at) => (Some(at), None),
                None => (Some(now), Some(slot)),
            },
            Due::Waiting { .. } => (Some(now), None),
            Due::NotYet { next } => (next, None),
        })
    }

    /// When to come again.
    fn next(&self, catalog: &Catalog, now: Timestamp) -> Result<Option<Timestamp>> {
        let service = state_of(catalog)?;
        let sweep = || now.checked_add(SWEEP_EVERY).ok();
        let due = match service.stage {
            Stage::Running => [self.due(service, catalog, now)?.0, sweep()].into_iter().flatten().min(),
            Stage::Off { .. } | Stage::Deleted { .. } => {
                let policy = self.platform.lifecycle();
                let outlook = facts::lifecycle(service).due(policy, now, &facts::sent(service, policy));
                let sweep = if matches!(service.stage, Stage::Off { .. }) { sweep() } else { None };
                // Only holds and readers keep a purge that is due from being done.
                let held = outlook.action.is_some().then(sweep_later(now)).flatten();
                let read = service.read_until(now).filter(|_| held.is_some());
                [outlook.next, sweep, held, read].into_iter().flatten().min()
            }
            _ => Some(now),
        };
        Ok([due, self.tell_at(service, now)].into_iter().flatten().min())
    }

    /// Does what is due, one thing after the other.
    async fn work_through(&self, held: &Held<'_>, done: &mut Vec<Done>, work: &Work) -> Result<()> {
        let catalog = self.catalog().await?;
        // Taking the lease has ended what another runner has left, so this is asked again.
        let tasks = self.tasks(&catalog, self.platform.env().now())?;
        for task in tasks {
            work.checkpoint()?;
            let finished = self.carry_out(held, task, work).await?;
            let backed_up = matches!(finished, Some(Done::Backup { .. }));
            done.extend(finished);
            if backed_up {
                done.extend(self.sweep(held).await?);
            }
        }
        Ok(())
    }

    async fn carry_out(&self, held: &Held<'_>, task: Task, work: &Work) -> Result<Option<Done>> {
        Ok(match task {
            // The lease has done it.
            Task::EndRun => None,
            Task::FinishPowerOff => Some(self.finish_power_off(held, work).await?),
            Task::FinishRestore => Some(self.finish_restore(held, work).await?),
            Task::BackUp { due } => {
                let started = self.platform.env().now();
                Some(match self.take(held, RunPurpose::Scheduled, due, work).await {
                    Ok(backup) => Done::Backup { backup, due, started },
                    Err(error) if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Conflict) => {
                        return Err(error);
                    }
                    Err(error) => {
                        self.trouble(format!("the backup that was due at {due} failed: {error}")).await;
                        Done::BackupFailed { problem: error.to_string() }
                    }
                })
            }
            Task::Discard => {
                let catalog = self.catalog().await?;
                self.save_last_words(held, state_of(&catalog)?, work).await?;
                self.discard(held, &state_of(&catalog)?.spec).await?;
                Some(Done::Discarded)
            }
            Task::Notice(notice) => Some(match self.give_notice(held, notice).await {
                // What else is due is done whether or not people can be told of this.
                Err(error) if error.kind() != ErrorKind::Cancelled && error.kind() != ErrorKind::Conflict => {
                    tracing::warn!(service = %self.id, %error, "a notice was not delivered");
                    Done::Untold { problem: error.to_string() }
                }
                outcome => outcome?,
            }),
            Task::Delete => {
                let reason = Some(format!("it was off for more than {}", self.platform.lifecycle().off_limit()));
                let catalog = held.commit(vec![ServiceChange::Deleted { reason }]).await?;
                self.tell(&catalog).await;
                Some(Done::Deleted)
            }
            Task::Purge => {
                let catalog = held.commit(vec![ServiceChange::PurgeBegun]).await?;
                self.tell(&catalog).await;
                None
            }
            Task::Sweep => self.sweep(held).await?,
            Task::Collect => self.collect(work).await?,
            Task::Verify => self.verify(work).await?,
            Task::Release => {
                self.release_strays(held).await?;
                None
            }
        })
    }

    async fn give_notice(&self, held: &Held<'_>, notice: backup_policy::lifecycle::Notice) -> Result<Done> {
        let name = facts::notice_name(&notice);
        let at = notice.deadline;
        let text = format!(
            "service {} is off and will be deleted at {at}; turning it on and off again prevents that",
            self.id
        );
        // First the notice, then the word that it was given: twice is better than never.
        self.platform.notifier().notify(&self.id, &Notice::Deadline { name: name.clone(), at, text }).await?;
        held.commit(vec![ServiceChange::NoticeSent { notice: name.clone() }]).await?;
        Ok(Done::Noticed { notice: name })
    }

    /// Lets go what the plan does not keep any more.
    async fn sweep(&self, held: &Held<'_>) -> Result<Option<Done>> {
        let catalog = self.catalog().await?;
        let service = state_of(&catalog)?;
        let profile = self.platform.profile(&service.spec.kind, &service.spec.plan)?.clone();
        let stray = self.stray_holds(&catalog).await?;
        let ledger = stored_log(&*self.repository, &catalog).await?;
        let mut expired = Expired::default();
        let (by, at) = (self.platform.actor(), self.platform.env().now());
        let decide = |catalog: &Catalog| {
            let (mut events, what) = expiring(&profile, catalog, ledger.as_deref(), &by, at);
            expired = what;
            events.extend(released(&stray, catalog, &by, at));
            Ok(events)
        };
        held.commit_with(Vec::new(), decide).await?;
        *self.swept.lock() = Some(at);
        let lineages = expired.log.len();
        Ok((!expired.is_empty()).then_some(Done::Expired { backups: expired.backups, lineages }))
    }

    /// Releases them without letting go of anything.
    async fn release_strays(&self, held: &Held<'_>) -> Result<()> {
        let stray = self.stray_holds(&*self.catalog().await?).await?;
        let (by, at) = (self.platform.actor(), self.platform.env().now());
        let decide = |catalog: &Catalog| Ok(released(&stray, catalog, &by, at));
        held.commit_with(Vec::new(), decide).await.map(drop)
    }

    /// Holds of forks that are done or were never made.
    async fn stray_holds(&self, catalog: &Catalog) -> Result<BTreeSet<(BackupId, String)>> {
        let now = self.platform.env().now();
        let mut stray = BTreeSet::new();
        for backup in catalog.backups() {
            for (name, hold) in catalog.holds(backup.id) {
                let Some(fork) = name.strip_prefix(FORK_HOLD) else { continue };
                let Ok(fork) = ServiceId::new(fork) else { continue };
                if now.duration_since(hold.since) >= FORK_PATIENCE
                    && !is_forking(self.platform.regions(), &fork).await?
                {
                    stray.insert((backup.id, name.to_owned()));
                }
            }
        }
        Ok(stray)
    }

    /// Destroys keys and objects of a service whose purge was committed.
    async fn destroy(&self, work: &Work) -> Result<Destroyed> {
        let catalog = self.catalog().await?;
        let service = state_of(&catalog)?;
        self.platform.host().discard(&self.id, &service.spec).await?;
        let vault = self.platform.regions().vault(&service.spec.location)?;
        vault.destroy(&self.id, work).await
    }
}

/// Something that is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    EndRun,
    FinishPowerOff,
    FinishRestore,
    BackUp { due: Timestamp },
    Discard,
    Notice(backup_policy::lifecycle::Notice),
    Delete,
    Purge,
    Sweep,
    Collect,
    Verify,
    Release,
}

/// The purge that is due, unless something keeps it: a hold, or somebody who reads. Holds of forks that nobody makes any more are released.
fn purging(service: &ServiceState, catalog: &Catalog, now: Timestamp) -> Option<Task> {
    let mut holds = catalog.backups().flat_map(|backup| catalog.holds(backup.id)).peekable();
    if holds.peek().is_none() {
        return service.read_until(now).is_none().then_some(Task::Purge);
    }
    let old = |since: Timestamp| now.duration_since(since) >= FORK_PATIENCE;
    holds.any(|(name, hold)| name.starts_with(FORK_HOLD) && old(hold.since)).then_some(Task::Release)
}

/// The releases of `stray` holds that are still there.
fn released(stray: &BTreeSet<(BackupId, String)>, catalog: &Catalog, by: &Actor, at: Timestamp) -> Vec<Event> {
    let there = stray.iter().filter(|(backup, hold)| catalog.holds(*backup).any(|(name, _)| name == hold));
    let released = |(backup, hold): &(BackupId, String)| Event::HoldReleased {
        backup: *backup,
        hold: hold.clone(),
        by: by.clone(),
        at,
    };
    there.map(released).collect()
}

fn sweep_later(now: Timestamp) -> impl FnOnce() -> Option<Timestamp> {
    move || now.checked_add(SWEEP_EVERY).ok()
}

/// When a backup that failed is tried again.
fn retry_at(service: &ServiceState) -> Option<Timestamp> {
    let last = service.last_run.as_ref().filter(|_| service.failures > 0)?;
    let factor = 1_u32.checked_shl(service.failures - 1).unwrap_or(u32::MAX);
    let pause = RETRIES.0.saturating_mul(factor).min(RETRIES.1);
    last.ended.checked_add(SignedDuration::try_from(pause).ok()?).ok()
}

/// Whether `fork` exists and is still being made.
async fn is_forking(regions: &Regions, fork: &ServiceId) -> Result<bool> {
    for (_, vault) in regions.vaults() {
        if let Found::Repository(repository) = vault.find(fork).await? {
            let catalog = repository.catalog().await?;
            let forking = Stage::Restoring { purpose: RestorePurpose::Fork, off_since: None };
            return Ok(catalog.service().is_some_and(|service| service.stage == forking));
        }
    }
    Ok(false)
}
