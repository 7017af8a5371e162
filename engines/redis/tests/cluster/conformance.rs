//! The suite that every engine passes, on a cluster.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::BackupEngine;
use backup_core::conformance::engine::{self, EngineHarness, EngineTarget, Suite};
use backup_core::env::Env;
use backup_core::repository::Repository;
use backup_redis::{RedisCluster, RedisSettings};
use backup_testkit::redis::RedisCluster as Servers;
use backup_testkit::{Redis, RedisVersion, redis_versions_under_test, require_or_skip, scratch_dir};
use tempfile::TempDir;

use crate::harness::{self, Vault, all_of};

struct Harness(Servers);

#[async_trait]
impl EngineHarness for Harness {
    fn env(&self) -> Env {
        Env::system()
    }

    async fn repository(&self) -> Arc<dyn Repository> {
        Vault::memory().0
    }

    async fn engine(&self) -> Arc<dyn BackupEngine> {
        Arc::new(harness::engine(&self.0))
    }

    async fn mutate(&self, step: u32) {
        for (number, node) in self.0.nodes().iter().enumerate() {
            // The slots of these tags are of the first node and of the second.
            let tag = ["{2}", "{0}"][number];
            let commands: Vec<_> =
                (0..50).map(|n| ["SET".to_owned(), format!("{tag}:{step}:{n}"), format!("{n:0>100}")]).collect();
            let replies = node.connect().await.unwrap().send(&commands).await.unwrap();
            assert!(replies.iter().all(|reply| reply.text() == "OK"), "{replies:?}");
        }
    }

    async fn digest(&self) -> String {
        let empty = harness::run(&mut self.0.nodes()[0].connect().await.unwrap(), "DBSIZE").await == "0";
        if empty { "nothing".to_owned() } else { format!("{:?}", all_of(self.0.nodes()).await) }
    }

    async fn target(&self) -> Box<dyn EngineTarget> {
        Box::new(Place { home: scratch_dir().unwrap(), version: self.0.nodes()[0].version() })
    }

    async fn unreachable(&self) -> Option<Arc<dyn BackupEngine>> {
        // Nobody listens at port 1.
        Some(Arc::new(RedisCluster::new(RedisSettings::default().url("redis://127.0.0.1:1")).unwrap()))
    }
}

struct Place {
    home: TempDir,
    version: RedisVersion,
}

impl Place {
    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }
}

#[async_trait]
impl EngineTarget for Place {
    fn engine(&self) -> Arc<dyn BackupEngine> {
        Arc::new(RedisCluster::new(RedisSettings::default().data_dir(self.data())).unwrap())
    }

    async fn digest(&self) -> Option<String> {
        let mut servers = Vec::new();
        for name in ["slots-00000", "slots-08192"] {
            let dir = self.data().join(name);
            // Without the file a server would start with nothing, which is what must not be taken for a restore.
            dir.join("dump.rdb").exists().then_some(())?;
            servers.push(Redis::builder(self.version).data_dir(dir).start().await.ok()?);
        }
        Some(format!("{:?}", all_of(&servers).await))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_conforms() {
    let version = redis_versions_under_test()[0];
    let servers = require_or_skip!(Servers::start(version, 2).await);
    let harness = Harness(servers);
    let mut suite = Suite::new(&harness);
    engine::describes_itself(&mut suite).await;
    engine::inspects_its_deployment(&mut suite).await;
    engine::full_backup_restores(&mut suite).await;
    // All but the one about increments, as for a single server: how much of a snapshot file is stored again is nobody's promise.
    engine::every_backup_restores_alone(&mut suite).await;
    engine::occupied_targets_are_refused(&mut suite).await;
    engine::interrupted_backups(&mut suite).await;
    engine::interrupted_restores(&mut suite).await;
    engine::damaged_content_is_never_started(&mut suite).await;
    engine::checks_find_sound_backups_sound(&mut suite).await;
    engine::unreachable_deployments(&mut suite).await;
}
