//! The part of a sink that is one member's.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::engine::{BackupSink, BlockInspector, LocalFile, Patch, Put, Stored};
use crate::entry::{EntryMeta, EntryPath};
use crate::error::Result;
use crate::member::MemberName;

/// Puts every entry into the folder of one member.
///
/// What has a [native identity](EntryMeta::identity) is found again wherever in the parent it lies, also at another member: so what
/// is the same on two replicas is stored once from the second backup on.
#[derive(Debug)]
pub struct MemberSink {
    inner: Arc<dyn BackupSink>,
    folder: EntryPath,
}

impl MemberSink {
    /// The part of `inner` that is of the member `name`.
    ///
    /// # Errors
    /// Those of [`MemberName::folder`].
    pub fn new(inner: Arc<dyn BackupSink>, name: &MemberName) -> Result<Self> {
        Ok(Self { inner, folder: name.folder()? })
    }

    fn placed(&self, mut meta: EntryMeta) -> Result<EntryMeta> {
        meta.path = meta.path.below(&self.folder)?;
        Ok(meta)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl BackupSink for MemberSink {
    async fn put_file(&self, mut file: LocalFile) -> Result<Put> {
        file.meta = self.placed(file.meta)?;
        self.inner.put_file(file).await
    }

    async fn put_some(&self, files: Vec<LocalFile>) -> Vec<Result<Put>> {
        let (mut placed, mut outcomes) = (Vec::with_capacity(files.len()), Vec::with_capacity(files.len()));
        for mut file in files {
            outcomes.push(match self.placed(file.meta.clone()) {
                Ok(meta) => {
                    file.meta = meta;
                    placed.push(file);
                    None
                }
                Err(error) => Some(Err(error)),
            });
        }
        let mut puts = self.inner.put_some(placed).await.into_iter();
        outcomes.into_iter().filter_map(|refused| refused.or_else(|| puts.next())).collect()
    }

    async fn put_stream(
        &self,
        meta: EntryMeta,
        body: BoxStream<'_, Result<Bytes>>,
        inspector: Option<Arc<dyn BlockInspector>>,
    ) -> Result<Stored> {
        self.inner.put_stream(self.placed(meta)?, body, inspector).await
    }

    async fn put_patch(&self, mut patch: Patch, body: BoxStream<'_, Result<Bytes>>) -> Result<Stored> {
        patch.meta = self.placed(patch.meta)?;
        self.inner.put_patch(patch, body).await
    }

    async fn reuse(&self, meta: EntryMeta) -> Result<Option<Stored>> {
        self.inner.reuse(self.placed(meta)?).await
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }
}
