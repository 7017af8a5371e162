//! What a writer's sink and its sender have in common.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::{Catalog, Event};
use backup_core::log::{Ledger, LineageRecord, LogEpoch, LogPurpose, LogRange, Mark};
use backup_core::{Lineage, LogPosition};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::queue::Queue;
use super::spool::Spool;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::log::name::Piece;
use crate::log::stored;
use crate::pipeline::failure::Failure;

/// The first pause before something is repeated for which the store's own patience was not enough, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How far a writer has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    pub(super) durable: Option<LogPosition>,
    pub(super) over: Option<Over>,
}

/// How a writer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// It was closed, and all of it is stored.
    Closed,
    /// [`Shared::failure`] says why.
    Failed,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) context: Arc<Context>,
    pub(super) journal: Arc<Journal<Catalog>>,
    pub(super) epoch: LogEpoch,
    pub(super) purpose: LogPurpose,
    /// The generation of the journal in which the writer was opened. A later one knows nothing of it.
    pub(super) generation: u32,
    pub(super) queue: Mutex<Waiting>,
    /// Bytes that may be on their way.
    pub(super) room: u64,
    pub(super) spool: Option<Arc<Spool>>,
    /// Tells the sender that there is something to do.
    pub(super) wake: Notify,
    /// Tells those who append that there is room.
    pub(super) released: Notify,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) failure: Failure,
    pub(super) known: Mutex<Known>,
    /// Memory of objects that were stored, for the next ones.
    pub(super) spare: Mutex<Vec<Vec<u8>>>,
}

/// What waits to be sent.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) queue: Queue,
    /// Bytes that were appended and are not durable.
    pub(super) held: u64,
    /// Nothing more is taken.
    pub(super) closing: bool,
}

/// What is known of the log.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) catalog: Arc<Catalog>,
    /// What was stored when the writer was opened, and what it has made durable since.
    pub(super) covered: BTreeMap<Lineage, Vec<Range<u64>>>,
    /// Where the writer's own durable log ends.
    pub(super) ends: BTreeMap<Lineage, u64>,
    /// Of both, until one of them changes.
    pub(super) ledger: Option<Arc<Ledger>>,
}

impl Known {
    pub(super) fn record(&self, lineage: &Lineage) -> Option<&LineageRecord> {
        self.catalog.log().lineage(lineage)
    }

    fn learn(&mut self, catalog: Arc<Catalog>) {
        if !Arc::ptr_eq(&self.catalog, &catalog) && self.catalog.log() != catalog.log() {
            self.ledger = None;
        }
        self.catalog = catalog;
    }
}

impl Shared {
    /// The moment on a clock that never goes back.
    pub(super) fn now(&self) -> Duration {
        self.context.env.clock().monotonic()
    }

    pub(super) fn durable(&self) -> Option<LogPosition> {
        self.progress.borrow().durable.clone()
    }

    /// Whether the writer goes on.
    ///
    /// # Errors
    /// What ended it; InvalidInput when that was its closing.
    pub(super) fn alive(&self) -> Result<()> {
        let over = self.progress.borrow().over;
        match over {
            None => Ok(()),
            Some(Over::Closed) => Err(self.closed()),
            Some(Over::Failed) => Err(self.failed()),
        }
    }

    pub(super) fn failed(&self) -> Error {
        self.failure.check().err().unwrap_or_else(|| Error::internal(format!("log writer {} has ended", self.epoch)))
    }

    fn closed(&self) -> Error {
        Error::invalid(format!("log writer {} was closed", self.epoch))
    }

    /// Ends the writer because of `error`.
    pub(super) fn fail(&self, error: Error) {
        self.failure.set(error);
        self.end(Over::Failed);
    }

    pub(super) fn end(&self, over: Over) {
        self.progress.send_if_modified(|progress| {
            let first = progress.over.is_none();
            progress.over.get_or_insert(over);
            first
        });
        self.released.notify_waiters();
    }

    /// Queues `bytes` if there is room. False when there is none.
    ///
    /// # Errors
    /// As [`LogSink::append`](backup_core::engine::LogSink::append).
    pub(super) fn try_append(&self, range: &LogRange, bytes: &Bytes, marks: &[Mark]) -> Result<bool> {
        let mut waiting = self.queue.lock();
        self.alive()?;
        if waiting.closing {
            return Err(self.closed());
        }
        let text = {
            let known = self.known.lock();
            let Some(record) = known.record(&range.lineage) else {
                return Err(Error::invalid(format!("lineage {} was not declared", range.lineage)));
            };
            record.notation
        };
        waiting.queue.meets(range, |offset| text.text(offset))?;
        // One that is larger than all the room goes alone.
        let len = bytes.len() as u64;
        if waiting.held > 0 && len > 0 && waiting.held.saturating_add(len) > self.room {
            return Ok(false);
        }
        if len > 0 && self.spool.as_ref().is_some_and(|spool| spool.is_full(waiting.held, len)) {
            return Ok(false);
        }
        let now = self.now();
        let (before, whole) = (waiting.queue.wait(now), waiting.queue.is_whole());
        waiting.queue.push(now, range, Bytes::clone(bytes), marks)?;
        waiting.held += len;
        // The sender sleeps until the first piece is due, and needs to know only of what is due sooner; and of the first whole one, which
        // it takes while it seals others.
        let sooner = waiting.queue.wait(now) < before || before.is_none();
        if sooner || waiting.queue.is_whole() != whole {
            self.wake.notify_one();
        }
        Ok(true)
    }

    /// What is stored, and what this writer has made durable.
    pub(super) fn ledger(&self) -> Arc<Ledger> {
        let mut known = self.known.lock();
        if let Some(ledger) = &known.ledger {
            return Arc::clone(ledger);
        }
        let ledger = Arc::new(stored::ledger(known.catalog.log(), &known.covered));
        known.ledger = Some(Arc::clone(&ledger));
        ledger
    }

    pub(super) fn learn(&self, catalog: Arc<Catalog>) {
        self.known.lock().learn(catalog);
    }

    /// `pieces`, the next ones in order, have become durable.
    pub(super) fn acknowledge(&self, pieces: &[(Lineage, Piece)]) {
        let Some((lineage, last)) = pieces.last() else { return };
        let position = {
            let mut known = self.known.lock();
            for (lineage, piece) in pieces {
                let end = known.ends.entry(lineage.clone()).or_insert(piece.end);
                *end = (*end).max(piece.end);
                if !piece.is_empty() {
                    let ranges = known.covered.entry(lineage.clone()).or_default();
                    match ranges.last_mut() {
                        // As good as always.
                        Some(tail) if tail.end == piece.start => tail.end = piece.end,
                        _ => {
                            ranges.push(piece.offsets());
                            stored::merge(ranges);
                        }
                    }
                    known.ledger = None;
                }
            }
            let text = known.record(lineage).map_or_else(|| last.end.to_string(), |r| r.notation.text(last.end));
            LogPosition::new(lineage.clone(), last.end, text)
        };
        let bytes: u64 = pieces.iter().map(|(_, piece)| piece.end - piece.start).sum();
        let mut waiting = self.queue.lock();
        waiting.held = waiting.held.saturating_sub(bytes);
        drop(waiting);
        self.released.notify_waiters();
        self.progress.send_if_modified(|progress| {
            let other = progress.durable.as_ref() != Some(&position);
            progress.durable = Some(position);
            other
        });
    }

    /// Whether `catalog`, of a generation of the journal, lets this writer acknowledge.
    ///
    /// # Errors
    /// Conflict, when a later writer was opened or the journal does not know this one any more.
    pub(super) fn stands(&self, generation: u32, catalog: &Catalog) -> Result<()> {
        let (epoch, log) = (self.epoch, catalog.log());
        if generation != self.generation {
            return Err(Error::conflict(format!("the catalog was rebuilt after log writer {epoch} was opened")));
        }
        if let Some(by) = log.fenced_by(epoch) {
            return Err(Error::conflict(format!("log writer {epoch} was fenced by log writer {by}")));
        }
        match log.writer(epoch) {
            Some(writer) if writer.ends.is_none() => Ok(()),
            _ => Err(Error::conflict(format!("log writer {epoch} was ended by somebody else"))),
        }
    }

    /// Memory for an object.
    pub(super) fn spare(&self) -> Vec<u8> {
        self.spare.lock().pop().unwrap_or_default()
    }

    /// Takes the memory of an object that was stored, while more is waiting than can be sealed: then getting it from the system again
    /// and again is felt. Otherwise it goes back to it.
    pub(super) fn give_back(&self, object: Bytes) {
        let busy = self.queue.lock().queue.is_whole();
        let mut spare = self.spare.lock();
        match object.try_into_mut() {
            Ok(mut object) if busy => {
                object.clear();
                spare.push(object.into());
            }
            _ if busy => {}
            _ => spare.clear(),
        }
    }

    /// Says in the journal where the log of this writer ends.
    pub(super) async fn seal(&self) -> Result<()> {
        let (ends, at) = (self.known.lock().ends.clone(), self.context.env.now());
        let sealed = self.journal.commit_by(|generation, catalog| {
            self.stands(generation, catalog)?;
            Ok(vec![Event::LogSealed { epoch: self.epoch, ends: ends.clone(), at }])
        });
        let (_, catalog) = sealed.await?;
        self.learn(catalog);
        Ok(())
    }

    pub(super) fn is_closing(&self) -> bool {
        self.queue.lock().closing
    }
}

/// Repeating what failed for as long as its place is unavailable: the source keeps what was not acknowledged, and a pause costs less
/// than a capture that has ended. Once the writer is being closed, one attempt is enough.
#[derive(Debug)]
pub(super) struct Patience {
    what: &'static str,
    pause: Duration,
}

impl Patience {
    /// `what` says what is repeated, and until when.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, pause: PAUSES.0 }
    }

    /// Whether to ask a store again after `error`. Returns when it is time to.
    pub(super) async fn again(&mut self, shared: &Shared, error: &Error) -> bool {
        error.kind() == ErrorKind::Unavailable && self.wait(shared, error).await
    }

    /// Whether to try again after `error`, which passes. Returns when it is time to.
    pub(super) async fn wait(&mut self, shared: &Shared, error: &Error) -> bool {
        if shared.is_closing() {
            return false;
        }
        tracing::warn!(%error, epoch = %shared.epoch, "{}", self.what);
        shared.context.env.clock().sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
        true
    }
}
