//! Where an engine puts what it reads.

use std::fmt::Debug;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};

use super::patch::Patch;
use crate::entry::EntryMeta;
use crate::error::Result;

/// Looks at content as it passes on its way into the repository, for checks that only the engine understands.
///
/// Called from worker threads, for different parts of one file in any order and at the same time.
pub trait BlockInspector: Debug + Send + Sync + 'static {
    /// Looks at `bytes`, which stand at `offset` of the entry.
    ///
    /// `offset` is a multiple of 128 KiB and `bytes` has at most 1 MiB; it ends at a multiple of 128 KiB or at the end of
    /// the entry. Of a file that was put with [`Unchanged::Outside`], and of a [`Patch`], it may also be one of the ranges that were given, or a part of
    /// one that begins and ends at a multiple of 128 KiB. Content that is not read because it is known to be unchanged does
    /// not pass here.
    fn inspect(&self, offset: u64, bytes: &[u8]);
}

/// When a local file, or parts of it, may be taken from the parent backup without reading them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Unchanged {
    /// Never: the content is read and compared.
    #[default]
    Never,
    /// When size and modification time are those of the parent's entry, and that time lies at least two seconds before the
    /// parent backup began: time stamps are coarse, and a file that was changed while it was read must be read again.
    BySizeAndTime,
    /// What lies outside of these parts, as far as the parent's entry of the same path reaches, is there what it is here.
    Outside(Changes),
}

/// The parts of a file that may have changed since the parent backup, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// In order, apart, not empty.
    ranges: Arc<[Range<u64>]>,
    verified: bool,
}

impl Changes {
    /// These parts, in any order. They may reach beyond the end of the file.
    pub fn new(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut all: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        all.sort_unstable_by_key(|range| range.start);
        all.dedup_by(|next, last| {
            let joined = next.start <= last.end;
            if joined {
                last.end = last.end.max(next.end);
            }
            joined
        });
        Self { ranges: all.into(), verified: false }
    }

    /// Trusts nobody: everything is read and compared, and what differs outside of the parts is
    /// [told](Stored::unexpected).
    #[must_use]
    pub fn verified(self) -> Self {
        Self { verified: true, ..self }
    }

    /// Whether everything is read and compared.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.verified
    }

    /// The parts: in order, none of them empty, no two of them adjacent.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Whether something in `range` may have changed.
    #[must_use]
    pub fn meets(&self, range: &Range<u64>) -> bool {
        let next = self.ranges.partition_point(|known| known.end <= range.start);
        self.ranges.get(next).is_some_and(|known| known.start < range.end)
    }
}

/// What it means when a local file turns out shorter than it was when it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnShrink {
    /// The source is being changed and its log repairs it later: the missing rest is stored as zeros, as PostgreSQL's own
    /// base backup does.
    PadWithZeros,
    /// The file ought not to change: an error.
    #[default]
    Fail,
}

/// A file of this host that the pipeline reads by itself, in parallel.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LocalFile {
    /// Where to read. Never followed when it is a symbolic link.
    pub path: PathBuf,
    /// How the entry is called and what it is. Mode and time are taken from the file itself when it is opened.
    pub meta: EntryMeta,
    /// When it need not be read.
    pub unchanged: Unchanged,
    /// What to do when it shrinks.
    pub on_shrink: OnShrink,
    /// Looks at the content as it passes.
    pub inspector: Option<Arc<dyn BlockInspector>>,
}

impl LocalFile {
    /// The file at `path`, stored as `meta`.
    #[must_use]
    pub fn new(path: PathBuf, meta: EntryMeta) -> Self {
        Self { path, meta, unchanged: Unchanged::default(), on_shrink: OnShrink::default(), inspector: None }
    }

    /// Sets when it need not be read.
    #[must_use]
    pub fn with_unchanged(mut self, rule: Unchanged) -> Self {
        self.unchanged = rule;
        self
    }

    /// Sets what shrinking means.
    #[must_use]
    pub fn with_on_shrink(mut self, rule: OnShrink) -> Self {
        self.on_shrink = rule;
        self
    }

    /// Sets the inspector.
    #[must_use]
    pub fn with_inspector(mut self, inspector: Arc<dyn BlockInspector>) -> Self {
        self.inspector = Some(inspector);
        self
    }
}

/// What became of something that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is part of the backup.
    Stored(Stored),
    /// The file did not exist when it was to be opened. Whether that is allowed is the engine's decision.
    Vanished,
}

impl Put {
    /// What was stored, unless the file had vanished.
    #[must_use]
    pub fn stored(self) -> Option<Stored> {
        match self {
            Self::Stored(stored) => Some(stored),
            Self::Vanished => None,
        }
    }
}

/// How much of an entry had to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stored {
    /// Length of the entry in bytes.
    pub len: u64,
    /// Bytes of it that were not in the repository.
    pub new_bytes: u64,
    /// Whether it was taken from the parent without being read.
    pub unread: bool,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes, in blocks of 128 KiB, that differ from the parent's though they lie outside of
    /// [verified changes](Changes::verified).
    pub unexpected: u64,
}

/// Takes the entries of one backup. Shared by all tasks of an engine.
///
/// Nothing that is put here is visible to anyone before the session commits, and an engine cannot commit.
///
/// A put that returned an error, [`Put::Vanished`] or no reuse has put nothing: its path is free, and the session goes on
/// unless the store itself has failed. Content is compared with the parent's entry of the same path, block by block of
/// 128 KiB, whether it comes from a file or from a stream.
///
/// # Cancel safety
/// Every method may be dropped at any time: the entry is then part of the backup or not, and the session must not be
/// committed by anyone who does not know which (orchestration never commits a session whose engine failed).
#[async_trait]
pub trait BackupSink: Debug + Send + Sync {
    /// Stores a local file. Returns when all of its content has been read and sealed, not when it is durable.
    ///
    /// # Errors
    /// [`Environment`](crate::ErrorKind::Environment) when it cannot be read; the session's own error when the store has
    /// failed in the meantime; [`InvalidInput`](crate::ErrorKind::InvalidInput) when the path was already put.
    async fn put_file(&self, file: LocalFile) -> Result<Put>;

    /// Stores some local files, each as [`put_file`](Self::put_file) does. The outcomes stand in the order of the files.
    ///
    /// A sink may look at all of them in one go, which saves each small file a wait. As many files are open at a time as are given.
    async fn put_some(&self, files: Vec<LocalFile>) -> Vec<Result<Put>> {
        futures::future::join_all(files.into_iter().map(|file| self.put_file(file))).await
    }

    /// Stores the bytes of `body` as one entry. Pieces may have any size; memory stays bounded whatever their number.
    ///
    /// # Errors
    /// Those of `body` unchanged, and those of [`put_file`](Self::put_file).
    async fn put_stream(
        &self,
        meta: EntryMeta,
        body: BoxStream<'_, Result<Bytes>>,
        inspector: Option<Arc<dyn BlockInspector>>,
    ) -> Result<Stored>;

    /// Stores an entry that is the parent's of the same path, but for what `patch` says has changed: `body` brings the bytes of these
    /// places, one after the other, and nothing else. The stored entry is complete, it does not depend on the parent backup.
    ///
    /// A block of which only some is new has no known hash, because nobody has seen all of it: a later comparison stores it again.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the parent has no such entry, the patch [does not fit](Patch::check), or
    /// `body` has another length; those of `body` unchanged, and those of [`put_file`](Self::put_file).
    async fn put_patch(&self, patch: Patch, body: BoxStream<'_, Result<Bytes>>) -> Result<Stored>;

    /// Takes the content of `meta`'s identity from the parent backup, if it has it, without reading anything.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when `meta` has no identity or its path was already put.
    async fn reuse(&self, meta: EntryMeta) -> Result<Option<Stored>>;

    /// How many [`put_file`](Self::put_file) calls at a time keep the pipeline busy.
    fn concurrency(&self) -> usize;
}

/// So many files are put together.
const LOT: usize = 32;

/// Conveniences over [`BackupSink`].
#[async_trait]
pub trait BackupSinkExt: BackupSink {
    /// Stores `bytes` as one entry.
    async fn put_bytes(&self, meta: EntryMeta, bytes: Bytes) -> Result<Stored> {
        self.put_stream(meta, futures::stream::once(async { Ok(bytes) }).boxed(), None).await
    }

    /// Stores an entry without content: a folder, a link.
    async fn put_node(&self, meta: EntryMeta) -> Result<()> {
        self.put_stream(meta, futures::stream::empty().boxed(), None).await.map(drop)
    }

    /// Stores many local files, as many at a time as keep the pipeline busy. `each` is called with the outcome of every
    /// file, in no particular order, and may stop everything by an error.
    async fn put_files<I, F>(&self, files: I, mut each: F) -> Result<()>
    where
        I: IntoIterator<Item = LocalFile> + Send,
        I::IntoIter: Send,
        F: FnMut(&EntryMeta, Put) -> Result<()> + Send,
    {
        let mut files = files.into_iter();
        let lots = std::iter::from_fn(move || {
            let lot: Vec<_> = files.by_ref().take(LOT).collect();
            (!lot.is_empty()).then_some(lot)
        });
        let mut outcomes = futures::stream::iter(lots.map(|lot| async move {
            let metas: Vec<_> = lot.iter().map(|file| file.meta.clone()).collect();
            metas.into_iter().zip(self.put_some(lot).await)
        }))
        // One is worked on while the other one comes to its end.
        .buffer_unordered((self.concurrency() / LOT).max(2));
        while let Some(lot) = outcomes.next().await {
            for (meta, put) in lot {
                each(&meta, put?)?;
            }
        }
        Ok(())
    }
}

impl<T: BackupSink + ?Sized> BackupSinkExt for T {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn changes_are_what_was_said(ranges in prop::collection::vec((0_u64..200, 0_u64..20), 0..20), probe in 0_u64..220) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, len)| start..start + len).collect();
            let changes = Changes::new(ranges.clone());
            let said = ranges.iter().any(|range| range.contains(&probe));
            prop_assert_eq!(changes.meets(&(probe..probe + 1)), said);
            prop_assert_eq!(changes.ranges().iter().any(|range| range.contains(&probe)), said);
            prop_assert!(changes.ranges().windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert!(!changes.meets(&(probe..probe)) || said);
        }
    }
}
