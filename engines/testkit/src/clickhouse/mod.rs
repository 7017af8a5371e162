//! Real servers of ClickHouse: 18.16, which Debian 12 ships, and 26, the newest line.
//!
//! The old one is Debian's own build, unpacked beside the system with all that it needs. The new one has no build that an
//! ordinary package client brings, but its engine has: `chdb-core` of the Python world is the server as a library, with its
//! configuration file, its directories and everything that a backup deals with. A small front in Python speaks
//! ClickHouse's HTTP interface for it (`front.py`, which says what differs). Where a test must have the real thing, or
//! another version, [`ClickHouseVersion::variable`] names an installed server.

mod binaries;
mod builder;
mod config;
pub mod dataset;
mod digest;
mod http;
mod server;
mod version;

pub use binaries::ClickHouseBinaries;
pub use builder::ClickHouseBuilder;
pub use digest::{TableDigest, digest, digests, identifier, literal};
pub use http::HttpAnswer;
pub use server::ClickHouse;
pub use version::{ClickHouseVersion, clickhouse_versions_under_test};
