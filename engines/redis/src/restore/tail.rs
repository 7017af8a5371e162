//! What happened behind the snapshot, up to where the restore stops.

use std::sync::Arc;

use backup_core::engine::{LogSource, RestoreContext};
use backup_core::log::LogRange;
use backup_core::{Goal, LogPosition, Result};
use bytes::{Bytes, BytesMut};
use futures::future;
use futures::stream::{self, BoxStream, StreamExt as _};

use crate::client::Pipeline;
use crate::engine::facts::STREAM_DATABASE;
use crate::rdb::Rules;
use crate::stream::{Editor, Moment, Second, Seconds, StreamNote, stop};

/// The stream from the snapshot to the stop.
#[derive(Debug)]
pub(super) struct Tail {
    log: Arc<dyn LogSource>,
    ranges: Vec<LogRange>,
    /// The database in which the stream goes on, where the backup says it.
    database: Option<u64>,
    /// The command that leads into the database in which the stream goes on.
    select: Bytes,
    /// What changes on the way, and how many bytes the stream has then.
    edit: Option<(Rules, u64)>,
}

impl Tail {
    /// What the context's target wants of its log. None when that is the snapshot alone.
    ///
    /// All of it is read, and parsed to its end.
    ///
    /// # Errors
    /// Those of [`stop`]: the target is not in the log, or the log cannot be read; [`InvalidInput`](backup_core::ErrorKind::InvalidInput)
    /// when `rules` cannot be applied to a command of it.
    pub(super) async fn of(cx: &RestoreContext, rules: &Rules) -> Result<Option<Self>> {
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
        let log = Arc::clone(log.source());
        let mut tail = Self { log, ranges: path.ranges, database: stated, select, edit: None };
        if !rules.change_nothing() {
            tail.select = Bytes::new();
            tail.edit = Some((rules.clone(), 0));
            // All of it has to be possible before anything is touched.
            let mut len = 0;
            let mut changes = tail.changes();
            while let Some(piece) = changes.next().await.transpose()? {
                cx.work().checkpoint()?;
                len += piece.len() as u64;
            }
            drop(changes);
            tail.edit = Some((rules.clone(), len));
        }
        Ok(Some(tail))
    }

    /// Whether the context's target may lie behind the snapshot.
    pub(super) fn is_wanted(cx: &RestoreContext) -> bool {
        cx.log().is_some_and(|log| !log.path().is_empty()) && !matches!(cx.target().goal, Goal::Backup(_))
    }

    /// Where it ends.
    pub(super) fn end(&self) -> Option<LogPosition> {
        let last = self.ranges.last()?;
        Some(LogPosition::new(last.lineage.clone(), last.end, last.end.to_string()))
    }

    /// Bytes of it.
    pub(super) fn len(&self) -> u64 {
        match &self.edit {
            Some((_, len)) => *len,
            None => self.select.len() as u64 + self.ranges.iter().map(LogRange::len).sum::<u64>(),
        }
    }

    /// All of it.
    pub(super) fn read(&self) -> BoxStream<'_, Result<Bytes>> {
        stream::once(async { Ok(self.select()) }).chain(self.changes()).boxed()
    }

    /// What has to be said before the changes.
    pub(super) fn select(&self) -> Bytes {
        self.select.clone()
    }

    /// The stream itself, from [`Tail::start`] on, as the rules make it.
    pub(super) fn changes(&self) -> BoxStream<'_, Result<Bytes>> {
        let stored = stream::iter(&self.ranges).flat_map(|range| self.log.read(range.clone()));
        let Some((rules, _)) = &self.edit else { return stored.boxed() };
        let editor = Editor::new(rules.clone(), self.start(), self.database);
        let edited = stored.scan(Some(editor), |editor, piece| {
            let mut out = BytesMut::new();
            let outcome = match (editor.as_mut(), piece) {
                (None, _) => return future::ready(None),
                (Some(_), Err(error)) => Err(error),
                (Some(editor), Ok(piece)) => editor.push(&piece, &mut out).map_err(Into::into),
            };
            if outcome.is_err() {
                *editor = None;
            }
            future::ready(Some(outcome.map(|()| out.freeze())))
        });
        edited.boxed()
    }

    /// Whether the stream is not what the source sent.
    pub(super) fn is_changed(&self) -> bool {
        self.edit.is_some()
    }

    /// The offset at which the stream begins.
    pub(super) fn start(&self) -> u64 {
        self.ranges.first().map_or(0, |range| range.start)
    }

    /// Where in the stream a second begins. Reads all of it. None of one that is changed: its offsets are others.
    pub(super) async fn seconds(&self) -> Result<Vec<Second>> {
        if self.is_changed() {
            return Ok(Vec::new());
        }
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
