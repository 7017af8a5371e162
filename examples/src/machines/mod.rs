//! The machines of `backupctl service`: PostgreSQL servers on this host, and the file that says which service has which.
//!
//! An operator hands a data directory over to the program: powering off removes it once everything is in the vault, powering on makes it
//! again. So the program touches no directory that it cannot know to be one of its own: what it removes was named when the service was
//! created and holds a cluster, and what it restores into does not exist, is empty, or bears the mark of an earlier attempt.

mod account;
mod file;
mod postgres;
mod server;

pub use file::HostFile;
pub use postgres::PostgresHost;
pub use server::PostgresMachine;
