//! Backups and targets that try to get a restore to write outside of its directories.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bytes::Bytes;

use super::RepositoryHarness;
use super::stage::{Stage, delta, extract, file, path, put_meta, scratch, write};
use crate::engine::{BackupSinkExt, Extract};
use crate::entry::{EntryKind, EntryMeta};
use crate::repository::ParentChoice;

/// A link that would lead out of the target is not made; one that stays inside is.
pub async fn escaping_links_are_refused(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    for (at, to, inside) in [
        ("link", "/etc/passwd", false),
        ("link", "..", false),
        ("a/link", "../../outside", false),
        ("a/link", "b/../../../outside", false),
        ("a/link", "../b", true),
        ("a/link", "b", true),
        ("link", "a/missing", true),
    ] {
        let session = stage.begin(ParentChoice::None).await;
        let meta = EntryMeta::new(path(at), EntryKind::Symlink { target: to.as_bytes().to_vec() });
        session.sink().put_node(meta).await.expect("a link can be put, whatever it says");
        let record = stage.commit(session).await;
        let source = stage.open(record.id).await;
        let target = scratch();
        for order in [Extract::into_dir(target.path()), delta(target.path())] {
            let outcome = extract(source.as_ref(), order).await;
            assert_eq!(outcome.is_ok(), inside, "{at} to {to}: {outcome:?}");
            assert_eq!(fs::symlink_metadata(target.path().join(at)).is_ok(), inside, "{at} to {to}");
            if inside {
                assert_eq!(fs::read_link(target.path().join(at)).expect("it is a link"), Path::new(to));
                fs::remove_file(target.path().join(at)).expect("it can be removed");
            }
        }
        // An engine that makes the link itself leaves it out.
        let target = scratch();
        let except = Extract::into_dir(target.path()).with_except([path(at)]);
        extract(source.as_ref(), except).await.expect("what is left out is not refused");
        assert!(fs::symlink_metadata(target.path().join(at)).is_err(), "{at} was left out");
    }
}

/// Links that lie in the target are never written through, neither as the file itself nor as a folder above it.
pub async fn links_in_the_target_are_not_followed(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let content = Bytes::from_static(b"from the backup");
    let session = stage.begin(ParentChoice::None).await;
    let sink = session.sink();
    sink.put_node(EntryMeta::directory(path("folder"))).await.expect("a folder can be put");
    put_meta(sink.as_ref(), file("folder/file"), &content).await;
    put_meta(sink.as_ref(), file("implied/deep/file"), &content).await;
    drop(sink);
    let record = stage.commit(session).await;
    let source = stage.open(record.id).await;

    for trap in ["folder", "folder/file", "implied", "implied/deep", "implied/deep/file"] {
        for replace in [false, true] {
            let (target, outside) = (scratch(), scratch());
            write(outside.path(), "file", b"precious");
            write(outside.path(), "deep/file", b"precious");
            let place = target.path().join(trap);
            fs::create_dir_all(place.parent().expect("it has a parent")).expect("folders can be made");
            let aim = if trap.ends_with("file") { outside.path().join("file") } else { outside.path().to_owned() };
            symlink(aim, &place).expect("a link can be made");
            let order = if replace { delta(target.path()) } else { Extract::into_dir(target.path()) };
            let outcome = extract(source.as_ref(), order).await;
            let (mut found, mut folders) = (Vec::new(), vec![outside.path().to_owned()]);
            while let Some(folder) = folders.pop() {
                for item in fs::read_dir(folder).expect("it can be listed") {
                    let item = item.expect("it can be listed").path();
                    if item.is_dir() { folders.push(item) } else { found.push(item) }
                }
            }
            assert_eq!(found.len(), 2, "files came or went outside of the target through {trap}: {found:?}");
            for item in found {
                assert_eq!(fs::read(item).expect("it can be read"), b"precious", "written through {trap}");
            }
            if !replace {
                assert!(outcome.is_err(), "{trap} is in the way, but nothing was said");
            }
            if outcome.is_ok() {
                for name in ["folder/file", "implied/deep/file"] {
                    let real = target.path().join(name).canonicalize().expect("it is there");
                    let root = target.path().canonicalize().expect("it is there");
                    assert!(real.starts_with(root), "{name} lies behind {trap}");
                    assert_eq!(fs::read(real).expect("it can be read"), content, "{name}");
                }
            }
        }
    }
}

/// Records are for engines only.
pub async fn records_never_become_files(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let content = Bytes::from_static(b"content");
    let session = stage.begin(ParentChoice::None).await;
    let sink = session.sink();
    put_meta(sink.as_ref(), EntryMeta::record(path("record")), &content).await;
    put_meta(sink.as_ref(), EntryMeta::record(path("records/inner")), &content).await;
    put_meta(sink.as_ref(), file("file"), &content).await;
    drop(sink);
    let record = stage.commit(session).await;
    let source = stage.open(record.id).await;
    let target = scratch();
    for order in [Extract::into_dir(target.path()), delta(target.path()).with_last([path("record")])] {
        let done = extract(source.as_ref(), order).await.expect("it can be extracted");
        assert_eq!((done.entries, done.bytes), (1, content.len() as u64), "records are not extracted");
        let names: Vec<_> = fs::read_dir(target.path())
            .expect("it can be listed")
            .map(|item| item.expect("it can be listed").file_name())
            .collect();
        assert_eq!(names, ["file"], "what the target has");
    }
}
