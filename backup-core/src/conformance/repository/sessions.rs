//! A session becomes a backup by one explicit commit, or never.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::RepositoryHarness;
use super::stage::{Stage, file, path, put_all, scratch};
use crate::catalog::{CloseReason, SessionState};
use crate::conformance::bytes::{MIB, noise};
use crate::engine::{BackupSinkExt, Existing, Extract, LocalFile};
use crate::error::{Error, ErrorKind};
use crate::repository::{ParentChoice, VerifyLevel};

/// A repository without backups can be read, checked and reopened.
pub async fn empty_repository(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    for repository in [Arc::clone(&stage.repository), harness.reopen(stage.repository.service()).await] {
        assert_eq!(repository.service(), stage.repository.service(), "whose repository it is");
        assert!(!repository.to_string().is_empty(), "a repository has a name for people");
        let catalog = repository.catalog().await.expect("the catalog can be read");
        assert_eq!(catalog.backups().count(), 0, "backups");
        assert_eq!(catalog.latest(), None, "the newest backup");
        let report = repository.verify(VerifyLevel::Full, &stage.work()).await.expect("it can be verified");
        assert!(report.is_sound(), "{report:?}");
        assert_eq!(report.backups, 0, "verified backups");
    }
    let session = stage.begin(ParentChoice::Newest).await;
    assert_eq!(session.parent(), None, "there is no newest backup");
    let record = stage.commit(session).await;
    stage.assert_holds(record.id, &[]).await;
    let target = scratch();
    let order = Extract::into_dir(target.path()).with_existing(Existing::Refuse);
    super::stage::extract(stage.open(record.id).await.as_ref(), order).await.expect("nothing can be extracted too");
}

/// Nobody sees a backup before it is committed, and everybody sees it then.
pub async fn nothing_is_visible_before_commit(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let bytes = noise(1, 3 * MIB);
    let other = harness.reopen(stage.repository.service()).await;
    let session = stage.begin(ParentChoice::None).await;
    let id = session.id();
    put_all(session.sink().as_ref(), &[("file", &bytes)]).await;
    for repository in [&stage.repository, &other] {
        let catalog = repository.catalog().await.expect("the catalog can be read");
        assert_eq!(catalog.backups().count(), 0, "backups while the session is open");
        assert!(matches!(catalog.session(id), Some(SessionState::Open { .. })), "the session is known");
    }
    let record = stage.commit(session).await;
    assert_eq!(record.session, id, "the session of the backup");
    assert_eq!(&record.service, stage.repository.service(), "the service of the backup");
    assert!(record.started_at <= record.ended_at, "a backup ends after it started");
    for repository in [&stage.repository, &other] {
        let catalog = repository.catalog().await.expect("the catalog can be read");
        assert_eq!(catalog.backup(record.id), Some(&record), "the backup after its commit");
        assert_eq!(catalog.session(id), Some(&SessionState::Committed(record.id)), "the session after its commit");
    }
}

/// A session that is dropped or aborted leaves nothing visible, and the next one is not disturbed.
pub async fn aborted_and_dropped_sessions(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let bytes = noise(1, 2 * MIB);
    let dropped = stage.begin(ParentChoice::None).await;
    let dropped_id = dropped.id();
    put_all(dropped.sink().as_ref(), &[("file", &bytes)]).await;
    drop(dropped);
    let aborted = stage.begin(ParentChoice::None).await;
    let aborted_id = aborted.id();
    assert_ne!(dropped_id, aborted_id, "sessions have ids of their own");
    put_all(aborted.sink().as_ref(), &[("file", &bytes)]).await;
    aborted.abort().await.expect("a session can be aborted");
    // In the middle of a put.
    let session = stage.begin(ParentChoice::None).await;
    let sink = session.sink();
    let body = stream::iter([Ok(bytes.clone())]).chain(stream::pending()).boxed();
    let mut put = std::pin::pin!(sink.put_stream(file("file"), body, None));
    for _ in 0..3 {
        assert!(futures::poll!(put.as_mut()).is_pending(), "a stream that does not end was put");
        tokio::task::yield_now().await;
    }
    drop(session);

    let catalog = stage.repository.catalog().await.expect("the catalog can be read");
    assert_eq!(catalog.backups().count(), 0, "backups of sessions that did not commit");
    assert_eq!(catalog.session(aborted_id), Some(&SessionState::Closed(CloseReason::Abandoned)), "the aborted session");
    let record = stage.store(ParentChoice::Newest, &[("file", &bytes)]).await;
    stage.assert_holds(record.id, &[("file", &bytes)]).await;
    let report = stage.repository.verify(VerifyLevel::Full, &stage.work()).await.expect("it can be verified");
    assert!(report.is_sound(), "leftovers are no damage: {report:?}");
}

/// Two sessions of two handles at once both commit, whatever the order.
pub async fn two_sessions_at_once(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let base_bytes = noise(1, MIB);
    let base = stage.store(ParentChoice::None, &[("file", &base_bytes)]).await;
    let other = harness.reopen(stage.repository.service()).await;
    let first = stage.begin(ParentChoice::Newest).await;
    let second = other.begin(ParentChoice::Newest, &stage.work()).await.expect("a second session can be opened");
    assert_eq!(first.parent().map(|p| p.id), Some(base.id));
    assert_eq!(second.parent().map(|p| p.id), Some(base.id));
    let (a, b) = (noise(2, 2 * MIB), noise(3, 2 * MIB));
    let (first_sink, second_sink) = (first.sink(), second.sink());
    let of_first = [("file", &a), ("first", &base_bytes)];
    let of_second = [("file", &b), ("second", &base_bytes)];
    futures::join!(put_all(first_sink.as_ref(), &of_first), put_all(second_sink.as_ref(), &of_second));
    drop((first_sink, second_sink));
    let (second, first) = futures::join!(stage.commit(second), stage.commit(first));
    assert_ne!(first.id, second.id, "backups have ids of their own");
    for repository in [&stage.repository, &other, &harness.reopen(stage.repository.service()).await] {
        let catalog = repository.catalog().await.expect("the catalog can be read");
        let mut ids: Vec<_> = catalog.backups().map(|r| r.id).collect();
        ids.sort_unstable();
        let mut expected = vec![base.id, first.id, second.id];
        expected.sort_unstable();
        assert_eq!(ids, expected, "backups");
    }
    stage.assert_holds(base.id, &[("file", &base_bytes)]).await;
    stage.assert_holds(first.id, &[("file", &a), ("first", &base_bytes)]).await;
    stage.assert_holds(second.id, &[("file", &b), ("second", &base_bytes)]).await;
}

/// A session that somebody else has ended cannot commit any more, and others can.
pub async fn fenced_sessions_cannot_commit(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let bytes = noise(1, MIB);
    let session = stage.begin(ParentChoice::None).await;
    let id = session.id();
    put_all(session.sink().as_ref(), &[("file", &bytes)]).await;
    if !harness.fence(stage.repository.service(), id).await {
        tracing::warn!("the harness cannot fence: the case fenced_sessions_cannot_commit is skipped");
        return;
    }
    let error = session.commit(stage.snapshot()).await.expect_err("a fenced session must not commit");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let catalog = stage.repository.catalog().await.expect("the catalog can be read");
    assert_eq!(catalog.backups().count(), 0, "backups");
    assert_eq!(catalog.session(id), Some(&SessionState::Closed(CloseReason::Fenced)), "the fenced session");
    let record = stage.store(ParentChoice::Newest, &[("file", &bytes)]).await;
    stage.assert_holds(record.id, &[("file", &bytes)]).await;
}

/// A path is put once, in whatever way; the first one stays.
pub async fn duplicate_paths_are_refused(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let dir = scratch();
    let local = super::stage::write(dir.path(), "local", b"from a file");
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    let session = stage.begin(ParentChoice::None).await;
    let sink = session.sink();
    put_all(sink.as_ref(), &[("file", &first)]).await;
    let errors = [
        sink.put_bytes(file("file"), second).await.map(drop),
        sink.put_file(LocalFile::new(local, file("file"))).await.map(drop),
        sink.put_node(crate::entry::EntryMeta::directory(path("file"))).await,
    ];
    for error in errors {
        let error = error.expect_err("the path is taken");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("file"), "the message names the path: {error}");
    }
    drop(sink);
    let record = stage.commit(session).await;
    stage.assert_holds(record.id, &[("file", &first)]).await;
    assert_eq!(record.entries, 1, "entries");
}

/// A put that failed by its own body has put nothing: its path is free, and the session goes on.
pub async fn failed_puts_put_nothing(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let bytes = noise(1, 3 * MIB);
    let session = stage.begin(ParentChoice::None).await;
    let sink = session.sink();
    for name in ["again", "never"] {
        let failing = [Ok(bytes.clone()), Err(Error::unavailable("the source went away"))];
        let error =
            sink.put_stream(file(name), stream::iter(failing).boxed(), None).await.expect_err("the body failed");
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "the source went away"), "unchanged");
    }
    put_all(sink.as_ref(), &[("other", &bytes), ("again", &bytes)]).await;
    drop(sink);
    let record = stage.commit(session).await;
    stage.assert_holds(record.id, &[("again", &bytes), ("other", &bytes)]).await;
    assert_eq!((record.entries, record.data_bytes), (2, 6 * MIB as u64), "nothing of the failed puts is counted");
}
