//! Hosts that only write: backups by hosts that have no key.
//!
//! ```text
//! somebody with the keys                        the host
//! add_host: an entry, and a file for the host
//!                                               draws a key, seals packs with it, wraps it for the public key of its file,
//!                                               says so in one plain object (`deposit`), and forgets the key
//! adopt: looks at it, one entry makes it
//!        a backup; tells (`answer`)
//!                                               builds on it by what it remembers of its own manifest
//! ```
//! The file has two things that follow from the key of an epoch: a secret that shows who stored something and hashes blocks, and the public
//! half of a key pair. Neither opens anything. So whoever takes over the host reads nothing that is stored, by others or by this host before; what he can do
//! is deposit rubbish in its name, until the host is removed.
//!
//! The host reads nothing that is sealed, and writes nothing but into the folder of its own session. What it deposited is nobody's backup until it is
//! [adopted](adopt): then it is one like any other. Its key stands in the journal, sealed like everything there.
//!
//! Logs are not for such hosts: who follows a log must know which pieces count, and only the journal says that.

pub(crate) mod adopt;
mod bounds;
mod examine;
mod file;
mod folders;
pub(crate) mod genuine;
mod hosts;
pub(crate) mod key;
pub(crate) mod paper;
mod repository;
pub(crate) mod state;
mod vault;
pub(crate) mod write;

pub use adopt::{AdoptedDeposit, Adoption, RefusedDeposit, WaitingDeposit};
pub use file::HostFile;
pub use hosts::HostInfo;
pub use repository::{DepositRepository, OnlyWrites};
pub use vault::DepositVault;
