//! What the journal tells of a service under management: what it is, where its life stands, who works on it, and everything
//! that was ever decided about it.
//!
//! The rules of the lease and of the stages are part of the fold, so that no runner can act on a stale belief: an event that names
//! a lease fits only while that lease is the last one taken, and an event that moves the service fits only the stage that it starts from.

mod change;
mod trail;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use super::{BackupRecord, Rejected};
use crate::id::{BackupId, SessionId};
pub use change::{Actor, Origin, RestorePurpose, Role, RunPurpose, ServiceChange, ServiceSpec};
pub use trail::Trail;

/// Where the life of a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "stage")]
#[non_exhaustive]
pub enum Stage {
    /// It runs.
    Running,
    /// It is being powered off.
    PoweringOff {
        /// What is not in a backup may be lost.
        accept_data_loss: bool,
    },
    /// It is off.
    Off {
        /// Since when.
        since: Timestamp,
    },
    /// It is being restored.
    Restoring {
        /// Why.
        purpose: RestorePurpose,
        /// Since when it was off before, if it was.
        off_since: Option<Timestamp>,
    },
    /// It was deleted, its backups are still there.
    Deleted {
        /// Since when.
        since: Timestamp,
    },
    /// Its keys and objects are being destroyed.
    Purging {
        /// Since when.
        since: Timestamp,
    },
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::PoweringOff { .. } => f.write_str("being powered off"),
            Self::Off { since } => write!(f, "off since {since}"),
            Self::Restoring { .. } => f.write_str("being restored"),
            Self::Deleted { since } => write!(f, "deleted since {since}"),
            Self::Purging { since } => write!(f, "being purged since {since}"),
        }
    }
}

/// Who works on a service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Lease {
    /// Its number.
    pub number: u64,
    /// Who.
    pub runner: String,
    /// It may be taken over from here on.
    pub until: Timestamp,
}

/// A backup under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Run {
    /// Why.
    pub purpose: RunPurpose,
    /// When it was due.
    pub due: Timestamp,
    /// When it began.
    pub started: Timestamp,
}

/// A backup that has ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FinishedRun {
    /// What it was.
    #[serde(flatten)]
    pub run: Run,
    /// When it ended.
    pub ended: Timestamp,
    /// What it has made.
    pub backup: Option<BackupId>,
    /// Why it made nothing.
    pub problem: Option<String>,
}

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Audited {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: Actor,
    /// What.
    #[serde(flatten)]
    pub change: ServiceChange,
}

/// The state of a service under management.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceState {
    /// What it is.
    pub spec: ServiceSpec,
    /// When it was created.
    pub created: Timestamp,
    /// Where its life stands.
    pub stage: Stage,
    /// Since when its schedule is what it is.
    pub scheduled_since: Timestamp,
    /// Why no backups are taken.
    pub suspended: Option<String>,
    /// Who works on it.
    pub lease: Option<Lease>,
    /// How many leases were taken.
    pub leases: u64,
    /// The backup that is under way.
    pub run: Option<Run>,
    /// The last one that ended.
    pub last_run: Option<FinishedRun>,
    /// The last one that made a backup, in the order of commits.
    pub last_made: Option<FinishedRun>,
    /// How many backups in a row have failed.
    pub failures: u32,
    /// Whether its machines and their disks were given up.
    pub discarded: bool,
    /// Who follows its log. Ends by itself when the service does not run any more.
    pub capture: Option<Lease>,
    /// How many captures of its log were begun.
    pub captures: u64,
    /// Who reads its backups outside of any lease, and until when nothing is destroyed because of that.
    pub readers: BTreeMap<String, Timestamp>,
    /// Of how many lines of the trail people were told.
    pub told: u64,
    /// The notices that were given in this stage, with their moments.
    pub notices: BTreeMap<String, Timestamp>,
    /// Everything but leases, oldest first.
    pub trail: Trail,
}

/// Why a change of a service does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceRejected {
    /// Nobody has created it.
    #[error("the service is not under management")]
    NotCreated,
    /// It was created before.
    #[error("the service is under management already")]
    AlreadyCreated,
    /// It does not start from this stage.
    #[error("the service is {stage}, so it cannot {change}")]
    WrongStage {
        /// The stage.
        stage: String,
        /// What was wanted.
        change: &'static str,
    },
    /// Another runner has taken over.
    #[error("lease {0} is not held any more")]
    LeaseLost(u64),
    /// Another runner is at work.
    #[error("runner {runner} works on the service until {until}")]
    LeaseHeld {
        /// Which.
        runner: String,
        /// Until when.
        until: Timestamp,
    },
    /// A lease has another number than the next one.
    #[error("lease {0} was taken in the meantime")]
    LeaseTaken(u64),
    /// A backup is under way.
    #[error("a backup is under way since {0}")]
    RunUnderWay(Timestamp),
    /// No backup is under way.
    #[error("no backup is under way")]
    NoRun,
    /// Backups of it are on hold.
    #[error("{0} of its backups are on hold")]
    Held(usize),
    /// Another runner follows its log.
    #[error("runner {runner} follows the log of the service until {until}")]
    CaptureHeld {
        /// Which.
        runner: String,
        /// Until when.
        until: Timestamp,
    },
    /// A capture has another number than the next one.
    #[error("capture {0} was begun in the meantime")]
    CaptureTaken(u64),
    /// Another runner follows the log, or the service does not run any more.
    #[error("capture {0} has ended")]
    CaptureLost(u64),
    /// Somebody reads its backups.
    #[error("{reader} reads its backups until {until}")]
    BeingRead {
        /// Who.
        reader: String,
        /// Until when.
        until: Timestamp,
    },
}

impl ServiceState {
    fn new(spec: ServiceSpec, at: Timestamp) -> Self {
        let stage = match spec.origin {
            Some(_) => Stage::Restoring { purpose: RestorePurpose::Fork, off_since: None },
            None => Stage::Running,
        };
        Self {
            spec,
            created: at,
            stage,
            scheduled_since: at,
            suspended: None,
            lease: None,
            leases: 0,
            run: None,
            last_run: None,
            last_made: None,
            failures: 0,
            discarded: false,
            capture: None,
            captures: 0,
            readers: BTreeMap::new(),
            told: 0,
            notices: BTreeMap::new(),
            trail: Trail::default(),
        }
    }

    /// Whether the content of its repository must not grow any more.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Purging { .. })
    }

    /// Whether its log is to be followed, if its engine has one.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.stage == Stage::Running && self.suspended.is_none()
    }

    /// Until when nothing of it may be destroyed because somebody reads it.
    #[must_use]
    pub fn read_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.readers.values().copied().filter(|until| now < *until).max()
    }

    /// What people were not told of yet, oldest first, each with the number of lines up to its own.
    pub fn untold(&self) -> impl Iterator<Item = (u64, &Audited)> {
        let told = usize::try_from(self.told).unwrap_or(usize::MAX);
        let numbered = self.trail.behind(told);
        numbered.filter(|(_, audited)| audited.change.is_news())
    }

    fn guard(&self, lease: Option<u64>) -> Result<(), ServiceRejected> {
        match lease {
            Some(number) if self.lease.as_ref().is_none_or(|held| held.number != number) => {
                Err(ServiceRejected::LeaseLost(number))
            }
            _ => Ok(()),
        }
    }

    /// The stage after `change`, if that moves it.
    fn next_stage(&self, change: &ServiceChange, at: Timestamp) -> Result<Stage, ServiceRejected> {
        use ServiceChange as C;
        Ok(match (change, self.stage) {
            (C::PowerOffBegun { accept_data_loss }, Stage::Running) => {
                Stage::PoweringOff { accept_data_loss: *accept_data_loss }
            }
            (C::PoweredOff { .. }, Stage::PoweringOff { .. }) => Stage::Off { since: at },
            (C::PowerOffGivenUp { .. }, Stage::PoweringOff { .. }) | (C::Restored { .. }, Stage::Restoring { .. }) => {
                Stage::Running
            }
            (C::RestoreBegun { purpose: RestorePurpose::PowerOn }, Stage::Off { since }) => {
                Stage::Restoring { purpose: RestorePurpose::PowerOn, off_since: Some(since) }
            }
            (C::RestoreBegun { purpose: RestorePurpose::Disaster }, Stage::Running) => {
                Stage::Restoring { purpose: RestorePurpose::Disaster, off_since: None }
            }
            (C::Deleted { .. }, Stage::Running | Stage::Off { .. } | Stage::Restoring { .. }) => {
                Stage::Deleted { since: at }
            }
            (C::Recovered, Stage::Deleted { .. }) => Stage::Off { since: at },
            (C::PurgeBegun, Stage::Deleted { .. }) => Stage::Purging { since: at },
            // What is decided about a service that is being destroyed would be destroyed with it.
            (
                C::PlanChanged { .. } | C::ScheduleChanged { .. } | C::Moved { .. } | C::Suspended { .. },
                Stage::Running | Stage::PoweringOff { .. } | Stage::Off { .. } | Stage::Restoring { .. },
            )
            | (C::RunStarted { .. }, Stage::Running | Stage::PoweringOff { .. } | Stage::Deleted { .. })
            | (
                C::RunEnded { .. }
                | C::NoticeSent { .. }
                | C::LeaseTaken { .. }
                | C::LeaseRenewed { .. }
                | C::LeaseReleased
                | C::CaptureReleased { .. }
                | C::ReaderLeft { .. }
                | C::Told { .. },
                _,
            )
            | (C::CaptureTaken { .. }, Stage::Running)
            | (C::Discarded, Stage::Off { .. } | Stage::Deleted { .. } | Stage::Purging { .. }) => self.stage,
            (C::ReaderSeen { .. }, stage) if !matches!(stage, Stage::Purging { .. }) => stage,
            (C::CaptureRenewed { capture, .. }, stage) if stage != Stage::Running => {
                return Err(ServiceRejected::CaptureLost(*capture));
            }
            (C::CaptureRenewed { .. }, stage) => stage,
            (_, stage) => {
                return Err(ServiceRejected::WrongStage { stage: stage.to_string(), change: change.name() });
            }
        })
    }

    /// The state after `change`; unchanged when it is refused.
    fn apply(
        &mut self,
        change: &ServiceChange,
        lease: Option<u64>,
        by: &Actor,
        at: Timestamp,
    ) -> Result<(), ServiceRejected> {
        self.guard(lease)?;
        let stage = self.next_stage(change, at)?;
        match change {
            ServiceChange::LeaseTaken { lease, runner, until } => {
                if let Some(held) = self.lease.as_ref().filter(|held| at < held.until) {
                    return Err(ServiceRejected::LeaseHeld { runner: held.runner.clone(), until: held.until });
                }
                if *lease != self.leases + 1 {
                    return Err(ServiceRejected::LeaseTaken(*lease));
                }
                self.leases = *lease;
                self.lease = Some(Lease { number: *lease, runner: runner.clone(), until: *until });
            }
            ServiceChange::LeaseRenewed { until } => {
                let Some(held) = &mut self.lease else { return Err(ServiceRejected::LeaseLost(lease.unwrap_or(0))) };
                held.until = *until;
            }
            ServiceChange::LeaseReleased => self.lease = None,
            ServiceChange::RunStarted { purpose, due } => {
                if let Some(run) = &self.run {
                    return Err(ServiceRejected::RunUnderWay(run.started));
                }
                self.run = Some(Run { purpose: *purpose, due: *due, started: at });
            }
            ServiceChange::RunEnded { backup, problem } => {
                let run = self.run.take().ok_or(ServiceRejected::NoRun)?;
                self.failures = if backup.is_some() { 0 } else { self.failures.saturating_add(1) };
                let finished = FinishedRun { run, ended: at, backup: *backup, problem: problem.clone() };
                if backup.is_some() {
                    self.last_made = Some(finished.clone());
                }
                self.last_run = Some(finished);
            }
            ServiceChange::CaptureTaken { .. }
            | ServiceChange::CaptureRenewed { .. }
            | ServiceChange::CaptureReleased { .. } => self.follow(change, at)?,
            ServiceChange::ReaderSeen { reader, until } => {
                self.readers.retain(|_, until| at < *until);
                self.readers.insert(reader.clone(), *until);
            }
            ServiceChange::ReaderLeft { reader } => {
                self.readers.remove(reader);
            }
            ServiceChange::PurgeBegun => {
                if let Some((reader, until)) = self.readers.iter().find(|(_, until)| at < **until) {
                    return Err(ServiceRejected::BeingRead { reader: reader.clone(), until: *until });
                }
            }
            ServiceChange::Told { lines } => {
                self.told = self.told.max(*lines).min(self.trail.len() as u64);
            }
            ServiceChange::PlanChanged { plan } => self.spec.plan.clone_from(plan),
            ServiceChange::ScheduleChanged { hour, minute } => {
                (self.spec.backup_hour, self.spec.backup_minute) = (*hour, *minute);
                self.scheduled_since = at;
            }
            ServiceChange::Moved { zone } => self.spec.zone.clone_from(zone),
            ServiceChange::Suspended { reason } => self.suspended.clone_from(reason),
            ServiceChange::Discarded => self.discarded = true,
            ServiceChange::RestoreBegun { .. } => self.discarded = false,
            ServiceChange::NoticeSent { notice } => {
                self.notices.entry(notice.clone()).or_insert(at);
            }
            _ => {}
        }
        if std::mem::discriminant(&stage) != std::mem::discriminant(&self.stage) {
            self.notices.clear();
        }
        self.stage = stage;
        // Whoever shuts it down follows the log to its end itself.
        if !self.is_followed() {
            self.capture = None;
        }
        if !change.is_silent() {
            self.trail.push(Audited { at, by: by.clone(), change: change.clone() });
        }
        Ok(())
    }
}

impl ServiceState {
    /// The rules of the capture, which are those of the lease: the next number, when the last one has ended.
    fn follow(&mut self, change: &ServiceChange, at: Timestamp) -> Result<(), ServiceRejected> {
        match change {
            ServiceChange::CaptureTaken { capture, runner, until } => {
                if let Some(held) = self.capture.as_ref().filter(|held| at < held.until) {
                    return Err(ServiceRejected::CaptureHeld { runner: held.runner.clone(), until: held.until });
                }
                if *capture != self.captures + 1 {
                    return Err(ServiceRejected::CaptureTaken(*capture));
                }
                self.captures = *capture;
                self.capture = Some(Lease { number: *capture, runner: runner.clone(), until: *until });
            }
            ServiceChange::CaptureRenewed { capture, until } => {
                let held = self.capture.as_mut().filter(|held| held.number == *capture);
                held.ok_or(ServiceRejected::CaptureLost(*capture))?.until = *until;
            }
            ServiceChange::CaptureReleased { capture } => {
                // One that was taken over or has ended by itself is not there any more, and that is all the same.
                self.capture.take_if(|held| held.number == *capture);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The state of a service after `change`; unchanged when it is refused.
pub(super) fn apply(
    state: &mut Option<Box<ServiceState>>,
    (change, lease): (&ServiceChange, Option<u64>),
    (by, at): (&Actor, Timestamp),
    holds: usize,
) -> Result<(), Rejected> {
    match (change, state.as_deref_mut()) {
        (ServiceChange::Created { .. }, Some(_)) => Err(ServiceRejected::AlreadyCreated.into()),
        (ServiceChange::Created { spec }, None) => {
            let mut created = ServiceState::new(ServiceSpec::clone(spec), at);
            created.trail.push(Audited { at, by: by.clone(), change: change.clone() });
            *state = Some(Box::new(created));
            Ok(())
        }
        (_, None) => Err(ServiceRejected::NotCreated.into()),
        (ServiceChange::PurgeBegun, Some(_)) if holds > 0 => Err(ServiceRejected::Held(holds).into()),
        (_, Some(service)) => Ok(service.apply(change, lease, by, at)?),
    }
}

/// Something that keeps a backup from being expired.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Hold {
    /// Why, for people.
    pub reason: String,
    /// Who wants it.
    pub by: Actor,
    /// Since when.
    pub since: Timestamp,
    /// Whether the log that follows the backup is kept as well.
    pub log: bool,
}

/// A backup that is not kept any more.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ExpiredBackup {
    /// The session that wrote it.
    pub session: SessionId,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
    /// The backup, as long as nothing of it was taken away.
    pub record: Option<Box<BackupRecord>>,
}

#[cfg(test)]
mod tests;
