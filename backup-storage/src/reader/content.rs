//! The content of one entry as a stream.

use std::ops::Range;

use backup_core::catalog::PackId;
use backup_core::entry::EntryPath;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::BackupReader;
use crate::error::{Error, Result};
use crate::manifest::{Extent, SegmentPart, slice};
use crate::pack::SEGMENT;

static ZEROS: [u8; SEGMENT] = [0; SEGMENT];

/// One piece of a content, at most 1 MiB.
enum Piece {
    Zeros(usize),
    Stored(PackId, SegmentPart),
}

/// The bytes of `range` of the entry at `path`, in pieces of at most 1 MiB. A few of them are fetched ahead.
pub(super) fn read(reader: &BackupReader, path: EntryPath, range: Range<u64>) -> BoxStream<'_, Result<Bytes>> {
    stream::once(begin(reader, path, range))
        .map_ok(move |pieces| {
            stream::iter(pieces)
                .map(move |piece| async move {
                    match piece? {
                        Piece::Zeros(len) => Ok(Bytes::from_static(&ZEROS[..len])),
                        Piece::Stored(pack, wanted) => {
                            let content = reader.cache.segment(pack, wanted.segment).await?;
                            part(pack, &content, &wanted)?;
                            Ok(content.slice(wanted.range))
                        }
                    }
                })
                .buffered(reader.context.shape.transfers)
        })
        .try_flatten()
        .boxed()
}

async fn begin(
    reader: &BackupReader,
    path: EntryPath,
    range: Range<u64>,
) -> Result<impl Iterator<Item = Result<Piece>>> {
    let Some(entry) = reader.entry_full(&path).await? else {
        return Err(Error::invalid(format!("backup {} has no entry {path}", reader.record.id)));
    };
    let Range { start, end } = range;
    if start > end || end > entry.len {
        let len = entry.len;
        return Err(Error::invalid(format!(
            "range {start}..{end} does not lie inside of entry {path}, which has {len} bytes"
        )));
    }
    let extents = slice(&reader.content(&entry).await?, start..end)?;
    Ok(extents.into_iter().flat_map(move |extent| pieces(reader, extent)))
}

fn pieces(reader: &BackupReader, extent: Extent) -> impl Iterator<Item = Result<Piece>> + use<'_> {
    let stored = extent.pack_index();
    let zeros = if stored.is_none() { extent.len } else { 0 };
    let holes = (0..zeros.div_ceil(SEGMENT as u64)).map(move |i| {
        let left = zeros - i * SEGMENT as u64;
        Ok(Piece::Zeros(left.min(SEGMENT as u64) as usize))
    });
    let parts = extent.segments(0).map(move |part| {
        let index = stored.ok_or_else(|| Error::internal("a hole has no segments"))?;
        Ok(Piece::Stored(reader.pack(index)?, part))
    });
    holes.chain(parts)
}

/// The part of a segment's plaintext that is meant.
///
/// # Errors
/// Damaged, when the segment is shorter than a manifest says.
pub(crate) fn part<'a>(pack: PackId, content: &'a [u8], part: &SegmentPart) -> Result<&'a [u8]> {
    content.get(part.range.clone()).ok_or_else(|| {
        Error::damaged(format!(
            "pack {pack} has {} bytes in segment {} where a manifest needs {}",
            content.len(),
            part.segment,
            part.range.end
        ))
    })
}
