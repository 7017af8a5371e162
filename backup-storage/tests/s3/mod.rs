//! An S3 server inside the test process: the real protocol over a real socket, an atomic map behind it.
//!
//! `s3s` speaks the protocol (signatures, XML, ranges); what is ours is the map, the atomic create-only put, and tricks that
//! real services were seen to play.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use backup_storage::store::{Store, StoreSettings};
use bytes::Bytes;
use futures::{StreamExt, stream};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use s3s::auth::SimpleAuth;
use s3s::dto::{self, StreamingBlob, Timestamp};
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use tokio::task::JoinSet;

/// What a service may do to the next request of the fitting kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trick {
    /// A put writes nothing and is answered 409.
    Conflict,
    /// A put lands and is answered 503.
    LandsAndSays503,
    /// A put writes nothing and is answered 503.
    Says503,
    /// The body of a read comes to a halt half-way.
    StallBody,
    /// The connection breaks half-way through the body of a read.
    CutBody,
    /// The credentials do not suffice for a put.
    Denied,
}

#[derive(Clone)]
struct Object {
    body: Bytes,
    modified: SystemTime,
    tag: u64,
}

/// Requests that arrived.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) put: u64,
    pub(crate) get: u64,
    pub(crate) head: u64,
    pub(crate) list: u64,
    pub(crate) delete: u64,
}

#[derive(Default)]
struct State {
    requests: Requests,
    objects: BTreeMap<String, Object>,
    tags: u64,
    tricks: VecDeque<Trick>,
}

#[derive(Clone)]
struct Backend {
    state: Arc<Mutex<State>>,
    honest: bool,
    page: usize,
}

/// A running server. Dropping it ends its tasks.
pub(crate) struct Server {
    backend: Backend,
    port: u16,
    _tasks: JoinSet<()>,
}

impl Server {
    /// A server that honours `If-None-Match: *`.
    pub(crate) async fn start() -> Self {
        Self::with(true).await
    }

    /// A server that accepts the condition and ignores it, as garage 2.5 does.
    pub(crate) async fn ignoring_conditions() -> Self {
        Self::with(false).await
    }

    async fn with(honest: bool) -> Self {
        // Small pages, so that listings turn them.
        let backend = Backend { state: Arc::default(), honest, page: 7 };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut builder = S3ServiceBuilder::new(backend.clone());
        builder.set_auth(SimpleAuth::from_single("test", "test-secret"));
        let service = builder.build();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let service = service.clone();
                connections.spawn(async move {
                    let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // Clients that give up break connections: nothing to report.
                    let _ = http.serve_connection(TokioIo::new(socket), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { backend, port, _tasks: tasks }
    }

    /// Plays `trick` on the next request that it fits.
    pub(crate) fn play(&self, trick: Trick) {
        self.backend.state.lock().tricks.push_back(trick);
    }

    /// Tricks not played yet.
    pub(crate) fn tricks_left(&self) -> usize {
        self.backend.state.lock().tricks.len()
    }

    /// What has arrived so far.
    pub(crate) fn requests(&self) -> Requests {
        self.backend.state.lock().requests
    }

    /// The keys in the bucket.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.backend.state.lock().objects.keys().cloned().collect()
    }

    /// Settings that reach this server.
    pub(crate) fn settings(&self) -> StoreSettings {
        StoreSettings::default()
            .option("aws_endpoint", format!("http://127.0.0.1:{}", self.port))
            .option("aws_allow_http", "true")
            .option("aws_region", "us-east-1")
            .option("aws_access_key_id", "test")
            .option("aws_secret_access_key", "test-secret")
            .delays(std::time::Duration::from_millis(1), std::time::Duration::from_millis(5))
    }

    /// The store at `prefix` in the bucket.
    pub(crate) fn store(&self, prefix: &str, settings: &StoreSettings) -> Store {
        Store::open(&format!("s3://bucket/{prefix}"), settings).unwrap()
    }
}

impl Backend {
    fn trick(&self, fits: impl Fn(Trick) -> bool) -> Option<Trick> {
        let mut state = self.state.lock();
        let index = state.tricks.iter().position(|trick| fits(*trick))?;
        state.tricks.remove(index)
    }

    fn find(&self, key: &str) -> S3Result<Object> {
        self.state.lock().objects.get(key).cloned().ok_or_else(|| s3_error!(NoSuchKey))
    }

    fn put(&self, key: String, body: Bytes, create: bool) -> S3Result<u64> {
        let mut state = self.state.lock();
        if create && self.honest && state.objects.contains_key(&key) {
            return Err(s3_error!(PreconditionFailed));
        }
        state.tags += 1;
        let tag = state.tags;
        state.objects.insert(key, Object { body, modified: now(), tag });
        Ok(tag)
    }
}

#[expect(clippy::disallowed_methods, reason = "a server has a clock of its own")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn tag(tag: u64) -> Option<dto::ETag> {
    Some(dto::ETag::Strong(format!("{tag:032x}")))
}

fn len(bytes: u64) -> Option<i64> {
    Some(i64::try_from(bytes).unwrap())
}

fn blob(parts: Vec<Bytes>, ending: Option<Trick>) -> StreamingBlob {
    let parts = stream::iter(parts.into_iter().map(Ok::<_, std::io::Error>));
    match ending {
        Some(Trick::StallBody) => StreamingBlob::wrap(parts.chain(stream::pending())),
        Some(Trick::CutBody) => StreamingBlob::wrap(parts.chain(stream::iter([Err(std::io::Error::other("cut"))]))),
        _ => StreamingBlob::wrap(parts),
    }
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn put_object(&self, request: S3Request<dto::PutObjectInput>) -> S3Result<S3Response<dto::PutObjectOutput>> {
        self.state.lock().requests.put += 1;
        let input = request.input;
        let mut body = Vec::new();
        if let Some(mut stream) = input.body {
            while let Some(chunk) = stream.next().await {
                body.extend_from_slice(&chunk.map_err(|error| s3_error!(IncompleteBody, "{error}"))?);
            }
        }
        let create = matches!(input.if_none_match, Some(dto::ETagCondition::Any));
        let fits = [Trick::Conflict, Trick::LandsAndSays503, Trick::Says503, Trick::Denied];
        match self.trick(|trick| fits.contains(&trick)) {
            Some(Trick::Conflict) => return Err(s3_error!(ConditionalRequestConflict)),
            Some(Trick::Says503) => return Err(s3_error!(SlowDown)),
            Some(Trick::Denied) => return Err(s3_error!(AccessDenied)),
            Some(Trick::LandsAndSays503) => {
                self.put(input.key, body.into(), create)?;
                return Err(s3_error!(SlowDown));
            }
            _ => {}
        }
        let e_tag = tag(self.put(input.key, body.into(), create)?);
        Ok(S3Response::new(dto::PutObjectOutput { e_tag, ..Default::default() }))
    }

    async fn get_object(&self, request: S3Request<dto::GetObjectInput>) -> S3Result<S3Response<dto::GetObjectOutput>> {
        self.state.lock().requests.get += 1;
        let object = self.find(&request.input.key)?;
        let total = object.body.len() as u64;
        let range = match &request.input.range {
            // As S3 does it: nothing of an empty object can be asked for by range.
            Some(_) if total == 0 => return Err(s3_error!(InvalidRange)),
            Some(range) => range.check(total)?,
            None => 0..total,
        };
        let part = object.body.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        let trick = self.trick(|trick| matches!(trick, Trick::StallBody | Trick::CutBody));
        let half = if trick.is_some() { part.len() / 2 } else { part.len() };
        Ok(S3Response::new(dto::GetObjectOutput {
            body: Some(blob(vec![part.slice(..half)], trick)),
            content_length: len(part.len() as u64),
            content_range: request.input.range.map(|_| format!("bytes {}-{}/{total}", range.start, range.end - 1)),
            e_tag: tag(object.tag),
            last_modified: Some(Timestamp::from(object.modified)),
            ..Default::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<dto::HeadObjectInput>,
    ) -> S3Result<S3Response<dto::HeadObjectOutput>> {
        self.state.lock().requests.head += 1;
        let object = self.find(&request.input.key)?;
        Ok(S3Response::new(dto::HeadObjectOutput {
            content_length: len(object.body.len() as u64),
            e_tag: tag(object.tag),
            last_modified: Some(Timestamp::from(object.modified)),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<dto::ListObjectsV2Input>,
    ) -> S3Result<S3Response<dto::ListObjectsV2Output>> {
        let input = request.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        // Tokens are the last key or folder of the page before.
        let after = input.continuation_token.clone().or(input.start_after.clone()).unwrap_or_default();
        let mut state = self.state.lock();
        state.requests.list += 1;
        let (mut contents, mut folders, mut truncated, mut last) = (Vec::new(), Vec::new(), false, after.clone());
        for (key, object) in state.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after) {
            let folder = input.delimiter.as_ref().and_then(|delimiter| {
                let end = key[prefix.len()..].find(delimiter.as_str())?;
                Some(key[..prefix.len() + end + delimiter.len()].to_owned())
            });
            let known =
                folder.as_ref().is_some_and(|folder| after.starts_with(folder) || folders.last() == Some(folder));
            if !known && contents.len() + folders.len() == self.page {
                truncated = true;
                break;
            }
            last = key.clone();
            match folder {
                Some(folder) if !known => folders.push(folder),
                Some(_) => {}
                None => contents.push(dto::Object {
                    key: Some(key.clone()),
                    size: len(object.body.len() as u64),
                    e_tag: tag(object.tag),
                    last_modified: Some(Timestamp::from(object.modified)),
                    ..Default::default()
                }),
            }
        }
        let folders: Vec<_> = folders.into_iter().map(|folder| dto::CommonPrefix { prefix: Some(folder) }).collect();
        Ok(S3Response::new(dto::ListObjectsV2Output {
            key_count: Some(i32::try_from(contents.len() + folders.len()).unwrap()),
            contents: Some(contents),
            common_prefixes: Some(folders),
            is_truncated: Some(truncated),
            next_continuation_token: truncated.then_some(last),
            name: Some(input.bucket),
            prefix: input.prefix,
            ..Default::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<dto::DeleteObjectInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
        let mut state = self.state.lock();
        state.requests.delete += 1;
        state.objects.remove(&request.input.key);
        Ok(S3Response::new(dto::DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
        let mut state = self.state.lock();
        state.requests.delete += 1;
        let mut deleted = Vec::new();
        for object in request.input.delete.objects {
            state.objects.remove(&object.key);
            deleted.push(dto::DeletedObject { key: Some(object.key), ..Default::default() });
        }
        Ok(S3Response::new(dto::DeleteObjectsOutput { deleted: Some(deleted), ..Default::default() }))
    }
}
