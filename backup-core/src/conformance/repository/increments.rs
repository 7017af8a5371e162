//! A parent saves work and changes nothing else.

use bytes::Bytes;

use super::RepositoryHarness;
use super::stage::{Stage, content, file, path, put_all, put_local, put_meta, scratch, write};
use crate::catalog::BackupKind;
use crate::conformance::bytes::{BLOCK, MIB, assert_same, noise, patched, text};
use crate::engine::LocalFile;
use crate::entry::{ContentIdentity, EntryMeta};
use crate::error::ErrorKind;
use crate::repository::ParentChoice;

/// A second backup of the same content stores nothing, and says what it is.
pub async fn nothing_changed(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let dir = scratch();
    let files = [("a", noise(1, 3 * MIB + 1)), ("b/c", text(2, MIB)), ("empty", Bytes::new())];
    let mut records = Vec::new();
    for round in 0..3 {
        let session = stage.begin(ParentChoice::Newest).await;
        assert_eq!(session.parent(), records.last(), "the newest backup is the parent");
        for (name, bytes) in &files {
            let local = write(dir.path(), name, bytes);
            let stored = put_local(session.sink().as_ref(), LocalFile::new(local, file(name))).await;
            assert_eq!(stored.len, bytes.len() as u64, "length of {name}");
            assert!(round == 0 || stored.new_bytes == 0, "{name} was stored again: {} bytes", stored.new_bytes);
        }
        records.push(stage.commit(session).await);
    }
    for (round, record) in records.iter().enumerate() {
        let (kind, parent) = match round.checked_sub(1) {
            None => (BackupKind::Full, None),
            Some(before) => (BackupKind::Incremental, Some(records[before].id)),
        };
        assert_eq!((record.kind, record.parent), (kind, parent), "kind and parent of backup {round}");
        assert!(round == 0 || record.new_bytes == 0, "new bytes of backup {round}: {}", record.new_bytes);
        stage.assert_holds(record.id, &files.each_ref().map(|(n, b)| (*n, b))).await;
    }
}

/// One changed byte costs one block.
pub async fn changed_blocks(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let dir = scratch();
    let before = noise(1, 5 * MIB);
    let base = stage.store(ParentChoice::None, &[("file", &before)]).await;
    for at in [0, BLOCK - 1, BLOCK, 2 * MIB + 77, 5 * MIB - 1] {
        let after = patched(&before, at, 1);
        let session = stage.begin(ParentChoice::Backup(base.id)).await;
        let local = LocalFile::new(write(dir.path(), "file", &after), file("file"));
        let stored = put_local(session.sink().as_ref(), local).await;
        assert!((1..=BLOCK as u64).contains(&stored.new_bytes), "new bytes for byte {at}: {}", stored.new_bytes);
        let record = stage.commit(session).await;
        assert_eq!(record.new_bytes, stored.new_bytes, "the record counts what was put");
        stage.assert_holds(record.id, &[("file", &after)]).await;
    }
    stage.assert_holds(base.id, &[("file", &before)]).await;
}

/// A longer or shorter file costs what was added, and at most one block at its end.
pub async fn grown_and_shrunk(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let dir = scratch();
    let whole = noise(1, 6 * MIB);
    let base_len = 3 * MIB + 1000;
    let base = stage.store(ParentChoice::None, &[("file", &whole.slice(..base_len))]).await;
    for len in [0, 1, MIB, 3 * MIB, base_len - 1, base_len, base_len + 1, 4 * MIB, 6 * MIB] {
        let session = stage.begin(ParentChoice::Backup(base.id)).await;
        let local = LocalFile::new(write(dir.path(), "file", &whole[..len]), file("file"));
        let stored = put_local(session.sink().as_ref(), local).await;
        let most = len.saturating_sub(base_len) + BLOCK;
        assert!(stored.new_bytes <= most as u64, "new bytes for {len} after {base_len} bytes: {}", stored.new_bytes);
        let record = stage.commit(session).await;
        stage.assert_holds(record.id, &[("file", &whole.slice(..len))]).await;
    }
}

/// Streams are compared with the parent by position as files are.
pub async fn streams_are_compared_too(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let before = noise(1, 3 * MIB + 5);
    let base = stage.store(ParentChoice::None, &[("file", &before)]).await;
    let after = patched(&before, MIB + 3, 2);
    let session = stage.begin(ParentChoice::Backup(base.id)).await;
    let stored = put_all(session.sink().as_ref(), &[("file", &after)]).await[0];
    assert!((1..=BLOCK as u64).contains(&stored.new_bytes), "new bytes: {}", stored.new_bytes);
    let record = stage.commit(session).await;
    stage.assert_holds(record.id, &[("file", &after)]).await;
}

/// Content of a known identity is taken from the parent under any name, without being given again; only from there.
pub async fn identities_are_reused(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let bytes = noise(1, 2 * MIB + 9);
    let identity = |name: &str| ContentIdentity::new(name.as_bytes()).expect("it is a valid identity");
    let session = stage.begin(ParentChoice::None).await;
    let sink = session.sink();
    let meta = file("old/name").with_identity(identity("one"));
    assert_eq!(sink.reuse(meta.clone()).await.expect("it can be asked"), None, "there is no parent to take it from");
    put_meta(sink.as_ref(), meta, &bytes).await;
    drop(sink);
    let base = stage.commit(session).await;

    let session = stage.begin(ParentChoice::Backup(base.id)).await;
    let sink = session.sink();
    let renamed = file("new/name").with_mode(0o640).with_identity(identity("one"));
    let stored = sink.reuse(renamed.clone()).await.expect("it can be asked").expect("the parent has that identity");
    assert_eq!((stored.len, stored.new_bytes), (bytes.len() as u64, 0), "outcome of the reuse");
    let other = file("other").with_identity(identity("two"));
    assert_eq!(sink.reuse(other.clone()).await.expect("it can be asked"), None, "nobody has that identity");
    // Asking in vain must not have taken the path.
    put_meta(sink.as_ref(), other, &Bytes::from_static(b"other")).await;
    let error = sink.reuse(file("nameless")).await.expect_err("there is nothing to look for");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let error = sink.reuse(renamed.clone()).await.expect_err("the path is taken");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    drop(sink);
    let record = stage.commit(session).await;
    stage.assert_holds(record.id, &[("new/name", &bytes), ("other", &Bytes::from_static(b"other"))]).await;
    let entry =
        stage.open(record.id).await.entry(&renamed.path).await.expect("it can be looked up").expect("it is there");
    assert_eq!(entry.meta, renamed, "a reused entry has its own name and mode");

    // And once more, from a parent that had itself only reused it.
    let session = stage.begin(ParentChoice::Backup(record.id)).await;
    let again = EntryMeta::file(path("third")).with_identity(identity("one"));
    let stored = session.sink().reuse(again).await.expect("it can be asked");
    assert_eq!(stored.map(|s| s.len), Some(bytes.len() as u64), "identities are handed on");
    let third = stage.commit(session).await;
    stage.assert_holds(third.id, &[("third", &bytes)]).await;
}

/// What is not put is not there, whatever the parent has.
pub async fn deleted_entries(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let (a, b) = (noise(1, MIB), noise(2, MIB));
    stage.store(ParentChoice::None, &[("a", &a), ("b", &b)]).await;
    let second = stage.store(ParentChoice::Newest, &[("b", &b)]).await;
    stage.assert_holds(second.id, &[("b", &b)]).await;
    assert_eq!((second.entries, second.data_bytes, second.new_bytes), (1, MIB as u64, 0));
    // What the parent no longer has can come back.
    let third = stage.store(ParentChoice::Newest, &[("a", &a), ("b", &b)]).await;
    stage.assert_holds(third.id, &[("a", &a), ("b", &b)]).await;
    let nothing = stage.store(ParentChoice::Newest, &[]).await;
    stage.assert_holds(nothing.id, &[]).await;
}

/// A chain of backups, each changing something else: after the last one, every one of them is still what it was, for a
/// handle that has seen nothing of their making.
pub async fn backups_stay_restorable_alone(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let mut state = vec![noise(1, 2 * MIB + 1), text(2, MIB + 333), noise(3, 10)];
    let names = ["a", "b", "c"];
    let mut history = Vec::new();
    for round in 0..6_usize {
        let files: Vec<_> = names.into_iter().zip(&state).collect();
        let record = stage.store(ParentChoice::Newest, &files).await;
        history.push((record, state.clone()));
        state[0] = patched(&state[0], round * 300_000, 5000);
        state[1] = state[1].slice(..state[1].len() - round * 1000);
        state[2] = noise(10 + round as u64, 10 + round * BLOCK / 2);
    }
    let reopened = harness.reopen(stage.repository.service()).await;
    for (record, state) in &history {
        let source = reopened.open(record.id).await.expect("it can be opened");
        for (name, bytes) in names.into_iter().zip(state) {
            assert_same(&content(source.as_ref(), &path(name)).await, bytes, format_args!("{name} of {}", record.id));
        }
    }
    let catalog = reopened.catalog().await.expect("the catalog can be read");
    let listed: Vec<_> = catalog.backups().map(|b| b.id).collect();
    assert_eq!(listed, history.iter().map(|(r, _)| r.id).collect::<Vec<_>>(), "backups, oldest first");
    assert_eq!(catalog.latest(), history.last().map(|(r, _)| r), "the newest backup");
}
