//! Putting one entry together from parts that different workers store in any order.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use backup_core::engine::{BlockInspector, Changes, Stored};
use backup_core::entry::EntryMeta;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Shared;
use super::lane::Lane;
use super::parent::{ParentContent, UNKNOWN};
use crate::error::{Error, Result};
use crate::manifest::{BlockMap, Content, Extent, ManifestEntry, total};
use crate::pack::{BLOCK, BlockHash, content_id, content_id_of};

/// Block maps up to this size stand in the entry itself.
const INLINE_MAP: usize = 64 * 16;
/// So do this many extents.
const INLINE_EXTENTS: usize = 1024;

/// An entry that is being stored.
pub(crate) struct Assembly {
    shared: Arc<Shared>,
    meta: EntryMeta,
    parent: Option<ParentContent>,
    inspector: Option<Arc<dyn BlockInspector>>,
    /// What alone may differ from the parent, as somebody claims who is not believed.
    claimed: Option<Changes>,
    state: Mutex<State>,
}

struct State {
    extents: BTreeMap<u64, Extent>,
    hashes: Vec<BlockHash>,
    len: u64,
    new_bytes: u64,
    read_bytes: u64,
    unexpected: u64,
    /// Spans and chunks that were not read yet, and the feeder of a stream.
    reads: usize,
    /// Reads and small runs that are not stored yet.
    parts: usize,
    receipt: Option<oneshot::Sender<Result<Stored>>>,
}

impl State {
    /// The entry has `range`, and with it so many blocks.
    fn reach(&mut self, range: &Range<u64>, blocks: usize) {
        if self.hashes.len() < blocks {
            self.hashes.resize(blocks, UNKNOWN);
        }
        self.len = self.len.max(range.end);
    }
}

/// The numbers of the blocks of a range that begins at one.
fn blocks_of(range: &Range<u64>) -> Result<Range<usize>> {
    let number = |at: u64| usize::try_from(at).map_err(|_| Error::invalid("an entry is too large"));
    Ok(number(range.start / BLOCK as u64)?..number(range.end.div_ceil(BLOCK as u64))?)
}

impl Assembly {
    /// An entry of which `reads` parts are still to be read. The receipt is sent when all of them were.
    pub(crate) fn new(
        shared: Arc<Shared>,
        meta: EntryMeta,
        parent: Option<ParentContent>,
        inspector: Option<Arc<dyn BlockInspector>>,
        claimed: Option<Changes>,
        reads: usize,
    ) -> (Arc<Self>, oneshot::Receiver<Result<Stored>>) {
        let (receipt, receiver) = oneshot::channel();
        let state = State {
            extents: BTreeMap::new(),
            hashes: Vec::new(),
            len: 0,
            new_bytes: 0,
            read_bytes: 0,
            unexpected: 0,
            reads,
            parts: reads,
            receipt: Some(receipt),
        };
        (Arc::new(Self { shared, meta, parent, inspector, claimed, state: Mutex::new(state) }), receiver)
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
        let (mut count, mut unexpected) = (0, 0);
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            let hash = self.shared.hash.block(block);
            hashes[index] = hash;
            if let (Some(claimed), Some(parent)) = (&self.claimed, &self.parent)
                && parent.contradicts(claimed, first + index, block, &hash)
            {
                unexpected += block.len() as u64;
            }
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
            state.reach(&(offset..offset + bytes.len() as u64), first + count);
            state.hashes[first..first + count].copy_from_slice(&hashes[..count]);
            state.read_bytes += bytes.len() as u64;
            state.unexpected += unexpected;
        }
        let mut from = 0;
        while from < count {
            let to = from + sorts[from..count].iter().take_while(|sort| **sort == sorts[from]).count();
            let (start, end) = (from * BLOCK, bytes.len().min(to * BLOCK));
            let at = offset + start as u64;
            match sorts[from] {
                Sort::Hole => self.place(at, Extent::hole((end - start) as u64)),
                Sort::Parent => self.place_parents(at..offset + end as u64)?,
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

    /// Takes a range of whole blocks from the parent without looking at them.
    pub(crate) fn keep(&self, range: Range<u64>) -> Result<()> {
        self.place_parents(range.clone())?;
        self.shared.read(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
        let blocks = blocks_of(&range)?;
        let mut state = self.state.lock();
        state.reach(&range, blocks.end);
        let Some(parent) = &self.parent else { return Err(Error::internal("an entry has no parent")) };
        let known = parent.hashes().get(blocks.clone());
        let known = known.ok_or_else(|| Error::internal("a block was kept that the parent does not have"))?;
        // Hashes of another epoch say nothing under this one's key.
        if parent.has_own_hashes() {
            state.hashes[blocks].copy_from_slice(known);
        }
        Ok(())
    }

    /// Takes one block from the parent except for `parts` of it, whose bytes stand in `bytes` one after the other. The hash of
    /// such a block is not known: nobody has seen all of it.
    pub(crate) fn patch(
        self: &Arc<Self>,
        block: &Range<u64>,
        parts: &[Range<u64>],
        mut bytes: &[u8],
        lane: &mut Lane,
    ) -> Result<()> {
        let number = blocks_of(block)?;
        {
            let mut state = self.state.lock();
            state.reach(block, number.end);
            state.read_bytes += bytes.len() as u64;
        }
        self.shared.read(usize::try_from(block.end - block.start).unwrap_or(usize::MAX));
        let mut next = block.start;
        for part in parts {
            self.place_parents(next..part.start)?;
            let (here, rest) = bytes.split_at((part.end - part.start) as usize);
            if let Some(inspector) = &self.inspector {
                inspector.inspect(part.start, here);
            }
            if is_zero(here) {
                self.place(part.start, Extent::hole(here.len() as u64));
            } else {
                self.state.lock().new_bytes += here.len() as u64;
                lane.put_small(self, part.start, here, content_id_of(&self.shared.hash, here))?;
            }
            (bytes, next) = (rest, part.end);
        }
        self.place_parents(next..block.end)
    }

    /// Notes that `range` is where the parent has it.
    fn place_parents(&self, range: Range<u64>) -> Result<()> {
        let Some(parent) = &self.parent else { return Err(Error::internal("an entry has no parent")) };
        let mut at = range.start;
        for extent in parent.slice(range)? {
            self.place(at, extent);
            at += extent.len;
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
                let State { len, new_bytes, read_bytes, unexpected, .. } = *state;
                let unread = len > 0 && read_bytes == 0;
                let _ = receipt.send(Ok(Stored { len, new_bytes, unread, read_bytes, unexpected }));
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
