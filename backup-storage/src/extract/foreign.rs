//! Removing from a target what the backup does not have.

use std::sync::Arc;

use backup_core::entry::{EntryKind, EntryPath};

use super::hands::Hands;
use super::place::Place;
use super::survey::Choice;
use super::tree::Tree;
use crate::error::Result;
use crate::reader::BackupReader;

/// Removes every file below the directories of the order that the backup does not have, and the folders that become empty
/// by it. Returns the number of files and links.
///
/// What the order's selector would not choose is left alone, and so is what is to be kept. Memory grows with the largest
/// folder, not with the target.
pub(super) async fn remove(reader: &BackupReader, choice: &Choice, tree: &Arc<Tree>, hands: &Hands) -> Result<u64> {
    let sweep = Sweep { reader, choice, tree, hands };
    let mut removed = 0;
    for root in 0..tree.places.roots.len() {
        removed += sweep.root(root).await?;
    }
    Ok(removed)
}

struct Sweep<'a> {
    reader: &'a BackupReader,
    choice: &'a Choice,
    tree: &'a Arc<Tree>,
    hands: &'a Hands,
}

/// A folder that is to be looked at, or one that has been and may be empty by now.
enum Step {
    Look(Place),
    Leave(Place),
}

impl Sweep<'_> {
    async fn root(&self, root: usize) -> Result<u64> {
        let mut removed = 0;
        let mut stack = vec![Step::Look(Place { root, below: Vec::new() })];
        while let Some(step) = stack.pop() {
            match step {
                Step::Look(folder) => {
                    let (tree, at) = (Arc::clone(self.tree), folder.clone());
                    let names = self.hands.run(move |_| tree.names(&at)).await?;
                    let mut doomed = Vec::new();
                    // The last one that is pushed is looked at first, so that paths come in their order and parts of
                    // the manifest are read once.
                    for (name, is_folder) in names.into_iter().rev() {
                        let place = folder.inside(&name);
                        let Some(path) = self.considered(&place)? else { continue };
                        if is_folder {
                            if !self.is_known(&path).await? && !self.reader.manifest().has_within(&path).await? {
                                stack.push(Step::Leave(place.clone()));
                            }
                            stack.push(Step::Look(place));
                        } else if self.choice.order.selector.matches(&path) && !self.is_known(&path).await? {
                            doomed.push(place);
                        }
                    }
                    removed += doomed.len() as u64;
                    if !doomed.is_empty() {
                        let tree = Arc::clone(self.tree);
                        self.hands
                            .run(move |stop| {
                                doomed.iter().try_for_each(|place| {
                                    stop.check()?;
                                    tree.unlink(place)
                                })
                            })
                            .await?;
                    }
                }
                Step::Leave(folder) => {
                    if self.considered(&folder)?.is_some_and(|path| self.choice.order.selector.matches(&path)) {
                        let tree = Arc::clone(self.tree);
                        self.hands.run(move |_| tree.remove_empty_folder(&folder)).await?;
                    }
                }
            }
        }
        Ok(removed)
    }

    /// The path in the backup that `place` would have, unless it is to be left alone.
    fn considered(&self, place: &Place) -> Result<Option<EntryPath>> {
        let places = &self.tree.places;
        let folder = &places.roots[place.root].folder;
        let mut path = folder.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&place.below);
        // What stands where a folder was sent away from belongs to the engine: a link, usually.
        if places.roots.iter().any(|root| root.folder == path) {
            return Ok(None);
        }
        // Directories of the order may lie inside of each other.
        let real = places.path(place);
        if places.roots.iter().any(|root| root.dir == real) {
            return Ok(None);
        }
        let below = EntryPath::new(place.below.clone())?;
        if self.choice.order.keep.iter().any(|kept| below.is_within(kept.as_bytes())) {
            return Ok(None);
        }
        Ok(Some(EntryPath::new(path)?))
    }

    async fn is_known(&self, path: &EntryPath) -> Result<bool> {
        let kind = self.reader.manifest().look(path, |entry| entry.meta.kind != EntryKind::Record).await?;
        Ok(kind.unwrap_or(false))
    }
}
