//! The server's own log, in `pg_wal` of its data directory.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use backup_core::engine::{BackupSource, Work};
use backup_core::entry::EntryPath;
use backup_core::{Error, Result};
use bytes::Bytes;
use futures::stream::TryStreamExt;
use sha2::{Digest, Sha256};

use super::facts::Facts;
use super::probe::Server;
use crate::changes::{ChangeMap, Doubt};
use crate::lsn::{Lsn, TimelineId};
use crate::wal::{WalFormat, WalReader};

/// How much is read at once.
const PIECE: u64 = 1 << 20;
/// The log just before a position that tells one history from another: its records hold times, transactions and data.
const WITNESS: u64 = 64 << 10;

/// The log before `end` and not before `start` by which a history is recognised.
pub(super) fn witnesses(start: Lsn, end: Lsn) -> Range<u64> {
    start.0.max(end.0.saturating_sub(WITNESS)).min(end.0)..end.0
}

/// What is remembered of a witness.
#[derive(Debug, Default)]
pub(super) struct Seen(Sha256);

impl Seen {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// As a fact of a snapshot.
    pub(super) fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What is seen of the log at the end of a stored backup.
///
/// # Errors
/// Those of reading it.
pub(super) async fn stored(source: &dyn BackupSource, backup: &Facts) -> Result<String> {
    let (range, size) = (witnesses(backup.start, backup.stop), backup.wal_segment_size);
    let mut seen = Seen::default();
    let mut at = Lsn(range.start);
    while at.0 < range.end {
        let path = EntryPath::new(format!("pg_wal/{}", size.name(backup.timeline, at)))?;
        let first = size.floor(at).0;
        let end = range.end.min(first + size.bytes());
        let mut bytes = source.read(&path, at.0 - first..end - first);
        while let Some(piece) = bytes.try_next().await? {
            seen.add(&piece);
        }
        at = Lsn(end);
    }
    Ok(seen.finish())
}

/// The segments of one timeline.
#[derive(Debug, Clone)]
pub(super) struct WalDir {
    pub(super) root: PathBuf,
    pub(super) server: Server,
    pub(super) timeline: TimelineId,
}

impl WalDir {
    /// What is seen of `range`.
    ///
    /// # Errors
    /// Environment, when it is not there any more.
    pub(super) async fn seen(&self, range: Range<u64>) -> Result<String> {
        let dir = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut seen = Seen::default();
            dir.read(range, |bytes| {
                seen.add(&bytes);
                Ok(true)
            })?;
            Ok(seen.finish())
        });
        read.await.map_err(panicked)?
    }

    /// The changes from `start`, where a record begins, to the first record at `redo` or behind it.
    ///
    /// # Errors
    /// Environment, when the log is not there as a whole.
    pub(super) async fn changes(&self, work: &Work, start: Lsn, redo: Lsn) -> Result<ChangeMap> {
        let format = WalFormat::new(
            self.server.version.major(),
            self.server.wal_segment_size,
            self.server.system_id,
            self.timeline,
        )?;
        let mut map = ChangeMap::new(start);
        let mut reader = WalReader::new(format, start)?.skimming();
        loop {
            work.checkpoint()?;
            let at = reader.received();
            let end = self.server.wal_segment_size.floor(at).0 + self.server.wal_segment_size.bytes();
            let dir = self.clone();
            let read = tokio::task::spawn_blocking(move || {
                let whole = dir.read(at.0..end, |bytes| take(&mut reader, &mut map, bytes, redo))?;
                Ok::<_, Error>((reader, map, !whole))
            });
            let done;
            (reader, map, done) = read.await.map_err(panicked)??;
            if done {
                return Ok(map);
            }
        }
    }

    /// Hands `range` on in pieces until nobody wants more. Whether all was wanted. Blocking.
    fn read(&self, range: Range<u64>, mut each: impl FnMut(Bytes) -> Result<bool>) -> Result<bool> {
        let size = self.server.wal_segment_size;
        let mut at = range.start;
        while at < range.end {
            let path = self.root.join("pg_wal").join(size.name(self.timeline, Lsn(at)).to_string());
            let file = File::open(&path).map_err(|e| Error::io(path.display(), e))?;
            let end = range.end.min(size.floor(Lsn(at)).0 + size.bytes());
            while at < end {
                let len = PIECE.min(end - at);
                let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
                file.read_exact_at(&mut bytes, size.offset(Lsn(at))).map_err(|e| Error::io(path.display(), e))?;
                at += len;
                if !each(bytes.into())? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Adds what the records of `bytes` change. False at the first one at `redo` or behind it.
fn take(reader: &mut WalReader, map: &mut ChangeMap, bytes: Bytes, redo: Lsn) -> Result<bool> {
    reader.push(bytes);
    while let Some(record) = reader.next()? {
        if record.start >= redo {
            return Ok(false);
        }
        map.add(&record);
    }
    match reader.end() {
        // A file that was reused meanwhile, or a log that ends before the checkpoint that it holds.
        Some(end) => Err(Error::environment(Doubt::Gap { from: end.at, to: redo }.to_string())),
        None => Ok(true),
    }
}

fn panicked(error: tokio::task::JoinError) -> Error {
    Error::internal("reading the log of a server panicked").with_source(error)
}
