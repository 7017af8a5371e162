//! The snapshot file of Redis and Valkey (RDB): read as it comes, in pieces of any size.
//!
//! The rule of this room: nothing here waits, reads a clock or touches a server; memory does not grow with a value; no
//! input makes it panic. Source of the format: `rdb.h` and `rdb.c` of Redis 5 to 8 and of Valkey 7.2 to 9.
//!
//! A [`Scanner`] walks through a file and tells a [`Visitor`] what it meets. It finds the end of the file by its
//! structure, because in the middle of a replication stream nothing else says where the file ends, and it checks the
//! checksum over every byte. What it does not know it does not guess: from an unknown type on it counts nothing, and
//! only the checksum speaks for the rest ([`Counted::Until`]).
//!
//! ```
//! use backup_redis::rdb::{ChecksumState, Counter};
//!
//! # fn main() -> backup_redis::Result<()> {
//! let mut counter = Counter::new();
//! for piece in backup_redis::rdb::sample::small_file().chunks(7) {
//!     counter.push(piece)?;
//! }
//! let summary = counter.finish()?;
//! assert_eq!(summary.keys(), 2);
//! assert_eq!(summary.checksum, ChecksumState::Verified);
//! # Ok(())
//! # }
//! ```

mod builder;
mod crc64;
mod elements;
mod expiry;
mod filter;
mod glob;
#[cfg(test)]
mod golden_tests;
mod layout;
mod length;
mod listpack;
mod lzf;
mod name;
mod payload;
#[cfg(test)]
mod rewrite_tests;
mod rewriter;
mod rules;
#[cfg(any(test, feature = "test-util"))]
pub mod sample;
mod scanner;
mod slot;
mod summary;
#[cfg(test)]
mod tests;
mod version;
mod visitor;
mod walk;

pub(crate) use builder::Builder;
pub use crc64::Crc64;
pub(crate) use elements::{Elements, Role};
pub use expiry::ExpiryRule;
pub(crate) use expiry::rewrite_fields;
pub use filter::KeyFilter;
pub use glob::matches;
pub use layout::{Kind, ValueType};
pub use name::Name;
pub(crate) use payload::Opened;
pub use payload::Payload;
pub use rewriter::{Rewriter, Rewritten};
pub use rules::{Place, Placer, Rules};
pub use scanner::{ChecksumState, Scanner};
pub use slot::{SLOTS, slot_of};
pub use summary::{Counted, Counter, Database, KindTotal, LargeKey, Summary};
pub use version::{Dialect, RdbVersion};
pub use visitor::{KeyHead, Part, Visitor};
