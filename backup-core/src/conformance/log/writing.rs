//! What a writer takes, and when it calls it durable.

use super::stage::{Stage, append, assert_reads, durable_at, index, lineage, log, range, read, store};
use crate::conformance::repository::RepositoryHarness;
use crate::error::ErrorKind;
use crate::log::{LogPurpose, Mark, Notation};
use crate::position::Lineage;

/// A repository without a log has an empty one, and a writer that writes nothing leaves nothing.
pub async fn empty_log(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    for round in 0..2 {
        let source = stage.source().await;
        assert_eq!(source.ledger().lineages().count(), round, "lineages");
        assert_eq!((source.ledger().holes(), source.ledger().windows([])), (vec![], vec![]), "nothing can be said");
        assert_eq!(index(source.as_ref(), range(1, 0..100)).await, [], "an index of nothing");
        assert_eq!(source.weight(&range(1, 0..100)), (0, 0), "the weight of nothing");
        let (bytes, outcome) = read(source.as_ref(), range(1, 5..100)).await;
        let error = outcome.expect_err("nothing is stored");
        assert_eq!((bytes.len(), error.kind()), (0, ErrorKind::Damaged), "{error}");
        assert_reads(source.as_ref(), range(1, 5..5)).await;
        let sink = stage.stream(1).await;
        assert_eq!(sink.durable(), None, "what is durable before anything was appended");
        sink.close().await.expect("a writer that has written nothing can be closed");
    }
}

/// What was appended in pieces of any size comes back, after the writer was closed as before.
pub async fn contents_of_every_size(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let sink = stage.stream(1).await;
    let mut at = 0x1_0000_0123;
    for len in [1, 7, 8192, 1 << 20, 100_001, 3 << 20, 1, (1 << 20) + 1] {
        append(sink.as_ref(), 1, at..at + len, &[]).await.expect("it goes on where the log ended");
        at += len;
    }
    let durable = durable_at(sink.as_ref(), 1, at).await;
    assert_eq!(durable.text, Notation::HexHalves.text(at), "the position in the notation of its lineage");
    assert_reads(sink.source().as_ref(), range(1, 0x1_0000_0123..at)).await;
    stage.assert_stored(range(1, 0x1_0000_0123..at)).await;
    // What was queued when the writer is closed is stored, too.
    append(sink.as_ref(), 1, at..at + 50, &[]).await.expect("it goes on where the log ended");
    sink.close().await.expect("a writer can be closed");
    assert_eq!(sink.durable().map(|p| p.offset), Some(at + 50), "what is durable at the end");
    stage.assert_stored(range(1, 0x1_0000_0123..at + 50)).await;
    let ledger = stage.source().await.ledger();
    assert_eq!(ledger.covered(&lineage(1)).as_slice(), [0x1_0000_0123..at + 50], "nothing else is stored");
    assert_eq!(*sink.ledger(), *ledger, "what the writer knows of itself");
}

/// Durable only grows, and whenever it does, another process can read everything before it.
pub async fn durable_is_stored(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let sink = stage.stream(2).await;
    let mut known = sink.durable();
    for (number, end) in [(1, 400_u64), (2, 900)] {
        let mut at = 100;
        while known.as_ref().is_none_or(|p| p.lineage != lineage(number) || p.offset < end) {
            if at < end {
                append(sink.as_ref(), number, at..at + 100, &[]).await.expect("it goes on where the log ended");
                at += 100;
            }
            sink.flush();
            let next = sink.advanced(known.as_ref()).await.expect("the log becomes durable");
            let next = next.expect("what is durable stays durable");
            if let Some(before) = known.as_ref().filter(|before| before.lineage == next.lineage) {
                assert!(before.offset < next.offset, "durable went from {before} to {next}");
            }
            if next.lineage == lineage(2) {
                stage.assert_stored(range(1, 100..400)).await;
            }
            let number = next.lineage.as_str().parse().expect("cases name lineages by numbers");
            stage.assert_stored(range(number, 100..next.offset)).await;
            let ledger = sink.ledger();
            assert!(ledger.covered(&next.lineage).contains(&(100..next.offset)), "what the writer knows of itself");
            known = Some(next);
        }
    }
}

/// The log goes on exactly where it ended. What does not is refused, with both ends, and changes nothing.
pub async fn ranges_must_meet(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let sink = stage.stream(2).await;
    store(sink.as_ref(), 1, 3000..4000, &[]).await;
    for start in [4001, 3999, 3000, 9000] {
        let error = append(sink.as_ref(), 1, start..start + 10, &[]).await.expect_err("it does not go on");
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        let text = error.to_string();
        let both = ["4000", &start.to_string()].iter().all(|end| text.contains(*end));
        let notation = [4000, start].iter().all(|end| text.contains(&Notation::HexHalves.text(*end)));
        assert!(both || notation, "the message names both ends: {text}");
    }
    assert_eq!(sink.durable().map(|p| p.offset), Some(4000), "what is durable after refusals");
    store(sink.as_ref(), 2, 70..80, &[]).await;
    store(sink.as_ref(), 1, 4000..4100, &[]).await;
    stage.assert_stored(range(1, 3000..4100)).await;
    stage.assert_stored(range(2, 70..80)).await;
    assert_eq!(stage.source().await.ledger().covered(&lineage(1)).as_slice(), [3000..4100]);
}

/// What makes no sense is refused and changes nothing.
pub async fn odd_ranges_are_refused(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let sink = stage.stream(1).await;
    store(sink.as_ref(), 1, 10..20, &[]).await;
    let undeclared = append(sink.as_ref(), 2, 0..10, &[]).await;
    let short = sink.append(range(1, 20..30), log(1, 20..29), &[]).await;
    let stray = |offset| Mark::Commit { offset, at: super::stage::at(0) };
    let before = append(sink.as_ref(), 1, 20..30, &[stray(19)]).await;
    let behind = append(sink.as_ref(), 1, 20..30, &[stray(30), stray(31)]).await;
    for refused in [undeclared, short, before, behind] {
        let error = refused.expect_err("it makes no sense");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    store(sink.as_ref(), 1, 20..30, &[stray(30)]).await;
    let source = stage.source().await;
    assert_reads(source.as_ref(), range(1, 10..30)).await;
    assert_eq!(source.ledger().lineages().count(), 1, "lineages");
    let commits: Vec<_> =
        index(source.as_ref(), range(1, 10..30)).await.into_iter().flat_map(|(_, i)| i.samples).collect();
    assert_eq!(commits.iter().map(|sample| sample.offset).collect::<Vec<_>>(), [30], "marks of refused ranges");
}

/// A lineage is described once and comes back as it was described. Another source's log is refused.
pub async fn lineages_are_declared(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let sink = stage.writer(LogPurpose::Stream).await;
    let first = stage.record(1).with_fact("segment", "16777216");
    let second = stage.record(2).with_fork(lineage(1), 0x10_0000_0000);
    for record in [&first, &second, &first] {
        sink.declare(record.clone()).await.expect("a lineage can be declared, also again");
    }
    let mut other = stage.record(1);
    other.source = "another source".to_owned();
    let mut unnamable = stage.record(3);
    unnamable.lineage = Lineage::new("../Elsewhere");
    for (record, kind) in [
        (other, ErrorKind::Conflict),
        (stage.record(2), ErrorKind::Conflict),
        (stage.record(2).with_fork(lineage(1), 7), ErrorKind::Conflict),
        (unnamable, ErrorKind::InvalidInput),
    ] {
        let error = sink.declare(record).await.expect_err("it is something else");
        assert_eq!(error.kind(), kind, "{error}");
    }
    for ledger in [sink.ledger(), stage.source().await.ledger()] {
        assert_eq!(ledger.lineages().cloned().collect::<Vec<_>>(), [first.clone(), second.clone()], "lineages");
        assert_eq!(ledger.trunk(), Some(&lineage(2)), "the lineage that the source follows");
    }
    let next = stage.writer(LogPurpose::Stream).await;
    next.declare(first).await.expect("a later writer may say it again");
    let error = next.declare(stage.record(2)).await.expect_err("it is something else");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

/// What was lost is recorded with its reason, and so is where a history was cut.
pub async fn gaps_and_cuts_are_recorded(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let sink = stage.stream(1).await;
    store(sink.as_ref(), 1, 100..200, &[]).await;
    let error = sink.gap(range(1, 250..300), "not here").await.expect_err("it does not begin where the log ended");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    // What was queued before a gap is stored before it.
    append(sink.as_ref(), 1, 200..210, &[]).await.expect("it goes on where the log ended");
    sink.gap(range(1, 210..300), "removed by the source").await.expect("a gap can be recorded");
    let gaps = stage.source().await.ledger();
    let error = append(sink.as_ref(), 1, 210..220, &[]).await.expect_err("it was said to be lost");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    store(sink.as_ref(), 1, 300..400, &[]).await;
    sink.gap(range(1, 400..400), "the source was reset").await.expect("a cut can be recorded");
    store(sink.as_ref(), 1, 400..500, &[]).await;
    sink.close().await.expect("a writer can be closed");

    assert!(gaps.holes().is_empty(), "nothing is stored behind the gap yet");
    let source = stage.source().await;
    assert_eq!(source.ledger().covered(&lineage(1)).as_slice(), [100..210, 300..400, 400..500]);
    let holes: Vec<_> = source.ledger().holes().into_iter().map(|h| (h.range.offsets(), h.reason)).collect();
    let reasons = ["removed by the source", "the source was reset"].map(|reason| Some(reason.to_owned()));
    let [removed, reset] = reasons;
    assert_eq!(holes, [(210..300, removed), (400..400, reset)], "holes");
    for (asked, stored, ends) in [(150..350, 150..210, 210..300), (350..450, 350..400, 400..400)] {
        let (bytes, outcome) = read(source.as_ref(), range(1, asked)).await;
        assert_eq!(bytes, log(1, stored), "what comes before the hole");
        let error = outcome.expect_err("there is a hole");
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        for end in [ends.start, ends.end] {
            assert!(error.to_string().contains(&Notation::HexHalves.text(end)), "{end} is named: {error}");
        }
    }
    let catalog = stage.repository.catalog().await.expect("the catalog can be read");
    assert_eq!(catalog.log().gaps().len(), 2, "gaps in the catalog");
}
