//! The stored log, opened for reading.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::Lineage;
use backup_core::catalog::Catalog;
use backup_core::engine::LogSource;
use backup_core::log::{Hole, Ledger, LogIndex, LogRange};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesOrdered, StreamExt, TryStreamExt};
use parking_lot::RwLock;

use super::cache::LogCache;
use super::name::Piece;
use super::pieces::Pieces;
use super::stored::{Listed, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::store::Store;

/// How many indices are fetched at the same time.
const INDICES: usize = 16;
/// How many bytes of one piece are fetched at a time: as many as the largest piece of a writer has.
const STRETCH: u64 = 16 << 20;

/// The log of a repository, as of some moment.
pub(crate) struct LogReader {
    cache: Arc<LogCache>,
    journal: Arc<Journal<Catalog>>,
    /// Where pieces lie that have not come to the vault.
    spool: Option<Store>,
    ledger: Arc<Ledger>,
    /// None until the first use, for a reader that was made without a listing.
    pieces: RwLock<Option<Arc<Pieces>>>,
}

impl LogReader {
    /// A reader of what was listed.
    pub(crate) fn new(cache: Arc<LogCache>, journal: Arc<Journal<Catalog>>, stored: &Stored) -> Self {
        let (ledger, pieces) = (Arc::new(stored.ledger()), Arc::new(Pieces::of(stored)));
        Self { cache, journal, spool: None, ledger, pieces: RwLock::new(Some(pieces)) }
    }

    /// A reader of what `ledger` says, which lists it when something is read.
    pub(crate) fn lazy(
        cache: Arc<LogCache>,
        journal: Arc<Journal<Catalog>>,
        spool: Option<Store>,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self { cache, journal, spool, ledger, pieces: RwLock::new(None) }
    }

    async fn pieces(&self) -> Result<Arc<Pieces>> {
        let known = self.pieces.read().clone();
        match known {
            Some(pieces) => Ok(pieces),
            None => self.list_again().await,
        }
    }

    /// Lists the pieces: some that were known were replaced by others.
    async fn list_again(&self) -> Result<Arc<Pieces>> {
        let stored = Stored::survey(&self.cache.context().store, &self.journal, self.spool.as_ref()).await?;
        let pieces = Arc::new(Pieces::of(&stored));
        *self.pieces.write() = Some(Arc::clone(&pieces));
        Ok(pieces)
    }

    fn place(&self, listed: &Listed) -> &Store {
        match &self.spool {
            Some(spool) if listed.spooled => spool,
            _ => &self.cache.context().store,
        }
    }

    async fn content(&self, lineage: &Lineage, listed: Listed, offsets: Range<u64>) -> Result<Vec<Bytes>> {
        self.cache.content(self.place(&listed), lineage, &listed, offsets).await
    }

    async fn sheet(&self, lineage: &Lineage, listed: Listed) -> Result<(LogRange, LogIndex)> {
        let object = self.cache.object(self.place(&listed), lineage, &listed).await?;
        Ok((listed.piece.range(lineage), object.sheet().index.clone()))
    }
}

/// What a part of a reading turned out to be.
type Fetched = (Listed, Result<Vec<Bytes>>);

/// A stretch of log that is being read.
struct Reading<'a> {
    reader: &'a LogReader,
    lineage: Lineage,
    /// Everything before was given out.
    at: u64,
    end: u64,
    /// What is missing behind `end`.
    hole: Option<Hole>,
    pieces: Option<Arc<Pieces>>,
    /// Everything before is in `ready` or being fetched.
    planned: u64,
    ahead: FuturesOrdered<BoxFuture<'a, Fetched>>,
    ready: VecDeque<Bytes>,
    /// Pieces that turned out to be damaged or gone.
    without: Vec<Piece>,
    /// Whether the pieces were listed since something was given out.
    fresh: bool,
}

impl<'a> Reading<'a> {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.at += bytes.len() as u64;
                return Ok(Some(bytes));
            }
            if self.at >= self.end {
                return self.hole.take().map_or(Ok(None), |hole| Err(hole.error().into()));
            }
            self.plan().await?;
            let Some((listed, outcome)) = self.ahead.next().await else {
                return Err(self.lost());
            };
            match outcome {
                Ok(content) => {
                    self.fresh = false;
                    self.ready = content.into();
                }
                Err(error) => self.go_around(&listed, error).await?,
            }
        }
    }

    /// Begins to fetch what comes next.
    async fn plan(&mut self) -> Result<()> {
        let pieces = match &self.pieces {
            Some(pieces) => Arc::clone(pieces),
            None => Arc::clone(self.pieces.insert(self.reader.pieces().await?)),
        };
        while self.planned < self.end && self.ahead.len() < self.reader.cache.context().shape.transfers {
            let Some(listed) = pieces.at(&self.lineage, self.planned, &self.without) else { break };
            // Large pieces are fetched in stretches of whole segments.
            let stretch = (self.planned - listed.piece.start) / STRETCH + 1;
            let most = listed.piece.start.saturating_add(stretch.saturating_mul(STRETCH));
            let offsets = self.planned..listed.piece.end.min(self.end).min(most);
            self.planned = offsets.end;
            let (reader, lineage) = (self.reader, self.lineage.clone());
            self.ahead.push_back(Box::pin(async move {
                let content = reader.content(&lineage, listed, offsets).await;
                (listed, content)
            }));
        }
        Ok(())
    }

    /// Goes on with other pieces that hold the same log, where there are any.
    ///
    /// # Errors
    /// `error`, when there are none.
    async fn go_around(&mut self, listed: &Listed, error: Error) -> Result<()> {
        if error.kind() != ErrorKind::Damaged {
            return Err(error);
        }
        self.ahead.clear();
        self.planned = self.at;
        if error.is_not_found() && !self.fresh {
            // Compaction has replaced it.
            self.fresh = true;
            self.pieces = Some(self.reader.list_again().await?);
            return Ok(());
        }
        self.without.push(listed.piece);
        let other = self.pieces.as_ref().and_then(|p| p.at(&self.lineage, self.at, &self.without));
        match other {
            Some(_) => {
                tracing::warn!(%error, "a piece of log cannot be read, and another one holds the same bytes");
                Ok(())
            }
            None => Err(error),
        }
    }

    fn lost(&self) -> Error {
        let ledger = &self.reader.ledger;
        let (from, to) = (ledger.position(&self.lineage, self.at), ledger.position(&self.lineage, self.end));
        Error::damaged(format!("the log of lineage {} is not stored any more between {from} and {to}", self.lineage))
    }
}

/// A piece, and what it says about itself.
type Told = (Listed, Result<(LogRange, LogIndex)>);

/// Indices that are being read.
struct Telling<'a> {
    reader: &'a LogReader,
    range: LogRange,
    /// What is to be fetched; none before the first listing.
    queue: Option<VecDeque<Listed>>,
    ahead: FuturesOrdered<BoxFuture<'a, Told>>,
    /// The last piece that was given out.
    last: Option<Piece>,
    fresh: bool,
}

impl<'a> Telling<'a> {
    async fn next(&mut self) -> Result<Option<(LogRange, LogIndex)>> {
        loop {
            if self.queue.is_none() {
                let pieces = if self.fresh { self.reader.list_again().await? } else { self.reader.pieces().await? };
                let mut queue: VecDeque<_> = pieces.telling(&self.range.lineage, &self.range.offsets()).into();
                if let Some(last) = self.last {
                    queue.retain(|listed| (listed.piece.end, listed.piece.start) > (last.end, last.start));
                }
                self.queue = Some(queue);
            }
            while let Some(queue) = self.queue.as_mut().filter(|_| self.ahead.len() < INDICES) {
                let Some(listed) = queue.pop_front() else { break };
                let (reader, lineage) = (self.reader, self.range.lineage.clone());
                self.ahead.push_back(Box::pin(async move { (listed, reader.sheet(&lineage, listed).await) }));
            }
            let Some((listed, outcome)) = self.ahead.next().await else { return Ok(None) };
            match outcome {
                Ok(told) => {
                    self.fresh = false;
                    self.last = Some(listed.piece);
                    return Ok(Some(told));
                }
                Err(error) if error.is_not_found() && !self.fresh => {
                    self.fresh = true;
                    self.ahead.clear();
                    self.queue = None;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[async_trait]
impl LogSource for LogReader {
    fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    fn read(&self, range: LogRange) -> BoxStream<'_, backup_core::Result<Bytes>> {
        let hole = self.ledger.first_hole(&range);
        let end = hole.as_ref().map_or(range.end, |hole| hole.range.start);
        let reading = Reading {
            reader: self,
            lineage: range.lineage,
            at: range.start,
            end,
            hole,
            pieces: None,
            planned: range.start,
            ahead: FuturesOrdered::new(),
            ready: VecDeque::new(),
            without: Vec::new(),
            fresh: false,
        };
        stream::try_unfold(reading, |mut reading| async move {
            Ok::<_, Error>(reading.next().await?.map(|bytes| (bytes, reading)))
        })
        .map_err(backup_core::Error::from)
        .boxed()
    }

    fn index(&self, range: LogRange) -> BoxStream<'_, backup_core::Result<(LogRange, LogIndex)>> {
        let telling =
            Telling { reader: self, range, queue: None, ahead: FuturesOrdered::new(), last: None, fresh: false };
        stream::try_unfold(telling, |mut telling| async move {
            Ok::<_, Error>(telling.next().await?.map(|told| (told, telling)))
        })
        .map_err(backup_core::Error::from)
        .boxed()
    }

    fn weight(&self, range: &LogRange) -> (u64, u64) {
        let Some(pieces) = self.pieces.read().clone() else {
            // Nothing was listed. What is stored of the range is all that can be said.
            let hole = self.ledger.first_hole(range).map_or(range.end, |hole| hole.range.start);
            let len = hole.saturating_sub(range.start);
            return (len, u64::from(len > 0));
        };
        let held = pieces.cover(&range.lineage, &range.offsets());
        let words = pieces.telling(&range.lineage, &range.offsets()).into_iter().filter(|l| l.piece.is_empty());
        let all: Vec<_> = held.into_iter().chain(words).collect();
        let stored = |listed: &Listed| {
            let len = u128::from(listed.piece.end - listed.piece.start);
            let inside = listed.piece.end.min(range.end).saturating_sub(listed.piece.start.max(range.start));
            // A share of the object, and never more than all of it.
            let share = (u128::from(listed.size) * u128::from(inside)).checked_div(len);
            share.map_or(listed.size, |share| u64::try_from(share).unwrap_or(listed.size))
        };
        (all.iter().map(stored).sum(), all.len() as u64)
    }
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReader").field("store", &self.cache.context().store).finish_non_exhaustive()
    }
}
