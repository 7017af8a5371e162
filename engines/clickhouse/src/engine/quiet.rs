//! Tables in which nothing has happened since the parent.
//!
//! A table is one when its active parts are those of the parent, by their names and by the hashes of all of their files, and its definition is.
//! Names alone prove nothing: after a restart a server that has nothing left of a table counts from the beginning. Servers before 19.11 tell
//! no hashes, so there every table is frozen.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::Result;
use serde::Deserialize;

use super::merged::Earlier;
use crate::client::Client;
use crate::server::{ObjectKind, Place, Server, TableDef, TableKey, find};

/// The tables of which the parent has everything that there is now. Those in `unsettled` are never among them.
///
/// # Errors
/// Those of the server and of the connection.
pub(super) async fn tables(
    client: &Client,
    server: &Server,
    tables: &BTreeMap<TableKey, TableDef>,
    earlier: &BTreeMap<TableKey, Earlier>,
    unsettled: &BTreeSet<TableKey>,
) -> Result<BTreeSet<TableKey>> {
    #[derive(Deserialize)]
    struct Row {
        database: String,
        table: String,
        name: String,
        hash: String,
    }
    if earlier.is_empty() || !server.has("parts", "hash_of_all_files") {
        return Ok(BTreeSet::new());
    }
    let sql = "SELECT database, table, name, lower(hash_of_all_files) AS hash FROM system.parts WHERE active";
    let mut active: BTreeMap<TableKey, BTreeMap<String, String>> = BTreeMap::new();
    for row in client.listing::<Row>("its parts", sql).await? {
        active.entry(TableKey::new(row.database, row.table)).or_default().insert(row.name, row.hash);
    }
    let none = BTreeMap::new();
    let is_quiet = |(key, table): &(&TableKey, &TableDef)| {
        let Some(before) = earlier.get(*key) else { return false };
        // Of what lies elsewhere nothing is stored, and that is told by whoever freezes.
        let here = |path: &String| find(&server.disks, path).is_some_and(|(disk, _)| disk.place == Place::Local);
        table.kind() == ObjectKind::Parts
            && !unsettled.contains(*key)
            && before.def.is_same(table)
            && table.data_paths.iter().all(here)
            && is_same(before, active.get(*key).unwrap_or(&none))
    };
    Ok(tables.iter().filter(is_quiet).map(|(key, _)| key.clone()).collect())
}

fn is_same(before: &Earlier, active: &BTreeMap<String, String>) -> bool {
    let record = &before.record;
    // What was damaged is looked at again.
    let sound = record.mutations.is_empty()
        && record.holder.is_none()
        && record.parts.iter().all(|part| !part.damaged && !part.hash.is_empty());
    let now: BTreeMap<&str, &str> = active.iter().map(|(name, hash)| (name.as_str(), hash.as_str())).collect();
    sound && record.live() == now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{PartRecord, PartsRecord};

    #[test]
    fn only_the_same_parts_are_the_same() {
        let part = |name: &str, hash: &str| PartRecord {
            name: name.to_owned(),
            hash: hash.to_owned(),
            ..PartRecord::default()
        };
        let def = TableDef {
            key: TableKey::new("d", "t"),
            engine: "MergeTree".to_owned(),
            uuid: None,
            create: String::new(),
            data_paths: Vec::new(),
            needs: Vec::new(),
            bytes: None,
        };
        let parts = vec![part("all_1_1_0", "a"), part("all_2_2_0", "b")];
        let mut before = Earlier { def, record: PartsRecord { parts, ..PartsRecord::default() } };
        let active = |parts: &[(&str, &str)]| {
            parts.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let same = active(&[("all_1_1_0", "a"), ("all_2_2_0", "b")]);
        assert!(is_same(&before, &same));
        for other in [
            active(&[("all_1_1_0", "a"), ("all_2_2_0", "c")]),
            active(&[("all_1_1_0", "a")]),
            active(&[("all_1_1_0", "a"), ("all_2_2_0", "b"), ("all_3_3_0", "c")]),
            active(&[("all_1_1_0", "a"), ("all_2_2_0_3", "b")]),
        ] {
            assert!(!is_same(&before, &other), "{other:?}");
        }
        before.record.parts[1].damaged = true;
        assert!(!is_same(&before, &same));
        before.record.parts[1].damaged = false;
        before.record.mutations.push("mutation_3.txt".to_owned());
        assert!(!is_same(&before, &same));
    }
}
