//! The suite that every engine passes.

use std::sync::Arc;

use async_trait::async_trait;
use backup_clickhouse::{ClickHouse, ClickHouseSettings};
use backup_core::BackupEngine;
use backup_core::conformance::engine::{self, EngineHarness, EngineTarget};
use backup_core::env::Env;
use backup_core::repository::Repository;
use backup_testkit::clickhouse::digests;
use backup_testkit::{ClickHouse as Server, ClickHouseVersion, clickhouse_versions_under_test, require_or_skip};

use crate::harness::{self, Vault};

struct Harness(Server);

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
        for sql in [
            "CREATE DATABASE IF NOT EXISTS shop".to_owned(),
            "CREATE TABLE IF NOT EXISTS shop.orders (step UInt32, id UInt64, what String) ENGINE = MergeTree PARTITION BY step ORDER BY id"
                .to_owned(),
            format!("INSERT INTO shop.orders SELECT {step}, number, hex(sipHash64(number, {step})) FROM numbers(5000)"),
        ] {
            self.0.query(&sql).await.unwrap();
        }
    }

    async fn digest(&self) -> String {
        format!("{:?}", digests(&self.0).await.unwrap())
    }

    async fn target(&self) -> Box<dyn EngineTarget> {
        Box::new(Target(start(self.0.version()).await))
    }

    async fn unreachable(&self) -> Option<Arc<dyn BackupEngine>> {
        // Nobody listens at port 1.
        Some(Arc::new(ClickHouse::new(ClickHouseSettings::default().url("http://127.0.0.1:1")).unwrap()))
    }
}

async fn start(version: ClickHouseVersion) -> Server {
    Server::builder(version).start().await.unwrap()
}

struct Target(Server);

#[async_trait]
impl EngineTarget for Target {
    fn engine(&self) -> Arc<dyn BackupEngine> {
        Arc::new(harness::engine(&self.0))
    }

    async fn digest(&self) -> Option<String> {
        let digests = digests(&self.0).await.unwrap();
        (!digests.is_empty()).then(|| format!("{digests:?}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_conforms() {
    let version = clickhouse_versions_under_test()[0];
    let server = require_or_skip!(Server::builder(version).start().await);
    engine::run(&Harness(server)).await;
}
