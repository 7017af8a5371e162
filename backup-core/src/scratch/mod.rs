//! A place on this host where a drill may restore a backup and start a server, and that is as it was afterwards.
//!
//! The rules:
//!
//! - Everything lies in one directory of the drill's own, below a root that the caller names. The root is locked for as long as the drill lasts, so
//!   of those that use one root only one works at a time, and whatever else bears the name and the mark of a drill was left by one that died.
//! - A server is written down before it is one: by process id, start time and boot. Whoever finds a drill that died ends exactly that process, or
//!   nothing when the id belongs to another one by now.
//! - What was written down belongs to the account of the drill, not to that of the server: a server cannot have others ended.
//! - Nothing but directories with that name and that mark is ever removed.

mod account;
mod left;
mod process;

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

pub use account::Account;
pub use process::{ServerCommand, ServerProcess};

use crate::env::Env;
use crate::error::{Error, Result};
use crate::id::DrillId;

/// The name of a drill's directory, before its id.
const PREFIX: &str = "drill-";
/// The file that says that a directory is a drill's, with its id inside.
const MARK: &str = "backup-drill";
/// Files that describe a server begin like this.
const SERVER: &str = "server-";

/// Where drills may work. Data, not components.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScratchRoot {
    /// The directory. Made if it does not exist.
    pub dir: PathBuf,
    /// The account that servers run as, when this process is root's. Without one they run as this process does.
    pub account: Option<Account>,
}

impl ScratchRoot {
    /// A root whose servers run as this process does.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), account: None }
    }

    /// Sets as whom servers run. Means nothing when this process is not root's.
    #[must_use]
    pub fn run_as(mut self, account: Option<Account>) -> Self {
        self.account = account.filter(|_| rustix::process::geteuid().is_root());
        self
    }

    /// Removes what drills that died have left, and ends their servers. Returns the drills whose traces were removed; none while another drill
    /// works below this root.
    ///
    /// # Errors
    /// [`Environment`](crate::ErrorKind::Environment) when something of it cannot be removed.
    pub async fn clear(&self, env: &Env) -> Result<Vec<DrillId>> {
        match fs::symlink_metadata(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            _ => {}
        }
        match self.lock() {
            Ok(lock) => left::clear(&self.dir, &lock, env).await,
            Err(error) if error.kind() == crate::ErrorKind::Conflict => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Makes the directory of a drill, after what others have left was removed.
    ///
    /// # Cancel safety
    /// When dropped, the directory was not made, or the next drill removes it.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) while another drill works below this root;
    /// [`Environment`](crate::ErrorKind::Environment) when nothing can be made there.
    pub async fn make(&self, drill: DrillId, env: &Env) -> Result<Scratch> {
        if !self.dir.is_absolute() {
            return Err(Error::invalid(format!("scratch directory {} is not an absolute path", self.dir.display())));
        }
        at(&self.dir, fs::create_dir_all(&self.dir))?;
        let lock = self.lock()?;
        left::clear(&self.dir, &lock, env).await?;
        // Servers of another account have to pass through, but may change nothing of what is written down here.
        let dir = self.dir.join(format!("{PREFIX}{drill}"));
        let mode = if self.account.is_some() { 0o711 } else { 0o700 };
        at(&dir, DirBuilder::new().mode(mode).create(&dir))?;
        let scratch = Scratch { dir, account: self.account.clone(), lock: Some(lock), servers: 0 };
        let mark = scratch.dir.join(MARK);
        at(&mark, fs::write(&mark, format!("{drill}\n")).and_then(|()| File::open(&scratch.dir)?.sync_all()))?;
        for room in [scratch.data(), scratch.run()] {
            at(&room, DirBuilder::new().mode(0o700).create(&room))?;
            scratch.give(&room)?;
        }
        Ok(scratch)
    }

    /// Locks the directory itself, so that no file is left behind. Ends with the handle, and with the process.
    fn lock(&self) -> Result<File> {
        let dir = at(&self.dir, File::open(&self.dir))?;
        match dir.try_lock() {
            Ok(()) => Ok(dir),
            Err(TryLockError::WouldBlock) => {
                Err(Error::conflict(format!("another drill works in {}", self.dir.display())))
            }
            Err(TryLockError::Error(error)) => Err(Error::io(format!("lock {}", self.dir.display()), error)),
        }
    }
}

/// The directory of one drill. Removed when it is dropped; servers are to be dropped before.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    account: Option<Account>,
    lock: Option<File>,
    servers: u32,
}

impl Scratch {
    /// The directory itself, which belongs to the drill.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the data are restored: an empty directory of the account that servers run as.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Where sockets and settings of the server lie: a directory that only its account can enter.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The account that servers run as, when that is not the one of this process.
    #[must_use]
    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// Bytes that can be written here.
    ///
    /// # Errors
    /// [`Environment`](crate::ErrorKind::Environment) when the file system does not say.
    pub fn free_bytes(&self) -> Result<u64> {
        let found = rustix::fs::statvfs(&self.dir).map_err(io::Error::from);
        let found = at(&self.dir, found)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Gives a file or directory to the account that servers run as.
    ///
    /// # Errors
    /// [`Environment`](crate::ErrorKind::Environment).
    pub fn give(&self, path: &Path) -> Result<()> {
        match &self.account {
            Some(account) => at(path, chown(path, Some(account.uid), Some(account.gid))),
            None => Ok(()),
        }
    }

    /// Writes a file for the server into [`run`](Self::run) and returns its path.
    ///
    /// # Errors
    /// [`Environment`](crate::ErrorKind::Environment).
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.run().join(name);
        at(&path, fs::write(&path, content))?;
        self.give(&path)?;
        Ok(path)
    }

    /// A name for the files of a further server.
    fn next_server(&mut self) -> PathBuf {
        self.servers += 1;
        self.dir.join(format!("{SERVER}{}", self.servers))
    }

    /// Removes the directory, and then lets others work below the root.
    ///
    /// # Errors
    /// [`Environment`](crate::ErrorKind::Environment) when something of it is still there; the next drill tries again.
    pub fn remove(mut self) -> Result<()> {
        let removed = remove(&self.dir);
        self.lock = None;
        removed
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Removed already when the lock is gone.
        if self.lock.is_some()
            && let Err(error) = remove(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "the next drill removes what this one could not");
        }
    }
}

/// Removes the directory of a drill, its mark last: until then the next drill knows it.
fn remove(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => at(dir, entries)?,
    };
    for entry in entries {
        let entry = at(dir, entry)?;
        if entry.file_name() == MARK {
            continue;
        }
        let (path, kind) = (entry.path(), at(&entry.path(), entry.file_type())?);
        at(&path, if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) })?;
    }
    let mark = dir.join(MARK);
    match fs::remove_file(&mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(mark.display(), error)),
        _ => {}
    }
    at(dir, fs::remove_dir(dir))
}

/// Whether `dir` is one that a drill of this account has made: by its name, its owner and its mark. An empty one is, too: its drill died before the
/// mark.
fn is_of_a_drill(dir: &Path) -> Option<DrillId> {
    let drill: DrillId = dir.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
    let found = fs::symlink_metadata(dir).ok()?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    match fs::read_to_string(dir.join(MARK)) {
        Ok(text) if text.trim() == drill.to_string() => Some(drill),
        Err(_) if fs::read_dir(dir).ok()?.next().is_none() => Some(drill),
        // Cut off before a word of it was written.
        Ok(text) if text.is_empty() => Some(drill),
        _ => None,
    }
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| Error::io(path.display(), error))
}

#[cfg(test)]
mod tests;
