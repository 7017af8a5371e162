//! What an engine and a repository are to each other while a log is captured or replayed.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, TryStreamExt};
use jiff::Timestamp;

use super::context::Work;
use crate::error::{Error, Result};
use crate::log::{Ledger, LineageRecord, LogEpoch, LogIndex, LogPath, LogPurpose, LogRange, Mark};
use crate::position::{Lineage, LogPosition};
use crate::snapshot::Finding;

/// How a log is written. Data, not components.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogOptions {
    /// What the writer does.
    pub purpose: LogPurpose,
    /// Bytes wait at most this long before they are sent to the store. One second: the loss that remains when the source is
    /// destroyed, against a put per second. Zero sends at once whatever has come while the last puts were on their way,
    /// which is what synchronous commits want.
    pub flush_after: Duration,
    /// So many bytes are sent without waiting. 4 MiB: large enough that a busy log is not cut into crumbs.
    pub flush_bytes: u64,
    /// A folder of this host where pieces of log become durable, sealed, before they are sent: then that is what is acknowledged.
    /// What lies there when a writer opens is sent first. None: acknowledged is what the store has.
    pub spool: Option<PathBuf>,
    /// Bytes that the spool may take on its disk, about. When it is full, [`append`](LogSink::append) waits, and the source keeps its log.
    /// 16 GiB: hours of a busy log, and less than a small disk.
    pub spool_bytes: u64,
    /// After so long without a byte of log the source's word that nothing happened is stored, so that the restorable window
    /// goes on. One minute.
    pub idle_mark: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            purpose: LogPurpose::Stream,
            flush_after: Duration::from_secs(1),
            flush_bytes: 4 << 20,
            spool: None,
            spool_bytes: 16 << 30,
            idle_mark: Duration::from_secs(60),
        }
    }
}

impl LogOptions {
    /// Options of a writer that does this.
    #[must_use]
    pub fn of(purpose: LogPurpose) -> Self {
        Self { purpose, ..Self::default() }
    }

    /// Sets how long bytes wait.
    #[must_use]
    pub fn flush_after(mut self, after: Duration) -> Self {
        self.flush_after = after;
        self
    }

    /// Sets how many bytes are sent without waiting.
    #[must_use]
    pub fn flush_bytes(mut self, bytes: u64) -> Self {
        self.flush_bytes = bytes;
        self
    }

    /// Acknowledges what is durable in a folder of this host.
    #[must_use]
    pub fn spool(mut self, dir: impl Into<PathBuf>) -> Self {
        self.spool = Some(dir.into());
        self
    }

    /// Sets how many bytes the spool may take.
    #[must_use]
    pub fn spool_bytes(mut self, bytes: u64) -> Self {
        self.spool_bytes = bytes;
        self
    }

    /// Sets after how long the source's word is stored that nothing happened.
    #[must_use]
    pub fn idle_mark(mut self, after: Duration) -> Self {
        self.idle_mark = after;
        self
    }
}

/// Takes the log of one writer, in order.
///
/// Everything that was appended is stored in that order: when a later byte is durable, every earlier one is. Durable is what the store has
/// and no later writer has come between, or, with a [spool](LogOptions::spool), what lies there: then the next writer with the same spool
/// makes it part of the log before it begins, whatever has happened meanwhile.
#[async_trait]
pub trait LogSink: Debug + Send + Sync {
    /// The writer's number.
    fn epoch(&self) -> LogEpoch;

    /// What is stored, counted when the writer was opened and kept up with what it has made durable since, in the store or in its spool:
    /// here a source goes on that has forgotten what was acknowledged. Others see what the store has.
    fn ledger(&self) -> Arc<Ledger>;

    /// Reads back what is stored, as of [`ledger`](Self::ledger), from the store and from the spool.
    fn source(&self) -> Arc<dyn LogSource>;

    /// Makes a lineage known, if it is not. Must come before its first byte.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when it is known with another source or origin: this is somebody else's log.
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when its name is not [storable](Lineage::is_storable).
    async fn declare(&self, record: LineageRecord) -> Result<()>;

    /// Appends `bytes` as `range`, with what was noticed in them.
    ///
    /// Returns once the bytes are queued, not when they are durable: acknowledge only what [`durable`](Self::durable) has passed. Waits
    /// while too much is queued, and while the spool is full. The first range of a lineage may begin anywhere; each following one begins where the last one ended.
    /// Writers that import may begin each range anywhere. An empty range with marks is a word about the place that was reached.
    /// Marks lie in the range; only a word of the source about its end ([`Mark::AsOf`]) may lie beyond, and counts once the log has
    /// come so far.
    ///
    /// # Cancel safety
    /// Dropping the future queues either all of `bytes` or nothing.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) for a range that does not meet the last one, naming both ends, and when a later writer
    /// has fenced this one; [`InvalidInput`](crate::ErrorKind::InvalidInput) for a lineage that was not declared, for marks outside of
    /// the range, and when the writer was closed; the store's own error when a piece could not be stored.
    async fn append(&self, range: LogRange, bytes: Bytes, marks: &[Mark]) -> Result<()>;

    /// Records that `range` was lost, or, when it is empty, that the history of the source was cut there. The next range begins at its end.
    ///
    /// # Errors
    /// As [`append`](Self::append). When it returns, it is committed.
    async fn gap(&self, range: LogRange, reason: &str) -> Result<()>;

    /// Sends what is queued without waiting for more: called where the engine's own pieces end (a WAL segment, a binary log).
    fn flush(&self);

    /// Up to where everything that was appended is durable. None before the first piece is.
    fn durable(&self) -> Option<LogPosition>;

    /// Returns as soon as [`durable`](Self::durable) is something else than `known`.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    ///
    /// # Errors
    /// Those that end the writer, as [`append`](Self::append).
    async fn advanced(&self, known: Option<&LogPosition>) -> Result<Option<LogPosition>>;

    /// Stores what is queued and ends the writer. With a spool it returns when everything is in the store.
    ///
    /// # Errors
    /// As [`append`](Self::append). The writer has ended in any case; what lies in its spool stays there, and the error says how much.
    async fn close(&self) -> Result<()>;
}

/// The stored log, opened for reading. Everything that is returned has been authenticated.
#[async_trait]
pub trait LogSource: Debug + Send + Sync {
    /// What is stored.
    fn ledger(&self) -> Arc<Ledger>;

    /// The bytes of `range`, in order, in pieces of at most 1 MiB.
    ///
    /// A range that is not stored as a whole yields what comes before the hole, and then a [`Damaged`](crate::ErrorKind::Damaged) that
    /// names both ends of the hole.
    fn read(&self, range: LogRange) -> BoxStream<'_, Result<Bytes>>;

    /// The indices of the stored pieces that meet or touch `range`, in order of their offsets, each with what it describes. Of pieces
    /// that hold the same bytes one is given, and of those that hold none (the source's word that nothing happened) the last word of
    /// each place.
    fn index(&self, range: LogRange) -> BoxStream<'_, Result<(LogRange, LogIndex)>>;

    /// How many stored bytes lie in `range`, at most, and in how many objects.
    fn weight(&self, range: &LogRange) -> (u64, u64);
}

/// What an engine is given to capture its log.
#[derive(Debug, Clone)]
pub struct LogContext {
    work: Work,
    sink: Arc<dyn LogSink>,
    backup: Option<LogPosition>,
}

impl LogContext {
    /// A context that appends to `sink`.
    pub fn new(work: Work, sink: Arc<dyn LogSink>) -> Self {
        Self { work, sink, backup: None }
    }

    /// Sets where the newest backup ends.
    #[must_use]
    pub fn with_backup(mut self, end: Option<LogPosition>) -> Self {
        self.backup = end;
        self
    }

    /// Where the newest backup ends: log from there on makes it more than one moment. Where no log is stored, it is worth beginning
    /// with this position if the source still has it.
    #[must_use]
    pub fn backup(&self) -> Option<&LogPosition> {
        self.backup.as_ref()
    }

    /// Environment, observer, cancellation.
    #[must_use]
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Takes the log.
    #[must_use]
    pub fn sink(&self) -> &Arc<dyn LogSink> {
        &self.sink
    }
}

/// A position that somebody wrote down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatedPosition {
    /// The lineage, if it was said.
    pub lineage: Option<Lineage>,
    /// The offset.
    pub offset: u64,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Imported {
    /// Pieces that were stored.
    pub stored: u64,
    /// Pieces that were stored already, byte for byte.
    pub known: u64,
    /// Bytes that were stored.
    pub bytes: u64,
    /// What was noticed.
    pub findings: Vec<Finding>,
}

/// The log side of an engine.
#[async_trait]
pub trait LogEngine: Debug + Send + Sync {
    /// Follows the change stream into the context's sink until the work is cancelled, and acknowledges to the source only what the
    /// sink calls durable. Goes on by itself after a lost connection or a failover inside of the deployment.
    ///
    /// Returns when the work is cancelled; what was received by then has been appended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing that was acknowledged.
    ///
    /// # Errors
    /// What going on cannot mend: missing permission, another deployment's log, a fenced writer.
    async fn stream(&self, cx: &LogContext) -> Result<()>;

    /// Stores complete pieces of log that lie in a folder. Pieces that are stored already are compared.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) for a piece that is stored with other bytes; nothing of it is stored then.
    async fn import(&self, cx: &LogContext, dir: &Path) -> Result<Imported>;

    /// Reads a position in the engine's notation.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that says how one is written.
    fn parse_position(&self, text: &str) -> Result<StatedPosition>;

    /// Where the transaction `name` ended in `path`, in the order of the log: the lineage and the end of the record. None when it did not.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what is not the name of a transaction; those of reading the log.
    async fn find_transaction(&self, log: &RestoreLog, name: &str) -> Result<Option<(Lineage, u64)>>;
}

/// The log behind a backup, as far as a restore may go.
#[derive(Debug, Clone)]
pub struct RestoreLog {
    source: Arc<dyn LogSource>,
    path: LogPath,
}

impl RestoreLog {
    /// The log of `source` along `path`.
    pub fn new(source: Arc<dyn LogSource>, path: LogPath) -> Self {
        Self { source, path }
    }

    /// Reads it.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn LogSource> {
        &self.source
    }

    /// From the end of the backup to the last position that can be reached.
    #[must_use]
    pub fn path(&self) -> &LogPath {
        &self.path
    }

    /// Where to look for the first commit later than `time`: its record ends behind the first position, and at the second or before.
    /// None when there is no such commit.
    ///
    /// That there is one is certain, unless the second position is the end of the path: where the source's clock went backwards just
    /// before the path begins, only the log itself can tell.
    ///
    /// # Errors
    /// Those of reading the index.
    pub async fn first_later(&self, time: Timestamp) -> Result<Option<(LogPosition, LogPosition)>> {
        let ledger = self.source.ledger();
        let mut before = self.path.from.clone();
        // An index knows only the running maximum of its piece. A later commit before the path hides those behind it.
        let mut hidden = false;
        for range in &self.path.ranges {
            let mut pieces = self.source.index(range.clone());
            while let Some((piece, index)) = pieces.try_next().await? {
                // Commits before the path are part of the backup.
                hidden |=
                    index.samples.iter().any(|s| s.at > time && s.offset <= range.start) && piece.end > range.start;
                let later = index.samples.iter().find(|s| s.at > time && s.offset > range.start);
                match later {
                    Some(sample) if sample.offset <= range.end => {
                        let mut known = index.samples.iter().filter(|s| s.at <= time && s.offset > range.start);
                        if let Some(known) = known.next_back().filter(|_| !hidden) {
                            before = ledger.position(&range.lineage, known.offset);
                        }
                        return Ok(Some((before, ledger.position(&range.lineage, sample.offset))));
                    }
                    Some(_) => break,
                    None if hidden => {}
                    None => {
                        let end = piece.end.clamp(range.start, range.end);
                        before = ledger.position(&range.lineage, end);
                    }
                }
            }
        }
        let (lineage, end) = self.path.end();
        Ok(hidden.then(|| (before, ledger.position(lineage, end))))
    }

    /// The places of the log that bear `name`: lineage, end of the record, moment.
    ///
    /// # Errors
    /// Those of reading the index.
    pub async fn named(&self, name: &str) -> Result<Vec<(LogPosition, Timestamp)>> {
        let ledger = self.source.ledger();
        let mut found = Vec::new();
        for range in &self.path.ranges {
            let mut pieces = self.source.index(range.clone());
            while let Some((_, index)) = pieces.try_next().await? {
                let here = index.names.iter().filter(|point| point.name == name);
                let here = here.filter(|point| range.start < point.offset && point.offset <= range.end);
                for point in here.map(|point| (ledger.position(&range.lineage, point.offset), point.at)) {
                    // Pieces that were replaced while they were read may tell of it again.
                    if !found.contains(&point) {
                        found.push(point);
                    }
                }
            }
        }
        Ok(found)
    }

    /// The moment up to which the end of the path has everything, as far as the log tells.
    ///
    /// # Errors
    /// Those of reading the index.
    pub async fn known_until(&self) -> Result<Option<Timestamp>> {
        let here = LogRange::new(self.path.from.lineage.clone(), self.path.from.offset..self.path.from.offset);
        let nothing = self.path.ranges.is_empty().then_some(&here);
        for range in nothing.into_iter().chain(self.path.ranges.iter().rev()) {
            let part = |len: u64| LogRange::new(range.lineage.clone(), range.end - len..range.end);
            // The newest pieces tell; only a log of many pieces without commits has to be looked at further.
            let mut len = range.len();
            while len > 0 && self.source.weight(&part(len)).1 > MANY {
                len /= 2;
            }
            loop {
                let pieces: Vec<_> = self.source.index(part(len)).try_collect().await?;
                let known = pieces.iter().filter_map(|(piece, index)| {
                    let whole = piece.end <= range.end;
                    let commits = index.samples.iter().filter(|s| s.offset <= range.end).map(|s| s.at).max();
                    if whole { index.known_until() } else { commits }
                });
                if let Some(moment) = known.max() {
                    return Ok(Some(moment));
                }
                if len == range.len() {
                    break;
                }
                len = len.max(1).saturating_mul(16).min(range.len());
            }
        }
        Ok(None)
    }
}

/// Of how many pieces the index is read to learn the moment of the log's end.
const MANY: u64 = 16;

/// What a repository without a log answers.
pub(crate) fn no_position(text: &str) -> Error {
    Error::invalid(format!("{text:?} is a position in a change log, and this engine has none"))
}
