//! What is in no table: functions of users, users and roles, named collections, macros.
//!
//! Users, roles, quotas, policies and profiles that were made by statements lie in directories that the server tells, mostly the folder `access`
//! of the data directory: a file for each with the statements that attach it (`DiskAccessStorage.cpp`); passwords are there as the server keeps
//! them. Servers that share them keep the same statements in Keeper. Named collections lie in the folder
//! `named_collections` (`NamedCollectionsMetadataStorage.cpp`).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use backup_core::engine::{BackupSink, BackupSinkExt};
use backup_core::entry::EntryMeta;
use backup_core::{Error, Finding, LossyItem, Result, Severity};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::backup::put_json;
use super::keeper;
use crate::client::Client;
use crate::files::blocking;
use crate::layout;
use crate::server::{AccessPlace, Server, find};
use crate::settings::ClickHouseSettings;

/// A file with the definition of a user, a role, … has at most so many bytes.
const MAX_FILE: u64 = 16 << 20;

/// A function that users made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FunctionDef {
    pub(crate) name: String,
    /// The statement that makes it.
    pub(crate) create: String,
}

/// What became of it.
#[derive(Debug, Default)]
pub(super) struct Extras {
    pub(super) findings: Vec<Finding>,
    pub(super) lossy: Vec<LossyItem>,
}

pub(super) async fn put(
    sink: &Arc<dyn BackupSink>,
    client: &Client,
    server: &Server,
    settings: &ClickHouseSettings,
) -> Result<Extras> {
    let mut extras = Extras::default();
    if server.has("functions", "create_query") {
        let sql = "SELECT name, create_query AS create FROM system.functions WHERE create_query != ''";
        for function in client.rows::<FunctionDef>("its functions", sql).await? {
            put_json(sink, layout::object(layout::FUNCTIONS, &function.name)?, &function).await?;
        }
    }
    if server.has_table("macros") {
        let sql = "SELECT macro, substitution FROM system.macros";
        let macros: Vec<serde_json::Map<String, serde_json::Value>> = client.rows("its macros", sql).await?;
        if !macros.is_empty() {
            put_json(sink, layout::macros()?, &macros).await?;
        }
    }
    let mut seen = BTreeSet::new();
    let mut paths: BTreeSet<String> = settings.access_in_keeper.iter().cloned().collect();
    let reached = settings.staging.is_none();
    for (name, place) in server.access_places(client, reached).await? {
        let reason = match place {
            AccessPlace::Files { dir, path, .. } if reached => {
                // Servers make it when they start. Beside the data it is nothing that somebody else has.
                let (own, beside) = (dir.clone(), find(&server.disks, path.trim_end_matches('/')).is_some());
                if beside || blocking(move || Ok(own.is_dir())).await? {
                    files(sink, &dir, layout::ACCESS, &mut extras, &mut seen).await?;
                    continue;
                }
                format!("they are in {path}, which is not on this machine")
            }
            AccessPlace::Files { .. } => UNREACHED.to_owned(),
            AccessPlace::Keeper(path) => {
                paths.insert(path);
                continue;
            }
            AccessPlace::Memory => continue,
            AccessPlace::Elsewhere(reason) => reason.to_owned(),
        };
        extras.lossy.push(LossyItem::new(format!("users and roles of the directory {name}"), reason));
    }
    if !reached {
        unreached(client, server, &mut extras).await?;
    } else if let Ok(disk) = server.default_disk() {
        let dir = disk.dir.join(layout::COLLECTIONS);
        files(sink, &dir, layout::COLLECTIONS, &mut extras, &mut BTreeSet::new()).await?;
    }
    for path in paths {
        let missing = match keeper::entities(client, &path).await {
            Ok(Some(entities)) => {
                for (id, content) in entities {
                    // What both have is the same: the numbers are random.
                    if seen.insert(id.clone()) {
                        sink.put_bytes(EntryMeta::record(layout::object(layout::ACCESS, &id)?), content).await?;
                    }
                }
                continue;
            }
            Ok(None) => "where there are none".to_owned(),
            Err(error @ crate::Error::Server { .. }) => format!("which cannot be read: {error}"),
            Err(error) => return Err(error.into()),
        };
        let reason = format!("they are to be in keeper below {path}, {missing}");
        extras.lossy.push(LossyItem::new("users and roles in keeper", reason));
    }
    Ok(extras)
}

/// Why what lies in the data directory is missing where the server writes by its own `BACKUP`.
const UNREACHED: &str = "they are in the server's data directory, which is not on this machine";

/// What lies in the data directory and no statement shows as it is.
async fn unreached(client: &Client, server: &Server, extras: &mut Extras) -> Result<()> {
    #[derive(Deserialize)]
    struct Row {
        number: u64,
    }
    if server.has_table("named_collections") {
        let sql = "SELECT count() AS number FROM system.named_collections";
        if client.row::<Row>("its named collections", sql).await?.number > 0 {
            extras.lossy.push(LossyItem::new("named collections", UNREACHED));
        }
    }
    Ok(())
}

/// The files `*.sql` of a folder.
async fn files(
    sink: &Arc<dyn BackupSink>,
    dir: &Path,
    folder: &str,
    extras: &mut Extras,
    seen: &mut BTreeSet<String>,
) -> Result<()> {
    let own = dir.to_owned();
    let found = match blocking(move || read_dir(&own)).await {
        Ok(found) => found,
        Err(error) => {
            let text = format!("cannot be read and is missing: {error}");
            extras.findings.push(Finding::new(Severity::Warning, "folder-unreadable", text).about(folder));
            return Ok(());
        }
    };
    for (name, content) in found {
        // What two directories have is the same: the numbers are random.
        if !seen.insert(name.clone()) {
            continue;
        }
        sink.put_bytes(EntryMeta::record(layout::object(folder, &name)?), content).await?;
    }
    Ok(())
}

fn read_dir(dir: &Path) -> Result<Vec<(String, Bytes)>> {
    let failed = |error| Error::io(dir.display(), error);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let meta = entry.metadata().map_err(failed)?;
        if let Some(name) = name.strip_suffix(".sql").filter(|_| meta.is_file()) {
            if meta.len() > MAX_FILE {
                return Err(Error::environment(format!("{} has {} bytes", entry.path().display(), meta.len())));
            }
            found.push((name.to_owned(), std::fs::read(entry.path()).map_err(failed)?.into()));
        }
    }
    found.sort_unstable();
    Ok(found)
}
