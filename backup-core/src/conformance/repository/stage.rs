//! One repository with what a case does to it all the time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::TryStreamExt;

use super::RepositoryHarness;
use crate::catalog::BackupRecord;
use crate::conformance::bytes::assert_same;
use crate::engine::{
    BackupSink, BackupSinkExt, BackupSource, Existing, Extract, Extracted, LocalFile, Put, Stored, Work,
};
use crate::entry::{EntryInfo, EntryMeta, EntryPath, Selector};
use crate::env::Env;
use crate::error::Result;
use crate::id::BackupId;
use crate::repository::{BackupSession, ParentChoice, Repository};
use crate::snapshot::{Consistency, Snapshot};

/// A fresh repository and the environment of the case.
pub(super) struct Stage {
    pub(super) repository: Arc<dyn Repository>,
    pub(super) env: Env,
}

#[track_caller]
pub(super) fn path(name: impl Into<Vec<u8>>) -> EntryPath {
    EntryPath::new(name).expect("cases use valid paths")
}

pub(super) fn file(name: &str) -> EntryMeta {
    EntryMeta::file(path(name))
}

/// A directory of this host that ends with the case.
pub(super) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// Writes a file of this host.
#[track_caller]
pub(super) fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().expect("it has a parent")).expect("folders can be made");
    std::fs::write(&path, content).expect("a temporary file can be written");
    path
}

impl Stage {
    pub(super) async fn new(harness: &dyn RepositoryHarness) -> Self {
        Self { repository: harness.fresh().await, env: harness.env() }
    }

    pub(super) fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    /// Lets ten seconds pass, so that the next backup is a later one.
    pub(super) async fn later(&self) {
        self.env.clock().sleep(Duration::from_secs(10)).await;
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let now = self.env.now();
        Snapshot::new("conformance", "1", "source", "none", Consistency::PointInTime, (now, now))
    }

    pub(super) async fn begin(&self, parent: ParentChoice) -> Box<dyn BackupSession> {
        self.repository.begin(parent, &self.work()).await.expect("a session can be opened")
    }

    pub(super) async fn commit(&self, session: Box<dyn BackupSession>) -> BackupRecord {
        self.later().await;
        let record = session.commit(self.snapshot()).await.expect("a session can be committed");
        self.later().await;
        record
    }

    /// A backup of the given files.
    pub(super) async fn store(&self, parent: ParentChoice, files: &[(&str, &Bytes)]) -> BackupRecord {
        let session = self.begin(parent).await;
        put_all(session.sink().as_ref(), files).await;
        self.commit(session).await
    }

    pub(super) async fn open(&self, id: BackupId) -> Arc<dyn BackupSource> {
        self.repository.open(id).await.expect("a committed backup can be opened")
    }

    /// Panics unless the backup consists of exactly these files with this content.
    pub(super) async fn assert_holds(&self, id: BackupId, files: &[(&str, &Bytes)]) {
        let source = self.open(id).await;
        let mut expected: Vec<_> = files.iter().map(|(name, _)| path(*name)).collect();
        expected.sort();
        let actual: Vec<_> = entries(source.as_ref(), Selector::all()).await.into_iter().map(|e| e.meta.path).collect();
        assert_eq!(actual, expected, "paths of backup {id}");
        for (name, bytes) in files {
            assert_same(&content(source.as_ref(), &path(*name)).await, bytes, format_args!("{name} of backup {id}"));
        }
    }
}

/// Puts files; how much of each had to be stored.
pub(super) async fn put_all(sink: &dyn BackupSink, files: &[(&str, &Bytes)]) -> Vec<Stored> {
    let mut stored = Vec::new();
    for (name, bytes) in files {
        stored.push(sink.put_bytes(file(name), Bytes::clone(bytes)).await.expect("content can be put"));
    }
    stored
}

/// Puts a local file that exists.
pub(super) async fn put_local(sink: &dyn BackupSink, file: LocalFile) -> Stored {
    match sink.put_file(file).await.expect("a local file can be put") {
        Put::Stored(stored) => stored,
        Put::Vanished => panic!("a file that exists was reported as vanished"),
    }
}

pub(super) async fn entries(source: &dyn BackupSource, selector: Selector) -> Vec<EntryInfo> {
    source.entries(selector).try_collect().await.expect("entries can be listed")
}

/// The whole content of an entry.
pub(super) async fn content(source: &dyn BackupSource, path: &EntryPath) -> Vec<u8> {
    let entry = source.entry(path).await.expect("an entry can be looked up");
    let entry = entry.unwrap_or_else(|| panic!("entry {path} is missing"));
    range(source, path, 0..entry.len).await.expect("content can be read")
}

/// Some content of an entry, and that its pieces keep to their limit.
pub(super) async fn range(source: &dyn BackupSource, path: &EntryPath, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
    let pieces: Vec<Bytes> = source.read(path, range).try_collect().await?;
    assert!(pieces.iter().all(|p| p.len() <= 1024 * 1024), "a piece of {path} is larger than 1 MiB");
    Ok(pieces.concat())
}

pub(super) async fn extract(source: &dyn BackupSource, order: Extract) -> Result<Extracted> {
    source.extract(order, &Work::default()).await
}

pub(super) fn delta(root: &Path) -> Extract {
    Extract::into_dir(root).with_existing(Existing::Delta)
}

/// Puts one entry with content.
pub(super) async fn put_meta(sink: &dyn BackupSink, meta: EntryMeta, bytes: &Bytes) -> Stored {
    sink.put_bytes(meta, bytes.clone()).await.expect("content can be put")
}
