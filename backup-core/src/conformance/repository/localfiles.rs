//! Files of this host: what is taken from them, what is not read, what passes the inspector.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::RepositoryHarness;
use super::stage::{Stage, content, file, path, put_local, scratch, write};
use crate::conformance::bytes::{BLOCK, MIB, assert_same, noise};
use crate::engine::{BackupSinkExt, BlockInspector, LocalFile, OnShrink, Put, Unchanged};
use crate::repository::ParentChoice;

fn set_modified(path: &Path, time: Timestamp) {
    let file = OpenOptions::new().write(true).open(path).expect("the file can be opened");
    let since = u64::try_from(time.as_microsecond()).expect("cases use times after 1970");
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_micros(since)).expect("its time can be set");
}

/// Mode and time are those of the file, not those that were given.
pub async fn local_files_bring_their_facts(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let dir = scratch();
    let local = write(dir.path(), "file", b"content");
    std::fs::set_permissions(&local, PermissionsExt::from_mode(0o640)).expect("its mode can be set");
    let modified = Timestamp::from_microsecond(1_600_000_000_123_456).expect("it is a valid time");
    set_modified(&local, modified);
    let session = stage.begin(ParentChoice::None).await;
    let given = file("file").with_mode(0o777).with_modified(Some(stage.env.now()));
    put_local(session.sink().as_ref(), LocalFile::new(local, given)).await;
    let record = stage.commit(session).await;
    let entry = stage.open(record.id).await.entry(&path("file")).await.expect("it can be asked").expect("it is there");
    assert_eq!(entry.meta.mode, 0o640, "mode");
    assert_eq!(entry.meta.modified, Some(modified), "time of the last modification");
}

/// A file that is gone is reported as such and takes no path; a link is never followed.
pub async fn vanished_and_odd_files(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let dir = scratch();
    let real = write(dir.path(), "real", b"behind the link");
    std::os::unix::fs::symlink(&real, dir.path().join("link")).expect("a link can be made");
    std::fs::create_dir(dir.path().join("folder")).expect("a folder can be made");
    let session = stage.begin(ParentChoice::None).await;
    let sink = session.sink();
    let missing = LocalFile::new(dir.path().join("missing"), file("missing"));
    assert_eq!(sink.put_file(missing.clone()).await.expect("that is no error"), Put::Vanished);
    for odd in ["link", "folder"] {
        let outcome = sink.put_file(LocalFile::new(dir.path().join(odd), file(odd))).await;
        assert!(outcome.is_err(), "a {odd} was put as a file: {outcome:?}");
    }
    // It has come back, so it can be put.
    write(dir.path(), "missing", b"here again");
    put_local(sink.as_ref(), missing).await;
    drop(sink);
    let record = stage.commit(session).await;
    stage.assert_holds(record.id, &[("missing", &Bytes::from_static(b"here again"))]).await;
}

/// Notes what passes.
#[derive(Debug, Default)]
struct Notes(Mutex<Vec<(u64, Vec<u8>)>>);

impl BlockInspector for Notes {
    fn inspect(&self, offset: u64, bytes: &[u8]) {
        self.0.lock().push((offset, bytes.to_vec()));
    }
}

impl Notes {
    /// Panics unless exactly `content` has passed, in parts that keep to the rules.
    fn assert_saw(&self, content: &[u8], what: &str) {
        let mut parts = self.0.lock().clone();
        parts.sort_by_key(|(offset, _)| *offset);
        let mut next = 0;
        for (offset, bytes) in &parts {
            assert_eq!(*offset, next, "parts of {what} must meet without overlap");
            assert!(!bytes.is_empty() && bytes.len() <= MIB, "a part of {what} has {} bytes", bytes.len());
            next += bytes.len() as u64;
            let aligned = |at: u64| at.is_multiple_of(BLOCK as u64);
            assert!(aligned(*offset), "a part of {what} begins at {offset}");
            assert!(aligned(next) || next == content.len() as u64, "a part of {what} ends at {next}");
        }
        let seen: Vec<u8> = parts.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert_same(&seen, content, format_args!("what the inspector saw of {what}"));
    }
}

/// An inspector sees every byte once, in parts that begin and end at blocks, also of content that is not stored again.
pub async fn inspectors_see_everything_once(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let dir = scratch();
    let mut zeros = vec![0; 3 * MIB];
    zeros[MIB] = 1;
    let contents = [noise(1, 5 * MIB + 123), Bytes::from(zeros), noise(2, BLOCK), noise(3, 1), Bytes::new()];
    for round in 0..2 {
        let session = stage.begin(ParentChoice::Newest).await;
        let sink = session.sink();
        for (number, bytes) in contents.iter().enumerate() {
            let notes = Arc::new(Notes::default());
            let name = format!("local-{number}");
            let local = LocalFile::new(write(dir.path(), &name, bytes), file(&name));
            put_local(sink.as_ref(), local.with_inspector(Arc::clone(&notes) as Arc<dyn BlockInspector>)).await;
            notes.assert_saw(bytes, &format!("{name} in round {round}"));

            let notes = Arc::new(Notes::default());
            let name = format!("stream-{number}");
            let pieces: Vec<_> = bytes.chunks(77_777).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
            let inspector = Arc::clone(&notes) as Arc<dyn BlockInspector>;
            let put = sink.put_stream(file(&name), stream::iter(pieces).boxed(), Some(inspector)).await;
            put.expect("a stream can be put");
            notes.assert_saw(bytes, &format!("{name} in round {round}"));
        }
        drop(sink);
        stage.commit(session).await;
    }
}

/// A file of the parent's size and time is taken unread when that time is old enough, and read when it is not.
pub async fn unchanged_files_are_not_read(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let dir = scratch();
    let (before, after) = (noise(1, MIB + 5), noise(2, MIB + 5));
    let began = stage.env.now();
    let ago = |by: Duration| began.checked_sub(by).expect("the harness's clock is not at the beginning of time");
    // Name, age at the parent's start, whether it is believed to be unchanged.
    let files = [
        ("old", ago(Duration::from_secs(3600)), true),
        ("just-old-enough", ago(Duration::from_millis(2100)), true),
        ("young", ago(Duration::from_millis(1900)), false),
        ("same-moment", began, false),
        ("future", began.checked_add(Duration::from_secs(60)).expect("time goes on"), false),
    ];
    let local = |name: &str, bytes: &Bytes, time: Timestamp| {
        let path = write(dir.path(), name, bytes);
        set_modified(&path, time);
        LocalFile::new(path, file(name)).with_unchanged(Unchanged::BySizeAndTime)
    };
    let session = stage.begin(ParentChoice::None).await;
    for (name, time, _) in files {
        let stored = put_local(session.sink().as_ref(), local(name, &before, time)).await;
        assert!(!stored.unread, "{name} cannot be known without a parent");
    }
    let parent = stage.commit(session).await;

    // Changed behind our back, with size and time as before: only what may not be trusted is noticed.
    let session = stage.begin(ParentChoice::Backup(parent.id)).await;
    let sink = session.sink();
    for (name, time, trusted) in files {
        let notes = Arc::new(Notes::default());
        let inspector = Arc::clone(&notes) as Arc<dyn BlockInspector>;
        let stored = put_local(sink.as_ref(), local(name, &after, time).with_inspector(inspector)).await;
        assert_eq!(stored.unread, trusted, "whether {name} was taken unread");
        assert_eq!(notes.0.lock().is_empty(), trusted, "whether {name} did not pass the inspector");
        assert_eq!(stored.len, after.len() as u64, "length of {name}");
        assert!(!trusted || stored.new_bytes == 0, "{name} was stored again");
    }
    drop(sink);
    let record = stage.commit(session).await;
    let source = stage.open(record.id).await;
    for (name, _, trusted) in files {
        let expected = if trusted { &before } else { &after };
        assert_same(&content(source.as_ref(), &path(name)).await, expected, name);
    }

    // Another size or another time is always read, and so is everything where the rule was not given.
    let session = stage.begin(ParentChoice::Backup(parent.id)).await;
    let sink = session.sink();
    let old = files[0].1;
    let longer = noise(3, MIB + 6);
    let stored = put_local(sink.as_ref(), local("old", &longer, old)).await;
    assert!(!stored.unread, "a file of another size was taken unread");
    let earlier = old.checked_sub(Duration::from_secs(1)).expect("time goes back");
    let stored = put_local(sink.as_ref(), local("just-old-enough", &after, earlier)).await;
    assert!(!stored.unread, "a file of another time was taken unread");
    let ruled = local("young", &after, files[2].1).with_unchanged(Unchanged::Never);
    assert!(!put_local(sink.as_ref(), ruled).await.unread, "a file was taken unread although that was forbidden");
    let other_name = LocalFile { meta: file("other-name"), ..local("old", &after, old) };
    assert!(
        !put_local(sink.as_ref(), other_name).await.unread,
        "a file that the parent does not have was taken unread"
    );
    drop(sink);
    let record = stage.commit(session).await;
    let expected = [("old", &longer), ("just-old-enough", &after), ("young", &after), ("other-name", &after)];
    stage.assert_holds(record.id, &expected).await;
}

/// Changes a file when the first of it passes.
#[derive(Debug)]
struct Saboteur {
    file: PathBuf,
    len: u64,
}

impl BlockInspector for Saboteur {
    fn inspect(&self, _: u64, _: &[u8]) {
        let file = OpenOptions::new().write(true).open(&self.file).expect("the file can be opened");
        file.set_len(self.len).expect("its length can be changed");
    }
}

/// A file that shrinks while it is read is padded or refused, one that grows is cut at the length it had; never a mixture.
pub async fn files_that_change_while_read(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let dir = scratch();
    let bytes = noise(1, 24 * MIB);
    let local = |name: &str, len: usize, rule: OnShrink| {
        let path = write(dir.path(), name, &bytes);
        let saboteur = Saboteur { file: path.clone(), len: len as u64 };
        LocalFile::new(path, file(name)).with_on_shrink(rule).with_inspector(Arc::new(saboteur))
    };
    let session = stage.begin(ParentChoice::None).await;
    let sink = session.sink();
    let stored = put_local(sink.as_ref(), local("padded", MIB + 1, OnShrink::PadWithZeros)).await;
    assert_eq!(stored.len, bytes.len() as u64, "a padded file has the length that it had when it was opened");
    let stored = put_local(sink.as_ref(), local("grown", 25 * MIB, OnShrink::Fail)).await;
    assert_eq!(stored.len, bytes.len() as u64, "a growing file has the length that it had when it was opened");
    // A reader that is far enough ahead does not notice; one that does must say so.
    let strict = sink.put_file(local("strict", MIB + 1, OnShrink::Fail)).await;
    sink.put_bytes(file("after"), Bytes::from_static(b"after")).await.expect("the session goes on");
    drop(sink);
    let record = stage.commit(session).await;
    let source = stage.open(record.id).await;

    let padded = content(source.as_ref(), &path("padded")).await;
    assert_same(&padded[..=MIB], &bytes[..=MIB], "what was never cut off");
    let wrong = padded.iter().zip(&bytes).position(|(got, was)| got != was && *got != 0);
    assert_eq!(wrong, None, "a byte of a padded file is neither what it was nor zero");
    assert_same(&content(source.as_ref(), &path("grown")).await, &bytes, "a growing file");
    let entry = source.entry(&path("strict")).await.expect("it can be asked");
    assert_eq!(entry.is_some(), strict.is_ok(), "a refused file is not part of the backup");
    if entry.is_some() {
        assert_same(&content(source.as_ref(), &path("strict")).await, &bytes, "a file that was read in time");
    }

    // Cut before it is opened again, so that nobody can be ahead: what was opened is what counts.
    let short = dir.path().join("padded");
    File::open(&short).and_then(|f| f.metadata()).map(|m| assert_eq!(m.len(), MIB as u64 + 1)).expect("it is there");
    let session = stage.begin(ParentChoice::Backup(record.id)).await;
    let rule = LocalFile::new(short, file("padded")).with_on_shrink(OnShrink::PadWithZeros);
    assert_eq!(put_local(session.sink().as_ref(), rule).await.len, MIB as u64 + 1, "length of the shorter file");
    let record = stage.commit(session).await;
    stage.assert_holds(record.id, &[("padded", &bytes.slice(..=MIB))]).await;
}
