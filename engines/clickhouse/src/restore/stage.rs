//! Where parts are before they are attached: beside the data of the server, so that moving them costs nothing. All of them are there, and are
//! verified, before the server is asked for anything.

use std::fs::File;
use std::path::PathBuf;

use backup_core::{Error, Result};
use bytes::Bytes;

use crate::files::{blocking, lock, remove};
use crate::server::{Disk, Place, Server, TableKey};
use crate::staging::Area;

/// Below a disk. Servers leave alone what they do not know there.
const FOLDER: &str = "backup-library-restore";

/// Folders on every disk, or in a staging folder, which only one restore or backup has at a time.
#[derive(Debug)]
pub(super) struct Stage {
    disks: Vec<Disk>,
    /// Held until nothing is left; none where another one is held for it.
    lock: Option<File>,
    staging: bool,
    removed: bool,
}

impl Stage {
    /// Takes the lock and removes what others have left behind.
    ///
    /// # Errors
    /// [`Conflict`](backup_core::ErrorKind::Conflict) when a backup or restore of this server is running here;
    /// [`Environment`](backup_core::ErrorKind::Environment) when the data directory cannot be written.
    pub(super) async fn prepare(server: &Server) -> Result<Self> {
        let dir = server.default_disk()?.dir.clone();
        let lock = blocking(move || lock(&dir)).await?;
        let stage = Self { disks: server.disks.clone(), lock: Some(lock), staging: false, removed: false };
        stage.clear().await?;
        Ok(stage)
    }

    /// A stage in the staging folder of a server whose disks are not here. The lock of `area` is its own.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) when the folder cannot be written.
    pub(super) async fn within(area: &Area) -> Result<Self> {
        let disk = Disk { name: Disk::DEFAULT.to_owned(), path: String::new(), dir: area.root(), place: Place::Local };
        let stage = Self { disks: vec![disk], lock: None, staging: true, removed: false };
        stage.clear().await?;
        Ok(stage)
    }

    /// Whether it is in a staging folder, and the server brings parts in by itself.
    pub(super) fn is_staging(&self) -> bool {
        self.staging
    }

    /// The disks on which parts can be staged.
    pub(super) fn disks(&self) -> &[Disk] {
        &self.disks
    }

    async fn clear(&self) -> Result<()> {
        let dirs: Vec<_> = self.disks.iter().map(|disk| disk.dir.join(FOLDER)).collect();
        blocking(move || dirs.iter().try_for_each(|dir| remove(dir))).await
    }

    /// A new folder called `name` on the disk in `dir`.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) when the disk cannot be written.
    pub(super) async fn folder(&self, disk: &Disk, name: &str) -> Result<PathBuf> {
        let dir = disk.dir.join(FOLDER).join(name);
        let made = dir.clone();
        blocking(move || {
            remove(&made)?;
            std::fs::create_dir_all(&made).map_err(|error| Error::io(made.display(), error))
        })
        .await?;
        Ok(dir)
    }

    /// Removes everything.
    pub(super) async fn remove(mut self) -> Result<()> {
        self.clear().await?;
        self.removed = true;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        let dirs: Vec<_> = self.disks.iter().map(|disk| disk.dir.join(FOLDER)).collect();
        let lock = self.lock.take();
        // Whoever is dropped may be on a thread that must not wait for a disk. Another restore waits for the lock.
        std::thread::spawn(move || {
            let _lock = lock;
            for dir in dirs {
                if let Err(error) = remove(&dir) {
                    tracing::warn!(%error, "what was fetched is left for the next restore to remove");
                }
            }
        });
    }
}

/// The parts of a table, ready to be attached.
#[derive(Debug)]
pub(super) struct Staged {
    /// In the backup.
    pub(super) table: TableKey,
    /// In the order in which they are attached.
    pub(super) parts: Vec<StagedPart>,
    /// Files of mutations that go on, and their contents.
    pub(super) mutations: Vec<(String, Bytes)>,
    /// Whether parts are put where the server finds them when it loads the table, under their own names.
    pub(super) loaded: bool,
}

/// A part that is what it has to be.
#[derive(Debug)]
pub(super) struct StagedPart {
    pub(super) name: String,
    /// The disk that it is on.
    pub(super) disk: String,
    pub(super) path: PathBuf,
}
