//! A directory on local disk: created private, checked when opened, synced when written.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::local::LocalFileSystem;

use crate::error::{self, Error, Result};

use super::{ObjectName, Store, StoreSettings, Traits};

/// Longer than since the epoch, for some centuries.
const EVER: Duration = Duration::from_secs(1 << 35);

impl Store {
    /// The store in the directory `dir`, which is created (readable by its owner only) when it does not exist.
    ///
    /// Every object is synced to the disk together with its directories before its put succeeds. Objects appear by
    /// hard link, so the file system must support those (FAT and some network mounts do not). The calling thread blocks
    /// for a few file operations.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) for a relative path,
    /// [`Environment`](crate::error::ErrorKind::Environment) when the directory cannot be created, read or written.
    pub fn local(dir: &Path) -> Result<Self> {
        Self::local_with(dir, StoreSettings::default())
    }

    pub(super) fn local_with(dir: &Path, settings: StoreSettings) -> Result<Self> {
        if !dir.is_absolute() {
            return Err(Error::invalid(format!("store directory {} must be an absolute path", dir.display())));
        }
        create_private(dir).map_err(|error| refused(dir, "create", error))?;
        let metadata = std::fs::metadata(dir).map_err(|error| refused(dir, "read", error))?;
        if !metadata.is_dir() {
            return Err(Error::environment(format!("store directory {} is not a directory", dir.display())));
        }
        std::fs::read_dir(dir).map_err(|error| refused(dir, "read", error))?;
        warn_if_writable_by_others(dir, &metadata);
        let inner = LocalFileSystem::new_with_prefix(dir)
            .map_err(|error| error::store_error("open", &dir.display().to_string(), error))?
            .with_fsync(true);
        let traits = Traits { sorted_listing: false, root: Some(Arc::from(dir)) };
        let store = Self::build(Arc::new(inner), traits, settings);
        store.check_writable(dir)?;
        Ok(store)
    }

    /// Writes, links and removes a file whose name no object can have and no listing shows.
    fn check_writable(&self, dir: &Path) -> Result<()> {
        let unique = u64::from_le_bytes(self.env().random());
        let (staged, linked) = (dir.join(format!("check#{unique}")), dir.join(format!("check#{unique}0")));
        let outcome = std::fs::write(&staged, b"check")
            .map_err(|error| refused(dir, "write to", error))
            .and_then(|()| std::fs::hard_link(&staged, &linked).map_err(|error| refused(dir, "hard-link in", error)));
        let cleaned = [&linked, &staged].into_iter().filter(|path| path.exists()).try_for_each(std::fs::remove_file);
        outcome.and(cleaned.map_err(|error| refused(dir, "delete from", error)))
    }

    /// Removes what puts that were killed half-way left on local disk: staging files of this store that were not touched for
    /// `idle`, which must be longer than any put takes. Returns how many; always 0 on other stores.
    ///
    /// # Errors
    /// Those of the file system.
    ///
    /// # Cancel safety
    /// Dropping the future lets the sweep go on in the background.
    pub async fn remove_abandoned(&self, idle: Duration) -> Result<u64> {
        let Some(root) = &self.shared.traits.root else { return Ok(0) };
        let dir = root.join(&*self.prefix);
        let now = Duration::from_secs(u64::try_from(self.env().now().as_second()).unwrap_or(0));
        let limit = SystemTime::UNIX_EPOCH + now.saturating_sub(idle);
        let swept = tokio::task::spawn_blocking(move || match sweep(&dir, limit) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.exists() => Ok(0),
            outcome => outcome.map_err(|error| Error::io(format!("sweep {}", dir.display()), error)),
        });
        swept.await.map_err(|error| Error::internal("the sweep of staging files failed").with_source(error))?
    }

    /// Removes what remains on local disk of a store that has no objects any more: staging files and empty folders, its own too. Folders
    /// that hold something stay. Nothing is to be done on other stores.
    ///
    /// # Errors
    /// Those of the file system.
    ///
    /// # Cancel safety
    /// As [`remove_abandoned`](Self::remove_abandoned).
    pub(crate) async fn remove_empty_folders(&self) -> Result<()> {
        let Some(root) = &self.shared.traits.root else { return Ok(()) };
        let dir = root.join(&*self.prefix);
        let removed = tokio::task::spawn_blocking(move || {
            match sweep(&dir, SystemTime::UNIX_EPOCH + EVER).and_then(|_| remove_empty(&dir)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                outcome => {
                    outcome.map(drop).map_err(|error| Error::io(format!("remove folders of {}", dir.display()), error))
                }
            }
        });
        removed.await.map_err(|error| Error::internal("the removal of folders failed").with_source(error))?
    }

    /// The names of the objects directly inside `folder`, in no order. `None` on other stores.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) async fn local_names(&self, folder: &str) -> Result<Option<Vec<ObjectName>>> {
        let Some(root) = &self.shared.traits.root else { return Ok(None) };
        let (dir, folder) = (root.join(self.full(folder)), folder.to_owned());
        let read = move || {
            let entries = match std::fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            let mut names = Vec::new();
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                // Names of staging files are none of objects.
                let name = name.to_str().and_then(|name| ObjectName::new(format!("{folder}/{name}")).ok());
                if entry.file_type()?.is_file() {
                    names.extend(name);
                }
            }
            Ok(names)
        };
        let full = self.full("");
        match tokio::task::spawn_blocking(read).await {
            Ok(names) => Ok(Some(names.map_err(|error| Error::io(format!("list {full}"), error))?)),
            Err(error) => Err(Error::internal("listing a directory failed").with_source(error)),
        }
    }

    /// Syncs an object that was found to be ours after a put whose outcome was lost: the put may have linked the
    /// file and failed to sync the directories.
    pub(super) async fn settle(&self, name: &ObjectName) -> Result<()> {
        let Some(root) = self.shared.traits.root.clone() else { return Ok(()) };
        let full = self.full(name.as_str());
        let file = root.join(&full);
        let synced = tokio::task::spawn_blocking(move || {
            std::fs::File::open(&file)?.sync_all()?;
            for dir in file.ancestors().skip(1).take_while(|dir| dir.starts_with(&root)) {
                std::fs::File::open(dir)?.sync_all()?;
            }
            Ok(())
        });
        match synced.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::io(format!("sync {full}"), error)),
            Err(error) => Err(Error::internal(format!("sync {full}: the task failed")).with_source(error)),
        }
    }
}

/// Removes `dir` and the folders in it, as far as there is nothing else. Whether it is gone.
fn remove_empty(dir: &Path) -> io::Result<bool> {
    let mut empty = true;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        empty &= entry.file_type()?.is_dir() && remove_empty(&entry.path())?;
    }
    if empty {
        std::fs::remove_dir(dir)?;
    }
    Ok(empty)
}

/// Removes staging files below `dir` last touched before `limit`.
fn sweep(dir: &Path, limit: SystemTime) -> io::Result<u64> {
    let mut removed = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            removed += sweep(&entry.path(), limit)?;
        } else if is_staging(&entry.file_name()) {
            match entry.metadata().and_then(|metadata| metadata.modified()) {
                Ok(modified) if modified < limit => {}
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            match std::fs::remove_file(entry.path()) {
                Ok(()) => removed += 1,
                // Its put has ended after all.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(removed)
}

/// Whether a file is named as the client names its staging files: the object's name, `#`, digits.
fn is_staging(name: &std::ffi::OsStr) -> bool {
    let digits = name.to_str().and_then(|name| name.rsplit_once('#'));
    digits.is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn refused(dir: &Path, what: &str, error: io::Error) -> Error {
    Error::environment(format!("cannot {what} store directory {}: {error}", dir.display())).with_source(error)
}

/// Creates a directory and its missing parents, private to the owner, and syncs what was created.
fn create_private(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_private(parent)?;
    }
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(dir) {
        // Somebody else was faster; whether it is usable is checked by the caller.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        outcome => outcome?,
    }
    #[cfg(unix)]
    if let Some(parent) = parent {
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(unix)]
fn warn_if_writable_by_others(dir: &Path, metadata: &std::fs::Metadata) {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
    if mode & 0o022 != 0 {
        tracing::warn!(dir = %dir.display(), mode = format!("{:o}", mode & 0o777), "others may write to the store directory");
    }
}

#[cfg(not(unix))]
fn warn_if_writable_by_others(_dir: &Path, _metadata: &std::fs::Metadata) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_missing_directory_is_created_for_its_owner_alone() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/b");
        let store = Store::local(&dir).unwrap();
        assert!(store.to_string().starts_with("Store(LocalFileSystem(file:///"), "{store}");
        #[cfg(unix)]
        for made in [&dir, &temp.path().join("a")] {
            let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(made).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o700);
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "the check leaves nothing behind");
        Store::local(&dir).unwrap();
    }

    #[test]
    fn unusable_directories_are_refused_with_the_reason() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for dir in [file.clone(), file.join("below")] {
            let error = Store::local(&dir).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
        }
        assert_eq!(Store::local(Path::new("relative")).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn abandoned_staging_files_are_removed_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::local(temp.path()).unwrap();
        let name = ObjectName::new("packs/x/1").unwrap();
        assert!(store.create(&name, "body").await.unwrap().is_ours());
        for left in ["packs/x/2#1", "packs/x/2#17", "packs/x/not-ours#a", "packs/x/not-ours#"] {
            std::fs::write(temp.path().join(left), "half").unwrap();
        }
        let later = backup_core::env::ManualClock::at(jiff::Timestamp::from_second(32_503_680_000).unwrap());
        let env = backup_core::env::Env::new(Arc::new(later), Arc::clone(store.env().entropy()));
        let elsewhere = store.at("keys").unwrap();
        assert_eq!(elsewhere.remove_abandoned(Duration::ZERO).await.unwrap(), 0);
        assert_eq!(store.remove_abandoned(Duration::from_secs(3600)).await.unwrap(), 0, "they are fresh");
        assert_eq!(store.with_env(env).remove_abandoned(Duration::from_secs(3600)).await.unwrap(), 2);
        assert_eq!(store.get(&name).await.unwrap(), "body");
        assert_eq!(std::fs::read_dir(temp.path().join("packs/x")).unwrap().count(), 3);
    }

    #[tokio::test]
    async fn an_object_found_to_be_ours_is_synced() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::local(temp.path()).unwrap().at("s").unwrap();
        let name = ObjectName::new("a/b").unwrap();
        assert_eq!(store.create(&name, "body").await.unwrap(), super::super::Created::New);
        assert_eq!(store.create(&name, "body").await.unwrap(), super::super::Created::AlreadyOurs);
        assert!(store.settle(&ObjectName::new("missing").unwrap()).await.is_err());
    }
}
