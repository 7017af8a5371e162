//! A matrix as it is written down.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Matrix, Offer, Plan, ServiceKind};
use crate::error::{Error, Result};
use crate::profile::{Profile, ProfileDocument};

/// A [`Matrix`] as it stands in a document. Nothing of it is checked before it becomes a matrix; whatever is wrong then is
/// named with its place, such as `services.redis.startup.tiers[0].age`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixDocument {
    /// The plans that there are, in the order in which they are shown.
    pub plans: Vec<String>,
    /// What each service has on each plan. A plan that a service does not name is not available for it.
    #[serde(deserialize_with = "services")]
    pub services: BTreeMap<String, OffersDocument>,
}

/// What a service has on each plan, as it stands in a document.
pub type OffersDocument = BTreeMap<String, OfferDocument>;

/// An [`Offer`] as it stands in a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum OfferDocument {
    /// The plan does not exist for the service.
    NotAvailable,
    /// The service is not backed up.
    NoBackups {
        /// Why.
        reason: String,
    },
    /// It is, in this way.
    Backups(ProfileDocument),
}

impl TryFrom<MatrixDocument> for Matrix {
    type Error = Error;

    fn try_from(document: MatrixDocument) -> Result<Self> {
        let mut plans: Vec<Plan> = Vec::with_capacity(document.plans.len());
        for (index, name) in document.plans.into_iter().enumerate() {
            let place = format!("plans[{index}]");
            let plan = Plan::new(name).map_err(|error| error.renamed(&place))?;
            if plans.contains(&plan) {
                return Err(Error::invalid(place, plan, "each plan once"));
            }
            plans.push(plan);
        }
        let mut matrix = Self::new(plans);
        for (name, offers) in document.services {
            let kind = ServiceKind::new(&name).map_err(|error| error.renamed("services"))?;
            let offers = offers.into_iter().map(|(plan, offer)| {
                let place = format!("services.{name}.{plan}");
                let plan = matrix.plan(&plan).map_err(|error| match error {
                    Error::UnknownPlan { plan, known } => Error::invalid(
                        format!("services.{name}"),
                        plan,
                        format!("a plan of plans: {}", known.join(", ")),
                    ),
                    other => other,
                })?;
                Ok((plan, Offer::try_from(offer).map_err(|error| error.within(place))?))
            });
            let offers = offers.collect::<Result<Vec<_>>>()?;
            matrix.set_row(kind, offers);
        }
        Ok(matrix)
    }
}

impl TryFrom<OfferDocument> for Offer {
    type Error = Error;

    fn try_from(document: OfferDocument) -> Result<Self> {
        Ok(match document {
            OfferDocument::NotAvailable => Self::NotAvailable,
            OfferDocument::NoBackups { reason } if reason.trim().is_empty() => {
                return Err(Error::invalid("reason", "empty", "a sentence that a user is told"));
            }
            OfferDocument::NoBackups { reason } => Self::NoBackups { reason },
            OfferDocument::Backups(profile) => Self::Backups(Profile::try_from(profile)?),
        })
    }
}

impl From<Offer> for OfferDocument {
    fn from(offer: Offer) -> Self {
        match offer {
            Offer::NotAvailable => Self::NotAvailable,
            Offer::NoBackups { reason } => Self::NoBackups { reason },
            Offer::Backups(profile) => Self::Backups(profile.into()),
        }
    }
}

impl From<Matrix> for MatrixDocument {
    fn from(matrix: Matrix) -> Self {
        let row = |offers: BTreeMap<Plan, Offer>| {
            offers.into_iter().map(|(plan, offer)| (plan.into(), offer.into())).collect()
        };
        Self {
            plans: matrix.plans.into_iter().map(String::from).collect(),
            services: matrix.services.into_iter().map(|(kind, offers)| (kind.into(), row(offers))).collect(),
        }
    }
}

fn services<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, OffersDocument>, D::Error> {
    let Once(services) = Once::<Once<OfferDocument>>::deserialize(deserializer)?;
    Ok(services.into_iter().map(|(name, Once(offers))| (name, offers)).collect())
}

/// A map in which each name stands once. Of two cells for the same service and plan only one could count, and nobody would
/// know which.
struct Once<V>(BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Once<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OnceVisitor(PhantomData))
    }
}

struct OnceVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for OnceVisitor<V> {
    type Value = Once<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map in which each name stands once")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((name, value)) = access.next_entry::<String, V>()? {
            match map.entry(name) {
                Entry::Vacant(place) => _ = place.insert(value),
                Entry::Occupied(place) => {
                    return Err(A::Error::custom(format_args!("{} stands twice", place.key())));
                }
            }
        }
        Ok(Once(map))
    }
}
