//! The files of a spool. Everything here blocks.
//!
//! ```text
//! lock        held by the writer for as long as it lives
//! identity    whose log this is: one line of JSON
//! 0001+log+…  a piece of log, sealed: exactly the object that goes into the vault
//! *.tmp       a file that is being written
//! *.damaged   a piece that is not what was written
//! ```
//! A file appears under its name whole and durable, or not at all.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::name::SpoolName;
use crate::error::{Error, Result};

const LOCK: &str = "lock";
const IDENTITY: &str = "identity";
/// Behind the name of a file that is being written.
const STAGED: &str = ".tmp";
/// Behind the name of a piece that is not what was written.
const DAMAGED: &str = ".damaged";

/// Whose log lies in a spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SpoolIdentity {
    pub(crate) format: u32,
    /// 32 hexadecimal digits.
    pub(crate) repository: String,
    pub(crate) service: String,
}

/// The folder of a spool, locked.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    /// None once it was released: nothing is added any more then.
    lock: Mutex<Option<File>>,
    /// For tests: the disk is full.
    #[cfg(test)]
    pub(crate) full: std::sync::atomic::AtomicBool,
}

impl Folder {
    /// Locks the folder `dir`, which is made when it does not exist. A few file operations.
    ///
    /// # Errors
    /// Conflict, when another writer uses it; Environment, when it cannot be used.
    pub(crate) fn lock(dir: &Path) -> Result<Self> {
        let failed = |what: &str, error: io::Error| failed(dir, what, error);
        let dir = std::path::absolute(dir).map_err(|e| failed("find", e))?;
        create(&dir).map_err(|e| failed("create", e))?;
        let lock = private().read(true).write(true).open(dir.join(LOCK)).map_err(|e| failed("lock", e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let dir = dir.display();
                return Err(Error::conflict(format!("spool {dir} is used by another log writer: each needs its own")));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", error)),
        }
        Ok(Self {
            dir,
            lock: Mutex::new(Some(lock)),
            #[cfg(test)]
            full: std::sync::atomic::AtomicBool::new(false),
        })
    }

    /// Makes the folder ready for `identity`.
    ///
    /// # Errors
    /// Conflict, when it holds the log of somebody else; Environment, when it cannot be used.
    pub(crate) fn prepare(&self, identity: &SpoolIdentity) -> Result<()> {
        warn_of_others(&self.dir);
        self.identify(identity)?;
        self.sweep().map_err(|e| self.failed("clean", e))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Checks whose log this is, or says so when nobody has.
    fn identify(&self, own: &SpoolIdentity) -> Result<()> {
        let dir = self.dir.display();
        let written = match std::fs::read(self.dir.join(IDENTITY)) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pieces = self.list(|_| {}).map_err(|e| self.failed("list", e))?;
                if !pieces.is_empty() {
                    return Err(Error::conflict(format!(
                        "spool {dir} holds {} pieces of log, and its file {IDENTITY} is missing, which says whose they are",
                        pieces.len()
                    )));
                }
                let line = serde_json::to_vec(own)
                    .map_err(|e| Error::internal("the identity of a spool cannot be encoded").with_source(e))?;
                return self.write(IDENTITY, &line).map_err(|e| self.failed("write to", e));
            }
            Err(error) => return Err(self.failed("read", error)),
        };
        let known: SpoolIdentity = serde_json::from_slice(&written)
            .map_err(|e| Error::conflict(format!("the file {IDENTITY} of spool {dir} cannot be read: {e}")))?;
        if known != *own {
            let SpoolIdentity { format, repository, service } = known;
            return Err(Error::conflict(format!(
                "spool {dir} belongs to service {service} of repository {repository} (format {format}), not to service {} of repository {}",
                own.service, own.repository
            )));
        }
        Ok(())
    }

    /// Removes what was being written when a writer ended. A thread of one may be about to remove it, too.
    fn sweep(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let staged = name.to_str().and_then(|name| name.strip_suffix(STAGED));
            if staged.is_some_and(|name| name == IDENTITY || SpoolName::parse(name).is_some()) {
                gone(std::fs::remove_file(self.dir.join(&name)))?;
            }
        }
        Ok(())
    }

    /// The pieces that lie here, in the order in which they were written, and their lengths. `stranger` is told what else does.
    pub(crate) fn list(&self, mut stranger: impl FnMut(&Path)) -> io::Result<Vec<(SpoolName, u64)>> {
        let mut pieces = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let file = entry.file_name();
            let file = file.to_str().unwrap_or_default();
            match SpoolName::parse(file).zip(entry.metadata().ok().filter(std::fs::Metadata::is_file)) {
                Some((name, metadata)) => pieces.push((name, metadata.len())),
                None if is_own(file) => {}
                None => stranger(&entry.path()),
            }
        }
        pieces.sort_unstable_by_key(|(name, _)| name.order());
        Ok(pieces)
    }

    /// Makes the file `name` of `bytes`, durably. Nothing is there when it fails, or what was there before.
    ///
    /// # Errors
    /// AlreadyExists, when there is such a file.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if self.full.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (path, staged) = (self.dir.join(name), self.dir.join(format!("{name}{STAGED}")));
        let written = private().write(true).truncate(true).open(&staged).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        if let Err(error) = written.and_then(|()| self.place(&staged, &path)) {
            // What stays is in the way of nothing: the next attempt truncates it, the next writer removes it.
            let _ = std::fs::remove_file(&staged);
            return Err(error);
        }
        // Without its name on the disk it is not durable, and the next attempt needs the name.
        self.sync().inspect_err(|_| drop(std::fs::remove_file(&path)))
    }

    fn place(&self, staged: &Path, path: &Path) -> io::Result<()> {
        let lock = self.lock.lock();
        if lock.is_none() {
            return Err(io::Error::other("its writer has ended"));
        }
        // Whoever else could make it needs the lock.
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        std::fs::rename(staged, path)
    }

    /// The bytes of the file `name`.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.dir.join(name))
    }

    /// A part of the file `name`, and its metadata.
    pub(crate) fn read_part(
        &self,
        name: &str,
        part: impl FnOnce(u64) -> io::Result<Range<u64>>,
    ) -> io::Result<(Vec<u8>, Range<u64>, std::fs::Metadata)> {
        let mut file = File::open(self.dir.join(name))?;
        let metadata = file.metadata()?;
        let range = part(metadata.len())?;
        file.seek(SeekFrom::Start(range.start))?;
        let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(io::Error::other)?];
        file.read_exact(&mut bytes)?;
        Ok((bytes, range, metadata))
    }

    /// Removes the file `name`, if it is there. After the folder was released it is left to the next writer.
    ///
    /// Not synced: a file that comes back after a crash is in the vault, and is found to be.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        let lock = self.lock.lock();
        if lock.is_none() {
            return Ok(());
        }
        gone(std::fs::remove_file(self.dir.join(name)))
    }

    /// Gives the file `name` another name, which no writer looks at. Returns where it is.
    pub(crate) fn set_aside(&self, name: &str) -> io::Result<PathBuf> {
        let mut aside = self.dir.join(format!("{name}{DAMAGED}"));
        let mut number = 1;
        while aside.symlink_metadata().is_ok() {
            number += 1;
            aside = self.dir.join(format!("{name}.{number}{DAMAGED}"));
        }
        std::fs::rename(self.dir.join(name), &aside)?;
        self.sync()?;
        Ok(aside)
    }

    /// Lets another writer use the folder. Nothing is added from here any more.
    pub(crate) fn release(&self) {
        self.lock.lock().take();
    }

    /// Makes the names durable.
    #[cfg(unix)]
    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// What the file system said when something was done to the folder.
    pub(crate) fn failed(&self, what: &str, error: io::Error) -> Error {
        failed(&self.dir, what, error)
    }
}

fn failed(dir: &Path, what: &str, error: io::Error) -> Error {
    Error::environment(format!("cannot {what} spool {}: {error}", dir.display())).with_source(error)
}

/// Removed, or removed before.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Whether a file that is no piece belongs here.
fn is_own(file: &str) -> bool {
    matches!(file, LOCK | IDENTITY) || file.ends_with(DAMAGED) || file.ends_with(STAGED)
}

/// A file for its owner alone, made when it does not exist.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes `dir` and its parents durably, for their owner alone.
fn create(dir: &Path) -> io::Result<()> {
    let missing: Vec<_> = dir.ancestors().take_while(|dir| !dir.is_dir()).collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)?;
    #[cfg(unix)]
    for parent in missing.iter().rev().filter_map(|dir| dir.parent()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(unix)]
fn warn_of_others(dir: &Path) {
    let mode = std::fs::metadata(dir).map(|metadata| std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()));
    if mode.is_ok_and(|mode| mode & 0o022 != 0) {
        tracing::warn!(dir = %dir.display(), "others may write to the spool");
    }
}

#[cfg(not(unix))]
fn warn_of_others(_dir: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn identity(service: &str) -> SpoolIdentity {
        SpoolIdentity { format: 1, repository: "00".repeat(16), service: service.to_owned() }
    }

    fn open(dir: &Path, service: &str) -> Result<Folder> {
        let folder = Folder::lock(dir)?;
        folder.prepare(&identity(service))?;
        Ok(folder)
    }

    const PIECE: &str = "0001+log+1+00000002+0000000003-00000000000000ff-0000000000000100";

    #[test]
    fn a_file_is_there_whole_once_and_for_its_owner() {
        let temp = tempfile::tempdir().unwrap();
        let folder = open(&temp.path().join("a/spool"), "svc").unwrap();
        folder.write(PIECE, b"sealed").unwrap();
        assert_eq!(folder.read(PIECE).unwrap(), b"sealed");
        let error = folder.write(PIECE, b"other").unwrap_err();
        assert_eq!((error.kind(), folder.read(PIECE).unwrap()), (io::ErrorKind::AlreadyExists, b"sealed".to_vec()));
        #[cfg(unix)]
        for (name, expected) in [("", 0o700), (PIECE, 0o600), (LOCK, 0o600), (IDENTITY, 0o600)] {
            let metadata = folder.dir().join(name).metadata().unwrap();
            let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
            assert_eq!(mode & 0o777, expected, "{name}");
        }
        assert_eq!(std::fs::read_dir(folder.dir()).unwrap().count(), 3, "nothing else is left");
        folder.remove(PIECE).unwrap();
        folder.remove(PIECE).unwrap();
        assert!(folder.list(|_| {}).unwrap().is_empty());
    }

    #[test]
    fn one_writer_at_a_time_and_one_repository() {
        let temp = tempfile::tempdir().unwrap();
        let folder = open(temp.path(), "svc").unwrap();
        let error = open(temp.path(), "svc").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains("another log writer"), "{error}");
        folder.release();
        assert!(folder.write(PIECE, b"late").is_err(), "whoever has let go adds nothing");
        let next = open(temp.path(), "svc").unwrap();
        assert!(next.list(|_| {}).unwrap().is_empty());
        drop(next);
        let error = open(temp.path(), "other").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains("service svc"), "{error}");
        let next = open(temp.path(), "svc").unwrap();
        next.write(PIECE, b"sealed").unwrap();
        drop(next);
        std::fs::remove_file(temp.path().join(IDENTITY)).unwrap();
        let error = open(temp.path(), "svc").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }

    #[test]
    fn what_is_not_a_piece_is_told_and_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let folder = open(temp.path(), "svc").unwrap();
        folder.write(PIECE, b"sealed").unwrap();
        drop(folder);
        let half = temp.path().join(format!("{PIECE}{STAGED}"));
        std::fs::write(&half, "half").unwrap();
        std::fs::write(temp.path().join("notes"), "mine").unwrap();
        std::fs::create_dir(temp.path().join(PIECE.replace("0003", "0004"))).unwrap();
        let folder = open(temp.path(), "svc").unwrap();
        assert!(!half.exists(), "it was never acknowledged");
        let mut strangers = 0;
        let pieces = folder.list(|_| strangers += 1).unwrap();
        assert_eq!((pieces.len(), strangers), (1, 2));
        let aside = folder.set_aside(PIECE).unwrap();
        folder.write(PIECE, b"again").unwrap();
        let second = folder.set_aside(PIECE).unwrap();
        assert_eq!(
            (std::fs::read(aside).unwrap(), std::fs::read(second).unwrap()),
            (b"sealed".into(), b"again".into())
        );
        assert!(folder.list(|_| {}).unwrap().is_empty());
        assert!(temp.path().join("notes").exists());
    }
}
