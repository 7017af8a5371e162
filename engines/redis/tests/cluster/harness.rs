//! Backups of clusters, and what clusters hold.

use std::sync::Arc;

use backup_core::catalog::BackupRecord;
use backup_core::engine::{Restored, Work};
use backup_core::entry::Selector;
use backup_core::env::Env;
use backup_core::repository::{MemoryRepository, Repository};
use backup_core::run::{self, BackupOptions};
use backup_core::{BackupEngine, Member, RecoveryTarget, Result, ServiceId};
use backup_redis::client::ClientSettings;
use backup_redis::{RedisCluster, RedisSettings, RestoreSettings};
use backup_testkit::Redis;
use backup_testkit::redis::{Contents, RedisClient, RedisCluster as Servers, contents};

pub(crate) fn work() -> Work {
    Work::new(Env::system())
}

/// How a test reaches a cluster: by its last node, since any of them is good.
pub(crate) fn settings(servers: &Servers) -> RedisSettings {
    RedisSettings::default().url(servers.nodes().last().unwrap().url()).identity("the test")
}

pub(crate) fn engine(servers: &Servers) -> RedisCluster {
    RedisCluster::new(settings(servers)).unwrap()
}

/// An engine that only restores.
pub(crate) fn target(restore: RestoreSettings) -> RedisCluster {
    RedisCluster::new(RedisSettings::default()).unwrap().with_restore(restore)
}

pub(crate) fn client(server: &Redis) -> ClientSettings {
    ClientSettings::new(server.url().parse().unwrap())
}

/// The backups of one service.
#[derive(Debug, Clone)]
pub(crate) struct Vault(pub(crate) Arc<dyn Repository>);

impl Vault {
    pub(crate) fn memory() -> Self {
        Self(Arc::new(MemoryRepository::new(ServiceId::new("cache").unwrap())))
    }

    pub(crate) async fn backup(&self, engine: &dyn BackupEngine) -> BackupRecord {
        self.try_backup(engine).await.unwrap_or_else(|error| panic!("{engine}: {error:?}"))
    }

    pub(crate) async fn try_backup(&self, engine: &dyn BackupEngine) -> Result<BackupRecord> {
        run::backup(self.0.as_ref(), engine, BackupOptions::default(), &work()).await
    }

    pub(crate) async fn restore(&self, backup: &BackupRecord, restore: RestoreSettings) -> Result<Restored> {
        self.restore_some(backup, restore, Selector::all()).await
    }

    pub(crate) async fn restore_some(
        &self,
        backup: &BackupRecord,
        restore: RestoreSettings,
        selector: Selector,
    ) -> Result<Restored> {
        let engine = target(restore);
        let goal = RecoveryTarget::backup(backup.id);
        let plan = run::plan_restore(self.0.as_ref(), &engine, goal, selector, &work()).await?;
        run::restore(&engine, &plan, &work()).await
    }
}

/// The members of a backup.
pub(crate) fn members(backup: &BackupRecord) -> &[Member] {
    &backup.snapshot.group.as_ref().unwrap().members
}

/// All that `servers` hold together, and that each of them has something, and that none has what another one has.
pub(crate) async fn all_of<'a>(servers: impl IntoIterator<Item = &'a Redis>) -> Contents {
    let mut all = Contents::default();
    for server in servers {
        let own = contents(server).await.unwrap();
        assert!(!own.keys.is_empty(), "a node without keys proves nothing");
        let before = all.keys.len() + own.keys.len();
        all.keys.extend(own.keys);
        assert_eq!(all.keys.len(), before, "two nodes have the same key");
        all.functions = own.functions;
    }
    all
}

/// Panics unless both hold the same, and names a key of which they differ.
#[track_caller]
pub(crate) fn assert_same(has: &Contents, wanted: &Contents) {
    assert_eq!(has.functions, wanted.functions);
    let all = has.keys.keys().chain(wanted.keys.keys());
    for (database, key) in all {
        let of = |contents: &Contents| contents.keys.get(&(*database, key.clone())).cloned();
        assert_eq!(of(has), of(wanted), "{}", String::from_utf8_lossy(key));
    }
}

pub(crate) async fn run(client: &mut RedisClient, line: &str) -> String {
    client.run(line).await.unwrap().text()
}

/// Gives every node of the cluster keys of several types, and all of them the same function.
pub(crate) async fn fill(servers: &Servers, count: usize) {
    for number in 0..count {
        let key = format!("key:{{{}}}:{number}", number % 61);
        let owner = servers.owner(backup_redis::rdb::slot_of(key.as_bytes())).unwrap();
        let mut client = owner.connect().await.unwrap();
        let line = match number % 4 {
            0 => format!("SET {key} value-{number}"),
            1 => format!("RPUSH {key} a b {number}"),
            2 => format!("HSET {key} field {number}"),
            _ => format!("SET {key} {number} EX 90000"),
        };
        run(&mut client, &line).await;
    }
    for node in servers.nodes().iter().filter(|node| node.version().since_7()) {
        let code = "#!lua name=lib\nredis.register_function('hello', function() return 'hello' end)";
        node.connect().await.unwrap().call(&["FUNCTION", "LOAD", code]).await.unwrap();
    }
}
