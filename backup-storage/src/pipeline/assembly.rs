//! Putting one entry together from parts that different workers store in any order.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use backup_core::engine::{BlockInspector, Stored};
use backup_core::entry::EntryMeta;
use backup_crypto::HashKey;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Shared;
use super::lane::Lane;
use crate::error::{Error, Result};
use crate::manifest::{BlockMap, Content, Extent, ManifestEntry, slice, total};
use crate::pack::{BLOCK, BlockHash, content_id};

/// Block maps up to this size stand in the entry itself.
const INLINE_MAP: usize = 64 * 16;
/// So do this many extents.
const INLINE_EXTENTS: usize = 1024;

/// The same entry in the parent backup, with its extents already in terms of this session's pack table.
#[derive(Debug)]
pub(crate) struct ParentContent {
    pub(crate) len: u64,
    pub(crate) extents: Vec<Extent>,
    pub(crate) hashes: Vec<BlockHash>,
    /// What the parent's hashes were made with, when it is not this session's key.
    pub(crate) key: Option<HashKey>,
}

impl ParentContent {
    /// Whether block `index` of the parent is `block`, whose hash under this session's key is `hash`.
    fn has(&self, index: usize, block: &[u8], hash: &BlockHash) -> bool {
        let Some(theirs) = self.hashes.get(index) else { return false };
        let start = (index * BLOCK) as u64;
        if self.len - start.min(self.len) < block.len() as u64
            || (self.len - start < BLOCK as u64 && self.len - start != block.len() as u64)
        {
            return false;
        }
        match &self.key {
            None => theirs == hash,
            Some(key) => *theirs == key.block(block),
        }
    }
}

/// An entry that is being stored.
pub(crate) struct Assembly {
    shared: Arc<Shared>,
    meta: EntryMeta,
    parent: Option<ParentContent>,
    inspector: Option<Arc<dyn BlockInspector>>,
    state: Mutex<State>,
}

struct State {
    extents: BTreeMap<u64, Extent>,
    hashes: Vec<BlockHash>,
    len: u64,
    new_bytes: u64,
    /// Spans and chunks that were not read yet, and the feeder of a stream.
    reads: usize,
    /// Reads and small runs that are not stored yet.
    parts: usize,
    receipt: Option<oneshot::Sender<Result<Stored>>>,
}

impl Assembly {
    /// An entry of which `reads` parts are still to be read. The receipt is sent when all of them were.
    pub(crate) fn new(
        shared: Arc<Shared>,
        meta: EntryMeta,
        parent: Option<ParentContent>,
        inspector: Option<Arc<dyn BlockInspector>>,
        reads: usize,
    ) -> (Arc<Self>, oneshot::Receiver<Result<Stored>>) {
        let (receipt, receiver) = oneshot::channel();
        let state = State {
            extents: BTreeMap::new(),
            hashes: Vec::new(),
            len: 0,
            new_bytes: 0,
            reads,
            parts: reads,
            receipt: Some(receipt),
        };
        (Arc::new(Self { shared, meta, parent, inspector, state: Mutex::new(state) }), receiver)
    }

    pub(crate) fn meta(&self) -> &EntryMeta {
        &self.meta
    }

    /// The source could not be read: the entry never becomes part of the backup, the session goes on.
    pub(crate) fn fail(&self, error: Error) {
        if let Some(receipt) = self.state.lock().receipt.take() {
            // Nobody waits any more when the put was cancelled.
            let _ = receipt.send(Err(error));
        }
    }

    /// Whether [`fail`](Self::fail) was called, or nobody waits for the entry any more.
    pub(crate) fn is_given_up(&self) -> bool {
        self.state.lock().receipt.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// One more part is to be read.
    pub(crate) fn open_read(&self) {
        let mut state = self.state.lock();
        state.reads += 1;
        state.parts += 1;
    }

    /// One more part will be placed later.
    pub(crate) fn open_part(&self) {
        self.state.lock().parts += 1;
    }

    /// Notes where the run that begins at `at` is stored.
    pub(crate) fn place(&self, at: u64, extent: Extent) {
        self.state.lock().extents.insert(at, extent);
    }

    /// Takes `bytes`, which stand at `offset`: at most 1 MiB, from one multiple of 128 KiB to another or to the end.
    pub(crate) fn ingest(self: &Arc<Self>, offset: u64, bytes: &[u8], lane: &mut Lane) -> Result<()> {
        if let Some(inspector) = &self.inspector {
            inspector.inspect(offset, bytes);
        }
        self.shared.read(bytes.len());
        let first = usize::try_from(offset / BLOCK as u64).map_err(|_| Error::invalid("an entry is too large"))?;
        let mut hashes = [[0; 16]; crate::pack::SEGMENT / BLOCK];
        let mut sorts = [Sort::New; crate::pack::SEGMENT / BLOCK];
        let mut count = 0;
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            let hash = self.shared.hash.block(block);
            hashes[index] = hash;
            sorts[index] = if is_zero(block) {
                Sort::Hole
            } else if self.parent.as_ref().is_some_and(|p| p.has(first + index, block, &hash)) {
                Sort::Parent
            } else {
                Sort::New
            };
            count = index + 1;
        }
        {
            let mut state = self.state.lock();
            if state.hashes.len() < first + count {
                state.hashes.resize(first + count, [0; 16]);
            }
            state.hashes[first..first + count].copy_from_slice(&hashes[..count]);
            state.len = state.len.max(offset + bytes.len() as u64);
        }
        let mut from = 0;
        while from < count {
            let to = from + sorts[from..count].iter().take_while(|sort| **sort == sorts[from]).count();
            let (start, end) = (from * BLOCK, bytes.len().min(to * BLOCK));
            let at = offset + start as u64;
            match sorts[from] {
                Sort::Hole => self.place(at, Extent::hole((end - start) as u64)),
                Sort::Parent => {
                    let parent = self.parent.as_ref().map_or(&[][..], |p| &p.extents);
                    let mut at = at;
                    for extent in slice(parent, at..offset + end as u64)? {
                        self.place(at, extent);
                        at += extent.len;
                    }
                }
                Sort::New => {
                    let id = content_id(&self.shared.hash, &hashes[from..to]);
                    self.state.lock().new_bytes += (end - start) as u64;
                    if end - start < BLOCK {
                        lane.put_small(self, at, &bytes[start..end], id)?;
                    } else {
                        self.place(at, lane.put(&bytes[start..end], id)?);
                    }
                }
            }
            from = to;
        }
        Ok(())
    }

    /// One part has been read and what it holds is on its way.
    pub(crate) fn close_read(self: &Arc<Self>, lane: &mut Lane) -> Result<()> {
        {
            let mut state = self.state.lock();
            state.reads -= 1;
            if state.reads == 0
                && let Some(receipt) = state.receipt.take()
            {
                // Nobody waits any more when the put was cancelled; the entry is stored all the same.
                let _ = receipt.send(Ok(Stored { len: state.len, new_bytes: state.new_bytes, unread: false }));
            }
        }
        self.close_part(lane)
    }

    /// One part has been placed. The last one completes the entry.
    pub(crate) fn close_part(self: &Arc<Self>, lane: &mut Lane) -> Result<()> {
        let complete = {
            let mut state = self.state.lock();
            state.parts -= 1;
            state.parts == 0
        };
        if complete { self.complete(lane) } else { Ok(()) }
    }

    fn complete(&self, lane: &mut Lane) -> Result<()> {
        let (runs, hashes, len) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.extents), std::mem::take(&mut state.hashes), state.len)
        };
        let mut extents = Vec::new();
        let mut next = 0;
        for (at, extent) in runs {
            if at != next {
                return Err(Error::internal(format!("{} has a gap at byte {next}", self.meta.path)));
            }
            next += extent.len;
            Extent::push(&mut extents, extent);
        }
        if next != len {
            return Err(Error::internal(format!("{} has {next} of {len} bytes placed", self.meta.path)));
        }
        let entry = self.shared.describe(self.meta.clone(), len, extents, &hashes, lane)?;
        self.shared.add_entry(&entry)
    }
}

impl Shared {
    /// The manifest entry of content that is stored; long lists go into the lane.
    fn describe(
        &self,
        meta: EntryMeta,
        len: u64,
        extents: Vec<Extent>,
        hashes: &[BlockHash],
        lane: &mut Lane,
    ) -> Result<ManifestEntry> {
        debug_assert_eq!(total(&extents), len, "{}", meta.path);
        let epoch = self.epoch.0;
        let bytes = hashes.as_flattened();
        let blocks = if bytes.len() <= INLINE_MAP {
            BlockMap::Inline { epoch, hashes: bytes.to_vec() }
        } else {
            BlockMap::Stored { epoch, hashes: lane.put_blob(bytes)? }
        };
        self.count_live(&extents);
        let content = if extents.len() <= INLINE_EXTENTS {
            Content::Inline(extents)
        } else {
            let list = minicbor::to_vec(&extents)
                .map_err(|e| Error::internal("a list of extents cannot be encoded").with_source(e))?;
            let stored = lane.put_blob(&list)?;
            self.count_live(&stored);
            Content::Stored(stored)
        };
        if let BlockMap::Stored { hashes, .. } = &blocks {
            self.count_live(hashes);
        }
        Ok(ManifestEntry { meta, len, content, blocks })
    }

    /// Counts what is used of each pack.
    pub(crate) fn count_live(&self, extents: &[Extent]) {
        for extent in extents {
            if let Some(index) = extent.pack_index() {
                self.table.add_live(index, extent.len);
            }
        }
    }
}

impl fmt::Debug for Assembly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Assembly({})", self.meta.path)
    }
}

/// What is done with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Hole,
    Parent,
    New,
}

fn is_zero(block: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    block == &ZEROS[..block.len()]
}
