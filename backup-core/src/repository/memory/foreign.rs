//! Removes from a target what the backup does not have.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::content::Manifest;
use super::place::{Places, Root, what};
use crate::engine::Extract;
use crate::entry::{EntryKind, EntryPath};
use crate::error::{Error, Result};

/// Removes every file below the extracted folders that the backup does not have, and the folders that become empty by it.
/// The number of files.
///
/// A path of the target is looked at when the order's selector would choose it. Never follows a link.
pub(super) fn remove(manifest: &Manifest, order: &Extract, places: &Places) -> Result<u64> {
    let mut above = BTreeSet::new();
    for entry in manifest.values().filter(|e| e.info.meta.kind != EntryKind::Record) {
        let mut folder = entry.info.meta.path.parent();
        while let Some(path) = folder {
            folder = path.parent();
            above.insert(path);
        }
    }
    let mut sweep = Sweep { manifest, order, places, above, removed: 0 };
    for root in &places.roots {
        sweep.folder(root, &root.dir)?;
    }
    Ok(sweep.removed)
}

struct Sweep<'a> {
    manifest: &'a Manifest,
    order: &'a Extract,
    places: &'a Places,
    /// Every folder above an entry, whether it is an entry itself or not.
    above: BTreeSet<EntryPath>,
    removed: u64,
}

impl Sweep<'_> {
    fn folder(&mut self, root: &Root, dir: &Path) -> Result<()> {
        let named = |e: std::io::Error| Error::io(dir.display(), e);
        let mut names: Vec<PathBuf> =
            fs::read_dir(dir).map_err(named)?.map(|i| i.map(|i| i.path())).collect::<Result<_, _>>().map_err(named)?;
        names.sort();
        names.into_iter().try_for_each(|path| self.item(root, &path))
    }

    fn item(&mut self, root: &Root, path: &Path) -> Result<()> {
        let below = EntryPath::relative(&root.dir, path)?;
        let mut full = root.folder.clone();
        if !full.is_empty() {
            full.push(b'/');
        }
        full.extend_from_slice(below.as_bytes());
        let full = EntryPath::new(full)?;
        let kept = self.order.keep.iter().any(|k| below.is_within(k.as_bytes()));
        // What stands where a folder was sent away from belongs to the engine: a link, usually.
        let mount = self.places.roots.iter().any(|r| r.folder == full.as_bytes());
        // Directories of the order may lie inside of each other.
        let own = self.places.roots.iter().any(|r| r.dir == path);
        if kept || mount || own {
            return Ok(());
        }
        let Some(kind) = what(path)? else { return Ok(()) };
        let known = self.manifest.get(&full).is_some_and(|e| e.info.meta.kind != EntryKind::Record);
        if kind.is_dir() {
            self.folder(root, path)?;
            let foreign = !known && !self.above.contains(&full) && self.order.selector.matches(&full);
            if foreign && fs::read_dir(path).is_ok_and(|mut items| items.next().is_none()) {
                fs::remove_dir(path).map_err(|e| Error::io(path.display(), e))?;
            }
        } else if !known && self.order.selector.matches(&full) {
            fs::remove_file(path).map_err(|e| Error::io(path.display(), e))?;
            self.removed += 1;
        }
        Ok(())
    }
}
