//! Sessions: a backup from its opening to its commit.

mod adopt;
mod alive;
mod ledger;
mod parent;
mod patch;
mod sink;
mod some;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use backup_core::catalog::{BackupRecord, Catalog, Event, ManifestRef, PackId};
use backup_core::engine::{BackupSink, BackupSource, Work};
use backup_core::observe::{Phase, Unit};
use backup_core::repository::BackupSession;
use backup_core::{BackupId, SessionId, Snapshot};
use jiff::Timestamp;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::fetch::PackCache;
use crate::journal::{FORMAT, Journal};
use crate::manifest::{Blob, Extent, Root, SegmentSink};
use crate::pack::{Role, SEGMENT};
use crate::pipeline::known::Known;
use crate::pipeline::{Manifest, Queues, Shared, upload, worker};
use crate::reader::BackupReader;
pub(crate) use ledger::Ledger;
use parent::Parent;
use sink::Sink;

/// Blobs of a root up to this size stand in the root itself.
const INLINE_BLOB: usize = 64 << 10;

/// What a session is from its beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) session: SessionId,
    pub(crate) backup: BackupId,
    pub(crate) started_at: Timestamp,
}

/// A session of a repository.
pub(crate) struct Session {
    shared: Arc<Shared>,
    ledger: Ledger,
    backup: BackupId,
    started_at: Timestamp,
    parent: Option<Arc<Parent>>,
    sink: Arc<Sink>,
    workers: Vec<JoinHandle<()>>,
    uploads: JoinSet<()>,
    work: Work,
}

impl Session {
    /// Opens a session against `parent` and says so in the journal.
    pub(crate) async fn begin(
        context: Arc<Context>,
        journal: Arc<Journal<Catalog>>,
        cache: &Arc<PackCache>,
        parent: Option<BackupRecord>,
        work: &Work,
    ) -> Result<Self> {
        let catalog = journal.refresh().await?;
        let session = SessionId::mint(&context.env);
        let backup = BackupId::mint(&context.env);
        let started_at = context.env.now();
        let (mut known, mut adopted) = adopt::learn(&context, cache, &catalog).await?;
        let mut collected = false;
        journal
            .commit_by(|_, catalog| {
                // What was condemned or found damaged since it was learnt of cannot be built on.
                let lost = |session: &SessionId| catalog.is_collected(*session) || catalog.is_damaged(*session);
                if adopted.iter().any(lost) {
                    (collected, adopted) = (true, Vec::new());
                }
                let (parent, adopted) = (parent.as_ref().map(|p| p.id), adopted.clone());
                Ok(vec![Event::SessionOpened { session, at: started_at, parent, adopted }])
            })
            .await?;
        if collected {
            known = Known::default();
        }
        let parent = match parent {
            Some(record) => Some(BackupReader::open(Arc::clone(&context), Arc::clone(cache), record).await?),
            None => None,
        };
        let begun = Begun { session, backup, started_at };
        Self::start(&context, begun, (parent, known), Ledger::Journal(journal), work)
    }

    /// Starts the pipeline of a session that `ledger` knows of, or need not know of.
    pub(crate) fn start(
        context: &Context,
        begun: Begun,
        (parent, known): (Option<BackupReader>, Known),
        ledger: Ledger,
        work: &Work,
    ) -> Result<Self> {
        let Begun { session, backup, started_at } = begun;
        let parent = parent.map(|reader| Arc::new(Parent::new(Arc::new(reader))));
        // All of it is sealed in one epoch, whatever begins meanwhile: hashes of blocks belong to one.
        let (pinned, observer) = (context.pinned(), Arc::clone(work.observer()));
        let (shared, Queues { jobs, packs }) = Shared::new(pinned, session, (known, ledger.notes()), observer)?;
        let workers = worker::spawn(&shared, &jobs)?;
        let uploads = upload::spawn(&shared, &packs);
        let sink = Arc::new(Sink::new(Arc::clone(&shared), parent.clone()));
        let work = work.clone();
        Ok(Self { shared, ledger, backup, started_at, parent, sink, workers, uploads, work })
    }

    /// Lets the workers finish what was put.
    async fn drain(&mut self) -> Result<()> {
        self.shared.close_jobs();
        let workers = std::mem::take(&mut self.workers);
        let joined = tokio::task::spawn_blocking(move || workers.into_iter().try_for_each(JoinHandle::join)).await;
        match joined {
            Ok(Ok(())) => self.shared.failure.check(),
            Ok(Err(_)) => Err(Error::internal("a worker thread panicked")),
            Err(e) => Err(Error::internal("a worker thread could not be waited for").with_source(e)),
        }
    }

    /// Waits until every pack is stored.
    async fn settle(&mut self) -> Result<()> {
        self.shared.close_packs();
        while let Some(upload) = self.uploads.join_next().await {
            upload.map_err(|e| Error::internal("an upload panicked").with_source(e))?;
        }
        self.shared.failure.check()
    }

    /// Ends the session without a backup, as far as it can be told to anyone.
    async fn give_up(&mut self) -> Result<()> {
        self.shared.failure.set(Error::cancelled());
        self.uploads.abort_all();
        // The failure that was just set is not news.
        let _ = self.drain().await;
        self.ledger.give_up(&self.shared).await
    }

    async fn finish(&mut self, snapshot: Snapshot) -> Result<BackupRecord> {
        self.drain().await?;
        self.work.started(Phase::Upload, None, Unit::Bytes);
        let root = RootFacts {
            backup: self.backup,
            parent: self.parent.as_ref().map(|p| p.record().id),
            started_at: self.started_at,
            ended_at: self.shared.context.env.now(),
            snapshot,
        };
        let shared = Arc::clone(&self.shared);
        let (root, manifest) = tokio::task::spawn_blocking(move || write_root(&shared, root))
            .await
            .map_err(|e| Error::internal("writing a manifest panicked").with_source(e))??;
        self.settle().await?;
        self.work.ended(Phase::Upload);
        self.work.started(Phase::Commit, None, Unit::Items);
        let record = root.record(manifest, self.shared.context.env.now(), self.shared.stored_bytes());
        self.ledger.commit(&self.shared, &record).await?;
        self.work.ended(Phase::Commit);
        Ok(record)
    }
}

/// What a root is made of besides what the pipeline has counted.
struct RootFacts {
    backup: BackupId,
    parent: Option<BackupId>,
    started_at: Timestamp,
    ended_at: Timestamp,
    snapshot: Snapshot,
}

/// Writes what is left of the manifest, and its root. Blocking.
fn write_root(shared: &Shared, facts: RootFacts) -> Result<(Root, ManifestRef)> {
    shared.end_taken()?;
    let Manifest { writer, mut lane } = shared.take_manifest()?;
    let written = writer.finish(&mut lane)?;
    let parts = blob(&mut lane, &written.parts)?;
    let packs = blob(&mut lane, &shared.table.snapshot())?;
    let root = Root {
        format: FORMAT,
        backup: facts.backup,
        service: shared.context.service.clone(),
        session: shared.session,
        parent: facts.parent,
        started_at: facts.started_at,
        ended_at: facts.ended_at,
        data_bytes: written.data_bytes,
        new_bytes: shared.new_bytes(),
        entries: written.entries,
        snapshot: facts.snapshot,
        parts,
        packs,
        reused: shared.table.foreign_sessions(shared.session),
    };
    let bytes = encode(&root)?;
    if bytes.len() > SEGMENT {
        return Err(Error::invalid(format!("the engine's snapshot makes a manifest root of {} bytes", bytes.len())));
    }
    let (number, segment) = lane.store(Role::ManifestRoot, &bytes)?;
    lane.finish()?;
    let pack = PackId { session: shared.session, number };
    Ok((root, ManifestRef { pack, segment, digest: *blake3::hash(&bytes).as_bytes() }))
}

fn encode(value: &impl minicbor::Encode<()>) -> Result<Vec<u8>> {
    minicbor::to_vec(value).map_err(|e| Error::internal("a manifest root cannot be encoded").with_source(e))
}

fn blob(sink: &mut dyn SegmentSink, value: &impl minicbor::Encode<()>) -> Result<Blob> {
    let bytes = encode(value)?;
    if bytes.len() <= INLINE_BLOB {
        return Ok(Blob::Inline(bytes));
    }
    let mut extents = Vec::new();
    for piece in bytes.chunks(SEGMENT) {
        let (pack, segment) = sink.store(Role::Blob, piece)?;
        Extent::push(&mut extents, Extent::stored(piece.len() as u64, pack, segment, 0));
    }
    Ok(Blob::Stored(extents))
}

#[async_trait]
impl BackupSession for Session {
    fn id(&self) -> SessionId {
        self.shared.session
    }

    fn parent(&self) -> Option<&BackupRecord> {
        self.parent.as_ref().map(|p| p.record())
    }

    fn parent_source(&self) -> Option<Arc<dyn BackupSource>> {
        // What a host that only writes knows of its parent has no content.
        self.parent.as_ref().filter(|_| self.ledger.reads()).map(|parent| parent.source())
    }

    fn sink(&self) -> Arc<dyn BackupSink> {
        Arc::clone(&self.sink) as Arc<dyn BackupSink>
    }

    async fn commit(mut self: Box<Self>, snapshot: Snapshot) -> backup_core::Result<BackupRecord> {
        match self.finish(snapshot).await {
            Ok(record) => Ok(record),
            Err(error) => {
                // A commit whose fate is unknown must not be contradicted; anything else is worth saying.
                if error.kind() != crate::error::ErrorKind::Unavailable
                    && let Err(closing) = self.give_up().await
                {
                    tracing::debug!(error = %closing, "the session of a failed commit could not be closed");
                }
                Err(error.into())
            }
        }
    }

    async fn abort(mut self: Box<Self>) -> backup_core::Result<()> {
        Ok(self.give_up().await?)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Workers find their queues closed and end; uploads are aborted with their set. The manifest holds the pipeline that
        // holds it, so it is taken apart here.
        self.shared.failure.set(Error::cancelled());
        self.shared.close_jobs();
        self.shared.close_packs();
        drop(self.shared.take_manifest());
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.shared.session)
            .field("backup", &self.backup)
            .finish_non_exhaustive()
    }
}
