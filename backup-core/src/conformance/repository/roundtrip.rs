//! What is put comes back: contents of every size and kind, and entries without content.

use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::RepositoryHarness;
use super::stage::{Stage, content, entries, extract, file, path, put_local, scratch, write};
use crate::conformance::bytes::{BLOCK, KIB, MIB, assert_same, noise, text};
use crate::engine::{BackupSinkExt, Extract, LocalFile};
use crate::entry::{EntryKind, EntryMeta, Selector};
use crate::repository::ParentChoice;

/// Contents of every size around the units of the format, random, compressible, zero and sparse, put as bytes and as local
/// files, read and extracted.
pub async fn contents_of_every_size(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let dir = scratch();
    let mut contents: Vec<(String, Bytes)> = Vec::new();
    for (seed, len) in
        (0..).zip([0, 1, 2, 4096, BLOCK - 1, BLOCK, BLOCK + 1, MIB - 1, MIB, MIB + 1, 3 * MIB, 3 * MIB + 1])
    {
        contents.push((format!("noise/{len}"), noise(seed, len)));
        contents.push((format!("text/{len}"), text(seed, len)));
    }
    contents.push(("large/noise".into(), noise(99, 20 * MIB)));
    contents.push(("large/text".into(), text(98, 5 * MIB + 17)));
    contents.push(("large/zeros".into(), vec![0; 5 * MIB + 1].into()));
    let mut sparse = vec![0; 6 * MIB];
    sparse[2 * MIB + 5..2 * MIB + 10].copy_from_slice(b"islet");
    sparse[4 * MIB..4 * MIB + BLOCK].copy_from_slice(&noise(97, BLOCK));
    contents.push(("large/sparse".into(), sparse.into()));

    let session = stage.begin(ParentChoice::None).await;
    let sink = session.sink();
    for (name, bytes) in &contents {
        let stored = sink.put_bytes(file(&format!("stream/{name}")), bytes.clone()).await.expect("content can be put");
        assert_eq!((stored.len, stored.unread), (bytes.len() as u64, false), "outcome of {name}");
        let local = write(dir.path(), name, bytes);
        let stored = put_local(sink.as_ref(), LocalFile::new(local, file(&format!("local/{name}")))).await;
        assert_eq!((stored.len, stored.unread), (bytes.len() as u64, false), "outcome of local {name}");
    }
    // A hole of the file system instead of written zeros.
    let holes = std::fs::File::create(dir.path().join("holes")).expect("a temporary file can be made");
    holes.set_len(4 * MIB as u64).expect("a file can be enlarged");
    put_local(sink.as_ref(), LocalFile::new(dir.path().join("holes"), file("local/holes"))).await;
    drop(sink);
    let record = stage.commit(session).await;

    contents.push(("holes".into(), vec![0; 4 * MIB].into()));
    let source = stage.open(record.id).await;
    let target = scratch();
    extract(source.as_ref(), Extract::into_dir(target.path())).await.expect("everything can be extracted");
    for (name, bytes) in &contents {
        for way in ["stream", "local"].into_iter().filter(|way| *way == "local" || name != "holes") {
            let name = format!("{way}/{name}");
            assert_same(&content(source.as_ref(), &path(name.as_str())).await, bytes, &name);
            let extracted = std::fs::read(target.path().join(&name)).expect("an extracted file can be read");
            assert_same(&extracted, bytes, format_args!("extracted {name}"));
        }
    }
}

/// Records, folders, links, permission bits, times, identities and names that are not UTF-8 come back as they were.
pub async fn special_entries(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let modified = Some(stage.env.now());
    let identity = crate::entry::ContentIdentity::new(*b"identity").expect("it is a valid identity");
    let metas = [
        EntryMeta::directory(path("folder")).with_mode(0o750),
        EntryMeta::file(path("folder/file")).with_mode(0o4755).with_modified(modified).with_identity(identity),
        EntryMeta::new(path("folder/link"), EntryKind::Symlink { target: b"file\xff".to_vec() }),
        EntryMeta::record(path("record")),
        EntryMeta::file(path(b"\xff\xfe/\x01 \n'\"\\".to_vec())),
        EntryMeta::file(path(vec![b'n'; 255])),
    ];
    let session = stage.begin(ParentChoice::None).await;
    let sink = session.sink();
    let mut expected = Vec::new();
    for meta in metas {
        let bytes = Bytes::from(format!("content of {}", meta.path));
        let len = if matches!(meta.kind, EntryKind::File | EntryKind::Record) {
            sink.put_bytes(meta.clone(), bytes.clone()).await.expect("content can be put").len
        } else {
            sink.put_node(meta.clone()).await.expect("an entry without content can be put");
            0
        };
        expected.push((meta, len, bytes));
    }
    drop(sink);
    let record = stage.commit(session).await;
    assert_eq!(record.entries, expected.len() as u64, "number of entries");

    let source = harness.reopen(stage.repository.service()).await.open(record.id).await.expect("it can be opened");
    assert_eq!(source.record(), &record, "record of the opened backup");
    assert_eq!(entries(source.as_ref(), Selector::all()).await.len(), expected.len(), "number of listed entries");
    for (meta, len, bytes) in &expected {
        let entry = source.entry(&meta.path).await.expect("an entry can be looked up").expect("it is there");
        assert_eq!((&entry.meta, entry.len), (meta, *len), "entry {}", meta.path);
        let read = content(source.as_ref(), &meta.path).await;
        assert_same(&read, if *len > 0 { bytes } else { b"" }, &meta.path);
    }
}

/// However a stream is cut into pieces, empty ones included, its content is the same, and nothing is stored twice for it.
pub async fn odd_pieces(harness: &dyn RepositoryHarness) {
    let stage = Stage::new(harness).await;
    let bytes = noise(1, 3 * MIB + 12345);
    let whole = stage.store(ParentChoice::None, &[("file", &bytes)]).await;
    let session = stage.begin(ParentChoice::Backup(whole.id)).await;
    let sink = session.sink();
    for (name, sizes) in [("file", &[1, 7, 0, 8191, 65537][..]), ("large", &[2 * MIB, 100]), ("small", &[777])] {
        let mut pieces = Vec::new();
        let mut rest = bytes.clone();
        for size in sizes.iter().cycle() {
            pieces.push(Ok(rest.split_to(rest.len().min(*size))));
            if rest.is_empty() {
                break;
            }
        }
        let stored = sink.put_stream(file(name), stream::iter(pieces).boxed(), None).await.expect("pieces can be put");
        assert_eq!(stored.len, bytes.len() as u64, "length of {name}");
        if name == "file" {
            assert_eq!(stored.new_bytes, 0, "unchanged content was stored again because it came in other pieces");
        }
    }
    drop(sink);
    let record = stage.commit(session).await;
    stage.assert_holds(record.id, &[("file", &bytes), ("large", &bytes), ("small", &bytes)]).await;
    assert_eq!(record.data_bytes, 3 * bytes.len() as u64);
    assert!(record.new_bytes <= 2 * bytes.len() as u64 + 2 * KIB as u64, "new bytes: {}", record.new_bytes);
}
