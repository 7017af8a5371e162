//! Snapshots of tables: hard links that the server makes in the folder `shadow` of each disk, and that nobody but us removes.
//!
//! Source: `MergeTreeData::freezePartitionsByMatcher`, `Unfreezer` in `src/Storages/Freeze.cpp`. What is frozen holds its bytes on the
//! disk even when the table is dropped, so a snapshot that is left behind is a leak. All of ours have names that begin alike, and whoever takes
//! one holds a lock on the server's data directory: so what is found under the lock is left over from somebody who died.

use std::fs::File;
use std::path::{Path, PathBuf};

use backup_core::{Error, Finding, Result, Severity};
use parking_lot::Mutex;

use crate::client::Client;
use crate::ddl::quote;
use crate::files::{blocking, lock};
use crate::server::{Disk, ObjectKind, Place, Server, TableDef, TableKey, find, homes};

/// The beginning of the names of our snapshots. Servers escape all but letters, digits and `_` in names of folders.
const PREFIX: &str = "backup_library_";
/// Where snapshots are, below a disk.
const FOLDER: &str = "shadow";

/// The right to make snapshots of a server, and what was made. Dropped, it removes what it may remove by itself.
#[derive(Debug)]
pub(super) struct Shadow {
    name: String,
    disks: Vec<Disk>,
    /// Held as long as it lives.
    _lock: File,
    released: bool,
    /// Tables that were frozen, for servers that must be told each.
    frozen: Mutex<Vec<TableKey>>,
}

impl Shadow {
    /// Takes the lock and removes what others have left behind.
    ///
    /// # Errors
    /// [`Conflict`](backup_core::ErrorKind::Conflict) when another backup of this server runs here;
    /// [`Environment`](backup_core::ErrorKind::Environment) when the data directory cannot be opened.
    pub(super) async fn prepare(client: &Client, server: &Server, name: &str) -> Result<(Self, Vec<Finding>)> {
        let dir = server.default_disk()?.dir.clone();
        let lock = blocking(move || lock(&dir)).await?;
        let shadow = Self {
            name: format!("{PREFIX}{name}"),
            disks: server.disks.clone(),
            _lock: lock,
            released: false,
            frozen: Mutex::default(),
        };
        let (mut findings, left) = (Vec::new(), shadow.left().await?);
        let tables = if left.is_empty() { Vec::new() } else { on_objects(client, server).await? };
        for name in left {
            tracing::info!(name, "removing a snapshot that was left behind");
            let text = format!("the snapshot {name} of a backup that was interrupted");
            findings.push(match remove(client, server, &name, &tables).await {
                Ok(()) => Finding::new(Severity::Note, "shadow-removed", text),
                Err(error) => {
                    let text = format!("{text} holds space and cannot be removed: {error}");
                    Finding::new(Severity::Warning, "shadow-left", text)
                }
            });
        }
        Ok((shadow, findings))
    }

    /// Freezes one table, in the `round`th attempt. False when there is no such table any more.
    ///
    /// # Errors
    /// Those of the server and of the connection.
    pub(super) async fn freeze(&self, client: &Client, table: &TableDef, round: u32) -> Result<bool> {
        // Before it is tried: an attempt that is broken off may have made something.
        self.frozen.lock().push(table.key.clone());
        let sql = format!("ALTER TABLE {} FREEZE WITH NAME {}", table.key.quoted(), quote::string(&self.round(round)));
        match client.execute(&format!("a snapshot of {}", table.key), &sql).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Snapshots of one name must not meet: a table that is frozen again gets another one.
    fn round(&self, round: u32) -> String {
        format!("{}_{round}", self.name)
    }

    /// Where the parts of a table are in the snapshot: the disk, and its folder on this machine.
    pub(super) fn folders<'a>(
        &'a self,
        table: &'a TableDef,
        round: u32,
    ) -> impl Iterator<Item = (&'a Disk, PathBuf)> + 'a {
        let found = table.data_paths.iter().filter_map(|path| find(&self.disks, path));
        found.map(move |(disk, below)| (disk, disk.dir.join(FOLDER).join(self.round(round)).join(below)))
    }

    /// Adds a part that the server leaves out, as it is now: by hard links, as the server does it. False when it is gone meanwhile.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) when the folder of the snapshot cannot be written, and for parts on object disks:
    /// the server counts who refers to an object, and would delete with our links what its own part still has.
    pub(super) async fn add(&self, part: &str, round: u32) -> Result<bool> {
        let Some((disk, below)) = find(&self.disks, part.trim_end_matches('/')) else { return Ok(false) };
        if disk.place == Place::Objects {
            let text = format!("it is on the object disk {}, where only the server itself can hold it", disk.name);
            return Err(Error::environment(text));
        }
        let from = disk.dir.join(below);
        let to = disk.dir.join(FOLDER).join(self.round(round)).join(below);
        blocking(move || link(&from, &to)).await
    }

    /// Holds a part that the server has merged into another one and will remove: by hard links, which are made once. Where they are; none
    /// when it is gone meanwhile.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) when the folder of the snapshot cannot be written.
    pub(super) async fn keep(&self, disk: &Disk, part: &Path) -> Result<Option<PathBuf>> {
        let Some(below) = part.strip_prefix(&disk.dir).ok().filter(|_| disk.place == Place::Local) else {
            return Ok(None);
        };
        let to = disk.dir.join(FOLDER).join(format!("{}_retired", self.name)).join(below);
        let (from, dir) = (part.to_owned(), to.clone());
        Ok(blocking(move || link(&from, &to)).await?.then_some(dir))
    }

    /// Whether the snapshot of these tables can be seen from here: it proves that the directories are the server's own. Tables without a
    /// part leave nothing to be seen; then their own directories must be there.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) when it cannot.
    pub(super) async fn prove(&self, client: &Client, tables: &[&TableDef]) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct Row {
            database: String,
            table: String,
        }
        let dirs: Vec<_> = self.disks.iter().map(|disk| disk.dir.join(FOLDER).join(self.round(0))).collect();
        if blocking(move || Ok(dirs.iter().any(|dir| dir.is_dir()))).await? {
            return Ok(());
        }
        let sql = "SELECT DISTINCT database, table FROM system.parts WHERE active";
        let rows: Vec<Row> = client.listing("its tables with parts", sql).await?;
        let has_parts = |table: &&&TableDef| {
            rows.iter().any(|row| row.database == table.key.database && row.table == table.key.name)
        };
        if tables.iter().find(has_parts).is_none() && self.has_any(tables).await? {
            return Ok(());
        }
        // It is frozen where nobody here can remove it, so the server is asked to, if it knows how (from 22 on).
        let frozen = self.frozen.lock().clone();
        if let Err(error) = by_server(client, &self.round(0), &frozen).await {
            tracing::warn!(name = self.round(0), %error, "a snapshot is left at a server whose directory is not here");
        }
        Err(self.another())
    }

    /// Whether the directory of any of these tables is here. Asked before anything is frozen: what is frozen elsewhere cannot be removed.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) when none is.
    pub(super) async fn look(&self, tables: &[&TableDef]) -> Result<()> {
        if tables.is_empty() || self.has_any(tables).await? { Ok(()) } else { Err(self.another()) }
    }

    async fn has_any(&self, tables: &[&TableDef]) -> Result<bool> {
        let homes: Vec<_> = tables.iter().flat_map(|table| homes(&self.disks, table)).map(|(_, home)| home).collect();
        blocking(move || Ok(homes.iter().any(|dir| dir.is_dir()))).await
    }

    fn another(&self) -> Error {
        let places: Vec<_> = self.disks.iter().map(|disk| disk.dir.display().to_string()).collect();
        let text = format!("{} is not the data directory of the server that answers", places.join(", "));
        Error::environment(text)
    }

    /// Removes the snapshots. What cannot be removed is told.
    pub(super) async fn release(mut self, client: &Client, server: &Server) -> Option<Finding> {
        let left = self.left().await.unwrap_or_default();
        let frozen = std::mem::take(&mut *self.frozen.lock());
        for name in left.iter().filter(|name| name.starts_with(&self.name)) {
            if let Err(error) = remove(client, server, name, &frozen).await {
                let text = format!("the snapshot {name} holds space and cannot be removed: {error}");
                self.released = true;
                return Some(Finding::new(Severity::Warning, "shadow-left", text));
            }
        }
        self.released = true;
        None
    }

    async fn left(&self) -> Result<Vec<String>> {
        let disks = self.disks.clone();
        blocking(move || Ok(leftovers(&disks))).await
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let (mut disks, name) = (std::mem::take(&mut self.disks), std::mem::take(&mut self.name));
        // Whoever is dropped may be on a thread that must not wait for a disk.
        std::thread::spawn(move || {
            // Those on object disks are left for the next backup, which has the server remove them.
            disks.retain(|disk| disk.place == Place::Local);
            for name in leftovers(&disks).iter().filter(|other| other.starts_with(&name)) {
                if let Err(error) = remove_files(&disks, name) {
                    tracing::warn!(name, %error, "a snapshot is left for the next backup to remove");
                }
            }
        });
    }
}

/// Makes `to` a folder with the files of `from`; it stays as it is when it is there already.
fn link(from: &Path, to: &Path) -> Result<bool> {
    let failed = |error| Error::io(to.display(), error);
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    if to.is_dir() {
        return Ok(true);
    }
    let entries = match std::fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if gone(&error) => return Ok(false),
        Err(error) => return Err(Error::io(from.display(), error)),
    };
    std::fs::create_dir_all(to).map_err(failed)?;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let copy = to.join(entry.file_name());
        let linked = match entry.file_type() {
            // A projection.
            Ok(kind) if kind.is_dir() => link(&entry.path(), &copy)?,
            Ok(_) => match std::fs::hard_link(entry.path(), &copy) {
                Ok(()) => true,
                Err(error) if gone(&error) => false,
                Err(error) => return Err(failed(error)),
            },
            Err(error) if gone(&error) => false,
            Err(error) => return Err(failed(error)),
        };
        if !linked {
            std::fs::remove_dir_all(to).map_err(failed)?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// Names of our snapshots on any disk.
fn leftovers(disks: &[Disk]) -> Vec<String> {
    let entries = disks.iter().filter_map(|disk| std::fs::read_dir(disk.dir.join(FOLDER)).ok()).flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(PREFIX)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The tables that have a directory on an object disk.
async fn on_objects(client: &Client, server: &Server) -> Result<Vec<TableKey>> {
    if server.disks.iter().all(|disk| disk.place == Place::Local) {
        return Ok(Vec::new());
    }
    let tables = server.tables(client).await?.into_values().filter(|table| {
        table.kind() == ObjectKind::Parts && homes(&server.disks, table).any(|(disk, _)| disk.place == Place::Objects)
    });
    Ok(tables.map(|table| table.key).collect())
}

/// Removes a snapshot: by ourselves where we may and where it is nothing but files, else by the server, which counts who refers to its objects.
async fn remove(client: &Client, server: &Server, name: &str, tables: &[TableKey]) -> Result<()> {
    let by_files = async |disks: Vec<Disk>| {
        let name = name.to_owned();
        blocking(move || remove_files(&disks, &name)).await
    };
    let (local, objects): (Vec<_>, Vec<_>) = server.disks.iter().cloned().partition(|disk| disk.place == Place::Local);
    let dirs: Vec<_> = objects.iter().map(|disk| disk.dir.join(FOLDER).join(name)).collect();
    let own = dirs.clone();
    let holds = blocking(move || Ok(own.iter().any(|dir| has_files(dir)))).await?;
    let removed = by_files(local).await;
    if !holds && removed.is_ok() {
        return by_files(objects).await;
    }
    by_server(client, name, tables).await?;
    if holds && blocking(move || Ok(dirs.iter().any(|dir| has_files(dir)))).await? {
        let text = "it has objects of tables that are gone, which the server frees only by SYSTEM UNFREEZE (enable_system_unfreeze)";
        return Err(Error::environment(text));
    }
    // What is left are empty folders.
    by_files(server.disks.clone()).await
}

/// Whether there is anything but folders. Blocking.
fn has_files(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut kinds = entries.map(|entry| (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir())));
    kinds.any(|(path, is_dir)| !is_dir || has_files(&path))
}

/// Has the server remove a snapshot: as a whole where its configuration allows that, else table by table.
async fn by_server(client: &Client, name: &str, tables: &[TableKey]) -> crate::Result<()> {
    let quoted = quote::string(name);
    let sql = format!("SYSTEM UNFREEZE WITH NAME {quoted}");
    if client.execute("the end of a snapshot", &sql).await.is_ok() {
        return Ok(());
    }
    for table in tables {
        let sql = format!("ALTER TABLE {} UNFREEZE WITH NAME {quoted}", table.quoted());
        match client.execute("the end of a table's snapshot", &sql).await {
            Ok(()) => {}
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn remove_files(disks: &[Disk], name: &str) -> Result<()> {
    for disk in disks {
        let dir = disk.dir.join(FOLDER).join(name);
        match std::fs::remove_dir_all(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(dir.display(), error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_snapshots_are_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk {
            name: "default".to_owned(),
            path: "/var/lib/clickhouse/".to_owned(),
            dir: dir.path().to_owned(),
            place: Place::Local,
        };
        for name in ["backup_library_1_0/store", "mine/store", "backup-2"] {
            std::fs::create_dir_all(dir.path().join(FOLDER).join(name)).unwrap();
        }
        let disks = [disk];
        assert_eq!(leftovers(&disks), ["backup_library_1_0"]);
        remove_files(&disks, "backup_library_1_0").unwrap();
        remove_files(&disks, "backup_library_1_0").unwrap();
        assert!(leftovers(&disks).is_empty() && dir.path().join(FOLDER).join("mine/store").is_dir());
    }
}
