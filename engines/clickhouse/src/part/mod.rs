//! The parts of MergeTree tables: what a name says, what `checksums.txt` promises, and whether it is kept.
//!
//! The rule of this room: nothing here waits, reads a clock or touches a file or a server; memory is bounded by what was
//! given; no input makes it panic. Sources are the servers' own (`src/Storages/MergeTree` unless said otherwise), read
//! from 18.16 to 26.9, and parts that servers of these two versions wrote.

pub mod checksums;
mod error;
#[cfg(test)]
pub(crate) mod golden;
pub mod hash;
pub mod name;
pub mod object;
mod packed;
pub mod verify;

pub use checksums::{Checksum, Checksums, Codec, FileName, Uncompressed};
pub use error::{Error, Result};
pub use hash::Hash128;
pub use name::{DetachReason, DetachedName, PartName, Syntax};
pub use object::ObjectMetadata;
pub use verify::{Finding, PartFacts, PartFormat, Problem, Verifier};
