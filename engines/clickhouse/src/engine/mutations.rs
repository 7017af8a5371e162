//! Mutations that had not come to their end when a table was frozen.
//!
//! Source: `MergeTreeMutationEntry.cpp`. A table that is not replicated keeps each `ALTER … UPDATE` or `DELETE` in a file of its folder,
//! `mutation_<number>.txt`; a part whose name ends with a number that is as large has it applied. So parts and files together say exactly
//! what is still to be done, also where running a statement twice would not be the same as once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use backup_core::{Error, Result};
use bytes::Bytes;
use serde::Deserialize;

use super::frozen::FrozenPart;
use super::snapshot::Freezing;
use crate::client::Client;
use crate::files::blocking;
use crate::layout;
use crate::objects::{Bucket, Missing};
use crate::part::ObjectMetadata;
use crate::server::{ObjectKind, Place, Server, TableDef, TableKey, homes};

/// A statement in it has at most so many bytes.
const MAX_FILE: u64 = 16 << 20;

/// A mutation that is to go on.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) table: TableKey,
    /// What the server calls it, and its file.
    pub(super) id: String,
    pub(super) content: Bytes,
}

/// Mutations of each table: which there are, and which are done.
pub(super) type Known = BTreeMap<TableKey, BTreeMap<String, bool>>;

/// What the server says of its mutations.
pub(super) async fn ask(client: &Client, server: &Server) -> Result<Known> {
    #[derive(Deserialize)]
    struct Row {
        database: String,
        table: String,
        mutation_id: String,
        is_done: u8,
    }
    let mut known = Known::new();
    if server.has_table("mutations") {
        let sql = "SELECT database, table, mutation_id, toUInt8(is_done) AS is_done FROM system.mutations";
        for row in client.listing::<Row>("its mutations", sql).await? {
            let table = known.entry(TableKey::new(row.database, row.table)).or_default();
            table.insert(row.mutation_id, row.is_done != 0);
        }
    }
    Ok(known)
}

/// The files of those that go on: they ran `before` the tables were frozen, or a part has them although another may not.
pub(super) async fn pending(
    cx: Freezing<'_>,
    tables: &BTreeMap<TableKey, TableDef>,
    parts: &[FrozenPart],
    before: &Known,
) -> Result<Vec<Pending>> {
    let Freezing { client, server, objects, .. } = cx;
    let after = ask(client, server).await?;
    let mut applied: BTreeMap<&TableKey, BTreeSet<u64>> = BTreeMap::new();
    for part in parts {
        applied.entry(&part.table).or_default().insert(part.name.mutation());
    }
    let mut wanted: BTreeSet<(&TableKey, &String)> = BTreeSet::new();
    for (table, mutations) in before {
        wanted.extend(mutations.iter().filter(|(_, done)| !**done).map(|(id, _)| (table, id)));
    }
    for (table, mutations) in &after {
        let new = mutations.keys().filter(|id| before.get(table).is_none_or(|known| !known.contains_key(*id)));
        let seen =
            |id: &&String| applied.get(table).is_some_and(|applied| number(id).is_some_and(|n| applied.contains(&n)));
        wanted.extend(new.filter(seen).map(|id| (table, id)));
    }
    let mut pending = Vec::new();
    for (key, id) in wanted {
        let table = tables.get(key).filter(|table| table.kind() == ObjectKind::Parts && !table.is_replicated());
        let Some(table) = table.filter(|_| layout::is_mutation(id)) else { continue };
        // One that is done and forgotten meanwhile is in every part that the table has now, not in those that were frozen: but then it was not
        // forgotten within the time of a snapshot, as servers keep the last hundred.
        for (disk, home) in homes(&server.disks, table) {
            let file = home.join(id);
            let content = match objects.of(&server.disks, disk) {
                Some(bucket) => of_objects(bucket, file).await?,
                None if disk.place == Place::Objects => None,
                None => blocking(move || read(&file)).await?,
            };
            if let Some(content) = content {
                pending.push(Pending { table: key.clone(), id: id.clone(), content });
                break;
            }
        }
    }
    Ok(pending)
}

fn number(id: &str) -> Option<u64> {
    id.strip_prefix("mutation_")?.strip_suffix(".txt")?.parse().ok()
}

/// A file of a mutation, if it is there. Blocking.
fn read(file: &Path) -> Result<Option<Bytes>> {
    let failed = |error| Error::io(file.display(), error);
    match std::fs::symlink_metadata(file) {
        Ok(meta) if meta.is_file() && meta.len() <= MAX_FILE => Ok(Some(std::fs::read(file).map_err(failed)?.into())),
        Ok(_) => Err(Error::environment(format!("{} is no file of a mutation", file.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// The same where the file says in which objects its bytes are.
async fn of_objects(bucket: &Bucket, file: PathBuf) -> Result<Option<Bytes>> {
    let own = file.clone();
    let Some(leading) = blocking(move || read(&own)).await? else { return Ok(None) };
    let wrong = |why: &str| Error::environment(format!("{} is no file of a mutation: {why}", file.display()));
    let objects = ObjectMetadata::parse(&leading).map_err(|error| wrong(&error.to_string()))?;
    bucket.whole(&objects, MAX_FILE).await?.map(Some).map_err(|Missing(why)| wrong(&why))
}
