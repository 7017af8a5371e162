//! The witness that the repository writes every object once.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use parking_lot::Mutex;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GuardOp {
    /// A put landed.
    Created,
    /// A put met an object and changed nothing.
    Exists,
    /// A put failed otherwise.
    Failed,
    /// An object was deleted, or was not there to delete.
    Deleted,
}

/// One event in the life of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuardEvent {
    /// What happened.
    pub op: GuardOp,
    /// To which object.
    pub name: String,
    /// Length of the body put; 0 for deletions.
    pub len: u64,
    /// A fingerprint of the body put; 0 for deletions. Not cryptographic: it tells bodies of one test apart.
    pub fingerprint: u64,
}

#[derive(Default)]
struct State {
    history: Vec<GuardEvent>,
    /// Everything that ever landed, deleted or not.
    landed: BTreeMap<String, (u64, u64)>,
    violations: Vec<String>,
    excused: Vec<String>,
}

/// An object store that forbids and reports everything but create-only puts, reads, listings and deletions.
///
/// A violation is (a) a put that may overwrite, an upload in parts, a copy or a rename; (b) a put that lands under a name which
/// ever held other bytes, even if deleted since: names are never recycled; (c) a name that is the folder of another;
/// (d) a name outside the alphabet of [`ObjectName`](crate::store::ObjectName), the store's prefix excluded from the length rule.
/// Forbidden calls fail, too. Clones share everything.
#[derive(Clone)]
pub struct WriteOnceGuard {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

impl WriteOnceGuard {
    /// Guards `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Everything that happened, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<GuardEvent> {
        self.state.lock().history.clone()
    }

    /// What was done against the rules.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }

    /// Excuses names that contain `needle` from rule (b), for tests that recycle names on purpose.
    pub fn excuse(&self, needle: &str) {
        self.state.lock().excused.push(needle.to_owned());
    }

    /// Fails the test if anything was done against the rules.
    ///
    /// # Panics
    /// With all violations.
    pub fn assert_clean(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "the store was not used write-once: {violations:#?}");
    }

    fn forbid<T>(&self, what: &str, path: &Path) -> Result<T> {
        let violation = format!("{what} of {path}");
        self.state.lock().violations.push(violation.clone());
        Err(Error::NotSupported { source: format!("forbidden by the write-once guard: {violation}").into() })
    }

    fn record(&self, op: GuardOp, name: &Path, body: Option<&PutPayload>) {
        let mut hasher = DefaultHasher::new();
        let mut len = 0;
        for chunk in body.into_iter().flatten() {
            hasher.write(chunk);
            len += chunk.len() as u64;
        }
        let name = name.to_string();
        let fingerprint = if body.is_some() { hasher.finish() } else { 0 };
        let mut state = self.state.lock();
        if op == GuardOp::Created {
            state.check_landed(&name, (len, fingerprint));
            state.landed.insert(name.clone(), (len, fingerprint));
        }
        state.history.push(GuardEvent { op, name, len, fingerprint });
    }
}

impl State {
    fn check_landed(&mut self, name: &str, body: (u64, u64)) {
        let excused = self.excused.iter().any(|needle| name.contains(needle));
        if !excused && self.landed.get(name).is_some_and(|before| *before != body) {
            self.violations.push(format!("{name} held other bytes before"));
        }
        let inside = format!("{name}/");
        if let Some((other, _)) =
            self.landed.range(inside.clone()..).next().filter(|(other, _)| other.starts_with(&inside))
        {
            self.violations.push(format!("{name} is the folder of {other}"));
        }
        for (cut, _) in name.match_indices('/') {
            if self.landed.contains_key(&name[..cut]) {
                self.violations.push(format!("{} is the folder of {name}", &name[..cut]));
            }
        }
        let alphabet = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/');
        if !name.bytes().all(alphabet) {
            self.violations.push(format!("{name} has a character outside the alphabet"));
        }
    }
}

impl fmt::Display for WriteOnceGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteOnceGuard({})", self.inner)
    }
}

impl fmt::Debug for WriteOnceGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for WriteOnceGuard {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if options.mode != PutMode::Create {
            return self.forbid("overwriting put", path);
        }
        let outcome = self.inner.put_opts(path, payload.clone(), options).await;
        let op = match &outcome {
            Ok(_) => GuardOp::Created,
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => GuardOp::Exists,
            Err(_) => GuardOp::Failed,
        };
        self.record(op, path, Some(&payload));
        outcome
    }

    async fn put_multipart_opts(&self, path: &Path, _options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.forbid("upload in parts", path)
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let guard = self.clone();
        self.inner
            .delete_stream(paths)
            .map(move |path| {
                if let Ok(path) = &path {
                    guard.record(GuardOp::Deleted, path, None);
                }
                path
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _from: &Path, to: &Path, _options: CopyOptions) -> Result<()> {
        self.forbid("copy", to)
    }

    async fn rename_opts(&self, _from: &Path, to: &Path, _options: RenameOptions) -> Result<()> {
        self.forbid("rename", to)
    }
}
