//! The stored snapshot, and what it means that it is verified.

use std::ops::Range;
use std::sync::Arc;

use backup_core::engine::{BackupSource, Work};
use backup_core::entry::EntryPath;
use backup_core::observe::{Phase, Unit};
use backup_core::{BackupSourceExt as _, Error, Finding, Result, Severity};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};

use super::feed::Feed;
use crate::engine::facts::DUMP;
use crate::rdb::{ChecksumState, Counted, Counter, RdbVersion, Rules, Summary};

/// The snapshot of a backup.
#[derive(Debug)]
pub(crate) struct Stored {
    source: Arc<dyn BackupSource>,
    path: EntryPath,
    len: u64,
}

/// A snapshot that was read to its end.
#[derive(Debug)]
pub(crate) struct Verified {
    /// What it holds, as it will be written.
    pub(crate) summary: Summary,
    /// What deserves attention.
    pub(crate) findings: Vec<Finding>,
}

impl Stored {
    /// The snapshot of `source`.
    ///
    /// # Errors
    /// [`Damaged`](backup_core::ErrorKind::Damaged) when there is none.
    pub(crate) async fn open(source: &Arc<dyn BackupSource>) -> Result<Self> {
        let path = EntryPath::new(DUMP)?;
        let entry = source.entry(&path).await?;
        let entry = entry.ok_or_else(|| Error::damaged(format!("backup {} has no {DUMP}", source.record().id)))?;
        Ok(Self { source: Arc::clone(source), path, len: entry.len })
    }

    /// Bytes of the snapshot.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Some of its bytes.
    pub(crate) fn read(&self, range: Range<u64>) -> BoxStream<'_, Result<Bytes>> {
        self.source.read(&self.path, range)
    }

    /// A small record beside it, where the backup has one.
    pub(crate) async fn record(&self, name: &str) -> Result<Option<Bytes>> {
        let path = EntryPath::new(name)?;
        match self.source.entry(&path).await? {
            Some(_) => self.source.read_small(&path, 16 << 20).await.map(Some),
            None => Ok(None),
        }
    }

    /// The version that the file says.
    pub(crate) async fn version(&self) -> Result<RdbVersion> {
        let wanted = RdbVersion::LEN;
        let mut head = Vec::new();
        let mut pieces = self.read(0..self.len.min(wanted as u64));
        while let Some(piece) = pieces.next().await {
            head.extend_from_slice(&piece?);
        }
        let head = head.get(..wanted).and_then(|head| head.try_into().ok());
        head.and_then(RdbVersion::parse).ok_or_else(|| Error::damaged(format!("the stored {DUMP} is no snapshot")))
    }

    /// Reads all of it, as `rules` make it, and parses that to its end.
    ///
    /// # Errors
    /// [`Damaged`](backup_core::ErrorKind::Damaged) when it is not what it must be, and
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when the rules cannot be kept.
    pub(crate) async fn verify(&self, rules: &Rules, version: Option<RdbVersion>, work: &Work) -> Result<Verified> {
        work.started(Phase::Verify, Some(self.len), Unit::Bytes);
        let mut feed = Feed::new(self, rules, version);
        let mut counter = Counter::new();
        while let Some(piece) = feed.next().await? {
            work.checkpoint()?;
            let taken = counter.push(&piece)?;
            if taken < piece.len() {
                let text = format!("{} bytes follow behind the end of the snapshot", piece.len() - taken);
                return Err(Error::damaged(text));
            }
            work.advanced(Phase::Verify, piece.len() as u64);
        }
        let summary = counter.finish()?;
        work.ended(Phase::Verify);
        Ok(Verified { findings: findings(&summary), summary })
    }
}

/// What of a snapshot deserves attention.
pub(crate) fn findings(summary: &Summary) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut warn = |code, text: String| {
        findings.push(Finding::new(Severity::Warning, code, text).about(DUMP));
    };
    if summary.checksum == ChecksumState::Off {
        warn("no-checksum", "the server wrote no checksum: only the structure was checked".into());
    }
    if let Counted::Until { offset, what } = summary.counted {
        warn("not-counted", format!("at byte {offset} stands something that is not known here ({what})"));
    }
    for database in summary.differing() {
        let text =
            format!("database {} has {} keys: the server said {:?}", database.number, database.keys, database.declared);
        warn("other-count", text);
    }
    findings
}
