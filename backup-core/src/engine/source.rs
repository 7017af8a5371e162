//! What an engine restores from.

use std::fmt::Debug;
use std::ops::Range;
use std::path::PathBuf;

use super::context::Work;
use crate::catalog::BackupRecord;
use crate::entry::{EntryInfo, EntryPath, Selector};
use crate::error::{Error, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};

/// How much of the repository a restore touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Footprint {
    /// Number of entries.
    pub entries: u64,
    /// Bytes of content when restored.
    pub bytes: u64,
    /// Stored objects that must be read.
    pub objects: u64,
    /// Stored bytes that must be read, at most.
    pub stored_bytes: u64,
}

/// What extraction does with a file that already exists in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// The target must not contain it: an error, raised before anything is written. Folders that exist are no obstacle.
    #[default]
    Refuse,
    /// It is compared block by block and only what differs is fetched and written, in place. Files that are not part of the
    /// backup are removed from the extracted folders at the end, before the entries of [`Extract::last`] are written, and so
    /// are folders that become empty by it. Extracted folders are the directories of the order as far as
    /// [`Extract::selector`] reaches; entries that are left out by [`Extract::except`] are part of the backup.
    Delta,
}

/// An order to write entries of a backup into directories.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Extract {
    /// Where entries go. Must exist.
    pub root: PathBuf,
    /// Only what lies in this folder of the backup, as if it were the whole: its entries stand in `root` without it. The other paths
    /// of the order name it all the same, and must lie in it.
    pub folder: Option<EntryPath>,
    /// Folders of the backup that go elsewhere: entries at or below the path go into the directory instead. Each directory
    /// must exist; the longest matching path wins.
    pub elsewhere: Vec<(EntryPath, PathBuf)>,
    /// Which entries.
    pub selector: Selector,
    /// Entries that are left out although they are selected (the engine writes them itself).
    pub except: Vec<EntryPath>,
    /// Entries that are written after everything else is durable, and then made durable themselves: what makes the target
    /// startable (PostgreSQL: `global/pg_control`). An interrupted extraction leaves none of them behind: those that
    /// [`Existing::Delta`] finds are removed before anything else is changed.
    pub last: Vec<EntryPath>,
    /// What to do with files that exist.
    pub existing: Existing,
    /// Paths relative to their root that [`Existing::Delta`] leaves alone although they are not part of the backup.
    pub keep: Vec<EntryPath>,
}

impl Extract {
    /// Everything into `root`, which must be empty.
    pub fn into_dir(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            folder: None,
            elsewhere: Vec::new(),
            selector: Selector::all(),
            except: Vec::new(),
            last: Vec::new(),
            existing: Existing::Refuse,
            keep: Vec::new(),
        }
    }

    /// Takes one folder of the backup as the whole.
    #[must_use]
    pub fn with_folder(mut self, folder: EntryPath) -> Self {
        self.folder = Some(folder);
        self
    }

    /// Whether everything that is ordered lies in [`folder`](Self::folder).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when something does not.
    pub fn check(&self) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let named = self.elsewhere.iter().map(|(path, _)| path).chain(&self.last).chain(&self.except);
        let outside = named.into_iter().any(|path| !path.is_within(folder.as_bytes()));
        if outside || !self.selector.is_inside(folder) {
            return Err(Error::invalid(format!("only {folder} is extracted, and the order reaches beyond")));
        }
        Ok(())
    }

    /// Sends a folder elsewhere.
    #[must_use]
    pub fn with_elsewhere(mut self, folder: EntryPath, dir: impl Into<PathBuf>) -> Self {
        self.elsewhere.push((folder, dir.into()));
        self
    }

    /// Chooses entries.
    #[must_use]
    pub fn with_selector(mut self, selector: Selector) -> Self {
        self.selector = selector;
        self
    }

    /// Leaves entries out.
    #[must_use]
    pub fn with_except(mut self, except: impl IntoIterator<Item = EntryPath>) -> Self {
        self.except.extend(except);
        self
    }

    /// Sets what is written last.
    #[must_use]
    pub fn with_last(mut self, last: impl IntoIterator<Item = EntryPath>) -> Self {
        self.last.extend(last);
        self
    }

    /// Sets what happens to files that exist.
    #[must_use]
    pub fn with_existing(mut self, existing: Existing) -> Self {
        self.existing = existing;
        self
    }

    /// Leaves paths of the target alone.
    #[must_use]
    pub fn with_keep(mut self, keep: impl IntoIterator<Item = EntryPath>) -> Self {
        self.keep.extend(keep);
        self
    }
}

/// What an extraction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Extracted {
    /// Files, folders and links that the target now has.
    pub entries: u64,
    /// Bytes of content that the target now has.
    pub bytes: u64,
    /// Bytes that were written; less than `bytes` when the target already had some.
    pub written_bytes: u64,
    /// Files of the target that were removed because the backup does not have them.
    pub removed: u64,
}

impl std::ops::AddAssign for Extracted {
    fn add_assign(&mut self, more: Self) {
        let Self { entries, bytes, written_bytes, removed } = more;
        self.entries += entries;
        self.bytes += bytes;
        self.written_bytes += written_bytes;
        self.removed += removed;
    }
}

/// One committed backup, opened for reading. Everything that is returned has been authenticated.
#[async_trait]
pub trait BackupSource: Debug + Send + Sync {
    /// The backup's record.
    fn record(&self) -> &BackupRecord;

    /// The entries of `selector`, sorted by path.
    fn entries(&self, selector: Selector) -> BoxStream<'_, Result<EntryInfo>>;

    /// One entry, if the backup has it.
    ///
    /// # Errors
    /// [`Damaged`](crate::ErrorKind::Damaged), [`Unavailable`](crate::ErrorKind::Unavailable).
    async fn entry(&self, path: &EntryPath) -> Result<Option<EntryInfo>>;

    /// Bytes of an entry's content, in order, in pieces of at most 1 MiB.
    ///
    /// The range must lie inside of the entry, and the entry must exist; otherwise the only item is an
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput). An empty range of an entry yields nothing.
    fn read(&self, path: &EntryPath, range: Range<u64>) -> BoxStream<'_, Result<Bytes>>;

    /// What a restore of `selector` has to read.
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    async fn footprint(&self, selector: &Selector) -> Result<Footprint>;

    /// Writes entries into directories: in parallel, durable when it returns, and restartable: repeated after an
    /// interruption with [`Existing::Delta`], it fetches only what is missing.
    ///
    /// Progress is reported in bytes of content: [`Phase::Compare`](crate::observe::Phase::Compare) for what the target already
    /// has, [`Phase::Write`](crate::observe::Phase::Write) for what is written, and then [`Phase::Sync`](crate::observe::Phase::Sync).
    ///
    /// Paths never leave the directories of the order, also not through symbolic links that lie in them: such a link is an
    /// obstacle that [`Existing::Refuse`] refuses and [`Existing::Delta`] replaces. A symbolic link of the backup that would
    /// lead out of the directory it goes to is an [`InvalidInput`](crate::ErrorKind::InvalidInput) unless it is left out.
    ///
    /// # Cancel safety
    /// Dropped or cancelled through `work`, it leaves a target without the entries of [`Extract::last`], which the same order
    /// with [`Existing::Delta`] completes.
    ///
    /// # Errors
    /// [`Damaged`](crate::ErrorKind::Damaged) when stored content is not what it must be,
    /// [`Environment`](crate::ErrorKind::Environment) when the target cannot be written,
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when a file exists and [`Existing::Refuse`] was ordered.
    async fn extract(&self, order: Extract, work: &Work) -> Result<Extracted>;
}

/// Conveniences over [`BackupSource`].
#[async_trait]
pub trait BackupSourceExt: BackupSource {
    /// The whole content of a small entry.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the backup has no such entry or it is longer than `limit`.
    async fn read_small(&self, path: &EntryPath, limit: u64) -> Result<Bytes> {
        let Some(entry) = self.entry(path).await? else {
            return Err(Error::invalid(format!("backup {} has no entry {path}", self.record().id)));
        };
        if entry.len > limit {
            return Err(Error::invalid(format!("entry {path} has {} bytes, more than {limit}", entry.len)));
        }
        let mut content = Vec::new();
        let mut pieces = self.read(path, 0..entry.len);
        while let Some(piece) = pieces.next().await {
            content.extend_from_slice(&piece?);
        }
        Ok(content.into())
    }
}

impl<T: BackupSource + ?Sized> BackupSourceExt for T {}
