//! Files of which it is known what may have changed.

use std::ops::Range;

use bytes::Bytes;

use super::RepositoryHarness;
use super::stage::{Stage, content as stored, delta, extract, file, path, put_local, scratch, write};
use crate::conformance::bytes::{BLOCK, MIB, assert_same, noise};
use crate::engine::{Changes, LocalFile, Unchanged};
use crate::repository::{ParentChoice, VerifyLevel};

const PAGE: usize = 8192;

/// The bytes of page `number`.
fn page(number: usize) -> Range<u64> {
    (number * PAGE) as u64..((number + 1) * PAGE) as u64
}

/// `before` with other content in `ranges`, and of length `len`.
fn changed(before: &Bytes, ranges: &[Range<u64>], len: usize, seed: u64) -> Bytes {
    let mut after = before.to_vec();
    after.truncate(len);
    let fresh = noise(seed, len);
    let grown = after.len();
    after.extend_from_slice(&fresh[grown..]);
    for range in ranges {
        let (start, end) = ((range.start as usize).min(len), (range.end as usize).min(len));
        after[start..end].copy_from_slice(&fresh[start..end]);
    }
    after.into()
}

/// A backup that was told what changed holds what is there now, backup after backup, also where the next one is told nothing.
pub async fn changes_make_the_next_backup(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let dir = scratch();
    let len = 3 * MIB + 5 * PAGE;
    let mut content = noise(1, len);
    let parent = stage.store(ParentChoice::None, &[("table", &content), ("other", &content)]).await;
    let many: Vec<_> = (0..400).step_by(3).map(page).collect();
    let rounds: [(&[Range<u64>], usize); 8] = [
        (&[page(0), page(17), page(18), page(100)], len),
        (&[], len),
        // Behind the end, at the end, and over blocks.
        (&[page(388), page(1000), 100_000..400_000], len),
        // Grown: what is behind the former end has changed without a word.
        (&[page(3)], len + MIB + PAGE),
        (&[page(3)], 2 * MIB + 2 * PAGE),
        (&many, 2 * MIB + 2 * PAGE),
        (&many, 2 * MIB + 2 * PAGE),
        // Not in units of anything.
        (&[1..2, 5000..5001, 131_071..131_073], 2 * MIB + 2 * PAGE),
    ];
    let mut records = vec![(parent, content.clone())];
    for (round, (ranges, len)) in rounds.into_iter().enumerate() {
        content = changed(&content, ranges, len, 100 + round as u64);
        let session = stage.begin(ParentChoice::Newest).await;
        let sink = session.sink();
        let local = LocalFile::new(write(dir.path(), "table", &content), file("table"));
        let changes = Changes::new(ranges.iter().cloned());
        let put = put_local(sink.as_ref(), local.with_unchanged(Unchanged::Outside(changes.clone()))).await;
        assert_eq!(put.len, content.len() as u64, "round {round}");
        let most: u64 =
            changes.ranges().iter().map(|range| range.end.min(len as u64).saturating_sub(range.start)).sum();
        let grown = (len as u64).saturating_sub(records[round].1.len() as u64);
        // What is stored anew is in proportion to what changed.
        let blocks = (changes.ranges().len() as u64 + 2) * 2 * BLOCK as u64;
        assert!(put.new_bytes <= most + grown + blocks, "round {round} stored {put:?}");
        // A file that the parent does not have is read whole.
        let unknown = LocalFile::new(write(dir.path(), "new", &content), file(&format!("new-{round}")));
        let whole = put_local(sink.as_ref(), unknown.with_unchanged(Unchanged::Outside(Changes::default()))).await;
        assert_eq!((whole.len, whole.unread), (content.len() as u64, false));
        drop(sink);
        let record = stage.commit(session).await;
        records.push((record, content.clone()));
    }
    for (record, content) in &records {
        let source = stage.open(record.id).await;
        assert_same(&stored(source.as_ref(), &path("table")).await, content, "table");
    }

    // A restore over what another backup left behind.
    let target = scratch();
    for (record, content) in records.iter().rev().step_by(3).chain(records.iter().step_by(4)) {
        let source = stage.open(record.id).await;
        extract(source.as_ref(), delta(target.path())).await.expect("a backup can be restored over another");
        let there = std::fs::read(target.path().join("table")).expect("the file is there");
        assert!(there == content[..], "backup {} was not restored", record.id);
    }

    // Told nothing, everything is compared.
    let mut end = content.to_vec();
    end[77] ^= 1;
    let end = Bytes::from(end);
    let session = stage.begin(ParentChoice::Newest).await;
    let local = LocalFile::new(write(dir.path(), "table", &end), file("table"));
    let put = put_local(session.sink().as_ref(), local).await;
    assert_eq!((put.read_bytes, put.unexpected), (end.len() as u64, 0));
    let record = stage.commit(session).await;
    stage.assert_holds(record.id, &[("table", &end)]).await;
    let report = stage.repository.verify(VerifyLevel::Full, &stage.work()).await;
    assert!(report.expect("a repository can be verified").is_sound());
}

/// Who does not believe what it is told says what was wrong, and has everything.
pub async fn changes_that_are_verified(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let dir = scratch();
    let before = noise(1, 2 * MIB + PAGE);
    stage.store(ParentChoice::None, &[("table", &before)]).await;
    let put = async |content: &Bytes, ranges: &[Range<u64>]| {
        let session = stage.begin(ParentChoice::Newest).await;
        let local = LocalFile::new(write(dir.path(), "table", content), file("table"));
        let changes = Changes::new(ranges.iter().cloned()).verified();
        let stored = put_local(session.sink().as_ref(), local.with_unchanged(Unchanged::Outside(changes))).await;
        let record = stage.commit(session).await;
        stage.assert_holds(record.id, &[("table", content)]).await;
        assert_eq!((stored.read_bytes, stored.unread), (content.len() as u64, false));
        stored.unexpected
    };
    let after = changed(&before, &[page(5)], before.len(), 2);
    assert_eq!(put(&after, &[page(5)]).await, 0, "what was said is true");
    let more = changed(&after, &[page(5), page(90), page(200)], after.len(), 3);
    assert_eq!(put(&more, &[page(5)]).await, 2 * BLOCK as u64, "two blocks were not said to have changed");
    let longer = changed(&more, &[], more.len() + MIB, 4);
    assert_eq!(put(&longer, &[]).await, 0, "what is behind the former end need not be said");
}
