//! Writing a batch: packs in order, each segment decoded once, its parts written wherever they belong.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::catalog::PackId;
use backup_core::engine::Work;
use backup_core::observe::Phase;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::flush::Offers;
use super::handles::Handles;
use super::hands::{Hands, Stop};
use super::plan::{Batch, Run, set_mode};
use super::sync::Ledger;
use super::tree::Tree;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::fetch::PackCache;
use crate::manifest::{Extent, PackUse};
use crate::pack::PackIndex;

/// Segments that one worker decodes in one go.
const CHUNK: usize = 8;

/// What writing needs, for all batches of one extraction.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) context: Arc<Context>,
    pub(super) cache: Arc<PackCache>,
    pub(super) packs: Arc<[PackUse]>,
    /// The session of the backup itself.
    pub(super) session: backup_core::SessionId,
    pub(super) tree: Arc<Tree>,
    pub(super) hands: Arc<Hands>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) work: Work,
    /// Kibibytes of fetched bytes that may be in memory.
    pub(super) budget: Arc<Semaphore>,
    pub(super) transfers: Arc<Semaphore>,
    /// Bytes that were written.
    pub(super) written: AtomicU64,
    /// Takes files that the disk may begin with.
    pub(super) offers: Offers,
}

/// Kibibytes of memory that fetched bytes may take: as many packs as are fetched at a time by default, also while the disk holds
/// everything up. The rest of the budget is for decoding and for the plan.
pub(super) fn budget(context: &Context) -> usize {
    usize::try_from(context.shape.memory_budget / 1024 / 4).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS)
}

/// A batch that is being written.
#[derive(Debug)]
struct Writing {
    writer: Arc<Writer>,
    batch: Batch,
    handles: Handles,
}

/// A part of a segment, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    segment: u32,
    file: u32,
    at: u64,
    from: u32,
    to: u32,
}

/// A sealed segment with its parts.
type Sealed = (u32, Bytes, Range<usize>);

impl Writer {
    /// Writes all of `batch`.
    pub(super) async fn write(self: &Arc<Self>, batch: Batch) -> Result<()> {
        self.written.fetch_add(batch.zeroed, Ordering::Relaxed);
        let writing = Writing { writer: Arc::clone(self), batch, handles: Handles::default() };
        let (writing, packs) = self.hands.run(move |stop| writing.begin(stop)).await?;
        let ahead = self.context.shape.transfers + self.context.shape.workers;
        stream::iter(packs)
            .map(|(pack, runs)| {
                let writing = Arc::clone(&writing);
                async move {
                    let task = AbortOnDropHandle::new(tokio::spawn(async move { writing.pack(pack, runs).await }));
                    task.await.map_err(|e| Error::internal("writing a pack panicked").with_source(e))?
                }
            })
            .buffer_unordered(ahead)
            .try_collect::<()>()
            .await?;
        if let Some(target) = writing.batch.files.iter().find(|t| t.left.load(Ordering::Acquire) > 0) {
            let place = self.tree.places.path(&target.place);
            return Err(Error::internal(format!("{} was not written completely", place.display())));
        }
        Ok(())
    }
}

/// The runs of one pack in a batch.
type PackRuns = Vec<(u32, Range<usize>)>;

impl Writing {
    /// Makes the files that nothing is fetched for, and sorts the rest by packs. Blocking.
    fn begin(mut self, stop: &Stop) -> Result<(Arc<Self>, PackRuns)> {
        let tree = &self.writer.tree;
        for target in &self.batch.files {
            stop.check()?;
            self.writer.ledger.note(&target.place);
            let mut made = target.made.lock();
            if target.left.load(Ordering::Relaxed) == 0 && !*made {
                let file = tree.create(&target.place)?;
                let ready = file.set_len(target.len).and_then(|()| set_mode(&file, target.mode));
                ready.map_err(|e| tree.failed(&target.place, e))?;
                *made = true;
            }
        }
        self.batch.runs.sort_unstable();
        let mut packs: PackRuns = Vec::new();
        for (number, run) in self.batch.runs.iter().enumerate() {
            match packs.last_mut() {
                Some((pack, runs)) if *pack == run.pack => runs.end = number + 1,
                _ => packs.push((run.pack, number..number + 1)),
            }
        }
        Ok((Arc::new(self), packs))
    }

    /// Fetches what is needed of one pack and writes it.
    async fn pack(self: Arc<Self>, number: u32, runs: Range<usize>) -> Result<()> {
        let writer = &self.writer;
        let used = writer.packs.get(number as usize);
        let used = *used.ok_or_else(|| Error::damaged(format!("a manifest has no pack with number {number}")))?;
        let wanted: u64 = self.batch.runs[runs.clone()].iter().map(|run| run.len).sum();
        let parts = Arc::new(parts(&self.batch.runs[runs]));
        // A pack that this backup filled by itself has little in it that a restore does not need.
        let own = used.pack.session == writer.session && wanted >= used.live / 2;
        if own && used.stored_len > 0 && writer.cache.places().seen(used.pack).is_none() {
            match self.whole(used.pack, (used.stored_len, None), Arc::clone(&parts)).await {
                // What is needed of it may have been copied meanwhile.
                Err(error) if error.is_not_found() => {}
                outcome => return outcome,
            }
        }
        let index = writer.cache.index(used.pack).await?;
        let mut ranges = Vec::new();
        let mut stored = 0;
        for group in parts.chunk_by(|a, b| a.segment == b.segment) {
            let range = index.range(group[0].segment)?;
            stored += range.end - range.start;
            ranges.push(range);
        }
        if stored >= index.object_len() / 2 {
            return self.whole(used.pack, (index.object_len(), Some(index)), parts).await;
        }
        let _room = self.room(stored).await?;
        let fetched = {
            let _turn = self.turn().await?;
            writer.context.store.get_ranges(index.name(), &ranges).await?
        };
        self.decode(&index, sealed(&parts, fetched.into_iter()), &parts).await
    }

    /// Fetches the object of `pack`, which has `len` bytes, as a whole. Without an index the pack is the object of its own name.
    async fn whole(
        self: &Arc<Self>,
        pack: PackId,
        (len, index): (u64, Option<Arc<PackIndex>>),
        parts: Arc<Vec<Part>>,
    ) -> Result<()> {
        let writer = &self.writer;
        let name = match &index {
            Some(index) => index.name().clone(),
            None => crate::layout::pack(pack)?,
        };
        let _room = self.room(len).await?;
        let object = {
            let _turn = self.turn().await?;
            writer.context.store.get(&name).await?
        };
        let index = match index {
            Some(index) => index,
            None => {
                let (context, whole) = (Arc::clone(&writer.context), object.clone());
                Arc::new(writer.hands.run(move |_| PackIndex::of_object(&context.keyring, pack, &whole)).await?)
            }
        };
        let mut slices = Vec::new();
        for group in parts.chunk_by(|a, b| a.segment == b.segment) {
            let range = index.range(group[0].segment)?;
            let slice = object.get(range.start as usize..range.end as usize);
            let short = || Error::damaged(format!("object {name} has another length than before"));
            slices.push(object.slice_ref(slice.ok_or_else(short)?));
        }
        self.decode(&index, sealed(&parts, slices.into_iter()), &parts).await
    }

    /// Room in memory for `len` fetched bytes.
    async fn room(&self, len: u64) -> Result<tokio::sync::OwnedSemaphorePermit> {
        let all = u64::try_from(budget(&self.writer.context)).unwrap_or(u64::MAX);
        let permits = u32::try_from(len.div_ceil(1024).clamp(1, all)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.writer.budget).acquire_many_owned(permits).await;
        room.map_err(|e| Error::internal("the memory budget was closed").with_source(e))
    }

    async fn turn(&self) -> Result<tokio::sync::OwnedSemaphorePermit> {
        let turn = Arc::clone(&self.writer.transfers).acquire_owned().await;
        turn.map_err(|e| Error::internal("the transfers were closed").with_source(e))
    }

    async fn decode(
        self: &Arc<Self>,
        index: &Arc<PackIndex>,
        mut segments: Vec<Sealed>,
        parts: &Arc<Vec<Part>>,
    ) -> Result<()> {
        let mut chunks = Vec::new();
        while !segments.is_empty() {
            let rest = segments.split_off(segments.len().min(CHUNK));
            chunks.push(std::mem::replace(&mut segments, rest));
        }
        stream::iter(chunks)
            .map(|chunk| {
                let (writing, index, parts) = (Arc::clone(self), Arc::clone(index), Arc::clone(parts));
                self.writer.hands.run(move |stop| writing.put(&index, chunk, &parts, stop))
            })
            .buffer_unordered(self.writer.context.shape.workers)
            .try_collect()
            .await
    }

    /// Decodes segments and writes their parts. Blocking.
    fn put(&self, index: &PackIndex, segments: Vec<Sealed>, parts: &[Part], stop: &Stop) -> Result<()> {
        let mut scratch = self.writer.cache.scratches().take()?;
        let mut content = Vec::new();
        let mut open: Option<(u32, Arc<File>)> = None;
        let mut written = 0;
        for (segment, sealed, range) in segments {
            stop.check()?;
            index.open(segment, &sealed, &mut scratch, &mut content)?;
            for part in &parts[range] {
                let bytes = content.get(part.from as usize..part.to as usize).ok_or_else(|| {
                    let (name, len, need) = (index.name(), content.len(), part.to);
                    Error::damaged(format!(
                        "object {name} has {len} bytes in segment {segment} where {need} are needed"
                    ))
                })?;
                self.put_part(part, bytes, &mut open)?;
                written += bytes.len() as u64;
            }
        }
        self.writer.cache.scratches().give(scratch);
        self.writer.written.fetch_add(written, Ordering::Relaxed);
        self.writer.work.advanced(Phase::Write, written);
        Ok(())
    }

    fn put_part(&self, part: &Part, bytes: &[u8], open: &mut Option<(u32, Arc<File>)>) -> Result<()> {
        let target = self.batch.files.get(part.file as usize);
        let target = target.ok_or_else(|| Error::internal("a part belongs to no file"))?;
        let tree = &self.writer.tree;
        let file = match open {
            Some((number, file)) if *number == part.file => Arc::clone(file),
            _ => {
                let file = self.handles.get(part.file, target, tree)?;
                *open = Some((part.file, Arc::clone(&file)));
                file
            }
        };
        file.write_all_at(bytes, part.at).map_err(|e| tree.failed(&target.place, e))?;
        let complete = target.left.fetch_sub(1, Ordering::AcqRel) == 1;
        self.writer.offers.wrote(target, &file, bytes.len() as u64, complete, tree);
        if complete {
            set_mode(&file, target.mode).map_err(|e| tree.failed(&target.place, e))?;
            self.handles.close(part.file);
            *open = None;
        }
        Ok(())
    }
}

/// The parts of `runs`, by segments.
fn parts(runs: &[Run]) -> Vec<Part> {
    let mut parts = Vec::with_capacity(runs.len());
    for run in runs {
        let extent = Extent { len: run.len, pack: run.pack + 1, address: run.address };
        parts.extend(extent.segments(run.at).map(|part| Part {
            segment: part.segment,
            file: run.file,
            at: part.at,
            // Both are at most 1 MiB.
            from: part.range.start as u32,
            to: part.range.end as u32,
        }));
    }
    parts.sort_unstable();
    parts
}

/// Each segment of `parts` with its sealed bytes.
fn sealed(parts: &[Part], bytes: impl Iterator<Item = Bytes>) -> Vec<Sealed> {
    let mut start = 0;
    let groups = parts.chunk_by(|a, b| a.segment == b.segment);
    groups
        .zip(bytes)
        .map(|(group, bytes)| {
            let range = start..start + group.len();
            start = range.end;
            (group[0].segment, bytes, range)
        })
        .collect()
}
