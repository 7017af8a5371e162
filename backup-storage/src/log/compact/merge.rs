//! Making one piece of many.

use std::sync::Arc;

use backup_core::Lineage;
use backup_core::log::{IndexBuilder, LineageRecord, LogEpoch, LogPurpose};
use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::plan::Merge;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{Scratches, blocking};
use crate::log::name::Piece;
use crate::log::object::{self, Draft, LogObject, Sealed, Sealer, sheet};
use crate::log::stored::Listed;
use crate::pack::Scratch;
use crate::store::Created;

/// Bytes of sources that are fetched ahead, about.
const AHEAD: u64 = 16 << 20;
/// Bytes of a stored piece that are compared at a time.
const COMPARED: u64 = 8 << 20;

/// What became of a merge.
#[derive(Debug)]
pub(super) enum Merged {
    /// The new piece is stored and was read back.
    Stored { piece: Piece, size: u64 },
    /// The new piece has vanished since: somebody has merged it with others.
    Gone { piece: Piece },
    /// This source cannot be read.
    Unreadable { number: usize, error: Error },
    /// An index has no room for the names of this source.
    Full { number: usize },
}

/// Writes new pieces, one after the other.
#[derive(Debug)]
pub(super) struct Merger {
    context: Arc<Context>,
    scratches: Arc<Scratches>,
    epoch: LogEpoch,
    sealer: Option<Sealer>,
    sequence: u64,
    /// Digest of the last new piece.
    previous: Option<[u8; 32]>,
}

/// A new piece in the making. Moves to a thread that may take its time and back for each source.
struct Making {
    sealer: Sealer,
    draft: Draft,
    index: IndexBuilder,
    /// Everything before is in the draft.
    at: u64,
    plain: blake3::Hasher,
}

/// What a source did to the piece.
enum Added {
    Whole(Making),
    Full(Making),
    Unreadable(Making, Error),
}

impl Merger {
    pub(super) fn new(context: Arc<Context>, epoch: LogEpoch) -> Result<Self> {
        let sealer = Sealer::new(&context.keyring, context.shape.level)?;
        Ok(Self { context, scratches: Arc::default(), epoch, sealer: Some(sealer), sequence: 0, previous: None })
    }

    /// Reads the sources of `merge` and stores what they hold as one piece. Every piece repeats what is known of its lineage.
    ///
    /// # Errors
    /// Those of the store; Damaged, with the new piece, when it cannot be read back as it was written.
    pub(super) async fn merge(&mut self, merge: &Merge, record: Option<LineageRecord>) -> Result<Merged> {
        let range = merge.range();
        let piece = Piece { epoch: self.epoch, sequence: self.sequence + 1, start: range.start, end: range.end };
        let name = piece.name(&merge.lineage)?;
        let mut sealer = match self.sealer.take() {
            Some(sealer) => sealer,
            None => Sealer::new(&self.context.keyring, self.context.shape.level)?,
        };
        let draft = sealer.begin(name.clone(), usize::try_from(merge.weight()).unwrap_or(0))?;
        let index = IndexBuilder::default();
        let mut making = Making { sealer, draft, index, at: range.start, plain: blake3::Hasher::new() };
        let largest = merge.sources.iter().map(|listed| listed.size.max(1)).max().unwrap_or(1);
        let ahead = usize::try_from(AHEAD / largest).unwrap_or(1).clamp(1, self.context.shape.transfers * 4);
        let (this, sources) = (&*self, merge.sources.clone().into_iter().enumerate());
        let mut sources = stream::iter(sources)
            .map(|(number, listed)| async move { (number, listed, this.fetch(&merge.lineage, &listed).await) })
            .buffered(ahead)
            .boxed();
        let mut ended = None;
        while let Some((number, listed, fetched)) = sources.next().await {
            let object = match fetched {
                Ok(object) => object,
                Err(error) if says_nothing_of_others(&error) => {
                    ended = Some(Merged::Unreadable { number, error });
                    break;
                }
                Err(error) => return Err(error),
            };
            match this.add(making, merge.lineage.clone(), listed, object).await? {
                Added::Whole(again) => making = again,
                Added::Full(again) => {
                    making = again;
                    ended = Some(Merged::Full { number });
                    break;
                }
                Added::Unreadable(again, error) => {
                    making = again;
                    ended = Some(Merged::Unreadable { number, error });
                    break;
                }
            }
        }
        drop(sources);
        if let Some(ended) = ended {
            self.sealer = Some(making.sealer);
            return Ok(ended);
        }
        let (sealed, plain) = self.seal(making, piece, &merge.lineage, record).await?;
        self.check(&sealed, plain).await?;
        self.store(piece, sealed).await
    }

    async fn fetch(&self, lineage: &Lineage, listed: &Listed) -> Result<Bytes> {
        self.context.store.get(&listed.piece.name(lineage)?).await
    }

    /// Puts what `object`, the piece `listed`, holds behind what there is.
    async fn add(&self, mut making: Making, lineage: Lineage, listed: Listed, object: Bytes) -> Result<Added> {
        let (context, scratches) = (Arc::clone(&self.context), Arc::clone(&self.scratches));
        blocking(move || {
            let name = listed.piece.name(&lineage)?;
            let opened = match object::open_whole(&context.keyring, &name, &object, &scratches) {
                Ok(opened) => opened,
                Err(error) if says_nothing_of_others(&error) => return Ok(Added::Unreadable(making, error)),
                Err(error) => return Err(error),
            };
            let index = &opened.object.sheet().index;
            if !making.index.has_room_for(index) {
                return Ok(Added::Full(making));
            }
            making.index.append(index);
            let mut start = listed.piece.start;
            for part in &opened.content {
                let end = start + part.len() as u64;
                // Of pieces that overlap only what is beyond those before.
                let known = usize::try_from(making.at.clamp(start, end) - start).unwrap_or(part.len());
                making.plain.update(&part[known..]);
                making.sealer.add(&mut making.draft, &part[known..])?;
                making.at = making.at.max(end);
                start = end;
            }
            Ok(Added::Whole(making))
        })
        .await
    }

    async fn seal(
        &mut self,
        making: Making,
        piece: Piece,
        lineage: &Lineage,
        record: Option<LineageRecord>,
    ) -> Result<(Sealed, blake3::Hash)> {
        let Making { mut sealer, draft, index, at, plain } = making;
        if at != piece.end {
            return Err(Error::internal(format!("the sources of {} end at {at}", piece.range(lineage))));
        }
        let sheet = sheet(lineage, &piece, (LogPurpose::Compact, record), self.previous, index.finish());
        let (sealer, sealed) = blocking(move || {
            let sealed = sealer.finish(draft, &sheet)?;
            Ok((sealer, sealed))
        })
        .await?;
        self.sealer = Some(sealer);
        Ok((sealed, plain.finalize()))
    }

    /// Opens what was sealed: what it replaces will be deleted.
    async fn check(&self, sealed: &Sealed, plain: blake3::Hash) -> Result<()> {
        let (keyring, name, bytes) = (self.context.keyring.clone(), sealed.name.clone(), sealed.bytes.clone());
        let opened = blocking(move || {
            let mut scratch = Scratch::new()?;
            let object = LogObject::of_object(&keyring, &name, &bytes, &mut scratch)?;
            let mut hasher = blake3::Hasher::new();
            for number in object.segments(&(object.sheet().start..object.sheet().end)) {
                let range = object.stored(number)?;
                hasher.update(&object.open(number, &bytes[range.start as usize..range.end as usize], &mut scratch)?);
            }
            Ok(hasher.finalize())
        });
        if opened.await? != plain {
            return Err(Error::internal(format!("object {} does not hold what its sources hold", sealed.name)));
        }
        Ok(())
    }

    /// Stores the new piece, and reads it back.
    async fn store(&mut self, piece: Piece, sealed: Sealed) -> Result<Merged> {
        let Sealed { name, bytes, digest } = sealed;
        let store = &self.context.store;
        if let Created::Conflict = store.create(&name, bytes.clone()).await? {
            return Err(Error::conflict(format!("object {name} was written by somebody else")));
        }
        self.sequence = piece.sequence;
        self.previous = Some(digest);
        let size = bytes.len() as u64;
        let mut at = 0;
        while at < size {
            let end = (at + COMPARED).min(size);
            match store.get_range(&name, at..end).await {
                Ok(found) if found[..] == bytes[at as usize..end as usize] => at = end,
                Ok(_) => {
                    return Err(Error::damaged(format!("object {name} was stored and reads back as something else")));
                }
                Err(error) if error.is_not_found() => return Ok(Merged::Gone { piece }),
                Err(error) => return Err(error),
            }
        }
        Ok(Merged::Stored { piece, size })
    }
}

/// Whether an error is one of a single piece. One that this recipient has no key for, or that a newer version wrote, stays as it is.
fn says_nothing_of_others(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment)
}
