//! Extraction into directories.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::RepositoryHarness;
use super::stage::{Stage, delta, extract, file, path, put_meta, scratch, write};
use crate::catalog::BackupRecord;
use crate::conformance::bytes::{BLOCK, MIB, assert_same, noise, patched, text};
use crate::engine::{BackupSinkExt, Extract};
use crate::entry::{EntryKind, EntryMeta, Selector};
use crate::error::ErrorKind;
use crate::repository::ParentChoice;

/// What the backup of these cases consists of.
struct Fixture {
    record: BackupRecord,
    /// Name, mode and content of its files.
    files: Vec<(&'static str, u32, Bytes)>,
}

impl Fixture {
    async fn store(stage: &Stage) -> Self {
        let files = vec![
            ("base/1/data", 0o600, noise(1, 3 * MIB + 77)),
            ("base/1/empty", 0o640, Bytes::new()),
            ("base/1/zeros", 0o600, vec![0; MIB].into()),
            ("base/2/data", 0o400, text(2, MIB)),
            ("deep/er/and/deeper/file", 0o600, noise(3, 10)),
            ("global/control", 0o600, noise(4, 8192)),
            ("spaces/7/inner/data", 0o600, noise(5, BLOCK)),
            ("spaces/7/top", 0o600, noise(6, 100)),
        ];
        let session = stage.begin(ParentChoice::None).await;
        let sink = session.sink();
        for (folder, mode) in [
            ("base", 0o750),
            ("base/1", 0o700),
            ("base/2", 0o500),
            ("hollow", 0o711),
            ("global", 0o700),
            ("spaces", 0o700),
        ] {
            sink.put_node(EntryMeta::directory(path(folder)).with_mode(mode)).await.expect("a folder can be put");
        }
        for (name, mode, bytes) in &files {
            put_meta(sink.as_ref(), file(name).with_mode(*mode), bytes).await;
        }
        let link = EntryMeta::new(path("base/2/link"), EntryKind::Symlink { target: b"../1/data".to_vec() });
        sink.put_node(link).await.expect("a link can be put");
        drop(sink);
        Self { record: stage.commit(session).await, files }
    }

    fn bytes(&self, chosen: impl Fn(&str) -> bool) -> u64 {
        self.files.iter().filter(|(name, ..)| chosen(name)).map(|(.., bytes)| bytes.len() as u64).sum()
    }

    /// Panics unless `target` has all of it, each with its mode.
    fn assert_at(&self, target: &Path) {
        for (name, mode, bytes) in &self.files {
            assert_file(&target.join(name), bytes);
            assert_eq!(mode_of(&target.join(name)), *mode, "mode of {name}");
        }
        for (folder, mode) in [("base", 0o750), ("base/1", 0o700), ("base/2", 0o500), ("hollow", 0o711)] {
            assert_eq!(mode_of(&target.join(folder)), mode, "mode of {folder}");
        }
        let link = fs::read_link(target.join("base/2/link")).expect("the link is there");
        assert_eq!(link, Path::new("../1/data"), "where the link leads");
    }
}

#[track_caller]
fn assert_file(path: &Path, bytes: &[u8]) {
    let kind = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).file_type();
    assert!(kind.is_file(), "{} is no regular file", path.display());
    assert_same(&fs::read(path).expect("an extracted file can be read"), bytes, path.display());
}

#[track_caller]
fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o7777
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Every entry goes where the order says: its root, elsewhere by the longest path, or nowhere.
pub async fn extract_places_everything(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let fixture = Fixture::store(&stage).await;
    let source = stage.open(fixture.record.id).await;
    let target = scratch();
    let done = extract(source.as_ref(), Extract::into_dir(target.path())).await.expect("it can be extracted");
    fixture.assert_at(target.path());
    assert_eq!(done.entries, fixture.record.entries, "entries of the target");
    assert_eq!(done.bytes, fixture.bytes(|_| true), "bytes of the target");
    let solid = fixture.bytes(|name| !name.ends_with("zeros"));
    // Zeros need not be written into a new file.
    assert!((solid..=done.bytes).contains(&done.written_bytes), "written bytes: {}", done.written_bytes);
    assert_eq!(done.removed, 0, "removed files");

    let (root, space, inner) = (scratch(), scratch(), scratch());
    let order = Extract::into_dir(root.path())
        .with_elsewhere(path("spaces/7"), space.path())
        .with_elsewhere(path("spaces/7/inner"), inner.path())
        .with_selector(Selector::within([path("spaces"), path("base/1")]))
        .with_except([path("base/1/empty")]);
    let done = extract(source.as_ref(), order).await.expect("it can be extracted");
    for (name, _, bytes) in &fixture.files {
        let place = match *name {
            "spaces/7/inner/data" => inner.path().join("data"),
            "spaces/7/top" => space.path().join("top"),
            name => root.path().join(name),
        };
        if *name == "base/1/empty" || name.starts_with("base/2") || name.starts_with("g") || name.starts_with("d") {
            assert!(!exists(&place), "{name} was not to be extracted");
        } else {
            assert_file(&place, bytes);
        }
    }
    assert!(!exists(&root.path().join("spaces/7/top")) && !exists(&space.path().join("inner/data")), "placed twice");
    assert!(!exists(&root.path().join("hollow")), "a folder that was not chosen");
    let chosen = |name: &str| name.starts_with("spaces") || name.starts_with("base/1");
    assert_eq!(done.bytes, fixture.bytes(chosen), "bytes of a part");
}

/// Nothing that exists is written over unless that was ordered.
pub async fn extract_refuses_existing(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let fixture = Fixture::store(&stage).await;
    let source = stage.open(fixture.record.id).await;
    for name in ["base/1/data", "base/1/empty", "spaces/7/top", "global/control", "base/2/link"] {
        let target = scratch();
        let place = write(target.path(), name, b"precious");
        let order = Extract::into_dir(target.path()).with_last([path("global/control")]);
        let error = extract(source.as_ref(), order).await.expect_err("a file is in the way");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}: {error}");
        assert_file(&place, b"precious");
        assert!(
            name == "global/control" || !exists(&target.path().join("global/control")),
            "the last thing was written"
        );
    }
    // Folders that exist are no obstacle, and neither is what the backup does not have.
    let target = scratch();
    fs::create_dir_all(target.path().join("base/1")).expect("folders can be made");
    write(target.path(), "stranger", b"stays");
    extract(source.as_ref(), Extract::into_dir(target.path())).await.expect("nothing is in the way");
    fixture.assert_at(target.path());
    assert_file(&target.path().join("stranger"), b"stays");
    // A directory that must exist, but does not.
    let missing = target.path().join("missing");
    let error = extract(source.as_ref(), Extract::into_dir(&missing)).await.expect_err("there is no such directory");
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
}

/// What makes a target startable is there after everything else, and not at all when the extraction did not end.
pub async fn extract_writes_last_things_last(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let fixture = Fixture::store(&stage).await;
    let source = stage.open(fixture.record.id).await;
    let last = path("global/control");
    let target = scratch();
    let order = Extract::into_dir(target.path()).with_last([last.clone()]);
    let done = extract(source.as_ref(), order).await.expect("it can be extracted");
    fixture.assert_at(target.path());
    assert_eq!(done.entries, fixture.record.entries, "last things are counted");

    // A complete target in which something else is repaired: it is not startable before that is done.
    write(target.path(), "base/1/data", b"broken");
    fs::remove_file(target.path().join("base/1/zeros")).expect("a file can be removed");
    for order in [delta(target.path()).with_last([last.clone()]), delta(target.path()).with_last([last.clone()])] {
        extract(source.as_ref(), order).await.expect("it can be extracted");
        fixture.assert_at(target.path());
    }

    // A backup that cannot be extracted whole.
    let session = stage.begin(ParentChoice::None).await;
    let sink = session.sink();
    let escape = EntryMeta::new(path("z"), EntryKind::Symlink { target: b"../../outside".to_vec() });
    sink.put_node(escape).await.expect("a link can be put");
    put_meta(sink.as_ref(), file("a"), &Bytes::from_static(b"a")).await;
    put_meta(sink.as_ref(), file("control"), &Bytes::from_static(b"control")).await;
    drop(sink);
    let record = stage.commit(session).await;
    let target = scratch();
    let order = Extract::into_dir(target.path()).with_last([path("control")]);
    let outcome = extract(stage.open(record.id).await.as_ref(), order).await;
    assert!(outcome.is_err(), "a link out of the target was extracted");
    assert!(!exists(&target.path().join("control")), "an extraction that failed has made its target startable");
}

/// A delta writes blocks that differ and nothing else.
pub async fn extract_delta_writes_what_differs(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let fixture = Fixture::store(&stage).await;
    let source = stage.open(fixture.record.id).await;
    let target = scratch();
    let root = target.path();
    extract(source.as_ref(), delta(root)).await.expect("a delta into an empty directory is possible");
    fixture.assert_at(root);
    let done = extract(source.as_ref(), delta(root)).await.expect("it can be repeated");
    assert_eq!((done.written_bytes, done.removed), (0, 0), "nothing differs");
    assert_eq!(done.bytes, fixture.bytes(|_| true), "bytes of the target");
    fixture.assert_at(root);

    let name = "base/1/data";
    let (_, _, original) = &fixture.files[0];
    let grown = [original.as_ref(), b"and more"].concat();
    let broken: [(&str, Bytes, usize); 5] = [
        ("one byte", patched(original, 2 * MIB + 1, 1), MIB),
        ("the last byte", patched(original, original.len() - 1, 1), MIB),
        ("cut off", original.slice(..3 * MIB), MIB),
        ("longer", grown.into(), MIB),
        ("all of it", patched(original, 0, original.len()), original.len()),
    ];
    for (what, bytes, most) in broken {
        let place = write(root, name, &bytes);
        fs::set_permissions(&place, PermissionsExt::from_mode(0o644)).expect("its mode can be set");
        let done = extract(source.as_ref(), delta(root)).await.expect("it can be repaired");
        fixture.assert_at(root);
        assert!(done.written_bytes <= most as u64, "{what}: {} bytes were written", done.written_bytes);
        assert!(what == "longer" || done.written_bytes > 0, "{what}: what was repaired is counted");
    }
    // Zeros where the target has something else.
    write(root, "base/1/zeros", noise(8, MIB));
    extract(source.as_ref(), delta(root)).await.expect("it can be repaired");
    fixture.assert_at(root);
}

/// A delta removes what the backup does not have, except what it is told to keep, in the folders that it extracts.
pub async fn extract_keeps_and_removes(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let fixture = Fixture::store(&stage).await;
    let source = stage.open(fixture.record.id).await;
    let (target, space) = (scratch(), scratch());
    let root = target.path();
    let order = || delta(root).with_elsewhere(path("spaces/7"), space.path()).with_except([path("base/1/empty")]);
    extract(source.as_ref(), order()).await.expect("it can be extracted");
    let doomed =
        ["stranger", "base/1/stranger", "base/9/deep/stranger", "hollow/stranger"].map(|n| write(root, n, b"x"));
    let doomed_elsewhere = write(space.path(), "inner/stranger", b"x");
    std::os::unix::fs::symlink("/nowhere", root.join("dangling")).expect("a link can be made");
    let kept = ["kept", "keeper/deep/file", "base/1/empty"].map(|n| write(root, n, b"x"));
    let keep = order().with_keep([path("kept"), path("keeper")]);
    let part = keep.clone().with_selector(Selector::within([path("base/1")]));

    let done = extract(source.as_ref(), part).await.expect("a part can be extracted");
    assert!(!exists(&doomed[1]), "a stranger in the extracted part stays");
    assert!(
        [0, 2, 3].iter().all(|i| exists(&doomed[*i])) && exists(&doomed_elsewhere),
        "outside of the part it is left"
    );
    assert_eq!(done.removed, 1, "removed files of the part");

    let done = extract(source.as_ref(), keep).await.expect("it can be extracted");
    for gone in doomed.iter().chain([&doomed_elsewhere, &root.join("dangling"), &root.join("base/9")]) {
        assert!(!exists(gone), "{} was to be removed", gone.display());
    }
    assert_eq!(done.removed, 5, "removed files and links");
    for stays in &kept {
        assert_file(stays, b"x");
    }
    for (name, _, bytes) in fixture.files.iter().filter(|(name, ..)| *name != "base/1/empty") {
        match name.strip_prefix("spaces/7/") {
            Some(below) => assert_file(&space.path().join(below), bytes),
            None => assert_file(&root.join(name), bytes),
        }
    }
}

/// An extraction that was cancelled, at whatever moment, is completed by a delta that keeps what is right.
pub async fn extract_resumes(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let fixture = Fixture::store(&stage).await;
    let source = stage.open(fixture.record.id).await;
    let last = path("global/control");
    let target = scratch();
    let root = target.path();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let order = Extract::into_dir(root).with_last([last.clone()]);
    let error =
        source.extract(order.clone(), &stage.work().with_cancel(cancelled)).await.expect_err("it was cancelled");
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    assert!(!exists(&last.under(root)), "a cancelled extraction has made its target startable");

    // Dropped after some steps. Whoever works on in the background must not make the target startable either.
    for polls in [1, 2, 5, 7] {
        let target = scratch();
        let order = Extract::into_dir(target.path()).with_last([last.clone()]);
        let work = stage.work();
        let mut running = Box::pin(source.extract(order, &work));
        let mut ended = false;
        for _ in 0..polls {
            ended = ended || futures::poll!(running.as_mut()).is_ready();
        }
        drop(running);
        assert!(ended || !exists(&last.under(target.path())), "a dropped extraction has made its target startable");
    }

    // Half of it is there, one file of it only in part.
    let half = Extract::into_dir(root).with_selector(Selector::within([path("base/1")]));
    extract(source.as_ref(), half).await.expect("a part can be extracted");
    let (_, _, data) = &fixture.files[0];
    write(root, "base/1/data", &data[..2 * MIB]);
    let inode = fs::metadata(root.join("base/1/data")).expect("it is there").ino();
    let resumed = delta(root).with_last([last]);
    let done = extract(source.as_ref(), resumed).await.expect("it can be completed");
    fixture.assert_at(root);
    let there = 2 * MIB as u64 - BLOCK as u64;
    assert!(done.written_bytes <= done.bytes - there, "what was there was written again: {}", done.written_bytes);
    assert_eq!(
        fs::metadata(root.join("base/1/data")).expect("it is there").ino(),
        inode,
        "a file is repaired in place"
    );
}
