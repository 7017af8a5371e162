//! A platform in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::catalog::{Actor, Catalog, Role, ServiceSpec, ServiceState};
use crate::engine::{
    BackupContext, BackupEngine, BackupSinkExt, BackupSource, BackupSourceExt, CheckContext, CheckReport, Deployment,
    EngineDescriptor, LogOptions, LogSink, LogSource, RestoreContext, Restored, Work,
};
use crate::entry::EntryMeta;
use crate::env::{Clock, Env, SeededEntropy, SimulatedClock};
use crate::error::{Error, Result};
use crate::id::{BackupId, ServiceId};
use crate::repository::{
    BackupSession, CollectOptions, Collected, CollectionPlan, Damage, Decision, Destroyed, Found, MemoryVault,
    ParentChoice, Repository, Vault, VerifyLevel, VerifyReport,
};
use crate::run::tests::lines::Lines;
use crate::run::tests::path;
use crate::service::{DrillPlace, Fleet, Notice, Notifier, Platform, Regions, ServiceHost, Stopped};
use crate::snapshot::{Consistency, Finding, Snapshot};

/// 2026-11-01T00:00:00Z.
pub(super) const START: i64 = 1_793_491_200;

pub(super) fn id(name: &str) -> ServiceId {
    ServiceId::new(name).unwrap()
}

pub(super) fn owner() -> Actor {
    Actor::new(Role::Owner, "kim")
}

pub(super) fn operator() -> Actor {
    Actor::new(Role::Operator, "alex")
}

/// Stops whoever passes it when its count has run out, for ever: the process is dead. Whoever drives the test sees it.
#[derive(Debug, Default)]
pub(super) struct Crash {
    armed: AtomicBool,
    left: AtomicUsize,
    pub(super) happened: Notify,
    passed: AtomicUsize,
    /// The verifications that were asked for.
    pub(super) verified: Mutex<Vec<(Timestamp, VerifyLevel)>>,
    /// What they find.
    pub(super) damage: Mutex<Option<Damage>>,
}

impl Crash {
    pub(super) fn arm(&self, steps: usize) {
        self.left.store(steps, Ordering::SeqCst);
        self.armed.store(true, Ordering::SeqCst);
        self.passed.store(0, Ordering::SeqCst);
    }

    pub(super) fn disarm(&self) -> usize {
        self.armed.store(false, Ordering::SeqCst);
        self.passed.load(Ordering::SeqCst)
    }

    pub(super) async fn point(&self) {
        if !self.armed.load(Ordering::SeqCst) {
            return;
        }
        self.passed.fetch_add(1, Ordering::SeqCst);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            self.happened.notify_one();
            futures::future::pending::<()>().await;
        }
    }
}

/// An engine without log: its deployment is a text.
#[derive(Debug)]
pub(super) struct Page {
    descriptor: EngineDescriptor,
    source: String,
    text: Arc<Mutex<String>>,
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page({})", self.source)
    }
}

#[async_trait]
impl BackupEngine for Page {
    fn descriptor(&self) -> &EngineDescriptor {
        &self.descriptor
    }

    async fn inspect(&self) -> Result<Deployment> {
        Ok(Deployment::new(&self.source, "1", "memory"))
    }

    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot> {
        let text = Bytes::from(self.text.lock().clone());
        cx.sink().put_bytes(EntryMeta::file(path("text")), text).await?;
        let now = cx.work().env().now();
        Ok(Snapshot::new("page", "1", &self.source, "memory", Consistency::PointInTime, (now, now)))
    }

    async fn assess_restore(&self, _: &RestoreContext) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    async fn restore(&self, cx: &RestoreContext) -> Result<Restored> {
        let text = cx.source().read_small(&path("text"), 1 << 20).await?;
        *self.text.lock() = String::from_utf8(text.to_vec()).unwrap();
        Ok(Restored::default())
    }

    async fn check(&self, _: &CheckContext) -> Result<CheckReport> {
        Ok(CheckReport::default())
    }
}

/// A machine, or what is left of one.
#[derive(Debug, Clone)]
pub(super) enum Machine {
    Page { text: Arc<Mutex<String>>, serves: bool },
    Lines { engine: Arc<Lines>, serves: bool },
}

/// The machines of the platform.
#[derive(Debug, Default)]
pub(super) struct Machines {
    pub(super) machines: Mutex<BTreeMap<ServiceId, Machine>>,
    pub(super) crash: Arc<Crash>,
    /// Whether backups fail because machines cannot be reached.
    pub(super) unreachable: AtomicBool,
    /// Where backups are proven, if anywhere.
    pub(super) drills: Mutex<Option<DrillPlace>>,
    provisioned: AtomicUsize,
}

impl Machines {
    /// Machines of a service that was just bought.
    pub(super) fn buy(&self, service: &ServiceId, kind: &str) {
        let machine = self.fresh(kind, true);
        self.machines.lock().insert(service.clone(), machine);
    }

    fn fresh(&self, kind: &str, serves: bool) -> Machine {
        let number = self.provisioned.fetch_add(1, Ordering::SeqCst);
        match kind {
            "postgres" => {
                let source: &'static str = Box::leak(format!("lines-{number}").into_boxed_str());
                Machine::Lines { engine: Arc::new(Lines::of(source)), serves }
            }
            _ => Machine::Page { text: Arc::default(), serves },
        }
    }

    /// What a client would read. None when nothing serves.
    pub(super) fn read(&self, service: &ServiceId) -> Option<String> {
        match self.machines.lock().get(service)? {
            Machine::Page { text, serves: true } => Some(text.lock().clone()),
            Machine::Lines { engine, serves: true } => {
                let position = engine.position();
                Some(
                    engine.restored().unwrap_or_default()
                        + &engine.text(position.lineage.as_str().parse().unwrap(), position.offset),
                )
            }
            _ => None,
        }
    }

    /// What a client writes.
    pub(super) fn write(&self, service: &ServiceId, at: Timestamp, word: &str) {
        match &self.machines.lock()[service] {
            Machine::Page { text, serves: true } => {
                text.lock().push_str(word);
            }
            Machine::Lines { engine, serves: true } => {
                engine.write(at.as_millisecond(), 'c', word);
            }
            other => panic!("nobody serves: {other:?}"),
        }
    }

    /// What runs, of a service with a log.
    pub(super) fn lines(&self, service: &ServiceId) -> Arc<Lines> {
        match &self.machines.lock()[service] {
            Machine::Lines { engine, .. } => Arc::clone(engine),
            other => panic!("it has no log: {other:?}"),
        }
    }

    /// The engine of what runs.
    pub(super) async fn engine(&self, service: &ServiceId) -> Arc<dyn BackupEngine> {
        let spec = ServiceSpec::new("redis", "startup", "eu", "eu");
        self.running(service, &spec).await.unwrap()
    }

    /// The machine burns down.
    pub(super) fn lose(&self, service: &ServiceId) {
        self.machines.lock().remove(service);
    }
}

#[async_trait]
impl ServiceHost for Machines {
    async fn running(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Arc<dyn BackupEngine>> {
        self.crash.point().await;
        if self.unreachable.load(Ordering::SeqCst) {
            return Err(Error::environment("no route to the machine"));
        }
        match self.machines.lock().get(service) {
            Some(Machine::Page { text, serves: true }) => Ok(page(service, text)),
            Some(Machine::Lines { engine, serves: true }) => Ok(Arc::clone(engine) as Arc<dyn BackupEngine>),
            _ => Err(Error::unavailable(format!("{service} does not run"))),
        }
    }

    async fn provision(&self, service: &ServiceId, spec: &ServiceSpec) -> Result<Arc<dyn BackupEngine>> {
        self.crash.point().await;
        let machine = self.fresh(&spec.kind, false);
        let engine = match &machine {
            Machine::Page { text, .. } => page(service, text),
            Machine::Lines { engine, .. } => Arc::clone(engine) as Arc<dyn BackupEngine>,
        };
        self.machines.lock().insert(service.clone(), machine);
        self.crash.point().await;
        Ok(engine)
    }

    async fn start(&self, service: &ServiceId, _: &ServiceSpec) -> Result<()> {
        self.crash.point().await;
        match self.machines.lock().get_mut(service) {
            Some(Machine::Page { serves, .. } | Machine::Lines { serves, .. }) => *serves = true,
            None => return Err(Error::environment("there is no machine")),
        }
        self.crash.point().await;
        Ok(())
    }

    async fn quiesce(&self, _: &ServiceId, _: &ServiceSpec) -> Result<()> {
        self.crash.point().await;
        Ok(())
    }

    async fn stop(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Stopped> {
        self.crash.point().await;
        let stopped = match self.machines.lock().get_mut(service) {
            Some(Machine::Page { serves, .. }) => {
                *serves = false;
                Stopped::default()
            }
            Some(Machine::Lines { engine, serves }) => {
                *serves = false;
                Stopped::at(Some(engine.position()))
            }
            None => Stopped::default(),
        };
        self.crash.point().await;
        Ok(stopped)
    }

    async fn drill_place(&self, _: &ServiceId, _: &ServiceSpec) -> Result<Option<DrillPlace>> {
        Ok(self.drills.lock().clone())
    }

    async fn discard(&self, service: &ServiceId, _: &ServiceSpec) -> Result<()> {
        self.crash.point().await;
        self.machines.lock().remove(service);
        self.crash.point().await;
        Ok(())
    }
}

/// The engine of a page that belongs to nobody.
pub(super) fn loose_page(text: Arc<Mutex<String>>) -> Page {
    let descriptor = EngineDescriptor::new("page", "Page", Consistency::PointInTime, "nothing");
    Page { descriptor, source: "scratch".to_owned(), text }
}

fn page(service: &ServiceId, text: &Arc<Mutex<String>>) -> Arc<dyn BackupEngine> {
    let descriptor = EngineDescriptor::new("page", "Page", Consistency::PointInTime, "nothing");
    Arc::new(Page { descriptor, source: service.to_string(), text: Arc::clone(text) })
}

/// Remembers what people were told.
#[derive(Debug, Default)]
pub(super) struct Told(pub(super) Mutex<Vec<(ServiceId, Notice)>>, AtomicBool, AtomicUsize);

#[async_trait]
impl Notifier for Told {
    async fn notify(&self, service: &ServiceId, notice: &Notice) -> Result<()> {
        self.2.fetch_add(1, Ordering::SeqCst);
        if self.1.load(Ordering::SeqCst) {
            return Err(Error::unavailable("nobody answers"));
        }
        self.0.lock().push((service.clone(), notice.clone()));
        Ok(())
    }
}

impl Told {
    /// Whether people cannot be told of anything.
    pub(super) fn fail(&self, fail: bool) {
        self.1.store(fail, Ordering::SeqCst);
    }

    /// How often it was tried.
    pub(super) fn attempts(&self) -> usize {
        self.2.load(Ordering::SeqCst)
    }

    pub(super) fn deadlines(&self) -> Vec<String> {
        let told = self.0.lock();
        let name = |(_, notice): &(ServiceId, Notice)| match notice {
            Notice::Deadline { name, .. } => Some(name.clone()),
            _ => None,
        };
        told.iter().filter_map(name).collect()
    }
}

/// A vault that crashes.
#[derive(Debug)]
struct CrashingVault {
    inner: MemoryVault,
    crash: Arc<Crash>,
}

impl fmt::Display for CrashingVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("crashing")
    }
}

#[async_trait]
impl Vault for CrashingVault {
    async fn services(&self) -> Result<Vec<ServiceId>> {
        self.inner.services().await
    }

    async fn create(&self, service: &ServiceId) -> Result<Arc<dyn Repository>> {
        self.crash.point().await;
        let inner = self.inner.create(service).await?;
        self.crash.point().await;
        Ok(Arc::new(CrashingRepository { inner, crash: Arc::clone(&self.crash) }))
    }

    async fn find(&self, service: &ServiceId) -> Result<Found> {
        Ok(match self.inner.find(service).await? {
            Found::Repository(inner) => {
                Found::Repository(Arc::new(CrashingRepository { inner, crash: Arc::clone(&self.crash) }))
            }
            other => other,
        })
    }

    async fn destroy(&self, service: &ServiceId, work: &Work) -> Result<Destroyed> {
        self.crash.point().await;
        let destroyed = self.inner.destroy(service, work).await?;
        self.crash.point().await;
        Ok(destroyed)
    }
}

/// A repository that crashes before and after every commit.
#[derive(Debug)]
struct CrashingRepository {
    inner: Arc<dyn Repository>,
    crash: Arc<Crash>,
}

impl fmt::Display for CrashingRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crashing({})", self.inner)
    }
}

#[async_trait]
impl Repository for CrashingRepository {
    fn service(&self) -> &ServiceId {
        self.inner.service()
    }

    async fn catalog(&self) -> Result<Arc<Catalog>> {
        self.inner.catalog().await
    }

    async fn decide(&self, decide: &mut Decision<'_>) -> Result<Arc<Catalog>> {
        self.crash.point().await;
        let catalog = self.inner.decide(decide).await?;
        self.crash.point().await;
        Ok(catalog)
    }

    async fn begin(&self, parent: ParentChoice, work: &Work) -> Result<Box<dyn BackupSession>> {
        self.crash.point().await;
        let session = self.inner.begin(parent, work).await?;
        self.crash.point().await;
        Ok(session)
    }

    async fn open(&self, backup: BackupId) -> Result<Arc<dyn BackupSource>> {
        self.inner.open(backup).await
    }

    async fn verify(&self, level: VerifyLevel, work: &Work) -> Result<VerifyReport> {
        self.crash.verified.lock().push((work.env().now(), level));
        let mut report = self.inner.verify(level, work).await?;
        report.damages.extend(self.crash.damage.lock().clone());
        Ok(report)
    }

    async fn plan_collection(&self, options: &CollectOptions, work: &Work) -> Result<CollectionPlan> {
        self.inner.plan_collection(options, work).await
    }

    async fn collect(&self, options: &CollectOptions, work: &Work) -> Result<Collected> {
        self.crash.point().await;
        self.inner.collect(options, work).await
    }

    async fn open_log(&self, options: LogOptions, work: &Work) -> Result<Arc<dyn LogSink>> {
        self.crash.point().await;
        self.inner.open_log(options, work).await
    }

    async fn log(&self) -> Result<Arc<dyn LogSource>> {
        self.inner.log().await
    }
}

/// A platform and everything around it.
pub(super) struct World {
    pub(super) clock: Arc<SimulatedClock>,
    pub(super) env: Env,
    pub(super) vault: MemoryVault,
    pub(super) machines: Arc<Machines>,
    pub(super) told: Arc<Told>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let clock = Arc::new(SimulatedClock::at(Timestamp::from_second(START).unwrap()));
        let env = Env::new(Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(SeededEntropy::new(seed)));
        Self { clock, env, vault: MemoryVault::new(), machines: Arc::default(), told: Arc::default() }
    }

    /// Another process that runs the platform's services.
    pub(super) fn fleet(&self, runner: &str) -> Fleet {
        let vault = CrashingVault { inner: self.vault.clone(), crash: Arc::clone(&self.machines.crash) };
        let regions = Regions::new().with_vault("eu", Arc::new(vault)).with_neighbours("moon", ["eu"]);
        let host = Arc::clone(&self.machines) as Arc<dyn ServiceHost>;
        let platform = Platform::new(regions, host, self.env.clone(), runner);
        Fleet::new(platform.with_notifier(Arc::clone(&self.told) as Arc<dyn Notifier>))
    }

    pub(super) fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    pub(super) fn now(&self) -> Timestamp {
        self.env.now()
    }

    /// Lets `days` pass, minute by minute as far as anything may be due, with the services run by `fleet`.
    pub(super) async fn pass(&self, fleet: &Fleet, span: SignedDuration) {
        let end = self.now().checked_add(span).unwrap();
        while self.now() < end {
            let tick = fleet.tick(&self.work()).await.unwrap();
            assert_eq!(tick.failed, []);
            let next = tick.next.unwrap_or(end).min(end);
            let step = next.duration_since(self.now()).max(SignedDuration::from_secs(30));
            self.clock.advance(Duration::try_from(step).unwrap());
        }
    }

    /// What the catalog of `service` says. None when there is nothing of it.
    pub(super) async fn catalog(&self, service: &ServiceId) -> Option<Arc<Catalog>> {
        Some(self.vault.repository(service)?.catalog().await.unwrap())
    }

    pub(super) async fn state(&self, service: &ServiceId) -> ServiceState {
        self.catalog(service).await.unwrap().service().unwrap().clone()
    }
}
