//! A profile as it is written down.

use serde::{Deserialize, Serialize};

use super::{Cadence, Period, Profile, ProfileBuilder, Rights, Tier};
use crate::age::Age;
use crate::error::{Error, Result};

/// A [`Profile`] as it stands in a document: names, texts and numbers as somebody wrote them, checked only when it becomes a
/// profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileDocument {
    /// How often: `daily`, `every 3h`, `cron 15 3 * * MON`.
    pub cadence: String,
    /// What is kept.
    pub tiers: Vec<TierDocument>,
    /// How many good backups stay, however old. 1 when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_count: Option<i64>,
    /// The age before which nothing is expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_age: Option<String>,
    /// How far back every moment is restorable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pitr: Option<String>,
    /// What users may do: `restore`, `fork`, both or nothing.
    pub users_may: Vec<String>,
    /// Whether backups cannot be turned off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always_on: bool,
    /// How often it is proven that a backup can be restored: `every 30d`. Only when somebody asks, when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drills: Option<String>,
}

/// A [`Tier`] as it stands in a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierDocument {
    /// `every`, `hourly`, `daily`, `weekly`, `monthly` or `yearly`.
    pub period: String,
    /// How long, such as `14d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<String>,
    /// How many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
}

impl TryFrom<TierDocument> for Tier {
    type Error = Error;

    fn try_from(document: TierDocument) -> Result<Self> {
        let period = Period::named(&document.period)?;
        let age = document.age.as_deref().map(str::parse::<Age>).transpose()?;
        match (age, document.count) {
            (Some(age), Some(count)) => Self::by_age(period, age).and_count(count),
            (Some(age), None) => Ok(Self::by_age(period, age)),
            (None, Some(count)) => Self::by_count(period, count),
            (None, None) => Err(Error::invalid("", "without age and count", "an age, a count or both")),
        }
    }
}

impl From<Tier> for TierDocument {
    fn from(tier: Tier) -> Self {
        Self {
            period: tier.period.name().to_owned(),
            age: tier.age.map(|age| age.to_string()),
            count: tier.count.map(i64::from),
        }
    }
}

impl TryFrom<ProfileDocument> for Profile {
    type Error = Error;

    fn try_from(document: ProfileDocument) -> Result<Self> {
        let age = |text: Option<String>, place: &str| {
            text.map(|text| text.parse::<Age>().map_err(|error| error.renamed(place))).transpose()
        };
        let mut builder: ProfileBuilder = Self::builder(document.cadence.parse()?).rights(rights(&document.users_may)?);
        for (index, tier) in document.tiers.into_iter().enumerate() {
            let place = format!("tiers[{index}]");
            builder = builder.tier(Tier::try_from(tier).map_err(|error| error.within(place))?);
        }
        if let Some(count) = document.minimum_count {
            builder = builder.minimum_count(count)?;
        }
        if let Some(minimum) = age(document.minimum_age, "minimum_age")? {
            builder = builder.minimum_age(minimum);
        }
        if let Some(window) = age(document.pitr, "pitr")? {
            builder = builder.pitr(window);
        }
        if document.always_on {
            builder = builder.always_on();
        }
        if let Some(drills) = document.drills {
            builder = builder.drills(drills.parse::<Cadence>().map_err(|error| error.renamed("drills"))?);
        }
        builder.build()
    }
}

impl From<Profile> for ProfileDocument {
    fn from(profile: Profile) -> Self {
        let Rights { restore, fork } = profile.rights;
        let may = [("restore", restore), ("fork", fork)];
        Self {
            cadence: profile.cadence.to_string(),
            tiers: profile.tiers.into_iter().map(TierDocument::from).collect(),
            minimum_count: (profile.minimum_count > 1).then(|| i64::from(profile.minimum_count)),
            minimum_age: profile.minimum_age.map(|age| age.to_string()),
            pitr: profile.pitr.map(|age| age.to_string()),
            users_may: may.into_iter().filter(|(_, may)| *may).map(|(name, _)| name.to_owned()).collect(),
            always_on: profile.always_on,
            drills: profile.drills.map(|cadence| cadence.to_string()),
        }
    }
}

fn rights(names: &[String]) -> Result<Rights> {
    let mut rights = Rights::PLATFORM_ONLY;
    for (index, name) in names.iter().enumerate() {
        match name.as_str() {
            "restore" => rights.restore = true,
            "fork" => rights.fork = true,
            other => return Err(Error::invalid(format!("users_may[{index}]"), other, "restore or fork")),
        }
    }
    Ok(rights)
}
