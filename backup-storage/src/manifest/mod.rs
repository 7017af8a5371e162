//! Manifests: the complete list of what a backup consists of.
//!
//! A manifest is a set of *runs*. A run is sorted by path and cut into *parts*; a part is one segment of at most 1 MiB that
//! holds CBOR-encoded [entries](ManifestEntry) one after the other. Most backups have one run; a backup with so many entries
//! that sorting all of them would not fit into memory has several, and readers merge them. The [root](Root) lists the
//! parts with their first paths, and every pack that the backup touches with the bytes it uses of it, so that garbage
//! collection, replication and cost reports never read entries.

mod entry;
mod extent;
mod reader;
mod root;
mod table;
mod writer;

pub(crate) use entry::{BlockMap, Content, ManifestEntry};
pub(crate) use extent::{Extent, SegmentPart, slice, total};
pub(crate) use reader::{ManifestReader, PartSource, decode_part};
pub(crate) use root::{Blob, PackUse, PartRef, Root, decode_packs, decode_parts};
pub(crate) use table::PackTable;
pub(crate) use writer::{ManifestWriter, SegmentSink};
