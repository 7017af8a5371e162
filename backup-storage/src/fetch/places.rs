//! Where packs are that were copied into others.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::catalog::{Catalog, PackId, PackMove};

use crate::error::{ErrorKind, Result};
use crate::journal::Journal;

/// What knows where the segments of a pack are.
#[derive(Debug, Clone)]
pub(crate) enum Places {
    /// All packs are where they were written.
    #[cfg(test)]
    Written,
    /// The catalog says it.
    Journal(Arc<Journal<Catalog>>),
    /// This state of the catalog says it.
    State(Arc<Catalog>),
    /// It was read from the copies themselves.
    Found(Arc<BTreeMap<PackId, PackMove>>),
}

impl Places {
    /// Where they are, as far as is known without asking the store.
    pub(crate) fn seen(&self, pack: PackId) -> Option<PackMove> {
        match self {
            #[cfg(test)]
            Self::Written => None,
            Self::Journal(journal) => journal.seen()?.locate(pack),
            Self::State(catalog) => catalog.locate(pack),
            Self::Found(moves) => {
                let mut found = *moves.get(&pack)?;
                for _ in 0..moves.len() {
                    let Some(next) = moves.get(&found.to) else { break };
                    (found.to, found.base) = (next.to, found.base.saturating_add(next.base));
                }
                Some(found)
            }
        }
    }

    /// Where they are as of now.
    ///
    /// # Errors
    /// Those of the store. A catalog that cannot be read says nothing.
    pub(crate) async fn fresh(&self, pack: PackId) -> Result<Option<PackMove>> {
        if let Self::Journal(journal) = self {
            match journal.refresh().await {
                Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
                _ => {}
            }
        }
        Ok(self.seen(pack))
    }

    /// The object and the segment in it that segment `segment` of `pack` is.
    pub(crate) fn of(&self, pack: PackId, segment: u32) -> (PackId, u32) {
        match self.seen(pack) {
            Some(moved) => (moved.to, moved.base.saturating_add(segment)),
            None => (pack, segment),
        }
    }
}
