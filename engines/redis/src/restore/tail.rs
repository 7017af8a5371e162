//! What happened behind the snapshot, up to where the restore stops.

use std::sync::Arc;

use backup_core::engine::{LogSource, RestoreContext};
use backup_core::log::LogRange;
use backup_core::{Goal, Result};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};

use crate::client::Pipeline;
use crate::engine::facts::STREAM_DATABASE;
use crate::stream::{Moment, Second, Seconds, StreamNote, stop};

/// The stream from the snapshot to the stop.
#[derive(Debug)]
pub(super) struct Tail {
    log: Arc<dyn LogSource>,
    ranges: Vec<LogRange>,
    /// The database in which the stream goes on, where the backup says it.
    database: Option<u64>,
    /// The command that leads into the database in which the stream goes on.
    select: Bytes,
}

impl Tail {
    /// What the context's target wants of its log. None when that is the snapshot alone.
    ///
    /// All of it is read, and parsed to its end.
    ///
    /// # Errors
    /// Those of [`stop`]: the target is not in the log, or the log cannot be read.
    pub(super) async fn of(cx: &RestoreContext) -> Result<Option<Self>> {
        let Some(log) = cx.log().filter(|_| Self::is_wanted(cx)) else { return Ok(None) };
        let stated = cx.source().record().snapshot.fact(STREAM_DATABASE).and_then(|database| database.parse().ok());
        let stop = stop(log, cx.target(), stated).await?;
        let path = log.path().until(&stop.lineage, stop.offset);
        if path.is_empty() {
            return Ok(None);
        }
        // A server that does not say where its stream is begins it with a command that does.
        let mut select = Pipeline::new();
        if let Some(database) = stated {
            select.push(&["SELECT".to_owned(), database.to_string()]);
        }
        let select = Bytes::copy_from_slice(select.as_bytes());
        Ok(Some(Self { log: Arc::clone(log.source()), ranges: path.ranges, database: stated, select }))
    }

    /// Whether the context's target may lie behind the snapshot.
    pub(super) fn is_wanted(cx: &RestoreContext) -> bool {
        cx.log().is_some_and(|log| !log.path().is_empty()) && !matches!(cx.target().goal, Goal::Backup(_))
    }

    /// Bytes of it.
    pub(super) fn len(&self) -> u64 {
        self.select.len() as u64 + self.ranges.iter().map(LogRange::len).sum::<u64>()
    }

    /// All of it.
    pub(super) fn read(&self) -> BoxStream<'_, Result<Bytes>> {
        stream::once(async { Ok(self.select()) }).chain(self.changes()).boxed()
    }

    /// What has to be said before the changes.
    pub(super) fn select(&self) -> Bytes {
        self.select.clone()
    }

    /// The stream itself, from [`Tail::start`] on.
    pub(super) fn changes(&self) -> BoxStream<'_, Result<Bytes>> {
        stream::iter(&self.ranges).flat_map(|range| self.log.read(range.clone())).boxed()
    }

    /// The offset at which the stream begins.
    pub(super) fn start(&self) -> u64 {
        self.ranges.first().map_or(0, |range| range.start)
    }

    /// Where in the stream a second begins. Reads all of it.
    pub(super) async fn seconds(&self) -> Result<Vec<Second>> {
        let mut seconds = Seconds::new(self.start(), self.database);
        for range in &self.ranges {
            let mut pieces = self.log.index(range.clone());
            while let Some((_, index)) = pieces.next().await.transpose()? {
                let notes = index.notes.iter().filter_map(|note| StreamNote::decode(note.offset, &note.bytes));
                let mut moments: Vec<_> = notes.flat_map(|note| note.moments).collect();
                // The index of the piece keeps some moments, too; notes may have been lost.
                moments.extend(index.samples.iter().map(|sample| Moment { offset: sample.offset, at: sample.at }));
                seconds.know(moments);
            }
            let mut bytes = self.log.read(range.clone());
            while let Some(bytes) = bytes.next().await.transpose()? {
                seconds.push(&bytes)?;
            }
        }
        Ok(seconds.finish())
    }
}
