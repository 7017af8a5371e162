//! Looking at an order and its target before anything is touched.
//!
//! Whatever can be refused is refused here.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use backup_core::engine::{Existing, Extract};
use backup_core::entry::{EntryKind, EntryPath};
use futures::stream::TryStreamExt;
use rustix::fs::FileType;

use super::hands::Hands;
use super::place::Place;
use super::tree::Tree;
use crate::error::{Error, Result};
use crate::manifest::ManifestEntry;
use crate::reader::BackupReader;

/// How many places are looked at in one go.
const CHUNK: usize = 4096;

/// Which entries are extracted as what.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) order: Extract,
    except: HashSet<EntryPath>,
    last: HashSet<EntryPath>,
}

impl Choice {
    pub(super) fn new(order: Extract) -> Self {
        let except = order.except.iter().cloned().collect();
        let last = order.last.iter().cloned().collect();
        Self { order, except, last }
    }

    /// Whether the entry is extracted at all.
    pub(super) fn takes(&self, path: &EntryPath, kind: &EntryKind) -> bool {
        *kind != EntryKind::Record && self.order.selector.matches(path) && !self.except.contains(path)
    }

    /// Whether it is written after everything else.
    pub(super) fn is_last(&self, path: &EntryPath) -> bool {
        self.last.contains(path)
    }

    /// Whether the entry is a file that is written with the many.
    pub(super) fn is_early_file(&self, entry: &ManifestEntry) -> bool {
        let meta = &entry.meta;
        meta.kind == EntryKind::File && self.takes(&meta.path, &meta.kind) && !self.is_last(&meta.path)
    }

    pub(super) fn is_delta(&self) -> bool {
        self.order.existing == Existing::Delta
    }
}

/// What will be in the target besides files, and how much that is.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Folders of the backup with their modes.
    pub(super) folders: BTreeMap<Place, u32>,
    /// Folders that are needed, whether the backup names them or not.
    pub(super) needed: BTreeSet<Place>,
    pub(super) links: Vec<(Place, Vec<u8>)>,
    /// Files to be written after everything else.
    pub(super) last: Vec<ManifestEntry>,
    /// Entries that are extracted.
    pub(super) entries: u64,
    /// Bytes of their content.
    pub(super) bytes: u64,
}

impl Survey {
    /// Reads the whole manifest once.
    ///
    /// # Errors
    /// InvalidInput, when the order cannot be carried out as it stands. Damaged, when the entries cannot be those of a
    /// tree of folders.
    pub(super) async fn take(reader: &BackupReader, choice: &Choice, tree: &Arc<Tree>, hands: &Hands) -> Result<Self> {
        let mut survey = Self::default();
        let empty = Arc::clone(tree);
        let check = !choice.is_delta() && !hands.run(move |_| empty.is_empty()).await?;
        let mut unchecked = Vec::new();
        // Folders above entries by their paths in the backup, and whether they are listed as folders.
        let mut above: BTreeMap<EntryPath, bool> = BTreeMap::new();
        let mut entries = reader.entries_full(choice.order.selector.clone());
        while let Some(entry) = entries.try_next().await? {
            let meta = &entry.meta;
            if !choice.takes(&meta.path, &meta.kind) {
                continue;
            }
            survey.add(choice, tree, &entry, &mut above)?;
            if check {
                unchecked.push((tree.places.locate(&meta.path), meta.kind == EntryKind::Directory));
            }
            if unchecked.len() >= CHUNK {
                refuse(tree, hands, std::mem::take(&mut unchecked)).await?;
            }
        }
        drop(entries);
        refuse(tree, hands, unchecked).await?;
        for (folder, listed) in above {
            if listed {
                continue;
            }
            let kind = reader.manifest().look(&folder, |entry| entry.meta.kind.clone()).await?;
            if kind.is_some_and(|kind| kind != EntryKind::Directory && choice.takes(&folder, &kind)) {
                return Err(Error::damaged(format!(
                    "backup {} has entries below {folder}, which is no folder",
                    reader.root().backup
                )));
            }
        }
        Ok(survey)
    }

    fn add(
        &mut self,
        choice: &Choice,
        tree: &Tree,
        entry: &ManifestEntry,
        above: &mut BTreeMap<EntryPath, bool>,
    ) -> Result<()> {
        let path = &entry.meta.path;
        let place = tree.places.locate(path);
        self.entries += 1;
        let mut folder = path.parent();
        while let Some(at) = folder {
            if above.contains_key(&at) {
                break;
            }
            folder = at.parent();
            above.insert(at, false);
        }
        let refused = match &entry.meta.kind {
            EntryKind::Directory => {
                above.insert(path.clone(), true);
                self.folders.insert(place.clone(), entry.meta.mode);
                self.needed.insert(place);
                return Ok(());
            }
            _ if place.is_root() => "goes to a directory of its own but is no folder",
            _ if tree.places.is_foreign(&place) => "goes into a directory that another folder goes to",
            EntryKind::Symlink { target } if !place.may_link_to(target) => {
                return Err(Error::invalid(format!(
                    "symbolic link {path} to {} would lead out of the target directory",
                    target.escape_ascii()
                )));
            }
            EntryKind::Symlink { target } => {
                self.need_above(&place);
                self.links.push((place, target.clone()));
                return Ok(());
            }
            _ => {
                self.bytes += entry.len;
                self.need_above(&place);
                if choice.is_last(path) {
                    self.last.push(entry.clone());
                }
                return Ok(());
            }
        };
        Err(Error::invalid(format!("entry {path} {refused}")))
    }

    fn need_above(&mut self, place: &Place) {
        if let Some(folder) = place.folder()
            && !folder.is_root()
            && !self.needed.contains(&folder)
        {
            self.needed.insert(folder);
        }
    }
}

/// Refuses what exists.
async fn refuse(tree: &Arc<Tree>, hands: &Hands, places: Vec<(Place, bool)>) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    let tree = Arc::clone(tree);
    hands
        .run(move |stop| {
            for (place, folder) in &places {
                stop.check()?;
                if let Some(obstacle) = tree.obstacle(place)? {
                    return Err(tree.occupied(&obstacle));
                }
                let stands = tree.stat(place)?.map(|facts| FileType::from_raw_mode(facts.st_mode));
                if stands.is_some_and(|kind| !(*folder && kind.is_dir())) {
                    return Err(tree.occupied(place));
                }
            }
            Ok(())
        })
        .await
}
