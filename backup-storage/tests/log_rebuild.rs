//! The log after the catalog was lost: found again by its pieces.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use backup_core::engine::{LogOptions, LogSink, Work};
use backup_core::env::Env;
use backup_core::log::{Ledger, LineageRecord, LogEpoch, LogPurpose, LogRange, Notation};
use backup_core::repository::{Repository as _, VerifyLevel};
use backup_core::{ErrorKind, Lineage, ServiceId};
use backup_crypto::{Identity, RawKey};
use backup_storage::fault::{FaultPlan, FaultStore};
use backup_storage::store::{ObjectName, Store};
use backup_storage::{CompactLog, CreateOptions, Rebuilt, Repository, RepositorySettings};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;

struct Bench {
    store: Store,
    env: Env,
}

fn lineage(number: u64) -> Lineage {
    Lineage::new(number.to_string())
}

fn range(number: u64, start: u64, end: u64) -> LogRange {
    LogRange::new(lineage(number), start..end)
}

fn log(range: &LogRange) -> Bytes {
    let number: u64 = range.lineage.as_str().parse().unwrap();
    range
        .offsets()
        .map(|offset| (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number) >> 51) as u8)
        .collect()
}

impl Bench {
    async fn new() -> Self {
        let env = Env::seeded(5);
        let store = Store::memory().with_env(env.clone());
        Self::over(store, env).await
    }

    async fn over(store: Store, env: Env) -> Self {
        let bench = Self { store, env };
        let recipients = vec![RawKey::take(&mut [1; 32]).into()];
        let (options, settings) = (CreateOptions::default(), RepositorySettings::default().workers(1));
        Repository::create(&bench.store, service(), recipients, options, &settings, bench.env.clone()).await.unwrap();
        bench
    }

    async fn repository(&self) -> Repository {
        let identity = Identity::from(RawKey::take(&mut [1; 32]));
        let settings = RepositorySettings::default().workers(1);
        Repository::open(&self.store, service(), identity, &settings, self.env.clone()).await.unwrap()
    }

    fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    async fn writer(&self, purpose: LogPurpose) -> Arc<dyn LogSink> {
        self.repository().await.open_log(LogOptions::of(purpose), &self.work()).await.unwrap()
    }

    async fn declare(&self, sink: &dyn LogSink, number: u64) {
        self.env.clock().sleep(Duration::from_secs(1)).await;
        let record = LineageRecord::new(lineage(number), "source", Notation::HexHalves, self.env.now());
        let record = record.with_fact("number", number.to_string());
        let record = if number == 1 { record } else { record.with_fork(lineage(number - 1), 1000) };
        sink.declare(record).await.unwrap();
    }

    async fn ledger(&self) -> Arc<Ledger> {
        self.repository().await.log().await.unwrap().ledger()
    }

    async fn objects(&self, folder: &str) -> Vec<ObjectName> {
        self.store.list(&format!("svc/{folder}")).map_ok(|object| object.name).try_collect().await.unwrap()
    }

    async fn lose_catalog(&self) {
        for name in self.objects("catalog").await {
            self.store.delete(&name).await.unwrap();
        }
        assert_eq!(self.repository().await.catalog().await.unwrap_err().kind(), ErrorKind::Damaged);
    }

    async fn rebuild(&self) -> Rebuilt {
        self.repository().await.rebuild_catalog(&self.work()).await.unwrap()
    }

    async fn assert_reads(&self, range: LogRange) {
        let source = self.repository().await.log().await.unwrap();
        let pieces: Vec<Bytes> = source.read(range.clone()).try_collect().await.unwrap();
        assert!(pieces.concat() == log(&range), "{range}");
    }

    /// Two lineages by a writer that was closed, one that has died, and one that has imported.
    async fn captured() -> Self {
        let bench = Self::new().await;
        let first = bench.writer(LogPurpose::Stream).await;
        bench.declare(first.as_ref(), 1).await;
        for start in [0, 400, 800] {
            append(first.as_ref(), range(1, start, start + 400)).await;
        }
        first.close().await.unwrap();
        let second = bench.writer(LogPurpose::Stream).await;
        bench.declare(second.as_ref(), 2).await;
        append(second.as_ref(), range(2, 1000, 1500)).await;
        append(second.as_ref(), range(2, 1500, 2000)).await;
        let import = bench.writer(LogPurpose::Import).await;
        append(import.as_ref(), range(1, 5000, 5100)).await;
        import.close().await.unwrap();
        bench
    }
}

fn service() -> ServiceId {
    ServiceId::new("svc").unwrap()
}

async fn append(sink: &dyn LogSink, range: LogRange) {
    let bytes = log(&range);
    sink.append(range.clone(), bytes, &[]).await.unwrap();
    sink.flush();
    let mut known = sink.durable();
    while known.as_ref().is_none_or(|k| k.lineage != range.lineage || k.offset != range.end) {
        known = sink.advanced(known.as_ref()).await.unwrap();
    }
}

#[tokio::test]
async fn the_log_is_found_again_and_goes_on() {
    let bench = Bench::captured().await;
    let before = bench.ledger().await;
    // Still at work when the catalog is lost.
    let old = bench.writer(LogPurpose::Stream).await;
    append(old.as_ref(), range(2, 2000, 2100)).await;
    bench.lose_catalog().await;
    let rebuilt = bench.rebuild().await;
    assert!(rebuilt.skipped.is_empty(), "{:?}", rebuilt.skipped);
    assert_eq!(rebuilt.log_writers, 4);
    assert_eq!(rebuilt.lineages, before.lineages().cloned().collect::<Vec<_>>());
    let after = bench.ledger().await;
    assert_eq!(after.covered(&lineage(1)), before.covered(&lineage(1)));
    assert_eq!(after.covered(&lineage(2)).as_slice(), std::slice::from_ref(&(1000..2100)));
    assert_eq!(after.trunk(), Some(&lineage(2)));
    let catalog = bench.repository().await.catalog().await.unwrap();
    let purposes: Vec<_> = catalog.log().writers().take(4).map(|(_, writer)| writer.purpose).collect();
    use LogPurpose::{Import, Stream};
    assert_eq!(purposes, [Stream, Stream, Import, Stream]);
    assert!(catalog.log().writers().all(|(_, writer)| writer.ends.is_some()));

    // The old writer finds out, and what it still stored does not count.
    old.append(range(2, 2100, 2200), log(&range(2, 2100, 2200)), &[]).await.unwrap();
    let error = old.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(bench.objects("log/2/00000004").await.len(), 2);
    let next = bench.writer(Stream).await;
    assert!(next.epoch() > LogEpoch(4), "a number is used once: {}", next.epoch());
    assert_eq!(next.ledger().covered(&lineage(2)).end(), Some(2100));
    append(next.as_ref(), range(2, 2100, 3000)).await;
    next.close().await.unwrap();
    for held in [range(1, 0, 1200), range(2, 1000, 3000), range(1, 5000, 5100)] {
        bench.assert_reads(held).await;
    }
    let report = bench.repository().await.verify(VerifyLevel::Full, &bench.work()).await.unwrap();
    assert!(report.is_sound() && report.garbage_objects == 1, "{report:?}");
    // And once more, with what was rebuilt.
    let before = bench.ledger().await;
    bench.lose_catalog().await;
    let rebuilt = bench.rebuild().await;
    assert_eq!((rebuilt.log_writers, rebuilt.skipped.len()), (5, 0), "{rebuilt:?}");
    assert_eq!(bench.ledger().await, before);
}

#[tokio::test]
async fn a_compacted_log_is_found_again() {
    let bench = Bench::captured().await;
    let last = bench.writer(LogPurpose::Stream).await;
    last.close().await.unwrap();
    let before = bench.ledger().await;
    let options = CompactLog::default().least_age(Duration::ZERO);
    let done = bench.repository().await.compact_log(&options, &bench.work()).await.unwrap();
    // The last part of lineage 1 was imported, and is alone.
    assert_eq!((done.written, done.objects_after), (2, 4), "{done:?}");
    bench.lose_catalog().await;
    let rebuilt = bench.rebuild().await;
    assert!(rebuilt.skipped.is_empty(), "{:?}", rebuilt.skipped);
    assert_eq!(bench.ledger().await, before);
    bench.assert_reads(range(2, 1000, 2000)).await;
    let again = bench.repository().await.compact_log(&options, &bench.work()).await.unwrap();
    assert_eq!(again.objects_after, 4, "{again:?}");
}

#[tokio::test]
async fn what_nothing_tells_of_is_named() {
    let bench = Bench::captured().await;
    // The only piece that described lineage 2, and the first one of the first writer, which others describe, too.
    let names: Vec<_> =
        [bench.objects("log/2").await[0].clone(), bench.objects("log/1/00000001").await[0].clone()].into();
    for name in &names {
        let mut bytes = bench.store.get(name).await.unwrap().to_vec();
        bytes[50] ^= 1;
        bench.store.delete(name).await.unwrap();
        assert!(bench.store.create(name, bytes).await.unwrap().is_ours());
    }
    bench.lose_catalog().await;
    let rebuilt = bench.rebuild().await;
    let skipped: Vec<_> = rebuilt.skipped.iter().map(|s| format!("svc/{}", s.object)).collect();
    assert_eq!(skipped, [names[1].as_str(), names[0].as_str(), "svc/log/2"], "{:?}", rebuilt.skipped);
    assert_eq!((rebuilt.log_writers, rebuilt.lineages.len()), (3, 1));
    let ledger = bench.ledger().await;
    assert!(ledger.lineage(&lineage(2)).is_none());
    assert_eq!(ledger.covered(&lineage(1)).end(), Some(5100));
    bench.assert_reads(range(1, 400, 1200)).await;
    // Whoever knows the lineage says so, and all of it is there again.
    let sink = bench.writer(LogPurpose::Stream).await;
    bench.declare(sink.as_ref(), 2).await;
    sink.close().await.unwrap();
    assert_eq!(bench.ledger().await.covered(&lineage(2)).as_slice(), std::slice::from_ref(&(1000..2000)));
    bench.assert_reads(range(2, 1500, 2000)).await;
}

#[tokio::test]
async fn a_name_alone_uses_up_no_numbers() {
    let bench = Bench::captured().await;
    let name = ObjectName::new("svc/log/1/4294967000/0000000001-0000000000000000-0000000000001000").unwrap();
    assert!(bench.store.create(&name, "not a piece of log").await.unwrap().is_ours());
    let before = bench.ledger().await;
    bench.lose_catalog().await;
    let rebuilt = bench.rebuild().await;
    assert_eq!(rebuilt.skipped.len(), 1, "{:?}", rebuilt.skipped);
    assert_eq!(bench.ledger().await, before, "it does not count either");
    let next = bench.writer(LogPurpose::Stream).await;
    assert!(next.epoch() < LogEpoch(100), "{}", next.epoch());
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_while_the_catalog_is_rebuilt_counts() {
    let mut later = 0;
    for seed in 0..40 {
        let faults = FaultStore::new(Arc::new(InMemory::new()), seed, FaultPlan::quiet().yields(8));
        let env = Env::seeded(seed);
        let store = Store::from_object_store(Arc::new(faults)).with_env(env.clone());
        let bench = Bench::over(store, env).await;
        let sink = bench.writer(LogPurpose::Stream).await;
        bench.declare(sink.as_ref(), 1).await;
        append(sink.as_ref(), range(1, 0, 100)).await;
        let writing = async {
            let mut end = 100;
            loop {
                let next = range(1, end, end + 100);
                sink.append(next.clone(), log(&next), &[]).await?;
                sink.flush();
                let known = sink.durable();
                sink.advanced(known.as_ref()).await?;
                end += 100;
            }
        };
        let rebuilding = async {
            while sink.durable().is_none_or(|position| position.offset < 200 + seed % 5 * 100) {
                tokio::task::yield_now().await;
            }
            bench.rebuild().await
        };
        let (written, rebuilt): (backup_core::Result<()>, Rebuilt) = futures::join!(writing, rebuilding);
        assert_eq!(written.unwrap_err().kind(), ErrorKind::Conflict, "seed {seed}");
        assert_eq!((rebuilt.log_writers, rebuilt.skipped.len()), (1, 0), "seed {seed}: {rebuilt:?}");
        let promised = sink.durable().unwrap().offset;
        let end = bench.ledger().await.covered(&lineage(1)).end();
        assert!(end >= Some(promised), "seed {seed}: {promised} was promised, {end:?} is known");
        bench.assert_reads(range(1, 0, promised)).await;
        later += u64::from(promised > 200 + seed % 5 * 100);
    }
    assert!(later > 10, "in {later} cases something was acknowledged meanwhile");
}
