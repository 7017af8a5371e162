//! ClickHouse engine of the backup library: parts verified byte by byte, and definitions that come back in order.
//!
//! A server is read where its files are: each table is frozen by the server itself, all under one name, and the parts in the snapshot are put into the
//! repository file by file. What is known by the server's own hash of it, from whatever part, is not read again. The way back makes the tables by
//! statements and attaches parts that have been verified, into a running server.
//!
//! Where the files cannot be reached, the server's own `BACKUP` writes them into a [`Staging`] folder, and its `RESTORE` reads them from there; what is
//! stored is the same.
//!
//! Files on object disks are read from their objects, with credentials that an [`ObjectDisk`] gives, and come back to local or to object disks.
//!
//! # Features
//! | feature | what it brings |
//! |---|---|
//! | `native-certs` | certificates of servers are judged by those of the operating system, where no roots are given |
//! | `aws`, `gcp`, `azure`, `fs` | object disks on S3, Google Cloud Storage, Azure Blob Storage, in a directory |
//!
//! # The rooms
//! - [`client`]: the HTTP interface of a server.
//! - [`ddl`]: `CREATE` statements: what they make, what they refer to, in which order they can be run.
//! - [`engine`]: the engine and how it reads.
//! - [`export`]: a table of a backup as a file of another format.
//! - [`part`]: the parts of MergeTree tables: names, checksums, hashes, object disks.
//! - [`restore`]: the way back.
//! - [`server`]: what a server says of itself.

pub mod client;
pub mod ddl;
pub mod engine;
mod error;
pub mod export;
mod files;
mod layout;
mod objects;
pub mod part;
pub mod restore;
pub mod server;
mod settings;
mod staging;

pub use engine::{ClickHouse, ClickHouseCluster, ClusterSettings, MemberSettings};
pub use error::{Error, Result};
pub use objects::ObjectDisk;
pub use restore::{OnExisting, RestoreSettings};
pub use server::TableKey;
pub use settings::{ClickHouseSettings, Merged};
pub use staging::{Staging, StagingPlace};
