//! The encrypted, incremental, write-once backup repository over any object store.

#[cfg(feature = "test-util")]
pub mod conformance;
pub mod error;
#[cfg(feature = "test-util")]
pub mod fault;
pub mod store;

mod context;
mod envelope;
mod journal;
mod keyring;
mod layout;
mod manifest;
mod pack;
mod settings;

pub use settings::RepositorySettings;
