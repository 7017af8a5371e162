//! What is read is what was written, once, or an error that says what is missing.

use super::stage::{Stage, append, assert_reads, durable_at, import, index, lineage, log, range, read, store};
use crate::conformance::repository::RepositoryHarness;
use crate::engine::RestoreLog;
use crate::error::ErrorKind;
use crate::id::BackupId;
use crate::log::{BackupPoint, LogPurpose, Notation};
use crate::position::LogPosition;

/// Any part of the log can be read, wherever pieces of it begin.
pub async fn pieces_and_parts(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let sink = stage.stream(1).await;
    let mut edges = vec![0x1000];
    for len in [10, 1000, 1 << 20, 17, 2_500_000] {
        let start = edges[edges.len() - 1];
        store(sink.as_ref(), 1, start..start + len, &[]).await;
        edges.push(start + len);
    }
    let source = stage.source().await;
    for start in &edges {
        for end in edges.iter().filter(|end| *end >= start) {
            for (start, end) in [(*start, *end), (start + 1, *end), (*start, end - 1), (start + 3, end - 4)] {
                if start <= end && edges[0] <= start {
                    assert_reads(source.as_ref(), range(1, start..end)).await;
                }
            }
        }
    }
    let all = range(1, edges[0]..edges[edges.len() - 1]);
    let (bytes, objects) = source.weight(&all);
    assert!(bytes > 0 && objects > 0 && objects <= 64, "{bytes} bytes in {objects} objects");
    assert!(source.weight(&range(1, 0x1000..0x1001)).1 <= 1, "one byte lies in one object");
}

/// The same bytes stored twice are one log.
pub async fn overlaps_are_read_once(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let stream = stage.stream(1).await;
    for start in [100, 200, 300] {
        store(stream.as_ref(), 1, start..start + 100, &[]).await;
    }
    let importer = stage.writer(LogPurpose::Import).await;
    for offsets in [100..400, 150..250, 350..500, 50..120] {
        import(importer.as_ref(), offsets).await;
    }
    importer.close().await.expect("a writer can be closed");
    let source = stage.source().await;
    assert_eq!(source.ledger().covered(&lineage(1)).as_slice(), [50..500]);
    for (start, end) in [(50, 500), (100, 400), (119, 351), (399, 400), (250, 350)] {
        assert_reads(source.as_ref(), range(1, start..end)).await;
        let mut reached = start;
        for (piece, _) in index(source.as_ref(), range(1, start..end)).await {
            assert!(piece.start <= reached, "the index leaves out {reached} to {}", piece.start);
            assert!(piece.end > reached || piece.end <= start || piece.start >= end, "{piece} was described before");
            reached = reached.max(piece.end);
        }
        assert!(reached >= end, "the index ends at {reached}");
    }
}

/// Log that is not there is an error behind what is there, and it names both ends of what is missing.
pub async fn holes_are_damage(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    for offsets in [0x1_0000_0000..0x1_0000_0100, 0x1_0000_0200..0x1_0000_0300] {
        // The first range of a writer may begin anywhere.
        let sink = stage.stream(1).await;
        store(sink.as_ref(), 1, offsets, &[]).await;
        sink.close().await.expect("a writer can be closed");
    }
    let source = stage.source().await;
    let holes = source.ledger().holes();
    assert_eq!(holes.len(), 1, "{holes:?}");
    assert_eq!(holes[0].range, range(1, 0x1_0000_0100..0x1_0000_0200), "the hole");
    for (asked, stored, hole) in [
        (0x1_0000_0010..0x1_0000_0280, 0x1_0000_0010..0x1_0000_0100, 0x1_0000_0100..0x1_0000_0200),
        (0x1_0000_0180..0x1_0000_0280, 0x1_0000_0180..0x1_0000_0180, 0x1_0000_0180..0x1_0000_0200),
        (0x1_0000_0280..0x1_0000_0400, 0x1_0000_0280..0x1_0000_0300, 0x1_0000_0300..0x1_0000_0400),
    ] {
        let (bytes, outcome) = read(source.as_ref(), range(1, asked)).await;
        assert_eq!(bytes, log(1, stored), "what comes before the hole");
        let error = outcome.expect_err("there is a hole");
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        for end in [hole.start, hole.end] {
            assert!(error.to_string().contains(&Notation::HexHalves.text(end)), "{end:#x} is named: {error}");
        }
    }
    assert_reads(source.as_ref(), range(1, 0x1_0000_0200..0x1_0000_0300)).await;
}

/// A lineage that was forked from another one goes on where it was forked, and the old one stays as it was.
pub async fn forks_are_followed(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let sink = stage.stream(1).await;
    store(sink.as_ref(), 1, 1000..1600, &[]).await;
    sink.declare(stage.record(2).with_fork(lineage(1), 1500)).await.expect("a successor can be declared");
    append(sink.as_ref(), 2, 1500..2000, &[]).await.expect("a successor may begin anywhere");
    durable_at(sink.as_ref(), 2, 2000).await;
    drop(sink);

    let source = stage.source().await;
    let stop = LogPosition::new(lineage(1), 1200, Notation::HexHalves.text(1200));
    let backup = BackupPoint::new(BackupId::from_bytes([1; 16]), stop, super::stage::at(0));
    let windows = source.ledger().windows([backup]);
    let ends: Vec<_> = windows.iter().map(|w| (w.to.lineage.clone(), w.to.offset, w.orphaned)).collect();
    assert_eq!(ends, [(lineage(2), 2000, false), (lineage(1), 1600, true)], "windows");
    let log = RestoreLog::new(source, windows[0].path.clone());
    assert_eq!(log.path().ranges, [range(1, 1200..1500), range(2, 1500..2000)], "the way of a restore");
    for piece in &log.path().ranges {
        assert_reads(log.source().as_ref(), piece.clone()).await;
    }
}
