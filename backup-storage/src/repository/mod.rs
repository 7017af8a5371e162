//! The repository of one service: creating, opening, and the traits that orchestration uses.

mod description;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::catalog::{Catalog, Event, Rejected};
use backup_core::engine::{BackupSource, LogOptions, LogSink, LogSource, Work};
use backup_core::env::Env;
use backup_core::repository::{BackupSession, Damage, Decision, ParentChoice, VerifyLevel, VerifyReport};
use backup_core::{BackupId, ServiceId};
use backup_crypto::{EpochId, EpochKey, Identity, Recipient, RepositoryId, Suite};
use futures::TryStreamExt;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::fetch::PackCache;
use crate::journal::{FORMAT, Genesis, Journal, PlainObject};
use crate::keyring::Keyring;
use crate::layout;
use crate::log::compact::{CompactLog, CompactedLog};
use crate::log::{self, LogCache, LogReader, Stored};
use crate::reader::BackupReader;
use crate::rebuild::Rebuilt;
use crate::session::Session;
use crate::settings::RepositorySettings;
use crate::store::{Created, ObjectName, Store};
pub(crate) use description::{Description, parse_key};

/// How a repository is created.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CreateOptions {
    /// The cipher suite; the one that this host does fastest when not set. Cannot be changed later.
    pub suite: Option<Suite>,
}

impl CreateOptions {
    /// Sets the cipher suite.
    #[must_use]
    pub fn suite(mut self, suite: Suite) -> Self {
        self.suite = Some(suite);
        self
    }
}

/// Everything stored for one service, opened with the keys of one recipient. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    context: Arc<Context>,
    journal: Arc<Journal<Catalog>>,
    cache: Arc<PackCache>,
    log_cache: Arc<LogCache>,
}

impl Repository {
    /// Creates the repository of `service` below `vault`. Its keys can be opened by each of `recipients`.
    ///
    /// The store is probed first: one that ignores create-only puts is refused.
    ///
    /// # Errors
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when it exists, [`InvalidInput`](crate::error::ErrorKind::InvalidInput) without recipients,
    /// [`Environment`](crate::error::ErrorKind::Environment) when the store cannot be used.
    #[tracing::instrument(skip_all, fields(%service))]
    pub async fn create(
        vault: &Store,
        service: ServiceId,
        recipients: Vec<Recipient>,
        options: CreateOptions,
        settings: &RepositorySettings,
        env: Env,
    ) -> Result<Self> {
        if recipients.is_empty() {
            return Err(Error::invalid("a repository needs at least one recipient who can open its keys"));
        }
        let store = vault.at(service.as_str())?;
        let name = layout::repository()?;
        if store.head(&name).await?.is_some() {
            return Err(Error::conflict(format!("service {service} already has a repository")));
        }
        store.probe_exclusive_create().await?;

        let id = RepositoryId::from_bytes(env.random());
        let suite = options.suite.unwrap_or_else(Suite::preferred_here);
        let epoch = EpochId(1);
        let key = EpochKey::take(&mut env.random());
        let description = Description { format: FORMAT, id, suite }.encode()?;
        let mut objects = vec![PlainObject::of(name.as_str(), &description)];
        // The description comes first: whoever creates it has the service.
        if let Created::Conflict = store.create(&name, description).await? {
            return Err(Error::conflict(format!("service {service} already has a repository")));
        }
        let wraps = wrap_all(recipients, key.clone(), id, epoch, env.clone()).await?;
        for (name, object) in wraps {
            objects.push(PlainObject::of(name.as_str(), &object));
            if let Created::Conflict = store.create(&name, object).await? {
                return Err(Error::conflict(format!("object {name} already exists")));
            }
        }
        let keyring = Keyring::new(id, suite, [(epoch, key)], env.clone())?;
        let genesis = Genesis {
            format: FORMAT,
            repository: *id.as_bytes(),
            service: service.clone(),
            suite: suite as u8,
            created_at: env.now(),
            objects,
        };
        let repository = Self::assemble(store, service, keyring, settings, env);
        repository.journal.begin(1, genesis, Vec::new()).await?;
        Ok(repository)
    }

    /// Opens the repository of `service` below `vault` with the keys that `identity` can unwrap.
    ///
    /// The catalog is read at the first use, so that a damaged one can still be verified and rebuilt.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) when there is none or the identity is not one of its recipients,
    /// [`Damaged`](crate::error::ErrorKind::Damaged) when its description or its keys are not readable.
    #[tracing::instrument(skip_all, fields(%service))]
    pub async fn open(
        vault: &Store,
        service: ServiceId,
        identity: impl Into<Arc<Identity>>,
        settings: &RepositorySettings,
        env: Env,
    ) -> Result<Self> {
        let store = vault.at(service.as_str())?;
        let description = match store.get(&layout::repository()?).await {
            Ok(bytes) => Description::parse(&bytes)?,
            Err(e) if e.is_not_found() => return Err(missing(&store, &service).await?),
            Err(e) => return Err(e),
        };
        let keys = unwrap_all(&store, &description, identity.into()).await?;
        let keyring = Keyring::new(description.id, description.suite, keys, env.clone())?;
        Ok(Self::assemble(store, service, keyring, settings, env))
    }

    /// Opens a repository whose catalog, description or both are lost, and builds them again from packs and keys.
    ///
    /// A readable description is kept; one that is missing or damaged is replaced, which is the only time that this library
    /// deletes an object to write it anew. The old catalog stays as it is; the new one is its successor.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Conflict`](crate::error::ErrorKind::Conflict) when two rebuilds meet.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the old catalog or a new one; a rebuild can be repeated.
    #[tracing::instrument(skip_all, fields(%service))]
    pub async fn salvage(
        vault: &Store,
        service: ServiceId,
        identity: impl Into<Arc<Identity>>,
        settings: &RepositorySettings,
        env: Env,
        work: &Work,
    ) -> Result<(Self, Rebuilt)> {
        let store = vault.at(service.as_str())?;
        let name = layout::repository()?;
        let described = match store.get(&name).await {
            Ok(bytes) => Description::parse(&bytes),
            Err(e) => Err(e),
        };
        if let Err(error) = described {
            if error.kind() != crate::error::ErrorKind::Damaged {
                return Err(error);
            }
            let description = description::derive(&store).await?.encode()?;
            store.delete(&name).await?;
            if let Created::Conflict = store.create(&name, description).await? {
                return Err(Error::conflict(format!("object {name} was written by somebody else")));
            }
        }
        let repository = Self::open(vault, service, identity, settings, env).await?;
        let rebuilt = repository.rebuild_catalog(work).await?;
        Ok((repository, rebuilt))
    }

    fn assemble(store: Store, service: ServiceId, keyring: Keyring, settings: &RepositorySettings, env: Env) -> Self {
        let journal = Journal::new(store.clone(), keyring.clone(), env.clone());
        let context = Arc::new(Context { service, store, keyring, env, shape: settings.shape() });
        let cache = Arc::new(PackCache::new(Arc::clone(&context)));
        let log_cache = Arc::new(LogCache::new(Arc::clone(&context)));
        Self { context, journal: Arc::new(journal), cache, log_cache }
    }

    /// The repository's id.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        self.context.keyring.repository()
    }

    /// The cipher suite of its objects.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.context.keyring.suite()
    }

    #[cfg(test)]
    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The store, at the repository's prefix.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.context.store
    }

    /// Begins a new generation of the catalog with what packs and keys say, for when the catalog is damaged beyond reading.
    /// Writers of the old generation find out at their next commit.
    ///
    /// # Cancel safety
    /// When dropped, a new generation has been begun or not; repeated, it begins a further one.
    ///
    /// # Errors
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when somebody else does the same at the same time,
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable).
    #[tracing::instrument(skip_all, fields(service = %self.context.service))]
    pub async fn rebuild_catalog(&self, work: &Work) -> Result<Rebuilt> {
        crate::rebuild::rebuild(&self.context, &self.journal, work).await
    }

    /// Merges small objects of the log into larger ones, and deletes those that were replaced. What can be restored, and what is
    /// known of it, stays the same.
    ///
    /// May run at any time: beside a log writer, beside readers, twice at once. Where deletion is refused, as to credentials that may only
    /// add, that is a finding: what was replaced stays, and is not compacted again.
    ///
    /// # Cancel safety
    /// When dropped, some log may be stored twice. The next run deletes what is spare.
    ///
    /// # Errors
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when the catalog was rebuilt meanwhile,
    /// [`Damaged`](crate::error::ErrorKind::Damaged) when the store does not return what was stored; nothing was deleted for it then.
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable).
    #[tracing::instrument(skip_all, fields(service = %self.context.service))]
    pub async fn compact_log(&self, options: &CompactLog, work: &Work) -> Result<CompactedLog> {
        log::compact::compact(&self.log_cache, &self.journal, options, work).await
    }
}

/// Why there is nothing to open.
async fn missing(store: &Store, service: &ServiceId) -> Result<Error> {
    let rest = store.list("").try_next().await?;
    Ok(match rest {
        Some(object) => Error::damaged(format!("object repository is missing, though object {} exists", object.name)),
        None => Error::invalid(format!("service {service} has no repository in this vault")),
    })
}

async fn wrap_all(
    recipients: Vec<Recipient>,
    key: EpochKey,
    repository: RepositoryId,
    epoch: EpochId,
    env: Env,
) -> Result<Vec<(ObjectName, Vec<u8>)>> {
    // A passphrase costs a deliberately slow hash.
    tokio::task::spawn_blocking(move || {
        let entropy = CryptoEntropy(env);
        recipients
            .iter()
            .map(|recipient| {
                let wrap = recipient.wrap(&key, repository, epoch, &entropy)?;
                Ok((layout::key(epoch, wrap.recipient())?, wrap.encode()))
            })
            .collect()
    })
    .await
    .map_err(|e| Error::internal("wrapping a key panicked").with_source(e))?
}

async fn unwrap_all(
    store: &Store,
    description: &Description,
    identity: Arc<Identity>,
) -> Result<Vec<(EpochId, EpochKey)>> {
    let names: Vec<_> = store.list(layout::KEYS).try_collect().await?;
    if names.is_empty() {
        return Err(Error::damaged("the repository has no wrapped keys"));
    }
    let mut wraps = Vec::new();
    let mut unreadable = None;
    for object in names {
        let bytes = store.get(&object.name).await?;
        match parse_key(object.name.as_str(), &bytes) {
            Ok(wrap) => wraps.push((object.name, wrap)),
            Err(error) => {
                tracing::warn!(%error, "a wrapped key is not readable");
                unreadable = Some(error);
            }
        }
    }
    let id = description.id;
    tokio::task::spawn_blocking(move || {
        let mut keys: Vec<(EpochId, EpochKey)> = Vec::new();
        let mut refusal = None;
        for (name, wrap) in wraps {
            let epoch = wrap.epoch();
            if keys.iter().any(|(known, _)| *known == epoch) || !identity.matches(&wrap) {
                continue;
            }
            match identity.unwrap(&wrap, id, epoch) {
                Ok(key) => keys.push((epoch, key)),
                Err(error) => refusal = Some(Error::from(error).context(format!("object {name} cannot be opened"))),
            }
        }
        if !keys.is_empty() {
            return Ok(keys);
        }
        // A key that is damaged might have been the one that this identity opens.
        Err(unreadable.or(refusal).unwrap_or_else(|| {
            Error::invalid(format!("no key of the repository is wrapped for this {}", identity.kind()))
        }))
    })
    .await
    .map_err(|e| Error::internal("unwrapping a key panicked").with_source(e))?
}

/// The injected randomness, as the crypto crate takes it.
#[derive(Debug)]
struct CryptoEntropy(Env);

impl backup_crypto::Entropy for CryptoEntropy {
    fn fill(&self, out: &mut [u8]) {
        self.0.entropy().fill(out);
    }
}

#[async_trait]
impl backup_core::repository::Repository for Repository {
    fn service(&self) -> &ServiceId {
        &self.context.service
    }

    async fn catalog(&self) -> backup_core::Result<Arc<Catalog>> {
        Ok(self.journal.refresh().await?)
    }

    async fn decide(&self, decide: &mut Decision<'_>) -> backup_core::Result<Arc<Catalog>> {
        let committed = self.journal.commit_by(|_, catalog| Ok(Event::decisions(decide(catalog)?)?)).await?;
        Ok(committed.1)
    }

    async fn begin(&self, parent: ParentChoice, work: &Work) -> backup_core::Result<Box<dyn BackupSession>> {
        let catalog = self.journal.refresh().await?;
        let parent = match parent {
            ParentChoice::None => None,
            ParentChoice::Newest => catalog.latest().cloned(),
            ParentChoice::Backup(id) => Some(catalog.existing(id).map_err(Rejected::asked)?.clone()),
        };
        let (context, journal) = (Arc::clone(&self.context), Arc::clone(&self.journal));
        Ok(Box::new(Session::begin(context, journal, &self.cache, parent, work).await?))
    }

    async fn open(&self, backup: BackupId) -> backup_core::Result<Arc<dyn BackupSource>> {
        let catalog = self.journal.refresh().await?;
        let record = catalog.existing(backup).map_err(Rejected::asked)?.clone();
        Ok(Arc::new(BackupReader::open(Arc::clone(&self.context), Arc::clone(&self.cache), record).await?))
    }

    async fn verify(&self, level: VerifyLevel, work: &Work) -> backup_core::Result<VerifyReport> {
        let mut report = crate::verify::verify(&self.context, &self.journal, level, work).await?;
        let seen = log::verify::verify(&self.log_cache, &self.journal, level, work);
        match work.run(async { Ok(seen.await?) }).await {
            Ok(seen) => {
                report.objects += seen.objects;
                report.read_bytes += seen.read_bytes;
                report.garbage_objects += seen.garbage_objects;
                report.garbage_bytes += seen.garbage_bytes;
                report.damages.extend(seen.damages.into_iter().map(|d| Damage::new(d.object, d.problem, d.backups)));
            }
            // Without a catalog nobody knows which log counts; what is wrong with the catalog is in the report.
            Err(error) if error.kind() == backup_core::ErrorKind::Damaged && !report.is_sound() => {}
            Err(error) => return Err(error),
        }
        Ok(report)
    }

    async fn open_log(&self, options: LogOptions, work: &Work) -> backup_core::Result<Arc<dyn LogSink>> {
        work.checkpoint()?;
        let (cache, journal) = (Arc::clone(&self.log_cache), Arc::clone(&self.journal));
        Ok(Arc::new(log::writer::open(cache, journal, options).await?))
    }

    async fn log(&self) -> backup_core::Result<Arc<dyn LogSource>> {
        let stored = Stored::survey(&self.context.store, &self.journal, None).await?;
        Ok(Arc::new(LogReader::new(Arc::clone(&self.log_cache), Arc::clone(&self.journal), &stored)))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.context.store)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("id", &self.id()).field("store", &self.context.store).finish_non_exhaustive()
    }
}

#[cfg(feature = "test-util")]
impl Repository {
    /// Ends a session as maintenance does with one that gives no sign of life. For tests.
    ///
    /// # Errors
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when it has ended already.
    pub async fn fence(&self, session: backup_core::SessionId) -> Result<()> {
        use backup_core::catalog::CloseReason;
        let closed = Event::SessionClosed { session, at: self.context.env.now(), reason: CloseReason::Fenced };
        self.journal.commit(vec![closed]).await.map(drop)
    }
}
