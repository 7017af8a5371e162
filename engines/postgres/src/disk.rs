//! Small durable steps in a file system. All of it blocks, but [`blocking`].

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use backup_core::{Error, Result};

/// Does `work` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal("work on files panicked").with_source(e))?
}

/// Names the file in the error.
pub(crate) fn at<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|e| Error::io(path.display(), e))
}

/// Makes names of a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    at(dir, File::open(dir).and_then(|dir| dir.sync_all()))
}

/// The name of a file before it is whole.
pub(crate) fn staged(name: &str) -> OsString {
    format!("{name}.restoring").into()
}

/// A new file with permissions `mode`; one that is there is replaced.
pub(crate) fn create(path: &Path, mode: u32) -> Result<File> {
    remove(path)?;
    let file = at(path, OpenOptions::new().write(true).create_new(true).mode(0o600).open(path))?;
    at(path, file.set_permissions(fs::Permissions::from_mode(mode)))?;
    Ok(file)
}

/// Writes a small file durably, under its name only when it is whole.
pub(crate) fn write(dir: &Path, name: &str, content: &[u8], mode: u32) -> Result<()> {
    let (path, staged) = (dir.join(name), dir.join(staged(name)));
    let mut file = create(&staged, mode)?;
    at(&staged, file.write_all(content).and_then(|()| file.sync_all()))?;
    at(&path, fs::rename(&staged, &path))?;
    sync_dir(path.parent().unwrap_or(dir))
}

/// Removes a file; whether it was there.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(path.display(), e)),
    }
}
