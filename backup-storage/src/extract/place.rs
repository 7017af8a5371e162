//! Where entries go: which directory of the order, and what below it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use backup_core::engine::Extract;
use backup_core::entry::EntryPath;

use crate::error::{Error, Result};

/// One directory of an order, and the folder of the backup that goes there.
#[derive(Debug)]
pub(super) struct Root {
    /// The folder; empty for the whole backup.
    pub(super) folder: Vec<u8>,
    /// The directory, without symbolic links.
    pub(super) dir: PathBuf,
}

/// The directories of an order, those of the longest folders first. Blocking.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) roots: Vec<Root>,
}

/// A place in a target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// Number of the directory of the order.
    pub(super) root: usize,
    /// The path below it, made as an [`EntryPath`] is; empty for the directory itself.
    pub(super) below: Vec<u8>,
}

impl Places {
    /// The directories of `order`, which must exist and differ.
    pub(super) fn new(order: &Extract) -> Result<Self> {
        order.check()?;
        let whole = order.folder.as_ref().map_or_else(Vec::new, |folder| folder.as_bytes().to_vec());
        let mut roots = vec![Root { folder: whole, dir: existing(&order.root)? }];
        for (folder, dir) in &order.elsewhere {
            let root = Root { folder: folder.as_bytes().to_vec(), dir: existing(dir)? };
            if roots.iter().any(|other| other.dir == root.dir || other.folder == root.folder) {
                let dir = root.dir.display();
                return Err(Error::invalid(format!("{dir} or what goes there is named twice in the order")));
            }
            roots.push(root);
        }
        roots.sort_by_key(|root| std::cmp::Reverse(root.folder.len()));
        Ok(Self { roots })
    }

    /// Where the entry at `path` goes.
    pub(super) fn locate(&self, path: &EntryPath) -> Place {
        // The empty folder comes last and takes everything.
        let root = self.roots.iter().position(|root| path.is_within(&root.folder)).unwrap_or(0);
        let below = &path.as_bytes()[self.roots[root].folder.len()..];
        Place { root, below: below.strip_prefix(b"/").unwrap_or(below).to_vec() }
    }

    /// The path of `place` in the file system, for messages and comparison only.
    pub(super) fn path(&self, place: &Place) -> PathBuf {
        let dir = &self.roots[place.root].dir;
        if place.is_root() { dir.clone() } else { dir.join(OsStr::from_bytes(&place.below)) }
    }

    /// Whether `place` lies at or in a directory of the order that is not its own: two folders would be mixed there.
    pub(super) fn is_foreign(&self, place: &Place) -> bool {
        let own = &self.roots[place.root].dir;
        let inner = self.roots.iter().filter(|root| root.dir != *own && root.dir.starts_with(own));
        let mut path = None;
        inner.into_iter().any(|root| path.get_or_insert_with(|| self.path(place)).starts_with(&root.dir))
    }
}

fn existing(dir: &Path) -> Result<PathBuf> {
    let real = dir
        .canonicalize()
        .map_err(|e| Error::environment(format!("directory {}: {e}", dir.display())).with_source(e))?;
    if !real.is_dir() {
        return Err(Error::environment(format!("{} is not a directory", dir.display())));
    }
    Ok(real)
}

impl Place {
    /// Whether this is a directory of the order itself.
    pub(super) fn is_root(&self) -> bool {
        self.below.is_empty()
    }

    /// The folder that it lies in. A directory of the order has none.
    pub(super) fn folder(&self) -> Option<Self> {
        let below = match self.below.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => self.below[..slash].to_vec(),
            None if self.is_root() => return None,
            None => Vec::new(),
        };
        Some(Self { root: self.root, below })
    }

    /// Its last component; empty for a directory of the order.
    pub(super) fn name(&self) -> &[u8] {
        self.below.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// Whether a symbolic link here to `target` resolves inside of the directory, whatever other links there are.
    ///
    /// `..` is allowed only in front: the folders above an extracted link are real, so each step up is one level, but a
    /// step up behind a name could start from wherever another link leads.
    pub(super) fn may_link_to(&self, target: &[u8]) -> bool {
        let depth = self.below.iter().filter(|byte| **byte == b'/').count();
        let (mut ups, mut names) = (0, 0);
        for component in Path::new(OsStr::from_bytes(target)).components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir if names == 0 => ups += 1,
                Component::Normal(_) => names += 1,
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
            }
        }
        !target.is_empty() && !target.contains(&0) && ups <= depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folders: &[(&str, &str)]) -> Places {
        let mut roots: Vec<_> =
            folders.iter().map(|(f, d)| Root { folder: f.as_bytes().to_vec(), dir: d.into() }).collect();
        roots.sort_by_key(|root| std::cmp::Reverse(root.folder.len()));
        Places { roots }
    }

    #[test]
    fn the_longest_folder_wins() {
        let places = places(&[("", "/data"), ("spaces/7", "/space"), ("spaces/7/inner", "/inner")]);
        for (path, place) in [
            ("base/1", "/data/base/1"),
            ("spaces/7", "/space"),
            ("spaces/77", "/data/spaces/77"),
            ("spaces/7/x/y", "/space/x/y"),
            ("spaces/7/inner/x", "/inner/x"),
        ] {
            let located = places.locate(&EntryPath::new(path).unwrap());
            assert_eq!(places.path(&located), Path::new(place), "{path}");
        }
    }

    #[test]
    fn directories_of_an_order_are_not_mixed() {
        let places = places(&[("", "/data"), ("spaces/7", "/data/inner")]);
        for (path, foreign) in [("base", false), ("inner", true), ("inner/x", true), ("spaces/7/x", false)] {
            assert_eq!(places.is_foreign(&places.locate(&EntryPath::new(path).unwrap())), foreign, "{path}");
        }
    }

    #[test]
    fn links_stay_inside_whatever_other_links_there_are() {
        for (at, to, inside) in [
            ("a/l", "b", true),
            ("a/l", "../b/c", true),
            ("a/l", "../../b", false),
            ("a/l", "b/../c", false),
            ("l", "..", false),
            ("a/b/l", "../..", true),
            ("l", "/etc/passwd", false),
            ("l", "", false),
        ] {
            let place = Place { root: 0, below: at.as_bytes().to_vec() };
            assert_eq!(place.may_link_to(to.as_bytes()), inside, "{at} -> {to}");
        }
    }
}
