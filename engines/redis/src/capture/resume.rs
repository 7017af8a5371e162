//! Reading goes on in the middle of a stream: what stands at its end is learnt from what is stored.
//!
//! A piece of log may end in a transaction, or in a command that is larger than a piece. So the stored log is read again from the last note
//! before its end, which stands where nothing is half done.

use std::sync::Arc;

use backup_core::Result;
use backup_core::engine::LogContext;
use backup_core::log::LogRange;
use futures::TryStreamExt as _;

use super::lineage::lineage_of;
use crate::client::StreamPosition;
use crate::stream::{Framer, StreamNote, Tracker};

/// So much is looked through for a note at first; where there is none, more.
const NEAR: u64 = 1 << 20;

/// What a reader has come to who has read the stored stream up to `at`. When nothing of it is stored, `at` begins a command.
///
/// # Errors
/// Those of reading the log; [`Damaged`](backup_core::ErrorKind::Damaged) when it is no stream of commands.
pub(super) async fn resume(cx: &LogContext, at: &StreamPosition) -> Result<(Framer, Tracker)> {
    let source = cx.sink().source();
    let ledger = source.ledger();
    let lineage = lineage_of(&at.id);
    let stored = at.offset.checked_sub(1).and_then(|last| ledger.covered(&lineage).containing(last));
    let Some(stored) = stored else { return Ok((Framer::new(at.offset), Tracker::new(None))) };
    let mut reach = NEAR;
    let (start, database) = loop {
        let from = at.offset.saturating_sub(reach).max(stored.start);
        let pieces: Vec<_> = source.index(LogRange::new(lineage.clone(), from..at.offset)).try_collect().await?;
        let notes = pieces.iter().flat_map(|(_, index)| &index.notes);
        let inside = notes.filter(|note| (stored.start..=at.offset).contains(&note.offset));
        let last = inside.filter_map(|note| Some((note.offset, StreamNote::decode(note.offset, &note.bytes)?)));
        match last.max_by_key(|(offset, _)| *offset) {
            Some((offset, note)) => break (offset, note.database),
            // Capture begins where a command begins.
            None if from == stored.start => break (stored.start, None),
            None => reach = reach.saturating_mul(16),
        }
    };
    let (mut framer, mut tracker) = (Framer::new(start), Tracker::new(database));
    let source = Arc::clone(&source);
    let mut bytes = source.read(LogRange::new(lineage, start..at.offset));
    while let Some(bytes) = bytes.try_next().await? {
        framer.push(&bytes, |command| {
            tracker.take(command);
            Ok(())
        })?;
    }
    Ok((framer, tracker))
}
