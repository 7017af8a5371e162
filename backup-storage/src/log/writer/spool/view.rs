//! A spool as a store that can be read: the objects of its writer's generation under their own names.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::env::Env;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::folder::Folder;
use super::name::SpoolName;
use crate::log::name;
use crate::store::{Store, StoreSettings};

/// What lies in `folder` and belongs to `generation` of the journal.
pub(super) fn store(folder: Arc<Folder>, generation: u32, env: Env) -> Store {
    let settings = StoreSettings::default().retries(0);
    Store::from_object_store(Arc::new(View { folder, generation })).with_settings(settings).with_env(env)
}

#[derive(Debug)]
struct View {
    folder: Arc<Folder>,
    generation: u32,
}

impl View {
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let folder = Arc::clone(&self.folder);
        tokio::task::spawn_blocking(move || work(&folder)).await.map_err(io::Error::other)?
    }

    fn file(&self, location: &Path) -> Option<String> {
        let (lineage, piece) = name::parse(location.as_ref())?;
        SpoolName { generation: self.generation, lineage, piece }.file().ok()
    }
}

fn failed(error: io::Error) -> Error {
    Error::Generic { store: "Spool", source: Box::new(error) }
}

fn not_found(location: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path: location.to_string(), source: Box::new(error) },
        _ => failed(error),
    }
}

fn read_only<T>(what: &str) -> Result<T> {
    Err(Error::NotSupported { source: format!("{what}: a spool is only read here").into() })
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spool({})", self.folder.dir().display())
    }
}

#[async_trait]
impl ObjectStore for View {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        read_only("put")
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        read_only("put")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(file) = self.file(location) else {
            return Err(not_found(location, io::ErrorKind::NotFound.into()));
        };
        let (asked, head) = (options.range, options.head);
        let part = move |len: u64| match asked {
            _ if head => Ok(0..0),
            Some(range) => range.as_range(len).map_err(io::Error::other),
            None => Ok(0..len),
        };
        let read = self.blocking(move |folder| folder.read_part(&file, part)).await;
        let (bytes, range, metadata) = read.map_err(|e| not_found(location, e))?;
        let last_modified = metadata.modified().map_err(failed)?.into();
        let size = metadata.len();
        let meta = ObjectMeta { location: location.clone(), last_modified, size, e_tag: None, version: None };
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(bytes.into()) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        locations.map(|_| read_only("delete")).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (view, prefix) = (Self { folder: Arc::clone(&self.folder), generation: self.generation }, prefix.cloned());
        let listed = async move {
            let pieces = view.blocking(|folder| folder.list(|_| {})).await.map_err(failed)?;
            let own = pieces.into_iter().filter(move |(name, _)| name.generation == view.generation);
            let metas = own.filter_map(|(name, size)| {
                let location = Path::parse(name.piece.name(&name.lineage).ok()?.as_str()).ok()?;
                let last_modified = std::time::SystemTime::UNIX_EPOCH.into();
                Some(ObjectMeta { location, last_modified, size, e_tag: None, version: None })
            });
            let within = metas.filter(|meta| prefix.as_ref().is_none_or(|prefix| meta.location.prefix_matches(prefix)));
            Ok::<_, Error>(stream::iter(within.map(Ok).collect::<Vec<_>>()))
        };
        stream::once(listed)
            .flat_map(|listed| match listed {
                Ok(metas) => metas.boxed(),
                Err(error) => stream::once(async { Err(error) }).boxed(),
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        read_only("list by folders")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        read_only("copy")
    }
}
