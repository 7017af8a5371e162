//! What engines' orchestration needs of a repository. `backup-storage` is the real one.

mod collect;
#[cfg(any(test, feature = "test-util"))]
mod memory;
mod vault;
mod verify;

pub use collect::{CollectOptions, Collected, CollectionPlan};
#[cfg(any(test, feature = "test-util"))]
pub use memory::{MemoryRepository, MemoryVault};
pub use vault::{Destroyed, Found, Vault};
pub use verify::{Damage, VerifyLevel, VerifyReport};

use std::fmt::{Debug, Display};
use std::sync::Arc;

use async_trait::async_trait;

use crate::catalog::{BackupRecord, Catalog, Event};
use crate::engine::{BackupSink, BackupSource, LogOptions, LogSink, LogSource, Work};
use crate::error::Result;
use crate::id::{BackupId, ServiceId, SessionId};
use crate::snapshot::Snapshot;

/// From where a new backup takes content that is already stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ParentChoice {
    /// The newest backup, if there is one. [`run::backup`](crate::run::backup()) narrows it to the same engine and source,
    /// which a repository does not know before the commit.
    #[default]
    Newest,
    /// Nothing: everything is stored anew.
    None,
    /// This backup.
    Backup(BackupId),
}

/// What makes events of a catalog. It is asked again whenever somebody else was faster.
pub type Decision<'a> = dyn FnMut(&Catalog) -> Result<Vec<Event>> + Send + 'a;

/// Everything stored for one service.
#[async_trait]
pub trait Repository: Debug + Display + Send + Sync + 'static {
    /// Whose repository it is.
    fn service(&self) -> &ServiceId;

    /// The catalog as of now, including what other writers have committed.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) or [`Damaged`](crate::ErrorKind::Damaged).
    async fn catalog(&self) -> Result<Arc<Catalog>>;

    /// Commits what `decide` makes of the catalog as of now: all of its events in one step, or none. Returns the catalog afterwards.
    ///
    /// Only [decisions](Event::is_decision) can be committed like this; what backups and logs are made of has calls of its own.
    ///
    /// # Cancel safety
    /// When dropped, the events are committed or not; [`catalog`](Self::catalog) tells.
    ///
    /// # Errors
    /// Those of `decide`; [`Conflict`](crate::ErrorKind::Conflict) when its events do not fit the catalog that it was asked about;
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an event that is no decision;
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when the store did not say whether they landed.
    async fn decide(&self, decide: &mut Decision<'_>) -> Result<Arc<Catalog>>;

    /// Opens a session: a backup that nobody sees until it is committed.
    ///
    /// # Cancel safety
    /// A dropped call may leave an open session behind, which holds nothing but its pins until it is fenced.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the chosen parent does not exist.
    async fn begin(&self, parent: ParentChoice, work: &Work) -> Result<Box<dyn BackupSession>>;

    /// Opens a backup for reading.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it does not exist, [`Damaged`](crate::ErrorKind::Damaged)
    /// when its manifest is not what was committed.
    async fn open(&self, backup: BackupId) -> Result<Arc<dyn BackupSource>>;

    /// Checks what is stored, without restoring anything. Damage is reported, not returned as an error.
    ///
    /// # Errors
    /// When checking itself was not possible.
    async fn verify(&self, level: VerifyLevel, work: &Work) -> Result<VerifyReport>;

    /// Says what [`collect`](Self::collect) would do now.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable); [`Damaged`](crate::ErrorKind::Damaged) for a catalog that cannot be read.
    async fn plan_collection(&self, options: &CollectOptions, work: &Work) -> Result<CollectionPlan>;

    /// Takes away what nobody needs: content of backups that have expired and of sessions that came to nothing, log that has expired.
    ///
    /// What is found is only condemned; a call after the [grace](CollectOptions::grace) deletes it, and until then
    /// [`reinstate`](crate::run::reinstate()) takes it back. May be called at any time: beside backups and restores, twice at once, killed
    /// anywhere. Where deletion is refused, that is a finding.
    ///
    /// # Cancel safety
    /// When dropped, the next call goes on.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when backups are begun faster than it can be worked out what is needed, or the catalog was
    /// rebuilt meanwhile; [`Damaged`](crate::ErrorKind::Damaged) for a catalog that cannot be read;
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn collect(&self, options: &CollectOptions, work: &Work) -> Result<Collected>;

    /// Opens a log writer. One that follows the stream fences the one before, which finds out before its next acknowledgement, or with a
    /// spool, when it sends next. What an earlier writer has left in the spool is stored before the call returns.
    ///
    /// # Cancel safety
    /// A dropped call may leave a writer behind that never writes.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable), [`Damaged`](crate::ErrorKind::Damaged), and
    /// [`Environment`](crate::ErrorKind::Environment) when the spool cannot be used; [`Conflict`](crate::ErrorKind::Conflict) when another
    /// writer uses it, when it belongs to another repository or service, and when what lies there is stored with other bytes.
    async fn open_log(&self, options: LogOptions, work: &Work) -> Result<Arc<dyn LogSink>>;

    /// The log that is stored as of now.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) or [`Damaged`](crate::ErrorKind::Damaged).
    async fn log(&self) -> Result<Arc<dyn LogSource>>;
}

/// A backup in the making.
///
/// Dropping it never commits. What it has stored stays as known garbage, and may be reused by the next session.
#[async_trait]
pub trait BackupSession: Debug + Send {
    /// Its id.
    fn id(&self) -> SessionId;

    /// The backup whose content it reuses.
    fn parent(&self) -> Option<&BackupRecord>;

    /// That backup, for reading.
    fn parent_source(&self) -> Option<Arc<dyn BackupSource>>;

    /// Where an engine puts entries.
    fn sink(&self) -> Arc<dyn BackupSink>;

    /// Waits until everything is durable, then makes the backup visible in one atomic step.
    ///
    /// # Cancel safety
    /// When the future is dropped, the backup is visible or not; [`Repository::catalog`] tells.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when the session was fenced in the meantime.
    async fn commit(self: Box<Self>, snapshot: Snapshot) -> Result<BackupRecord>;

    /// Gives up and says so in the catalog.
    ///
    /// # Errors
    /// When the store cannot be reached; the session is then fenced later by others.
    async fn abort(self: Box<Self>) -> Result<()>;
}
