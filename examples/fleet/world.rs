//! A platform in memory: machines that hold one number each, and a clock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::catalog::{Actor, Role, ServiceChange, ServiceSpec, Stage};
use backup_core::engine::{
    BackupContext, BackupSinkExt, BackupSourceExt, CheckContext, CheckReport, Deployment, EngineDescriptor,
    RestoreContext, Restored, Work,
};
use backup_core::entry::{EntryMeta, EntryPath};
use backup_core::env::{Clock, Env, SimulatedClock, SystemEntropy};
use backup_core::repository::{MemoryVault, Repository, Vault};
use backup_core::service::{Fleet, NewService, Platform, Regions, ServiceHost, Stopped};
use backup_core::{BackupEngine, Consistency, Error, Finding, Result, ServiceId, Snapshot};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600;

/// The state of one deployment: how many days it has run.
type Disk = Arc<Mutex<u64>>;

/// An engine whose deployment is a number.
#[derive(Debug)]
struct Number {
    descriptor: EngineDescriptor,
    service: ServiceId,
    disk: Disk,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "number({})", self.service)
    }
}

fn entry() -> Result<EntryPath> {
    EntryPath::new("number")
}

#[async_trait]
impl BackupEngine for Number {
    fn descriptor(&self) -> &EngineDescriptor {
        &self.descriptor
    }

    async fn inspect(&self) -> Result<Deployment> {
        Ok(Deployment::new(self.service.as_str(), "1", "memory"))
    }

    async fn backup(&self, cx: &BackupContext) -> Result<Snapshot> {
        let bytes = self.disk.lock().to_be_bytes().to_vec();
        cx.sink().put_bytes(EntryMeta::file(entry()?), bytes.into()).await?;
        let now = cx.work().env().now();
        let EngineDescriptor { name, consistency, .. } = self.descriptor;
        Ok(Snapshot::new(name, "1", self.service.as_str(), "memory", consistency, (now, now)))
    }

    async fn assess_restore(&self, _: &RestoreContext) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    async fn restore(&self, cx: &RestoreContext) -> Result<Restored> {
        let bytes = cx.source().read_small(&entry()?, 8).await?;
        let bytes = bytes.as_ref().try_into().map_err(|_| Error::damaged("a number has eight bytes"))?;
        *self.disk.lock() = u64::from_be_bytes(bytes);
        Ok(Restored::default())
    }

    async fn check(&self, _: &CheckContext) -> Result<CheckReport> {
        Ok(CheckReport::default())
    }
}

/// The machines.
#[derive(Debug, Default)]
struct Machines(Mutex<BTreeMap<ServiceId, Disk>>);

impl Machines {
    fn engine(service: &ServiceId, disk: &Disk) -> Arc<dyn BackupEngine> {
        let descriptor = EngineDescriptor::new("number", "Number", Consistency::PointInTime, "nothing");
        Arc::new(Number { descriptor, service: service.clone(), disk: Arc::clone(disk) })
    }
}

#[async_trait]
impl ServiceHost for Machines {
    async fn running(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Arc<dyn BackupEngine>> {
        let machines = self.0.lock();
        let disk = machines.get(service).ok_or_else(|| Error::unavailable(format!("{service} does not run")))?;
        Ok(Self::engine(service, disk))
    }

    async fn provision(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Arc<dyn BackupEngine>> {
        let disk = Disk::default();
        let engine = Self::engine(service, &disk);
        self.0.lock().insert(service.clone(), disk);
        Ok(engine)
    }

    async fn start(&self, _: &ServiceId, _: &ServiceSpec) -> Result<()> {
        Ok(())
    }

    async fn quiesce(&self, _: &ServiceId, _: &ServiceSpec) -> Result<()> {
        Ok(())
    }

    async fn stop(&self, _: &ServiceId, _: &ServiceSpec) -> Result<Stopped> {
        Ok(Stopped::default())
    }

    async fn discard(&self, service: &ServiceId, _: &ServiceSpec) -> Result<()> {
        self.0.lock().remove(service);
        Ok(())
    }
}

/// A platform and its clock.
struct World {
    clock: Arc<SimulatedClock>,
    env: Env,
    vault: MemoryVault,
    machines: Arc<Machines>,
    fleet: Fleet,
}

impl World {
    fn new() -> Self {
        let start = Timestamp::from_second(START).unwrap_or(Timestamp::UNIX_EPOCH);
        let clock = Arc::new(SimulatedClock::at(start));
        let env = Env::new(Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(SystemEntropy));
        let (vault, machines) = (MemoryVault::new(), Arc::new(Machines::default()));
        let regions = Regions::new().with_vault("here", Arc::new(vault.clone()) as Arc<dyn Vault>);
        let host = Arc::clone(&machines) as Arc<dyn ServiceHost>;
        let fleet = Fleet::new(Platform::new(regions, host, env.clone(), "fleet"));
        Self { clock, env, vault, machines, fleet }
    }

    fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    async fn create(&self, name: &str, kind: &str, plan: &str) -> Result<ServiceId> {
        let id = ServiceId::new(name)?;
        self.machines.0.lock().insert(id.clone(), Disk::default());
        self.fleet.create(&owner(), NewService::new(id.clone(), kind, plan, "here")).await?;
        Ok(id)
    }

    /// Runs the services until `span` has passed. The longest time between a due backup and its begin.
    async fn pass(&self, span: SignedDuration) -> Result<SignedDuration> {
        let end = self.env.now().checked_add(span).unwrap_or(Timestamp::MAX);
        let mut latest = SignedDuration::ZERO;
        while self.env.now() < end {
            let tick = self.fleet.tick(&self.work()).await?;
            if let Some((service, problem)) = tick.failed.first() {
                return Err(Error::internal(format!("{service}: {problem}")));
            }
            latest = latest.max(tick.lateness());
            let next = tick.next.unwrap_or(end).min(end);
            let step = next.duration_since(self.env.now()).max(SignedDuration::from_secs(60));
            self.clock.advance(Duration::try_from(step).unwrap_or_default());
        }
        Ok(latest)
    }
}

fn owner() -> Actor {
    Actor::new(Role::Owner, "example")
}

/// What existed of a service on a day.
pub(crate) struct Day {
    pub(crate) number: u32,
    /// `running`, `off` or `deleted`.
    pub(crate) stage: &'static str,
    /// Of each backup, in hours.
    pub(crate) ages: Vec<f64>,
}

/// A service over all days.
pub(crate) struct Drawn {
    pub(crate) title: String,
    pub(crate) plan: String,
    pub(crate) days: Vec<Day>,
}

/// A few services over `days`, to be drawn.
pub(crate) async fn few(days: u32) -> Result<Vec<Drawn>> {
    let world = World::new();
    let services = [
        ("orders", "clickhouse", "premium", "daily, 30 days; off from day 40 to 70"),
        ("cache", "redis", "business", "every 12 hours, 3 days"),
        ("search", "opensearch", "startup", "hourly for a day, daily for 3 days; deleted on day 100"),
        ("boards", "grafana", "startup", "hourly, 1 day"),
        ("sandbox", "redis", "hobbyist", "one, for disaster recovery only"),
        ("metrics", "m3db", "premium", "daily, 13 days; off from day 15 on, for ever"),
    ];
    let mut drawn = Vec::new();
    for (name, kind, plan, text) in services {
        world.create(name, kind, plan).await?;
        let title = format!("{name}: {kind}, {plan}");
        drawn.push(Drawn { title, plan: text.to_owned(), days: Vec::new() });
    }
    for number in 0..days {
        world.pass(SignedDuration::from_hours(24)).await?;
        world.machines.0.lock().values().for_each(|disk| *disk.lock() += 1);
        let work = world.work();
        match number {
            15 => world.fleet.open(&ServiceId::new("metrics")?).await?.power_off(&owner(), false, &work).await?,
            40 => world.fleet.open(&ServiceId::new("orders")?).await?.power_off(&owner(), false, &work).await?,
            70 => world.fleet.open(&ServiceId::new("orders")?).await?.power_on(&owner(), &work).await?,
            100 => world.fleet.open(&ServiceId::new("search")?).await?.delete(&owner()).await?,
            _ => {}
        }
        for (row, (name, ..)) in drawn.iter_mut().zip(services) {
            let Some(repository) = world.vault.repository(&ServiceId::new(name)?) else { continue };
            let catalog = repository.catalog().await?;
            let stage = match catalog.service().map(|service| service.stage) {
                Some(Stage::Off { .. }) => "off",
                Some(Stage::Deleted { .. } | Stage::Purging { .. }) => "deleted",
                _ => "running",
            };
            let now = world.env.now();
            let ages = catalog.backups().map(|backup| now.duration_since(backup.ended_at).as_secs_f64() / 3600.0);
            row.days.push(Day { number, stage, ages: ages.collect() });
        }
    }
    Ok(drawn)
}

/// What many services have done.
pub(crate) struct Report {
    services: usize,
    days: u32,
    backups: usize,
    missed: usize,
    overlapping: usize,
    failures: u32,
    latest: SignedDuration,
    most: usize,
    peak_mib: Option<u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { services, days, backups, missed, overlapping, failures, latest, most, .. } = self;
        writeln!(f, "{services} services, {days} days: {backups} backups were begun")?;
        writeln!(f, "due and not made: {missed}; begun while another one ran: {overlapping}; failed: {failures}")?;
        write!(
            f,
            "the latest began {} s after it was due; no service keeps more than {most} backups",
            latest.as_secs()
        )?;
        self.peak_mib.map_or(Ok(()), |mib| write!(f, "\npeak memory {mib} MiB"))
    }
}

/// Many services of all plans over `days`.
pub(crate) async fn many(services: usize, days: u32) -> Result<Report> {
    /// Kind, plan, hours between backups.
    const KINDS: [(&str, &str, i64); 6] = [
        ("clickhouse", "premium", 24),
        ("clickhouse", "startup", 24),
        ("redis", "business", 12),
        ("cassandra", "premium", 24),
        ("m3db", "business", 24),
        ("redis", "hobbyist", 24),
    ];
    let world = World::new();
    let mut ids = Vec::with_capacity(services);
    for number in 0..services {
        let (kind, plan, hours) = KINDS[number % KINDS.len()];
        ids.push((world.create(&format!("svc-{number}"), kind, plan).await?, hours));
    }
    let latest = world.pass(SignedDuration::from_hours(24 * i64::from(days))).await?;
    let mut report = Report {
        services,
        days,
        backups: 0,
        missed: 0,
        overlapping: 0,
        failures: 0,
        latest,
        most: 0,
        peak_mib: peak_mib(),
    };
    for (id, hours) in ids {
        let Some(repository) = world.vault.repository(&id) else { continue };
        let catalog = repository.catalog().await?;
        let Some(service) = catalog.service() else { continue };
        let (mut begun, mut running) = (0, false);
        for audited in service.trail.iter() {
            match audited.change {
                ServiceChange::RunStarted { .. } => {
                    report.overlapping += usize::from(running);
                    (begun, running) = (begun + 1, true);
                }
                ServiceChange::RunEnded { .. } => running = false,
                _ => {}
            }
        }
        // The first one at once, then one in each interval.
        let due = usize::try_from(24 * i64::from(days) / hours).unwrap_or(0);
        report.missed += due.saturating_sub(begun);
        report.backups += begun;
        report.failures += service.failures;
        report.most = report.most.max(catalog.backups().count());
    }
    Ok(report)
}

/// `VmHWM` of `/proc/self/status`, where there is one.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok().map(|kib| kib / 1024)
}
