//! The repository of one service: creating, opening, and the traits that orchestration uses.

mod description;
mod keys;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::catalog::{Actor, Catalog, Event, KeyChange, Rejected, Role};
use backup_core::engine::{BackupSource, LogOptions, LogSink, LogSource, Work};
use backup_core::env::Env;
use backup_core::repository::{
    BackupSession, CollectOptions, Collected, CollectionPlan, Decision, ParentChoice, VerifyLevel, VerifyReport,
};
use backup_core::{BackupId, ServiceId};
use backup_crypto::{EpochId, EpochKey, KeyWrapper, Recipient, RepositoryId, Suite};
use futures::TryStreamExt;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::fetch::{PackCache, Places};
use crate::journal::{Due, EpochRecord, FORMAT, Genesis, Journal, Place, PlainObject};
use crate::keyring::Keyring;
use crate::keys::{KeyHolder, Unlock, Unlocker, succession};
use crate::layout;
use crate::log::compact::{CompactLog, CompactedLog};
use crate::log::{self, LogCache, LogReader, Stored};
use crate::reader::BackupReader;
use crate::rebuild::Rebuilt;
use crate::repair::Repaired;
use crate::replicate::{Quorum, QuorumHeld, RegionState, Replicated};
use crate::session::Session;
use crate::settings::RepositorySettings;
use crate::store::{Created, Store};
pub(crate) use description::{Description, parse_key};

/// How a repository is created.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CreateOptions {
    /// The cipher suite; the one that this host does fastest when not set. Cannot be changed later.
    pub suite: Option<Suite>,
    /// Key management services that can open the keys, besides the recipients.
    pub services: Vec<Arc<dyn KeyWrapper>>,
}

impl CreateOptions {
    /// Sets the cipher suite.
    #[must_use]
    pub fn suite(mut self, suite: Suite) -> Self {
        self.suite = Some(suite);
        self
    }

    /// Adds a key management service that can open the keys.
    #[must_use]
    pub fn service(mut self, service: Arc<dyn KeyWrapper>) -> Self {
        self.services.push(service);
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

/// The last entry of a catalog, which chains all before it: whoever keeps this can tell later whether the history that a store shows is the same one, or
/// one that goes on from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CatalogHead {
    /// The generation: one more for each time that the catalog was rebuilt.
    pub generation: u32,
    /// The number of the entry.
    pub number: u64,
    /// BLAKE3 of the entry as it is stored.
    pub digest: [u8; 32],
}

impl Repository {
    /// The last entry of the catalog as of now.
    ///
    /// # Errors
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) or [`Damaged`](crate::error::ErrorKind::Damaged).
    pub async fn head(&self) -> Result<CatalogHead> {
        let Place { generation, number, digest } = self.journal.place().await?;
        Ok(CatalogHead { generation, number, digest })
    }

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
        let services = options.services.iter().map(|service| KeyHolder::Service(Arc::clone(service)));
        let holders: Vec<_> = recipients.into_iter().map(KeyHolder::Recipient).chain(services).collect();
        if holders.is_empty() {
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
        let mut described = Vec::new();
        for holder in &holders {
            for wrap in crate::keys::wrap(holder, None, vec![(epoch, key.clone())], id, &env).await? {
                let (name, object) = (layout::key(epoch, wrap.recipient())?, wrap.encode());
                objects.push(PlainObject::of(name.as_str(), &object));
                if let Created::Conflict = store.create(&name, object).await? {
                    return Err(Error::conflict(format!("object {name} already exists")));
                }
                if let Some(public) = holder.public() {
                    let (recipient, public) = (wrap.recipient().to_string(), Some(public));
                    let change = KeyChange::Described { recipient, label: None, public };
                    described.push(Event::Keys { change, by: Actor::new(Role::Platform, "create"), at: env.now() });
                }
            }
        }
        let fingerprint = *key.fingerprint(id, epoch).as_bytes();
        let mut keyring = Keyring::new(id, suite, [(epoch, key)], env.clone())?;
        if let Some(own) = holders.iter().find_map(KeyHolder::to_unlock) {
            keyring = keyring.with_unlocker(Arc::new(Unlocker::new(store.clone(), own)));
        }
        let genesis = Genesis {
            format: FORMAT,
            repository: *id.as_bytes(),
            service: service.clone(),
            suite: suite as u8,
            created_at: env.now(),
            objects,
            epochs: Some(vec![EpochRecord { epoch: epoch.0, fingerprint }]),
        };
        let repository = Self::assemble(store, service, keyring, settings, env);
        repository.journal.begin(1, genesis, described).await?;
        Ok(repository)
    }

    /// Opens the repository of `service` below `vault` with the keys that `identity` can unwrap: an [`Identity`](backup_crypto::Identity), or a key management service.
    ///
    /// An epoch that begins while the repository is open is found at its next look at the catalog.
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
        identity: impl Into<Unlock>,
        settings: &RepositorySettings,
        env: Env,
    ) -> Result<Self> {
        let store = vault.at(service.as_str())?;
        let description = match store.get(&layout::repository()?).await {
            Ok(bytes) => Description::parse(&bytes)?,
            Err(e) if e.is_not_found() => return Err(missing(&store, &service).await?),
            Err(e) => return Err(e),
        };
        let unlocker = Arc::new(Unlocker::new(store.clone(), identity.into()));
        let keyring = Keyring::locked(description.id, description.suite, env.clone());
        for (epoch, keys) in unlocker.all(description.id).await? {
            keyring.offer(epoch, keys);
        }
        keyring.begin(unlocker.vouches())?;
        if !unlocker.vouches() {
            succession::follow(&keyring, &store).await?;
        }
        Ok(Self::assemble(store, service, keyring.with_unlocker(unlocker), settings, env))
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
        identity: impl Into<Unlock>,
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
        let journal = Arc::new(Journal::new(store.clone(), keyring.clone(), env.clone()));
        let context = Arc::new(Context { service, store, keyring, env, shape: settings.shape() });
        let cache = Arc::new(PackCache::new(Arc::clone(&context), Places::Journal(Arc::clone(&journal))));
        let log_cache = Arc::new(LogCache::new(Arc::clone(&context)));
        Self { context, journal, cache, log_cache }
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

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(crate) fn journal(&self) -> &Journal<Catalog> {
        &self.journal
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

    /// Writes the catalog as it is now into one object, so that whoever opens it next reads that and not every entry since the first
    /// backup. Collections do the same by themselves when it is worth it.
    ///
    /// # Cancel safety
    /// When dropped, the object was written or not; nothing depends on it.
    ///
    /// # Errors
    /// [`Damaged`](crate::error::ErrorKind::Damaged) for a catalog that cannot be read, and those of the store.
    pub async fn checkpoint_catalog(&self) -> Result<()> {
        self.journal.checkpoint(Due::Now).await.map(drop)
    }

    /// Copies to another vault what it lacks of this repository: a further region, which can be opened like this one when this one is gone.
    ///
    /// Content goes before the entries that make it count, so the region holds what was true at some moment. What was swept here is deleted there, and
    /// nothing else. May be repeated, interrupted, and run beside everything else.
    ///
    /// # Cancel safety
    /// When dropped, the next run goes on.
    ///
    /// # Errors
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when something else lies there, also this repository after somebody has written to the
    /// region; [`Environment`](crate::error::ErrorKind::Environment) when that store cannot be used; [`Unavailable`](crate::error::ErrorKind::Unavailable).
    #[tracing::instrument(skip_all, fields(service = %self.context.service))]
    pub async fn replicate(&self, vault: &Store, work: &Work) -> Result<Replicated> {
        let there = vault.at(self.context.service.as_str())?;
        crate::replicate::replicate(&self.context, &self.journal, &there, work).await
    }

    /// Copies to the regions of `quorum`, all at once, until enough of them have `backup`, and all that was committed before it.
    ///
    /// The backup is committed here already and stays so. Regions that are not done when there are enough are left to the next run.
    ///
    /// # Cancel safety
    /// When dropped, the next run goes on.
    ///
    /// # Errors
    /// When there are not enough of them in the end: [`Unavailable`](crate::error::ErrorKind::Unavailable) where a region may be back later, or else
    /// what the first region's run came to, as of [`replicate`](Self::replicate). The message names each region and its reason.
    #[tracing::instrument(skip_all, fields(service = %self.context.service, %backup))]
    pub async fn replicate_until(&self, quorum: &Quorum, backup: BackupId, work: &Work) -> Result<QuorumHeld> {
        let service = self.context.service.as_str();
        crate::replicate::reach(&self.context, &self.journal, (quorum, service), backup, work).await
    }

    /// Makes this region a repository that is written to: backups, log, decisions. Nothing is done to one that is no region.
    ///
    /// From the first entry on the two have gone different ways, so it is done when the first vault is gone, or given up.
    ///
    /// # Cancel safety
    /// When dropped, it was done or not.
    ///
    /// # Errors
    /// [`Environment`](crate::error::ErrorKind::Environment) where deletion is refused, and [`Unavailable`](crate::error::ErrorKind::Unavailable).
    #[tracing::instrument(skip_all, fields(service = %self.context.service))]
    pub async fn promote(&self) -> Result<()> {
        crate::replicate::promote(&self.context.store).await
    }

    /// How far the region in another vault is, and what would be lost if only that were left.
    ///
    /// # Errors
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) or [`Damaged`](crate::error::ErrorKind::Damaged), of either side.
    pub async fn region(&self, vault: &Store) -> Result<RegionState> {
        let there = vault.at(self.context.service.as_str())?;
        crate::replicate::region(&self.context, &self.journal, &there).await
    }

    /// Puts back from a region in another vault what a verification at `level` finds missing or damaged here: packs, log, keys, and entries of
    /// the catalog. What is known to be damaged counts at every level.
    ///
    /// Every object is decoded before it is put here. Nothing is deleted, and what the region has in no better state is told and stays.
    ///
    /// # Cancel safety
    /// When dropped, some of it was put back. The next run goes on.
    ///
    /// # Errors
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when something else lies there, or the two have gone different ways;
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) and [`Environment`](crate::error::ErrorKind::Environment) of either store.
    #[tracing::instrument(skip_all, fields(service = %self.context.service))]
    pub async fn repair(&self, from: &Store, level: VerifyLevel, work: &Work) -> Result<Repaired> {
        let there = from.at(self.context.service.as_str())?;
        crate::repair::repair(&self.context, &self.journal, &self.log_cache, &there, level, work).await
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
            // What a host has deposited that only writes is built on by whoever names it.
            ParentChoice::Newest => catalog.latest_own().cloned(),
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

    #[tracing::instrument(skip_all, fields(service = %self.context.service))]
    async fn verify(&self, level: VerifyLevel, work: &Work) -> backup_core::Result<VerifyReport> {
        Ok(crate::verify::whole(&self.context, &self.journal, &self.log_cache, level, work).await?)
    }

    async fn plan_collection(&self, options: &CollectOptions, work: &Work) -> backup_core::Result<CollectionPlan> {
        Ok(crate::collect::plan(&self.context, &self.journal, options, work).await?)
    }

    #[tracing::instrument(skip_all, fields(service = %self.context.service))]
    async fn collect(&self, options: &CollectOptions, work: &Work) -> backup_core::Result<Collected> {
        Ok(crate::collect::collect(&self.context, &self.journal, options, work).await?)
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

    /// Commits events of any kind, as whoever holds the keys can. For tests.
    ///
    /// # Errors
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when they do not fit.
    pub async fn forge(&self, events: Vec<Event>) -> Result<()> {
        self.journal.commit(events).await.map(drop)
    }

    /// Begins a catalog in which there is nothing, as whoever holds the keys can. For tests.
    ///
    /// # Errors
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when somebody else begins one.
    pub async fn forge_generation(&self) -> Result<()> {
        let (generation, _) = self.journal.refresh_placed().await?;
        let keys = self.context.keyring.trusted();
        let record = |(epoch, fingerprint): &(EpochId, backup_crypto::EpochFingerprint)| EpochRecord {
            epoch: epoch.0,
            fingerprint: *fingerprint.as_bytes(),
        };
        let genesis = Genesis {
            format: FORMAT,
            repository: *self.id().as_bytes(),
            service: self.context.service.clone(),
            suite: self.suite() as u8,
            created_at: self.context.env.now(),
            objects: Vec::new(),
            epochs: Some(keys.iter().map(record).collect()),
        };
        self.journal.begin(self.journal.next_generation(generation).await?, genesis, Vec::new()).await
    }
}
