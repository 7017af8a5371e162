//! A managed service on real servers: turning it off and on loses nothing, and a cache that nobody wants kept is never backed up.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::catalog::{Actor, Role, ServiceChange, ServiceSpec};
use backup_core::engine::Work;
use backup_core::env::Env;
use backup_core::repository::MemoryVault;
use backup_core::service::{Fleet, NewFork, NewService, Platform, Regions, ServiceHost, Stopped};
use backup_core::{BackupEngine, Error, ErrorKind, Result, ServiceId};
use backup_redis::client::ClientSettings;
use backup_redis::{Persistence, RedisEngine, RedisSettings, RestoreSettings};
use backup_testkit::redis::contents;
use backup_testkit::{Redis, RedisVersion, require_or_skip};
use jiff::Timestamp;

use crate::harness::{position, settings};

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
    let (name, env) = (ServiceId::new("sessions").unwrap(), Env::system());
    let hosts = Arc::new(Servers { version, persistence: Persistence::Rdb, machines: tokio::sync::Mutex::default() });
    let regions = Regions::new().with_vault("eu", Arc::new(MemoryVault::new()));
    let platform = Platform::new(regions, Arc::clone(&hosts) as Arc<dyn ServiceHost>, env.clone(), "test");
    let (fleet, work) = (Fleet::new(platform), Work::new(env));
    let owner = Actor::new(Role::Owner, "kim");

    hosts.machines.lock().await.insert(name.clone(), server);
    let service = fleet.create(&owner, NewService::new(name.clone(), "redis", "business", "eu")).await.unwrap();
    hosts.add(&name, 0..100).await;
    let tick = fleet.tick(&work).await.unwrap();
    assert_eq!((tick.failed.len(), service.backups(&owner).await.unwrap().len()), (0, 1), "{tick:?}");

    // Nobody follows; what was written since the backup comes by the log, as far back as the server has it.
    hosts.add(&name, 100..200).await;
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
