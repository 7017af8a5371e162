//! Capturing a log while the store is away, and over a network that stalls.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::engine::LogOptions;
use backup_core::env::{Clock, Env, SystemClock, SystemEntropy};
use backup_core::{Lineage, RecoveryTarget, run};
use backup_postgres::{Method, PostgresSettings, Replay};
use backup_storage::fault::{Fault, FaultPlan, FaultStore, WriteOnceGuard};
use backup_storage::store::Store;
use backup_testkit::pgbench::Bank;
use backup_testkit::{PgVersion, Postgres, require_or_skip};
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::{Capture, PATIENCE, Target, Vault, digest, engine, flushed, settings, value, work};
use crate::storage;

const VERSION: PgVersion = PgVersion::V17;

/// Time that passes quickly, so that nobody waits half a minute for half a minute.
#[derive(Debug, Default)]
struct QuickClock(SystemClock);

impl QuickClock {
    const SPEED: u32 = 20;

    fn env() -> Env {
        Env::new(Arc::new(Self::default()), Arc::new(SystemEntropy))
    }
}

#[async_trait]
impl Clock for QuickClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() * Self::SPEED
    }

    async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration / Self::SPEED).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_for_half_a_minute_costs_nothing() {
    let server = require_or_skip!(Postgres::builder(VERSION).start().await);
    let client = server.connect("postgres").await.unwrap();
    let bank = Bank::create(&client, 500).await.unwrap();
    let env = QuickClock::env();
    let guard = Arc::new(WriteOnceGuard::new(Arc::new(object_store::memory::InMemory::new())));
    let faults = Arc::new(FaultStore::new(Arc::clone(&guard) as _, 7, FaultPlan::quiet()));
    let vault = storage::create(&Store::from_object_store(Arc::clone(&faults) as _).with_env(env.clone())).await;
    vault.backup(&engine(&server, Method::Local)).await;
    let capture = Capture::start_in(env.clone(), &vault.0, settings(&server), LogOptions::default());
    let load = bank.run(&server, "postgres", 2).await.unwrap();
    assert!(load.wait_committed(100, PATIENCE).await);
    capture.reaches(1, flushed(&client).await).await;

    faults.set_plan(FaultPlan::quiet().with(Fault::Refused, 1.0));
    env.clock().sleep(Duration::from_secs(30)).await;
    assert!(load.wait_committed(100, PATIENCE).await, "the server does not wait for the store");
    assert!(!capture.ended());
    // Up to where the server was told that its log is stored.
    let told = value(&client, "select (flush_lsn - '0/0')::bigint from pg_stat_replication").await;
    let beside = storage::open(&Store::from_object_store(guard)).await;
    let stored = beside.0.log().await.unwrap().ledger().covered(&Lineage::new("1")).end().unwrap();
    assert!(told.parse::<u64>().unwrap() <= stored, "{told} was acknowledged, {stored} is stored");

    faults.set_plan(FaultPlan::quiet());
    let report = load.stop().await;
    capture.reaches(1, flushed(&client).await).await;
    capture.stop().await;
    let restorable = run::windows(vault.0.as_ref(), None, &work()).await.unwrap();
    assert_eq!((restorable.windows.len(), restorable.holes.len()), (1, 0), "{restorable:?}");
    same_as(&vault, &server, &report.acknowledged).await;
}

/// Restores the newest state: it is what the server has.
async fn same_as(vault: &Vault, server: &Postgres, acknowledged: &[(i32, i64)]) {
    let place = Target::new(VERSION);
    let restored = place.recover(vault, RecoveryTarget::latest(), Replay::Files).await;
    assert_eq!(digest(&restored).await, digest(server).await);
    let state = Bank::check(&restored.connect("postgres").await.unwrap()).await.unwrap();
    assert_eq!(state.last_by_client, acknowledged);
}

/// Passes bytes between a capture and a server, until it does so no more.
struct Wire {
    port: u16,
    stalled: CancellationToken,
    task: JoinHandle<()>,
}

impl Wire {
    async fn to(server: &Postgres) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, server) = (listener.local_addr().unwrap().port(), server.port());
        let stalled = CancellationToken::new();
        let cut = stalled.clone();
        let task = tokio::spawn(async move {
            // Ends with the task, and with it whoever still waits.
            let mut passing = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let cut = cut.clone();
                let after = cut.is_cancelled();
                passing.spawn(async move {
                    let mut far = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    let copy = tokio::io::copy_bidirectional(&mut near, &mut far);
                    if after {
                        let _ = copy.await;
                    } else if cut.run_until_cancelled(copy).await.is_none() {
                        // The server sees its peer go; the peer sees nothing at all.
                        drop(far);
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Self { port, stalled, task }
    }

    /// From now on nothing passes on the connections that there are.
    fn stall(&self) {
        self.stalled.cancel();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_stalls_is_noticed_and_the_log_goes_on() {
    let server = require_or_skip!(Postgres::builder(VERSION).start().await);
    let client = server.connect("postgres").await.unwrap();
    let bank = Bank::create(&client, 500).await.unwrap();
    let vault = Vault::memory();
    vault.backup(&engine(&server, Method::Local)).await;
    let wire = Wire::to(&server).await;
    let through = PostgresSettings::default().url(format!(
        "host=127.0.0.1 port={} user={} password={} dbname=postgres",
        wire.port,
        server.superuser(),
        server.password()
    ));
    let capture = Capture::start_in(QuickClock::env(), &vault.0, through, LogOptions::default());
    let load = bank.run(&server, "postgres", 2).await.unwrap();
    assert!(load.wait_committed(100, PATIENCE).await);
    capture.reaches(1, flushed(&client).await).await;
    // An idle server says nothing by itself, and is not given up for that.
    let report = load.stop().await;
    QuickClock::env().clock().sleep(Duration::from_secs(120)).await;
    assert!(!capture.found.has("log-interrupted"), "{:?}", capture.found);

    wire.stall();
    // Something new, which cannot come through the wire as it is.
    client.batch_execute("create table stalled ()").await.unwrap();
    let end = flushed(&client).await;
    capture.reaches(1, end).await;
    assert!(capture.found.has("log-interrupted"));
    assert!(!capture.found.has("log-hole"));
    capture.stop().await;
    assert!(vault.0.log().await.unwrap().ledger().holes().is_empty());
    same_as(&vault, &server, &report.acknowledged).await;
}
