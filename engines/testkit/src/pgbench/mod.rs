//! Something for a PostgreSQL server to do, and a way to tell whether two databases are equal.
//!
//! - [`Bank`]: transfers by many connections at once, in the manner of pgbench, with an invariant that only a
//!   transactionally consistent restore keeps.
//! - [`Dataset`]: tables of realistic shape and compressibility, and changes to a fraction of them.
//! - [`digest`] and [`digest_cluster`]: an order-independent digest of every table.

mod bank;
mod dataset;
mod digest;
mod random;

pub use bank::{Bank, BankReport, BankState, BankWorkload};
pub use dataset::{ChangeShape, Dataset};
pub use digest::{ClusterDigest, DatabaseDigest, Digest, digest, digest_cluster};
