//! Moments and names come back with the log.

use std::sync::Arc;

use futures::stream::TryStreamExt;

use super::stage::{Stage, append, at, durable_at, index, lineage, range, store};
use crate::conformance::repository::RepositoryHarness;
use crate::engine::RestoreLog;
use crate::log::{LogPurpose, Mark, Notation};
use crate::position::LogPosition;

fn commit(offset: u64, second: i64) -> Mark {
    Mark::Commit { offset, at: at(second) }
}

fn name(offset: u64, name: &str, second: i64) -> Mark {
    Mark::Name { offset, name: name.to_owned(), at: at(second) }
}

fn note(offset: u64, text: &'static str) -> Mark {
    Mark::Note { offset, bytes: text.into() }
}

fn position(offset: u64) -> LogPosition {
    LogPosition::new(lineage(1), offset, Notation::HexHalves.text(offset))
}

/// Moments and names are found again, wherever pieces of log begin and end.
pub async fn indices_come_back(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let sink = stage.stream(1).await;
    append(sink.as_ref(), 1, 0..100, &[commit(40, 10), commit(60, 8), commit(100, 20)]).await.expect("it is the first");
    append(sink.as_ref(), 1, 100..200, &[name(150, "before", 25), commit(160, 30), note(170, "first")])
        .await
        .expect("it goes on");
    durable_at(sink.as_ref(), 1, 200).await;
    // One range that is larger than a piece.
    let marks = [commit(300, 40), name(3_000_000, "far", 47), commit(3_000_100, 50), name(9_000_200, "before", 60)];
    let notes = [note(5_000_000, "second"), note(9_000_200, "third"), note(9_000_200, "fourth")];
    let marks = [&marks[..], &notes].concat();
    store(sink.as_ref(), 1, 200..9_000_200, &marks).await;
    sink.close().await.expect("a writer can be closed");

    let source = stage.source().await;
    let path = source.ledger().path(&position(0), &lineage(1)).expect("it begins there");
    let log = RestoreLog::new(source, path);
    for (second, commit) in [(0, 40), (9, 40), (15, 100), (29, 160), (30, 300), (45, 3_000_100)] {
        let found = log.first_later(at(second)).await.expect("the index can be read");
        let (before, until) = found.unwrap_or_else(|| panic!("no commit later than second {second}"));
        let (before, until) = (before.offset, until.offset);
        assert!(before < commit && commit <= until, "second {second}: {commit} is not in {before} to {until}");
        assert!(until - before <= 100 || commit > 200, "second {second}: {before} to {until} is hardly a help");
    }
    assert_eq!(log.first_later(at(50)).await.expect("the index can be read"), None, "no commit is later");
    let named = |found: Vec<(LogPosition, _)>| found.into_iter().map(|(p, at)| (p.offset, at)).collect::<Vec<_>>();
    let before = named(log.named("before").await.expect("the index can be read"));
    assert_eq!(before, [(150, at(25)), (9_000_200, at(60))], "places of one name");
    assert_eq!(named(log.named("far").await.expect("the index can be read")), [(3_000_000, at(47))]);
    assert_eq!(named(log.named("near").await.expect("the index can be read")), []);
    assert_eq!(log.known_until().await.expect("the index can be read"), Some(at(50)), "the last commit");
    let mut notes = Vec::new();
    let mut pieces = log.source().index(range(1, 0..9_000_200));
    while let Some((_, index)) = pieces.try_next().await.expect("the index can be read") {
        notes.extend(
            index.notes.into_iter().map(|note| (note.offset, String::from_utf8_lossy(&note.bytes).into_owned())),
        );
    }
    drop(pieces);
    let expected = [(170, "first"), (5_000_000, "second"), (9_000_200, "third"), (9_000_200, "fourth")];
    assert_eq!(notes, expected.map(|(offset, text)| (offset, text.to_owned())), "what the engine says to itself");
    let until = RestoreLog::new(Arc::clone(log.source()), log.path().until(&lineage(1), 200));
    assert_eq!(until.known_until().await.expect("the index can be read"), Some(at(30)), "the last commit before");
}

/// A word of the source about a place that the log has not come to counts when it has.
pub async fn words_about_later_places_wait(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let sink = stage.stream(1).await;
    let ahead = [commit(90, 10), Mark::AsOf { offset: 150, at: at(99) }];
    store(sink.as_ref(), 1, 0..100, &ahead).await;
    let known = async || {
        let source = stage.source().await;
        let path = source.ledger().path(&position(0), &lineage(1)).expect("it begins there");
        RestoreLog::new(source, path).known_until().await.expect("the index can be read")
    };
    assert_eq!(known().await, Some(at(10)), "the log ends before the place");
    store(sink.as_ref(), 1, 100..150, &[]).await;
    assert_eq!(known().await, Some(at(99)), "the log has come to the place");
}

/// A source at which nothing happens says so, and its restorable window goes on.
pub async fn quiet_sources_stay_fresh(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let sink = stage.stream(1).await;
    store(sink.as_ref(), 1, 0..100, &[commit(100, 10)]).await;
    for second in [60, 120, 180] {
        let quiet = [Mark::AsOf { offset: 100, at: at(second) }];
        append(sink.as_ref(), 1, 100..100, &quiet).await.expect("a word about the end can be appended");
        sink.flush();
    }
    assert_eq!(sink.durable().map(|p| p.offset), Some(100), "no byte was appended");
    sink.close().await.expect("what waits is stored at the end");
    let source = stage.source().await;
    assert_eq!(source.ledger().covered(&lineage(1)).as_slice(), [0..100]);
    for from in [0, 50, 100] {
        let path = source.ledger().path(&position(from), &lineage(1)).expect("it begins there");
        let known = RestoreLog::new(Arc::clone(&source), path).known_until().await.expect("the index can be read");
        assert_eq!(known, Some(at(180)), "from {from}: the source's last word");
    }
    let words = index(source.as_ref(), range(1, 100..100)).await;
    assert!(words.iter().filter(|(piece, _)| piece.is_empty()).count() <= 1, "the last word is enough: {words:?}");
    // The next writer goes on as if nothing had been said.
    let next = stage.writer(LogPurpose::Stream).await;
    assert_eq!(next.ledger().covered(&lineage(1)).end(), Some(100));
    store(next.as_ref(), 1, 100..130, &[commit(130, 200)]).await;
    stage.assert_stored(range(1, 0..130)).await;
}
