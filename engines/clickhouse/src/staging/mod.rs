//! Where the server's own `BACKUP` and `RESTORE` leave and find files, for servers whose data directory is not on this machine.
//!
//! Source: "Backup and Restore in ClickHouse" of the manual; `src/Backups/BackupImpl.cpp`, `BackupsWorker.cpp`. Whatever is written there is there
//! only while a backup or a restore runs: what is kept is in the repository.

mod area;
mod manifest;
mod operation;

pub(crate) use area::Area;
pub(crate) use manifest::Manifest;
pub(crate) use operation::Operation;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::ddl::quote;
use crate::server::{ObjectKind, TableDef, TableKey};

/// The oldest release whose `BACKUP` is used: before, tables could be missing without a word.
pub(crate) const SINCE: (u32, u32) = (23, 4);

/// A folder that the server writes and reads by itself, and that is on this machine, too: of a network file system, or of the host of the server whose other
/// directories this process may not enter.
///
/// The server's configuration must allow it: `backups.allowed_path`, or `backups.allowed_disk`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Staging {
    /// What the server calls it.
    pub place: StagingPlace,
    /// Where it is on this machine.
    pub dir: PathBuf,
}

/// What a server calls a folder to which it writes backups.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StagingPlace {
    /// A path on its machine: `File('…')`.
    File(PathBuf),
    /// A path on one of its disks: `Disk('…', '…')`.
    Disk {
        /// The name of the disk.
        disk: String,
        /// The path there; empty for all of it.
        path: String,
    },
}

impl Staging {
    /// A folder that is in `dir` here, and at the path `there` of the server's machine.
    #[must_use]
    pub fn file(there: impl Into<PathBuf>, dir: impl Into<PathBuf>) -> Self {
        Self { place: StagingPlace::File(there.into()), dir: dir.into() }
    }

    /// A folder that is in `dir` here, and is the folder `path` of the server's disk `disk`.
    #[must_use]
    pub fn disk(disk: impl Into<String>, path: impl Into<String>, dir: impl Into<PathBuf>) -> Self {
        Self { place: StagingPlace::Disk { disk: disk.into(), path: path.into() }, dir: dir.into() }
    }

    /// The folder `name` in it, as a statement has it.
    fn destination(&self, name: &str) -> String {
        match &self.place {
            StagingPlace::File(there) => format!("File({})", quote::string(&there.join(name).display().to_string())),
            StagingPlace::Disk { disk, path } => {
                let path = match path.trim_end_matches('/') {
                    "" => name.to_owned(),
                    path => format!("{path}/{name}"),
                };
                format!("Disk({}, {})", quote::string(disk), quote::string(&path))
            }
        }
    }
}

/// What statements about backups call `table`: a table behind a materialized view is part of the view there (`StorageMaterializedView::backupData`).
pub(crate) fn spoken_of<'a>(tables: &'a BTreeMap<TableKey, TableDef>, table: &'a TableDef) -> &'a TableDef {
    let behind = |view: &&TableDef| view.kind() == ObjectKind::MaterializedView && view.inner() == table.key;
    tables.values().find(|view| table.is_inner() && behind(view)).unwrap_or(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_called_as_the_server_has_them() {
        assert_eq!(Staging::file("/mnt/it's", "/x").destination("one"), r"File('/mnt/it\'s/one')");
        assert_eq!(Staging::disk("backups", "", "/x").destination("one"), "Disk('backups', 'one')");
        assert_eq!(Staging::disk("backups", "a/b/", "/x").destination("one"), "Disk('backups', 'a/b/one')");
    }
}
