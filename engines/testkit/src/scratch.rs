//! Temporary directories that the servers' account can use.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::identity::unprivileged;

/// An empty temporary directory that belongs to the servers' account and that everyone may enter; removed on drop.
///
/// A plain [`tempfile::tempdir`] made by root belongs to root, so the account that the servers run as could not create
/// or own a data directory in it.
///
/// # Errors
/// [`Error::Io`] when it can't be made, [`Error::InvalidInput`] when it lies below a directory that the account may
/// not enter (set `TMPDIR`).
pub fn scratch_dir() -> Result<TempDir> {
    scratch_dir_in(&std::env::temp_dir())
}

/// Like [`scratch_dir`], below `base`: for tests that need another file system.
///
/// # Errors
/// As [`scratch_dir`].
pub fn scratch_dir_in(base: &Path) -> Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("btk-").tempdir_in(base).map_err(Error::io("create in", base))?;
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).map_err(Error::io("chmod", dir.path()))?;
    unprivileged().own(dir.path())?;
    match unprivileged().blocked_at(dir.path()) {
        None => Ok(dir),
        Some(blocked) => Err(Error::invalid(format!(
            "servers run as uid {}, which may not enter {}",
            unprivileged().uid,
            blocked.display()
        ))),
    }
}
