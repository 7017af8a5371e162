//! The server's disks, and where they are on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Server, TableDef};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::settings::ClickHouseSettings;

/// Where the content of a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// In files of its directory.
    Local,
    /// In an object store; its files say where.
    Objects,
}

/// A disk of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its name in the server's configuration.
    pub name: String,
    /// Its directory as the server calls it; ends with a slash.
    pub path: String,
    /// Its directory on this machine.
    pub dir: PathBuf,
    /// Where its content is.
    pub place: Place,
}

impl Disk {
    /// The name of the disk that is always there.
    pub const DEFAULT: &str = "default";

    fn new(name: &str, path: &str, place: Place, settings: &ClickHouseSettings) -> Self {
        let given = settings.disks.get(name);
        let given = given.or_else(|| settings.data_dir.as_ref().filter(|_| name == Self::DEFAULT));
        let path = format!("{}/", path.trim_end_matches('/'));
        let dir = given.cloned().unwrap_or_else(|| PathBuf::from(&path));
        Self { name: name.to_owned(), path, dir, place }
    }

    /// Where `path`, as the server calls it, is below this disk: none when it is on another one.
    #[must_use]
    pub fn relative<'a>(&self, path: &'a str) -> Option<&'a Path> {
        let rest = Path::new(path.strip_prefix(&self.path)?);
        // What the server says ends up in paths of this machine.
        let plain = rest.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        (plain && !rest.as_os_str().is_empty()).then_some(rest)
    }
}

/// The disk on which `path`, as the server calls it, is, and where below it: that with the longest path, as one may lie in another.
pub(crate) fn find<'a, 'b>(disks: &'a [Disk], path: &'b str) -> Option<(&'a Disk, &'b Path)> {
    let all = disks.iter().filter_map(|disk| Some((disk, disk.relative(path)?)));
    all.max_by_key(|(disk, _)| disk.path.len())
}

/// The directories of a table, as far as they are on one of these disks.
pub(crate) fn homes<'a>(disks: &'a [Disk], table: &'a TableDef) -> impl Iterator<Item = (&'a Disk, PathBuf)> + 'a {
    let found = table.data_paths.iter().filter_map(|path| find(disks, path));
    found.map(|(disk, below)| (disk, disk.dir.join(below)))
}

pub(super) async fn ask(client: &Client, server: &Server, settings: &ClickHouseSettings) -> Result<Vec<Disk>> {
    #[derive(Deserialize)]
    struct Row {
        name: String,
        path: String,
        kind: String,
    }
    if !server.has_table("disks") {
        return Ok(old(client, settings).await?.into_iter().collect());
    }
    // What was called `local` and `s3` became `Local` and `ObjectStorage`.
    let kind = if server.has("disks", "type") { "lower(type)" } else { "'local'" };
    let sql = format!("SELECT name, path, {kind} AS kind FROM system.disks");
    let rows: Vec<Row> = client.rows("its disks", &sql).await?;
    let mut disks: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let place = if row.kind == "local" { Place::Local } else { Place::Objects };
            Disk::new(&row.name, &row.path, place, settings)
        })
        .collect();
    disks.sort_by_key(|disk| (disk.name != Disk::DEFAULT, disk.name.clone()));
    Ok(disks)
}

/// Servers before 19.15 have one disk and no word for it: each table says where its files are, and that is behind the disk's path.
async fn old(client: &Client, settings: &ClickHouseSettings) -> Result<Option<Disk>> {
    #[derive(Deserialize)]
    struct Row {
        path: String,
    }
    let sql = "SELECT metadata_path AS path FROM system.tables WHERE metadata_path != '' AND database != 'system'
               UNION ALL SELECT metadata_path AS path FROM system.databases WHERE metadata_path != ''";
    let rows: Vec<Row> = client.listing("where its files are", sql).await?;
    let path = rows.iter().find_map(|row| row.path.rsplit_once("/metadata/").map(|(path, _)| path.to_owned()));
    let given = settings.data_dir.as_ref().map(|dir| dir.display().to_string());
    match path.or(given) {
        Some(path) => Ok(Some(Disk::new(Disk::DEFAULT, &path, Place::Local, settings))),
        None => Ok(None),
    }
}

impl Server {
    /// Its storage policies: the names of the disks of each. None where there are none yet (before 19.15).
    ///
    /// # Errors
    /// Those of the server and of the connection.
    pub(crate) async fn policies(&self, client: &Client) -> Result<BTreeMap<String, Vec<String>>> {
        #[derive(Deserialize)]
        struct Row {
            policy: String,
            disks: Vec<String>,
        }
        let mut policies: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if self.has_table("storage_policies") {
            let sql = "SELECT policy_name AS policy, disks FROM system.storage_policies";
            for row in client.rows::<Row>("its storage policies", sql).await? {
                policies.entry(row.policy).or_default().extend(row.disks);
            }
        }
        Ok(policies)
    }

    /// The disk that is always there.
    ///
    /// # Errors
    /// [`Error::Settings`] when the server does not say where it is.
    pub(crate) fn default_disk(&self) -> Result<&Disk> {
        let text = "the server does not say where its data directory is: data_dir must";
        self.disks.first().ok_or_else(|| Error::Settings(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_on_the_disk_with_the_longest_name() {
        let settings = ClickHouseSettings::default().data_dir("/mnt/copy");
        let disks = [
            Disk::new("default", "/var/lib/clickhouse", Place::Local, &settings),
            Disk::new("cold", "/var/lib/clickhouse/disks/cold/", Place::Local, &settings),
        ];
        let (disk, rest) = find(&disks, "/var/lib/clickhouse/store/abc/").unwrap();
        assert_eq!(
            (disk.name.as_str(), disk.dir.as_path(), rest),
            ("default", Path::new("/mnt/copy"), Path::new("store/abc"))
        );
        assert_eq!(find(&disks, "/var/lib/clickhouse/disks/cold/store/abc/").unwrap().0.name, "cold");
        for outside in ["/var/lib/other/x", "/var/lib/clickhouse/", "/var/lib/clickhouse/../x", "store/abc"] {
            assert_eq!(find(&disks, outside), None, "{outside}");
        }
    }
}
