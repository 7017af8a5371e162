//! Folders in the staging folder: one for each `BACKUP` and `RESTORE`, which is gone when that is over.

use std::fs::File;
use std::path::PathBuf;

use backup_core::engine::Work;
use backup_core::{Error, Finding, Result, Severity};

use super::{Operation, SINCE, Staging};
use crate::client::Client;
use crate::files::{blocking, lock, remove};
use crate::server::Server;

/// The beginning of the names of our folders, which are the ids of what the server does there as well.
const PREFIX: &str = "backup_library_";

/// The right to use a staging folder. Dropped, it removes what it has made.
#[derive(Debug)]
pub(crate) struct Area {
    staging: Staging,
    name: String,
    /// Held as long as it lives.
    lock: Option<File>,
    removed: bool,
}

impl Area {
    /// Takes the lock and removes what others have left behind, whose work the server stops.
    ///
    /// # Errors
    /// [`Conflict`](backup_core::ErrorKind::Conflict) when another backup or restore uses the folder;
    /// [`Environment`](backup_core::ErrorKind::Environment) when it cannot be opened, and for a server that is too old.
    pub(crate) async fn prepare(
        client: &Client,
        server: &Server,
        staging: &Staging,
        work: &Work,
    ) -> Result<(Self, Vec<Finding>)> {
        if !server.version.since(SINCE.0, SINCE.1) || !server.has_table("backups") {
            let (major, minor) = SINCE;
            let text = format!(
                "the server is {}: its own BACKUP is used from {major}.{minor} on, others need their data directory",
                server.version
            );
            return Err(Error::environment(text));
        }
        let dir = staging.dir.clone();
        let lock = blocking(move || lock(&dir)).await?;
        let name = format!("{PREFIX}{:016x}", u64::from_le_bytes(work.env().random()));
        let area = Self { staging: staging.clone(), name, lock: Some(lock), removed: false };
        let mut findings = Vec::new();
        for name in area.left().await? {
            tracing::info!(name, "removing what was left in the staging folder");
            Operation { client, server, work, id: &name }.stop().await?;
            let dir = area.staging.dir.join(&name);
            blocking(move || remove(&dir)).await?;
            let text = format!("{name}, of a backup or restore that was interrupted");
            findings.push(Finding::new(Severity::Note, "staging-removed", text));
        }
        Ok((area, findings))
    }

    /// Folders of ours, whoever made them.
    async fn left(&self) -> Result<Vec<String>> {
        let dir = self.staging.dir.clone();
        blocking(move || {
            let failed = |error| Error::io(dir.display(), error);
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&dir).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
                if name.starts_with(PREFIX) {
                    names.push(name);
                }
            }
            Ok(names)
        })
        .await
    }

    /// A name for something that the server does: its id, and its folder.
    pub(crate) fn name(&self, number: usize) -> String {
        format!("{}_{number}", self.name)
    }

    /// Where the folder `name` is on this machine.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.staging.dir.join(name)
    }

    /// The staging folder itself, on this machine.
    pub(crate) fn root(&self) -> PathBuf {
        self.staging.dir.clone()
    }

    /// What statements call the folder `name`.
    pub(crate) fn destination(&self, name: &str) -> String {
        self.staging.destination(name)
    }

    /// Removes everything that was made; what cannot be removed is told.
    pub(crate) async fn release(mut self) -> Option<Finding> {
        let name = self.name.clone();
        let outcome = blocking({
            let dir = self.staging.dir.clone();
            move || remove_all(&dir, &name)
        })
        .await;
        self.removed = true;
        match outcome {
            Ok(()) => None,
            Err(error) => {
                let text = format!("files of the server are left in the staging folder: {error}");
                Some(Finding::new(Severity::Warning, "staging-left", text))
            }
        }
    }
}

fn remove_all(dir: &std::path::Path, begin: &str) -> Result<()> {
    let failed = |error| Error::io(dir.display(), error);
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(begin) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

impl Drop for Area {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        let (dir, name, lock) = (self.staging.dir.clone(), self.name.clone(), self.lock.take());
        // Whoever is dropped may be on a thread that must not wait for a disk. The next one waits for the lock.
        std::thread::spawn(move || {
            let _lock = lock;
            if let Err(error) = remove_all(&dir, &name) {
                tracing::warn!(%error, "what the server has written is left for the next backup to remove");
            }
        });
    }
}
