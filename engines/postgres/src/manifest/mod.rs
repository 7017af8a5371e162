//! `backup_manifest`: every file of a base backup with its size and checksum.
//!
//! Source: manual, "Backup Manifest Format"; `src/common/parse_manifest.c` of the server. Version 1 (servers 13 to 16) and
//! version 2 (from 17, with the system identifier) are read. A manifest of a million files has 150 MB, so it is read as it
//! comes and its files are handed out one by one: [`ManifestReader`]. [`Manifest::parse`] collects them for small ones.

mod checksum;
mod json;
mod reader;
mod writer;

pub use self::checksum::{Checksum, ChecksumAlgorithm, FileHasher};
pub use self::reader::{Manifest, ManifestFile, ManifestReader, ManifestSummary, WalRange};
pub use self::writer::ManifestWriter;
