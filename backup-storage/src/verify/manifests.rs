//! The manifests of backups, and whether what they refer to is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::catalog::{BackupRecord, PackId};
use futures::stream::{self, StreamExt};

use super::findings::{Findings, describe};
use super::packs::Packs;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{PackCache, Places, blocking};
use crate::layout;
use crate::manifest::{BlockMap, Content, Extent, ManifestEntry, total};
use crate::pack::{BLOCK, PackIndex, SEGMENT, Scratch};
use crate::reader::BackupReader;

/// Opens manifests.
#[derive(Debug)]
pub(super) struct Manifests {
    pub(super) context: Arc<Context>,
    pub(super) cache: Arc<PackCache>,
    /// Every pack that a backup needs, and its length where a manifest says it, otherwise 0.
    pub(super) needed: BTreeMap<PackId, u64>,
}

impl Manifests {
    /// Opens the backup of `record`. `None` when it is damaged; then that has been noted.
    async fn open(&self, record: &BackupRecord, findings: &mut Findings) -> Result<Option<BackupReader>> {
        match BackupReader::open(Arc::clone(&self.context), Arc::clone(&self.cache), record.clone()).await {
            Ok(reader) => Ok(Some(reader)),
            Err(error) => {
                let pack = record.manifest.pack;
                let problem = self.judge(error, pack).await?;
                findings.add(layout::pack(pack)?.as_str(), problem, [record.id]);
                Ok(None)
            }
        }
    }

    /// Notes which packs the backup needs. False when its manifest cannot be read.
    pub(super) async fn learn(&mut self, record: &BackupRecord, findings: &mut Findings) -> Result<bool> {
        let Some(reader) = self.open(record, findings).await? else { return Ok(false) };
        for pack in reader.packs().iter().filter(|pack| pack.live > 0) {
            // What a copy is long, its own footer says.
            let (at, len) = match self.cache.places().seen(pack.pack) {
                Some(moved) => (moved.to, 0),
                None => (pack.pack, pack.stored_len),
            };
            let known = self.needed.entry(at).or_insert(len);
            *known = (*known).max(len);
        }
        for (pack, segment) in reader.manifest_segments() {
            self.needed.entry(self.cache.places().of(pack, segment).0).or_insert(0);
        }
        Ok(true)
    }

    /// Reads all parts of the manifest of `record`, and finds out whether anything in `packs` harms the backup.
    pub(super) async fn check(&self, record: &BackupRecord, packs: &Packs, findings: &mut Findings) -> Result<()> {
        let Some(reader) = self.open(record, findings).await? else { return Ok(()) };
        let places = self.cache.places();
        let used = reader.packs().iter().filter(|p| p.live > 0);
        let mut uses: BTreeSet<PackId> = used.map(|p| places.of(p.pack, 0).0).collect();
        for (pack, segment) in reader.manifest_segments() {
            let (pack, segment) = places.of(pack, segment);
            uses.insert(pack);
            if packs.torn.get(&pack).is_some_and(|torn| torn.contains(&segment)) {
                findings.harm(layout::pack(pack)?.as_str(), record.id);
            }
        }
        for pack in packs.lost.keys().filter(|pack| uses.contains(pack)) {
            findings.harm(layout::pack(*pack)?.as_str(), record.id);
        }
        let deep = !packs.are_sound() || !packs.lens.is_empty();
        let (mut entries, mut bytes, mut whole) = (0, 0, true);
        let parts: Vec<_> = reader.manifest().parts().cloned().collect();
        let mut parts = stream::iter(parts)
            .map(|part| async {
                let entries = reader.part(&part).await;
                (part, entries)
            })
            .buffered(self.context.shape.transfers)
            .boxed();
        while let Some((part, read)) = parts.next().await {
            let pack = PackId { session: reader.root().session, number: part.pack };
            let object = layout::pack(pack)?;
            let read = match read {
                Ok(read) => read,
                Err(error) => {
                    let problem = self.judge(error, pack).await?;
                    findings.add(object.as_str(), problem, [record.id]);
                    whole = false;
                    continue;
                }
            };
            for entry in read.iter() {
                entries += 1;
                bytes += entry.len;
                let checked = if deep { self.entry(&reader, entry, packs, findings).await } else { shallow(entry) };
                if let Err(error) = checked {
                    let problem = self.judge(error, pack).await?;
                    findings.add(object.as_str(), format!("entry {}: {problem}", entry.meta.path), [record.id]);
                }
            }
        }
        let root = reader.root();
        if whole && (entries, bytes) != (root.entries, root.data_bytes) {
            let problem = format!(
                "the manifest lists {entries} entries of {bytes} bytes instead of {} of {}",
                root.entries, root.data_bytes
            );
            findings.add(layout::pack(record.manifest.pack)?.as_str(), problem, [record.id]);
        }
        Ok(())
    }

    /// Checks everything that `entry` refers to against what is known of the packs.
    async fn entry(
        &self,
        reader: &BackupReader,
        entry: &ManifestEntry,
        packs: &Packs,
        findings: &mut Findings,
    ) -> Result<()> {
        shallow(entry)?;
        let backup = reader.root().backup;
        let places = self.cache.places();
        let mut sound = true;
        for extent in entry.direct_extents() {
            sound &= extent_is_sound(reader, places, extent, packs, findings)?;
        }
        let Content::Stored(list) = &entry.content else { return Ok(()) };
        if !sound {
            return Ok(());
        }
        match reader.content(entry).await {
            Ok(extents) => {
                for extent in &extents {
                    extent_is_sound(reader, places, extent, packs, findings)?;
                }
                Ok(())
            }
            // The list lies in a pack that was not looked at.
            Err(error) => {
                let Some(pack) = list.first().and_then(Extent::pack_index) else { return Err(error) };
                let pack = reader.pack(pack)?;
                let problem = self.judge(error, pack).await?;
                findings.add(layout::pack(pack)?.as_str(), problem, [backup]);
                Ok(())
            }
        }
    }

    /// What an error says about what is stored in `pack`, unless it says something about the surroundings.
    pub(super) async fn judge(&self, error: Error, pack: PackId) -> Result<String> {
        match error.kind() {
            ErrorKind::Damaged => Ok(describe(error)),
            // A header that names another version or epoch may be a damaged one. A pack that opens as a whole is none.
            ErrorKind::Environment => {
                let pack = self.cache.places().of(pack, 0).0;
                let object = match self.context.store.get(&layout::pack(pack)?).await {
                    Ok(object) => object,
                    Err(e) if e.kind() == ErrorKind::Damaged => return Ok(describe(e)),
                    Err(e) => return Err(e),
                };
                let context = Arc::clone(&self.context);
                let opens = blocking(move || Ok(opens(&context, pack, &object).is_ok())).await?;
                if opens { Err(error) } else { Ok(describe(error)) }
            }
            _ => Err(error),
        }
    }
}

/// Whether every segment of a pack can be read. Blocking.
pub(crate) fn opens(context: &Context, pack: PackId, object: &[u8]) -> Result<()> {
    let index = PackIndex::of_object(&context.keyring, pack, object)?;
    let (mut scratch, mut content) = (Scratch::new()?, Vec::new());
    for (segment, _) in (0..).zip(index.segments()).filter(|(_, info)| !info.is_empty()) {
        let range = index.range(segment)?;
        index.open(segment, &object[range.start as usize..range.end as usize], &mut scratch, &mut content)?;
    }
    Ok(())
}

/// What can be said about an entry without looking anywhere else.
fn shallow(entry: &ManifestEntry) -> Result<()> {
    let wrong = |what: &str, has: u64, needs: u64| {
        Err(Error::damaged(format!("its {what} has {has} bytes where {needs} are needed")))
    };
    if let Content::Inline(extents) = &entry.content
        && total(extents) != entry.len
    {
        return wrong("content", total(extents), entry.len);
    }
    let needs = entry.len.div_ceil(BLOCK as u64) * 16;
    let has = match &entry.blocks {
        BlockMap::Inline { hashes, .. } => hashes.len() as u64,
        BlockMap::Stored { hashes, .. } => total(hashes),
    };
    if has == needs { Ok(()) } else { wrong("block map", has, needs) }
}

/// Whether an extent can be read as far as is known; what harms it is told its backup.
///
/// # Errors
/// Damaged, when it lies outside of the segments of its pack: every segment of a run but the last must be full.
fn extent_is_sound(
    reader: &BackupReader,
    places: &Places,
    extent: &Extent,
    packs: &Packs,
    findings: &mut Findings,
) -> Result<bool> {
    let Some(index) = extent.pack_index() else { return Ok(true) };
    let (pack, base) = places.of(reader.pack(index)?, 0);
    let torn = packs.torn.get(&pack);
    let lens = packs.lens.get(&pack);
    if torn.is_none() && lens.is_none() {
        return Ok(!packs.lost.contains_key(&pack));
    }
    let mut sound = true;
    let mut parts = extent.segments(0).peekable();
    while let Some(part) = parts.next() {
        let segment = base.saturating_add(part.segment);
        if torn.is_some_and(|torn| torn.contains(&segment)) {
            findings.harm(layout::pack(pack)?.as_str(), reader.root().backup);
            sound = false;
        }
        let Some(lens) = lens else { continue };
        let len = lens.get(segment as usize).copied().unwrap_or(0) as usize;
        let needs = if parts.peek().is_some() { SEGMENT } else { part.range.end };
        if len < needs {
            return Err(Error::damaged(format!(
                "it needs {needs} bytes of segment {segment} of pack {pack}, which has {len}"
            )));
        }
    }
    Ok(sound)
}
