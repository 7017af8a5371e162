//! The whole life of a managed service on real servers: nothing is lost by turning it off, and nothing is left when it is over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::catalog::{Actor, Role, ServiceChange, ServiceSpec, Stage};
use backup_core::engine::{LogOptions, Work};
use backup_core::env::{Env, ShiftedClock, SystemEntropy};
use backup_core::service::{Fleet, ForkTarget, NewFork, NewService, Platform, Regions, ServiceHost, Stopped};
use backup_core::{BackupEngine, Error, Result, ServiceId};
use backup_crypto::{Identity, RawKey};
use backup_postgres::control::stopped_at;
use backup_postgres::{PostgresEngine, PostgresSettings, Replay};
use backup_storage::store::Store;
use backup_storage::{Repository, RepositorySettings, SharedKeys, Vault};
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip, scratch_dir};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use crate::harness::{Capture, PATIENCE, flushed, folder, settings, value};

/// A machine with a server on it, or without one.
#[derive(Debug)]
struct Machine {
    server: Option<Postgres>,
    data: PathBuf,
    _disk: Option<TempDir>,
}

/// Servers on this host.
#[derive(Debug)]
struct Servers {
    version: PgVersion,
    machines: tokio::sync::Mutex<BTreeMap<ServiceId, Machine>>,
}

impl Servers {
    async fn rows(&self, service: &ServiceId) -> Vec<i32> {
        let client = self.machines.lock().await[service].server.as_ref().unwrap().connect("postgres").await.unwrap();
        let rows = client.query("select n from t order by n", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn add(&self, service: &ServiceId, from: i32, to: i32) {
        let client = self.machines.lock().await[service].server.as_ref().unwrap().connect("postgres").await.unwrap();
        for n in from..=to {
            client.execute("insert into t values ($1)", &[&n]).await.unwrap();
        }
    }
}

#[async_trait]
impl ServiceHost for Servers {
    async fn running(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Arc<dyn BackupEngine>> {
        match self.machines.lock().await.get(service).and_then(|machine| machine.server.as_ref()) {
            Some(server) => Ok(Arc::new(PostgresEngine::new(settings(server))?)),
            None => Err(Error::unavailable(format!("{service} does not run"))),
        }
    }

    async fn provision(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Arc<dyn BackupEngine>> {
        let disk = scratch_dir().unwrap();
        let data = disk.path().join("data");
        folder(&data);
        let engine = PostgresEngine::new(PostgresSettings::default().data_dir(&data).replay(Replay::Files))?;
        let machine = Machine { server: None, data, _disk: Some(disk) };
        self.machines.lock().await.insert(service.clone(), machine);
        Ok(Arc::new(engine))
    }

    async fn start(&self, service: &ServiceId, _: &ServiceSpec) -> Result<()> {
        let mut machines = self.machines.lock().await;
        let machine = machines.get_mut(service).ok_or_else(|| Error::environment("there is no machine"))?;
        if machine.server.is_none() {
            let server = Postgres::open(self.version, &machine.data).await;
            let server = server.map_err(|e| Error::environment(e.full()))?;
            server.wait_writable(PATIENCE).await.map_err(|e| Error::environment(e.full()))?;
            machine.server = Some(server);
        }
        Ok(())
    }

    async fn quiesce(&self, _: &ServiceId, _: &ServiceSpec) -> Result<()> {
        Ok(())
    }

    async fn stop(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Stopped> {
        let mut machines = self.machines.lock().await;
        let Some(machine) = machines.get_mut(service) else { return Ok(Stopped::default()) };
        if let Some(server) = &mut machine.server {
            server.stop(StopMode::Fast).await.map_err(|e| Error::environment(e.full()))?;
        }
        Ok(Stopped::at(stopped_at(&machine.data)?))
    }

    async fn discard(&self, service: &ServiceId, _: &ServiceSpec) -> Result<()> {
        self.machines.lock().await.remove(service);
        Ok(())
    }
}

fn key() -> RawKey {
    RawKey::take(&mut [3; 32])
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

async fn whole_life(version: PgVersion) {
    let server = require_or_skip!(Postgres::builder(version).start().await);
    let client = server.connect("postgres").await.unwrap();
    client.batch_execute("create table t (n int primary key)").await.unwrap();
    let clock = Arc::new(ShiftedClock::default());
    let env = Env::new(Arc::clone(&clock) as _, Arc::new(SystemEntropy));
    let disk = tempfile::tempdir().unwrap();
    let vault = disk.path().join("vault");
    let store = Store::local(&vault).unwrap();
    let keys = SharedKeys::new(vec![key().into()], Identity::from(key()));
    let regions = Regions::new().with_vault("eu", Arc::new(Vault::new(store.clone(), keys, env.clone())));
    let hosts = Arc::new(Servers { version, machines: tokio::sync::Mutex::default() });
    let platform = Platform::new(regions, Arc::clone(&hosts) as Arc<dyn ServiceHost>, env.clone(), "test");
    let fleet = Fleet::new(platform);
    let (owner, operator) = (Actor::new(Role::Owner, "kim"), Actor::new(Role::Operator, "alex"));
    let work = Work::new(env.clone());
    let name = ServiceId::new("orders").unwrap();

    let data = server.data_dir().to_owned();
    let reached = settings(&server);
    hosts.machines.lock().await.insert(name.clone(), Machine { server: Some(server), data: data.clone(), _disk: None });
    let service = fleet.create(&owner, NewService::new(name.clone(), "postgres", "startup", "eu")).await.unwrap();
    hosts.add(&name, 1, 10).await;
    let tick = fleet.tick(&work).await.unwrap();
    assert_eq!((tick.failed.len(), service.backups(&owner).await.unwrap().len()), (0, 1), "{tick:?}");
    let capture = Capture::start(service.repository(), reached, LogOptions::default());
    hosts.add(&name, 11, 20).await;
    let between: Timestamp = value(&client, "clock_timestamp()").await.replace(' ', "T").parse().unwrap();
    hosts.add(&name, 21, 30).await;
    capture.reaches(1, flushed(&client).await).await;
    capture.stop().await;

    // Nobody follows the log any more, until it is turned off.
    hosts.add(&name, 31, 40).await;
    drop(client);
    service.power_off(&owner, false, &work).await.unwrap();
    assert!(!data.exists() && hosts.machines.lock().await.is_empty(), "its disk is given up");
    let trail = service.audit(&owner, Timestamp::MIN, Timestamp::MAX).await.unwrap();
    assert!(trail.iter().any(|a| matches!(a.change, ServiceChange::PoweredOff { loss: None })), "{trail:?}");
    assert_eq!(service.backups(&owner).await.unwrap().len(), 1, "the log is enough");
    service.power_on(&owner, &work).await.unwrap();
    assert_eq!(hosts.rows(&name).await, (1..=40).collect::<Vec<_>>());

    // The restored server is on a timeline of its own, which is followed without another backup.
    hosts.add(&name, 41, 50).await;
    service.power_off(&owner, false, &work).await.unwrap();
    service.power_on(&owner, &work).await.unwrap();
    assert_eq!(hosts.rows(&name).await, (1..=50).collect::<Vec<_>>());

    let fork = NewFork::new(ServiceId::new("orders-then").unwrap()).at(ForkTarget::Time(between));
    let fork = fleet.fork(&owner, &name, fork, &work).await.unwrap();
    assert_eq!(hosts.rows(fork.id()).await, (1..=20).collect::<Vec<_>>());
    hosts.add(fork.id(), 1000, 1000).await;
    assert_eq!(hosts.rows(&name).await.len(), 50, "they are independent");
    let outside = NewFork::new(ServiceId::new("never").unwrap());
    let outside = outside.at(ForkTarget::Time(between.checked_sub(SignedDuration::from_hours(1)).unwrap()));
    let refused = fleet.fork(&owner, &name, outside, &work).await.unwrap_err();
    assert!(refused.to_string().contains("restorable is"), "{refused}");

    service.power_off(&owner, false, &work).await.unwrap();
    service.delete(&owner).await.unwrap();
    clock.set(SignedDuration::from_hours(24 * 29));
    assert_eq!(fleet.tick(&work).await.unwrap().failed, []);
    service.recover(&operator).await.unwrap();
    service.power_on(&owner, &work).await.unwrap();
    assert_eq!(hosts.rows(&name).await, (1..=50).collect::<Vec<_>>(), "recovered on the last day but one");
    service.delete(&owner).await.unwrap();

    // Somebody copies what lies there, but for the keys, which they never had.
    let copy = disk.path().join("copy");
    for file in files(&vault.join(name.as_str())).iter().filter(|file| !file.starts_with(vault.join("orders/keys"))) {
        let to = copy.join(file.strip_prefix(&vault).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(file, to).unwrap();
    }
    clock.set(SignedDuration::from_hours(24 * (29 + 31)));
    let tick = fleet.tick(&work).await.unwrap();
    assert_eq!(tick.failed, []);
    assert!(!vault.join(name.as_str()).exists(), "no key and no object is left: {tick:?}");
    let copied = Store::local(&copy).unwrap();
    let (identity, settings) = (Identity::from(key()), RepositorySettings::default());
    let opened = Repository::open(&copied, name.clone(), identity, &settings, env.clone()).await;
    assert_eq!(opened.unwrap_err().kind(), backup_storage::error::ErrorKind::Damaged);
    let state = fork.status().await.unwrap();
    assert_eq!(state.stage, Stage::Running, "the fork lives on");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_is_left() {
    for version in [PgVersion::V13, PgVersion::V18] {
        whole_life(version).await;
    }
}
