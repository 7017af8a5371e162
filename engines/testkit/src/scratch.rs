//! Temporary directories that the servers' account can use.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::identity::unprivileged;

/// An empty temporary directory that belongs to the servers' account and that everyone may enter; removed on drop.
///
/// Where `TMPDIR` does not say otherwise it lies in memory, if there is enough of it: tests write many small files and have each
/// of them synced, which a disk makes wait for nothing that a test is about.
///
/// A plain [`tempfile::tempdir`] made by root belongs to root, so the account that the servers run as could not create
/// or own a data directory in it.
///
/// # Errors
/// [`Error::Io`] when it can't be made, [`Error::InvalidInput`] when it lies below a directory that the account may
/// not enter (set `TMPDIR`).
pub fn scratch_dir() -> Result<TempDir> {
    scratch_dir_in(&base())
}

/// Where the file system in memory lies.
const MEMORY: &str = "/dev/shm";
/// Free bytes that it must have, and that must be free in the machine: several servers with a database each.
const ENOUGH: u64 = 6 << 30;

fn base() -> PathBuf {
    let memory = Path::new(MEMORY);
    let chosen = std::env::var_os("TMPDIR").is_some();
    if !chosen && free(memory).min(available()) >= ENOUGH { memory.to_owned() } else { std::env::temp_dir() }
}

/// Free bytes of the file system at `path`; none where there is no such file system.
fn free(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes of memory that can be had, as Linux says (proc(5), `MemAvailable`).
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib.saturating_mul(1024))
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

/// Writes a file of a server, readable by nobody but the server.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::io("write", path))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(Error::io("chmod", path))?;
    unprivileged().own(path)
}
