//! Clusters of which no backup is taken, and restores that are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use backup_core::engine::{BackupContext, BackupSink, BlockInspector, LocalFile, LogOptions, Patch, Put, Stored};
use backup_core::entry::EntryMeta;
use backup_core::repository::ParentChoice;
use backup_core::run::capture;
use backup_core::{BackupEngine, ErrorKind, Finding, Result};
use backup_redis::client::TlsSettings;
use backup_redis::{Method, Persistence, RedisCluster, RedisSettings, RestoreSettings};
use backup_testkit::redis::RedisCluster as Servers;
use backup_testkit::{Redis, RedisVersion, require_or_skip};
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::harness::{Vault, client, engine, fill, run, settings, work};

/// The finding that keeps `engine` from being backed up.
async fn refused(vault: &Vault, engine: &RedisCluster, code: &str) -> Finding {
    let error = vault.try_backup(engine).await.unwrap_err();
    assert!(error.to_string().contains(code), "{code}: {error}");
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
    let findings = engine.inspect().await.unwrap().findings;
    findings.into_iter().find(|finding| finding.code == code).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_in_motion_is_not_backed_up() {
    let servers = require_or_skip!(Servers::start(RedisVersion::Redis62, 2).await);
    fill(&servers, 20).await;
    let (vault, engine) = (Vault::memory(), engine(&servers));
    let [first, second] = servers.nodes() else { unreachable!() };
    let (mut here, mut there) = (first.connect().await.unwrap(), second.connect().await.unwrap());
    let ids = [first.cluster_id().await.unwrap(), second.cluster_id().await.unwrap()];

    // Only the node itself tells that a slot leaves it, or comes to it: the engine asks the other one first.
    for line in
        [format!("CLUSTER SETSLOT 7 MIGRATING {}", ids[1]), format!("CLUSTER SETSLOT 9000 IMPORTING {}", ids[1])]
    {
        run(&mut here, &line).await;
        let finding = refused(&vault, &engine, "slots-migrating").await;
        assert!(finding.subject.contains(&first.port().to_string()), "{finding}");
        for slot in [7, 9000] {
            run(&mut here, &format!("CLUSTER SETSLOT {slot} STABLE")).await;
        }
    }
    vault.backup(&engine).await;

    // Two views of one cluster.
    run(&mut here, &format!("CLUSTER SETSLOT 7 NODE {}", ids[1])).await;
    let error = vault.try_backup(&engine).await.unwrap_err();
    assert!(error.to_string().contains("topology-disputed") || error.to_string().contains("slots-"), "{error}");

    run(&mut here, &format!("CLUSTER SETSLOT 7 NODE {}", ids[0])).await;
    for client in [&mut here, &mut there] {
        run(client, "CLUSTER DELSLOTS 16383").await;
    }
    refused(&vault, &engine, "slots-unassigned").await;
    assert_eq!(vault.0.catalog().await.unwrap().backups().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_by_the_servers_is_seen() {
    let servers = require_or_skip!(Servers::start(RedisVersion::Valkey91, 2).await);
    fill(&servers, 20).await;
    let (vault, engine) = (Vault::memory(), engine(&servers));
    let [first, second] = servers.nodes() else { unreachable!() };
    let mut here = first.connect().await.unwrap();
    run(&mut here, "DEBUG SLOTMIGRATION PREVENT-PAUSE 1").await;
    let migrate = format!("CLUSTER MIGRATESLOTS SLOTSRANGE 0 10 NODE {}", second.cluster_id().await.unwrap());
    run(&mut here, &migrate).await;
    refused(&vault, &engine, "slots-migrating").await;
    // What is over is no obstacle, though it is told for long.
    run(&mut here, "CLUSTER CANCELSLOTMIGRATIONS").await;
    let deadline = backup_testkit::wait::Deadline::after(std::time::Duration::from_secs(30));
    while !run(&mut second.connect().await.unwrap(), "CLUSTER GETSLOTMIGRATIONS").await.contains("failed") {
        assert!(!deadline.passed(), "the migration does not end");
        backup_testkit::wait::pause().await;
    }
    vault.backup(&engine).await;
}

/// Passes on what it is given, and in the midst of it lets the cluster change.
#[derive(Debug)]
struct Meddling {
    inner: Arc<dyn BackupSink>,
    servers: Arc<Servers>,
    done: AtomicBool,
    keep: bool,
}

#[async_trait]
impl BackupSink for Meddling {
    async fn put_file(&self, file: LocalFile) -> Result<Put> {
        self.inner.put_file(file).await
    }

    async fn put_stream(
        &self,
        meta: EntryMeta,
        body: BoxStream<'_, Result<Bytes>>,
        inspector: Option<Arc<dyn BlockInspector>>,
    ) -> Result<Stored> {
        if !self.done.swap(true, Ordering::SeqCst) {
            let owner = self.servers.nodes()[1].cluster_id().await.unwrap();
            for node in self.servers.nodes() {
                let mut client = node.connect().await.unwrap();
                let slot = if self.keep { 8192 } else { 0 };
                run(&mut client, &format!("CLUSTER SETSLOT {slot} NODE {owner}")).await;
            }
        }
        self.inner.put_stream(meta, body, inspector).await
    }

    async fn put_patch(&self, patch: Patch, body: BoxStream<'_, Result<Bytes>>) -> Result<Stored> {
        self.inner.put_patch(patch, body).await
    }

    async fn reuse(&self, meta: EntryMeta) -> Result<Option<Stored>> {
        self.inner.reuse(meta).await
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_changes_while_it_is_read_is_not_backed_up() {
    let servers = Arc::new(require_or_skip!(Servers::start(RedisVersion::Redis82, 2).await));
    fill(&servers, 20).await;
    let (vault, engine) = (Vault::memory(), engine(&servers));
    // A slot given to whoever has it is no change.
    for keep in [true, false] {
        let session = vault.0.begin(ParentChoice::None, &work()).await.unwrap();
        let sink =
            Meddling { inner: session.sink(), servers: Arc::clone(&servers), done: AtomicBool::new(false), keep };
        let outcome = engine.backup(&BackupContext::new(work(), Arc::new(sink), None)).await;
        match keep {
            true => drop(outcome.unwrap()),
            false => {
                let error = outcome.unwrap_err();
                assert!(error.to_string().contains("has changed while it was read"), "{error:?}");
                assert_eq!(error.kind(), ErrorKind::Unavailable, "it can be tried again");
            }
        }
        session.abort().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said() {
    let mut servers = require_or_skip!(Servers::start(RedisVersion::Redis72, 2).await);
    fill(&servers, 20).await;
    let vault = Vault::memory();
    let backup = vault.backup(&engine(&servers)).await;

    let live = RestoreSettings::live(client(&servers.nodes()[0]));
    let error = vault.restore(&backup, live).await.unwrap_err();
    assert!(error.to_string().contains("cluster-live"), "{error}");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let off = RedisCluster::new(settings(&servers).persistence(Persistence::Off)).unwrap();
    let error = vault.try_backup(&off).await.unwrap_err();
    assert!(error.to_string().contains("persistence-off"), "{error}");
    let file = RedisSettings::default().method(Method::File).tls(TlsSettings::default());
    assert_eq!(RedisCluster::new(file).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(engine(&servers).log().is_none());
    let (cluster, options, work) = (engine(&servers), LogOptions::default(), work());
    let captured = capture(vault.0.as_ref(), &cluster, options, &work).await;
    assert_eq!(captured.unwrap_err().kind(), ErrorKind::InvalidInput);

    // A server that is no member of any cluster.
    let single = Redis::builder(RedisVersion::Redis72).start().await.unwrap();
    let none = RedisCluster::new(RedisSettings::default().url(single.url())).unwrap();
    let error = vault.try_backup(&none).await.unwrap_err();
    assert!(error.to_string().contains("cluster support disabled"), "{error}");

    // A primary that is gone: at once it cannot be reached, later the others say so.
    servers.nodes_mut()[0].kill9().await;
    let error = vault.try_backup(&engine(&servers)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Environment), "{error:?}");
    assert_eq!(vault.0.catalog().await.unwrap().backups().count(), 1);
}
