//! What taking away what nobody needs is told, and says.

use std::time::Duration;

use crate::id::{BackupId, SessionId};
use crate::snapshot::Finding;

/// What is collected, and how carefully. Data, not components.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CollectOptions {
    /// How long what was condemned stays for those who still read it, and may be had again. 24 hours.
    pub grace: Duration,
    /// After how long without a sign of life a session is taken for dead. 24 hours; sessions that are given something give one every hour.
    pub silence: Duration,
    /// How long what an interrupted backup has stored is kept for the next one to build on. Seven days.
    pub interrupted: Duration,
    /// A pack of which this share is dead, in percent, is copied without it. 40; more than 100: never.
    pub dead_percent: u8,
    /// For how long after its commit a backup keeps everything that it needs, whatever the catalog says of it: by the store's clock, which nobody who
    /// may only add objects can set. Zero: for as long as the catalog says. Log stays as long after it was stored. The grace is then told by the store's
    /// clock too. For repositories that are written to by hosts that may be taken over: at least as long as a loss may take to be noticed.
    pub protect: Duration,
    /// Bytes of needed packs of earlier epochs that are sealed anew in the present one, the oldest first: who was removed and has kept an old key then has
    /// nothing left to open with it but copies that he has taken. Zero: none.
    pub reseal: u64,
}

impl Default for CollectOptions {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        let (interrupted, protect) = (day * 7, Duration::ZERO);
        Self { grace: day, silence: day, interrupted, dead_percent: 40, protect, reseal: 0 }
    }
}

impl CollectOptions {
    /// Sets how long what was condemned stays.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets after how long without a sign of life a session is taken for dead.
    #[must_use]
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Sets how long what an interrupted backup has stored is kept.
    #[must_use]
    pub fn interrupted(mut self, kept: Duration) -> Self {
        self.interrupted = kept;
        self
    }

    /// Sets for how long a backup keeps everything that it needs, whatever the catalog says.
    #[must_use]
    pub fn protect(mut self, protect: Duration) -> Self {
        self.protect = protect;
        self
    }

    /// Sets how many bytes of packs of earlier epochs are sealed anew.
    #[must_use]
    pub fn reseal(mut self, bytes: u64) -> Self {
        self.reseal = bytes;
        self
    }

    /// Sets which share of a pack must be dead for it to be copied, in percent.
    #[must_use]
    pub fn dead_percent(mut self, percent: u8) -> Self {
        self.dead_percent = percent;
        self
    }
}

/// What a collection would do now.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct CollectionPlan {
    /// Sessions that are taken for dead.
    pub fenced: Vec<SessionId>,
    /// Packs that nobody needs.
    pub packs: u64,
    /// Bytes that they and what else goes with them free.
    pub bytes: u64,
    /// Packs that are copied without what is dead in them, or to be sealed anew.
    pub repacked: u64,
    /// Bytes of these packs.
    pub repacked_bytes: u64,
    /// Bytes of them that are needed, and copied.
    pub copied_bytes: u64,
    /// Packs among them that are sealed anew.
    pub resealed: u64,
    /// Needed packs of earlier epochs that stay as they are this time. Looked for only where some are to be sealed anew.
    pub outdated: u64,
    /// Objects of log that nobody needs.
    pub log_objects: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// Collections whose grace has passed: what they name is deleted.
    pub due: Vec<u64>,
    /// Collections that wait for their grace to pass.
    pub waiting: Vec<u64>,
    /// Backups whose manifests cannot be read, and why: everything that they might need stays.
    pub unreadable: Vec<(BackupId, String)>,
}

/// What a collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Collected {
    /// What was found and done, but for what was deleted.
    pub plan: CollectionPlan,
    /// The number of the collection that was condemned, if there was anything.
    pub condemned: Option<u64>,
    /// Collections that were swept.
    pub swept: Vec<u64>,
    /// Objects that were deleted, or found deleted.
    pub deleted: u64,
    /// What was noticed: backups that cannot be read, deletions that were refused.
    pub findings: Vec<Finding>,
}
