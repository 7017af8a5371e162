//! What a plan promises of a service's backups.

mod cadence;
mod cron;
mod document;
mod tier;

use serde::{Deserialize, Serialize};

pub use self::cadence::Cadence;
pub(crate) use self::cadence::Rhythm;
pub use self::document::{ProfileDocument, TierDocument};
pub use self::tier::{Period, Tier};
use crate::age::Age;
use crate::error::{Error, Result};

/// What users of a service may do with its backups. What neither is allowed is for the platform alone: powering on, replacing
/// a lost node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Rights {
    /// May restore a backup, or a moment, that they choose.
    pub restore: bool,
    /// May make another service of it.
    pub fork: bool,
}

impl Rights {
    /// Restore and fork.
    pub const ALL: Self = Self { restore: true, fork: true };
    /// Neither: disaster recovery by the platform only.
    pub const PLATFORM_ONLY: Self = Self { restore: false, fork: false };

    /// These rights, named one by one.
    #[must_use]
    pub const fn new(restore: bool, fork: bool) -> Self {
        Self { restore, fork }
    }
}

/// How often a service is backed up, what is kept of it and for whom. Always valid: it is only made by
/// [`ProfileBuilder::build`] or from a document, and both check it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "ProfileDocument", try_from = "ProfileDocument")]
pub struct Profile {
    pub(crate) cadence: Cadence,
    pub(crate) tiers: Vec<Tier>,
    pub(crate) minimum_count: u32,
    pub(crate) minimum_age: Option<Age>,
    pub(crate) pitr: Option<Age>,
    pub(crate) rights: Rights,
    pub(crate) always_on: bool,
    pub(crate) drills: Option<Cadence>,
}

impl Profile {
    /// The most tiers that a profile has.
    pub const MAX_TIERS: usize = 16;
    /// The highest minimum count.
    pub const MAX_MINIMUM_COUNT: u32 = 1_000;

    /// Begins a profile of backups by `cadence`, for all users, of which the last good one is kept.
    pub fn builder(cadence: Cadence) -> ProfileBuilder {
        ProfileBuilder(Self::starting(cadence))
    }

    pub(crate) const fn starting(cadence: Cadence) -> Self {
        Self {
            cadence,
            tiers: Vec::new(),
            minimum_count: 1,
            minimum_age: None,
            pitr: None,
            rights: Rights::ALL,
            always_on: false,
            drills: None,
        }
    }

    /// How often a backup is made.
    #[must_use]
    pub fn cadence(&self) -> &Cadence {
        &self.cadence
    }

    /// What is kept. Never empty.
    #[must_use]
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// How many good backups stay, however old. At least 1.
    #[must_use]
    pub fn minimum_count(&self) -> u32 {
        self.minimum_count
    }

    /// The age before which nothing is expired, counted from a backup's end.
    #[must_use]
    pub fn minimum_age(&self) -> Option<Age> {
        self.minimum_age
    }

    /// How far back every moment is restorable, for engines with a log.
    #[must_use]
    pub fn pitr(&self) -> Option<Age> {
        self.pitr
    }

    /// What users may do.
    #[must_use]
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// Whether backups cannot be turned off.
    #[must_use]
    pub fn always_on(&self) -> bool {
        self.always_on
    }

    /// How often it is proven that a backup can be restored, by restoring one. None: only when somebody asks.
    #[must_use]
    pub fn drills(&self) -> Option<&Cadence> {
        self.drills.as_ref()
    }

    /// Whether it is what it must be; places are those of a [`ProfileDocument`].
    pub(crate) fn checked(self) -> Result<Self> {
        if self.tiers.is_empty() || self.tiers.len() > Self::MAX_TIERS {
            let found = if self.tiers.is_empty() { "empty".to_owned() } else { format!("{} tiers", self.tiers.len()) };
            return Err(Error::invalid("tiers", found, format!("1 to {} tiers", Self::MAX_TIERS)));
        }
        let interval = self.cadence.longest_interval();
        for (index, tier) in self.tiers.iter().enumerate() {
            self.check_tier(*tier, interval).map_err(|error| error.within(format_args!("tiers[{index}]")))?;
        }
        Ok(self)
    }

    /// A tier may promise nothing that the cadence cannot give.
    fn check_tier(&self, tier: Tier, interval: jiff::SignedDuration) -> Result<()> {
        let cadence = &self.cadence;
        if tier.period.length().is_some_and(|length| length.duration() < interval) {
            let allowed =
                format!("a period no shorter than the longest time between two backups ({cadence}: {interval:#})");
            return Err(Error::invalid("period", tier.period, allowed));
        }
        let Some(age) = tier.age else { return Ok(()) };
        let shortest = tier.period.length().map_or(interval, |length| length.duration().max(interval));
        if age.duration() < shortest {
            let allowed =
                format!("{shortest:#} or more, the longest time between two backups of this tier ({cadence})");
            return Err(Error::invalid("age", age, allowed));
        }
        Ok(())
    }
}

/// Makes a [`Profile`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ProfileBuilder(Profile);

impl ProfileBuilder {
    /// Adds a tier.
    pub fn tier(mut self, tier: Tier) -> Self {
        self.0.tiers.push(tier);
        self
    }

    /// Keeps at least `count` good backups, however old.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside of 1 to [`Profile::MAX_MINIMUM_COUNT`].
    pub fn minimum_count(mut self, count: i64) -> Result<Self> {
        let known = u32::try_from(count).ok().filter(|count| (1..=Profile::MAX_MINIMUM_COUNT).contains(count));
        self.0.minimum_count = known
            .ok_or_else(|| Error::invalid("minimum_count", count, format!("1 to {}", Profile::MAX_MINIMUM_COUNT)))?;
        Ok(self)
    }

    /// Expires nothing that is younger than `age`.
    pub fn minimum_age(mut self, age: Age) -> Self {
        self.0.minimum_age = Some(age);
        self
    }

    /// Keeps every moment of the last `window` restorable.
    pub fn pitr(mut self, window: Age) -> Self {
        self.0.pitr = Some(window);
        self
    }

    /// Sets what users may do.
    pub fn rights(mut self, rights: Rights) -> Self {
        self.0.rights = rights;
        self
    }

    /// Proves by `cadence` that a backup can be restored.
    pub fn drills(mut self, cadence: Cadence) -> Self {
        self.0.drills = Some(cadence);
        self
    }

    /// Backups cannot be turned off.
    pub fn always_on(mut self) -> Self {
        self.0.always_on = true;
        self
    }

    /// The profile.
    ///
    /// # Errors
    /// [`Error::Invalid`] without tiers or with too many, and for a tier that promises more than the cadence can give: hourly
    /// ones of a daily backup, an age that is shorter than the time between two backups.
    pub fn build(self) -> Result<Profile> {
        self.0.checked()
    }
}
