//! What all services of a platform have in common.

use std::sync::Arc;
use std::time::Duration;

use backup_policy::lifecycle::LifecyclePolicy;
use backup_policy::{BackupTime, Matrix, Offer, Plan, Profile, Schedule, ServiceKind};
use tokio::sync::Notify;

use super::{LogNotifier, Notifier, Regions, ServiceHost};
use crate::catalog::{Actor, Role, ServiceSpec};
use crate::engine::LogOptions;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::ServiceId;
use crate::log::LogPurpose;

/// Regions, policy, machines and people: everything that running a service needs besides the service.
#[derive(Debug, Clone)]
pub struct Platform {
    regions: Regions,
    matrix: Arc<Matrix>,
    lifecycle: LifecyclePolicy,
    host: Arc<dyn ServiceHost>,
    notifier: Arc<dyn Notifier>,
    env: Env,
    runner: String,
    lease: Duration,
    log: LogOptions,
    verify_days: Option<u32>,
    /// Which logs are to be followed has changed.
    changed: Arc<Notify>,
    /// Which services are to be proven has changed.
    changed_drills: Arc<Notify>,
}

impl Platform {
    /// A platform with the built-in matrix that writes notices to the log of the process. `runner` names this process among those that
    /// run the same services, for people.
    pub fn new(regions: Regions, host: Arc<dyn ServiceHost>, env: Env, runner: impl Into<String>) -> Self {
        Self {
            regions,
            matrix: Arc::new(Matrix::built_in()),
            lifecycle: LifecyclePolicy::default(),
            host,
            notifier: Arc::new(LogNotifier),
            env,
            runner: runner.into(),
            lease: Duration::from_secs(300),
            log: LogOptions::default(),
            verify_days: Some(30),
            changed: Arc::default(),
            changed_drills: Arc::default(),
        }
    }

    /// Sets which service has what on which plan.
    #[must_use]
    pub fn with_matrix(mut self, matrix: Matrix) -> Self {
        self.matrix = Arc::new(matrix);
        self
    }

    /// Sets how long services may be off and deleted ones are kept.
    #[must_use]
    pub fn with_lifecycle(mut self, lifecycle: LifecyclePolicy) -> Self {
        self.lifecycle = lifecycle;
        self
    }

    /// Sets who is told.
    #[must_use]
    pub fn with_notifier(mut self, notifier: Arc<dyn Notifier>) -> Self {
        self.notifier = notifier;
        self
    }

    /// Sets after how long without a sign of life another runner may take over. Five minutes: longer than a store that answers
    /// slowly, shorter than anyone waits for a due backup.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_secs(1));
        self
    }

    /// Sets how the logs of services are written. Their purpose is to follow, and they have no spool: log that waits on the disk of one
    /// host would be missing when another one shuts the deployment down and gives up its machines.
    #[must_use]
    pub fn with_log(mut self, mut options: LogOptions) -> Self {
        (options.purpose, options.spool) = (LogPurpose::Stream, None);
        self.log = options;
        self
    }

    /// Sets within how many days everything that is stored of a service is read once, a part each day. 30; with `None` it is for others to
    /// verify what is stored.
    #[must_use]
    pub fn with_verification(mut self, days: Option<u32>) -> Self {
        self.verify_days = days.map(|days| days.max(1));
        self
    }

    /// Its regions.
    #[must_use]
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    /// What each service has on each plan.
    #[must_use]
    pub fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// Deadlines of services that are off or deleted.
    #[must_use]
    pub fn lifecycle(&self) -> &LifecyclePolicy {
        &self.lifecycle
    }

    pub(super) fn host(&self) -> &Arc<dyn ServiceHost> {
        &self.host
    }

    pub(super) fn notifier(&self) -> &Arc<dyn Notifier> {
        &self.notifier
    }

    pub(super) fn env(&self) -> &Env {
        &self.env
    }

    pub(super) fn verify_days(&self) -> Option<u32> {
        self.verify_days
    }

    pub(super) fn runner(&self) -> &str {
        &self.runner
    }

    pub(super) fn lease(&self) -> Duration {
        self.lease
    }

    pub(super) fn log_options(&self) -> LogOptions {
        self.log.clone()
    }

    pub(super) fn changed(&self) -> &Arc<Notify> {
        &self.changed
    }

    pub(super) fn changed_drills(&self) -> &Arc<Notify> {
        &self.changed_drills
    }

    /// As whom this process acts by itself.
    pub(super) fn actor(&self) -> Actor {
        Actor::new(Role::Platform, self.runner.clone())
    }

    /// What a service of `kind` has on `plan`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when there is no such kind or plan, when the plan does not exist for it, and when
    /// it has no backups, with the reason.
    pub(super) fn profile(&self, kind: &str, plan: &str) -> Result<&Profile> {
        let (kind, plan) = (ServiceKind::new(kind).map_err(refused)?, Plan::new(plan).map_err(refused)?);
        match self.matrix.offer(&kind, &plan).map_err(refused)? {
            Offer::Backups(profile) => Ok(profile),
            Offer::NoBackups { reason } => Err(Error::invalid(format!("{kind} has no backups on {plan}: {reason}"))),
            _ => {
                let offered = self.matrix.plans().iter().filter(|plan| {
                    let offer = self.matrix.offer(&kind, plan);
                    offer.is_ok_and(|offer| !matches!(offer, Offer::NotAvailable))
                });
                let offered: Vec<_> = offered.map(Plan::to_string).collect();
                Err(Error::invalid(format!(
                    "plan {plan} is not available for {kind}; available are {}",
                    offered.join(", ")
                )))
            }
        }
    }

    /// When a service of this kind is backed up.
    pub(super) fn schedule(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<Schedule> {
        let profile = self.profile(&spec.kind, &spec.plan)?;
        let time = backup_time(spec.backup_hour.map(i64::from), spec.backup_minute.map(i64::from))?;
        Schedule::new(profile.cadence().clone(), time, service.as_str()).map_err(refused)
    }
}

/// A time of day as somebody has written it.
pub(super) fn backup_time(hour: Option<i64>, minute: Option<i64>) -> Result<BackupTime> {
    BackupTime::new(hour, minute).map_err(refused)
}

/// What the policy does not allow.
pub(super) fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid(error.to_string()).with_source(error)
}
