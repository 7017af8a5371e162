//! What every part of one open repository shares.

use std::sync::Arc;

use backup_core::ServiceId;
use backup_core::env::Env;

use crate::keyring::Keyring;
use crate::settings::Shape;
use crate::store::Store;

/// One open repository: where it is, whose it is, and the keys. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) service: ServiceId,
    /// The store, at the repository's prefix.
    pub(crate) store: Store,
    pub(crate) keyring: Keyring,
    pub(crate) env: Env,
    pub(crate) shape: Shape,
}

impl Context {
    /// The same, with the epoch of new objects staying what it is.
    pub(crate) fn pinned(&self) -> Arc<Self> {
        let (service, store, env) = (self.service.clone(), self.store.clone(), self.env.clone());
        Arc::new(Self { service, store, keyring: self.keyring.pinned(), env, shape: self.shape })
    }
}
