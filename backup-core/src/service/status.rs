//! What people and dashboards are shown.

use jiff::Timestamp;

use super::drill::DrillStatus;
use super::managed::{ManagedService, state_of};
use super::role::Action;
use crate::catalog::{Actor, Audited, BackupKind, FinishedRun, Lease, Run, ServiceSpec, Stage};
use crate::error::Result;
use crate::id::{BackupId, ServiceId};
use crate::run::{Retention, stored_log, windows};

/// Where a service stands.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// Which service.
    pub service: ServiceId,
    /// What it is.
    pub spec: ServiceSpec,
    /// When it was created.
    pub created: Timestamp,
    /// Where its life stands.
    #[serde(flatten)]
    pub stage: Stage,
    /// When it changes by itself: is deleted because it is off, or purged because it was deleted.
    pub deadline: Option<Timestamp>,
    /// Why no backups are taken.
    pub suspended: Option<String>,
    /// Who works on it.
    pub lease: Option<Lease>,
    /// Who follows its log.
    pub capture: Option<Lease>,
    /// The backup that is under way.
    pub run: Option<Run>,
    /// The last one that has ended.
    pub last_run: Option<FinishedRun>,
    /// How many have failed in a row.
    pub failures: u32,
    /// When the next one is due, if it runs.
    pub next_backup: Option<Timestamp>,
    /// How many backups there are.
    pub backups: usize,
    /// The newest one, and when it was complete.
    pub newest: Option<(BackupId, Timestamp)>,
    /// When they were last proven.
    pub drills: DrillStatus,
}

/// Why a backup stays.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct KeptBecause {
    /// The reason, for people.
    pub reason: String,
    /// When it ends if nothing else happens.
    pub until: Option<Timestamp>,
}

/// A backup as it is listed. It cannot be downloaded: all that can be done with it is to restore it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ListedBackup {
    /// Its id.
    pub id: BackupId,
    /// Its name: the service and the moment, as in `orders-20261127T031500Z`.
    pub name: String,
    /// Whether it stored everything anew.
    pub kind: BackupKind,
    /// When it began.
    pub started_at: Timestamp,
    /// When it had ended.
    pub ended_at: Timestamp,
    /// Bytes that a restore writes.
    pub data_bytes: u64,
    /// Bytes that it has added to what was stored.
    pub stored_bytes: u64,
    /// Where it lies.
    pub location: String,
    /// Why it is kept; nothing when the next tick lets it go.
    pub kept: Vec<KeptBecause>,
    /// When it expires if nothing else happens. None when it does not by time alone.
    pub expires_at: Option<Timestamp>,
    /// Whether its owner can restore or fork it. What is for disaster recovery only is restored by the platform.
    pub user_restorable: bool,
}

impl ManagedService {
    /// Where it stands.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn status(&self) -> Result<ServiceStatus> {
        let catalog = self.catalog().await?;
        let service = state_of(&catalog)?;
        let now = self.platform.env().now();
        let newest = catalog.latest().map(|backup| (backup.id, backup.snapshot.consistent_at()));
        Ok(ServiceStatus {
            service: self.id.clone(),
            spec: service.spec.clone(),
            created: service.created,
            stage: service.stage,
            deadline: super::facts::lifecycle(service).deadline(self.platform.lifecycle()),
            suspended: service.suspended.clone(),
            lease: service.lease.clone().filter(|lease| now < lease.until),
            capture: service.capture.clone().filter(|held| now < held.until),
            run: service.run,
            last_run: service.last_run.clone(),
            failures: service.failures,
            next_backup: if service.stage == Stage::Running { self.due(service, &catalog, now)?.0 } else { None },
            backups: catalog.backups().count(),
            newest,
            drills: self.drills(service, &catalog, now)?,
        })
    }

    /// The backups, oldest first, each with why it is kept and until when.
    ///
    /// # Errors
    /// When catalog or log cannot be read, or `actor` may not.
    pub async fn backups(&self, actor: &Actor) -> Result<Vec<ListedBackup>> {
        Action::View.permit(actor)?;
        let catalog = self.catalog().await?;
        let service = state_of(&catalog)?;
        let profile = self.platform.profile(&service.spec.kind, &service.spec.plan)?;
        let ledger = stored_log(&*self.repository, &catalog).await?;
        let plan = Retention::of(profile, &catalog, ledger.as_deref(), self.platform.env().now()).plan;
        let listed = catalog.backups().map(|record| {
            let (kept, expires_at) = match plan.verdict(record.id) {
                Some(backup_policy::retention::Verdict::Keep { reasons, expires_at }) => {
                    let kept =
                        reasons.iter().map(|kept| KeptBecause { reason: kept.reason.to_string(), until: kept.until });
                    (kept.collect(), *expires_at)
                }
                _ => (Vec::new(), None),
            };
            ListedBackup {
                id: record.id,
                name: format!("{}-{}", self.id, record.started_at.strftime("%Y%m%dT%H%M%SZ")),
                kind: record.kind,
                started_at: record.started_at,
                ended_at: record.ended_at,
                data_bytes: record.data_bytes,
                stored_bytes: record.stored_bytes,
                location: service.spec.location.clone(),
                kept,
                expires_at,
                user_restorable: profile.rights().restore,
            }
        });
        Ok(listed.collect())
    }

    /// The moments that can be restored, as intervals.
    ///
    /// # Errors
    /// When catalog or log cannot be read, or `actor` may not.
    pub async fn restorable(&self, actor: &Actor) -> Result<Vec<(Timestamp, Timestamp)>> {
        Action::View.permit(actor)?;
        let restorable = windows(&*self.repository, None, &self.work()).await?;
        Ok(restorable.windows.iter().map(|window| (window.from_time, window.to_time)).collect())
    }

    /// Everything that was decided about it and that happened to it between `from` and `to`, oldest first.
    ///
    /// # Errors
    /// When the catalog cannot be read, or `actor` may not.
    pub async fn audit(&self, actor: &Actor, from: Timestamp, to: Timestamp) -> Result<Vec<Audited>> {
        Action::View.permit(actor)?;
        let catalog = self.catalog().await?;
        let trail = state_of(&catalog)?.trail.iter();
        Ok(trail.filter(|audited| (from..=to).contains(&audited.at)).cloned().collect())
    }
}
