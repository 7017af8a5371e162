//! Segments as files.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::mpsc as blocking;

use backup_core::engine::Work;
use backup_core::observe::{Phase, Unit};
use backup_core::{Error, Result};
use bytes::Bytes;
use futures::stream::{Stream, TryStreamExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::disk::{at, create, staged, sync_dir};
use crate::lsn::Lsn;
use crate::wal::{SegmentName, SegmentSize};

/// Pieces of log, of at most 1 MiB, that wait to be written.
const WAITING: usize = 8;
/// Files that are written and wait until they are durable. Beyond them the disk is the slower part.
const SYNCING: usize = 2;

/// A segment that is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) name: SegmentName,
    /// Whether its file says by its name that more belongs into it.
    pub(crate) partial: bool,
    pub(crate) start: Lsn,
    /// Behind its last byte of log; the rest are zeros.
    pub(crate) end: Lsn,
}

impl Segment {
    pub(crate) fn file_name(&self) -> String {
        format!("{}{}", self.name, if self.partial { ".partial" } else { "" })
    }

    fn len(&self) -> u64 {
        self.end.0 - self.start.0
    }
}

/// The folder that segments are written into.
#[derive(Debug, Clone)]
pub(crate) struct SegmentFolder {
    pub(crate) dir: PathBuf,
    pub(crate) size: SegmentSize,
    /// Permissions of its files.
    pub(crate) mode: u32,
}

impl SegmentFolder {
    /// Writes `segments`, whose log `bytes` yields one after the other. A file that bears its name is whole and durable; one of that name
    /// that was there before is replaced. One thread writes and another waits for the disk, while the log is fetched. Returns the bytes
    /// that the files have.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a prefix of the files, and perhaps files named `….restoring`.
    ///
    /// # Errors
    /// Damaged when `bytes` ends early; what its stream and the disk report.
    pub(crate) async fn write(
        &self,
        segments: Vec<Segment>,
        bytes: impl Stream<Item = Result<Bytes>>,
        work: &Work,
    ) -> Result<u64> {
        let written = segments.len() as u64 * self.size.bytes();
        work.started(Phase::Write, Some(written), Unit::Bytes);
        let (pieces, waiting) = mpsc::channel(WAITING);
        let (files, complete) = blocking::sync_channel(SYNCING);
        let folder = self.clone();
        let writing = tokio::task::spawn_blocking(move || folder.fill(&segments, waiting, &files));
        let folder = self.clone();
        let syncing = tokio::task::spawn_blocking(move || folder.settle(&complete));
        let mut bytes = std::pin::pin!(bytes);
        let fetched = async {
            while let Some(piece) = bytes.try_next().await? {
                work.checkpoint()?;
                let len = piece.len() as u64;
                // Closed: the writer has failed, and tells why.
                if pieces.send(piece).await.is_err() {
                    break;
                }
                work.advanced(Phase::Write, len);
            }
            drop(pieces);
            Ok(())
        }
        .await;
        // The disk's word comes first: a writer that lost its syncer only knows that it did, and so on.
        let (writing, syncing) = (ended(writing).await, ended(syncing).await);
        fetched.and(syncing).and(writing)?;
        work.ended(Phase::Write);
        Ok(written)
    }

    /// Fills one file after the other. Blocking.
    fn fill(
        &self,
        segments: &[Segment],
        mut pieces: mpsc::Receiver<Bytes>,
        complete: &blocking::SyncSender<(File, PathBuf, PathBuf)>,
    ) -> Result<()> {
        let mut piece = Bytes::new();
        for segment in segments {
            let path = self.dir.join(segment.file_name());
            let staged = self.dir.join(staged(&segment.file_name()));
            let mut file = create(&staged, self.mode)?;
            at(&staged, file.set_len(self.size.bytes()))?;
            let mut left = segment.len();
            while left > 0 {
                if piece.is_empty() {
                    piece = pieces.blocking_recv().ok_or_else(|| {
                        Error::damaged(format!("wal segment {} is stored only in part", segment.name))
                    })?;
                }
                let part = piece.split_to(piece.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                at(&staged, file.write_all(&part))?;
                left -= part.len() as u64;
            }
            if complete.send((file, staged, path)).is_err() {
                return Err(Error::internal("nobody waits for segments to be durable"));
            }
        }
        Ok(())
    }

    /// Makes complete files durable and gives them their names. Blocking.
    fn settle(&self, complete: &blocking::Receiver<(File, PathBuf, PathBuf)>) -> Result<()> {
        while let Ok((file, staged, path)) = complete.recv() {
            at(&staged, file.sync_all())?;
            at(&path, fs::rename(&staged, &path))?;
        }
        sync_dir(&self.dir)
    }
}

async fn ended(task: JoinHandle<Result<()>>) -> Result<()> {
    task.await.map_err(|e| Error::internal("writing segments panicked").with_source(e))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::TimelineId;
    use backup_core::ErrorKind;
    use futures::stream;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    const SIZE: u32 = 1 << 20;

    fn folder(dir: &Path) -> SegmentFolder {
        SegmentFolder { dir: dir.to_owned(), size: SegmentSize::new(SIZE).unwrap(), mode: 0o640 }
    }

    /// Segments from the third on, the last of them with `last` bytes.
    fn segments(count: u64, last: u64) -> Vec<Segment> {
        let size = SegmentSize::new(SIZE).unwrap();
        let segment = |number: u64| {
            let start = Lsn((number + 3) * size.bytes());
            let len = if number + 1 == count { last } else { size.bytes() };
            let partial = len < size.bytes();
            Segment { name: size.name(TimelineId::FIRST, start), partial, start, end: Lsn(start.0 + len) }
        };
        (0..count).map(segment).collect()
    }

    fn log(len: u64) -> Bytes {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    /// In pieces that meet no boundary of a segment.
    fn pieces(log: &Bytes) -> impl Stream<Item = Result<Bytes>> + use<> {
        let pieces: Vec<_> = log.chunks(99_991).map(Bytes::copy_from_slice).map(Ok).collect();
        stream::iter(pieces)
    }

    #[tokio::test]
    async fn segments_are_cut_from_one_stream() {
        let dir = tempfile::tempdir().unwrap();
        let size = u64::from(SIZE);
        let log = log(4 * size + 1000);
        let (segments, work) = (segments(5, 1000), Work::default());
        // What was left by one that was interrupted.
        fs::write(dir.path().join(staged(&segments[1].file_name())), b"rest").unwrap();
        let written = folder(dir.path()).write(segments.clone(), pieces(&log), &work).await.unwrap();
        assert_eq!(written, 5 * size);
        let mut found = 0;
        for entry in fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o640);
            found += 1;
        }
        assert_eq!(found, 5);
        for (number, segment) in segments.iter().enumerate() {
            let bytes = fs::read(dir.path().join(segment.file_name())).unwrap();
            let start = number * SIZE as usize;
            let own = &log[start..log.len().min(start + SIZE as usize)];
            assert_eq!(bytes.len() as u64, size);
            assert_eq!(&bytes[..own.len()], own);
            assert!(bytes[own.len()..].iter().all(|byte| *byte == 0));
        }
        assert!(segments[4].file_name().ends_with(".partial"));
    }

    #[tokio::test]
    async fn what_is_missing_bears_no_name() {
        let work = Work::default();
        let dir = tempfile::tempdir().unwrap();
        let short = log(u64::from(SIZE) + 5);
        let error = folder(dir.path()).write(segments(2, 6), pieces(&short), &work).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(!dir.path().join(segments(2, 6)[1].file_name()).exists());
        // Errors of the stream come before what follows from them.
        let failing = stream::iter([Ok(log(10)), Err(Error::unavailable("away"))]);
        let error = folder(dir.path()).write(segments(1, 60), failing, &work).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }

    #[tokio::test]
    async fn a_disk_that_fails_is_named() {
        let dir = tempfile::tempdir().unwrap();
        // A folder where a file should go.
        fs::create_dir_all(dir.path().join(segments(1, 6)[0].file_name()).join("full")).unwrap();
        let error = folder(dir.path()).write(segments(1, 6), pieces(&log(6)), &Work::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
        assert!(error.to_string().contains(".partial"), "{error}");
        let gone = dir.path().join("gone");
        let error = folder(&gone).write(segments(1, 6), pieces(&log(6)), &Work::default()).await.unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }
}
