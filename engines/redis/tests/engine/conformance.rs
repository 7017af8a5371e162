//! The suite that every engine passes.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::BackupEngine;
use backup_core::conformance::engine::{self, EngineHarness, EngineTarget, Suite};
use backup_core::env::Env;
use backup_core::repository::Repository;
use backup_redis::{RedisEngine, RedisSettings};
use backup_testkit::redis::contents;
use backup_testkit::{Redis, RedisVersion, redis_versions_under_test, require_or_skip, scratch_dir};
use tempfile::TempDir;

use crate::harness::{self, Vault};

struct Harness(Redis);

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
        let mut client = self.0.connect().await.unwrap();
        let commands: Vec<_> = (0..300)
            .map(|n| ["SET".to_owned(), format!("{step}:{n}"), format!("{n:0>100}")])
            .chain([["RPUSH".to_owned(), "steps".to_owned(), step.to_string()]])
            .collect();
        client.send(&commands).await.unwrap();
    }

    async fn digest(&self) -> String {
        format!("{:?}", contents(&self.0).await.unwrap())
    }

    async fn target(&self) -> Box<dyn EngineTarget> {
        Box::new(Place { home: scratch_dir().unwrap(), version: self.0.version() })
    }

    async fn unreachable(&self) -> Option<Arc<dyn BackupEngine>> {
        // Nobody listens at port 1.
        Some(Arc::new(RedisEngine::new(RedisSettings::default().url("redis://127.0.0.1:1")).unwrap()))
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
        Arc::new(RedisEngine::new(RedisSettings::default().data_dir(self.data())).unwrap())
    }

    async fn digest(&self) -> Option<String> {
        // Without the file a server would start with nothing, which is what must not be taken for a restore.
        self.data().join("dump.rdb").exists().then_some(())?;
        let server = Redis::builder(self.version).data_dir(self.data()).start().await.ok()?;
        Some(format!("{:?}", contents(&server).await.unwrap()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_conforms() {
    let version = redis_versions_under_test()[0];
    let server = require_or_skip!(Redis::builder(version).start().await);
    let harness = Harness(server);
    let mut suite = Suite::new(&harness);
    engine::describes_itself(&mut suite).await;
    engine::inspects_its_deployment(&mut suite).await;
    engine::full_backup_restores(&mut suite).await;
    // All but the one about increments: in a snapshot file everything moves when a number at its beginning gets another digit, so
    // how much of it is stored again is nobody's promise.
    engine::every_backup_restores_alone(&mut suite).await;
    engine::occupied_targets_are_refused(&mut suite).await;
    engine::interrupted_backups(&mut suite).await;
    engine::interrupted_restores(&mut suite).await;
    engine::damaged_content_is_never_started(&mut suite).await;
    engine::checks_find_sound_backups_sound(&mut suite).await;
    engine::unreachable_deployments(&mut suite).await;
}
