//! PostgreSQL engine of the backup library: physical base backups, by protocol or from local files.
//!
//! A base backup is the data directory of a running server, copied while it changes, plus the write-ahead log from the
//! backup's start to its end: the log makes the copy consistent, and followed further it leads to any later moment. So
//! three things must be exactly right, and each has its room here: *what is copied* (the server's own rules for which
//! files and pages count), *which log belongs to it* (positions, timelines, segment names), and *the conversation with
//! the server* that ties the two together.
//!
//! [`PostgresEngine`] brings them together: a running cluster as something that [`backup_core::run`] backs up, a directory
//! as something that it restores into. Two ways lead in. *Local* reads the data directory in parallel between the start and
//! the stop of a backup; *protocol* has the server send it. Both give the same backup: complete, restorable alone, with the
//! log from its start to its end inside. What a restore writes starts with the stock server, becomes a primary on a timeline
//! of its own, and keeps nothing of the recovery behind.
//!
//! Everything that parses is pure, bounded by its input and never panics; everything that waits has a limit. Supported are
//! servers of the major versions [`ServerVersion::OLDEST`] to [`ServerVersion::NEWEST`], and nothing else: a version that
//! this crate has not been proven with is refused before anything is read.
//!
//! # The rooms
//! - [`PostgresEngine`] and [`PostgresSettings`]: the engine and what it is told; [`PostgresDrill`]: its backups proven in a scratch instance.
//! - [`conn`]: where a server is and who we are, in libpq's words: connection strings, environment, password file.
//! - [`wire`]: a session: simple queries, replication commands, slots, COPY in all directions; TLS and SCRAM.
//! - [`basebackup`]: `BASE_BACKUP` as one stream of events for every version.
//! - [`tar`]: the archives inside it, read as they come.
//! - [`label`], [`control`], [`manifest`]: the files that say what a backup is.
//! - [`wal`]: the log: its records, read and checked as they come; names and headers of segments; histories of timelines.
//! - [`walsender`]: a server that a restored PostgreSQL streams its log from.
//! - [`changes`]: which blocks may have changed, learned from the log.
//! - [`page`]: the checksum of data pages and the rule for pages that change while they are read.
//! - [`exclude`]: which files are no part of a backup.
//!
//! # Example
//! ```no_run
//! use backup_core::engine::Work;
//! use backup_core::entry::Selector;
//! use backup_core::repository::Repository;
//! use backup_core::{RecoveryTarget, Result, run};
//! use backup_postgres::{PostgresEngine, PostgresSettings};
//!
//! # async fn example(repository: &dyn Repository) -> Result<()> {
//! let work = Work::default();
//! let source = PostgresEngine::new(PostgresSettings::default().url("host=/run/postgresql user=backup"))?;
//! let backup = run::backup(repository, &source, run::BackupOptions::default(), &work).await?;
//! println!("{} bytes, of which {} were new", backup.data_bytes, backup.new_bytes);
//!
//! let target = PostgresEngine::new(
//!     PostgresSettings::default().data_dir("/srv/restored").tablespace("/mnt/fast/pg", "/srv/restored-fast"),
//! )?;
//! let goal = RecoveryTarget::backup(backup.id);
//! let plan = run::plan_restore(repository, &target, goal, Selector::all(), &work).await?;
//! for blocker in plan.blockers() {
//!     println!("would be refused: {blocker}");
//! }
//! run::restore(&target, &plan, &work).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The rooms below stand alone, too. A base backup without the engine:
//! ```no_run
//! use backup_postgres::basebackup::{BaseBackup, BaseBackupOptions, Event};
//! use backup_postgres::conn::Settings;
//! use backup_postgres::wire::{Session, SessionKind};
//!
//! # async fn run() -> backup_postgres::Result<()> {
//! let settings = Settings::from_env("host=db.example user=backup sslmode=verify-full sslrootcert=ca.pem")?;
//! let mut session = Session::connect(&settings, SessionKind::Replication).await?;
//! let version = session.version();
//! let mut backup = BaseBackup::start(&mut session, &BaseBackupOptions::default(), version).await?;
//! while let Some(event) = backup.next().await? {
//!     if let Event::Finished(end) = event {
//!         println!("consistent at {} of timeline {}", end.end, end.timeline);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//! | feature | what it adds |
//! |---|---|
//! | `native-certs` | `sslrootcert=system`: the certificate store of the operating system |
//! | `test-util` | logs that no server wrote, for tests of what reads logs |

mod archive;
pub mod basebackup;
mod capture;
pub mod changes;
pub mod conn;
pub mod control;
mod disk;
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
pub mod walsender;
pub mod wire;

pub use archive::{ExportedLog, LogExport, export_log};
pub use engine::{
    ChangeTracking, Checkpoint, LogSlot, Method, PostgresDrill, PostgresDrillSettings, PostgresEngine,
    PostgresSettings, Replay, TargetAction,
};
pub use error::{Error, Result, ServerError};
pub use lsn::{Lsn, TimelineId};
pub use version::ServerVersion;
