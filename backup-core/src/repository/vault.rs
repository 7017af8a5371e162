//! A place that holds the repositories of many services.

use std::fmt::{Debug, Display};
use std::sync::Arc;

use async_trait::async_trait;

use super::Repository;
use crate::engine::Work;
use crate::error::Result;
use crate::id::ServiceId;

/// What a vault has of a service.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Its repository.
    Repository(Arc<dyn Repository>),
    /// What is left of a repository whose destruction has begun and whose keys are gone. Only [`Vault::destroy`] has a use for it.
    Remains,
}

/// What was destroyed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Destroyed {
    /// Wrapped keys that were deleted.
    pub keys: u64,
    /// Other objects that were deleted.
    pub objects: u64,
}

/// A place, which is a region's object storage, with the repositories of many services.
#[async_trait]
pub trait Vault: Debug + Display + Send + Sync + 'static {
    /// The services of which there is something here, in the order of their names.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) and what else the store says.
    async fn services(&self) -> Result<Vec<ServiceId>>;

    /// Creates the repository of `service`.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when there is something of that name.
    async fn create(&self, service: &ServiceId) -> Result<Arc<dyn Repository>>;

    /// Looks for the repository of `service`.
    ///
    /// # Errors
    /// Those of opening it: the keys do not fit, or it is damaged.
    async fn find(&self, service: &ServiceId) -> Result<Found>;

    /// Destroys the repository of `service`: its keys first, so that nothing of it can be read from that moment on, then everything else.
    ///
    /// Refused unless its catalog says that it [is being purged](crate::catalog::Stage::Purging). Nothing is left when it returns, and
    /// nothing to be destroyed is no error.
    ///
    /// # Cancel safety
    /// When dropped, some of it is destroyed. The next call goes on, also without keys.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when it is not being purged; [`Environment`](crate::ErrorKind::Environment) when the store
    /// refuses to delete.
    async fn destroy(&self, service: &ServiceId, work: &Work) -> Result<Destroyed>;
}
