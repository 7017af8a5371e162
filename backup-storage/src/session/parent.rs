//! The parent of a session: stored content that need not be stored again.

use std::sync::Arc;

use backup_core::catalog::BackupRecord;
use backup_core::engine::{BackupSource, Unchanged};
use backup_core::entry::{ContentIdentity, EntryMeta, EntryPath};
use backup_crypto::EpochId;
use jiff::{SignedDuration, Timestamp};

use crate::error::Result;
use crate::keyring::DEPOSITS;
use crate::manifest::{BlockMap, Content, Extent, ManifestEntry, PackTable};
use crate::pipeline::Shared;
use crate::pipeline::parent::{ParentContent, UNKNOWN};
use crate::reader::BackupReader;

/// Time stamps of files are coarse, and clocks are set: what was changed this shortly before the parent began might have
/// changed again without a new time stamp.
const MARGIN: SignedDuration = SignedDuration::from_secs(2);

/// The parent backup, as a session uses it.
#[derive(Debug)]
pub(crate) struct Parent {
    reader: Arc<BackupReader>,
}

impl Parent {
    pub(crate) fn new(reader: Arc<BackupReader>) -> Self {
        Self { reader }
    }

    pub(crate) fn record(&self) -> &BackupRecord {
        BackupSource::record(&*self.reader)
    }

    /// For whoever wants to read it.
    pub(crate) fn source(&self) -> Arc<dyn BackupSource> {
        Arc::clone(&self.reader) as _
    }

    /// The entry at `path`.
    pub(crate) async fn entry(&self, path: &EntryPath) -> Result<Option<ManifestEntry>> {
        self.reader.entry_full(path).await
    }

    /// An entry with this identity.
    pub(crate) async fn find(&self, identity: &ContentIdentity) -> Result<Option<ManifestEntry>> {
        self.reader.find_identity(identity).await
    }

    /// Whether a file of this length and time need not be read.
    pub(crate) fn is_unchanged(
        &self,
        entry: &ManifestEntry,
        rule: &Unchanged,
        len: u64,
        modified: Option<Timestamp>,
    ) -> bool {
        match (rule, modified, entry.meta.modified) {
            (Unchanged::BySizeAndTime, Some(now), Some(then)) => {
                let record = self.record();
                let began = record.started_at.min(record.snapshot.started_at);
                len == entry.len && now == then && then.saturating_add(MARGIN).is_ok_and(|limit| limit < began)
            }
            _ => false,
        }
    }

    /// What changed blocks of an entry are compared with.
    pub(crate) async fn content(&self, entry: &ManifestEntry, shared: &Shared) -> Result<ParentContent> {
        let extents = self.reader.content(entry).await?;
        let hashes = self.reader.block_map(entry).await?;
        let epoch = EpochId(entry.blocks.epoch());
        if epoch == DEPOSITS && epoch != shared.epoch {
            // Hashes of one of the hosts that only write, and the map does not say of which.
            let unknown = vec![UNKNOWN; hashes.len()];
            return Ok(ParentContent::new(entry.len, self.adopt(&shared.table, extents), unknown, None));
        }
        let key = if epoch == shared.epoch { None } else { Some(shared.context.keyring.hash_key(epoch)?) };
        Ok(ParentContent::new(entry.len, self.adopt(&shared.table, extents), hashes, key))
    }

    /// The parent's entry as an entry of the new backup, under `meta`.
    pub(crate) async fn whole(&self, entry: &ManifestEntry, meta: EntryMeta, shared: &Shared) -> Result<ManifestEntry> {
        let content = match &entry.content {
            Content::Inline(extents) => Content::Inline(self.adopt(&shared.table, extents.clone())),
            // The list names packs by their numbers in the parent's table, so it cannot be shared.
            Content::Stored(_) => Content::Inline(self.adopt(&shared.table, self.reader.content(entry).await?)),
        };
        let blocks = match &entry.blocks {
            BlockMap::Stored { epoch, hashes } => {
                BlockMap::Stored { epoch: *epoch, hashes: self.adopt(&shared.table, hashes.clone()) }
            }
            inline @ BlockMap::Inline { .. } => inline.clone(),
        };
        let whole = ManifestEntry { meta, len: entry.len, content, blocks };
        for extent in whole.direct_extents() {
            shared.count_live(std::slice::from_ref(extent));
        }
        Ok(whole)
    }

    /// The same extents in terms of `table`.
    fn adopt(&self, table: &PackTable, mut extents: Vec<Extent>) -> Vec<Extent> {
        let packs = self.reader.packs();
        for extent in &mut extents {
            if let Some(pack) = extent.pack_index().and_then(|index| packs.get(index as usize)) {
                let index = table.index(pack.pack);
                table.set_len(pack.pack, pack.stored_len);
                *extent = extent.moved_to(index);
            }
        }
        extents
    }
}
