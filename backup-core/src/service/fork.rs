//! Making another service of what is stored of one, without touching it.

use jiff::Timestamp;

use super::fleet::{Fleet, NewService};
use super::managed::{ManagedService, explained, state_of};
use super::power::fork_hold;
use super::role::Action;
use crate::catalog::{Actor, Catalog, Event, Origin, Rejected, Stage};
use crate::engine::Work;
use crate::error::{Error, Result};
use crate::id::{BackupId, ServiceId};
use crate::run::windows;

/// Which state of a service a fork begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForkTarget {
    /// The newest that is stored.
    #[default]
    Latest,
    /// The end of this backup.
    Backup(BackupId),
    /// This moment, of a service with point-in-time recovery.
    Time(Timestamp),
}

/// A fork that is to be made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewFork {
    /// The new service.
    pub id: ServiceId,
    /// Which state it begins with.
    pub target: ForkTarget,
    /// Its plan; that of the source when not set.
    pub plan: Option<String>,
    /// Its region; the source's zone when not set.
    pub region: Option<String>,
}

impl NewFork {
    /// A fork of the newest state, on the same plan, where the source runs.
    #[must_use]
    pub fn new(id: ServiceId) -> Self {
        Self { id, target: ForkTarget::Latest, plan: None, region: None }
    }

    /// Sets which state it begins with.
    #[must_use]
    pub fn at(mut self, target: ForkTarget) -> Self {
        self.target = target;
        self
    }

    /// Sets its plan.
    #[must_use]
    pub fn on(mut self, plan: impl Into<String>) -> Self {
        self.plan = Some(plan.into());
        self
    }

    /// Sets its region.
    #[must_use]
    pub fn within(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }
}

impl Fleet {
    /// Makes a complete, independent service of what is stored of `source`. It is restored before this returns; the source and its
    /// machines are not asked for anything.
    ///
    /// # Cancel safety
    /// When dropped after the new service has come into being, its next tick goes on.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the source's plan or state does not allow it, when there is no such backup or
    /// moment, and when the new name is taken; otherwise those of the restore, which the next tick of the new service repeats.
    pub async fn fork(&self, actor: &Actor, source: &ServiceId, new: NewFork, work: &Work) -> Result<ManagedService> {
        Action::Fork.permit(actor)?;
        let source = self.open(source).await?;
        let catalog = source.catalog().await?;
        let origin = source.origin_of(&catalog, new.target).await?;
        let spec = &state_of(&catalog)?.spec;
        let plan = new.plan.as_deref().unwrap_or(&spec.plan);
        let region = new.region.as_deref().unwrap_or(&spec.zone);
        let wanted = NewService::new(new.id.clone(), &spec.kind, plan, region);
        self.check_new(&wanted, false).await?;
        // First the hold, so that what is named is there for as long as the fork needs it: to a moment log leads, which a slow restore
        // may begin to read when the window has left it behind.
        let at = self.platform().env().now();
        let reason = format!("service {} is being forked from it", new.id);
        let (backup, hold, log) = (origin.backup, fork_hold(&new.id), origin.time.is_some());
        let placed = Event::HoldPlaced { backup, hold, reason, by: actor.clone(), at, log };
        source.repository().decide(&mut |_| Ok(vec![placed.clone()])).await.map_err(explained)?;
        let fork = self.create_from(actor, wanted, Some(origin)).await?;
        let ticked = fork.tick(work).await?;
        let catalog = fork.catalog().await?;
        match state_of(&catalog)?.stage {
            Stage::Restoring { .. } => Err(Error::unavailable(format!(
                "the fork {} exists and is not restored yet; its next tick tries again: {:?}",
                fork.id(),
                ticked.done
            ))),
            _ => Ok(fork),
        }
    }
}

impl ManagedService {
    /// Where a fork to `target` begins.
    async fn origin_of(&self, catalog: &Catalog, target: ForkTarget) -> Result<Origin> {
        let service = state_of(catalog)?;
        let profile = self.platform.profile(&service.spec.kind, &service.spec.plan)?;
        let (kind, plan) = (&service.spec.kind, &service.spec.plan);
        if !profile.rights().fork {
            return Err(Error::invalid(format!(
                "{kind} cannot be forked on plan {plan}: its backups are for disaster recovery only"
            )));
        }
        if let Some(reason) = &service.suspended {
            return Err(Error::invalid(format!("service {} cannot be forked while {reason}", self.id)));
        }
        if matches!(service.stage, Stage::Deleted { .. } | Stage::Purging { .. }) {
            return Err(Error::invalid(format!("service {} is {}: recover it first", self.id, service.stage)));
        }
        let none = || Error::invalid(format!("service {} has no backup that could be forked", self.id));
        let origin = |backup, time, latest| Origin {
            service: self.id.clone(),
            location: service.spec.location.clone(),
            backup,
            time,
            latest,
        };
        match target {
            ForkTarget::Latest => {
                Ok(origin(catalog.latest_sound().or(catalog.latest()).ok_or_else(none)?.id, None, true))
            }
            ForkTarget::Backup(id) => {
                let found = catalog.existing(id).map_err(Rejected::asked)?;
                Ok(origin(found.id, None, false))
            }
            ForkTarget::Time(time) => {
                let Some(window) = profile.pitr() else {
                    return Err(Error::invalid(format!(
                        "{kind} has no point-in-time recovery on plan {plan}: fork one of its backups"
                    )));
                };
                let now = self.platform.env().now();
                if time < window.before(now) {
                    return Err(Error::invalid(format!(
                        "{time} lies before the {window} that plan {plan} keeps of {kind}: allowed is from {} on",
                        window.before(now)
                    )));
                }
                let restorable = windows(&*self.repository, None, &self.work()).await?;
                let holds = restorable.windows.iter().find(|w| w.from_time <= time && time <= w.to_time);
                let base = holds.and_then(|w| {
                    w.window
                        .backups
                        .iter()
                        .filter(|backup| backup.at <= time)
                        .max_by_key(|backup| (backup.at, backup.id))
                });
                let base = base.ok_or_else(|| {
                    let windows = restorable.windows.iter().map(|w| format!("{} to {}", w.from_time, w.to_time));
                    let windows: Vec<_> = windows.collect();
                    Error::invalid(format!("{time} cannot be restored; restorable is {}", windows.join("; and ")))
                })?;
                Ok(origin(base.id, Some(time), false))
            }
        }
    }
}
