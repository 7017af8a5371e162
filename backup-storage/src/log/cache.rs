//! Fetching log objects: what they say about themselves, and their content.
//!
//! What is small and asked for again is kept: indices, and the segments that a reader of single pages comes back to. Decoding never
//! happens on a thread of the async runtime.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use backup_core::Lineage;
use backup_crypto::ObjectHeader;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::object::{LogObject, open_whole};
use super::stored::Listed;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::fetch::{Scratches, Shelf, blocking};
use crate::store::{ObjectName, Store};

/// Bytes of memory for indices, about.
const INDEX_BYTES: u64 = 16 << 20;
/// Bytes of memory for decoded segments, at most.
const SEGMENT_BYTES: u64 = 32 << 20;
/// Objects up to this size are fetched whole for their index alone: a second request would cost more.
const SMALL: u64 = 64 << 10;
/// So many segments are fetched one by one and kept: who asks for few may come back.
const PAGES: usize = 4;

/// What is known of the log objects of one open repository.
pub(crate) struct LogCache {
    context: Arc<Context>,
    objects: Shelf<ObjectName, Arc<LogObject>>,
    segments: Shelf<(ObjectName, u32), Bytes>,
    scratches: Arc<Scratches>,
}

impl LogCache {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        let segments = (context.shape.memory_budget / 8).min(SEGMENT_BYTES);
        Self {
            context,
            objects: Shelf::new(INDEX_BYTES),
            segments: Shelf::new(segments),
            scratches: Arc::new(Scratches::default()),
        }
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Buffers for decoding.
    pub(crate) fn scratches(&self) -> &Arc<Scratches> {
        &self.scratches
    }

    /// What the object of `listed` says about itself.
    ///
    /// # Errors
    /// Damaged, when there is no such object or it is not what it must be.
    pub(crate) async fn object(&self, store: &Store, lineage: &Lineage, listed: &Listed) -> Result<Arc<LogObject>> {
        let name = listed.piece.name(lineage)?;
        self.objects
            .get_or_make(name.clone(), async || {
                let object = self.load(store, &name, listed.size).await?;
                let index = &object.sheet().index;
                let names: usize = index.names.iter().map(|name| name.name.len() + 48).sum();
                let weight = 1024 + index.samples.len() * 24 + names;
                Ok((Arc::new(object), weight as u64))
            })
            .await
    }

    async fn load(&self, store: &Store, name: &ObjectName, size: u64) -> Result<LogObject> {
        let header = ObjectHeader::LEN as u64;
        let (mut tail, head) = if size <= SMALL {
            let whole = store.get(name).await?;
            let head = whole.slice(..whole.len().min(ObjectHeader::LEN));
            (whole, head)
        } else {
            let tail = store.get_range(name, size - LogObject::USUAL_TAIL..size);
            futures::try_join!(tail, store.get_range(name, 0..header))?
        };
        // A whole object tells its length itself; whether it is the listed one is told by its contents.
        let len = if size <= SMALL { tail.len() as u64 } else { size };
        loop {
            let (keyring, scratches) = (self.context.keyring.clone(), Arc::clone(&self.scratches));
            let (named, given, from) = (name.clone(), Bytes::clone(&tail), Bytes::clone(&head));
            let parsed = blocking(move || {
                let mut scratch = scratches.take()?;
                let parsed = LogObject::parse(&keyring, &named, (&from, &given, len), &mut scratch)?;
                scratches.give(scratch);
                Ok(parsed)
            });
            match parsed.await? {
                Ok(object) => return Ok(object),
                Err(needed) if needed > tail.len() as u64 && needed <= len => {
                    tail = store.get_range(name, len - needed..len).await?;
                }
                Err(_) => return Err(Error::damaged(format!("object {name} is damaged: its footer is cut off"))),
            }
        }
    }

    /// The log at `offsets`, which lie in the piece, in parts of at most 1 MiB.
    ///
    /// # Errors
    /// Damaged, when the object is not what it must be.
    pub(crate) async fn content(
        &self,
        store: &Store,
        lineage: &Lineage,
        listed: &Listed,
        offsets: Range<u64>,
    ) -> Result<Vec<Bytes>> {
        if offsets == listed.piece.offsets() {
            return self.whole(store, &listed.piece.name(lineage)?).await;
        }
        let object = self.object(store, lineage, listed).await?;
        let numbers = object.segments(&offsets);
        let segments: Vec<Bytes> = if numbers.len() > PAGES {
            self.stretch(store, &object, numbers.clone()).await?
        } else {
            let parts = stream::iter(numbers.clone()).map(|number| self.segment(store, &object, number));
            parts.buffered(self.context.shape.transfers).try_collect().await?
        };
        let mut content = Vec::new();
        for (number, segment) in numbers.zip(segments) {
            let held = object.offsets(number);
            // Both lie inside of a segment.
            let from = offsets.start.clamp(held.start, held.end) - held.start;
            let to = offsets.end.clamp(held.start, held.end) - held.start;
            if from < to {
                content.push(segment.slice(from as usize..to as usize));
            }
        }
        Ok(content)
    }

    /// Many segments in a row, by one request. They are not kept, as those of a whole object are not.
    async fn stretch(&self, store: &Store, object: &Arc<LogObject>, numbers: Range<u32>) -> Result<Vec<Bytes>> {
        let (first, last) = (object.stored(numbers.start)?, object.stored(numbers.end.saturating_sub(1))?);
        let sealed = store.get_range(object.name(), first.start..last.end).await?;
        let (object, scratches) = (Arc::clone(object), Arc::clone(&self.scratches));
        blocking(move || {
            let mut scratch = scratches.take()?;
            let segments = numbers.map(|number| {
                let range = object.stored(number)?;
                let part = sealed.slice((range.start - first.start) as usize..(range.end - first.start) as usize);
                object.open(number, &part, &mut scratch)
            });
            let segments = segments.collect::<Result<Vec<_>>>()?;
            scratches.give(scratch);
            Ok(segments)
        })
        .await
    }

    /// The content of a whole object. Nobody will ask for it again soon, so it is not kept.
    async fn whole(&self, store: &Store, name: &ObjectName) -> Result<Vec<Bytes>> {
        let bytes = store.get(name).await?;
        let (keyring, scratches, name) = (self.context.keyring.clone(), Arc::clone(&self.scratches), name.clone());
        blocking(move || Ok(open_whole(&keyring, &name, &bytes, &scratches)?.content)).await
    }

    async fn segment(&self, store: &Store, object: &Arc<LogObject>, number: u32) -> Result<Bytes> {
        self.segments
            .get_or_make((object.name().clone(), number), async || {
                let sealed = store.get_range(object.name(), object.stored(number)?).await?;
                let (object, scratches) = (Arc::clone(object), Arc::clone(&self.scratches));
                let content = blocking(move || {
                    let mut scratch = scratches.take()?;
                    let content = object.open(number, &sealed, &mut scratch)?;
                    scratches.give(scratch);
                    Ok(content)
                });
                let content = content.await?;
                let weight = content.len() as u64 + 64;
                Ok((content, weight))
            })
            .await
    }
}

impl fmt::Debug for LogCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogCache")
            .field("objects", &self.objects)
            .field("segments", &self.segments)
            .finish_non_exhaustive()
    }
}
