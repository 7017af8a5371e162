//! What can happen to a service under management, as it stands in the journal.

use std::fmt;

use jiff::Timestamp;
use minicbor::{Decode, Encode};

use crate::id::{BackupId, ServiceId};

/// What somebody is allowed to do depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Role {
    /// The customer.
    #[n(0)]
    Owner,
    /// A human of the platform.
    #[n(1)]
    Operator,
    /// The platform's own automation.
    #[n(2)]
    Platform,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Owner => "owner",
            Self::Operator => "operator",
            Self::Platform => "platform",
        })
    }
}

/// Who does something.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
pub struct Actor {
    /// In which role.
    #[n(0)]
    pub role: Role,
    /// Who, for people.
    #[n(1)]
    pub name: String,
}

impl Actor {
    /// An actor.
    pub fn new(role: Role, name: impl Into<String>) -> Self {
        Self { role, name: name.into() }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

/// From where a forked service came.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
pub struct Origin {
    /// The service.
    #[n(0)]
    pub service: ServiceId,
    /// Where its repository lies.
    #[n(1)]
    pub location: String,
    /// The backup that the fork begins with. It is on hold there until the fork is done.
    #[n(2)]
    pub backup: BackupId,
    /// The moment that it reaches; the end of the backup when there is none.
    #[cbor(n(3), with = "crate::cbor::optional_timestamp")]
    pub time: Option<Timestamp>,
    /// It reaches the newest state that is stored.
    #[n(4)]
    pub latest: bool,
}

/// What a service is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct ServiceSpec {
    /// The kind of service, e.g. `postgres`.
    #[n(0)]
    pub kind: String,
    /// The plan, e.g. `startup-4`'s tier `startup`.
    #[n(1)]
    pub plan: String,
    /// The region in which it was first created. Its backups lie there for ever.
    #[n(2)]
    pub home: String,
    /// Where its repository lies: the home, or the nearest region that has object storage.
    #[n(3)]
    pub location: String,
    /// Where it runs now.
    #[n(4)]
    pub zone: String,
    /// The hour of day at which backups begin, UTC; the service's own default when not set.
    #[n(5)]
    pub backup_hour: Option<u8>,
    /// The minute of that hour; the service's own default when not set.
    #[n(6)]
    pub backup_minute: Option<u8>,
    /// From where it was forked.
    #[n(7)]
    pub origin: Option<Origin>,
}

impl ServiceSpec {
    /// A service that runs where it was created, with the default schedule.
    pub fn new(
        kind: impl Into<String>,
        plan: impl Into<String>,
        home: impl Into<String>,
        location: impl Into<String>,
    ) -> Self {
        let home = home.into();
        Self {
            kind: kind.into(),
            plan: plan.into(),
            zone: home.clone(),
            home,
            location: location.into(),
            backup_hour: None,
            backup_minute: None,
            origin: None,
        }
    }

    /// Sets when backups begin.
    #[must_use]
    pub fn with_schedule(mut self, hour: Option<u8>, minute: Option<u8>) -> Self {
        (self.backup_hour, self.backup_minute) = (hour, minute);
        self
    }

    /// Sets from where it is forked.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }
}

/// Why a backup is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum RunPurpose {
    /// It was due.
    #[n(0)]
    Scheduled,
    /// The service is being powered off.
    #[n(1)]
    Final,
    /// Somebody asked for it.
    #[n(2)]
    Asked,
}

/// Why a service is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum RestorePurpose {
    /// It is being powered on.
    #[n(0)]
    PowerOn,
    /// Its node was lost.
    #[n(1)]
    Disaster,
    /// It is a fork in the making.
    #[n(2)]
    Fork,
}

/// One thing that was decided about a service or happened to it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
#[non_exhaustive]
pub enum ServiceChange {
    /// It came into being: running, or to be restored from its origin first.
    #[n(0)]
    Created {
        /// What it is.
        #[n(0)]
        spec: Box<ServiceSpec>,
    },
    /// It has another plan.
    #[n(1)]
    PlanChanged {
        /// The plan.
        #[n(0)]
        plan: String,
    },
    /// Its backups begin at another time.
    #[n(2)]
    ScheduleChanged {
        /// The hour, UTC.
        #[n(0)]
        hour: Option<u8>,
        /// The minute.
        #[n(1)]
        minute: Option<u8>,
    },
    /// It runs elsewhere. Its backups stay where they are.
    #[n(3)]
    Moved {
        /// Where.
        #[n(0)]
        zone: String,
    },
    /// Backups are not taken any more for this reason, or are again.
    #[n(4)]
    Suspended {
        /// The reason; none when backups are taken again.
        #[n(0)]
        reason: Option<String>,
    },
    /// A runner begins to work on it.
    #[n(5)]
    LeaseTaken {
        /// The number of the lease: the next one.
        #[n(0)]
        lease: u64,
        /// Who.
        #[n(1)]
        runner: String,
        /// It may be taken over from here on.
        #[cbor(n(2), with = "crate::cbor::timestamp")]
        until: Timestamp,
    },
    /// The runner is still at work.
    #[n(6)]
    LeaseRenewed {
        /// It may be taken over from here on.
        #[cbor(n(0), with = "crate::cbor::timestamp")]
        until: Timestamp,
    },
    /// The runner has done its work.
    #[n(7)]
    LeaseReleased,
    /// A backup begins.
    #[n(8)]
    RunStarted {
        /// Why.
        #[n(0)]
        purpose: RunPurpose,
        /// When it was due.
        #[cbor(n(1), with = "crate::cbor::timestamp")]
        due: Timestamp,
    },
    /// A backup has ended, one way or the other.
    #[n(9)]
    RunEnded {
        /// What it has made.
        #[n(0)]
        backup: Option<BackupId>,
        /// Why it made nothing.
        #[n(1)]
        problem: Option<String>,
    },
    /// It is to be powered off.
    #[n(10)]
    PowerOffBegun {
        /// What is not in a backup may be lost.
        #[n(0)]
        accept_data_loss: bool,
    },
    /// It is off.
    #[n(11)]
    PoweredOff {
        /// What of it may not be in the repository.
        #[n(0)]
        loss: Option<String>,
    },
    /// It stays on after all.
    #[n(12)]
    PowerOffGivenUp {
        /// Why.
        #[n(0)]
        reason: String,
    },
    /// It is being restored.
    #[n(13)]
    RestoreBegun {
        /// Why.
        #[n(0)]
        purpose: RestorePurpose,
    },
    /// It was restored and runs.
    #[n(14)]
    Restored {
        /// The backup that it began with. None when there was none, and its owner had accepted that.
        #[n(0)]
        backup: Option<BackupId>,
    },
    /// It was deleted. Its backups stay for a while.
    #[n(15)]
    Deleted {
        /// Why, when it was not asked for.
        #[n(0)]
        reason: Option<String>,
    },
    /// It was called back. It is off, and can be powered on. A billable event.
    #[n(16)]
    Recovered,
    /// Its keys and then its objects are being destroyed. Nothing is committed after this but what ends it.
    #[n(17)]
    PurgeBegun,
    /// Its owner was told.
    #[n(18)]
    NoticeSent {
        /// What, in the policy's words.
        #[n(0)]
        notice: String,
    },
    /// Its machines and their disks were given up.
    #[n(19)]
    Discarded,
    /// A runner follows its log from here on.
    #[n(20)]
    CaptureTaken {
        /// The number of this capture: the next one.
        #[n(0)]
        capture: u64,
        /// Who.
        #[n(1)]
        runner: String,
        /// Another one may take it over from here on.
        #[cbor(n(2), with = "crate::cbor::timestamp")]
        until: Timestamp,
    },
    /// The runner still follows the log.
    #[n(21)]
    CaptureRenewed {
        /// Which capture.
        #[n(0)]
        capture: u64,
        /// Another one may take it over from here on.
        #[cbor(n(1), with = "crate::cbor::timestamp")]
        until: Timestamp,
    },
    /// The runner follows the log no more.
    #[n(22)]
    CaptureReleased {
        /// Which capture.
        #[n(0)]
        capture: u64,
    },
    /// Somebody reads its backups, outside of any lease, and says so again before the time has come.
    #[n(23)]
    ReaderSeen {
        /// Who: one name for each time that something is read.
        #[n(0)]
        reader: String,
        /// Nothing is destroyed before.
        #[cbor(n(1), with = "crate::cbor::timestamp")]
        until: Timestamp,
    },
    /// That reader is done.
    #[n(24)]
    ReaderLeft {
        /// Who.
        #[n(0)]
        reader: String,
    },
    /// People were told of the trail up to here.
    #[n(25)]
    Told {
        /// How many of its lines.
        #[n(0)]
        lines: u64,
    },
}

impl ServiceChange {
    /// Whether it belongs to the work of one process and says nothing to people.
    pub(super) fn is_silent(&self) -> bool {
        matches!(
            self,
            Self::LeaseTaken { .. }
                | Self::LeaseRenewed { .. }
                | Self::LeaseReleased
                | Self::CaptureTaken { .. }
                | Self::CaptureRenewed { .. }
                | Self::CaptureReleased { .. }
                | Self::ReaderSeen { .. }
                | Self::ReaderLeft { .. }
                | Self::Told { .. }
        )
    }

    /// Whether people are told of it: what was decided about the service and where its life goes, not what happens every day.
    #[must_use]
    pub fn is_news(&self) -> bool {
        let daily =
            matches!(self, Self::RunStarted { .. } | Self::RunEnded { .. } | Self::NoticeSent { .. } | Self::Discarded);
        !daily && !self.is_silent()
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "be created",
            Self::PlanChanged { .. } => "change its plan",
            Self::ScheduleChanged { .. } => "change its schedule",
            Self::Moved { .. } => "move",
            Self::Suspended { .. } => "suspend its backups",
            Self::LeaseTaken { .. } | Self::LeaseRenewed { .. } | Self::LeaseReleased => "be worked on",
            Self::RunStarted { .. } | Self::RunEnded { .. } => "be backed up",
            Self::PowerOffBegun { .. } | Self::PoweredOff { .. } | Self::PowerOffGivenUp { .. } => "be powered off",
            Self::RestoreBegun { .. } | Self::Restored { .. } => "be restored",
            Self::Deleted { .. } => "be deleted",
            Self::Recovered => "be recovered",
            Self::PurgeBegun => "be purged",
            Self::NoticeSent { .. } => "be given notice",
            Self::Discarded => "be discarded",
            Self::CaptureTaken { .. } | Self::CaptureRenewed { .. } | Self::CaptureReleased { .. } => {
                "have its log followed"
            }
            Self::ReaderSeen { .. } | Self::ReaderLeft { .. } => "be read",
            Self::Told { .. } => "be told of",
        }
    }
}
