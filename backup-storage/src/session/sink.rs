//! Where an engine's entries enter the pipeline.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::engine::{BackupSink, BlockInspector, Changes, LocalFile, OnShrink, Patch, Put, Stored, Unchanged};
use backup_core::entry::{EntryKind, EntryMeta, EntryPath};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::alive::Alive;
use super::parent::Parent;
use crate::error::{Error, Result};
use crate::manifest::ManifestEntry;
use crate::pack::SEGMENT;
use crate::pipeline::Shared;
use crate::pipeline::assembly::Assembly;
use crate::pipeline::parent::ParentContent;
use crate::pipeline::sparse::{self, Step};
use crate::pipeline::worker::{Job, SPAN, Span};

/// The sink of one session.
pub(crate) struct Sink {
    pub(super) shared: Arc<Shared>,
    pub(super) parent: Option<Arc<Parent>>,
    alive: Alive,
    /// Keyed hashes of the paths that were put, 16 bytes each whatever their length.
    paths: Mutex<HashSet<[u8; 16]>>,
}

/// What the file system says of a regular file.
pub(super) struct Seen {
    pub(super) len: u64,
    pub(super) mode: u32,
    /// In whole microseconds, as manifests have them.
    pub(super) modified: Option<Timestamp>,
}

impl Seen {
    fn of(found: &Metadata) -> Self {
        let modified = Timestamp::new(found.mtime(), i32::try_from(found.mtime_nsec()).unwrap_or(0)).ok();
        // What is compared with a manifest must be cut alike.
        let modified = modified.and_then(|t| Timestamp::from_microsecond(t.as_microsecond()).ok());
        Self { len: found.len(), mode: found.mode() & 0o7777, modified }
    }
}

/// A local file that was opened.
pub(super) struct Opened {
    file: File,
    seen: Seen,
}

/// A file of which is known what is to be read.
pub(super) enum Begun {
    /// Nothing.
    Put(Put),
    /// All of it.
    Whole(WholeFile),
    /// Only some of it.
    Some(SomeOfFile),
}

/// A file of which all is to be read.
pub(super) struct WholeFile {
    pub(super) assembly: Arc<Assembly>,
    pub(super) file: File,
    pub(super) len: u64,
    pub(super) on_shrink: OnShrink,
    pub(super) receipt: oneshot::Receiver<Result<Stored>>,
}

/// A file of which only some is to be read.
pub(super) struct SomeOfFile {
    file: File,
    meta: EntryMeta,
    parent: Option<ParentContent>,
    steps: Vec<Step>,
    inspector: Option<Arc<dyn BlockInspector>>,
    on_shrink: OnShrink,
}

impl Sink {
    pub(crate) fn new(shared: Arc<Shared>, parent: Option<Arc<Parent>>) -> Self {
        let alive = Alive::begin(&shared);
        Self { shared, parent, alive, paths: Mutex::new(HashSet::new()) }
    }

    pub(super) async fn claim(&self, path: &EntryPath) -> Result<()> {
        self.shared.failure.check()?;
        self.alive.touch(&self.shared).await;
        if self.paths.lock().insert(self.shared.hash.block(path.as_bytes())) {
            return Ok(());
        }
        Err(Error::invalid(format!("{path} was put twice")))
    }

    fn release(&self, path: &EntryPath) {
        self.paths.lock().remove(&self.shared.hash.block(path.as_bytes()));
    }

    pub(super) async fn claim_file(&self, meta: &EntryMeta) -> Result<()> {
        if meta.kind != EntryKind::File && meta.kind != EntryKind::Record {
            return Err(Error::invalid(format!("{} is put as a file but is none", meta.path)));
        }
        self.claim(&meta.path).await
    }

    /// The same outcome; the path is free again where nothing was put.
    pub(super) fn unless_put(&self, path: &EntryPath, put: Result<Put>) -> Result<Put> {
        if matches!(put, Err(_) | Ok(Put::Vanished)) {
            self.release(path);
        }
        put
    }

    async fn compared_with(&self, path: &EntryPath) -> Result<Option<ParentContent>> {
        let Some(parent) = &self.parent else { return Ok(None) };
        match parent.entry(path).await? {
            Some(entry) => Ok(Some(parent.content(&entry, &self.shared).await?)),
            None => Ok(None),
        }
    }

    pub(super) async fn receive(&self, receipt: oneshot::Receiver<Result<Stored>>) -> Result<Stored> {
        receipt.await.map_err(|_| self.shared.ended())?
    }

    pub(super) async fn store_begun(&self, begun: Begun) -> Result<Put> {
        match begun {
            Begun::Put(put) => Ok(put),
            Begun::Whole(whole) => self.store_whole(whole).await,
            Begun::Some(some) => self.store_sparse(some).await,
        }
    }

    /// Finds out what of a file is to be read.
    pub(super) async fn begin(&self, local: LocalFile, opened: Opened) -> Result<Begun> {
        let LocalFile { mut meta, unchanged, on_shrink, inspector, .. } = local;
        let Opened { file, seen: Seen { len, mode, modified } } = opened;
        meta = meta.with_mode(mode).with_modified(modified);
        let before = match &self.parent {
            Some(parent) => parent.entry(&meta.path).await?.map(|entry| (parent, entry)),
            None => None,
        };
        let mut compared = None;
        if let Some((parent, entry)) = &before {
            if parent.is_unchanged(entry, &unchanged, len, modified) {
                return self.take_whole(parent, entry, meta).await.map(Begun::Put);
            }
            compared = Some(parent.content(entry, &self.shared).await?);
        }
        let claimed = match unchanged {
            Unchanged::Outside(changes) => Some(changes),
            _ => None,
        };
        let claimed = match (claimed, &compared) {
            // Hashes of another epoch cannot be taken over: everything is read, once after each new key.
            (Some(changes), Some(parent)) if !changes.is_verified() && parent.has_own_hashes() => {
                let steps = sparse::plan(&changes, len, parent);
                if len == parent.len()
                    && steps.iter().all(|step| step.reads() == 0)
                    && let Some((parent, entry)) = before
                {
                    return self.take_whole(parent, &entry, meta).await.map(Begun::Put);
                }
                return Ok(Begun::Some(SomeOfFile { file, meta, parent: compared, steps, inspector, on_shrink }));
            }
            (claimed, _) => claimed.filter(Changes::is_verified),
        };
        let reads = len.div_ceil(SPAN).max(1);
        let reads = usize::try_from(reads).map_err(|_| Error::invalid(format!("{} is too large", meta.path)))?;
        let (assembly, receipt) = Assembly::new(Arc::clone(&self.shared), meta, compared, inspector, claimed, reads);
        Ok(Begun::Whole(WholeFile { assembly, file, len, on_shrink, receipt }))
    }

    async fn store_whole(&self, whole: WholeFile) -> Result<Put> {
        let WholeFile { assembly, file, len, on_shrink, receipt } = whole;
        let file = Arc::new(file);
        for span in 0..len.div_ceil(SPAN).max(1) {
            let range = span * SPAN..len.min((span + 1) * SPAN);
            let (assembly, file) = (Arc::clone(&assembly), Arc::clone(&file));
            self.shared.submit(Job::Span(Span { assembly, file, range, on_shrink })).await?;
        }
        drop((assembly, file));
        Ok(Put::Stored(self.receive(receipt).await?))
    }

    /// Takes the parent's entry as it is.
    pub(super) async fn take_whole(&self, parent: &Parent, entry: &ManifestEntry, meta: EntryMeta) -> Result<Put> {
        let whole = parent.whole(entry, meta, &self.shared).await?;
        self.shared.read(usize::try_from(entry.len).unwrap_or(usize::MAX));
        self.shared.take(whole).await?;
        Ok(Put::Stored(Stored { len: entry.len, unread: true, ..Stored::default() }))
    }

    async fn store_sparse(&self, some: SomeOfFile) -> Result<Put> {
        let SomeOfFile { file, meta, parent, steps, inspector, on_shrink } = some;
        let kept = sparse::kept(&steps);
        let portions = sparse::portions(steps, SPAN);
        let shared = Arc::clone(&self.shared);
        let (assembly, receipt) = Assembly::new(shared, meta, parent, inspector, None, portions.len());
        for range in kept {
            assembly.keep(range)?;
        }
        let file = Arc::new(file);
        for steps in portions {
            let (assembly, file) = (Arc::clone(&assembly), Arc::clone(&file));
            self.shared.submit(Job::Sparse { assembly, file, steps, on_shrink }).await?;
        }
        drop((assembly, file));
        Ok(Put::Stored(self.receive(receipt).await?))
    }

    async fn store_stream(
        &self,
        meta: EntryMeta,
        mut body: BoxStream<'_, backup_core::Result<Bytes>>,
        inspector: Option<Arc<dyn BlockInspector>>,
    ) -> Result<Stored> {
        // What has no content is not compared: engines put folders in any order, and each would ask for another part of the manifest.
        let compared = match meta.kind {
            EntryKind::File | EntryKind::Record => self.compared_with(&meta.path).await?,
            _ => None,
        };
        let (assembly, receipt) = Assembly::new(Arc::clone(&self.shared), meta, compared, inspector, None, 1);
        self.feed(&assembly, &mut body, u64::MAX).await?;
        self.shared.submit(Job::End { assembly }).await?;
        self.receive(receipt).await
    }

    /// Hands on the bytes of a stream, up to one more than `most`. How many there were.
    pub(super) async fn feed(
        &self,
        assembly: &Arc<Assembly>,
        body: &mut BoxStream<'_, backup_core::Result<Bytes>>,
        most: u64,
    ) -> Result<u64> {
        let mut chunk = Vec::new();
        let mut offset = 0;
        while let Some(piece) = body.next().await {
            let mut piece = piece?;
            if offset + chunk.len() as u64 + piece.len() as u64 > most {
                return Ok(most.saturating_add(1));
            }
            while !piece.is_empty() {
                let room = SEGMENT - chunk.len();
                chunk.extend_from_slice(&piece.split_to(room.min(piece.len())));
                if chunk.len() == SEGMENT {
                    let bytes = std::mem::replace(&mut chunk, Vec::with_capacity(SEGMENT));
                    self.submit_chunk(assembly, &mut offset, bytes).await?;
                }
            }
        }
        if !chunk.is_empty() {
            self.submit_chunk(assembly, &mut offset, chunk).await?;
        }
        Ok(offset)
    }

    async fn submit_chunk(&self, assembly: &Arc<Assembly>, offset: &mut u64, bytes: Vec<u8>) -> Result<()> {
        assembly.open_read();
        let at = *offset;
        *offset += bytes.len() as u64;
        self.shared.submit(Job::Chunk { assembly: Arc::clone(assembly), offset: at, bytes }).await
    }
}

pub(super) fn open(path: &Path) -> Result<Option<Opened>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path.display(), e)),
    };
    let found = file.metadata().map_err(|e| Error::io(path.display(), e))?;
    if !found.is_file() {
        return Err(Error::invalid(format!("{} is not a regular file", path.display())));
    }
    Ok(Some(Opened { seen: Seen::of(&found), file }))
}

/// Looks at `path` without opening it. None where it is to be opened to find out: it is no regular file, or cannot be looked at.
pub(super) fn glance(path: &Path) -> Option<Seen> {
    let found = std::fs::symlink_metadata(path).ok()?;
    found.is_file().then(|| Seen::of(&found))
}

/// Does something that waits for a file system.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("looking at a file panicked").with_source(e))
}

#[async_trait]
impl BackupSink for Sink {
    async fn put_file(&self, file: LocalFile) -> backup_core::Result<Put> {
        let put = self.store_some(vec![file]).await.pop();
        Ok(put.unwrap_or_else(|| Err(Error::internal("a file was neither put nor refused")))?)
    }

    async fn put_some(&self, files: Vec<LocalFile>) -> Vec<backup_core::Result<Put>> {
        let puts = self.store_some(files).await;
        puts.into_iter().map(|put| put.map_err(backup_core::Error::from)).collect()
    }

    async fn put_stream(
        &self,
        meta: EntryMeta,
        body: BoxStream<'_, backup_core::Result<Bytes>>,
        inspector: Option<Arc<dyn BlockInspector>>,
    ) -> backup_core::Result<Stored> {
        self.claim(&meta.path).await?;
        let path = meta.path.clone();
        let stored = self.store_stream(meta, body, inspector).await;
        if stored.is_err() {
            self.release(&path);
        }
        Ok(stored?)
    }

    async fn put_patch(
        &self,
        patch: Patch,
        body: BoxStream<'_, backup_core::Result<Bytes>>,
    ) -> backup_core::Result<Stored> {
        self.claim(&patch.meta.path).await?;
        let path = patch.meta.path.clone();
        let stored = self.store_patch(patch, body).await;
        if stored.is_err() {
            self.release(&path);
        }
        Ok(stored?)
    }

    async fn reuse(&self, meta: EntryMeta) -> backup_core::Result<Option<Stored>> {
        let Some(identity) = &meta.identity else {
            return Err(backup_core::Error::invalid(format!("{} has no identity to reuse by", meta.path)));
        };
        let Some(parent) = &self.parent else { return Ok(None) };
        let Some(entry) = parent.find(identity).await? else { return Ok(None) };
        self.claim(&meta.path).await?;
        let whole = parent.whole(&entry, meta, &self.shared).await?;
        let len = whole.len;
        self.shared.take(whole).await?;
        Ok(Some(Stored { len, unread: true, ..Stored::default() }))
    }

    fn concurrency(&self) -> usize {
        // Enough that small files are opened while others are read; few enough that descriptors do not run out.
        (self.shared.context.shape.workers * 8).clamp(16, 128)
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sink({})", self.shared.session)
    }
}
