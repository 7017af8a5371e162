//! A plain directory as an engine, as an embedder would write one: what the files benchmark backs up with.
//!
//! A file whose size and time are those of the parent backup is not read again, as with the programs that it is compared with. Nothing
//! freezes the directory: what changes while it is read is stored as it was then, so the consistency is [fuzzy](Consistency::Fuzzy).

mod walk;

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use backup_core::engine::{
    BackupContext, BackupEngine, BackupSinkExt as _, CheckContext, CheckReport, Deployment, EngineDescriptor, Existing,
    Extract, LocalFile, OnShrink, RestoreContext, Restored, Unchanged,
};
use backup_core::entry::EntryMeta;
use backup_core::observe::{Phase, Unit};
use backup_core::{Consistency, Error, Finding, Result, Severity, Snapshot};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

const DESCRIPTOR: EngineDescriptor =
    EngineDescriptor::new("directory", "Directory", Consistency::Fuzzy, "paths inside the directory");

/// A directory to back up, or to restore into.
#[derive(Debug)]
pub(crate) struct Directory {
    dir: PathBuf,
    delta: bool,
}

impl Directory {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, delta: false }
    }

    /// Whether a restore rewrites what is there.
    pub(crate) fn with_delta(mut self, delta: bool) -> Self {
        self.delta = delta;
        self
    }

    fn source(&self) -> Result<String> {
        let dir = self.dir.canonicalize();
        Ok(dir.map_err(|error| Error::environment(format!("{self}: {error}")))?.display().to_string())
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {}", self.dir.display())
    }
}

#[async_trait]
impl BackupEngine for Directory {
    fn descriptor(&self) -> &EngineDescriptor {
        &DESCRIPTOR
    }

    async fn inspect(&self) -> Result<Deployment> {
        Ok(Deployment::new(self.source()?, "1", "local"))
    }

    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot> {
        let begun = cx.work().env().now();
        let dir = self.dir.clone();
        let listing = tokio::task::spawn_blocking(move || walk::list(&dir));
        let listing = listing.await.map_err(|error| Error::internal(error.to_string()))??;
        cx.work().started(Phase::Read, Some(listing.files.len() as u64), Unit::Items);
        let sink = cx.sink();
        let nodes = stream::iter(listing.nodes.into_iter().map(|meta| sink.put_node(meta)));
        nodes.buffer_unordered(sink.concurrency()).try_collect::<()>().await?;
        let files = listing.files.into_iter().map(|(entry, path)| {
            let file = LocalFile::new(path, EntryMeta::file(entry)).with_on_shrink(OnShrink::PadWithZeros);
            file.with_unchanged(Unchanged::BySizeAndTime)
        });
        let (mut read, mut vanished) = (0, 0_u64);
        sink.put_files(files, |_, put| {
            match put.stored() {
                Some(stored) => read += stored.read_bytes,
                None => vanished += 1,
            }
            Ok(())
        })
        .await?;
        cx.work().ended(Phase::Read);
        let times = (begun, cx.work().env().now());
        let mut snapshot = Snapshot::new("directory", "1", self.source()?, "local", Consistency::Fuzzy, times);
        snapshot.facts.insert("read_bytes".to_owned(), read.to_string());
        if vanished > 0 {
            let text = format!("{vanished} files were removed while the directory was read");
            snapshot.findings.push(Finding::new(Severity::Note, "vanished", text));
        }
        Ok(snapshot)
    }

    async fn assess_restore(&self, _: &RestoreContext) -> Result<Vec<Finding>> {
        let missing = !self.dir.is_dir();
        let finding = Finding::new(Severity::Blocker, "target", "the directory must exist").in_surroundings();
        Ok(missing.then_some(finding).into_iter().collect())
    }

    async fn restore(&self, cx: &RestoreContext) -> Result<Restored> {
        let existing = if self.delta { Existing::Delta } else { Existing::Refuse };
        let order = Extract::into_dir(&self.dir).with_selector(cx.selector().clone()).with_existing(existing);
        Ok(Restored::new(cx.source().extract(order, cx.work()).await?))
    }

    /// There is nothing about a directory that only this engine knows.
    async fn check(&self, _: &CheckContext) -> Result<CheckReport> {
        Ok(CheckReport::default())
    }
}
