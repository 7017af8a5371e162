//! A store with a clock of its own: what it says of when an object was stored follows from a clock that a test moves, and from nothing that clients say.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use backup_core::env::{Clock, ManualClock};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use parking_lot::Mutex;

/// `inner` with the times of `clock`. Clones share everything.
#[derive(Clone)]
pub(crate) struct Dated {
    inner: Arc<dyn ObjectStore>,
    clock: Arc<ManualClock>,
    stored: Arc<Mutex<BTreeMap<Path, std::time::SystemTime>>>,
}

impl Dated {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, clock: Arc<ManualClock>) -> Self {
        Self { inner, clock, stored: Arc::default() }
    }

    fn date(&self, mut meta: ObjectMeta) -> ObjectMeta {
        if let Some(at) = self.stored.lock().get(&meta.location) {
            meta.last_modified = (*at).into();
        }
        meta
    }
}

impl fmt::Display for Dated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dated({})", self.inner)
    }
}

impl fmt::Debug for Dated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Dated {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let put = self.inner.put_opts(path, payload, options).await?;
        let since = u64::try_from(self.clock.now().as_microsecond()).unwrap_or(0);
        let at = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(since);
        self.stored.lock().insert(path.clone(), at);
        Ok(put)
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.inner.get_opts(path, options).await?;
        result.meta = self.date(result.meta);
        Ok(result)
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        self.inner.list(prefix).map(move |meta| meta.map(|meta| store.date(meta))).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        self.inner.list_with_offset(prefix, offset).map(move |meta| meta.map(|meta| store.date(meta))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut found = self.inner.list_with_delimiter(prefix).await?;
        found.objects = found.objects.into_iter().map(|meta| self.date(meta)).collect();
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
