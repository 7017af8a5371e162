//! The parts of a manifest, a few of them kept decoded.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::SessionId;
use backup_core::catalog::PackId;

use crate::error::Result;
use crate::fetch::{PackCache, Shelf, blocking};
use crate::manifest::{ManifestEntry, PartRef, PartSource, decode_part};

/// Plaintext bytes of the parts that are kept; decoded they take about three times as much.
const KEPT: u64 = 8 << 20;

/// Fetches the parts of one manifest.
#[derive(Debug)]
pub(super) struct Parts {
    cache: Arc<PackCache>,
    session: SessionId,
    kept: Shelf<(u32, u32), Arc<Vec<ManifestEntry>>>,
}

impl Parts {
    pub(super) fn new(cache: Arc<PackCache>, session: SessionId) -> Self {
        Self { cache, session, kept: Shelf::new(KEPT) }
    }

    /// The entries of `part`.
    pub(super) async fn read(&self, part: &PartRef) -> Result<Arc<Vec<ManifestEntry>>> {
        self.kept
            .get_or_make((part.pack, part.segment), async || {
                let pack = PackId { session: self.session, number: part.pack };
                let plaintext = self.cache.segment_once(pack, part.segment).await?;
                let (part, weight) = (part.clone(), plaintext.len() as u64);
                let entries = blocking(move || decode_part(&part, &plaintext)).await?;
                Ok((Arc::new(entries), weight))
            })
            .await
    }
}

#[async_trait]
impl PartSource for Parts {
    async fn part(&self, part: &PartRef) -> Result<Arc<Vec<ManifestEntry>>> {
        self.read(part).await
    }
}
