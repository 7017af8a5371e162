//! The part of a stored backup that is one member's.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future;
use futures::stream::{self, BoxStream, StreamExt as _};

use crate::catalog::BackupRecord;
use crate::engine::{BackupSource, Extract, Extracted, Footprint, Work};
use crate::entry::{EntryInfo, EntryPath, Selector};
use crate::error::{Error, Result};
use crate::member::MemberName;

/// Reads one member of a backup as if it were a backup of its own.
///
/// Its record is the whole backup's, with the header of the member and the entries and bytes of it; what was stored for it alone is
/// not known.
#[derive(Debug)]
pub struct MemberSource {
    inner: Arc<dyn BackupSource>,
    folder: EntryPath,
    record: BackupRecord,
}

impl MemberSource {
    /// The member `name` of `inner`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when the backup has no such member; those of reading it.
    pub async fn open(inner: &Arc<dyn BackupSource>, name: &MemberName) -> Result<Self> {
        let mut record = inner.record().clone();
        let member = record.snapshot.group.as_ref().and_then(|group| group.member(name));
        let member = member.ok_or_else(|| Error::invalid(format!("backup {} has no member {name}", record.id)))?;
        record.snapshot = member.snapshot(&record.snapshot.engine);
        let folder = name.folder()?;
        let footprint = inner.footprint(&Selector::within([folder.clone()])).await?;
        (record.entries, record.data_bytes) = (footprint.entries, footprint.bytes);
        Ok(Self { inner: Arc::clone(inner), folder, record })
    }

    /// The order in the paths of the whole backup.
    fn placed(&self, mut order: Extract) -> Result<Extract> {
        order.selector = order.selector.below(&self.folder)?;
        let below = |path: &EntryPath| path.below(&self.folder);
        for (path, _) in &mut order.elsewhere {
            *path = below(path)?;
        }
        order.except = order.except.iter().map(below).collect::<Result<_>>()?;
        order.last = order.last.iter().map(below).collect::<Result<_>>()?;
        order.folder = Some(match &order.folder {
            Some(inner) => inner.below(&self.folder)?,
            None => self.folder.clone(),
        });
        Ok(order)
    }
}

/// A stream of nothing but an error.
fn failed<'a, T: Send + 'a>(error: Error) -> BoxStream<'a, Result<T>> {
    stream::once(async { Err(error) }).boxed()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BackupSource for MemberSource {
    fn record(&self) -> &BackupRecord {
        &self.record
    }

    fn entries(&self, selector: Selector) -> BoxStream<'_, Result<EntryInfo>> {
        let selector = match selector.below(&self.folder) {
            Ok(selector) => selector,
            Err(error) => return failed(error),
        };
        let inside = |mut entry: EntryInfo| {
            entry.meta.path = entry.meta.path.inside(&self.folder)?;
            Some(entry)
        };
        self.inner.entries(selector).filter_map(move |entry| future::ready(entry.map(inside).transpose())).boxed()
    }

    async fn entry(&self, path: &EntryPath) -> Result<Option<EntryInfo>> {
        let entry = self.inner.entry(&path.below(&self.folder)?).await?;
        Ok(entry.map(|mut entry| {
            entry.meta.path = path.clone();
            entry
        }))
    }

    fn read(&self, path: &EntryPath, range: Range<u64>) -> BoxStream<'_, Result<Bytes>> {
        match path.below(&self.folder) {
            Ok(path) => self.inner.read(&path, range),
            Err(error) => failed(error),
        }
    }

    async fn footprint(&self, selector: &Selector) -> Result<Footprint> {
        self.inner.footprint(&selector.below(&self.folder)?).await
    }

    async fn extract(&self, order: Extract, work: &Work) -> Result<Extracted> {
        self.inner.extract(self.placed(order)?, work).await
    }
}
