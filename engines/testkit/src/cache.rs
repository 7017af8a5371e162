//! The cache: everything that was provisioned once, shared by all test processes of this machine.
//!
//! The rule of this module: a name in the cache is either absent or complete. What is being made lies in
//! `partial/<name>` under an exclusive file lock and is renamed into place as the last step; the lock belongs to the
//! open file, so the operating system releases it when its holder dies, and the next one starts by removing the
//! leftovers. After the first time nothing here needs the network.
//!
//! Where it is, in this order: `BACKUP_TESTKIT_CACHE`; as root `/var/cache/backup-testkit` (the servers run as an
//! unprivileged account, which usually may not look into root's home); otherwise `$XDG_CACHE_HOME/backup-testkit` or
//! `~/.cache/backup-testkit`.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::identity::unprivileged;

/// A directory of provisioned servers and prepared templates.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache of this machine and user; creates the directory.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no directory can be made or the servers' account could not read it.
    pub fn open() -> Result<Self> {
        Self::at(default_root()?)
    }

    /// A cache in a directory of the caller's choice; creates it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the directory can't be made or the servers' account could not read it.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        for dir in [root.clone(), root.join("locks"), root.join("partial")] {
            create_readable(&dir).map_err(|source| {
                Error::unavailable_because(
                    "the testkit's cache",
                    format!("{} cannot be created; set BACKUP_TESTKIT_CACHE", dir.display()),
                    source,
                )
            })?;
        }
        if let Some(blocked) = unprivileged().blocked_at(&root) {
            return Err(Error::unavailable(
                "the testkit's cache",
                format!(
                    "servers run as uid {}, which may not enter {}; set BACKUP_TESTKIT_CACHE to a directory that it can",
                    unprivileged().uid,
                    blocked.display()
                ),
            ));
        }
        let root = root.canonicalize().map_err(Error::io("resolve", &root))?;
        Ok(Self { root })
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of `name`, made by `make` if it is not there.
    ///
    /// `make` gets an empty directory that it fills; it becomes `name` when `make` succeeds. Concurrent calls, in this
    /// process or in others, run `make` once. `name` may contain `/`. Blocks: call it from a blocking thread.
    ///
    /// # Errors
    /// Those of `make`, and [`Error::Io`].
    pub fn provide(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let place = self.root.join(name);
        if place.exists() {
            return Ok(place);
        }
        let flat = name.replace('/', "+");
        let lock = self.root.join("locks").join(&flat);
        let lock_file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock)
            .map_err(Error::io("open lock", &lock))?;
        lock_file.lock().map_err(Error::io("lock", &lock))?;
        if place.exists() {
            return Ok(place);
        }
        let partial = self.root.join("partial").join(&flat);
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(Error::io("remove", &partial))?;
        }
        create_readable(&partial).map_err(Error::io("create", &partial))?;
        make(&partial)?;
        if let Some(parent) = place.parent() {
            create_readable(parent).map_err(Error::io("create", parent))?;
        }
        fs::rename(&partial, &place).map_err(Error::io("rename into", &place))?;
        Ok(place)
    }
}

fn default_root() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("BACKUP_TESTKIT_CACHE") {
        return std::path::absolute(&dir).map_err(Error::io("resolve", &dir));
    }
    if unprivileged().drops_root() {
        return Ok(PathBuf::from("/var/cache/backup-testkit"));
    }
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|dir| dir.join("backup-testkit"))
        .ok_or_else(|| Error::unavailable("the testkit's cache", "neither HOME nor BACKUP_TESTKIT_CACHE is set"))
}

/// Creates a directory and those above it that are missing, each open to everyone whatever the caller's umask: the
/// servers' account must be able to read what root installed.
fn create_readable(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_readable(parent)?;
    }
    match fs::create_dir(dir) {
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(0o755)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lets everyone read a tree of programs, and run what its owner may run, whatever umask it was unpacked under.
pub(crate) fn make_readable(path: &Path) -> Result<()> {
    let meta = path.symlink_metadata().map_err(Error::io("stat", path))?;
    if meta.is_symlink() {
        return Ok(());
    }
    let mode = meta.permissions().mode();
    let run = if meta.is_dir() || mode & 0o100 != 0 { 0o111 } else { 0 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o444 | run)).map_err(Error::io("chmod", path))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
            make_readable(&entry.map_err(Error::io("list", path))?.path())?;
        }
    }
    Ok(())
}

/// Copies a tree with its permissions and gives every copied file to `owner`. Symbolic links are copied as links;
/// sockets are left out, and so is what vanishes while it is being copied. `skip` gets paths relative to `from`.
///
/// File contents are copied by the kernel, so on file systems that can share blocks this costs next to nothing.
pub(crate) fn copy_tree(
    from: &Path,
    to: &Path,
    owner: crate::identity::Identity,
    skip: &dyn Fn(&Path) -> bool,
) -> Result<()> {
    copy_level(from, to, Path::new(""), owner, skip)
}

fn copy_level(
    from: &Path,
    to: &Path,
    below: &Path,
    owner: crate::identity::Identity,
    skip: &dyn Fn(&Path) -> bool,
) -> Result<()> {
    let (source, target) = (from.join(below), to.join(below));
    if !target.exists() {
        fs::create_dir(&target).map_err(Error::io("create", &target))?;
    }
    let mode = source.metadata().map_err(Error::io("stat", &source))?.permissions();
    fs::set_permissions(&target, mode).map_err(Error::io("chmod", &target))?;
    owner.own(&target)?;
    for entry in fs::read_dir(&source).map_err(Error::io("list", &source))? {
        let entry = entry.map_err(Error::io("list", &source))?;
        let inner = below.join(entry.file_name());
        if skip(&inner) {
            continue;
        }
        let (path, copy) = (entry.path(), to.join(&inner));
        let kind = entry.file_type().map_err(Error::io("stat", &path))?;
        if kind.is_dir() {
            copy_level(from, to, &inner, owner, skip)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&path).map_err(Error::io("read link", &path))?;
            std::os::unix::fs::symlink(link, &copy).map_err(Error::io("link", &copy))?;
        } else if kind.is_file() {
            match fs::copy(&path, &copy) {
                Ok(_) => owner.own(&copy)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("copy", &path)(error)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn scratch() -> tempfile::TempDir {
        // Whatever the umask: the cache must be readable by the servers' account.
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    #[test]
    fn a_name_is_made_once_by_many_threads() {
        let dir = scratch();
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let cache = Cache::at(dir.path()).unwrap();
                    let place = cache
                        .provide("thing/1", |partial| {
                            made.fetch_add(1, Ordering::SeqCst);
                            fs::write(partial.join("file"), "whole").unwrap();
                            Ok(())
                        })
                        .unwrap();
                    assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "whole");
                });
            }
        });
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failed_make_leaves_nothing_and_is_tried_again() {
        let dir = scratch();
        let cache = Cache::at(dir.path()).unwrap();
        let failed = cache.provide("thing", |partial| {
            fs::write(partial.join("half"), "half").unwrap();
            Err(Error::unavailable("thing", "no network"))
        });
        assert!(failed.unwrap_err().is_unavailable());
        assert!(!dir.path().join("thing").exists());
        let place = cache.provide("thing", |partial| {
            assert_eq!(fs::read_dir(partial).unwrap().count(), 0);
            Ok(())
        });
        assert!(place.unwrap().is_dir());
    }

    #[test]
    fn a_cache_that_the_servers_cannot_read_is_refused() {
        if !unprivileged().drops_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let error = Cache::at(dir.path().join("inside")).unwrap_err();
        assert!(error.to_string().contains("BACKUP_TESTKIT_CACHE"), "{error}");
    }
}
