//! A committed backup, opened for reading.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use super::content::{BLOCK, Manifest};
use super::extract;
use crate::catalog::BackupRecord;
use crate::engine::{BackupSource, Extract, Extracted, Footprint, Work};
use crate::entry::{EntryInfo, EntryPath, Selector};
use crate::error::{Error, Result};

pub(super) struct MemorySource {
    record: BackupRecord,
    manifest: Arc<Manifest>,
}

impl MemorySource {
    pub(super) fn new(record: BackupRecord, manifest: Arc<Manifest>) -> Self {
        Self { record, manifest }
    }

    fn slices(&self, path: &EntryPath, range: Range<u64>) -> Result<Vec<Bytes>> {
        let Some(entry) = self.manifest.get(path) else {
            return Err(Error::invalid(format!("backup {} has no entry {path}", self.record.id)));
        };
        let Range { start, end } = range;
        if start > end || end > entry.info.len {
            return Err(Error::invalid(format!(
                "range {start}..{end} does not lie inside of entry {path}, which has {} bytes",
                entry.info.len
            )));
        }
        let mut slices = Vec::new();
        for (number, block) in entry.blocks.iter().enumerate() {
            let first = (number * BLOCK) as u64;
            let from = start.clamp(first, first + block.bytes.len() as u64) - first;
            let to = end.clamp(first, first + block.bytes.len() as u64) - first;
            if from < to {
                // Both lie inside of a block, so they fit any index.
                slices.push(block.bytes.slice(from as usize..to as usize));
            }
        }
        Ok(slices)
    }
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySource").field("backup", &self.record.id).finish_non_exhaustive()
    }
}

#[async_trait]
impl BackupSource for MemorySource {
    fn record(&self) -> &BackupRecord {
        &self.record
    }

    fn entries(&self, selector: Selector) -> BoxStream<'_, Result<EntryInfo>> {
        let chosen = self.manifest.values().filter(move |e| selector.matches(&e.info.meta.path));
        stream::iter(chosen.map(|e| Ok(e.info.clone()))).boxed()
    }

    async fn entry(&self, path: &EntryPath) -> Result<Option<EntryInfo>> {
        Ok(self.manifest.get(path).map(|e| e.info.clone()))
    }

    fn read(&self, path: &EntryPath, range: Range<u64>) -> BoxStream<'_, Result<Bytes>> {
        match self.slices(path, range) {
            Ok(slices) => stream::iter(slices.into_iter().map(Ok)).boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn footprint(&self, selector: &Selector) -> Result<Footprint> {
        let mut footprint = Footprint::default();
        let mut sessions = Vec::new();
        for entry in self.manifest.values().filter(|e| selector.matches(&e.info.meta.path)) {
            footprint.entries += 1;
            footprint.bytes += entry.info.len;
            let stored = entry.blocks.iter().filter(|b| b.session.is_some());
            footprint.stored_bytes += stored.map(|b| b.bytes.len() as u64).sum::<u64>();
            sessions.extend(entry.blocks.iter().filter_map(|b| b.session));
        }
        sessions.sort_unstable();
        sessions.dedup();
        footprint.objects = sessions.len() as u64;
        Ok(footprint)
    }

    async fn extract(&self, order: Extract, work: &Work) -> Result<Extracted> {
        extract::extract(&self.manifest, &order, work).await
    }
}
