//! A directory of segments as archives and copies of `pg_wal` have them: partial, cut off, recycled, foreign.

use std::path::PathBuf;

use backup_core::ErrorKind;
use backup_core::env::Env;
use backup_postgres::walsender::{DirectoryFeed, WalFeed};
use backup_postgres::{Lsn, TimelineId};
use backup_testkit::{PgVersion, Postgres, require_or_skip};

use crate::harness::{Archive, create_ledger, two_timelines, write_ledger};

fn two() -> TimelineId {
    TimelineId::new(2).unwrap()
}

/// The file of a segment of 1 MiB.
fn file(archive: &Archive, timeline: u32, position: Lsn) -> PathBuf {
    archive.path().join(format!("{timeline:08X}{:08X}{:08X}", position.0 >> 32, (position.0 >> 20) & 0xfff))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_segment_may_be_partial_or_cut_off() {
    let Some(archive) = two_timelines(PgVersion::V17).await else { return };
    let feed = archive.feed().await;
    let end = feed.end().await.unwrap();
    assert_eq!(end.timeline, two());
    let start = Lsn(end.position.0 >> 20 << 20);
    let length = (end.position.0 - start.0) as usize;
    let whole = feed.read(two(), start, length).await.unwrap().unwrap();
    assert_eq!(whole.len(), length);

    let path = file(&archive, 2, end.position);
    std::fs::rename(&path, path.with_extension("partial")).unwrap();
    assert_eq!(feed.end().await.unwrap(), end);
    assert_eq!(feed.read(two(), start, length).await.unwrap().unwrap(), whole);

    // What is not there yet does not count, and comes with the rest.
    std::fs::write(&path, &whole[..length / 2]).unwrap();
    let before = feed.end().await.unwrap();
    assert!(
        before.position < end.position && before.position.0 <= start.0 + length as u64 / 2,
        "{before} of {end}, {start} + {length}"
    );
    let waiting = tokio::spawn(async move { feed.grown(before).await });
    std::fs::write(&path, &whole).unwrap();
    let feed = archive.feed().await;
    let grown = waiting.await.unwrap().unwrap();
    assert!(grown.position > before.position, "{grown}");
    // The last record's alignment may lie behind what was written.
    assert!(end.position.0 - feed.end().await.unwrap().position.0 < 8192);
    std::fs::write(&path, b"").unwrap();
    assert_eq!(feed.end().await.unwrap().position, start, "an empty file is no segment yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_something_else_do_not_count() {
    let Some(archive) = two_timelines(PgVersion::V17).await else { return };
    let feed = archive.feed().await;
    let end = feed.end().await.unwrap();
    // As `pg_wal` has them: an old segment under a later name.
    let later = Lsn(end.position.0 + (3 << 20));
    std::fs::copy(file(&archive, 2, Lsn(end.position.0 - (1 << 20))), file(&archive, 2, later)).unwrap();
    for name in
        ["0000000200000000000000FG", "00000002.history.1", "x.history", "000000020000000000000003.00000028.backup"]
    {
        std::fs::write(archive.path().join(name), "something").unwrap();
    }
    assert_eq!(feed.end().await.unwrap(), end);
    assert!(feed.read(two(), later, 100).await.unwrap().is_none());

    let other = require_or_skip!(
        Postgres::builder(PgVersion::V17).fresh_identity().initdb_arg("--wal-segsize=1").start().await
    );
    let client = other.connect("postgres").await.unwrap();
    create_ledger(&client).await;
    let position = write_ledger(&client, 1).await;
    let theirs = file(&archive, 1, position).file_name().unwrap().to_owned();
    let header = std::fs::read(other.data_dir().join("pg_wal").join(theirs)).unwrap();
    let next = Lsn((end.position.0 >> 20 << 20) + (1 << 20));
    let mut segment = header;
    segment[8..16].copy_from_slice(&next.0.to_le_bytes());
    std::fs::write(file(&archive, 2, next), segment).unwrap();
    let error = feed.end().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("belongs to system"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_is_the_newest_timelines() {
    let Some(archive) = two_timelines(PgVersion::V17).await else { return };
    let feed = archive.feed().await;
    let end = feed.end().await.unwrap();
    let history = feed.history(two()).await.unwrap().unwrap();
    let fork: Lsn = String::from_utf8(history.to_vec()).unwrap().split('\t').nth(1).unwrap().parse().unwrap();
    assert!(feed.history(TimelineId::FIRST).await.unwrap().is_none());

    // The old timeline may be followed beyond where it was left.
    let old = archive.feed().await.timeline(TimelineId::FIRST);
    assert_eq!(old.end().await.unwrap().timeline, TimelineId::FIRST);
    assert!(old.end().await.unwrap().position >= fork);

    // Of a timeline whose history comes first there is nothing yet.
    let path = archive.path().join("00000003.history");
    std::fs::write(&path, format!("{}\n2\t{}\tno reason\n", String::from_utf8_lossy(&history).trim(), end.position))
        .unwrap();
    let promoted = feed.end().await.unwrap();
    assert_eq!((promoted.timeline.get(), promoted.position), (3, end.position));
    std::fs::remove_file(path).unwrap();

    std::fs::remove_file(archive.path().join("00000002.history")).unwrap();
    let error = feed.end().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("00000002.history"), "{error}");

    let empty = Archive::new();
    let error = DirectoryFeed::open(empty.path(), &Env::system()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = DirectoryFeed::open(empty.path().join("absent"), &Env::system()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
}
