//! A look inside a backup, without a server: which keys are there, who fills the memory, what has changed between two backups.
//!
//! The rule of this room: values stay closed and nothing grows with them. A snapshot is read once, in pieces, by range; what is
//! kept of it has a bound that is stated where it is kept. Sizes are those of values as they stand in the snapshot, which is less
//! than they take in the memory of a server.
//!
//! The rooms: `entry` makes keys of what passes, `profile` adds them up, `prefixes` does so by the beginnings of their names,
//! `table` compares them with those of another backup by the digests of `digest`, `sum` makes one digest of all. All of these are pure; `diff` and this file are the ring around them.

mod diff;
mod digest;
mod entry;
mod prefixes;
mod profile;
mod sum;
mod table;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use backup_core::engine::{BackupSource, Work};
use backup_core::observe::{Phase, Unit};
use backup_core::{Error, Result};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};

use crate::rdb::{Counted, KeyFilter, RdbVersion};
use crate::restore::Stored;

pub use diff::{Change, DiffSettings, Difference, diff};
pub use entry::KeyEntry;
use entry::Reading;
pub use prefixes::{PrefixTotal, Prefixes};
pub use profile::{Profile, ProfileSettings, Profiler, SizeClass, Totals};
pub(crate) use sum::Sum;

/// A snapshot that is to be looked into: that of a backup, or a file.
#[derive(Debug)]
pub struct Look {
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Stored(Stored),
    File { path: PathBuf, len: u64 },
}

/// So much of a file is read at a time.
const PIECE: usize = 1 << 20;

impl Look {
    /// Opens the snapshot of `source`.
    ///
    /// # Errors
    /// [`Damaged`](backup_core::ErrorKind::Damaged) when the backup has none.
    pub async fn open(source: &Arc<dyn BackupSource>) -> Result<Self> {
        Ok(Self { origin: Origin::Stored(Stored::open(source).await?) })
    }

    /// The snapshot in the file `path`, as a server has written it.
    ///
    /// # Errors
    /// [`Environment`](backup_core::ErrorKind::Environment) when there is no such file.
    pub async fn file(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let len = tokio::fs::metadata(&path).await.map_err(|error| Error::io(path.display(), error))?.len();
        Ok(Self { origin: Origin::File { path, len } })
    }

    /// Bytes of the snapshot.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match &self.origin {
            Origin::Stored(stored) => stored.len(),
            Origin::File { len, .. } => *len,
        }
    }

    /// The keys that `filter` wants, in the order of the snapshot.
    #[must_use]
    pub fn keys(&self, filter: KeyFilter) -> Keys<'_> {
        self.read(Reading::new(filter))
    }

    /// Adds up the keys that `filter` wants. Reads all of the snapshot.
    ///
    /// # Errors
    /// As [`Keys::next`].
    pub async fn profile(&self, filter: KeyFilter, settings: ProfileSettings, work: &Work) -> Result<Profile> {
        let mut profiler = Profiler::new(settings);
        let mut keys = self.keys(filter);
        work.started(Phase::Verify, Some(self.bytes()), Unit::Bytes);
        while let Some(key) = keys.next(work).await? {
            profiler.add(&key);
        }
        work.ended(Phase::Verify);
        Ok(profiler.finish(keys.counted()))
    }

    /// The keys that `filter` wants, with digests of their values.
    fn digested(&self, filter: KeyFilter) -> Keys<'_> {
        self.read(Reading::new(filter).with_digests())
    }

    fn read(&self, reading: Reading) -> Keys<'_> {
        let pieces = match &self.origin {
            Origin::Stored(stored) => stored.read(0..stored.len()),
            Origin::File { path, .. } => pieces(path),
        };
        Keys { pieces, reading, ready: VecDeque::new(), ended: false }
    }

    /// What all keys come to, whatever order they stand in. Reads all of the snapshot, and compares its checksum.
    ///
    /// # Errors
    /// As [`Keys::next`].
    pub(crate) async fn sum(&self, work: &Work) -> Result<Sum> {
        let mut sum = Sum::default();
        let mut keys = self.digested(KeyFilter::all());
        while let Some(key) = keys.next(work).await? {
            sum.add(&key);
        }
        sum.counted = keys.counted();
        Ok(sum)
    }
}

/// The bytes of a file.
fn pieces(path: &std::path::Path) -> BoxStream<'_, Result<Bytes>> {
    let open = async move { tokio::fs::File::open(path).await.map_err(|error| Error::io(path.display(), error)) };
    let read = move |file: tokio::fs::File| {
        futures::stream::try_unfold(file, move |mut file| async move {
            let mut piece = bytes::BytesMut::with_capacity(PIECE);
            let read = tokio::io::AsyncReadExt::read_buf(&mut file, &mut piece).await;
            let read = read.map_err(|error| Error::io(path.display(), error))?;
            Ok((read > 0).then(|| (piece.freeze(), file)))
        })
    };
    futures::stream::once(open).map_ok(read).try_flatten().boxed()
}

/// Keys, one after the other, while the snapshot is read.
pub struct Keys<'a> {
    pieces: BoxStream<'a, Result<Bytes>>,
    reading: Reading,
    /// Keys that were met in the present piece.
    ready: VecDeque<KeyEntry>,
    ended: bool,
}

impl Keys<'_> {
    /// The next key. None behind the last one, when the checksum of the snapshot was compared as well.
    ///
    /// # Errors
    /// [`Damaged`](backup_core::ErrorKind::Damaged) when the snapshot is not what it must be; those of reading the repository;
    /// [`Cancelled`](backup_core::ErrorKind::Cancelled).
    ///
    /// # Cancel safety
    /// Dropping the future may lose keys: then drop this as well.
    pub async fn next(&mut self, work: &Work) -> Result<Option<KeyEntry>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            if self.ended {
                return Ok(None);
            }
            match self.pieces.next().await.transpose()? {
                Some(piece) => {
                    work.checkpoint()?;
                    work.advanced(Phase::Verify, piece.len() as u64);
                    let taken = self.reading.push(&piece, &mut self.ready)?;
                    if taken < piece.len() {
                        return Err(Error::damaged("bytes follow behind the end of the snapshot"));
                    }
                }
                None => {
                    self.reading.finish()?;
                    self.ended = true;
                }
            }
        }
    }

    /// How far keys could be seen: behind a type that is not known here there may be more.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.reading.counted()
    }

    /// The version of the snapshot, as soon as the first bytes were read.
    #[must_use]
    pub fn version(&self) -> Option<RdbVersion> {
        self.reading.version()
    }
}

impl std::fmt::Debug for Keys<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("reading", &self.reading).field("ended", &self.ended).finish_non_exhaustive()
    }
}
