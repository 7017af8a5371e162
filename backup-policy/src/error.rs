//! What a person has to correct.

use std::fmt;

/// Result of what can be asked for wrongly.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A value that is not allowed, or a name that is not known. Nothing here is worth a retry: the input has to be corrected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value that is not allowed.
    #[error("{place} is {found}; allowed is {allowed}")]
    Invalid {
        /// Where it stands: `backup_hour`, or a path in a document such as `services.redis.startup.tiers[0].age`.
        place: String,
        /// What was found.
        found: String,
        /// What is allowed there.
        allowed: String,
    },
    /// A service that the matrix does not list.
    #[error("service {service} is not known; known are {}", list(.known))]
    UnknownService {
        /// What was asked for.
        service: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A plan that the matrix does not list.
    #[error("plan {plan} is not known; known are {}", list(.known))]
    UnknownPlan {
        /// What was asked for.
        plan: String,
        /// What there is.
        known: Vec<String>,
    },
}

impl Error {
    pub(crate) fn invalid(place: impl Into<String>, found: impl fmt::Display, allowed: impl Into<String>) -> Self {
        Self::Invalid { place: place.into(), found: found.to_string(), allowed: allowed.into() }
    }

    /// The same error, of a value that is called `place`.
    pub(crate) fn renamed(self, place: &str) -> Self {
        match self {
            Self::Invalid { found, allowed, .. } => Self::Invalid { place: place.to_owned(), found, allowed },
            other => other,
        }
    }

    /// The same error, of a value that stands in `outer`.
    pub(crate) fn within(self, outer: impl fmt::Display) -> Self {
        match self {
            Self::Invalid { place, found, allowed } => {
                let place = if place.is_empty() { outer.to_string() } else { format!("{outer}.{place}") };
                Self::Invalid { place, found, allowed }
            }
            other => other,
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
