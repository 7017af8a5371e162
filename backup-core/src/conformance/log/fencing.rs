//! One writer follows the stream at a time.

use super::stage::{Stage, append, durable_at, import, lineage, range, store};
use crate::conformance::repository::RepositoryHarness;
use crate::engine::LogSink;
use crate::error::{Error, ErrorKind};
use crate::log::LogPurpose;

/// Each writer has a number of its own, and the catalog says what it does and where it ended.
pub async fn writers_are_known(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let purposes = [LogPurpose::Stream, LogPurpose::Import, LogPurpose::Stream];
    for (number, purpose) in purposes.into_iter().enumerate() {
        let sink = stage.writer(purpose).await;
        sink.declare(stage.record(1)).await.expect("a lineage can be declared");
        let start = 100 * number as u64;
        store(sink.as_ref(), 1, start..start + 100, &[]).await;
        let catalog = stage.repository.catalog().await.expect("the catalog can be read");
        let writer = catalog.log().writer(sink.epoch()).expect("an open writer is in the catalog");
        assert_eq!((writer.purpose, &writer.ends), (purpose, &None), "an open writer");
        sink.close().await.expect("a writer can be closed");
        let catalog = stage.repository.catalog().await.expect("the catalog can be read");
        let writer = catalog.log().writer(sink.epoch()).expect("a closed writer is in the catalog");
        let ends = writer.ends.as_ref().expect("a closed writer has ends");
        assert_eq!(ends.get(&lineage(1)), Some(&(start + 100)), "where it ended");
    }
    let catalog = stage.repository.catalog().await.expect("the catalog can be read");
    let found: Vec<_> = catalog.log().writers().map(|(_, writer)| writer.purpose).collect();
    assert_eq!(found, purposes, "writers, oldest first");
    stage.assert_stored(range(1, 0..300)).await;
}

async fn goes_on(sink: &dyn LogSink, offsets: std::ops::Range<u64>) -> Result<(), Error> {
    let known = sink.durable();
    append(sink, 1, offsets, &[]).await?;
    sink.flush();
    sink.advanced(known.as_ref()).await.map(drop)
}

/// Once a later writer was opened, the older one acknowledges nothing more and ends with a conflict. The later one goes on
/// exactly behind what the older one has acknowledged, or behind what of it was stored besides.
pub async fn newer_writers_fence_older(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let older = stage.stream(1).await;
    store(older.as_ref(), 1, 1000..2000, &[]).await;
    let newer = stage.stream(1).await;
    assert!(older.epoch() < newer.epoch(), "writers are numbered in order");
    assert_eq!(newer.ledger().covered(&lineage(1)).as_slice(), [1000..2000], "what the newer writer finds");

    let error = goes_on(older.as_ref(), 2000..2100).await.expect_err("the older writer was fenced");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(older.durable().map(|p| p.offset), Some(2000), "what the older writer has acknowledged");
    let errors = [
        append(older.as_ref(), 1, 2100..2200, &[]).await.map(drop),
        older.advanced(older.durable().as_ref()).await.map(drop),
        older.gap(range(1, 2100..2200), "lost").await,
        older.close().await,
    ];
    for outcome in errors {
        let error = outcome.expect_err("the older writer has ended");
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }

    store(newer.as_ref(), 1, 2000..2050, &[]).await;
    let ledger = stage.source().await.ledger();
    assert_eq!(ledger.covered(&lineage(1)).as_slice(), [1000..2050], "what a fenced writer stored does not count");
    assert!(ledger.holes().is_empty(), "holes");
    stage.assert_stored(range(1, 1000..2050)).await;
    let catalog = stage.repository.catalog().await.expect("the catalog can be read");
    let ends = catalog.log().writer(older.epoch()).and_then(|writer| writer.ends.clone());
    assert_eq!(ends.and_then(|ends| ends.get(&lineage(1)).copied()), Some(2000), "where the older writer ended");
}

/// Somebody who stores pieces that others collected disturbs nobody, and may store them in any order.
pub async fn imports_fence_nobody(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let stream = stage.stream(1).await;
    store(stream.as_ref(), 1, 1000..1100, &[]).await;
    let first = stage.writer(LogPurpose::Import).await;
    let second = stage.writer(LogPurpose::Import).await;
    import(second.as_ref(), 500..800).await;
    import(first.as_ref(), 900..1000).await;
    store(stream.as_ref(), 1, 1100..1200, &[]).await;
    import(first.as_ref(), 800..950).await;
    // Opening a stream fences no import either.
    let next = stage.stream(1).await;
    import(first.as_ref(), 100..200).await;
    store(next.as_ref(), 1, 1200..1300, &[]).await;
    for sink in [first, second, next] {
        sink.close().await.expect("a writer can be closed");
    }
    let ledger = stage.source().await.ledger();
    assert_eq!(ledger.covered(&lineage(1)).as_slice(), [100..200, 500..1300]);
    stage.assert_stored(range(1, 100..200)).await;
    stage.assert_stored(range(1, 500..1300)).await;
}

/// A writer that ends without a word has lost at most what it never called durable, and the next one goes on at its exact end.
pub async fn dropped_writers_lose_nothing_durable(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let mut at = 0x7000_0000;
    let begin = at;
    for round in 1..5 {
        let sink = stage.stream(1).await;
        let ledger = sink.ledger();
        let end = ledger.covered(&lineage(1)).end().unwrap_or(at);
        assert!(end >= at, "round {round}: what was durable up to {at} is stored up to {end}");
        stage.assert_stored(range(1, begin..end)).await;
        append(sink.as_ref(), 1, end..end + 1000, &[]).await.expect("it goes on where the log ended");
        at = durable_at(sink.as_ref(), 1, end + 1000).await.offset;
        append(sink.as_ref(), 1, at..at + 333, &[]).await.expect("it goes on where the log ended");
        drop(sink);
    }
    let source = stage.source().await;
    let covered = source.ledger().covered(&lineage(1)).as_slice().to_vec();
    assert!(covered.len() == 1 && covered[0].start == begin && covered[0].end >= at, "{covered:?}");
}

/// A closed writer stays closed.
pub async fn closed_writers_take_nothing(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let sink = stage.stream(1).await;
    store(sink.as_ref(), 1, 0..100, &[]).await;
    sink.close().await.expect("a writer can be closed");
    sink.close().await.expect("and again");
    let durable = sink.durable();
    assert_eq!(durable.as_ref().map(|p| p.offset), Some(100), "what is durable after the end");
    let errors = [
        append(sink.as_ref(), 1, 100..200, &[]).await,
        sink.gap(range(1, 100..200), "lost").await,
        sink.declare(stage.record(2)).await,
        sink.advanced(durable.as_ref()).await.map(drop),
    ];
    for outcome in errors {
        let error = outcome.expect_err("the writer was closed");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    let ledger = stage.source().await.ledger();
    assert_eq!((ledger.covered(&lineage(1)).as_slice(), ledger.lineages().count()), (&[0..100][..], 1));
}
