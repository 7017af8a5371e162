//! Where parts are before they are attached: beside the data of the server, so that moving them costs nothing. All of them are there, and are
//! verified, before the server is asked for anything.

use std::fs::File;
use std::path::PathBuf;

use backup_core::{Error, Result};
use bytes::Bytes;

use crate::files::{blocking, lock, remove};
use crate::server::{Disk, Server, TableKey};

/// Below a disk. Servers leave alone what they do not know there.
const FOLDER: &str = "backup-library-restore";

/// Folders on every disk, which only one restore or backup has at a time.
#[derive(Debug)]
pub(super) struct Stage {
    disks: Vec<Disk>,
    /// Held until nothing is left.
    lock: Option<File>,
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
        let stage = Self { disks: server.disks.clone(), lock: Some(lock), removed: false };
        stage.clear().await?;
        Ok(stage)
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
