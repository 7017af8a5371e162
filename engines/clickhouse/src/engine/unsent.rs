//! Rows that `Distributed` tables have taken and not sent to their shards yet: they are in no table, so no snapshot has them.
//!
//! Source: "Distributed Table Engine" in the manual. Each block is a file `N.bin` in a folder for the shard, below the table's own; what a shard
//! has refused for good lies in `broken` there. From 20.1 on `system.distribution_queue` tells the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backup_core::{Error, LossyItem, Result};
use serde::Deserialize;

use crate::client::Client;
use crate::ddl::escape_for_file_name;
use crate::files::blocking;
use crate::server::{Server, TableKey, homes};

/// The folder of what is not tried again, in that of a shard.
const BROKEN: &str = "broken";

/// What a table has not sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Waiting {
    files: u64,
    bytes: u64,
}

/// What waits at a moment, by table.
#[derive(Debug, Default)]
pub(super) struct Unsent(BTreeMap<TableKey, Waiting>);

impl Unsent {
    /// Asks the server; one that cannot tell is looked at by its files.
    ///
    /// # Errors
    /// Those of the server and of the connection; [`Environment`](backup_core::ErrorKind::Environment) when a table's folder cannot be read.
    pub(super) async fn ask(client: &Client, server: &Server) -> Result<Self> {
        match server.has("distribution_queue", "data_files") {
            true => Self::told(client, server).await,
            false => Self::found(client, server).await,
        }
    }

    async fn told(client: &Client, server: &Server) -> Result<Self> {
        #[derive(Deserialize)]
        struct Row {
            database: String,
            table: String,
            files: u64,
            bytes: u64,
        }
        let (mut files, mut bytes) = ("data_files".to_owned(), "data_compressed_bytes".to_owned());
        if server.has("distribution_queue", "broken_data_files") {
            files.push_str(" + broken_data_files");
            bytes.push_str(" + broken_data_compressed_bytes");
        }
        let sql = format!(
            "SELECT database, table, toUInt64(sum({files})) AS files, toUInt64(sum({bytes})) AS bytes
             FROM system.distribution_queue GROUP BY database, table HAVING files > 0"
        );
        let rows: Vec<Row> = client.listing("rows that are to be sent", &sql).await?;
        let waiting =
            |row: Row| (TableKey::new(row.database, row.table), Waiting { files: row.files, bytes: row.bytes });
        Ok(Self(rows.into_iter().map(waiting).collect()))
    }

    async fn found(client: &Client, server: &Server) -> Result<Self> {
        let mut all = BTreeMap::new();
        for (key, table) in server.tables(client).await? {
            if table.engine != "Distributed" {
                continue;
            }
            let mut dirs: Vec<PathBuf> = homes(&server.disks, &table).map(|(_, home)| home).collect();
            if let (true, Some(disk)) = (dirs.is_empty(), server.disks.first()) {
                let names = [&key.database, &key.name].map(|name| escape_for_file_name(name));
                dirs.push(names.iter().fold(disk.dir.join("data"), |dir, name| dir.join(name)));
            }
            let waiting =
                blocking(move || dirs.iter().try_fold(Waiting::default(), |sum, dir| below(dir, sum, 0))).await?;
            if waiting.files > 0 {
                all.insert(key, waiting);
            }
        }
        Ok(Self(all))
    }

    /// What a backup says is missing: of each table the most that was seen.
    pub(super) fn lossy(self, later: Self) -> impl Iterator<Item = LossyItem> {
        let mut all = self.0;
        for (table, waiting) in later.0 {
            let most = all.entry(table).or_default();
            *most = Waiting { files: most.files.max(waiting.files), bytes: most.bytes.max(waiting.bytes) };
        }
        all.into_iter().map(|(table, Waiting { files, bytes })| {
            let why = format!(
                "{files} blocks of {bytes} bytes wait to be sent and are in no table yet; SYSTEM FLUSH DISTRIBUTED sends them"
            );
            LossyItem::new(format!("rows that {table} has taken and not sent"), why)
        })
    }
}

/// Adds what waits below a folder of a table (`depth` 0), of a shard (1), or of what that has refused (2). Blocking.
fn below(dir: &Path, mut sum: Waiting, depth: usize) -> Result<Waiting> {
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let failed = |error| Error::io(dir.display(), error);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if gone(&error) => return Ok(sum),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // What is sent meanwhile is gone.
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            Err(error) if gone(&error) => continue,
            Err(error) => return Err(failed(error)),
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        if meta.is_dir() && (depth == 0 || depth == 1 && name == BROKEN) {
            sum = below(&entry.path(), sum, depth + 1)?;
        } else if meta.is_file() && depth > 0 && name.ends_with(".bin") {
            sum = Waiting { files: sum.files + 1, bytes: sum.bytes + meta.len() };
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_and_those_that_are_written_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let shard = dir.path().join("shard1_replica1");
        for folder in ["tmp", BROKEN] {
            std::fs::create_dir_all(shard.join(folder)).unwrap();
        }
        for (name, content) in
            [("1.bin", "abc"), ("2.bin", "de"), ("current_batch.txt", "1"), ("tmp/3.bin", "x"), ("broken/4.bin", "f")]
        {
            std::fs::write(shard.join(name), content).unwrap();
        }
        std::fs::write(dir.path().join("stray.bin"), "").unwrap();
        let found = below(dir.path(), Waiting::default(), 0).unwrap();
        assert_eq!(found, Waiting { files: 3, bytes: 6 });
        assert_eq!(below(&dir.path().join("none"), found, 0).unwrap(), found);
    }

    #[test]
    fn the_most_that_was_seen_is_told() {
        let at = |files, bytes| Unsent(BTreeMap::from([(TableKey::new("d", "t"), Waiting { files, bytes })]));
        let told: Vec<_> = at(3, 30).lossy(at(2, 50)).collect();
        assert_eq!(told.len(), 1);
        assert!(told[0].item.contains("d.t") && told[0].reason.contains("3 blocks of 50 bytes"), "{told:?}");
        assert_eq!(Unsent::default().lossy(at(1, 1)).count(), 1);
        assert_eq!(Unsent::default().lossy(Unsent::default()).count(), 0);
    }
}
