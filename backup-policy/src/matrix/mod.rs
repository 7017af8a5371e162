//! Which service gets which backups on which plan.

mod built_in;
mod document;
mod name;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::document::{MatrixDocument, OfferDocument, OffersDocument};
pub use self::name::{Plan, ServiceKind};
use crate::error::{Error, Result};
use crate::profile::Profile;

/// What a service has on a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "OfferDocument", try_from = "OfferDocument")]
#[non_exhaustive]
pub enum Offer {
    /// The plan does not exist for the service.
    NotAvailable,
    /// The service exists on the plan and is not backed up.
    NoBackups {
        /// Why, as a user is told.
        reason: String,
    },
    /// It is backed up.
    Backups(Profile),
}

impl Offer {
    /// The profile, if there are backups.
    #[must_use]
    pub fn profile(&self) -> Option<&Profile> {
        match self {
            Self::Backups(profile) => Some(profile),
            Self::NotAvailable | Self::NoBackups { .. } => None,
        }
    }
}

/// Offers by service and plan. Plans and services are data: an embedder reads its own from a document, alone or
/// [over](Self::overlaid) the built-in ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "MatrixDocument", try_from = "MatrixDocument")]
pub struct Matrix {
    plans: Vec<Plan>,
    services: BTreeMap<ServiceKind, BTreeMap<Plan, Offer>>,
}

impl Matrix {
    /// The built-in matrix as a JSON document: what an embedder copies and changes.
    pub const BUILT_IN_DOCUMENT: &str = include_str!("matrix.json");

    /// The matrix of the platform.
    #[must_use]
    pub fn built_in() -> Self {
        built_in::matrix()
    }

    /// A matrix of `plans` (each counts once) without services.
    #[must_use]
    pub fn new(plans: impl IntoIterator<Item = Plan>) -> Self {
        let mut matrix = Self { plans: Vec::new(), services: BTreeMap::new() };
        plans.into_iter().for_each(|plan| matrix.add_plan(plan));
        matrix
    }

    /// Sets what `kind` has on `plan`, and adds both if they are new.
    #[must_use]
    pub fn with(mut self, kind: ServiceKind, plan: Plan, offer: Offer) -> Self {
        self.add_plan(plan.clone());
        self.services.entry(kind).or_default().insert(plan, offer);
        self
    }

    /// This matrix with the plans of `other` added, and each of its cells in place of the cell here.
    #[must_use]
    pub fn overlaid(mut self, other: Self) -> Self {
        other.plans.into_iter().for_each(|plan| self.add_plan(plan));
        for (kind, offers) in other.services {
            self.services.entry(kind).or_default().extend(offers);
        }
        self
    }

    /// What `kind` has on `plan`. A plan that exists, but is not named for the service, is not available for it.
    ///
    /// # Errors
    /// [`Error::UnknownService`] and [`Error::UnknownPlan`] say which ones there are.
    pub fn offer(&self, kind: &ServiceKind, plan: &Plan) -> Result<&Offer> {
        let Some(offers) = self.services.get(kind) else {
            let known = self.kinds().map(ToString::to_string).collect();
            return Err(Error::UnknownService { service: kind.to_string(), known });
        };
        if !self.plans.contains(plan) {
            return Err(self.unknown(plan.as_str()));
        }
        Ok(offers.get(plan).unwrap_or(&Offer::NotAvailable))
    }

    /// The services, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &ServiceKind> {
        self.services.keys()
    }

    /// The plans, in the order in which they were named.
    #[must_use]
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    fn plan(&self, name: &str) -> Result<Plan> {
        self.plans.iter().find(|plan| plan.as_str() == name).cloned().ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, plan: &str) -> Error {
        Error::UnknownPlan { plan: plan.to_owned(), known: self.plans.iter().map(ToString::to_string).collect() }
    }

    fn add_plan(&mut self, plan: Plan) {
        if !self.plans.contains(&plan) {
            self.plans.push(plan);
        }
    }

    fn set_row(&mut self, kind: ServiceKind, offers: impl IntoIterator<Item = (Plan, Offer)>) {
        self.services.entry(kind).or_default().extend(offers);
    }
}
