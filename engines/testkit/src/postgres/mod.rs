//! Real PostgreSQL servers, 13 to 18.
//!
//! Three ideas make them cheap enough for every test:
//!
//! 1. **Templates.** `initdb` takes a second or more; its result is kept in the cache per version and options and
//!    copied for each server. Copies share a system identifier, which matters to tests about telling clusters apart:
//!    those ask for [`PostgresBuilder::fresh_identity`].
//! 2. **The test's settings never enter the data directory.** Port, socket directory, logging and `fsync` are given on
//!    the command line, where they win over every configuration file. So a restored directory starts as it is, with the
//!    source's `postgresql.conf` in it, next to the source.
//! 3. **Readiness is read, not guessed**: the eighth line of `postmaster.pid` says `ready` once connections are
//!    accepted (`src/include/utils/pidfile.h`, `LOCK_FILE_LINE_PM_STATUS`).

mod binaries;
mod builder;
mod clock;
mod server;
mod standby;
mod template;
mod version;

pub use binaries::PgBinaries;
pub use builder::{Auth, PostgresBuilder};
pub use clock::ServerClock;
pub(crate) use server::connect;
pub use server::{Postgres, StopMode};
pub use version::{PgVersion, versions_under_test};
