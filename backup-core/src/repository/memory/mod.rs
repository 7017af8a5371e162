//! A repository in memory, for tests of engines and of orchestration.
//!
//! It keeps every rule of the traits: the same journal events folded by the same [`Catalog`], sessions that can be fenced,
//! positional reuse of unchanged blocks, extraction into real directories, logs of one writer at a time. What it does not have is speed, encryption and
//! a life beyond the process. Plain sequential code: where it and `backup-storage` disagree, one of them has a bug.

mod content;
mod extract;
mod foreign;
mod log;
mod place;
mod session;
mod sink;
mod source;
mod vault;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    BackupSession, CollectOptions, Collected, CollectionPlan, Damage, Decision, ParentChoice, Repository, VerifyLevel,
    VerifyReport,
};
use crate::catalog::{Catalog, CloseReason, Condemned, Event, Rejected};
use crate::engine::{BackupSource, LogOptions, LogSink, LogSource, Work};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::{BackupId, ServiceId, SessionId};
use content::Manifest;
use log::{MemoryLogSink, Piece};
use session::MemorySession;
use source::MemorySource;
pub use vault::MemoryVault;

/// Everything that the handles of one repository share.
#[derive(Default)]
struct Shared {
    /// Events in their stored form, so that whatever the encoding loses is lost here too.
    journal: Vec<Vec<u8>>,
    catalog: Arc<Catalog>,
    manifests: BTreeMap<BackupId, Arc<Manifest>>,
    /// In the order in which it was stored.
    log: Vec<Arc<Piece>>,
}

impl Shared {
    /// Adds `event` to the journal if it fits what stands there.
    fn append(&mut self, event: &Event) -> Result<()> {
        let bytes =
            minicbor::to_vec(event).map_err(|e| Error::internal("an event cannot be encoded").with_source(e))?;
        let stored = minicbor::decode(&bytes)
            .map_err(|e| Error::internal("an event cannot be decoded from its own bytes").with_source(e))?;
        Arc::make_mut(&mut self.catalog).apply(&stored)?;
        self.journal.push(bytes);
        Ok(())
    }
}

/// A repository in memory. Handles made by [`reopen`](Self::reopen) share it; it ends with the last of them.
#[derive(Clone)]
pub struct MemoryRepository {
    service: ServiceId,
    shared: Arc<Mutex<Shared>>,
}

impl MemoryRepository {
    /// An empty repository of `service`.
    #[must_use]
    pub fn new(service: ServiceId) -> Self {
        Self { service, shared: Arc::default() }
    }

    /// A second handle on the same repository, as another process would have it.
    #[must_use]
    pub fn reopen(&self) -> Self {
        self.clone()
    }

    /// Ends `session` as if it had given no sign of life: it can never commit after this.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when the session is unknown or has ended.
    pub fn fence(&self, session: SessionId, env: &Env) -> Result<()> {
        let event = Event::SessionClosed { session, at: env.now(), reason: CloseReason::Fenced };
        self.shared.lock().append(&event)
    }

    /// What has happened, oldest first.
    #[must_use]
    pub fn journal(&self) -> Vec<Event> {
        let journal = &self.shared.lock().journal;
        journal.iter().map(|bytes| minicbor::decode(bytes).expect("what was appended can be decoded")).collect()
    }
}

impl fmt::Debug for MemoryRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRepository").field("service", &self.service).finish_non_exhaustive()
    }
}

impl fmt::Display for MemoryRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory({})", self.service)
    }
}

#[async_trait]
impl Repository for MemoryRepository {
    fn service(&self) -> &ServiceId {
        &self.service
    }

    async fn catalog(&self) -> Result<Arc<Catalog>> {
        Ok(Arc::clone(&self.shared.lock().catalog))
    }

    async fn decide(&self, decide: &mut Decision<'_>) -> Result<Arc<Catalog>> {
        let mut shared = self.shared.lock();
        let events = Event::decisions(decide(&shared.catalog)?)?;
        // All or none.
        let mut tried = Catalog::clone(&shared.catalog);
        events.iter().try_for_each(|event| tried.apply(event))?;
        events.iter().try_for_each(|event| shared.append(event))?;
        Ok(Arc::clone(&shared.catalog))
    }

    async fn begin(&self, parent: ParentChoice, work: &Work) -> Result<Box<dyn BackupSession>> {
        work.checkpoint()?;
        let mut shared = self.shared.lock();
        let parent = match parent {
            ParentChoice::Newest => shared.catalog.latest_sound().cloned(),
            ParentChoice::None => None,
            ParentChoice::Backup(id) => Some(shared.catalog.existing(id).map_err(Rejected::asked)?.clone()),
        };
        let session = SessionId::mint(work.env());
        shared.append(&Event::SessionOpened {
            session,
            at: work.env().now(),
            parent: parent.as_ref().map(|p| p.id),
            adopted: Vec::new(),
        })?;
        let parent = match parent {
            Some(record) => {
                let manifest = shared.manifests.get(&record.id).ok_or_else(|| unknown(record.id))?;
                Some((record, Arc::clone(manifest)))
            }
            None => None,
        };
        Ok(Box::new(MemorySession::new(self.clone(), session, parent, work.clone())))
    }

    async fn open(&self, backup: BackupId) -> Result<Arc<dyn BackupSource>> {
        let shared = self.shared.lock();
        let record = shared.catalog.existing(backup).map_err(Rejected::asked)?.clone();
        let manifest = shared.manifests.get(&backup).ok_or_else(|| unknown(backup))?;
        Ok(Arc::new(MemorySource::new(record, Arc::clone(manifest))))
    }

    async fn verify(&self, level: VerifyLevel, work: &Work) -> Result<VerifyReport> {
        work.checkpoint()?;
        let shared = self.shared.lock();
        let mut report = VerifyReport::default();
        let mut sessions = Vec::new();
        for backup in shared.catalog.backups() {
            report.backups += 1;
            let Some(manifest) = shared.manifests.get(&backup.id) else {
                report.damages.push(Damage::new(backup.id.to_string(), "manifest is missing", vec![backup.id]));
                continue;
            };
            for entry in manifest.values() {
                let len: usize = entry.blocks.iter().map(|b| b.bytes.len()).sum();
                if len as u64 != entry.info.len {
                    let problem = format!("{} has {len} bytes instead of {}", entry.info.meta.path, entry.info.len);
                    report.damages.push(Damage::new(backup.id.to_string(), problem, vec![backup.id]));
                }
                sessions.extend(entry.blocks.iter().filter_map(|b| b.session));
                if level.reads() {
                    report.read_bytes += len as u64;
                }
            }
        }
        sessions.sort_unstable();
        sessions.dedup();
        if level != VerifyLevel::Catalog {
            report.objects = sessions.len() as u64;
        }
        Ok(report)
    }

    async fn plan_collection(&self, _: &CollectOptions, work: &Work) -> Result<CollectionPlan> {
        work.checkpoint()?;
        let shared = self.shared.lock();
        let gone = shared.catalog.expired().filter(|(id, _)| shared.manifests.contains_key(id));
        Ok(CollectionPlan { packs: gone.count() as u64, ..CollectionPlan::default() })
    }

    /// Forgets at once what backups consist of that nobody can have again: nobody reads behind its back, since content is shared by reference.
    async fn collect(&self, options: &CollectOptions, work: &Work) -> Result<Collected> {
        let plan = self.plan_collection(options, work).await?;
        let mut shared = self.shared.lock();
        let at = work.env().now();
        let condemned = plan.packs > 0 && shared.catalog.collections().next().is_none();
        if condemned {
            let (number, pins) = (shared.catalog.next_collection(), shared.catalog.pins());
            let collection = Box::new(Condemned { number, pins, ..Condemned::default() });
            shared.append(&Event::Condemned { collection, at })?;
        }
        let grace = jiff::SignedDuration::try_from(options.grace).unwrap_or(jiff::SignedDuration::MAX);
        let due = shared.catalog.collections().filter(|collection| at.duration_since(collection.at) >= grace);
        let due: Vec<_> = due.map(|collection| collection.condemned.number).collect();
        for collection in &due {
            shared.append(&Event::SweepBegun { collection: *collection, at })?;
            shared.append(&Event::Swept { collection: *collection, at })?;
        }
        let gone = shared.catalog.expired().filter(|(_, expired)| expired.record.is_none()).map(|(id, _)| id);
        let gone: Vec<_> = gone.collect();
        let deleted = gone.iter().filter(|id| shared.manifests.remove(id).is_some()).count() as u64;
        let condemned = condemned.then(|| shared.catalog.next_collection() - 1);
        Ok(Collected { plan, condemned, swept: due, deleted, findings: Vec::new() })
    }

    async fn open_log(&self, options: LogOptions, work: &Work) -> Result<Arc<dyn LogSink>> {
        work.checkpoint()?;
        Ok(Arc::new(MemoryLogSink::open(self, &options, work)?))
    }

    async fn log(&self) -> Result<Arc<dyn LogSource>> {
        Ok(Arc::new(self.shared.lock().log_source()))
    }
}

fn unknown(backup: BackupId) -> Error {
    Error::invalid(format!("backup {backup} does not exist"))
}
