//! The packs that a manifest refers to, numbered as they are met.

use std::collections::HashMap;

use backup_core::SessionId;
use backup_core::catalog::PackId;
use parking_lot::Mutex;

use super::PackUse;

/// Gives packs their numbers and counts what is used of each. Shared by all workers of a session.
#[derive(Debug, Default)]
pub(crate) struct PackTable {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    index: HashMap<PackId, u32>,
    packs: Vec<PackUse>,
}

impl PackTable {
    /// The number of `id`.
    pub(crate) fn index(&self, id: PackId) -> u32 {
        let mut inner = self.inner.lock();
        let next = u32::try_from(inner.packs.len()).unwrap_or(u32::MAX);
        let index = *inner.index.entry(id).or_insert(next);
        if index == next {
            inner.packs.push(PackUse { pack: id, stored_len: 0, live: 0 });
        }
        index
    }

    /// Notes the length of the object of `id`.
    pub(crate) fn set_len(&self, id: PackId, stored_len: u64) {
        let index = self.index(id) as usize;
        self.inner.lock().packs[index].stored_len = stored_len;
    }

    /// Counts `len` bytes of plaintext as used of the pack with `index`.
    pub(crate) fn add_live(&self, index: u32, len: u64) {
        if let Some(pack) = self.inner.lock().packs.get_mut(index as usize) {
            pack.live += len;
        }
    }

    /// Every pack so far, in the order of their numbers.
    pub(crate) fn snapshot(&self) -> Vec<PackUse> {
        self.inner.lock().packs.clone()
    }

    /// The sessions that packs of the table belong to, besides `own`.
    pub(crate) fn foreign_sessions(&self, own: SessionId) -> Vec<SessionId> {
        let inner = self.inner.lock();
        let mut sessions: Vec<_> =
            inner.packs.iter().filter(|p| p.live > 0).map(|p| p.pack.session).filter(|s| *s != own).collect();
        sessions.sort_unstable();
        sessions.dedup();
        sessions
    }
}
