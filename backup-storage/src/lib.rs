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
#[cfg(feature = "vault-transit")]
pub mod transit;

mod collect;
mod context;
mod deposit;
mod envelope;
mod extract;
mod fetch;
#[cfg(test)]
mod golden;
mod journal;
mod keyring;
mod keys;
mod layout;
mod log;
mod manifest;
mod pack;
mod pipeline;
mod reader;
mod rebuild;
mod repair;
mod replicate;
mod repository;
mod session;
mod settings;
mod vault;
mod verify;
mod witness;

pub use deposit::{
    AdoptedDeposit, Adoption, DepositRepository, DepositVault, HostFile, HostInfo, OnlyWrites, RefusedDeposit,
    WaitingDeposit,
};
pub use keys::{AddRecipient, ChangedKeys, EpochInfo, KeyHolder, KeyReport, LeftObject, RecipientInfo, Unlock};
pub use log::compact::{CompactLog, CompactedLog};
pub use rebuild::{Rebuilt, RecoveredBackup, Skipped};
pub use repair::{LeftDamaged, Repaired};
pub use replicate::{LogLag, Quorum, QuorumHeld, RegionState, Replicated};
pub use repository::{CatalogHead, CreateOptions, Repository};
pub use settings::RepositorySettings;
pub use vault::{SharedKeys, Vault, VaultKeys};
