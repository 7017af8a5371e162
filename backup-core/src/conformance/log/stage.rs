//! One repository with what a case does to its log all the time.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::TryStreamExt;
use jiff::Timestamp;

use crate::conformance::bytes::assert_same;
use crate::conformance::repository::RepositoryHarness;
use crate::engine::{LogOptions, LogSink, LogSource, Work};
use crate::env::Env;
use crate::error::Result;
use crate::log::{LineageRecord, LogIndex, LogPurpose, LogRange, Mark, Notation};
use crate::position::{Lineage, LogPosition};
use crate::repository::Repository;

/// A fresh repository and the environment of the case.
pub(super) struct Stage<'a> {
    harness: &'a dyn RepositoryHarness,
    pub(super) repository: Arc<dyn Repository>,
    env: Env,
}

pub(super) fn lineage(number: u64) -> Lineage {
    Lineage::new(number.to_string())
}

pub(super) fn range(number: u64, offsets: Range<u64>) -> LogRange {
    LogRange::new(lineage(number), offsets)
}

/// A moment of the source's clock.
pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("cases use moments that exist")
}

/// The bytes of a lineage: what stands at an offset depends on nothing but both.
pub(super) fn log(number: u64, offsets: Range<u64>) -> Bytes {
    let word = |offset: u64| {
        let mut z = (offset / 8).wrapping_add(number << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 31)).to_le_bytes()[(offset % 8) as usize]
    };
    offsets.map(word).collect::<Vec<_>>().into()
}

impl<'a> Stage<'a> {
    pub(super) async fn new(harness: &'a dyn RepositoryHarness) -> Self {
        Self { harness, repository: harness.fresh().await, env: harness.env() }
    }

    pub(super) fn work(&self) -> Work {
        Work::new(self.env.clone())
    }

    /// A description of lineage `number` of the source of the case.
    pub(super) fn record(&self, number: u64) -> LineageRecord {
        LineageRecord::new(lineage(number), "source", Notation::HexHalves, self.env.now())
    }

    /// A further handle, as another process would have it.
    pub(super) async fn reopen(&self) -> Arc<dyn Repository> {
        self.harness.reopen(self.repository.service()).await
    }

    /// Opens a writer as a process of its own.
    pub(super) async fn writer(&self, purpose: LogPurpose) -> Arc<dyn LogSink> {
        let options = LogOptions::of(purpose);
        self.reopen().await.open_log(options, &self.work()).await.expect("a log writer can be opened")
    }

    /// Opens a writer that follows the stream, of the lineages up to `lineages`, each without an origin.
    pub(super) async fn stream(&self, lineages: u64) -> Arc<dyn LogSink> {
        let sink = self.writer(LogPurpose::Stream).await;
        for number in 1..=lineages {
            sink.declare(self.record(number)).await.expect("a lineage can be declared");
        }
        sink
    }

    /// The log as another process sees it.
    pub(super) async fn source(&self) -> Arc<dyn LogSource> {
        self.reopen().await.log().await.expect("the log can be opened")
    }

    /// Panics unless all of `range` is stored as it was written.
    pub(super) async fn assert_stored(&self, range: LogRange) {
        assert_reads(self.source().await.as_ref(), range).await;
    }
}

/// Appends `offsets` of lineage `number` with marks.
pub(super) async fn append(sink: &dyn LogSink, number: u64, offsets: Range<u64>, marks: &[Mark]) -> Result<()> {
    sink.append(range(number, offsets.clone()), log(number, offsets), marks).await
}

/// Appends `offsets` of lineage `number` and waits until they are durable.
pub(super) async fn store(sink: &dyn LogSink, number: u64, offsets: Range<u64>, marks: &[Mark]) {
    append(sink, number, offsets.clone(), marks).await.expect("what goes on where the log ended can be appended");
    durable_at(sink, number, offsets.end).await;
}

/// Waits until the writer's log is durable up to `offset`, and not beyond.
pub(super) async fn durable_at(sink: &dyn LogSink, number: u64, offset: u64) -> LogPosition {
    let mut known = sink.durable();
    loop {
        if let Some(position) = known.as_ref().filter(|p| p.lineage == lineage(number) && p.offset >= offset) {
            assert_eq!(position.offset, offset, "what is durable ends where the log ends");
            return position.clone();
        }
        sink.flush();
        known = sink.advanced(known.as_ref()).await.expect("the log becomes durable");
    }
}

/// Appends `offsets` of lineage 1 to a writer that imports, and waits until they are durable. Its positions come in any order.
pub(super) async fn import(sink: &dyn LogSink, offsets: Range<u64>) {
    append(sink, 1, offsets.clone(), &[]).await.expect("a writer that imports may append anywhere");
    let mut known = sink.durable();
    while known.as_ref().is_none_or(|position| position.offset != offsets.end) {
        sink.flush();
        known = sink.advanced(known.as_ref()).await.expect("the log becomes durable");
    }
}

/// The bytes of `range`, and whether all of it came.
pub(super) async fn read(source: &dyn LogSource, range: LogRange) -> (Vec<u8>, Result<()>) {
    let (mut bytes, mut pieces) = (Vec::new(), source.read(range));
    loop {
        match pieces.try_next().await {
            Ok(Some(piece)) => {
                assert!(!piece.is_empty() && piece.len() <= 1 << 20, "a piece of {} bytes", piece.len());
                bytes.extend_from_slice(&piece);
            }
            Ok(None) => return (bytes, Ok(())),
            Err(error) => return (bytes, Err(error)),
        }
    }
}

/// Panics unless all of `range` can be read and is what was written.
pub(super) async fn assert_reads(source: &dyn LogSource, range: LogRange) {
    let (bytes, outcome) = read(source, range.clone()).await;
    outcome.unwrap_or_else(|error| panic!("{range} cannot be read: {error}"));
    let number = range.lineage.as_str().parse().expect("cases name lineages by numbers");
    assert_same(&bytes, &log(number, range.offsets()), &range);
}

pub(super) async fn index(source: &dyn LogSource, range: LogRange) -> Vec<(LogRange, LogIndex)> {
    source.index(range).try_collect().await.expect("the index can be read")
}
