//! How content is kept: in blocks that backups share.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::engine::BlockInspector;
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
}

impl<'a> Blocks<'a> {
    pub(super) fn new(
        session: SessionId,
        parent: Option<&'a StoredEntry>,
        inspector: Option<&'a dyn BlockInspector>,
    ) -> Self {
        Self { session, parent, inspector, pending: BytesMut::new(), len: 0, new_bytes: 0, blocks: Vec::new() }
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
        let twin = self.parent.and_then(|p| p.blocks.get(self.blocks.len())).filter(|b| b.bytes == bytes);
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

    /// The blocks, their length and how many bytes of them are new.
    pub(super) fn finish(mut self) -> (Vec<Block>, u64, u64) {
        if !self.pending.is_empty() {
            self.cut();
        }
        (self.blocks, self.len, self.new_bytes)
    }
}
