//! A managed service on real servers: turning it off and on loses nothing, and a cache that nobody wants kept is never backed up.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::catalog::{Actor, Role, ServiceChange, ServiceSpec};
use backup_core::engine::Work;
use backup_core::env::{Env, ShiftedClock, SystemEntropy};
use backup_core::repository::MemoryVault;
use backup_core::service::{
    Fleet, ForkTarget, ManagedService, NewFork, NewService, Platform, Regions, ServiceHost, Stopped,
};
use backup_core::{BackupEngine, Error, ErrorKind, LogPosition, Result, ServiceId};
use backup_crypto::{Identity, RawKey};
use backup_policy::{Cadence, Matrix, Offer, Period, Plan, Profile, ServiceKind, Tier};
use backup_redis::client::ClientSettings;
use backup_redis::{Persistence, RedisEngine, RedisSettings, RestoreSettings};
use backup_storage::store::{ObjectName, Store};
use backup_storage::{Repository, RepositorySettings, SharedKeys, Vault};
use backup_testkit::redis::contents;
use backup_testkit::wait::Deadline;
use backup_testkit::{Redis, RedisVersion, require_or_skip};
use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::harness::{PATIENCE, position, settings, stored_end};

/// Servers on this host.
#[derive(Debug)]
struct Servers {
    version: RedisVersion,
    persistence: Persistence,
    machines: tokio::sync::Mutex<BTreeMap<ServiceId, Redis>>,
}

impl Servers {
    async fn add(&self, service: &ServiceId, keys: std::ops::Range<u32>) {
        let mut client = self.machines.lock().await[service].connect().await.unwrap();
        for n in keys {
            client.run(&format!("SET key:{n} {n}")).await.unwrap();
        }
    }

    async fn count(&self, service: &ServiceId) -> i64 {
        let mut client = self.machines.lock().await[service].connect().await.unwrap();
        client.run("DBSIZE").await.unwrap().number().unwrap()
    }
}

fn environment(error: &backup_testkit::Error) -> Error {
    Error::environment(error.full())
}

#[async_trait]
impl ServiceHost for Servers {
    async fn running(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Arc<dyn BackupEngine>> {
        let mut machines = self.machines.lock().await;
        match machines.get_mut(service).and_then(|server| server.is_running().then_some(server)) {
            Some(server) => {
                let mut settings = settings(server);
                settings.persistence = self.persistence;
                Ok(Arc::new(RedisEngine::new(settings)?))
            }
            None => Err(Error::unavailable(format!("{service} does not run"))),
        }
    }

    async fn provision(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Arc<dyn BackupEngine>> {
        let server = Redis::builder(self.version).start().await.map_err(|e| environment(&e))?;
        let target = ClientSettings::new(server.url().parse()?);
        let engine = RedisEngine::new(RedisSettings::default())?.with_restore(RestoreSettings::live(target));
        self.machines.lock().await.insert(service.clone(), server);
        Ok(Arc::new(engine))
    }

    async fn start(&self, service: &ServiceId, _: &ServiceSpec) -> Result<()> {
        let mut machines = self.machines.lock().await;
        let server = machines.get_mut(service).ok_or_else(|| Error::environment("there is no machine"))?;
        if !server.is_running() {
            return Err(Error::environment("a server that keeps nothing itself is not started again"));
        }
        let mut client = server.connect().await.map_err(|e| environment(&e))?;
        client.run("CLIENT UNPAUSE").await.map_err(|e| environment(&e))?;
        Ok(())
    }

    async fn quiesce(&self, service: &ServiceId, _: &ServiceSpec) -> Result<()> {
        let machines = self.machines.lock().await;
        let mut client = machines[service].connect().await.map_err(|e| environment(&e))?;
        client.run("CLIENT PAUSE 600000 WRITE").await.map_err(|e| environment(&e))?;
        Ok(())
    }

    async fn stop(&self, service: &ServiceId, _: &ServiceSpec) -> Result<Stopped> {
        let mut machines = self.machines.lock().await;
        let Some(server) = machines.get_mut(service) else { return Ok(Stopped::default()) };
        if !server.is_running() {
            return Ok(Stopped::default());
        }
        // Nobody writes any more.
        let end = position(server).await;
        server.stop().await.map_err(|e| environment(&e))?;
        Ok(Stopped::at(Some(end)))
    }

    async fn discard(&self, service: &ServiceId, _: &ServiceSpec) -> Result<()> {
        self.machines.lock().await.remove(service);
        Ok(())
    }
}

async fn life(version: RedisVersion) {
    let server = require_or_skip!(Redis::builder(version).start().await);
    let name = ServiceId::new("sessions").unwrap();
    let clock = Arc::new(ShiftedClock::default());
    let env = Env::new(Arc::clone(&clock) as _, Arc::new(SystemEntropy));
    let store = Store::memory();
    let keys = SharedKeys::new(vec![key().into()], Identity::from(key()));
    let hosts = Arc::new(Servers { version, persistence: Persistence::Rdb, machines: tokio::sync::Mutex::default() });
    let regions = Regions::new().with_vault("eu", Arc::new(Vault::new(store.clone(), keys, env.clone())));
    let platform = Platform::new(regions, Arc::clone(&hosts) as Arc<dyn ServiceHost>, env.clone(), "test");
    let (fleet, work) = (Fleet::new(platform.with_matrix(any_moment())), Work::new(env.clone()));
    let owner = Actor::new(Role::Owner, "kim");

    hosts.machines.lock().await.insert(name.clone(), server);
    let service = fleet.create(&owner, NewService::new(name.clone(), "redis", "business", "eu")).await.unwrap();
    hosts.add(&name, 0..100).await;
    let tick = fleet.tick(&work).await.unwrap();
    assert_eq!((tick.failed.len(), service.backups(&owner).await.unwrap().len()), (0, 1), "{tick:?}");

    let cancel = CancellationToken::new();
    let (following, inner) = (service.clone(), work.clone().with_cancel(cancel.clone()));
    let capture = tokio::spawn(async move { following.capture(&inner).await });
    hosts.add(&name, 100..140).await;
    stored(&service, &position(&hosts.machines.lock().await[&name]).await).await;
    let between = work.env().now();
    hosts.add(&name, 140..160).await;
    stored(&service, &position(&hosts.machines.lock().await[&name]).await).await;
    cancel.cancel();
    capture.await.unwrap().unwrap();

    // Nobody follows any more; what is written now comes by the log, as far back as the server has it.
    hosts.add(&name, 160..200).await;
    let before = contents(&hosts.machines.lock().await[&name]).await.unwrap();
    service.power_off(&owner, false, &work).await.unwrap_or_else(|e| panic!("{version}: {e:?}"));
    assert!(hosts.machines.lock().await.is_empty(), "its machine is given up");
    let trail = service.audit(&owner, Timestamp::MIN, Timestamp::MAX).await.unwrap();
    assert!(trail.iter().any(|a| matches!(a.change, ServiceChange::PoweredOff { loss: None })), "{trail:?}");
    service.power_on(&owner, &work).await.unwrap_or_else(|e| panic!("{version}: {e:?}"));
    assert_eq!(contents(&hosts.machines.lock().await[&name]).await.unwrap(), before, "{version}");

    // Once more, on the history that the restored server has begun. No stored log leads to it, so a backup is taken.
    hosts.add(&name, 200..250).await;
    service.power_off(&owner, false, &work).await.unwrap_or_else(|e| panic!("{version}: {e:?}"));
    service.power_on(&owner, &work).await.unwrap_or_else(|e| panic!("{version}: {e:?}"));
    assert_eq!(hosts.count(&name).await, 250, "{version}");

    let fork = NewFork::new(ServiceId::new("sessions-copy").unwrap());
    let fork = fleet.fork(&owner, &name, fork, &work).await.unwrap();
    hosts.add(fork.id(), 1000..1001).await;
    assert_eq!((hosts.count(fork.id()).await, hosts.count(&name).await), (251, 250), "they are independent");

    let then = NewFork::new(ServiceId::new("sessions-then").unwrap()).at(ForkTarget::Time(between));
    let then = fleet.fork(&owner, &name, then, &work).await.unwrap_or_else(|e| panic!("{version}: {e:?}"));
    assert_eq!(hosts.count(then.id()).await, 140, "{version}");

    let operator = Actor::new(Role::Operator, "alex");
    hosts.add(&name, 250..260).await;
    service.delete(&owner).await.unwrap();
    assert_eq!(fleet.tick(&work).await.unwrap().failed, []);
    clock.set(SignedDuration::from_hours(24 * 29));
    assert_eq!(fleet.tick(&work).await.unwrap().failed, []);
    assert!(!hosts.machines.lock().await.contains_key(&name), "its machine is given up");
    service.recover(&operator).await.unwrap();
    service.power_on(&owner, &work).await.unwrap_or_else(|e| panic!("{version}: {e:?}"));
    assert_eq!(hosts.count(&name).await, 260, "what was written last is there on the last day but one");
    service.delete(&owner).await.unwrap();
    assert_eq!(fleet.tick(&work).await.unwrap().failed, []);
    let copy = without_keys(&store, &name).await;
    clock.set(SignedDuration::from_hours(24 * (29 + 31)));
    assert_eq!(fleet.tick(&work).await.unwrap().failed, []);
    assert_eq!(names(&store, &name).await, Vec::<ObjectName>::new(), "no key and no object is left");
    let opened = Repository::open(&copy, name, Identity::from(key()), &RepositorySettings::default(), env).await;
    assert_eq!(opened.unwrap_err().kind(), backup_storage::error::ErrorKind::Damaged);
    assert_eq!(hosts.count(fork.id()).await, 251, "the fork lives on");
}

/// The platform's plans, but with any moment of the last three days for Redis.
fn any_moment() -> Matrix {
    let days = "3d".parse().unwrap();
    let profile =
        Profile::builder(Cadence::every_hours(12).unwrap()).tier(Tier::by_age(Period::Every, days)).pitr(days);
    let (kind, plan) = (ServiceKind::new("redis").unwrap(), Plan::new("business").unwrap());
    Matrix::built_in().with(kind, plan, Offer::Backups(profile.build().unwrap()))
}

/// Waits until the log is stored up to `end`.
async fn stored(service: &ManagedService, end: &LogPosition) {
    let deadline = Deadline::after(PATIENCE);
    while stored_end(&**service.repository(), end).await < end.offset {
        assert!(!deadline.passed(), "the log is not stored up to {end}");
        backup_testkit::wait::pause().await;
    }
}

fn key() -> RawKey {
    RawKey::take(&mut [7; 32])
}

async fn names(store: &Store, service: &ServiceId) -> Vec<ObjectName> {
    store.list(service.as_str()).map_ok(|object| object.name).try_collect().await.unwrap()
}

/// What somebody has who copied all that lies there, but for the keys, which they never had.
async fn without_keys(store: &Store, service: &ServiceId) -> Store {
    let (copy, keys) = (Store::memory(), format!("{service}/keys/"));
    for name in names(store, service).await.iter().filter(|name| !name.as_str().starts_with(&keys)) {
        let _ = copy.create(name, store.get(name).await.unwrap()).await.unwrap();
    }
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_by_turning_it_off() {
    tokio::join!(life(RedisVersion::Redis82), life(RedisVersion::Valkey81));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_is_not_backed_up_and_not_forked() {
    let version = RedisVersion::Redis74;
    let server = require_or_skip!(Redis::builder(version).start().await);
    let (name, env) = (ServiceId::new("cache").unwrap(), Env::system());
    let hosts = Arc::new(Servers { version, persistence: Persistence::Off, machines: tokio::sync::Mutex::default() });
    let regions = Regions::new().with_vault("eu", Arc::new(MemoryVault::new()));
    let platform = Platform::new(regions, Arc::clone(&hosts) as Arc<dyn ServiceHost>, env.clone(), "test");
    let (fleet, work) = (Fleet::new(platform), Work::new(env));
    let owner = Actor::new(Role::Owner, "kim");
    hosts.machines.lock().await.insert(name.clone(), server);
    let service = fleet.create(&owner, NewService::new(name.clone(), "redis", "business", "eu")).await.unwrap();
    hosts.add(&name, 0..10).await;
    fleet.tick(&work).await.unwrap();
    assert_eq!(service.backups(&owner).await.unwrap().len(), 0);
    let fork = NewFork::new(ServiceId::new("cache-copy").unwrap());
    assert_eq!(fleet.fork(&owner, &name, fork, &work).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let refused = service.power_off(&owner, false, &work).await.unwrap_err();
    assert_eq!(hosts.count(&name).await, 10, "it stays on: {refused}");
    service.power_off(&owner, true, &work).await.unwrap();
    assert!(hosts.machines.lock().await.is_empty());
}
