//! The log of a repository in memory: every appended range is a piece, and is stored when `append` returns.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{MemoryRepository, Shared};
use crate::catalog::Event;
use crate::engine::{LogOptions, LogSink, LogSource, Work};
use crate::error::{Error, Result};
use crate::log::{Ledger, LineageRecord, LogEpoch, LogIndex, LogPurpose, LogRange, LogState, Mark, MarkQueue};
use crate::position::{Lineage, LogPosition};

/// The most bytes that a reader gets at once.
const PIECE: usize = 1 << 20;

/// A stored piece of log.
#[derive(Debug)]
pub(super) struct Piece {
    epoch: LogEpoch,
    range: LogRange,
    bytes: Bytes,
    index: LogIndex,
}

pub(super) struct MemoryLogSink {
    repository: MemoryRepository,
    epoch: LogEpoch,
    purpose: LogPurpose,
    work: Work,
    state: Mutex<Writing>,
    durable: watch::Sender<Option<LogPosition>>,
}

/// Where a writer stands.
#[derive(Default)]
struct Writing {
    /// The end of what was appended, by lineage.
    ends: BTreeMap<Lineage, u64>,
    /// The lineage of the last range.
    current: Option<Lineage>,
    marks: MarkQueue,
    /// Whether it was closed, or was fenced and has found out.
    over: Option<Over>,
}

#[derive(Clone, Copy)]
enum Over {
    Closed,
    Fenced(LogEpoch),
}

impl Over {
    fn error(self, epoch: LogEpoch) -> Error {
        match self {
            Self::Closed => Error::invalid(format!("log writer {epoch} was closed")),
            Self::Fenced(by) => Error::conflict(format!("log writer {epoch} was fenced by log writer {by}")),
        }
    }
}

impl MemoryLogSink {
    pub(super) fn open(repository: &MemoryRepository, options: &LogOptions, work: &Work) -> Result<Self> {
        let mut shared = repository.shared.lock();
        let epoch = shared.catalog.log().next_epoch();
        let at = work.env().now();
        shared.append(&Event::LogOpened { epoch, purpose: options.purpose, at })?;
        if options.purpose == LogPurpose::Stream {
            let log = shared.catalog.log();
            let older = log.writers().filter(|(other, writer)| {
                *other < epoch && writer.purpose == LogPurpose::Stream && writer.ends.is_none()
            });
            for other in older.map(|(other, _)| other).collect::<Vec<_>>() {
                let ends = shared.ends_of(other);
                shared.append(&Event::LogSealed { epoch: other, ends, at })?;
            }
        }
        Ok(Self {
            repository: repository.clone(),
            epoch,
            purpose: options.purpose,
            work: work.clone(),
            state: Mutex::default(),
            durable: watch::Sender::new(None),
        })
    }

    /// Runs `act` unless the writer has ended. A failure that ends it is remembered.
    fn alive<T>(&self, act: impl FnOnce(&mut Shared, &mut Writing) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        let mut shared = self.repository.shared.lock();
        if state.over.is_none() {
            state.over = shared.catalog.log().fenced_by(self.epoch).map(Over::Fenced);
        }
        match state.over {
            Some(over) => {
                // Whoever waits for the next position learns that there is none.
                self.durable.send_modify(|_| {});
                Err(over.error(self.epoch))
            }
            None => act(&mut shared, &mut state),
        }
    }

    fn meets(&self, state: &Writing, range: &LogRange) -> Result<()> {
        match state.ends.get(&range.lineage) {
            Some(end) if *end != range.start && self.purpose != LogPurpose::Import => Err(Error::conflict(format!(
                "the log of lineage {} does not go on at {}: it was appended up to {end}",
                range.lineage, range.start
            ))),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl LogSink for MemoryLogSink {
    fn epoch(&self) -> LogEpoch {
        self.epoch
    }

    fn ledger(&self) -> Arc<Ledger> {
        self.source().ledger()
    }

    fn source(&self) -> Arc<dyn LogSource> {
        Arc::new(self.repository.shared.lock().log_source())
    }

    async fn declare(&self, record: LineageRecord) -> Result<()> {
        if !record.lineage.is_storable() {
            return Err(Error::invalid(format!("lineage {:?} cannot be part of a name", record.lineage.as_str())));
        }
        self.alive(|shared, _| match shared.catalog.log().lineage(&record.lineage) {
            Some(known) if known.agrees_with(&record) => Ok(()),
            _ => shared.append(&Event::LineageAdded { record: Box::new(record) }),
        })
    }

    async fn append(&self, range: LogRange, bytes: Bytes, marks: &[Mark]) -> Result<()> {
        let position = self.alive(|shared, state| {
            let Some(record) = shared.catalog.log().lineage(&range.lineage) else {
                return Err(Error::invalid(format!("lineage {} was not declared", range.lineage)));
            };
            if bytes.len() as u64 != range.len() {
                return Err(Error::invalid(format!("{range} are not {} bytes", bytes.len())));
            }
            self.meets(state, &range)?;
            if state.current.as_ref() != Some(&range.lineage) || self.purpose == LogPurpose::Import {
                state.marks.clear();
            }
            state.marks.push(&range, marks)?;
            let position = record.position(range.end);
            state.ends.insert(range.lineage.clone(), range.end);
            state.current = Some(range.lineage.clone());
            let index = state.marks.take_until(range.end);
            if !bytes.is_empty() || index != LogIndex::default() {
                shared.log.push(Arc::new(Piece { epoch: self.epoch, range, bytes, index }));
            }
            Ok(position)
        })?;
        self.durable.send_replace(Some(position));
        Ok(())
    }

    async fn gap(&self, range: LogRange, reason: &str) -> Result<()> {
        let at = self.work.env().now();
        self.alive(|shared, state| {
            self.meets(state, &range)?;
            let LogRange { lineage, start, end } = range.clone();
            shared.append(&Event::LogGap { lineage, start, end, reason: reason.to_owned(), at })?;
            state.ends.insert(range.lineage, range.end);
            Ok(())
        })
    }

    fn flush(&self) {}

    fn durable(&self) -> Option<LogPosition> {
        self.durable.borrow().clone()
    }

    async fn advanced(&self, known: Option<&LogPosition>) -> Result<Option<LogPosition>> {
        let mut durable = self.durable.subscribe();
        loop {
            let position = durable.borrow_and_update().clone();
            if position.as_ref() != known {
                return Ok(position);
            }
            self.alive(|_, _| Ok(()))?;
            if durable.changed().await.is_err() {
                return Err(Error::internal("a log writer that is borrowed has ended"));
            }
        }
    }

    async fn close(&self) -> Result<()> {
        let at = self.work.env().now();
        let closed = self.alive(|shared, state| {
            let ends = shared.ends_of(self.epoch);
            shared.append(&Event::LogSealed { epoch: self.epoch, ends, at })?;
            state.over = Some(Over::Closed);
            Ok(())
        });
        self.durable.send_modify(|_| {});
        match self.state.lock().over {
            Some(Over::Closed) => Ok(()),
            _ => closed,
        }
    }
}

impl fmt::Debug for MemoryLogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLogSink").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Shared {
    fn ends_of(&self, epoch: LogEpoch) -> BTreeMap<Lineage, u64> {
        let mut ends = BTreeMap::new();
        for piece in self.log.iter().filter(|piece| piece.epoch == epoch) {
            let end = ends.entry(piece.range.lineage.clone()).or_insert(piece.range.end);
            *end = (*end).max(piece.range.end);
        }
        ends
    }

    pub(super) fn log_source(&self) -> MemoryLogSource {
        let state = self.catalog.log();
        let counts = |piece: &&Arc<Piece>| state.counts(piece.epoch, &piece.range.lineage, piece.range.end);
        MemoryLogSource::new(state, self.log.iter().filter(counts).cloned().collect())
    }
}

/// The log as of when it was opened.
#[derive(Debug)]
pub(super) struct MemoryLogSource {
    ledger: Arc<Ledger>,
    /// By lineage and offset; of pieces that begin at the same place the longest first.
    pieces: Vec<Arc<Piece>>,
}

impl MemoryLogSource {
    fn new(state: &LogState, mut pieces: Vec<Arc<Piece>>) -> Self {
        let ledger = Ledger::new(state, pieces.iter().map(|piece| piece.range.clone()));
        let order = |piece: &Arc<Piece>| {
            let LogRange { lineage, start, end } = piece.range.clone();
            (lineage, start, std::cmp::Reverse(end), std::cmp::Reverse(piece.epoch))
        };
        pieces.sort_by_cached_key(order);
        Self { ledger: Arc::new(ledger), pieces }
    }

    /// The pieces that tell of `range`, each of which brings bytes that those before it have not. Of those without bytes the
    /// last word of each place.
    fn chosen(&self, range: &LogRange) -> Vec<&Arc<Piece>> {
        let touches = |piece: &&Arc<Piece>| {
            let other = &piece.range;
            other.lineage == range.lineage && other.start <= range.end && range.start <= other.end
        };
        let mut chosen: Vec<&Arc<Piece>> = Vec::new();
        let mut reached = 0;
        for piece in self.pieces.iter().filter(touches) {
            if piece.range.is_empty() {
                if let Some(last) = chosen.last_mut().filter(|last| last.range == piece.range) {
                    if last.index.as_of < piece.index.as_of {
                        *last = piece;
                    }
                    continue;
                }
                chosen.push(piece);
            } else if piece.range.end > reached {
                reached = piece.range.end;
                chosen.push(piece);
            }
        }
        chosen
    }
}

#[async_trait]
impl LogSource for MemoryLogSource {
    fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    fn read(&self, range: LogRange) -> BoxStream<'_, Result<Bytes>> {
        let mut parts = Vec::new();
        let hole = self.ledger.first_hole(&range);
        let whole = hole.as_ref().map_or(range.end, |hole| hole.range.start);
        let mut at = range.start;
        for piece in self.chosen(&range) {
            let (from, to) = (at.max(piece.range.start), whole.min(piece.range.end));
            if at == from && from < to {
                // Offsets inside of a piece are lengths of its bytes.
                let base = piece.range.start;
                let slice = piece.bytes.slice((from - base) as usize..(to - base) as usize);
                let step = |n: usize| slice.slice(n..slice.len().min(n + PIECE));
                parts.extend((0..slice.len()).step_by(PIECE).map(|n| Ok(step(n))));
                at = to;
            }
        }
        parts.extend(hole.map(|hole| Err(hole.error())));
        stream::iter(parts).boxed()
    }

    fn index(&self, range: LogRange) -> BoxStream<'_, Result<(LogRange, LogIndex)>> {
        let found: Vec<_> = self.chosen(&range).into_iter().map(|p| Ok((p.range.clone(), p.index.clone()))).collect();
        stream::iter(found).boxed()
    }

    fn weight(&self, range: &LogRange) -> (u64, u64) {
        let chosen = self.chosen(range);
        let inside = chosen.iter().map(|p| p.range.end.min(range.end).saturating_sub(p.range.start.max(range.start)));
        (inside.sum(), chosen.len() as u64)
    }
}
