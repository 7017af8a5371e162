//! The wrapper that injects faults.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::plan::{Crash, Fault, FaultOp, FaultPlan};

/// One fault that was injected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injected {
    /// The number of the request, from 1, in the order of arrival.
    pub request: u64,
    /// Its kind.
    pub op: FaultOp,
    /// The object or folder.
    pub name: String,
    /// What was done to it; `None` for the crash.
    pub fault: Option<Fault>,
}

/// An object store that misbehaves by plan, script and seed. Clones share everything.
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
    dead: Arc<watch::Sender<bool>>,
}

struct Script {
    op: FaultOp,
    needle: String,
    skip: u32,
    fault: Fault,
}

struct Late {
    at_request: u64,
    path: Path,
    payload: PutPayload,
    options: PutOptions,
}

struct State {
    random: u64,
    plan: FaultPlan,
    scripts: Vec<Script>,
    requests: u64,
    crash_at: Option<(u64, Crash)>,
    late: VecDeque<Late>,
    log: Vec<Injected>,
}

/// What becomes of one request.
struct Fate {
    fault: Option<Fault>,
    /// The request is the fatal one and has its effect.
    last_breath: Option<Crash>,
    before: u32,
    after: u32,
    latency: std::time::Duration,
    cut: u64,
    late: Vec<Late>,
}

impl State {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn chance(&mut self, probability: f64) -> bool {
        let dice = f64::from(u32::try_from(self.next() >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        dice < probability
    }

    fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    fn choose(&mut self, op: FaultOp, name: &str) -> Option<Fault> {
        let mut struck = None;
        for (index, script) in self.scripts.iter_mut().enumerate() {
            if script.op == op && name.contains(&script.needle) {
                if script.skip == 0 {
                    struck = Some(index);
                    break;
                }
                script.skip -= 1;
            }
        }
        if let Some(index) = struck {
            return Some(self.scripts.remove(index).fault);
        }
        for (fault, probability) in self.plan.odds.clone() {
            if fault.strikes(op) && self.chance(probability) {
                return Some(fault);
            }
        }
        None
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FaultStore {
    /// Wraps `inner`; the same `seed` and `plan` strike the same requests.
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64, plan: FaultPlan) -> Self {
        let state = State {
            random: seed,
            plan,
            scripts: Vec::new(),
            requests: 0,
            crash_at: None,
            late: VecDeque::new(),
            log: Vec::new(),
        };
        Self { inner, state: Arc::new(Mutex::new(state)), dead: Arc::new(watch::Sender::new(false)) }
    }

    /// Replaces the plan from the next request on.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.state.lock().plan = plan;
    }

    /// Strikes, once, the request of kind `op` whose name contains `needle`, after letting `skip` such requests pass.
    pub fn script(&self, op: FaultOp, needle: &str, skip: u32, fault: Fault) {
        self.state.lock().scripts.push(Script { op, needle: needle.to_owned(), skip, fault });
    }

    /// How many requests arrived.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.state.lock().requests
    }

    /// What was injected so far.
    #[must_use]
    pub fn log(&self) -> Vec<Injected> {
        self.state.lock().log.clone()
    }

    /// Lets the process die at a request to come.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.state.lock();
        let at = state.requests.saturating_add(crash.after).saturating_add(1);
        state.crash_at = Some((at, crash));
    }

    /// Returns when the process has died.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn crashed(&self) {
        let mut dead = self.dead.subscribe();
        // The sender lives as long as `self`.
        let _ = dead.wait_for(|dead| *dead).await;
    }

    /// A new process: requests are served again. Puts of the dead one that were to land late still will.
    pub fn revive(&self) {
        self.state.lock().crash_at = None;
        self.dead.send_replace(false);
    }

    /// Lets all late puts land at once, as if much time had passed.
    pub async fn flush_late(&self) {
        let late: Vec<Late> = self.state.lock().late.drain(..).collect();
        self.land(late).await;
    }

    async fn land(&self, late: Vec<Late>) {
        for put in late {
            // Its client is gone: nobody hears the answer.
            let _ = self.inner.put_opts(&put.path, put.payload, put.options).await;
        }
    }

    /// Decides what becomes of a request and, if it is to happen at all, returns when it may happen.
    async fn arrive(&self, op: FaultOp, name: &str) -> Result<Fate> {
        let (fate, dead) = {
            let mut state = self.state.lock();
            state.requests += 1;
            let request = state.requests;
            let due = state.late.partition_point(|put| put.at_request <= request);
            let late: Vec<Late> = state.late.drain(..due).collect();
            let crash = state.crash_at.filter(|(at, _)| request >= *at);
            let last_breath = crash.filter(|(at, crash)| request == *at && crash.lands).map(|(_, crash)| crash);
            let fault = if crash.is_some() { None } else { state.choose(op, name) };
            if fault.is_some() || crash.is_some_and(|(at, _)| at == request) {
                state.log.push(Injected { request, op, name: name.to_owned(), fault });
            }
            let yields = u64::from(state.plan.max_yields);
            let nanos = u64::try_from(state.plan.max_latency.as_nanos()).unwrap_or(u64::MAX);
            let fate = Fate {
                fault,
                last_breath,
                before: u32::try_from(state.below(yields + 1)).unwrap_or(0),
                after: u32::try_from(state.below(yields + 1)).unwrap_or(0),
                latency: std::time::Duration::from_nanos(state.below(nanos)),
                cut: state.next(),
                late,
            };
            (fate, crash.map(|(_, crash)| crash))
        };
        if let Some(fault) = fate.fault {
            tracing::debug!(?op, name, ?fault, "injected");
        }
        let Fate { fault, last_breath, before, after, latency, cut, late } = fate;
        self.land(late).await;
        if let (Some(crash), None) = (dead, last_breath) {
            return Err(self.die(crash, name).await);
        }
        pause(before, latency).await;
        match fault {
            Some(Fault::Stall) => futures::future::pending().await,
            Some(Fault::Refused | Fault::BrokenList) => Err(failure("injected: refused")),
            Some(Fault::DeleteDenied) => Err(denied(name, "injected: deletion is not permitted")),
            Some(Fault::FullDisk) => Err(Error::Generic {
                store: "FaultStore",
                source: Box::new(std::io::Error::new(std::io::ErrorKind::StorageFull, "injected: no space left")),
            }),
            Some(Fault::FalseConflict) => Err(exists(name)),
            Some(Fault::Vanished) => {
                Err(Error::NotFound { path: name.to_owned(), source: "injected: vanished".into() })
            }
            _ => Ok(Fate { fault, last_breath, before, after, latency, cut, late: Vec::new() }),
        }
    }

    /// The request had its effect: says whether the client gets to know.
    async fn leave(&self, fate: &Fate, name: &str) -> Result<()> {
        if let Some(crash) = fate.last_breath {
            return Err(self.die(crash, name).await);
        }
        pause(fate.after, std::time::Duration::ZERO).await;
        match fate.fault {
            Some(Fault::StallAfter) => futures::future::pending().await,
            Some(Fault::LostReply) => Err(failure("injected: the reply is lost")),
            Some(Fault::OwnPutExists) => Err(exists(name)),
            _ => Ok(()),
        }
    }

    async fn die(&self, crash: Crash, name: &str) -> Error {
        self.dead.send_replace(true);
        if crash.hangs {
            return futures::future::pending().await;
        }
        // Typed as final, so that nobody retries on behalf of a dead process.
        denied(name, "injected: the process was killed")
    }

    async fn put_faulty(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fate = self.arrive(FaultOp::Put, path.as_ref()).await?;
        if fate.fault == Some(Fault::LandsLate) {
            let mut state = self.state.lock();
            let at_request = state.requests + 1 + fate.cut % 8;
            let place = state.late.partition_point(|put| put.at_request <= at_request);
            state.late.insert(place, Late { at_request, path: path.clone(), payload, options });
            return Err(failure("injected: the connection broke, the put is still under way"));
        }
        let outcome = self.inner.put_opts(path, payload, options).await;
        self.leave(&fate, path.as_ref()).await?;
        outcome
    }

    /// Cuts the body of a read.
    fn tear(fate: &Fate, result: GetResult) -> GetResult {
        let len = result.range.end - result.range.start;
        let keep = if len == 0 { 0 } else { fate.cut % len };
        let broken = fate.fault == Some(Fault::BrokenBody);
        let GetResult { payload, meta, range, attributes, extensions } = result;
        let source = GetResult {
            payload,
            meta: meta.clone(),
            range: range.clone(),
            attributes: attributes.clone(),
            extensions: extensions.clone(),
        };
        let head = source
            .bytes()
            .map(move |bytes| bytes.map(|bytes| bytes.slice(..usize::try_from(keep).unwrap_or(0))))
            .into_stream();
        let tail = stream::iter(broken.then(|| Err(failure("injected: the body broke off"))));
        GetResult { payload: GetResultPayload::Stream(head.chain(tail).boxed()), meta, range, attributes, extensions }
    }

    fn list_faulty(
        &self,
        folder: String,
        list: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        stream::once(async move {
            let fate = match store.arrive(FaultOp::List, &folder).await {
                Ok(fate) => fate,
                // A listing that breaks off has often yielded something before.
                Err(error) => {
                    let some = store.state.lock().below(4);
                    let some = usize::try_from(some).unwrap_or(0);
                    return list.take(some).chain(stream::iter([Err(error)])).boxed();
                }
            };
            match store.leave(&fate, &folder).await {
                Ok(()) => list,
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        })
        .flatten()
        .boxed()
    }
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.put_faulty(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.arrive(FaultOp::Put, path.as_ref()).await?;
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let fate = self.arrive(FaultOp::Get, path.as_ref()).await?;
        let head = options.head;
        let result = self.inner.get_opts(path, options).await;
        self.leave(&fate, path.as_ref()).await?;
        match fate.fault {
            Some(Fault::BrokenBody | Fault::ShortBody) if !head => Ok(Self::tear(&fate, result?)),
            _ => result,
        }
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fate = self.arrive(FaultOp::Get, path.as_ref()).await?;
        let mut parts = self.inner.get_ranges(path, ranges).await?;
        self.leave(&fate, path.as_ref()).await?;
        match fate.fault {
            Some(Fault::BrokenBody) => return Err(failure("injected: the body broke off")),
            Some(Fault::ShortBody) => {
                if let Some(last) = parts.last_mut().filter(|last| !last.is_empty()) {
                    let keep = fate.cut % last.len() as u64;
                    last.truncate(usize::try_from(keep).unwrap_or(0));
                }
            }
            _ => {}
        }
        Ok(parts)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        paths
            .then(move |path| {
                let store = store.clone();
                async move {
                    let path = path?;
                    let fate = store.arrive(FaultOp::Delete, path.as_ref()).await?;
                    let one = stream::iter([Ok(path.clone())]).boxed();
                    let outcome = store.inner.delete_stream(one).next().await;
                    store.leave(&fate, path.as_ref()).await?;
                    outcome.unwrap_or(Ok(path))
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_faulty(prefix.map(Path::to_string).unwrap_or_default(), self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_faulty(prefix.map(Path::to_string).unwrap_or_default(), self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let folder = prefix.map(Path::to_string).unwrap_or_default();
        let fate = self.arrive(FaultOp::List, &folder).await?;
        let result = self.inner.list_with_delimiter(prefix).await;
        self.leave(&fate, &folder).await?;
        result
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.arrive(FaultOp::Put, to.as_ref()).await?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.arrive(FaultOp::Put, to.as_ref()).await?;
        self.inner.rename_opts(from, to, options).await
    }
}

/// Lets other tasks run, and time pass.
async fn pause(yields: u32, latency: std::time::Duration) {
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
    if !latency.is_zero() {
        #[expect(clippy::disallowed_methods, reason = "latency lies in the simulated network; tests pause the timer")]
        tokio::time::sleep(latency).await;
    }
}

fn failure(what: &'static str) -> Error {
    Error::Generic { store: "FaultStore", source: what.into() }
}

fn exists(name: &str) -> Error {
    Error::AlreadyExists { path: name.to_owned(), source: "injected: already exists".into() }
}

fn denied(name: &str, what: &'static str) -> Error {
    Error::PermissionDenied { path: name.to_owned(), source: what.into() }
}
