//! How fast a log is followed: one core, in pieces as a server sends them.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use backup_postgres::changes::ChangeMap;
use backup_postgres::page::Fork;
use backup_postgres::wal::{
    Event, Record, RelationId, Rmgr, SampleLog, SampleRecord, SegmentSize, WalFormat, WalReader,
};
use backup_postgres::{Lsn, TimelineId};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const START: Lsn = Lsn(16 << 20);
const LENGTH: u64 = 64 << 20;
/// What a server sends at once.
const PIECE: usize = 128 << 10;

fn format() -> WalFormat {
    WalFormat::new(17, SegmentSize::DEFAULT, 7, TimelineId::FIRST).unwrap()
}

/// Transactions of a few small changes each, as pgbench makes them; with images of pages as after a checkpoint.
fn log(images: bool) -> Bytes {
    let mut log = SampleLog::new(&format(), START);
    let mut xid = 700;
    while log.end().0 < START.0 + LENGTH {
        xid += 1;
        for block in 0..6 {
            let relation = RelationId { tablespace: 1663, database: 5, number: 16384 + block };
            let mut record = SampleRecord::new(Rmgr::HEAP, 0x20)
                .xid(xid)
                .main([7; 14])
                .block(relation, Fork::Main, xid % 9000)
                .data([9; 60]);
            if images && block == 0 {
                record = record.image([5; 7000], None);
            }
            log.append(&record);
        }
        log.append(&SampleRecord::commit(xid, i64::from(xid)));
    }
    log.pages()
}

fn follow(log: &Bytes, checksums: bool, mut each: impl FnMut(&Record)) {
    let mut reader = WalReader::new(format(), START).unwrap();
    if !checksums {
        reader = reader.without_checksums();
    }
    let mut left = log.clone();
    while !left.is_empty() {
        reader.push(left.split_to(PIECE.min(left.len())));
        while let Some(record) = reader.next().unwrap() {
            each(&record);
        }
    }
}

fn follow_all(c: &mut Criterion) {
    for (name, images) in [("small records", false), ("with images", true)] {
        let log = log(images);
        let mut group = c.benchmark_group("wal");
        group.throughput(Throughput::Bytes(log.len() as u64));
        group.sample_size(10);
        group.bench_function(BenchmarkId::new("commits", name), |b| {
            b.iter(|| {
                let mut commits = 0;
                follow(&log, true, |record| {
                    commits += u64::from(matches!(record.event().unwrap(), Some(Event::Commit(_))));
                });
                black_box(commits)
            });
        });
        group.bench_function(BenchmarkId::new("commits without checksums", name), |b| {
            b.iter(|| {
                let mut commits = 0;
                follow(&log, false, |record| {
                    commits += u64::from(matches!(record.event().unwrap(), Some(Event::Commit(_))));
                });
                black_box(commits)
            });
        });
        group.bench_function(BenchmarkId::new("map of changes", name), |b| {
            b.iter(|| {
                let mut map = ChangeMap::new(START);
                follow(&log, true, |record| map.add(record));
                assert_eq!(map.doubt(), None);
                black_box(map)
            });
        });
        group.bench_function(BenchmarkId::new("blocks", name), |b| {
            b.iter(|| {
                let mut blocks = 0;
                follow(&log, true, |record| blocks += record.decode().unwrap().blocks.len());
                black_box(blocks)
            });
        });
    }
}

criterion_group!(benches, follow_all);
criterion_main!(benches);
