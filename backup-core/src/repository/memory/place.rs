//! Where entries go: the rule that nothing is ever written outside of the directories of an order.

use std::fs::{self, FileType};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::engine::Extract;
use crate::entry::EntryPath;
use crate::error::{Error, Result};

/// One directory of an order and the folder of the backup that goes there; the empty folder is the whole backup.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) folder: Vec<u8>,
    /// Without symbolic links.
    pub(super) dir: PathBuf,
}

/// The directories of an order.
#[derive(Debug)]
pub(super) struct Places {
    /// Longest folder first, so that the first match is the right one.
    pub(super) roots: Vec<Root>,
}

/// A path in the target: a directory of the order and a relative path without `..`; empty for the directory itself.
#[derive(Debug)]
pub(super) struct Place<'a> {
    dir: &'a Path,
    below: PathBuf,
}

impl Places {
    pub(super) fn new(order: &Extract) -> Result<Self> {
        order.check()?;
        let whole = order.folder.as_ref().map_or_else(Vec::new, |folder| folder.as_bytes().to_vec());
        let mut roots = vec![Root { folder: whole, dir: existing(&order.root)? }];
        for (folder, dir) in &order.elsewhere {
            roots.push(Root { folder: folder.as_bytes().to_vec(), dir: existing(dir)? });
        }
        roots.sort_by_key(|r| std::cmp::Reverse(r.folder.len()));
        Ok(Self { roots })
    }

    pub(super) fn locate(&self, path: &EntryPath) -> Place<'_> {
        let root = self.roots.iter().find(|r| path.is_within(&r.folder));
        let root = root.expect("an order reaches nowhere beyond its own folder");
        let below = &path.as_bytes()[root.folder.len()..];
        let below = below.strip_prefix(b"/").unwrap_or(below);
        Place { dir: &root.dir, below: Path::new(std::ffi::OsStr::from_bytes(below)).to_owned() }
    }
}

fn existing(dir: &Path) -> Result<PathBuf> {
    let real = dir.canonicalize().map_err(|e| Error::io(dir.display(), e))?;
    if !real.is_dir() {
        return Err(Error::environment(format!("{} is not a directory", dir.display())));
    }
    Ok(real)
}

impl Place<'_> {
    pub(super) fn path(&self) -> PathBuf {
        // Joining an empty path would add a trailing slash, through which a symbolic link is followed.
        if self.below.as_os_str().is_empty() { self.dir.to_owned() } else { self.dir.join(&self.below) }
    }

    /// The directory of the order that it lies in.
    pub(super) fn dir(&self) -> &Path {
        self.dir
    }

    /// Whether this is a directory of the order itself.
    pub(super) fn is_root(&self) -> bool {
        self.below.as_os_str().is_empty()
    }

    /// What stands here, not following a link; nothing when one of the folders above is missing or not a folder.
    pub(super) fn what(&self) -> Result<Option<FileType>> {
        if self.obstacle()?.is_some() { Ok(None) } else { what(&self.path()) }
    }

    /// The topmost thing above this place that is in the way because it is no real folder.
    pub(super) fn obstacle(&self) -> Result<Option<PathBuf>> {
        let mut path = self.dir.to_owned();
        let Some(parent) = self.below.parent() else { return Ok(None) };
        for component in parent.components() {
            path.push(component);
            match what(&path)? {
                None => return Ok(None),
                Some(kind) if kind.is_dir() => {}
                Some(_) => return Ok(Some(path)),
            }
        }
        Ok(None)
    }

    /// Whether a symbolic link here to `target` resolves inside of the directory.
    ///
    /// `..` is allowed only in front: the folders above an extracted link are real, so each step up is one level, but a step
    /// up behind a name could start from wherever another link leads.
    pub(super) fn may_link_to(&self, target: &[u8]) -> bool {
        let depth = self.below.components().count().saturating_sub(1);
        let (mut ups, mut names) = (0, 0);
        for component in Path::new(std::ffi::OsStr::from_bytes(target)).components() {
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

/// What stands at `path`, not following a link.
pub(super) fn what(path: &Path) -> Result<Option<FileType>> {
    match fs::symlink_metadata(path) {
        Ok(facts) => Ok(Some(facts.file_type())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::io(path.display(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(below: &str) -> Place<'static> {
        Place { dir: Path::new("/target"), below: below.into() }
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
            assert_eq!(place(at).may_link_to(to.as_bytes()), inside, "{at} -> {to}");
        }
    }
}
