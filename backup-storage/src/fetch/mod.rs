//! Fetching packs: their indices, and single segments of them.
//!
//! Whatever is asked for is fetched and decoded once, even when many ask at the same time, and a bounded part of it is
//! kept. Decoding never happens on a thread of the async runtime.

mod decode;
mod places;
mod shelf;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::catalog::{PackId, PackMove};
use backup_crypto::ObjectHeader;
use bytes::Bytes;

use crate::context::Context;
use crate::deposit::state::Noted;
use crate::error::{Error, Result};
use crate::layout;
use crate::pack::{PackIndex, SegmentInfo};
pub(crate) use decode::{Scratches, blocking};
pub(crate) use places::Places;
pub(crate) use shelf::Shelf;

/// Bytes of memory for indices: an index of 16 MiB has some hundred rows of 28 bytes.
const INDEX_BYTES: u64 = 16 << 20;
/// Bytes of memory for decoded segments, at most.
const SEGMENT_BYTES: u64 = 32 << 20;

/// What is known of the packs of one open repository.
pub(crate) struct PackCache {
    context: Arc<Context>,
    places: Places,
    indices: Shelf<PackId, Arc<PackIndex>>,
    segments: Shelf<(PackId, u32), Bytes>,
    scratches: Arc<Scratches>,
    fetched: AtomicU64,
    /// Of a host that only writes: all that it can read.
    noted: Option<Arc<Noted>>,
}

impl PackCache {
    pub(crate) fn new(context: Arc<Context>, places: Places) -> Self {
        let segments = (context.shape.memory_budget / 8).min(SEGMENT_BYTES);
        Self {
            context,
            places,
            indices: Shelf::new(INDEX_BYTES),
            segments: Shelf::new(segments),
            scratches: Arc::new(Scratches::default()),
            fetched: AtomicU64::new(0),
            noted: None,
        }
    }

    /// Of a host that only writes, which has `noted` and no keys.
    pub(crate) fn of_noted(context: Arc<Context>, noted: Arc<Noted>) -> Self {
        Self { noted: Some(noted), ..Self::new(context, Places::Found(Arc::default())) }
    }

    /// Stored bytes that were fetched so far.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Where packs are.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    fn count(&self, bytes: &Bytes) {
        self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    /// Buffers for decoding.
    pub(crate) fn scratches(&self) -> &Arc<Scratches> {
        &self.scratches
    }

    /// The index of a pack, from its two ends.
    ///
    /// # Errors
    /// Damaged, when there is no such pack or it is not what it must be.
    pub(crate) async fn index(&self, id: PackId) -> Result<Arc<PackIndex>> {
        self.indices
            .get_or_make(id, async || {
                let index = self.load_index(id).await?;
                let rows = index.segments().len() * (size_of::<SegmentInfo>() + 4);
                let weight = 512 + rows + size_of_val(index.pieces());
                Ok((Arc::new(index), weight as u64))
            })
            .await
    }

    /// The index of the segments of pack `id`, wherever they are.
    async fn load_index(&self, id: PackId) -> Result<PackIndex> {
        let seen = self.places.seen(id);
        match self.load_at(id, seen).await {
            // It was copied, or the copy was, since the catalog was looked at.
            Err(error) if error.is_not_found() => match self.places.fresh(id).await? {
                fresh if fresh != seen => self.load_at(id, fresh).await,
                _ => Err(error),
            },
            outcome => outcome,
        }
    }

    async fn load_at(&self, id: PackId, moved: Option<PackMove>) -> Result<PackIndex> {
        match moved {
            Some(moved) => self.load_object(moved.to).await?.narrow(moved.base, moved.count),
            None => self.load_object(id).await,
        }
    }

    async fn load_object(&self, id: PackId) -> Result<PackIndex> {
        let name = layout::pack(id)?;
        let store = &self.context.store;
        let (mut tail, len) = store.get_suffix(&name, PackIndex::USUAL_TAIL).await?;
        self.count(&tail);
        let mut header = None;
        loop {
            let header = match &header {
                Some(header) => header,
                // A small pack has come as a whole.
                None if tail.len() as u64 == len => header.insert(tail.slice(..tail.len().min(ObjectHeader::LEN))),
                None => header.insert(store.get_range(&name, 0..ObjectHeader::LEN as u64).await?),
            };
            let (keyring, given) = (self.context.keyring.clone(), (Bytes::clone(header), Bytes::clone(&tail)));
            let parsed = blocking(move || PackIndex::parse(&keyring, id, &given.0, &given.1, len)).await?;
            match parsed {
                Ok(index) => return Ok(index),
                Err(needed) if needed > tail.len() as u64 && needed <= len => {
                    tail = store.get_range(&name, len - needed..len).await?;
                    self.count(&tail);
                }
                Err(_) => return Err(Error::damaged(format!("object {name} is damaged: its footer is cut off"))),
            }
        }
    }

    /// The plaintext of one segment. Kept for a while: neighbouring entries share segments.
    ///
    /// # Errors
    /// Damaged, when it is not what it must be.
    pub(crate) async fn segment(&self, id: PackId, segment: u32) -> Result<Bytes> {
        self.segments
            .get_or_make((id, segment), async || {
                let content = self.segment_once(id, segment).await?;
                let weight = content.len() as u64 + 64;
                Ok((content, weight))
            })
            .await
    }

    /// As [`segment`](Self::segment), for content that nobody will ask for again soon.
    pub(crate) async fn segment_once(&self, id: PackId, segment: u32) -> Result<Bytes> {
        if let Some(noted) = &self.noted {
            let noted = Arc::clone(noted);
            return blocking(move || noted.read(id, segment)).await;
        }
        let index = self.index(id).await?;
        let (index, sealed) = match self.context.store.get_range(index.name(), index.range(segment)?).await {
            Ok(sealed) => (index, sealed),
            // What was copied is deleted after a while, and the index may have been kept for longer.
            Err(error) if error.is_not_found() => {
                let index = Arc::new(self.load_index(id).await?);
                let sealed = self.context.store.get_range(index.name(), index.range(segment)?).await?;
                (index, sealed)
            }
            Err(error) => return Err(error),
        };
        self.count(&sealed);
        let scratches = Arc::clone(&self.scratches);
        blocking(move || {
            let mut scratch = scratches.take()?;
            let mut content = Vec::new();
            index.open(segment, &sealed, &mut scratch, &mut content)?;
            scratches.give(scratch);
            Ok(Bytes::from(content))
        })
        .await
    }
}

impl fmt::Debug for PackCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackCache")
            .field("indices", &self.indices)
            .field("segments", &self.segments)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
