//! Work on files of the server, which other code of this crate has in common. Blocking, but for [`blocking`].

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use backup_core::{Error, Result};

use crate::part::Checksums;
use crate::part::checksums::{self, MAX_LIST};

/// Runs `work` where threads may wait for a disk.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("work on files of clickhouse panicked").with_source(error))?
}

/// An exclusive lock on a directory, which ends with the process.
pub(crate) fn lock(dir: &Path) -> Result<File> {
    let failed =
        |error| Error::environment(format!("the data directory {} cannot be opened", dir.display())).with_source(error);
    let file = File::open(dir).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Error::conflict(format!("another backup or restore of the server in {} is running", dir.display())))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Removes a folder with everything in it, if it is there.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(dir.display(), error)),
    }
}

/// Who a file of the server belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// The owner of `path`.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(|error| Error::io(path.display(), error))?;
        Ok(Self { uid: meta.uid(), gid: meta.gid() })
    }

    /// Gives a tree to it, where we may. Links are not followed. Blocking.
    pub(crate) fn own(self, path: &Path) -> Result<()> {
        let failed = |error: std::io::Error| Error::io(path.display(), error);
        let meta = std::fs::symlink_metadata(path).map_err(failed)?;
        if (meta.uid(), meta.gid()) != (self.uid, self.gid) {
            std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).map_err(failed)?;
        }
        if meta.is_dir() {
            for entry in std::fs::read_dir(path).map_err(failed)? {
                self.own(&entry.map_err(failed)?.path())?;
            }
        }
        Ok(())
    }
}

/// The list of a part's files, in its folder: none when it is not there, and what is wrong with it when it cannot be read as one.
pub(crate) fn read_list(part: &Path) -> Result<Option<crate::part::Result<Checksums>>> {
    let path = part.join(checksums::NAME);
    let mut bytes = Vec::new();
    match File::open(&path).and_then(|file| file.take(MAX_LIST as u64 + 1).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(Checksums::parse(&bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path.display(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::ErrorKind;

    #[test]
    fn one_backup_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert_eq!(lock(dir.path()).unwrap_err().kind(), ErrorKind::Conflict);
        drop(held);
        lock(dir.path()).unwrap();
        assert_eq!(lock(&dir.path().join("none")).unwrap_err().kind(), ErrorKind::Environment);
    }
}
