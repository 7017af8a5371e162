//! Definitions of ClickHouse objects: what a `CREATE` makes, what it refers to, and in which order all can be made again.
//!
//! The rule of this room: nothing here asks a server, no input makes it panic, and nothing recurses, so that a text that is
//! nested a million times costs no more than its length. A statement is not parsed but *read by its tokens*: the dialect
//! grows with every release, and what a definition says to us stands at few places that have not moved. What is not
//! understood is left as it is.

mod error;
mod escape;
mod order;
pub mod quote;
mod statement;
mod token;

pub use error::{Error, Result};
pub use escape::{escape_for_file_name, unescape_for_file_name};
pub use order::{Order, order};
pub use statement::{Argument, Engine, Expiry, ObjectKind, Reference, Replication, Role, Statement, Target, Verb};
