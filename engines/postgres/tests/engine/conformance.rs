//! The suite that every engine passes.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::BackupEngine;
use backup_core::conformance::engine::{EngineHarness, EngineTarget};
use backup_core::env::Env;
use backup_core::repository::Repository;
use backup_postgres::{Method, PostgresEngine, PostgresSettings};
use backup_storage::store::Store;
use backup_testkit::{PgVersion, Postgres, require_or_skip, unprivileged, versions_under_test};

use crate::harness::{self, Target, Vault};
use crate::storage;

struct Harness {
    server: Postgres,
    method: Method,
    real: bool,
}

#[async_trait]
impl EngineHarness for Harness {
    fn env(&self) -> Env {
        Env::system()
    }

    async fn repository(&self) -> Arc<dyn Repository> {
        // What is proven over memory must hold over the real repository too.
        if self.real { storage::create(&Store::memory()).await.0 } else { Vault::memory().0 }
    }

    async fn engine(&self) -> Arc<dyn BackupEngine> {
        Arc::new(harness::engine(&self.server, self.method))
    }

    async fn mutate(&self, step: u32) {
        let client = self.server.connect("postgres").await.unwrap();
        let sql = format!(
            "create table if not exists log (step int, line text);
             insert into log select {step}, repeat(md5({step}::text || i::text), 4) from generate_series(1, 2000) i;
             update log set line = reverse(line) where step = {step} - 1;
             create table made_in_{step} as select {step} as step;
             drop table if exists made_in_{old}",
            old = step.saturating_sub(2)
        );
        client.batch_execute(&sql).await.unwrap();
    }

    async fn digest(&self) -> String {
        format!("{:?}", harness::digest(&self.server).await)
    }

    async fn target(&self) -> Box<dyn EngineTarget> {
        Box::new(Target::new(self.server.version()))
    }

    async fn unreachable(&self) -> Option<Arc<dyn BackupEngine>> {
        // Nobody listens at port 1.
        Some(Arc::new(PostgresEngine::new(PostgresSettings::default().url("host=127.0.0.1 port=1 user=x")).unwrap()))
    }
}

#[async_trait]
impl EngineTarget for Target {
    fn engine(&self) -> Arc<dyn BackupEngine> {
        Arc::new(Self::engine(self))
    }

    async fn digest(&self) -> Option<String> {
        // An interrupted restore by root has not yet given its files away: that must not be why nothing starts.
        unprivileged().own_tree(self.data()).unwrap();
        if Postgres::open(self.version(), self.data()).await.is_err() {
            return None;
        }
        Some(format!("{:?}", harness::digest_of(self).await))
    }
}

/// The oldest and the newest: what differs between versions lies between them.
fn chosen() -> Vec<PgVersion> {
    let all = versions_under_test();
    let mut chosen: Vec<_> = [all.first(), all.last()].into_iter().flatten().copied().collect();
    chosen.dedup();
    chosen
}

async fn conforms(method: Method) {
    for (index, version) in chosen().into_iter().enumerate() {
        // Small segments, so that a backup crosses their boundaries.
        let server = Postgres::builder(version).initdb_arg("--wal-segsize=1").start().await;
        let server = require_or_skip!(server);
        backup_core::conformance::engine::run(&Harness { server, method, real: index > 0 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_reading_conforms() {
    conforms(Method::Local).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_through_the_server_conforms() {
    conforms(Method::Protocol).await;
}
