//! The writing half.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use backup_core::catalog::BackupRecord;
use backup_core::engine::{
    BackupSink, BackupSource, BlockInspector, Changes, LocalFile, Patch, Put, Stored, Unchanged,
};
use backup_core::entry::EntryMeta;
use backup_core::repository::BackupSession;
use backup_core::{BackupSinkExt, Consistency, ErrorKind, Result, SessionId, Snapshot};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::Fault;

#[derive(Debug)]
pub(super) struct MutantSession {
    inner: Option<Box<dyn BackupSession>>,
    /// What a session commits that cannot commit itself any more.
    spare: Option<Box<dyn BackupSession>>,
    fault: Fault,
    at: Timestamp,
}

impl MutantSession {
    pub(super) fn boxed(
        inner: Box<dyn BackupSession>,
        spare: Box<dyn BackupSession>,
        fault: Fault,
        at: Timestamp,
    ) -> Box<dyn BackupSession> {
        Box::new(Self { inner: Some(inner), spare: Some(spare), fault, at })
    }

    fn inner(&self) -> &dyn BackupSession {
        self.inner.as_deref().unwrap()
    }
}

#[async_trait]
impl BackupSession for MutantSession {
    fn id(&self) -> SessionId {
        self.inner().id()
    }

    fn parent(&self) -> Option<&BackupRecord> {
        self.inner().parent()
    }

    fn parent_source(&self) -> Option<Arc<dyn BackupSource>> {
        self.inner().parent_source()
    }

    fn sink(&self) -> Arc<dyn BackupSink> {
        Arc::new(MutantSink { inner: self.inner().sink(), fault: self.fault, parent: self.parent().is_some() })
    }

    async fn commit(mut self: Box<Self>, snapshot: Snapshot) -> Result<BackupRecord> {
        let outcome = self.inner.take().unwrap().commit(snapshot.clone()).await;
        match outcome {
            Ok(mut record) if self.fault == Fault::Miscounts => {
                record.new_bytes += 1;
                Ok(record)
            }
            Err(e) if self.fault == Fault::IgnoresFences && e.kind() == ErrorKind::Conflict => {
                self.spare.take().unwrap().commit(snapshot).await
            }
            outcome => outcome,
        }
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.inner.take().unwrap().abort().await
    }
}

impl Drop for MutantSession {
    fn drop(&mut self) {
        if self.fault == Fault::CommitsWhenDropped
            && let Some(inner) = self.inner.take()
        {
            let snapshot = Snapshot::new("x", "1", "x", "x", Consistency::Fuzzy, (self.at, self.at));
            let _ = futures::executor::block_on(inner.commit(snapshot));
        }
    }
}

#[derive(Debug)]
struct MutantSink {
    inner: Arc<dyn BackupSink>,
    fault: Fault,
    parent: bool,
}

impl MutantSink {
    fn inspector(&self, inner: Option<Arc<dyn BlockInspector>>) -> Option<Arc<dyn BlockInspector>> {
        let fault = self.fault;
        inner.map(|inner| Arc::new(MutantInspector { inner, fault }) as Arc<dyn BlockInspector>)
    }

    fn meta(&self, meta: EntryMeta) -> EntryMeta {
        if self.fault == Fault::LosesModes { meta.with_mode(0o644) } else { meta }
    }

    fn outcome<T>(&self, outcome: Result<T>, instead: T) -> Result<T> {
        match outcome {
            Err(e) if self.fault == Fault::AcceptsDuplicates && e.kind() == ErrorKind::InvalidInput => Ok(instead),
            outcome => outcome,
        }
    }

    fn spoil(&self, mut content: Vec<u8>) -> Vec<u8> {
        match self.fault {
            Fault::LosesLastByte => drop(content.pop()),
            Fault::FlipsByte => content.iter_mut().skip(3_000_000).take(1).for_each(|b| *b ^= 1),
            _ => {}
        }
        content
    }
}

#[async_trait]
impl BackupSink for MutantSink {
    async fn put_file(&self, mut file: LocalFile) -> Result<Put> {
        file.inspector = self.inspector(file.inspector.take());
        file.meta = self.meta(file.meta);
        match self.fault {
            Fault::ReadsAlways => file.unchanged = Unchanged::Never,
            Fault::IgnoresChanges if matches!(file.unchanged, Unchanged::Outside(_)) => {
                file.unchanged = Unchanged::Outside(Changes::default());
            }
            Fault::BelievesChanges => {
                if let Unchanged::Outside(changes) = &file.unchanged {
                    file.unchanged = Unchanged::Outside(Changes::new(changes.ranges().iter().cloned()));
                }
            }
            Fault::FollowsSources => file.path = file.path.canonicalize().unwrap_or(file.path),
            Fault::TrustsYoungFiles if self.parent && file.unchanged == Unchanged::BySizeAndTime => {
                let content = std::fs::read(&file.path).unwrap_or_default();
                let stored = self.inner.put_bytes(file.meta, content.into()).await?;
                return Ok(Put::Stored(Stored { new_bytes: 0, unread: true, ..stored }));
            }
            Fault::TrustsYoungFiles => {
                let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
                let _ = std::fs::File::options().write(true).open(&file.path).and_then(|f| f.set_modified(old));
            }
            Fault::LosesLastByte | Fault::FlipsByte => {
                let content = std::fs::read(&file.path).map(|content| self.spoil(content));
                let len = content.as_ref().map_or(0, Vec::len) as u64;
                self.inner.put_bytes(file.meta, content.unwrap_or_default().into()).await?;
                // It says what it should have stored, so that only reading shows what it did.
                let len = len + u64::from(self.fault == Fault::LosesLastByte && len > 0);
                return Ok(Put::Stored(Stored { len, new_bytes: len, ..Stored::default() }));
            }
            _ => {}
        }
        let outcome = self.inner.put_file(file).await;
        self.outcome(outcome, Put::Stored(Stored::default()))
    }

    async fn put_stream(
        &self,
        meta: EntryMeta,
        body: BoxStream<'_, Result<Bytes>>,
        inspector: Option<Arc<dyn BlockInspector>>,
    ) -> Result<Stored> {
        let (meta, inspector) = (self.meta(meta), self.inspector(inspector));
        if matches!(self.fault, Fault::LosesLastByte | Fault::FlipsByte) {
            let content: Vec<Bytes> = body.try_collect().await?;
            let content = content.concat();
            let len = content.len() as u64;
            let spoilt = Bytes::from(self.spoil(content));
            let body = futures::stream::once(async { Ok(spoilt) }).boxed();
            let stored = self.inner.put_stream(meta, body, inspector).await?;
            return Ok(Stored { len, ..stored });
        }
        let outcome = self.inner.put_stream(meta, body, inspector).await;
        self.outcome(outcome, Stored::default())
    }

    async fn put_patch(&self, mut patch: Patch, body: BoxStream<'_, Result<Bytes>>) -> Result<Stored> {
        patch.meta = self.meta(patch.meta);
        patch.inspector = self.inspector(patch.inspector.take());
        match self.fault {
            Fault::ForgetsPatches => {
                let zeros = body.map_ok(|bytes| Bytes::from(vec![0; bytes.len()])).boxed();
                self.inner.put_patch(patch, zeros).await
            }
            Fault::TakesAnyPatch => {
                let most = patch.body_len() as usize;
                let given: Vec<Bytes> = body.try_collect().await?;
                let mut given = given.concat();
                given.resize(most, 0);
                self.inner.put_patch(patch, futures::stream::once(async { Ok(given.into()) }).boxed()).await
            }
            Fault::BelievesPatches => {
                let stored = self.inner.put_patch(patch, body).await?;
                Ok(Stored { unexpected: 0, ..stored })
            }
            _ => {
                let outcome = self.inner.put_patch(patch, body).await;
                self.outcome(outcome, Stored::default())
            }
        }
    }

    async fn reuse(&self, meta: EntryMeta) -> Result<Option<Stored>> {
        self.inner.reuse(self.meta(meta)).await
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }
}

#[derive(Debug)]
struct MutantInspector {
    inner: Arc<dyn BlockInspector>,
    fault: Fault,
}

impl BlockInspector for MutantInspector {
    fn inspect(&self, offset: u64, bytes: &[u8]) {
        let hidden = self.fault == Fault::InspectsNoZeros && bytes.iter().all(|b| *b == 0);
        let times = match self.fault {
            _ if hidden => 0,
            Fault::InspectsTwice => 2,
            _ => 1,
        };
        (0..times).for_each(|_| self.inner.inspect(offset, bytes));
    }
}
