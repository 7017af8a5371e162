//! Reading one committed backup.
//!
//! Everything that is handed out was authenticated on its way: the root by the digest in the catalog, parts and content by
//! the packs that hold them. Memory does not grow with the backup: a few parts and segments are kept.

mod content;
mod identity;
mod parts;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::BackupSource;
use backup_core::catalog::{BackupRecord, PackId};
use backup_core::engine::{Extract, Extracted, Footprint, Work};
use backup_core::entry::{ContentIdentity, EntryInfo, EntryPath, Selector};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::fetch::PackCache;
use crate::manifest::{
    Blob, BlockMap, Content, Extent, ManifestEntry, ManifestReader, PackUse, PartRef, Root, decode_packs, decode_parts,
    total,
};
use crate::pack::BlockHash;
use identity::Identities;
use parts::Parts;

/// A committed backup, opened.
pub(crate) struct BackupReader {
    context: Arc<Context>,
    cache: Arc<PackCache>,
    record: BackupRecord,
    root: Root,
    packs: Arc<[PackUse]>,
    parts: Arc<Parts>,
    manifest: ManifestReader,
    identities: OnceCell<Identities>,
}

impl BackupReader {
    /// Opens the backup of `record`.
    ///
    /// # Errors
    /// Damaged, when its manifest is not the one that was committed.
    pub(crate) async fn open(context: Arc<Context>, cache: Arc<PackCache>, record: BackupRecord) -> Result<Self> {
        let named = |e: Error| e.context(format!("the manifest of backup {} cannot be read", record.id));
        let place = &record.manifest;
        let bytes = cache.segment(place.pack, place.segment).await.map_err(named)?;
        if blake3::hash(&bytes) != place.digest {
            return Err(named(Error::damaged("its root is not the one that was committed")));
        }
        let root = Root::decode(&bytes).map_err(named)?;
        if (root.backup, &root.service, root.session) != (record.id, &record.service, record.session) {
            return Err(named(Error::damaged("its root belongs to another backup")));
        }
        Self::of_root(context, cache, record, root).await
    }

    /// The backup that `root` describes, which the caller has found.
    pub(crate) async fn of_root(
        context: Arc<Context>,
        cache: Arc<PackCache>,
        record: BackupRecord,
        root: Root,
    ) -> Result<Self> {
        let named = |e: Error| e.context(format!("the manifest of backup {} cannot be read", record.id));
        let parts = decode_parts(&root_blob(&cache, &root, &root.parts).await.map_err(named)?).map_err(named)?;
        let packs = decode_packs(&root_blob(&cache, &root, &root.packs).await.map_err(named)?).map_err(named)?;
        let source = Arc::new(Parts::new(Arc::clone(&cache), root.session));
        let manifest = ManifestReader::new(parts, Arc::clone(&source) as _).map_err(named)?;
        Ok(Self {
            context,
            cache,
            record,
            root,
            packs: packs.into(),
            parts: source,
            manifest,
            identities: OnceCell::new(),
        })
    }

    /// The packs of the backup, by the numbers that extents use less one.
    pub(crate) fn packs(&self) -> &[PackUse] {
        &self.packs
    }

    /// The same, to be shared.
    pub(crate) fn pack_table(&self) -> Arc<[PackUse]> {
        Arc::clone(&self.packs)
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub(crate) fn cache(&self) -> &Arc<PackCache> {
        &self.cache
    }

    /// The root of the manifest.
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// The list of entries.
    pub(crate) fn manifest(&self) -> &ManifestReader {
        &self.manifest
    }

    /// Every segment that the manifest itself consists of.
    pub(crate) fn manifest_segments(&self) -> impl Iterator<Item = (PackId, u32)> {
        let session = self.root.session;
        let own = move |number| PackId { session, number };
        let root = (self.record.manifest.pack, self.record.manifest.segment);
        let parts = self.manifest.parts().map(move |part| (own(part.pack), part.segment));
        let blobs = [&self.root.parts, &self.root.packs].into_iter().flat_map(|blob| match blob {
            Blob::Inline(_) => &[][..],
            Blob::Stored(extents) => extents,
        });
        let blobs = blobs.flat_map(move |extent| {
            let pack = own(extent.pack_index().unwrap_or(u32::MAX));
            extent.segments(0).map(move |part| (pack, part.segment))
        });
        std::iter::once(root).chain(parts).chain(blobs)
    }

    /// The entry at `path`, with all that the manifest says of it.
    pub(crate) async fn entry_full(&self, path: &EntryPath) -> Result<Option<ManifestEntry>> {
        self.manifest.get(path).await
    }

    /// The entries of `selector` with all that the manifest says of them, sorted by path.
    pub(crate) fn entries_full(&self, selector: Selector) -> BoxStream<'_, Result<ManifestEntry>> {
        self.manifest.entries(selector)
    }

    /// The entries of one part.
    pub(crate) async fn part(&self, part: &PartRef) -> Result<Arc<Vec<ManifestEntry>>> {
        self.parts.read(part).await
    }

    /// Where the content of `entry` is, all of it.
    ///
    /// # Errors
    /// Damaged, when the extents do not add up to the length of the entry.
    pub(crate) async fn content(&self, entry: &ManifestEntry) -> Result<Vec<Extent>> {
        let extents = match &entry.content {
            Content::Inline(extents) => extents.clone(),
            Content::Stored(list) => {
                let bytes = self.stored(list).await?;
                minicbor::decode(&bytes).map_err(|e| {
                    Error::damaged(format!("the list of extents of {} is not readable", entry.meta.path)).with_source(e)
                })?
            }
        };
        if total(&extents) != entry.len {
            return Err(Error::damaged(format!(
                "entry {} has {} bytes, but its extents have {}",
                entry.meta.path,
                entry.len,
                total(&extents)
            )));
        }
        Ok(extents)
    }

    /// The hashes of the blocks of `entry`, under the hash key of the epoch that its block map names.
    ///
    /// # Errors
    /// Damaged, when there are not as many as the entry has blocks.
    pub(crate) async fn block_map(&self, entry: &ManifestEntry) -> Result<Vec<BlockHash>> {
        let stored;
        let bytes = match &entry.blocks {
            BlockMap::Inline { hashes, .. } => hashes,
            BlockMap::Stored { hashes, .. } => {
                stored = self.stored(hashes).await?;
                &stored
            }
        };
        Ok(BlockMap::hashes(bytes, entry.len)?.to_vec())
    }

    /// The bytes of a blob whose extents use the pack table.
    async fn stored(&self, extents: &[Extent]) -> Result<Vec<u8>> {
        blob(&self.cache, extents, |index| self.pack(index)).await
    }

    /// The pack with `index` in the pack table.
    pub(crate) fn pack(&self, index: u32) -> Result<PackId> {
        let pack = self.packs.get(index as usize).map(|pack| pack.pack);
        pack.ok_or_else(|| {
            Error::damaged(format!("the manifest of backup {} has no pack with number {index}", self.record.id))
        })
    }

    /// An entry whose content has this identity.
    ///
    /// The first call reads the whole manifest and keeps 16 bytes for each entry with an identity.
    pub(crate) async fn find_identity(&self, identity: &ContentIdentity) -> Result<Option<ManifestEntry>> {
        let identities = self.identities.get_or_try_init(|| Identities::scan(self)).await?;
        identities.find(self, identity).await
    }

    async fn count(&self, selector: &Selector) -> Result<Footprint> {
        let mut footprint = Footprint::default();
        let mut used = vec![false; self.packs.len()];
        if selector.is_all() {
            footprint.entries = self.root.entries;
            footprint.bytes = self.root.data_bytes;
            used.iter_mut().zip(&*self.packs).for_each(|(used, pack)| *used = pack.live > 0);
        } else {
            let mut entries = self.entries_full(selector.clone());
            while let Some(entry) = entries.try_next().await? {
                footprint.entries += 1;
                footprint.bytes += entry.len;
                let mut mark = |extents: &[Extent]| {
                    for index in extents.iter().filter_map(Extent::pack_index) {
                        if let Some(used) = used.get_mut(index as usize) {
                            *used = true;
                        }
                    }
                };
                match &entry.content {
                    Content::Inline(extents) => mark(extents),
                    Content::Stored(list) => {
                        mark(list);
                        mark(&self.content(&entry).await?);
                    }
                }
            }
        }
        for pack in used.iter().zip(&*self.packs).filter_map(|(used, pack)| used.then_some(pack)) {
            footprint.objects += 1;
            footprint.stored_bytes += pack.stored_len;
        }
        Ok(footprint)
    }
}

/// The bytes of a blob of the root, whose extents use the numbers of its own session's packs.
async fn root_blob(cache: &PackCache, root: &Root, place: &Blob) -> Result<Vec<u8>> {
    match place {
        Blob::Inline(bytes) => Ok(bytes.clone()),
        Blob::Stored(extents) => blob(cache, extents, |number| Ok(PackId { session: root.session, number })).await,
    }
}

/// The bytes of a blob. Grows by what was authenticated, not by what lengths say.
async fn blob(cache: &PackCache, extents: &[Extent], pack: impl Fn(u32) -> Result<PackId>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for extent in extents {
        let index = extent.pack_index().ok_or_else(|| Error::damaged("a part of a manifest is a hole"))?;
        let pack = pack(index)?;
        for part in extent.segments(0) {
            let content = cache.segment_once(pack, part.segment).await?;
            bytes.extend_from_slice(content::part(pack, &content, &part)?);
        }
    }
    Ok(bytes)
}

#[async_trait]
impl BackupSource for BackupReader {
    fn record(&self) -> &BackupRecord {
        &self.record
    }

    fn entries(&self, selector: Selector) -> BoxStream<'_, backup_core::Result<EntryInfo>> {
        self.entries_full(selector)
            .map(|entry| entry.map(|e| EntryInfo::new(e.meta, e.len)).map_err(backup_core::Error::from))
            .boxed()
    }

    async fn entry(&self, path: &EntryPath) -> backup_core::Result<Option<EntryInfo>> {
        Ok(self.entry_full(path).await?.map(|e| EntryInfo::new(e.meta, e.len)))
    }

    fn read(&self, path: &EntryPath, range: Range<u64>) -> BoxStream<'_, backup_core::Result<Bytes>> {
        content::read(self, path.clone(), range).map_err(backup_core::Error::from).boxed()
    }

    async fn footprint(&self, selector: &Selector) -> backup_core::Result<Footprint> {
        Ok(self.count(selector).await?)
    }

    async fn extract(&self, order: Extract, work: &Work) -> backup_core::Result<Extracted> {
        Ok(crate::extract::extract(self, order, work).await?)
    }
}

impl fmt::Debug for BackupReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupReader").field("backup", &self.record.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
