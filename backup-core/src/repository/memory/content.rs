//! How content is kept: in blocks that backups share.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::engine::{BlockInspector, Changes};
use crate::entry::{EntryInfo, EntryPath};
use crate::id::SessionId;

/// The unit of sharing with a parent, in bytes. Equal to the alignment that [`BlockInspector`] promises.
pub(super) const BLOCK: usize = 128 * 1024;

/// The entries of one backup.
pub(super) type Manifest = BTreeMap<EntryPath, Arc<StoredEntry>>;

/// One entry: what is known of it, and its content. Every block but the last has [`BLOCK`] bytes.
#[derive(Debug)]
pub(super) struct StoredEntry {
    pub(super) info: EntryInfo,
    pub(super) blocks: Vec<Block>,
}

impl StoredEntry {
    /// The content of `range`, as far as there is any.
    pub(super) fn bytes(&self, range: std::ops::Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, block) in self.blocks.iter().enumerate() {
            let first = (number * BLOCK) as u64;
            let inside = |at: u64| (at.max(first) - first).min(block.bytes.len() as u64) as usize;
            bytes.extend_from_slice(&block.bytes[inside(range.start)..inside(range.end).max(inside(range.start))]);
        }
        bytes
    }
}

/// A stretch of content.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) bytes: Bytes,
    /// The session that stored it; nobody when it is all zeros.
    pub(super) session: Option<SessionId>,
}

/// Cuts content into blocks as it arrives, and shares those that the parent's entry has at the same place.
pub(super) struct Blocks<'a> {
    session: SessionId,
    parent: Option<&'a StoredEntry>,
    inspector: Option<&'a dyn BlockInspector>,
    pending: BytesMut,
    len: u64,
    new_bytes: u64,
    blocks: Vec<Block>,
    /// What alone may have changed, as somebody claims who is not believed.
    claimed: Option<&'a Changes>,
    unexpected: u64,
}

/// Content that was taken in.
pub(super) struct Finished {
    pub(super) blocks: Vec<Block>,
    pub(super) len: u64,
    pub(super) new_bytes: u64,
    pub(super) unexpected: u64,
}

/// Replaces what `bytes`, which stand at `at`, have outside of `changes` by what the parent has there.
pub(super) fn keep_outside(parent: &StoredEntry, changes: &Changes, at: u64, bytes: &mut [u8]) {
    let end = parent.info.len.min(at + bytes.len() as u64);
    let mut next = at;
    for range in changes.ranges().iter().cloned().chain(std::iter::once(end..end)) {
        while next < range.start.min(end) {
            let (block, inside) = ((next / BLOCK as u64) as usize, (next % BLOCK as u64) as usize);
            let len = (BLOCK - inside).min((range.start.min(end) - next) as usize);
            let place = (next - at) as usize;
            bytes[place..place + len].copy_from_slice(&parent.blocks[block].bytes[inside..inside + len]);
            next += len as u64;
        }
        next = next.max(range.end);
    }
}

impl<'a> Blocks<'a> {
    pub(super) fn new(
        session: SessionId,
        parent: Option<&'a StoredEntry>,
        inspector: Option<&'a dyn BlockInspector>,
    ) -> Self {
        let (pending, blocks) = (BytesMut::new(), Vec::new());
        Self { session, parent, inspector, pending, len: 0, new_bytes: 0, blocks, claimed: None, unexpected: 0 }
    }

    /// Counts what differs from the parent outside of `changes`.
    pub(super) fn expect_changes(&mut self, changes: &'a Changes) {
        self.claimed = Some(changes);
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == BLOCK {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        let bytes = self.pending.split().freeze();
        if let Some(inspector) = self.inspector {
            inspector.inspect(self.len, &bytes);
        }
        self.len += bytes.len() as u64;
        let range = self.len - bytes.len() as u64..self.len;
        let twin = self.parent.and_then(|p| p.blocks.get(self.blocks.len())).filter(|b| b.bytes == bytes);
        let claimed = self.claimed.is_some_and(|changes| !changes.meets(&range));
        if claimed && twin.is_none() && self.parent.is_some_and(|parent| range.end <= parent.info.len) {
            self.unexpected += bytes.len() as u64;
        }
        let block = match twin {
            Some(block) => block.clone(),
            None if bytes.iter().all(|b| *b == 0) => Block { bytes, session: None },
            None => {
                self.new_bytes += bytes.len() as u64;
                Block { bytes, session: Some(self.session) }
            }
        };
        self.blocks.push(block);
    }

    /// What was taken in.
    pub(super) fn finish(mut self) -> Finished {
        if !self.pending.is_empty() {
            self.cut();
        }
        let Self { blocks, len, new_bytes, unexpected, .. } = self;
        Finished { blocks, len, new_bytes, unexpected }
    }
}
