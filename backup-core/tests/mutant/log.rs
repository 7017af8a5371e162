//! The log of a mutant.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::engine::{LogSink, LogSource};
use backup_core::log::{Ledger, LineageRecord, LogEpoch, LogIndex, LogRange, Mark};
use backup_core::{ErrorKind, LogPosition, Result};
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use parking_lot::Mutex;

use super::Fault;

#[derive(Debug)]
pub(super) struct MutantSink {
    pub(super) inner: Arc<dyn LogSink>,
    pub(super) fault: Fault,
    /// What was called durable and not stored.
    pub(super) held: Mutex<Option<(LogRange, Bytes, Vec<Mark>)>>,
}

impl MutantSink {
    /// Appends what was held back, and holds back this.
    async fn lag(&self, range: LogRange, bytes: Bytes, marks: &[Mark]) -> Result<()> {
        let held = self.held.lock().replace((range, bytes, marks.to_vec()));
        match held {
            Some((range, bytes, marks)) => self.inner.append(range, bytes, &marks).await,
            None => Ok(()),
        }
    }

    fn held_position(&self) -> Option<LogPosition> {
        let held = self.held.lock();
        let (range, ..) = held.as_ref()?;
        Some(self.inner.ledger().position(&range.lineage, range.end))
    }
}

#[async_trait]
impl LogSink for MutantSink {
    fn epoch(&self) -> LogEpoch {
        self.inner.epoch()
    }

    fn ledger(&self) -> Arc<Ledger> {
        self.inner.ledger()
    }

    fn source(&self) -> Arc<dyn LogSource> {
        self.inner.source()
    }

    async fn declare(&self, mut record: LineageRecord) -> Result<()> {
        if self.fault == Fault::ForgetsForks {
            record.fork = None;
        }
        self.inner.declare(record).await
    }

    async fn append(&self, range: LogRange, bytes: Bytes, marks: &[Mark]) -> Result<()> {
        match self.fault {
            Fault::AcknowledgesEarly => self.lag(range, bytes, marks).await,
            Fault::ForgetsMarks => self.inner.append(range, bytes, &[]).await,
            Fault::SwallowsConflicts => match self.inner.append(range, bytes, marks).await {
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
                outcome => outcome,
            },
            _ => self.inner.append(range, bytes, marks).await,
        }
    }

    async fn gap(&self, range: LogRange, reason: &str) -> Result<()> {
        let reason = if self.fault == Fault::ForgetsReasons { "" } else { reason };
        self.inner.gap(range, reason).await
    }

    fn flush(&self) {
        self.inner.flush();
    }

    fn durable(&self) -> Option<LogPosition> {
        self.held_position().or_else(|| self.inner.durable())
    }

    async fn advanced(&self, known: Option<&LogPosition>) -> Result<Option<LogPosition>> {
        match self.held_position() {
            Some(held) if Some(&held) != known => Ok(Some(held)),
            _ => self.inner.advanced(known).await,
        }
    }

    async fn close(&self) -> Result<()> {
        if self.fault == Fault::StaysOpen {
            return Ok(());
        }
        self.inner.close().await
    }
}

#[derive(Debug)]
pub(super) struct MutantLog {
    pub(super) inner: Arc<dyn LogSource>,
    pub(super) fault: Fault,
}

#[async_trait]
impl LogSource for MutantLog {
    fn ledger(&self) -> Arc<Ledger> {
        self.inner.ledger()
    }

    fn read(&self, range: LogRange) -> BoxStream<'_, Result<Bytes>> {
        let pieces = self.inner.read(range);
        match self.fault {
            Fault::ReadsOverHoles => pieces.filter(|piece| futures::future::ready(piece.is_ok())).boxed(),
            Fault::FlipsByte => pieces
                .map(|piece| {
                    let mut bytes = BytesMut::from(&*piece?);
                    if let Some(byte) = bytes.get_mut(1000) {
                        *byte ^= 1;
                    }
                    Ok(bytes.freeze())
                })
                .boxed(),
            _ => pieces,
        }
    }

    fn index(&self, range: LogRange) -> BoxStream<'_, Result<(LogRange, LogIndex)>> {
        let pieces = self.inner.index(range);
        match self.fault {
            Fault::DescribesTwice => pieces
                .flat_map(|piece| match piece {
                    Ok(piece) => futures::stream::iter(vec![Ok(piece.clone()), Ok(piece)]),
                    Err(error) => futures::stream::iter(vec![Err(error)]),
                })
                .boxed(),
            _ => pieces,
        }
    }

    fn weight(&self, range: &LogRange) -> (u64, u64) {
        self.inner.weight(range)
    }
}
