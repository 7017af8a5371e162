//! Writing the log.

mod delivery;
mod haste;
mod open;
mod queue;
mod sender;
mod shared;
mod spool;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::LogPosition;
use backup_core::catalog::Event;
use backup_core::engine::{LogSink, LogSource};
use backup_core::log::{Ledger, LineageRecord, LogEpoch, LogRange, Mark};
use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;

use super::LogCache;
use super::source::LogReader;
use crate::error::{Error, Result};
pub(crate) use open::open;
use sender::Sender;
use shared::{Over, Shared};
use spool::Hold;
use spool::courier::Courier;

/// How many objects of one writer may be on their way. Part of the format: a reader concludes from an object of number `n` that all
/// before `n` less this were stored.
pub(crate) const WINDOW: u64 = 16;

/// The largest description of a lineage, encoded, in bytes: each first object of a writer repeats it.
const MAX_RECORD: usize = 256 << 10;

/// A log writer. Dropping it ends it without a word: what was not acknowledged may be stored or not, and what was acknowledged lies in
/// its spool if it has one.
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
    cache: Arc<LogCache>,
    /// Ends with the writer.
    task: AbortOnDropHandle<()>,
    _hold: Option<Hold>,
}

/// Runs a writer until it was closed or cannot go on.
async fn run(shared: Arc<Shared>, mut sender: Sender, courier: Option<Courier>) {
    let outcome = match courier {
        None => sender.run().await,
        Some(courier) => run_both(&shared, &mut sender, courier).await,
    };
    // What is still on its way is not to be waited for.
    drop(sender);
    let outcome = match outcome {
        Ok(()) => shared.seal().await,
        Err(error) => Err(error),
    };
    if let Some(spool) = &shared.spool {
        spool.release();
    }
    match outcome {
        Ok(()) => shared.end(Over::Closed),
        Err(error) => {
            let error = match &shared.spool {
                Some(spool) => spool.explain(error),
                None => error,
            };
            tracing::debug!(%error, epoch = %shared.epoch, "a log writer has ended");
            shared.fail(error);
        }
    }
}

/// What ends one ends the other.
async fn run_both(shared: &Shared, sender: &mut Sender, mut courier: Courier) -> Result<()> {
    let sending = async {
        sender.run().await?;
        if let Some(spool) = &shared.spool {
            spool.complete();
        }
        Ok(())
    };
    futures::try_join!(sending, courier.run()).map(drop)
}

impl LogWriter {
    /// Commits what `decide` makes of the log's state, while this writer is the one that may.
    async fn commit(
        &self,
        mut decide: impl FnMut(&backup_core::log::LogState) -> Result<Vec<Event>> + Send,
    ) -> Result<()> {
        let shared = &self.shared;
        shared.alive()?;
        let committed = shared.journal.commit_by(|generation, catalog| {
            shared.stands(generation, catalog)?;
            decide(catalog.log())
        });
        match committed.await {
            Ok((_, catalog)) => {
                shared.learn(catalog);
                Ok(())
            }
            Err(error) => {
                // Whoever was fenced is at an end, whatever it was about to say.
                let (generation, catalog) = shared.journal.refresh_placed().await?;
                if let Err(fenced) = shared.stands(generation, &catalog) {
                    shared.fail(fenced);
                    return Err(shared.failed());
                }
                Err(error)
            }
        }
    }
}

#[async_trait]
impl LogSink for LogWriter {
    fn epoch(&self) -> LogEpoch {
        self.shared.epoch
    }

    fn ledger(&self) -> Arc<Ledger> {
        self.shared.ledger()
    }

    fn source(&self) -> Arc<dyn LogSource> {
        let (cache, journal) = (Arc::clone(&self.cache), Arc::clone(&self.shared.journal));
        let spool = self.shared.spool.as_ref().map(|spool| spool.store(&self.shared.context));
        Arc::new(LogReader::lazy(cache, journal, spool, self.shared.ledger()))
    }

    async fn declare(&self, record: LineageRecord) -> backup_core::Result<()> {
        if !record.lineage.is_storable() {
            let lineage = record.lineage.as_str();
            return Err(backup_core::Error::invalid(format!("lineage {lineage:?} cannot be part of a name")));
        }
        let len = minicbor::to_vec(&record)
            .map_err(|e| Error::internal("a lineage cannot be encoded").with_source(e))
            .map(|bytes| bytes.len())?;
        if len > MAX_RECORD {
            let message =
                format!("the description of lineage {} has {len} bytes, more than {MAX_RECORD}", record.lineage);
            return Err(backup_core::Error::invalid(message));
        }
        let declared = self.commit(|log| match log.lineage(&record.lineage) {
            Some(known) if known.agrees_with(&record) => Ok(Vec::new()),
            _ => Ok(vec![Event::LineageAdded { record: Box::new(record.clone()) }]),
        });
        Ok(declared.await?)
    }

    async fn append(&self, range: LogRange, bytes: Bytes, marks: &[Mark]) -> backup_core::Result<()> {
        loop {
            let mut released = std::pin::pin!(self.shared.released.notified());
            released.as_mut().enable();
            if self.shared.try_append(&range, &bytes, marks)? {
                return Ok(());
            }
            released.await;
        }
    }

    async fn gap(&self, range: LogRange, reason: &str) -> backup_core::Result<()> {
        let meets = || {
            let text = self.shared.known.lock().record(&range.lineage).map(|record| record.notation);
            let text = text.unwrap_or_default();
            self.shared.queue.lock().queue.meets(&range, |offset| text.text(offset))
        };
        meets()?;
        let at = self.shared.context.env.now();
        let LogRange { lineage, start, end } = range.clone();
        let gap = Event::LogGap { lineage, start, end, reason: reason.to_owned(), at };
        self.commit(|_| Ok(vec![gap.clone()])).await?;
        meets()?;
        self.shared.queue.lock().queue.skip(&range);
        self.shared.wake.notify_one();
        Ok(())
    }

    fn flush(&self) {
        self.shared.queue.lock().queue.flush();
        self.shared.wake.notify_one();
    }

    fn durable(&self) -> Option<LogPosition> {
        self.shared.durable()
    }

    async fn advanced(&self, known: Option<&LogPosition>) -> backup_core::Result<Option<LogPosition>> {
        let mut progress = self.shared.progress.subscribe();
        loop {
            let now = progress.borrow_and_update().clone();
            if now.durable.as_ref() != known {
                return Ok(now.durable);
            }
            self.shared.alive()?;
            if progress.changed().await.is_err() {
                return Err(backup_core::Error::internal("a log writer that is borrowed has ended"));
            }
        }
    }

    async fn close(&self) -> backup_core::Result<()> {
        self.shared.queue.lock().closing = true;
        self.shared.wake.notify_one();
        let mut progress = self.shared.progress.subscribe();
        loop {
            let over = progress.borrow_and_update().over;
            match over {
                Some(Over::Closed) => return Ok(()),
                Some(Over::Failed) => return Err(self.shared.failed().into()),
                None if self.task.is_finished() => {
                    // The runtime has ended it, or it has panicked.
                    self.shared.fail(Error::internal(format!("log writer {} was stopped", self.shared.epoch)));
                }
                None => {
                    if progress.changed().await.is_err() {
                        return Err(backup_core::Error::internal("a log writer that is borrowed has ended"));
                    }
                }
            }
        }
    }
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter").field("epoch", &self.shared.epoch).finish_non_exhaustive()
    }
}
