//! Disks of a server whose files are objects in a store.
//!
//! On such a disk a file of a part only says in which objects its bytes are ([`part::object`](crate::part::object)). They are read and written here
//! with credentials of our own, because a server gives nobody its own. Nothing is listed, and what a server has put is never changed or deleted.

mod bucket;
mod open;

use std::collections::BTreeMap;
use std::fmt;

use backup_core::Result;

use crate::server::{Disk, Place};

pub(crate) use bucket::{Bucket, Missing, file_len};

/// How the objects of a disk are reached. Data, not components.
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ObjectDisk {
    /// The store, and what the keys of the disk begin with: `s3://bucket/prefix/`, `gs://…`, `az://container/…`, `file:///directory/` for one of the
    /// type `local_blob_storage`. The prefix is the path behind the bucket in the `endpoint` of the server's configuration.
    pub url: String,
    /// Options of the store's client in its own words, such as `endpoint`, `access_key_id` and `secret_access_key`. What is not given comes from
    /// the clouds' usual environment variables (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for ObjectDisk {
    /// Without the values of options, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectDisk").field("url", &self.url).field("options", &self.options.keys()).finish()
    }
}

impl ObjectDisk {
    /// The disk whose objects are below `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), options: BTreeMap::new() }
    }

    /// Sets an option of the store's client.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }
}

/// The stores of those disks of which it is known how they are reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Objects(BTreeMap<String, Bucket>);

impl Objects {
    /// Opens them. Nothing is sent yet.
    ///
    /// # Errors
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) for an address or option that no client has, or that was not compiled in;
    /// [`Environment`](backup_core::ErrorKind::Environment) for incomplete credentials.
    pub(crate) fn open(disks: &BTreeMap<String, ObjectDisk>) -> Result<Self> {
        let mut opened = BTreeMap::new();
        for (name, disk) in disks {
            opened.insert(name.clone(), open::open(name, disk)?);
        }
        Ok(Self(opened))
    }

    /// The store of a disk: by its name, or by that of another one with the same directory, as a cache is laid over a disk.
    pub(crate) fn of(&self, disks: &[Disk], disk: &Disk) -> Option<&Bucket> {
        if disk.place != Place::Objects {
            return None;
        }
        let same = disks.iter().filter(|other| other.path == disk.path && other.place == Place::Objects);
        self.0.get(&disk.name).or_else(|| same.filter_map(|other| self.0.get(&other.name)).next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, path: &str, place: Place) -> Disk {
        Disk { name: name.to_owned(), path: path.to_owned(), dir: path.into(), place }
    }

    #[test]
    fn secrets_are_not_shown() {
        let disk = ObjectDisk::new("s3://bucket/x/").option("secret_access_key", "hunter2");
        let shown = format!("{disk:?}");
        assert!(shown.contains("secret_access_key") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_cache_is_the_disk_below_it() {
        let given = BTreeMap::from([("s3".to_owned(), ObjectDisk::new("memory:///"))]);
        let objects = Objects::open(&given).unwrap();
        let disks = [
            disk("default", "/var/lib/clickhouse/", Place::Local),
            disk("cache", "/var/lib/clickhouse/disks/s3/", Place::Objects),
            disk("other", "/var/lib/clickhouse/disks/other/", Place::Objects),
            disk("s3", "/var/lib/clickhouse/disks/s3/", Place::Objects),
        ];
        let has: Vec<_> = disks.iter().map(|disk| objects.of(&disks, disk).is_some()).collect();
        assert_eq!(has, [false, true, false, true]);
    }
}
