//! Takes entries.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::content::{BLOCK, Block, Blocks, Finished, Manifest, StoredEntry, keep_outside};
use crate::catalog::BackupRecord;
use crate::engine::{BackupSink, BlockInspector, LocalFile, OnShrink, Patch, Put, Stored, Unchanged, Work};
use crate::entry::{EntryInfo, EntryKind, EntryMeta, EntryPath};
use crate::error::{Error, Result};
use crate::id::SessionId;
use crate::observe::Phase;

/// How far before the parent's start a modification must lie to be trusted.
const MARGIN: Duration = Duration::from_secs(2);

pub(super) struct MemorySink {
    session: SessionId,
    parent: Option<(BackupRecord, Arc<Manifest>)>,
    work: Work,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ended: bool,
    taken: BTreeSet<EntryPath>,
    entries: Manifest,
    new_bytes: u64,
}

/// A path that is being put. Dropped without [`Claim::fulfil`], the path is free again.
struct Claim<'a> {
    sink: &'a MemorySink,
    path: EntryPath,
    fulfilled: bool,
}

impl Claim<'_> {
    fn fulfil(mut self, entry: StoredEntry, new_bytes: u64) -> Result<()> {
        let mut state = self.sink.state.lock();
        if state.ended {
            return Err(self.sink.ended());
        }
        state.new_bytes += new_bytes;
        state.entries.insert(self.path.clone(), Arc::new(entry));
        self.fulfilled = true;
        Ok(())
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.fulfilled {
            self.sink.state.lock().taken.remove(&self.path);
        }
    }
}

impl MemorySink {
    pub(super) fn new(session: SessionId, parent: Option<(BackupRecord, Arc<Manifest>)>, work: Work) -> Self {
        Self { session, parent, work, state: Mutex::default() }
    }

    /// Takes no more entries; those of before and how many bytes of them are new.
    pub(super) fn end(&self) -> (Manifest, u64) {
        let mut state = self.state.lock();
        state.ended = true;
        (std::mem::take(&mut state.entries), state.new_bytes)
    }

    fn ended(&self) -> Error {
        Error::conflict(format!("session {} has ended", self.session))
    }

    fn claim(&self, path: &EntryPath) -> Result<Claim<'_>> {
        self.work.checkpoint()?;
        let mut state = self.state.lock();
        if state.ended {
            return Err(self.ended());
        }
        if !state.taken.insert(path.clone()) {
            return Err(Error::invalid(format!("entry {path} was already put into session {}", self.session)));
        }
        Ok(Claim { sink: self, path: path.clone(), fulfilled: false })
    }

    fn parent_entry(&self, path: &EntryPath) -> Option<&StoredEntry> {
        self.parent.as_ref()?.1.get(path).map(AsRef::as_ref)
    }

    /// The content of the parent's entry when the rule allows to take it unread.
    fn unread(&self, rule: &Unchanged, meta: &EntryMeta, len: u64) -> Option<Vec<Block>> {
        if *rule != Unchanged::BySizeAndTime {
            return None;
        }
        let (record, _) = self.parent.as_ref()?;
        let modified = meta.modified?;
        let trusted_until = record.started_at.checked_sub(MARGIN).ok()?;
        let old = self.parent_entry(&meta.path)?;
        let same = old.info.meta.kind == meta.kind && old.info.len == len && old.info.meta.modified == Some(modified);
        (same && modified <= trusted_until).then(|| old.blocks.clone())
    }

    fn keep(&self, claim: Claim<'_>, meta: EntryMeta, blocks: Blocks<'_>) -> Result<Stored> {
        let Finished { blocks, len, new_bytes, unexpected } = blocks.finish();
        if len > 0 && !matches!(meta.kind, EntryKind::File | EntryKind::Record) {
            return Err(Error::invalid(format!("entry {} is no file and cannot have {len} bytes", meta.path)));
        }
        claim.fulfil(StoredEntry { info: EntryInfo::new(meta, len), blocks }, new_bytes)?;
        Ok(Stored { len, new_bytes, unread: false, read_bytes: len, unexpected })
    }
}

impl fmt::Debug for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySink").field("session", &self.session).finish_non_exhaustive()
    }
}

#[async_trait]
impl BackupSink for MemorySink {
    async fn put_file(&self, file: LocalFile) -> Result<Put> {
        let claim = self.claim(&file.meta.path)?;
        let name = file.path.display();
        let mut open = match open(&file.path) {
            Ok(open) => open,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Put::Vanished),
            Err(error) => return Err(Error::io(&name, error)),
        };
        let facts = open.metadata().map_err(|e| Error::io(&name, e))?;
        let modified = facts.modified().ok().and_then(|t| Timestamp::try_from(t).ok()).map(whole_microseconds);
        let meta = file.meta.with_mode(facts.permissions().mode()).with_modified(modified);
        let len = facts.len();
        if let Some(blocks) = self.unread(&file.unchanged, &meta, len) {
            claim.fulfil(StoredEntry { info: EntryInfo::new(meta, len), blocks }, 0)?;
            self.work.advanced(Phase::Read, len);
            return Ok(Put::Stored(Stored { len, unread: true, ..Stored::default() }));
        }
        let parent = self.parent_entry(&meta.path);
        let mut blocks = Blocks::new(self.session, parent, file.inspector.as_deref());
        let changes = match &file.unchanged {
            Unchanged::Outside(changes) => parent.map(|parent| (parent, changes)),
            _ => None,
        };
        if let Some((_, changes)) = changes.filter(|(_, changes)| changes.is_verified()) {
            blocks.expect_changes(changes);
        }
        let changes = changes.filter(|(_, changes)| !changes.is_verified());
        let mut buffer = vec![0; BLOCK];
        let mut missing = len;
        while missing > 0 {
            self.work.checkpoint()?;
            let wanted = usize::try_from(missing).unwrap_or(BLOCK).min(BLOCK);
            let mut got = open.read(&mut buffer[..wanted]).map_err(|e| Error::io(&name, e))?;
            if got == 0 {
                if file.on_shrink == OnShrink::Fail {
                    let left = len - missing;
                    return Err(Error::environment(format!(
                        "{name} shrank from {len} to {left} bytes while it was read"
                    )));
                }
                got = wanted;
                buffer[..got].fill(0);
            }
            if let Some((parent, changes)) = changes {
                // Read all the same, for want of a reason not to; what counts is what the rule says.
                keep_outside(parent, changes, len - missing, &mut buffer[..got]);
            }
            blocks.push(&buffer[..got]);
            missing -= got as u64;
            self.work.advanced(Phase::Read, got as u64);
            tokio::task::yield_now().await;
        }
        self.keep(claim, meta, blocks).map(Put::Stored)
    }

    async fn put_stream(
        &self,
        mut meta: EntryMeta,
        mut body: BoxStream<'_, Result<Bytes>>,
        inspector: Option<Arc<dyn BlockInspector>>,
    ) -> Result<Stored> {
        let claim = self.claim(&meta.path)?;
        meta.modified = meta.modified.map(whole_microseconds);
        let mut blocks = Blocks::new(self.session, self.parent_entry(&meta.path), inspector.as_deref());
        while let Some(piece) = body.next().await {
            let piece = piece?;
            self.work.checkpoint()?;
            blocks.push(&piece);
            self.work.advanced(Phase::Read, piece.len() as u64);
        }
        self.keep(claim, meta, blocks)
    }

    async fn put_patch(&self, patch: Patch, mut body: BoxStream<'_, Result<Bytes>>) -> Result<Stored> {
        let claim = self.claim(&patch.meta.path)?;
        let parent = self.parent_entry(&patch.meta.path).filter(|entry| entry.info.meta.kind == patch.meta.kind);
        let parent = parent.ok_or_else(|| Error::invalid(format!("the parent has no {} to patch", patch.meta.path)))?;
        patch.check(parent.info.len)?;
        let mut rest = BytesMut::new();
        while let Some(piece) = body.next().await {
            self.work.checkpoint()?;
            rest.extend_from_slice(&piece?);
            if rest.len() as u64 > patch.body_len() {
                return Err(patch.wrong_body(true));
            }
        }
        if (rest.len() as u64) < patch.body_len() {
            return Err(patch.wrong_body(false));
        }
        let read_bytes = rest.len() as u64;
        // What is taken from the parent is not looked at.
        let inspector = patch.inspector.as_deref();
        let whole = inspector.filter(|_| patch.changes.is_verified());
        let mut blocks = Blocks::new(self.session, Some(parent), whole);
        if patch.changes.is_verified() {
            blocks.expect_changes(&patch.changes);
            blocks.push(&rest);
        } else {
            let mut at = 0;
            for range in patch.changes.ranges() {
                blocks.push(&parent.bytes(at..range.start));
                let fresh = rest.split_to((range.end - range.start) as usize);
                if let Some(inspector) = inspector {
                    inspect(inspector, range.start, &fresh);
                }
                blocks.push(&fresh);
                at = range.end;
            }
            blocks.push(&parent.bytes(at..patch.len));
        }
        self.work.advanced(Phase::Read, patch.len);
        let mut meta = patch.meta;
        meta.modified = meta.modified.map(whole_microseconds);
        let stored = self.keep(claim, meta, blocks)?;
        Ok(Stored { read_bytes, unread: stored.len > 0 && read_bytes == 0, ..stored })
    }

    async fn reuse(&self, meta: EntryMeta) -> Result<Option<Stored>> {
        let claim = self.claim(&meta.path)?;
        let Some(identity) = meta.identity.as_ref() else {
            return Err(Error::invalid(format!("entry {} has no identity by which it could be reused", meta.path)));
        };
        let twin = self.parent.as_ref().and_then(|(_, manifest)| {
            manifest.values().find(|e| e.info.meta.identity.as_ref() == Some(identity)).map(Arc::clone)
        });
        let Some(twin) = twin else { return Ok(None) };
        let len = twin.info.len;
        claim.fulfil(StoredEntry { info: EntryInfo::new(meta, len), blocks: twin.blocks.clone() }, 0)?;
        self.work.advanced(Phase::Read, len);
        Ok(Some(Stored { len, unread: true, ..Stored::default() }))
    }

    fn concurrency(&self) -> usize {
        4
    }
}

/// Shows `bytes`, which stand at `at`, to an inspector, block by block.
fn inspect(inspector: &dyn BlockInspector, mut at: u64, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let (now, later) = bytes.split_at(bytes.len().min(BLOCK - (at % BLOCK as u64) as usize));
        inspector.inspect(at, now);
        (at, bytes) = (at + now.len() as u64, later);
    }
}

/// Opens a regular file, never through a symbolic link at its end.
fn open(path: &std::path::Path) -> io::Result<File> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    File::open(path)
}

/// The precision that the stored form keeps.
fn whole_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}
