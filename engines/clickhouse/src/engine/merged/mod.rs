//! Between backups: which parts stand for one that the server has merged from them.
//!
//! A merge writes old rows anew. A backup that is taken every minute would store each row as often as it is merged. So there a merged part is not
//! stored, but the parts that it was made of: those that the parent has are taken from there, and what came since lies retired on
//! the server's disk for some minutes. That is done only where it is certain.
//! - Names say what was merged: blocks of rows, one after the other.
//! - There are as many rows: nothing was replaced, collapsed or expired, and nothing else came in. What changes rows without changing their
//!   number has another mutation in its name, or is ruled out by the definition.
//! - Also what the parent has is still on the server's disk, retired, with the hash that it has in the parent. After a restart a server that
//!   has nothing left of a table counts from the beginning: names alone would be those of other rows.

mod tiles;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use backup_core::engine::{BackupContext, BackupSource, BackupSourceExt};
use backup_core::entry::{EntryPath, Selector};
use backup_core::{Error, Result};
use futures::TryStreamExt;

use super::frozen::{FrozenPart, rows_of};
use super::record::{PartRecord, PartsRecord, Stand};
use super::shadow::Shadow;
use super::snapshot::PASSING;
use crate::ddl::{Expiry, Statement};
use crate::files::{blocking, read_list};
use crate::layout;
use crate::part::PartName;
use crate::server::{Disk, TableDef, TableKey, homes};
use tiles::{Habit, Origin, Tile};

/// A definition has at most so many bytes.
const MAX_RECORD: u64 = 64 << 20;

/// A table as the parent has it.
#[derive(Debug)]
pub(super) struct Earlier {
    pub(super) def: TableDef,
    pub(super) record: PartsRecord,
}

impl Earlier {
    /// The tables of the parent that have parts.
    ///
    /// # Errors
    /// Those of the source; [`Damaged`](backup_core::ErrorKind::Damaged) when a record cannot be read.
    pub(super) async fn all(parent: &dyn BackupSource) -> Result<BTreeMap<TableKey, Self>> {
        let mut all = BTreeMap::new();
        for (key, record) in PartsRecord::all(parent, |_| true).await? {
            let path = layout::table(layout::METADATA, &key)?;
            let bytes = parent.read_small(&path, MAX_RECORD).await?;
            let wrong = |error| Error::damaged(format!("{path} cannot be read")).with_source(error);
            let def = serde_json::from_slice(&bytes).map_err(wrong)?;
            all.insert(key, Self { def, record });
        }
        Ok(all)
    }
}

/// What stands for a part of the server.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) stand: Stand,
    /// Those that the parent has.
    pub(super) known: Vec<&'a PartRecord>,
    /// Those that are read from the server's disk, linked into the snapshot.
    pub(super) retired: Vec<FrozenPart>,
}

/// What is known of the parts of a table.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    table: TableKey,
    /// By partition, in their order.
    tiles: HashMap<String, Vec<Tile>>,
    parts: HashMap<&'a str, &'a PartRecord>,
    habit: Habit,
    homes: Vec<(Disk, PathBuf)>,
}

impl<'a> Sources<'a> {
    /// Those of a table that is `now`, with what lies in its directories: none where nothing may stand for a merged part.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) when the server's disk cannot be read.
    pub(super) async fn look(earlier: &'a Earlier, now: &TableDef, disks: &[Disk]) -> Result<Option<Self>> {
        // A part of which it is not known what it has could hide where a number is missing.
        let sound = |part: &PartRecord| !part.damaged && part.rows.is_some() && !part.hash.is_empty();
        let all_sound = earlier.record.parts.iter().all(sound) && earlier.record.holder.is_none();
        let habit = habit(now).filter(|_| all_sound && earlier.def.is_same(now));
        let Some(habit) = habit else { return Ok(None) };
        let homes: Vec<_> = homes(disks, now).map(|(disk, home)| (disk.clone(), home)).collect();
        let mut tiles = known(&earlier.record);
        let dirs: Vec<_> = homes.iter().map(|(_, home)| home.clone()).collect();
        let retired = blocking(move || there(&dirs)).await?;
        let names: std::collections::HashSet<_> = tiles.iter().map(|tile| tile.name.clone()).collect();
        tiles.extend(retired.into_iter().filter(|tile| !names.contains(&tile.name)));
        let mut partitions: HashMap<String, Vec<Tile>> = HashMap::new();
        for tile in tiles {
            partitions.entry(tile.name.partition().to_owned()).or_default().push(tile);
        }
        partitions.values_mut().for_each(|tiles| Tile::sort(tiles));
        let parts = earlier.record.parts.iter().map(|part| (part.name.as_str(), part)).collect();
        Ok(Some(Self { table: now.key.clone(), tiles: partitions, parts, habit, homes }))
    }

    /// What stands for `part`. None where it is stored as it is.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) when the server's disk cannot be read or linked.
    pub(super) async fn of(&self, part: &PartRecord, shadow: &Shadow) -> Result<Option<Found<'a>>> {
        let (Ok(name), Some(rows)) = (part.parsed(), part.rows) else { return Ok(None) };
        let Some(tiles) = self.tiles(&name, &part.hash, rows) else { return Ok(None) };
        let mut parts = Vec::new();
        let (mut known, mut retired, mut looked) = (Vec::new(), Vec::new(), Vec::new());
        for tile in tiles {
            match &tile.origin {
                Origin::Retired(home) => {
                    let Some((disk, home)) = self.homes.get(*home) else { return Ok(None) };
                    let Some(dir) = shadow.keep(disk, &home.join(tile.name.to_string())).await? else {
                        return Ok(None);
                    };
                    let (table, disk, name) = (self.table.clone(), disk.name.clone(), tile.name.clone());
                    parts.push(name.to_string());
                    retired.push(FrozenPart { table, disk, name, dir });
                    continue;
                }
                Origin::Parent => parts.push(tile.name.to_string()),
                Origin::Stood(others) => parts.extend(others.iter().cloned()),
            }
            looked.push((tile.name.to_string(), tile.hash.clone()));
        }
        for name in parts.iter().filter(|name| !retired.iter().any(|part| part.name.to_string() == **name)) {
            let Some(record) = self.parts.get(name.as_str()) else { return Ok(None) };
            known.push(*record);
        }
        let homes: Vec<_> = self.homes.iter().map(|(_, home)| home.clone()).collect();
        if !blocking(move || all_are_there(&homes, &looked)).await? {
            return Ok(None);
        }
        let stand = Stand { name: part.name.clone(), hash: part.hash.clone(), rows, parts };
        Ok(Some(Found { stand, known, retired }))
    }

    fn tiles(&self, name: &PartName, hash: &str, rows: u64) -> Option<Vec<&Tile>> {
        let tiles = self.tiles.get(name.partition())?;
        match tiles.iter().find(|tile| tile.name == *name) {
            Some(Tile { origin: Origin::Retired(_), .. }) => {
                // It is there itself, as it is an active part.
                let others: Vec<_> = tiles.iter().filter(|tile| tile.name != *name).cloned().collect();
                let chosen = tiles::of(&others, name, rows, self.habit)?;
                // Without one that is stored already nothing is won.
                let known = chosen.iter().any(|tile| !matches!(tile.origin, Origin::Retired(_)));
                let chosen: Vec<PartName> = chosen.into_iter().map(|tile| tile.name.clone()).collect();
                known.then(|| tiles.iter().filter(|tile| chosen.contains(&tile.name)).collect())
            }
            // What is in the record itself is no merge, and its files are known.
            Some(same) => (same.hash == hash && matches!(same.origin, Origin::Stood(_))).then(|| vec![same]),
            None => None,
        }
    }
}

/// How the table numbers and merges. None where rows change by merges that leave their number as it is.
fn habit(table: &TableDef) -> Option<Habit> {
    let expiry = Statement::parse(table.create.clone()).ok()?.expiry();
    let plain = table.engine.trim_start_matches("Replicated").trim_start_matches("Shared");
    // The one of Graphite rounds moments.
    if expiry == Expiry::Values || plain == "GraphiteMergeTree" {
        return None;
    }
    let keeps_rows = plain == "MergeTree" && expiry == Expiry::Nothing;
    Some(Habit { early_numbers: plain != table.engine, keeps_rows })
}

/// What the parent has.
fn known(record: &PartsRecord) -> Vec<Tile> {
    let parts = record.parts.iter().filter_map(|part| Some((&part.name, &part.hash, part.rows?, Origin::Parent)));
    let stands =
        record.stands.iter().map(|stand| (&stand.name, &stand.hash, stand.rows, Origin::Stood(stand.parts.clone())));
    let all = parts.chain(stands).filter_map(|(name, hash, rows, origin)| {
        Some(Tile { name: PartName::guess(name).ok()?, hash: hash.clone(), rows, origin })
    });
    all.collect()
}

/// What lies in the directories of a table: active parts, and those that were merged into others and are not removed yet. Blocking.
fn there(homes: &[PathBuf]) -> Result<Vec<Tile>> {
    let mut tiles = Vec::new();
    for (number, home) in homes.iter().enumerate() {
        let failed = |error| Error::io(home.display(), error);
        let entries = match std::fs::read_dir(home) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if PASSING.iter().any(|word| name.starts_with(word)) {
                continue;
            }
            if let (Ok(name), Some(rows)) = (PartName::guess(&name), rows_of(&entry.path())) {
                tiles.push(Tile { name, hash: String::new(), rows, origin: Origin::Retired(number) });
            }
        }
    }
    Ok(tiles)
}

/// Whether the parts of these names and hashes are in any of the directories. Blocking.
fn all_are_there(homes: &[PathBuf], parts: &[(String, String)]) -> Result<bool> {
    let is_there = |home: &Path, name: &str, hash: &str| -> Result<bool> {
        // While a server removes a part its list may be there or not.
        let list = read_list(&home.join(name))?;
        Ok(matches!(list, Some(Ok(list)) if list.hash_of_all_files().to_string() == hash))
    };
    for (name, hash) in parts {
        let found = homes.iter().map(|home| is_there(home, name, hash)).collect::<Result<Vec<_>>>()?;
        if !found.contains(&true) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes what lies in `folders` of the parent as it is. The bytes of it.
///
/// # Errors
/// Those of the sink and of the parent.
pub(super) async fn carry(cx: &BackupContext, parent: &dyn BackupSource, folders: Vec<EntryPath>) -> Result<u64> {
    let sink = cx.sink();
    let entries = parent.entries(Selector::within(folders));
    entries
        .map_ok(|entry| async move {
            if entry.meta.identity.is_none() || sink.reuse(entry.meta.clone()).await?.is_none() {
                // What the server has no hash of. It is compared with itself, so nothing of it is stored again.
                let body = parent.read(&entry.meta.path, 0..entry.len);
                sink.put_stream(entry.meta.clone(), body, None).await?;
            }
            Ok(entry.len)
        })
        .try_buffer_unordered(sink.concurrency())
        .try_fold(0, |sum, len| std::future::ready(Ok(sum + len)))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Checksums;
    use crate::part::checksums::NAME;

    fn table(engine: &str, more: &str) -> TableDef {
        TableDef {
            key: TableKey::new("d", "t"),
            engine: engine.to_owned(),
            uuid: None,
            create: format!("CREATE TABLE d.t (`x` UInt64) ENGINE = {engine} ORDER BY x {more}"),
            data_paths: Vec::new(),
            needs: Vec::new(),
            bytes: None,
        }
    }

    fn part(name: &str, rows: u64) -> PartRecord {
        PartRecord { name: name.to_owned(), hash: format!("#{name}"), rows: Some(rows), ..PartRecord::default() }
    }

    /// As a server has a part, without its files.
    fn make(home: &Path, name: &str, rows: u64) {
        std::fs::create_dir(home.join(name)).unwrap();
        std::fs::write(home.join(name).join("count.txt"), rows.to_string()).unwrap();
    }

    #[tokio::test]
    async fn what_stands_for_a_part_goes_on_doing_so() {
        let stand = Stand {
            name: "all_1_2_1".to_owned(),
            hash: "#all_1_2_1".to_owned(),
            rows: 9,
            parts: vec!["all_1_1_0".to_owned(), "all_2_2_0".to_owned()],
        };
        let parts = vec![part("all_1_1_0", 4), part("all_2_2_0", 5), part("all_3_3_0", 1)];
        let def = table("MergeTree", "");
        let earlier = Earlier { def, record: PartsRecord { parts, stands: vec![stand], ..PartsRecord::default() } };
        let home = tempfile::tempdir().unwrap();
        for (name, rows) in [
            ("all_1_2_1", 9),
            ("all_3_3_0", 1),
            ("all_4_4_0", 2),
            ("all_1_4_2", 12),
            ("all_5_6_1", 7),
            ("all_5_5_0", 3),
            ("all_6_6_0", 4),
        ] {
            make(home.path(), name, rows);
        }
        make(home.path(), "tmp_merge_all_1_4_2", 12);
        let mut sources = Sources::look(&earlier, &earlier.def, &[]).await.unwrap().unwrap();
        let retired = there(&[home.path().to_owned()]).unwrap();
        assert_eq!(retired.len(), 7);
        let tiles = sources.tiles.entry("all".to_owned()).or_default();
        let new = retired.into_iter().filter(|tile| !tiles.iter().any(|known| known.name == tile.name));
        let new: Vec<_> = new.collect();
        tiles.extend(new);
        Tile::sort(tiles);
        let tiles = |name: &str, hash: &str, rows| {
            let tiles = sources.tiles(&PartName::guess(name).unwrap(), hash, rows)?;
            Some(tiles.iter().map(|tile| tile.name.to_string()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(tiles("all_1_2_1", "#all_1_2_1", 9).as_deref(), Some("all_1_2_1"));
        assert_eq!(tiles("all_1_2_1", "other", 9), None, "other rows");
        assert_eq!(tiles("all_3_3_0", "#all_3_3_0", 1), None, "it is in the record itself");
        assert_eq!(tiles("all_1_4_2", "any", 12).as_deref(), Some("all_1_2_1 all_3_3_0 all_4_4_0"));
        assert_eq!(tiles("all_5_6_1", "any", 7), None, "nothing of it is stored");
    }

    #[tokio::test]
    async fn some_tables_are_stored_as_they_are() {
        let has_sources = async |before: &TableDef, now: &TableDef| {
            let earlier = Earlier { def: before.clone(), record: PartsRecord::default() };
            Sources::look(&earlier, now, &[]).await.unwrap().is_some()
        };
        let plain = table("MergeTree", "");
        assert!(has_sources(&plain, &plain).await);
        let damaged = PartRecord { damaged: true, ..part("all_1_1_0", 1) };
        let record = PartsRecord { parts: vec![damaged], ..PartsRecord::default() };
        let earlier = Earlier { def: plain.clone(), record };
        assert!(Sources::look(&earlier, &plain, &[]).await.unwrap().is_none(), "who knows what is in it");
        let other = table("MergeTree", "SETTINGS index_granularity = 1");
        assert!(!has_sources(&plain, &other).await, "another definition");
        for (engine, more) in [("ReplicatedGraphiteMergeTree", ""), ("MergeTree", "TTL x GROUP BY x SET y = max(y)")] {
            let table = table(engine, more);
            assert!(!has_sources(&table, &table).await, "{engine} {more}");
        }
        let habits =
            [("MergeTree", ""), ("MergeTree", "TTL x"), ("ReplicatedMergeTree", ""), ("ReplacingMergeTree", "")];
        let habits = habits.map(|(engine, more)| habit(&table(engine, more)).unwrap());
        assert_eq!(habits.map(|habit| habit.keeps_rows), [true, false, true, false]);
        assert_eq!(habits.map(|habit| habit.early_numbers), [false, false, true, false]);
    }

    #[test]
    fn parts_are_looked_for_where_the_server_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let homes = [dir.path().join("none"), dir.path().to_owned()];
        let part = dir.path().join("all_1_1_0");
        std::fs::create_dir(&part).unwrap();
        let asked = [("all_1_1_0".to_owned(), "ab".to_owned())];
        assert!(!all_are_there(&homes, &asked).unwrap(), "without a list it is no part");
        let golden = crate::part::golden::one_18();
        let list = golden.file(NAME);
        std::fs::write(part.join(NAME), list).unwrap();
        let hash = Checksums::parse(list).unwrap().hash_of_all_files().to_string();
        assert!(!all_are_there(&homes, &asked).unwrap());
        assert!(all_are_there(&homes, &[("all_1_1_0".to_owned(), hash)]).unwrap());
        assert!(all_are_there(&homes, &[]).unwrap());
    }
}
