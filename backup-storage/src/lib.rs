//! The encrypted, incremental, write-once backup repository over any object store.

#[cfg(feature = "test-util")]
pub mod conformance;
pub mod error;
#[cfg(feature = "test-util")]
pub mod fault;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod primitives;
pub mod store;

mod context;
mod envelope;
mod extract;
mod fetch;
#[cfg(test)]
mod golden;
mod journal;
mod keyring;
mod layout;
mod log;
mod manifest;
mod pack;
mod pipeline;
mod reader;
mod rebuild;
mod repository;
mod session;
mod settings;
mod vault;
mod verify;
mod witness;

pub use log::compact::{CompactLog, CompactedLog};
pub use rebuild::{Rebuilt, RecoveredBackup, Skipped};
pub use repository::{CreateOptions, Repository};
pub use settings::RepositorySettings;
pub use vault::{SharedKeys, Vault, VaultKeys};
