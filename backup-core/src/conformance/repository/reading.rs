//! Looking into a backup.

use bytes::Bytes;
use futures::stream::TryStreamExt;

use super::RepositoryHarness;
use super::stage::{Stage, entries, path, range};
use crate::conformance::bytes::{BLOCK, MIB, assert_same, noise, text};
use crate::entry::Selector;
use crate::env::Env;
use crate::error::ErrorKind;
use crate::id::BackupId;
use crate::repository::ParentChoice;

/// Entries come sorted by path, whatever the order of putting them; a selector means folders and files.
pub async fn entries_and_selectors(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let tiny = Bytes::from_static(b"tiny");
    let mut names: Vec<String> = (0..700).map(|i| format!("many/{:05}", i * 7919 % 10_007)).collect();
    names.extend(["z", "a/b/c", "a.b", "a-b", "a/b", "ab/c", "A"].map(String::from));
    let files: Vec<_> = names.iter().map(|n| (n.as_str(), &tiny)).collect();
    let record = stage.store(ParentChoice::None, &files).await;
    let source = stage.open(record.id).await;

    let mut sorted: Vec<_> = names.iter().map(|n| path(n.as_str())).collect();
    sorted.sort();
    for selector in [
        Selector::all(),
        Selector::within([path("a")]),
        Selector::within([path("a/b")]),
        Selector::within([path("many/00000"), path("z"), path("nothing")]),
        Selector::within([path("many"), path("a/b")]),
        Selector::within([path("man")]),
    ] {
        let expected: Vec<_> = sorted.iter().filter(|p| selector.matches(p)).cloned().collect();
        let listed = entries(source.as_ref(), selector.clone()).await;
        let listed: Vec<_> = listed.into_iter().map(|e| e.meta.path).collect();
        assert_eq!(listed.len(), expected.len(), "number of entries of {selector:?}");
        let wrong = listed.iter().zip(&expected).find(|(actual, expected)| actual != expected);
        assert_eq!(wrong, None, "entries of {selector:?}, in order");
    }
}

/// Any range of an entry reads as the same range of its content; a range that does not lie inside is refused.
pub async fn ranges(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let bytes = noise(1, 4 * MIB + 4321);
    let mut holes = vec![0; 3 * MIB];
    holes[MIB + 10..MIB + 20].fill(7);
    let holes = Bytes::from(holes);
    let first = stage.store(ParentChoice::None, &[("file", &bytes)]).await;
    let patched = crate::conformance::bytes::patched(&bytes, 2 * MIB, BLOCK + 1);
    let record = stage
        .store(ParentChoice::Backup(first.id), &[("file", &patched), ("holes", &holes), ("empty", &Bytes::new())])
        .await;
    let source = stage.open(record.id).await;
    for (name, bytes) in [("file", &patched), ("holes", &holes), ("empty", &Bytes::new())] {
        let path = path(name);
        let len = bytes.len() as u64;
        let mut tried = vec![(0, 0), (0, len), (len, len), (len.saturating_sub(1), len)];
        let seeds = noise(5, 16 * 60);
        for seed in seeds.chunks_exact(16).filter(|_| len > 0) {
            let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| seed[at + i]));
            let start = number(0) % len;
            // Half of the ranges are short, as an engine reads headers.
            let most = if seed[0] < 128 { 5000.min(len - start) } else { len - start };
            tried.push((start, start + number(8) % (most + 1)));
        }
        for edge in [BLOCK as u64, MIB as u64, 2 * MIB as u64].into_iter().filter(|e| e + 1 < len) {
            tried.extend([(edge - 1, edge), (edge, edge + 1), (edge - 1, edge + 1)]);
        }
        for (start, end) in tried {
            let read = range(source.as_ref(), &path, start..end).await.expect("a range can be read");
            assert_same(&read, &bytes[start as usize..end as usize], format_args!("{name} {start}..{end}"));
        }
        #[expect(clippy::reversed_empty_ranges, reason = "that is what must be refused")]
        for outside in [0..len + 1, len + 1..len + 2, len..len + 1, 1..0, 0..u64::MAX] {
            let error =
                range(source.as_ref(), &path, outside.clone()).await.map(|b| b.len()).expect_err("it lies outside");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name} {outside:?}: {error}");
        }
    }
}

/// What a restore would read is counted before it is read.
pub async fn footprints(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let (a, b) = (noise(1, 3 * MIB), text(2, MIB));
    let first = stage.store(ParentChoice::None, &[("a/one", &a), ("b/two", &b)]).await;
    let second = stage.store(ParentChoice::Newest, &[("a/one", &a), ("b/two", &b)]).await;
    for record in [first, second] {
        let source = stage.open(record.id).await;
        let of = async |selector: Selector| source.footprint(&selector).await.expect("a footprint can be counted");
        let all = of(Selector::all()).await;
        assert_eq!((all.entries, all.bytes), (2, 4 * MIB as u64), "all of it");
        assert!(all.objects >= 1, "content that is stored lies in an object");
        // Noise cannot be stored in less than its size; nothing takes twice its size.
        assert!((a.len() as u64..2 * all.bytes).contains(&all.stored_bytes), "stored bytes: {}", all.stored_bytes);
        let part = of(Selector::within([path("b")])).await;
        assert_eq!((part.entries, part.bytes), (1, MIB as u64), "a part of it");
        assert!(part.objects <= all.objects && part.stored_bytes <= all.stored_bytes, "a part needs no more than all");
        let none = of(Selector::within([path("c")])).await;
        assert_eq!((none.entries, none.bytes), (0, 0), "nothing of it");
    }
}

/// Backups and entries that do not exist are refused as wrong input, or simply absent.
pub async fn unknown_things_are_refused(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let record = stage.store(ParentChoice::None, &[("a/b", &Bytes::from_static(b"content"))]).await;
    let ghost = BackupId::mint(&Env::seeded(0xdead));
    let error = stage.repository.open(ghost).await.expect_err("there is no such backup");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let begun = stage.repository.begin(ParentChoice::Backup(ghost), &stage.work()).await;
    let error = begun.expect_err("there is no such parent");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let source = stage.open(record.id).await;
    for name in ["a", "a/b/c", "zzz", "A"] {
        assert_eq!(source.entry(&path(name)).await.expect("it can be asked"), None, "entry {name}");
        let read: Result<Vec<Bytes>, _> = source.read(&path(name), 0..0).try_collect().await;
        let error = read.expect_err("there is nothing to read");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}: {error}");
    }
}
