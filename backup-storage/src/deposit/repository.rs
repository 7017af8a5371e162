//! The repository of a service, as a host sees it that only writes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::catalog::{BackupRecord, Catalog, Event, Refusal};
use backup_core::engine::{BackupSource, LogOptions, LogSink, LogSource, Work};
use backup_core::env::Env;
use backup_core::repository::{
    BackupSession, CollectOptions, Collected, CollectionPlan, Decision, ParentChoice, Repository, VerifyLevel,
    VerifyReport,
};
use backup_core::{BackupId, ServiceId, SessionId};
use backup_crypto::EpochKey;
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::file::HostFile;
use super::key::SessionKey;
use super::paper::{self, Answer, Notice};
use super::state::{Remembered, StateFolder};
use super::write::Depositor;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::PackCache;
use crate::journal::is_region;
use crate::keyring::Keyring;
use crate::layout::{self, SessionObject};
use crate::pipeline::known::Known;
use crate::reader::BackupReader;
use crate::repository::Description;
use crate::session::{Begun, Ledger, Session};
use crate::settings::{RepositorySettings, Shape};
use crate::store::Store;

/// What a host that only writes was asked to do: something for which it would need a key.
///
/// It is the source of an error of kind [`InvalidInput`](ErrorKind::InvalidInput).
#[derive(Debug, Clone, thiserror::Error)]
#[error("this host only writes backups: it has no key with which it could {what}")]
#[non_exhaustive]
pub struct OnlyWrites {
    /// What it was asked to do.
    pub what: String,
}

/// The error of a host that was asked to do `what`.
pub(super) fn only_writes(what: impl Into<String>) -> Error {
    let refused = OnlyWrites { what: what.into() };
    Error::invalid(refused.to_string()).with_source(refused)
}

/// The repository of one service, for a host that only writes. Cheap to clone.
///
/// [`begin`](Repository::begin) and what it returns work as with any repository, but for three things: a backup is in the catalog only after somebody with the
/// keys has adopted it; its parent is the last backup of this very host, as far as that is remembered in a folder of the host; and the parent
/// cannot be read ([`parent_source`](BackupSession::parent_source) is none), only compared with. What an interrupted session has stored is lost,
/// because nobody has its key.
///
/// [`catalog`](Repository::catalog) knows of the backup that the next one can build on, and of nothing else. Everything that reads is refused by
/// [`OnlyWrites`], and so are logs.
///
/// The host needs credentials to create and read objects and to list them, not to delete any.
#[derive(Clone)]
pub struct DepositRepository {
    inner: Arc<Inner>,
}

struct Inner {
    file: Arc<HostFile>,
    /// The store, at the repository's prefix.
    store: Store,
    state: Option<StateFolder>,
    shape: Shape,
    env: Env,
    /// What was read of the folder.
    remembered: Mutex<Option<Arc<Remembered>>>,
}

impl DepositRepository {
    /// Opens the repository below `vault` for which `file` was made. Without a folder for its `state` the host stores everything anew each time.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) when there is none, or another one; [`Damaged`](ErrorKind::Damaged) when its description is not
    /// readable; [`Environment`](ErrorKind::Environment) when the folder cannot be had.
    ///
    /// # Cancel safety
    /// Safe.
    #[tracing::instrument(skip_all, fields(service = %file.service, host = %file.label))]
    pub async fn open(
        vault: &Store,
        file: HostFile,
        state: Option<&Path>,
        settings: &RepositorySettings,
        env: Env,
    ) -> Result<Self> {
        let store = vault.at(file.service.as_str())?;
        let description = match store.get(&layout::repository()?).await {
            Ok(bytes) => Description::parse(&bytes)?,
            Err(e) if e.is_not_found() => {
                return Err(Error::invalid(format!("service {} has no repository in this vault", file.service)));
            }
            Err(e) => return Err(e),
        };
        if (description.id, description.suite) != (file.repository, file.suite) {
            let (service, label) = (&file.service, &file.label);
            let other = "is another one than the file of the host was made for";
            return Err(Error::invalid(format!("the repository of service {service} {other} (host {label})")));
        }
        let state = match state.map(Path::to_path_buf) {
            Some(dir) => Some(blocking(move || StateFolder::open(&dir)).await?),
            None => None,
        };
        let (file, shape, remembered) = (Arc::new(file), settings.shape(), Mutex::new(None));
        Ok(Self { inner: Arc::new(Inner { file, store, state, shape, env, remembered }) })
    }

    /// The host.
    #[must_use]
    pub fn file(&self) -> &HostFile {
        &self.inner.file
    }
}

impl Inner {
    /// The last backup of this host, if the next one can build on it.
    ///
    /// # Errors
    /// Environment when this host's backups are not adopted any more. Those of the store.
    async fn last(&self) -> Result<Option<Arc<Remembered>>> {
        let Some(last) = self.recall().await? else { return Ok(None) };
        let (session, backup) = (last.record.session, last.record.id);
        match self.answer(session).await? {
            Some(reason @ (Refusal::HostRemoved | Refusal::HostOutdated)) => return Err(self.is_over(reason)),
            Some(reason) => {
                tracing::warn!(%backup, %reason, "the last backup of this host was refused: everything is stored anew");
                return Ok(None);
            }
            None => {}
        }
        if !self.is_there(&last).await? {
            tracing::warn!(%backup, "what the last backup of this host needs is not there any more: everything is stored anew");
            return Ok(None);
        }
        Ok(Some(last))
    }

    fn is_over(&self, reason: Refusal) -> Error {
        let label = &self.file.label;
        Error::environment(format!("backups of host {label} are not adopted any more: {reason}"))
    }

    /// Looks for a notice. Whoever was removed knows the host's public key as well, and could read what it deposits.
    async fn is_welcome(&self) -> Result<()> {
        let (name, host) = (layout::notice(self.file.host)?, self.file.host);
        let object = match self.store.get(&name).await {
            Ok(object) => object,
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        };
        if !paper::is_genuine::<Notice>(&self.file.secret, host, &object)? {
            tracing::warn!(%name, "somebody has put something in the place of a notice; it is passed over");
            return Ok(());
        }
        Err(self.is_over(paper::parse::<Notice>(host, &object)?.reason))
    }

    /// What the folder remembers.
    async fn recall(&self) -> Result<Option<Arc<Remembered>>> {
        let known = self.remembered.lock().clone();
        if known.is_some() {
            return Ok(known);
        }
        let Some(state) = self.state.clone() else { return Ok(None) };
        let file = Arc::clone(&self.file);
        let loaded = blocking(move || Ok(state.load(&file))).await?.map(Arc::new);
        self.remembered.lock().clone_from(&loaded);
        Ok(loaded)
    }

    /// Why the deposit of `session` was refused, if it was.
    async fn answer(&self, session: SessionId) -> Result<Option<Refusal>> {
        let name = layout::answer(session)?;
        let object = match self.store.get(&name).await {
            Ok(object) => object,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e),
        };
        if !paper::is_genuine::<Answer>(&self.file.secret, session, &object)? {
            tracing::warn!(%name, "somebody has put something in the place of an answer; it is passed over");
            return Ok(None);
        }
        Ok(paper::parse::<Answer>(session, &object)?.refused)
    }

    /// Whether the packs that a backup needs are there, by their names and lengths.
    async fn is_there(&self, last: &Remembered) -> Result<bool> {
        let context = Arc::new(self.context(Keyring::locked(self.file.repository, self.file.suite, self.env.clone())));
        let Some(reader) = open_noted(&context, last).await? else { return Ok(false) };
        let needed: Vec<_> = reader.packs().iter().filter(|pack| pack.live > 0).copied().collect();
        let sessions: std::collections::BTreeSet<_> = needed.iter().map(|pack| pack.pack.session).collect();
        let mut there = std::collections::BTreeMap::new();
        for session in sessions {
            let mut objects = self.store.list(&layout::session(session));
            while let Some(object) = objects.try_next().await? {
                if let Some(SessionObject::Pack(pack)) = layout::session_object(object.name.as_str()) {
                    there.insert(pack, object.size);
                }
            }
        }
        Ok(needed.iter().all(|pack| there.get(&pack.pack) == Some(&pack.stored_len)))
    }

    fn context(&self, keyring: Keyring) -> Context {
        let (service, store, env) = (self.file.service.clone(), self.store.clone(), self.env.clone());
        Context { service, store, keyring, env, shape: self.shape }
    }

    async fn begin(&self, choice: ParentChoice, work: &Work) -> Result<Session> {
        if is_region(&self.store).await? {
            return Err(Error::invalid(format!("{} is a region of a repository in another vault", self.store)));
        }
        self.is_welcome().await?;
        let last = match choice {
            ParentChoice::None => None,
            ParentChoice::Newest => self.last().await?,
            ParentChoice::Backup(id) => {
                let last = self.last().await?.filter(|last| last.record.id == id);
                let unknown = || Error::invalid(format!("backup {id} is not the last one of this host"));
                Some(last.ok_or_else(unknown)?)
            }
        };
        let env = &self.env;
        let begun = Begun { session: SessionId::mint(env), backup: BackupId::mint(env), started_at: env.now() };
        let key = EpochKey::take(&mut env.random());
        let session_key = SessionKey { key: key.clone(), hash_root: self.file.secret.hash_root() };
        let (repository, suite) = (self.file.repository, self.file.suite);
        let keyring = Keyring::of_session(repository, suite, (begun.session, session_key), env.clone());
        let context = Arc::new(self.context(keyring));
        let parent = match &last {
            Some(last) => open_noted(&context, last).await?,
            None => None,
        };
        let notes = match self.state.clone() {
            Some(state) => match blocking(move || state.begin(begun.session)).await {
                Ok(notes) => Some(Arc::new(notes)),
                Err(error) => {
                    tracing::warn!(%error, "the host cannot remember what it stores");
                    None
                }
            },
            None => None,
        };
        let before = last.as_ref().map(|last| Arc::clone(&last.noted));
        let depositor = Depositor { file: Arc::clone(&self.file), key, state: self.state.clone(), notes, before };
        // What is remembered when this one ends is another one.
        *self.remembered.lock() = None;
        Session::start(&context, begun, (parent, Known::default()), Ledger::Deposit(Box::new(depositor)), work)
    }
}

/// The manifest that a host remembers. None when it is not whole.
async fn open_noted(context: &Arc<Context>, last: &Remembered) -> Result<Option<BackupReader>> {
    let cache = Arc::new(PackCache::of_noted(Arc::clone(context), Arc::clone(&last.noted)));
    match BackupReader::open(Arc::clone(context), cache, last.record.clone()).await {
        Ok(reader) => Ok(Some(reader)),
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::InvalidInput) => {
            tracing::warn!(%error, "what the host remembers is of no use: everything is stored anew");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(|e| Error::internal("a task of a host panicked").with_source(e))?
}

#[async_trait]
impl Repository for DepositRepository {
    fn service(&self) -> &ServiceId {
        &self.inner.file.service
    }

    async fn catalog(&self) -> backup_core::Result<Arc<Catalog>> {
        let mut catalog = Catalog::new();
        if let Some(last) = Box::pin(self.inner.last()).await? {
            let record: Box<BackupRecord> = Box::new(last.record.clone());
            catalog.apply(&Event::BackupRecovered { record }).map_err(backup_core::Error::from)?;
        }
        Ok(Arc::new(catalog))
    }

    async fn decide(&self, _: &mut Decision<'_>) -> backup_core::Result<Arc<Catalog>> {
        Err(only_writes("decide anything about what is stored").into())
    }

    #[tracing::instrument(skip_all, fields(service = %self.inner.file.service, host = %self.inner.file.label))]
    async fn begin(&self, parent: ParentChoice, work: &Work) -> backup_core::Result<Box<dyn BackupSession>> {
        // Boxed: it holds the futures of much else.
        Ok(Box::new(Box::pin(self.inner.begin(parent, work)).await?))
    }

    async fn open(&self, backup: BackupId) -> backup_core::Result<Arc<dyn BackupSource>> {
        Err(only_writes(format!("open backup {backup}")).into())
    }

    async fn verify(&self, _: VerifyLevel, _: &Work) -> backup_core::Result<VerifyReport> {
        Err(only_writes("verify what is stored").into())
    }

    async fn plan_collection(&self, _: &CollectOptions, _: &Work) -> backup_core::Result<CollectionPlan> {
        Err(only_writes("work out what nobody needs").into())
    }

    async fn collect(&self, _: &CollectOptions, _: &Work) -> backup_core::Result<Collected> {
        Err(only_writes("collect what nobody needs").into())
    }

    async fn open_log(&self, _: LogOptions, _: &Work) -> backup_core::Result<Arc<dyn LogSink>> {
        Err(only_writes("follow a log").into())
    }

    async fn log(&self) -> backup_core::Result<Arc<dyn LogSource>> {
        Err(only_writes("read the log").into())
    }
}

impl fmt::Display for DepositRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner.store)
    }
}

impl fmt::Debug for DepositRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DepositRepository").field("file", &self.inner.file).finish_non_exhaustive()
    }
}
