//! The reading half.

use std::fs;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::catalog::BackupRecord;
use backup_core::engine::{BackupSource, Extract, Extracted, Footprint, Work};
use backup_core::entry::{EntryInfo, EntryKind, EntryPath, Selector};
use backup_core::{BackupSourceExt, Result};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::Fault;

#[derive(Debug)]
pub(super) struct MutantSource {
    pub(super) inner: Arc<dyn BackupSource>,
    pub(super) fault: Fault,
}

impl MutantSource {
    /// What somebody would write who had not read the rules.
    async fn naively(&self, order: Extract) -> Result<Extracted> {
        let mut done = Extracted::default();
        let entries: Vec<EntryInfo> = self.inner.entries(order.selector.clone()).try_collect().await?;
        for entry in entries.into_iter().filter(|e| !order.except.contains(&e.meta.path)) {
            let place = entry.meta.path.under(&order.root);
            let _ = fs::create_dir_all(place.parent().unwrap());
            match &entry.meta.kind {
                EntryKind::Directory => drop(fs::create_dir_all(&place)),
                EntryKind::Symlink { target } => {
                    let target = Path::new(std::ffi::OsStr::from_bytes(target));
                    let _ = std::os::unix::fs::symlink(target, &place);
                }
                _ => {
                    let content = self.inner.read_small(&entry.meta.path, u64::MAX).await?;
                    let _ = fs::write(&place, &content);
                    done.bytes += entry.len;
                    done.written_bytes += entry.len;
                }
            }
            done.entries += 1;
        }
        Ok(done)
    }
}

#[async_trait]
impl BackupSource for MutantSource {
    fn record(&self) -> &BackupRecord {
        self.inner.record()
    }

    fn entries(&self, selector: Selector) -> BoxStream<'_, Result<EntryInfo>> {
        match self.fault {
            Fault::IgnoresSelectors => self.inner.entries(Selector::all()),
            Fault::ListsBackwards => stream::once(async move {
                let mut all: Vec<_> = self.inner.entries(selector).collect().await;
                all.reverse();
                stream::iter(all)
            })
            .flatten()
            .boxed(),
            _ => self.inner.entries(selector),
        }
    }

    async fn entry(&self, path: &EntryPath) -> Result<Option<EntryInfo>> {
        self.inner.entry(path).await
    }

    fn read(&self, path: &EntryPath, range: Range<u64>) -> BoxStream<'_, Result<Bytes>> {
        let path = path.clone();
        match self.fault {
            Fault::ClampsRanges => stream::once(async move {
                let len = self.inner.entry(&path).await.ok().flatten().map_or(0, |e| e.len);
                self.inner.read(&path, range.start.min(len)..range.end.clamp(range.start.min(len), len))
            })
            .flatten()
            .boxed(),
            Fault::ReadsInOnePiece => stream::once(async move {
                let pieces: Vec<Bytes> = self.inner.read(&path, range).try_collect().await?;
                Ok(Bytes::from(pieces.concat()))
            })
            .boxed(),
            _ => self.inner.read(&path, range),
        }
    }

    async fn footprint(&self, selector: &Selector) -> Result<Footprint> {
        self.inner.footprint(selector).await
    }

    async fn extract(&self, mut order: Extract, work: &Work) -> Result<Extracted> {
        match self.fault {
            Fault::ForgetsLast => order.last.clear(),
            Fault::IgnoresKeep => order.keep.clear(),
            Fault::IgnoresFolders => order.folder = None,
            Fault::ExtractsNaively => return self.naively(order).await,
            _ => {}
        }
        let mut done = self.inner.extract(order, work).await?;
        if self.fault == Fault::WritesEverything {
            done.written_bytes = done.bytes;
        }
        Ok(done)
    }
}
