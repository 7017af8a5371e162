//! The names of what a backup is made of, and of what its header says. They are stored: none is ever given another meaning.

use backup_core::entry::EntryPath;
use backup_core::{Lineage, LogPosition, Result};

use crate::client::StreamPosition;

/// The entry of the data: a snapshot file as the server writes it.
pub const DUMP: &str = "dump.rdb";
/// The record of the users: the lines of `ACL LIST`. Passwords are there as digests.
pub const USERS: &str = "records/acl";
/// The record of the configuration: a JSON object of what `CONFIG GET *` says, passwords included.
pub const CONFIGURATION: &str = "records/config.json";
/// The record of the functions: what `FUNCTION DUMP` gives and `FUNCTION RESTORE` takes. Only where there are any.
pub const FUNCTIONS: &str = "records/functions";
/// The record of the modules: a JSON array of objects, as `MODULE LIST` tells. Only where there are any.
pub const MODULES: &str = "records/modules.json";
/// The record of the cluster's layout: the lines of `CLUSTER NODES`. Only of members of a cluster.
pub const CLUSTER: &str = "records/cluster-nodes";
/// The record of what the server said about itself: the text of `INFO everything`.
pub const INFO: &str = "records/info";

/// Fact: `redis` or `valkey`.
pub const PRODUCT: &str = "product";
/// Fact: `primary` or `replica`.
pub const ROLE: &str = "role";
/// Fact: the version of the snapshot file, e.g. `redis 11`.
pub const RDB_VERSION: &str = "rdb_version";
/// Fact: keys in all databases, as far as they could be counted.
pub const KEYS: &str = "keys";
/// Fact: keys with an expiry.
pub const EXPIRES: &str = "expires";
/// Fact: the keys of each database, e.g. `0=12,3=4`.
pub const DATABASES: &str = "databases";
/// Fact: the database that the stream is in at the position of the snapshot.
pub const STREAM_DATABASE: &str = "stream_database";
/// Fact: `all`, or how many bytes of the file could be counted.
pub const COUNTED: &str = "counted";
/// Fact: whether the file's checksum was compared: `verified` or `off`.
pub const CHECKSUM: &str = "checksum";
/// Fact: the slots of a cluster's member, e.g. `0-5460,7000`.
pub const SLOTS: &str = "slots";
/// Fact: the member's name in the cluster.
pub const NODE: &str = "node";

/// Fact: by how many bytes of the stream the replica that was read was behind its primary when it was chosen. Only of a member that was
/// read from a replica.
pub const LAG: &str = "lag_bytes";
/// Fact: how many primaries with slots a cluster had.
pub const PRIMARIES: &str = "primaries";

/// The path of an entry.
pub(crate) fn path(name: &str) -> Result<EntryPath> {
    EntryPath::new(name)
}

/// A position of the stream as one of the log.
pub(crate) fn position(at: &StreamPosition) -> LogPosition {
    LogPosition::new(Lineage::new(at.id.clone()), at.offset, at.offset.to_string())
}
