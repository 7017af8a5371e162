//! Entries of which only what changed comes.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt};

use super::RepositoryHarness;
use super::stage::{Stage, content as stored, delta, extract, file, path, range, scratch};
use crate::conformance::bytes::{BLOCK, MIB, noise};
use crate::engine::{BackupSink, BlockInspector, Changes, Patch, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::repository::{ParentChoice, VerifyLevel};

const PAGE: usize = 8192;

/// The bytes of page `number`.
fn page(number: usize) -> Range<u64> {
    (number * PAGE) as u64..((number + 1) * PAGE) as u64
}

/// What comes with a patch that makes `after`, in pieces of no particular size.
fn body(after: &Bytes, ranges: &[Range<u64>]) -> Bytes {
    let mut body = BytesMut::new();
    for range in Changes::new(ranges.iter().cloned()).ranges() {
        body.extend_from_slice(&after[range.start as usize..range.end as usize]);
    }
    body.freeze()
}

async fn put(sink: &dyn BackupSink, name: &str, len: usize, ranges: &[Range<u64>], body: &Bytes) -> Result<Stored> {
    let changes = Changes::new(ranges.iter().cloned());
    let pieces: Vec<_> = body.chunks(100_001).map(|piece| Ok(body.slice_ref(piece))).collect();
    sink.put_patch(Patch::new(file(name), len as u64, changes), stream::iter(pieces).boxed()).await
}

/// `before` cut or continued to `len` bytes, with other content in `ranges`.
fn changed(before: &Bytes, ranges: &[Range<u64>], len: usize, seed: u64) -> Bytes {
    let fresh = noise(seed, len);
    let mut after = before.to_vec();
    after.truncate(len);
    after.resize(len, 0);
    for range in ranges {
        let (start, end) = (range.start as usize, range.end as usize);
        after[start..end].copy_from_slice(&fresh[start..end]);
    }
    after.into()
}

/// Backup after backup of patches holds what a backup of everything would, and is restorable alone.
pub async fn patches_make_complete_entries(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let len = 3 * MIB + 5 * PAGE;
    let mut content = noise(1, len);
    let parent = stage.store(ParentChoice::None, &[("table", &content), ("other", &content)]).await;
    let many: Vec<_> = (0..250).step_by(3).map(page).collect();
    let end = |start: usize, len: usize| start as u64..len as u64;
    let rounds: [(Vec<Range<u64>>, usize); 11] = [
        (vec![page(0), page(17), page(18), page(100)], len),
        (vec![], len),
        // The last page, and whole blocks.
        (vec![page(388), 131_072..524_288], len),
        // Grown, from the middle of a block.
        (vec![page(3), end(len, len + MIB + PAGE)], len + MIB + PAGE),
        // Grown from before the former end.
        (vec![end(len + MIB, len + MIB + 3 * PAGE)], len + MIB + 3 * PAGE),
        // Cut in the middle of a block, without a change and with one.
        (vec![], 3 * MIB + 9 * PAGE),
        (vec![page(3), page(256)], 2 * MIB + 2 * PAGE),
        (many.clone(), 2 * MIB + 2 * PAGE),
        (many, 2 * MIB + 2 * PAGE),
        // Cut at the end of a block, and nothing in units of anything.
        (vec![], 2 * MIB),
        (vec![1..2, 5000..5001, 131_071..131_073, end(2 * MIB, 2 * MIB + 7)], 2 * MIB + 7),
    ];
    let mut records = vec![(parent, content.clone())];
    for (round, (ranges, len)) in rounds.into_iter().enumerate() {
        content = changed(&content, &ranges, len, 100 + round as u64);
        let session = stage.begin(ParentChoice::Newest).await;
        let source = session.parent_source().expect("a session with a parent can read it");
        let (before, former) = records.last().expect("there is one");
        assert_eq!(source.record().id, before.id);
        let tail = range(source.as_ref(), &path("table"), 1000..former.len() as u64).await;
        assert!(tail.expect("the parent can be read") == former[1000..]);
        let bytes = body(&content, &ranges);
        let put = put(session.sink().as_ref(), "table", len, &ranges, &bytes).await.expect("a patch can be put");
        assert_eq!((put.len, put.read_bytes), (len as u64, bytes.len() as u64), "round {round}");
        assert_eq!(put.unread, bytes.is_empty(), "round {round}");
        // What is stored anew is in proportion to what came.
        let blocks = (Changes::new(ranges.iter().cloned()).ranges().len() as u64 + 1) * 2 * BLOCK as u64;
        assert!(put.new_bytes <= bytes.len() as u64 + blocks, "round {round} stored {put:?}");
        let record = stage.commit(session).await;
        records.push((record, content.clone()));
    }
    for (record, content) in &records[1..] {
        stage.assert_holds(record.id, &[("table", content)]).await;
    }
    let target = scratch();
    for (record, content) in records.iter().rev().step_by(4) {
        let source = stage.open(record.id).await;
        extract(source.as_ref(), delta(target.path())).await.expect("a backup can be restored over another");
        let there = std::fs::read(target.path().join("table")).expect("the file is there");
        assert!(there == content[..], "backup {} was not restored", record.id);
    }
    let report = stage.repository.verify(VerifyLevel::Full, &stage.work()).await;
    assert!(report.expect("a repository can be verified").is_sound());
}

/// What an inspector has seen.
#[derive(Debug, Default)]
struct Seen(parking_lot::Mutex<Vec<(u64, Vec<u8>)>>);

impl BlockInspector for Seen {
    fn inspect(&self, offset: u64, bytes: &[u8]) {
        self.0.lock().push((offset, bytes.to_vec()));
    }
}

/// An inspector sees what comes, once, and nothing of what is taken from the parent.
pub async fn inspectors_see_what_a_patch_brings(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let before = noise(1, 2 * MIB);
    stage.store(ParentChoice::None, &[("table", &before)]).await;
    let ranges = [page(0), page(15), page(16), 262_144..1_500_000];
    let after = changed(&before, &ranges, before.len(), 2);
    let seen = Arc::new(Seen::default());
    let session = stage.begin(ParentChoice::Newest).await;
    let patch = Patch::new(file("table"), after.len() as u64, Changes::new(ranges.iter().cloned()));
    let patch = patch.with_inspector(Some(Arc::<Seen>::clone(&seen)));
    let bytes = body(&after, &ranges);
    let put = session.sink().put_patch(patch, stream::iter([Ok(bytes)]).boxed()).await;
    put.expect("a patch can be put");
    stage.commit(session).await;
    let seen = std::mem::take(&mut *seen.0.lock());
    let total: usize = seen.iter().map(|(_, bytes)| bytes.len()).sum();
    let places = Changes::new(seen.iter().map(|(at, bytes)| *at..*at + bytes.len() as u64));
    assert_eq!(places.ranges(), Changes::new(ranges.iter().cloned()).ranges());
    assert_eq!(total as u64, places.ranges().iter().map(|range| range.end - range.start).sum::<u64>());
    for (at, bytes) in &seen {
        assert!(bytes.len() <= MIB && after[*at as usize..][..bytes.len()] == bytes[..], "byte {at}");
    }
}

/// Zeros are content, and a patch that says nothing new is stored all the same.
pub async fn patches_of_zeros_and_of_the_same(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let before = noise(1, 2 * MIB);
    stage.store(ParentChoice::None, &[("table", &before), ("empty", &Bytes::new())]).await;
    let session = stage.begin(ParentChoice::Newest).await;
    let (sink, ranges) = (session.sink(), [page(1), 262_144..524_288, page(100), 2_097_152..3_145_728]);
    let mut after = before.to_vec();
    after.resize(3 * MIB, 0);
    after[PAGE..2 * PAGE].fill(0);
    after[262_144..524_288].fill(0);
    let after = Bytes::from(after);
    put(sink.as_ref(), "table", 3 * MIB, &ranges, &body(&after, &ranges)).await.expect("zeros can be put");
    let grown = noise(2, PAGE);
    put(sink.as_ref(), "empty", PAGE, &[page(0)], &grown).await.expect("an empty entry can grow");
    drop(sink);
    let record = stage.commit(session).await;
    stage.assert_holds(record.id, &[("empty", &grown), ("table", &after)]).await;
    let session = stage.begin(ParentChoice::Newest).await;
    put(session.sink().as_ref(), "empty", 0, &[], &Bytes::new()).await.expect("an entry can become empty");
    let record = stage.commit(session).await;
    stage.assert_holds(record.id, &[("empty", &Bytes::new())]).await;
}

/// What does not fit is refused, puts nothing, and leaves the path free.
pub async fn patches_that_do_not_fit(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let before = noise(1, 2 * MIB + PAGE);
    stage.store(ParentChoice::None, &[("table", &before)]).await;
    let (len, fresh) = (before.len(), noise(2, 4 * MIB));
    let session = stage.begin(ParentChoice::Newest).await;
    let sink = session.sink();
    let many: Vec<_> = (0..256).step_by(2).map(page).collect();
    let size = |ranges: &[Range<u64>]| ranges.iter().map(|range| range.end - range.start).sum::<u64>() as usize;
    type Case<'a> = (&'a str, &'a str, usize, &'a [Range<u64>], usize);
    let cases: [Case<'_>; 9] = [
        ("of nothing", "unknown", len, &[page(0)], PAGE),
        ("behind the end", "table", len, &[page(256), page(257)], 2 * PAGE),
        ("grown without a word", "table", len + PAGE, &[page(0)], PAGE),
        ("grown with too few words", "table", len + 2 * PAGE, &[page(258)], PAGE),
        ("fewer bytes", "table", len, &[page(0), page(9)], 2 * PAGE - 1),
        ("no bytes", "table", len, &[page(0)], 0),
        ("more bytes", "table", len, &[page(0), page(9)], 2 * PAGE + 1),
        ("bytes for nothing", "table", len, &[], 1),
        ("fewer bytes after many", "table", len, &many, size(&many) - PAGE),
    ];
    for (what, name, len, ranges, bytes) in cases {
        let refused = put(sink.as_ref(), name, len, ranges, &fresh.slice(..bytes)).await;
        assert_eq!(refused.expect_err(what).kind(), ErrorKind::InvalidInput, "{what}");
    }
    let patch = Patch::new(file("table"), len as u64, Changes::new([page(0), page(200)]));
    let broken = [Ok(fresh.slice(..PAGE)), Err(Error::unavailable("the source went away"))];
    let refused = sink.put_patch(patch, stream::iter(broken).boxed()).await;
    assert_eq!(refused.expect_err("a body that fails fails the patch").kind(), ErrorKind::Unavailable);
    let after = changed(&before, &[page(7)], len, 3);
    put(sink.as_ref(), "table", len, &[page(7)], &body(&after, &[page(7)])).await.expect("the path is free");
    let twice = put(sink.as_ref(), "table", len, &[page(7)], &body(&after, &[page(7)])).await;
    assert_eq!(twice.expect_err("a path can be put once").kind(), ErrorKind::InvalidInput);
    drop(sink);
    let record = stage.commit(session).await;
    stage.assert_holds(record.id, &[("table", &after)]).await;
    let session = stage.begin(ParentChoice::None).await;
    assert!(session.parent_source().is_none());
    let alone = put(session.sink().as_ref(), "table", len, &[], &Bytes::new()).await;
    assert_eq!(alone.expect_err("there is no parent").kind(), ErrorKind::InvalidInput);
}

/// Who does not believe a patch compares the whole content, and says what it left out.
pub async fn patches_that_are_verified(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let before = noise(1, 2 * MIB + PAGE);
    stage.store(ParentChoice::None, &[("table", &before)]).await;
    let after = changed(&before, &[page(5), page(90), page(200)], before.len(), 3);
    let session = stage.begin(ParentChoice::Newest).await;
    let sink = session.sink();
    let patch = |len: usize| Patch::new(file("table"), len as u64, Changes::new([page(5)]).verified());
    let whole = |bytes: Bytes| stream::iter([Ok(bytes)]).boxed();
    for wrong in [after.len() - 1, after.len() + 1] {
        let refused = sink.put_patch(patch(wrong), whole(after.clone())).await;
        assert_eq!(refused.expect_err("another length").kind(), ErrorKind::InvalidInput);
    }
    let stored = sink.put_patch(patch(after.len()), whole(after.clone())).await.expect("a patch can be verified");
    assert_eq!((stored.unexpected, stored.read_bytes), (2 * BLOCK as u64, after.len() as u64));
    drop(sink);
    let record = stage.commit(session).await;
    let source = stage.open(record.id).await;
    assert!(self::stored(source.as_ref(), &path("table")).await == after[..]);
}
