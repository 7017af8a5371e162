//! What is fetched for which file: entries in, batches out.
//!
//! A batch is as much of a backup as fits into bounded memory. Inside of a batch everything is done in the order of packs,
//! so a pack is fetched once per batch, however its content is spread over files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use backup_core::engine::Work;
use backup_core::observe::Phase;
use backup_crypto::EpochId;
use futures::stream::{self, Stream, StreamExt};
use parking_lot::Mutex;

use super::delta::{self, Content, Failure, Missing};
use super::hands::Hands;
use super::place::Place;
use super::tree::Tree;
use crate::error::Result;
use crate::keyring::DEPOSITS;
use crate::manifest::{Extent, ManifestEntry};
use crate::pack::SEGMENT;
use crate::pipeline::parent::UNKNOWN;
use crate::reader::BackupReader;

/// Runs per batch: 16 MiB of memory. In tests small, so that there are several batches.
const RUNS: usize = if cfg!(test) { 7 } else { 500_000 };
/// Files per batch.
const FILES: usize = if cfg!(test) { 5 } else { 50_000 };

/// A file to be written.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) place: Place,
    pub(super) mode: u32,
    pub(super) len: u64,
    /// Whether it exists, with its final length.
    pub(super) made: Mutex<bool>,
    /// Parts of segments that are still to be written.
    pub(super) left: AtomicU32,
    /// Bytes that were written.
    pub(super) written: AtomicU64,
}

/// A run of a pack, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run {
    /// The pack's index in the pack table.
    pub(super) pack: u32,
    pub(super) address: u64,
    pub(super) len: u64,
    /// Number of the file in the batch.
    pub(super) file: u32,
    /// Where in the file.
    pub(super) at: u64,
}

/// Files that are written together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) files: Vec<Target>,
    pub(super) runs: Vec<Run>,
    /// Bytes that were set to zero while the files were compared.
    pub(super) zeroed: u64,
}

/// What has to be done about one entry.
#[derive(Debug)]
pub(super) struct Planned {
    target: Target,
    missing: Vec<Missing>,
    zeroed: u64,
}

impl Batch {
    pub(super) fn is_full(&self) -> bool {
        self.runs.len() >= RUNS || self.files.len() >= FILES
    }

    pub(super) fn add(&mut self, planned: Planned) {
        let file = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        self.zeroed += planned.zeroed;
        self.runs.extend(planned.missing.iter().filter_map(|missing| {
            let extent = missing.extent;
            Some(Run { pack: extent.pack_index()?, address: extent.address, len: extent.len, file, at: missing.at })
        }));
        self.files.push(planned.target);
    }
}

/// In how many segments the run lies.
fn segments(missing: &Missing) -> u32 {
    let offset = missing.extent.address & (SEGMENT as u64 - 1);
    u32::try_from((offset + missing.extent.len).div_ceil(SEGMENT as u64)).unwrap_or(u32::MAX)
}

/// Finds out what entries need.
#[derive(Debug)]
pub(super) struct Planner<'a> {
    pub(super) reader: &'a BackupReader,
    pub(super) tree: &'a Arc<Tree>,
    pub(super) hands: &'a Arc<Hands>,
    pub(super) work: &'a Work,
    pub(super) delta: bool,
}

impl Planner<'_> {
    /// Plans `entries`, several at a time.
    pub(super) fn plan<'s>(
        &'s self,
        entries: impl Stream<Item = Result<ManifestEntry>> + Send + 's,
    ) -> impl Stream<Item = Result<Planned>> + Send + 's {
        let ahead = self.reader.context().shape.workers * 2;
        entries
            .map(|entry| async { self.entry(entry?).await })
            // Files are small for the most part, so a large one holds the others up for a moment at most.
            .buffered(ahead)
    }

    /// Plans a few entries at once.
    pub(super) fn few(&self, entries: Vec<ManifestEntry>) -> impl Stream<Item = Result<Planned>> + Send + '_ {
        self.plan(stream::iter(entries.into_iter().map(Ok)))
    }

    async fn entry(&self, entry: ManifestEntry) -> Result<Planned> {
        let place = self.tree.places.locate(&entry.meta.path);
        let extents = self.reader.content(&entry).await?;
        let (made, missing, zeroed) = if self.delta {
            self.compared(&entry, &place, extents).await?
        } else {
            (false, delta::stored(&extents, 0), 0)
        };
        let left = missing.iter().map(segments).fold(0, u32::saturating_add);
        let (made, left, written) = (Mutex::new(made), AtomicU32::new(left), AtomicU64::new(0));
        let target = Target { place, mode: entry.meta.mode, len: entry.len, made, left, written };
        Ok(Planned { target, missing, zeroed })
    }

    /// Whether the file of `entry` is there, what it lacks, and how many bytes of it were set to zero.
    async fn compared(
        &self,
        entry: &ManifestEntry,
        place: &Place,
        extents: Vec<Extent>,
    ) -> Result<(bool, Vec<Missing>, u64)> {
        let (keyring, epoch) = (&self.reader.context().keyring, EpochId(entry.blocks.epoch()));
        let mut hashes = self.reader.block_map(entry).await?;
        let key = match keyring.hash_key_in(epoch, self.reader.root().session) {
            // Taken over from what a host had deposited, and the map does not say which: nothing can be compared.
            Err(_) if epoch == DEPOSITS => {
                hashes.fill(UNKNOWN);
                keyring.hash_key(keyring.current())?
            }
            key => key?,
        };
        let content = Content { len: entry.len, extents, hashes, key };
        let (work, tree, place) = (self.work.clone(), Arc::clone(self.tree), place.clone());
        let mode = entry.meta.mode;
        self.hands
            .run(move |stop| {
                let Some(file) = delta::standing(&tree, &place)? else {
                    work.advanced(Phase::Compare, content.len);
                    return Ok((false, delta::stored(&content.extents, 0), 0));
                };
                let compared = |bytes| work.advanced(Phase::Compare, bytes);
                let difference = delta::compare(&file, &content, stop, compared).and_then(|difference| {
                    if difference.missing.is_empty() {
                        set_mode(&file, mode)?;
                    }
                    Ok(difference)
                });
                let difference = difference.map_err(|failure| match failure {
                    Failure::Io(error) => tree.failed(&place, error),
                    Failure::Other(error) => error,
                })?;
                Ok((true, difference.missing, difference.zeroed))
            })
            .await
    }
}

/// Gives a file its final permission bits.
pub(super) fn set_mode(file: &std::fs::File, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(mode & 0o7777))
}
