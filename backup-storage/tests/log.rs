//! The log over stores that are slow, away or full: what waits, what is shared, what ends.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use backup_core::engine::{LogOptions, LogSink, LogSource, Work};
use backup_core::env::Env;
use backup_core::log::{LineageRecord, LogRange, Mark, Notation};
use backup_core::repository::Repository as _;
use backup_core::{ErrorKind, Lineage, ServiceId};
use backup_crypto::{Identity, RawKey};
use backup_storage::fault::{Fault, FaultOp, FaultPlan, FaultStore, WriteOnceGuard};
use backup_storage::store::{Store, StoreSettings};
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use bytes::Bytes;
use futures::{FutureExt, TryStreamExt};

struct Bench {
    guard: WriteOnceGuard,
    faults: FaultStore,
    store: Store,
    env: Env,
}

fn lineage() -> Lineage {
    Lineage::new("1")
}

fn range(start: u64, len: u64) -> LogRange {
    LogRange::new(lineage(), start..start + len)
}

fn log(range: &LogRange) -> Bytes {
    range.offsets().map(|offset| (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51) as u8).collect()
}

impl Bench {
    async fn new() -> Self {
        let guard = WriteOnceGuard::new(Arc::new(object_store::memory::InMemory::new()));
        let faults = FaultStore::new(Arc::new(guard.clone()), 1, FaultPlan::quiet());
        let env = Env::seeded(1);
        let settings = StoreSettings::default().retries(1);
        let store = Store::from_object_store(Arc::new(faults.clone())).with_settings(settings).with_env(env.clone());
        let bench = Self { guard, faults, store, env };
        let recipients = vec![RawKey::take(&mut [1; 32]).into()];
        let (options, env) = (CreateOptions::default(), bench.env.clone());
        Repository::create(&bench.store, Self::service(), recipients, options, &Self::settings(), env).await.unwrap();
        bench
    }

    fn service() -> ServiceId {
        ServiceId::new("svc").unwrap()
    }

    fn settings() -> RepositorySettings {
        RepositorySettings::default().workers(1).memory_budget(64 << 20)
    }

    async fn repository(&self) -> Repository {
        let identity = Identity::from(RawKey::take(&mut [1; 32]));
        let (settings, env) = (Self::settings(), self.env.clone());
        Repository::open(&self.store, Self::service(), identity, &settings, env).await.unwrap()
    }

    async fn writer(&self, options: LogOptions) -> Arc<dyn LogSink> {
        let sink = self.repository().await.open_log(options, &Work::new(self.env.clone())).await.unwrap();
        let record = LineageRecord::new(lineage(), "source", Notation::HexHalves, self.env.now());
        sink.declare(record).await.unwrap();
        sink
    }

    async fn source(&self) -> Arc<dyn LogSource> {
        self.repository().await.log().await.unwrap()
    }

    async fn assert_reads(&self, range: LogRange) {
        let source = self.source().await;
        let pieces: Vec<Bytes> = source.read(range.clone()).try_collect().await.unwrap();
        assert!(pieces.concat() == log(&range), "{range}");
    }

    async fn objects(&self) -> u64 {
        let objects = self.store.list("svc/log").try_collect::<Vec<_>>().await.unwrap();
        objects.len() as u64
    }
}

async fn append(sink: &dyn LogSink, start: u64, len: u64) -> backup_core::Result<()> {
    let range = range(start, len);
    let bytes = log(&range);
    sink.append(range, bytes, &[]).await
}

async fn durable(sink: &dyn LogSink, end: u64) -> backup_core::Result<()> {
    let mut known = sink.durable();
    while known.as_ref().is_none_or(|position| position.offset < end) {
        known = sink.advanced(known.as_ref()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_store_that_is_away_for_a_while_costs_only_time() {
    let bench = Bench::new().await;
    let sink = bench.writer(LogOptions::default()).await;
    append(sink.as_ref(), 0, 1000).await.unwrap();
    durable(sink.as_ref(), 1000).await.unwrap();
    bench.faults.set_plan(FaultPlan::quiet().with(Fault::Refused, 1.0));
    let since = bench.env.clock().monotonic();
    let known = sink.durable();
    append(sink.as_ref(), 1000, 500).await.unwrap();
    let mut waiting = std::pin::pin!(sink.advanced(known.as_ref()));
    // Ten minutes, by the clock that waiting moves.
    while bench.env.clock().monotonic() - since < Duration::from_secs(600) {
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    append(sink.as_ref(), 1500, 500).await.unwrap();
    bench.faults.set_plan(FaultPlan::quiet());
    durable(sink.as_ref(), 2000).await.unwrap();
    sink.close().await.unwrap();
    bench.assert_reads(range(0, 2000)).await;
    bench.guard.assert_clean();
}

#[tokio::test]
async fn closing_does_not_wait_for_a_store_that_stays_away() {
    let bench = Bench::new().await;
    let sink = bench.writer(LogOptions::default()).await;
    append(sink.as_ref(), 0, 1000).await.unwrap();
    durable(sink.as_ref(), 1000).await.unwrap();
    bench.faults.set_plan(FaultPlan::quiet().with(Fault::Refused, 1.0));
    append(sink.as_ref(), 1000, 1000).await.unwrap();
    let error = sink.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(sink.durable().map(|p| p.offset), Some(1000));
    bench.faults.set_plan(FaultPlan::quiet());
    let next = bench.writer(LogOptions::default()).await;
    assert_eq!(next.ledger().covered(&lineage()).end(), Some(1000));
}

#[tokio::test]
async fn a_full_disk_ends_the_writer_and_loses_nothing() {
    let bench = Bench::new().await;
    let sink = bench.writer(LogOptions::default()).await;
    append(sink.as_ref(), 0, 1000).await.unwrap();
    durable(sink.as_ref(), 1000).await.unwrap();
    bench.faults.script(FaultOp::Put, "log/", 0, Fault::FullDisk);
    append(sink.as_ref(), 1000, 1000).await.unwrap();
    let error = durable(sink.as_ref(), 2000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
    assert!(error.to_string().contains("no space"), "{error}");
    for outcome in [append(sink.as_ref(), 2000, 10).await, sink.close().await, sink.flush_and_wait().await] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Environment);
    }
    let next = bench.writer(LogOptions::default()).await;
    append(next.as_ref(), 1000, 1000).await.unwrap();
    next.close().await.unwrap();
    bench.assert_reads(range(0, 2000)).await;
}

/// Waits for the next position.
trait FlushAndWait {
    async fn flush_and_wait(&self) -> backup_core::Result<()>;
}

impl FlushAndWait for Arc<dyn LogSink> {
    async fn flush_and_wait(&self) -> backup_core::Result<()> {
        self.flush();
        self.advanced(self.durable().as_ref()).await.map(drop)
    }
}

#[tokio::test]
async fn appends_wait_while_too_much_is_on_its_way() {
    let bench = Bench::new().await;
    let sink = bench.writer(LogOptions::default()).await;
    bench.faults.set_plan(FaultPlan::quiet().with(Fault::Refused, 1.0));
    let mut at = 0;
    let most = 64 << 20;
    while at < most {
        let mut one = std::pin::pin!(append(sink.as_ref(), at, 1 << 20));
        if futures::poll!(one.as_mut()).is_pending() {
            break;
        }
        at += 1 << 20;
    }
    assert!((4 << 20..=32 << 20).contains(&at), "{at} bytes were taken");
    // What waited was dropped, and has left nothing behind.
    bench.faults.set_plan(FaultPlan::quiet());
    append(sink.as_ref(), at, 1 << 20).await.unwrap();
    durable(sink.as_ref(), at + (1 << 20)).await.unwrap();
    // More than ever fits goes alone.
    append(sink.as_ref(), at + (1 << 20), most).await.unwrap();
    sink.close().await.unwrap();
    bench.assert_reads(range(0, at + (1 << 20) + most)).await;
}

#[tokio::test(start_paused = true)]
async fn commits_that_come_while_puts_are_on_their_way_share_one() {
    let bench = Bench::new().await;
    let sink = bench.writer(LogOptions::default().flush_after(Duration::ZERO)).await;
    bench.faults.set_plan(FaultPlan::quiet().latency(Duration::from_millis(20)));
    let (before, mut at) = (bench.store.metrics(), 0);
    for _ in 0..1000 {
        append(sink.as_ref(), at, 100).await.unwrap();
        at += 100;
        tokio::task::yield_now().await;
    }
    durable(sink.as_ref(), at).await.unwrap();
    let (objects, done) = (bench.objects().await, bench.store.metrics());
    assert!(objects < 100, "{objects} objects for a thousand commits");
    assert_eq!(done.create.requests - before.create.requests, objects);
    let looks = done.head.requests - before.head.requests;
    assert!(looks <= objects, "{looks} looks at the journal for {objects} objects");
    bench.assert_reads(range(0, at)).await;
}

#[tokio::test]
async fn pieces_are_as_large_as_was_said_and_no_larger() {
    let bench = Bench::new().await;
    let sink = bench.writer(LogOptions::default().flush_bytes(100_000)).await;
    append(sink.as_ref(), 0, 1_000_000).await.unwrap();
    append(sink.as_ref(), 1_000_000, 10).await.unwrap();
    sink.close().await.unwrap();
    let told: Vec<_> = bench.source().await.index(range(0, 1_000_010)).try_collect().await.unwrap();
    let lens: Vec<_> = told.iter().map(|(piece, _)| piece.len()).collect();
    assert_eq!(lens, [vec![100_000; 10], vec![10]].concat());
    bench.assert_reads(range(0, 1_000_010)).await;
}

#[tokio::test]
async fn pages_are_read_without_a_request_for_each() {
    let bench = Bench::new().await;
    let sink = bench.writer(LogOptions::default().flush_bytes(8 << 20)).await;
    append(sink.as_ref(), 0, 8 << 20).await.unwrap();
    sink.close().await.unwrap();
    let source = bench.source().await;
    let before = bench.store.metrics();
    for at in (0..8 << 20).step_by(8192) {
        let page = range(at, 8192);
        let bytes: Vec<Bytes> = source.read(page.clone()).try_collect().await.unwrap();
        assert!(bytes.concat() == log(&page), "{page}");
    }
    let requests = bench.store.metrics().get.requests - before.get.requests;
    assert!(requests <= 12, "{requests} requests for 8 MiB in pages");
    // A long stretch is one request for each object.
    let before = bench.store.metrics();
    bench.assert_reads(range(0, 8 << 20)).await;
    let requests = bench.store.metrics().get.requests - before.get.requests;
    assert!(requests <= 12, "{requests} requests for 8 MiB, opening included");
}

#[tokio::test]
async fn a_damaged_piece_is_an_error_unless_another_holds_the_same() {
    let bench = Bench::new().await;
    let sink = bench.writer(LogOptions::default()).await;
    for at in [0, 1000, 2000] {
        append(sink.as_ref(), at, 1000).await.unwrap();
        sink.flush();
        durable(sink.as_ref(), at + 1000).await.unwrap();
    }
    sink.close().await.unwrap();
    let objects: Vec<_> = bench.store.list("svc/log").try_collect().await.unwrap();
    let middle = objects[1].name.clone();
    let mut bytes = bench.store.get(&middle).await.unwrap().to_vec();
    bytes[200] ^= 1;
    bench.guard.excuse("log/");
    bench.store.delete(&middle).await.unwrap();
    assert!(bench.store.create(&middle, bytes).await.unwrap().is_ours());
    let source = bench.source().await;
    let mut pieces = source.read(range(500, 2000));
    let first = pieces.try_next().await.unwrap().unwrap();
    assert!(first == log(&range(500, 500)));
    let error = pieces.try_next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(error.to_string().contains("0000000002"), "{error}");
    drop(pieces);
    // Somebody has the same log, and imports it.
    let options = LogOptions::of(backup_core::log::LogPurpose::Import);
    let import = bench.writer(options).await;
    append(import.as_ref(), 1000, 900).await.unwrap();
    append(import.as_ref(), 1900, 200).await.unwrap();
    import.close().await.unwrap();
    bench.assert_reads(range(0, 3000)).await;
}

#[tokio::test]
async fn the_word_of_a_quiet_source_is_stored_now_and_then() {
    let bench = Bench::new().await;
    let sink = bench.writer(LogOptions::default().idle_mark(Duration::from_secs(60))).await;
    append(sink.as_ref(), 0, 1000).await.unwrap();
    durable(sink.as_ref(), 1000).await.unwrap();
    assert_eq!(bench.objects().await, 1);
    let since = bench.env.clock().monotonic();
    let quiet = [Mark::AsOf { offset: 1000, at: bench.env.now() }];
    for _ in 0..5 {
        sink.append(range(1000, 0), Bytes::new(), &quiet).await.unwrap();
    }
    while bench.objects().await < 2 {
        tokio::task::yield_now().await;
    }
    assert!(bench.env.clock().monotonic() - since >= Duration::from_secs(60), "it was not in a hurry");
    sink.close().await.unwrap();
    assert_eq!(bench.objects().await, 2);
    assert!(sink.advanced(None).now_or_never().is_some(), "what is durable is told at once");
}
