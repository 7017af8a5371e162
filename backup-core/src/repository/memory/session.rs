//! A backup in the making.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use super::MemoryRepository;
use super::content::Manifest;
use super::sink::MemorySink;
use super::source::MemorySource;
use crate::catalog::{BackupRecord, CloseReason, Event, ManifestRef, PackId, Totals};
use crate::engine::{BackupSink, BackupSource, Work};
use crate::error::{Error, Result};
use crate::id::{BackupId, SessionId};
use crate::repository::BackupSession;
use crate::snapshot::Snapshot;

#[derive(Debug)]
pub(super) struct MemorySession {
    repository: MemoryRepository,
    id: SessionId,
    started_at: jiff::Timestamp,
    parent: Option<(BackupRecord, Arc<Manifest>)>,
    sink: Arc<MemorySink>,
    work: Work,
}

impl MemorySession {
    pub(super) fn new(
        repository: MemoryRepository,
        id: SessionId,
        parent: Option<(BackupRecord, Arc<Manifest>)>,
        work: Work,
    ) -> Self {
        let sink = Arc::new(MemorySink::new(id, parent.clone(), work.clone()));
        Self { repository, id, started_at: work.env().now(), parent, sink, work }
    }
}

#[async_trait]
impl BackupSession for MemorySession {
    fn id(&self) -> SessionId {
        self.id
    }

    fn parent(&self) -> Option<&BackupRecord> {
        self.parent.as_ref().map(|(record, _)| record)
    }

    fn parent_source(&self) -> Option<Arc<dyn BackupSource>> {
        let (record, manifest) = self.parent.clone()?;
        Some(Arc::new(MemorySource::new(record, manifest)))
    }

    fn sink(&self) -> Arc<dyn BackupSink> {
        Arc::clone(&self.sink) as Arc<dyn BackupSink>
    }

    async fn commit(self: Box<Self>, snapshot: Snapshot) -> Result<BackupRecord> {
        self.work.checkpoint()?;
        let (manifest, new_bytes) = self.sink.end();
        let reused: BTreeSet<_> = manifest
            .values()
            .flat_map(|e| e.blocks.iter().filter_map(|b| b.session))
            .filter(|s| *s != self.id)
            .collect();
        let totals = Totals {
            data_bytes: manifest.values().map(|e| e.info.len).sum(),
            new_bytes,
            stored_bytes: new_bytes,
            entries: manifest.len() as u64,
        };
        let id = BackupId::mint(self.work.env());
        let record = BackupRecord::new(
            id,
            self.repository.service.clone(),
            self.id,
            self.parent().map(|p| p.id),
            (self.started_at, self.work.env().now()),
            totals,
            ManifestRef { pack: PackId { session: self.id, number: 0 }, segment: 0, digest: [0; 32] },
            reused.into_iter().collect(),
            snapshot,
        );
        let mut shared = self.repository.shared.lock();
        shared.append(&Event::BackupCommitted { record: Box::new(record) })?;
        shared.manifests.insert(id, Arc::new(manifest));
        shared.catalog.backup(id).cloned().ok_or_else(|| Error::internal(format!("backup {id} was lost")))
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        drop(self.sink.end());
        let at = self.work.env().now();
        let event = Event::SessionClosed { session: self.id, at, reason: CloseReason::Abandoned };
        self.repository.shared.lock().append(&event)
    }
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        drop(self.sink.end());
    }
}
