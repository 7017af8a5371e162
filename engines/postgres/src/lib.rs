//! PostgreSQL engine of the backup library: physical base backups, by protocol or from local files.
//!
//! # The rooms
//! - [`conn`]: where a server is and who we are, in libpq's words.
//! - [`wire`]: a session with it.
//! - [`basebackup`]: `BASE_BACKUP` as a stream of events.

pub mod basebackup;
pub mod conn;
pub mod control;
mod engine;
mod error;
pub mod exclude;
pub mod label;
mod lsn;
pub mod manifest;
pub mod page;
pub mod tar;
mod version;
pub mod wal;
pub mod wire;

pub use engine::{Checkpoint, Method, PostgresEngine, PostgresSettings};
pub use error::{Error, Result, ServerError};
pub use lsn::{Lsn, TimelineId};
pub use version::ServerVersion;
