use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use backup_core::engine::{BackupSinkExt, Existing, Extract, Extracted, Work};
use backup_core::entry::{EntryKind, EntryMeta, EntryPath};
use backup_core::env::Env;
use backup_core::observe::{Observer, Phase, Progress};
use backup_core::repository::{ParentChoice, Repository as _};
use backup_core::{BackupSource, Consistency, ServiceId, Snapshot};
use backup_crypto::RawKey;
use bytes::Bytes;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::place::{Place, Places};
use super::tree::Tree;
use crate::error::ErrorKind;
use crate::pack::BLOCK;
use crate::store::Store;
use crate::{CreateOptions, Repository, RepositorySettings};

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File(Vec<u8>, u32),
    Folder(u32),
    Link(Vec<u8>),
}

type Oracle = BTreeMap<String, Node>;

/// Everything below `root`.
fn found(root: &Path) -> Oracle {
    let mut nodes = Oracle::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            let facts = fs::symlink_metadata(&path).unwrap();
            let mode = facts.permissions().mode() & 0o7777;
            let node = if facts.is_dir() {
                folders.push(path.clone());
                Node::Folder(mode)
            } else if facts.is_symlink() {
                Node::Link(fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
            } else {
                Node::File(fs::read(&path).unwrap(), mode)
            };
            nodes.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), node);
        }
    }
    nodes
}

fn path(name: &str) -> EntryPath {
    EntryPath::new(name).unwrap()
}

struct Stored {
    repository: Repository,
    store: Store,
    source: Arc<dyn BackupSource>,
}

async fn stored(nodes: &Oracle) -> Stored {
    let (store, env) = (Store::memory(), Env::seeded(3));
    let service = ServiceId::new("s").unwrap();
    let settings = RepositorySettings::default().workers(2);
    let recipients = vec![RawKey::take(&mut [1; 32]).into()];
    let made = Repository::create(&store, service, recipients, CreateOptions::default(), &settings, env.clone());
    let repository = made.await.unwrap();
    let session = repository.begin(ParentChoice::None, &Work::new(env.clone())).await.unwrap();
    let sink = session.sink();
    for (name, node) in nodes {
        let (meta, bytes) = match node {
            Node::File(bytes, mode) => (EntryMeta::file(path(name)).with_mode(*mode), bytes.clone()),
            Node::Folder(mode) => (EntryMeta::directory(path(name)).with_mode(*mode), Vec::new()),
            Node::Link(target) => (EntryMeta::new(path(name), EntryKind::Symlink { target: target.clone() }), vec![]),
        };
        sink.put_bytes(meta, Bytes::from(bytes)).await.unwrap();
    }
    drop(sink);
    let now = env.now();
    let snapshot = Snapshot::new("test", "1", "s", "none", Consistency::PointInTime, (now, now));
    let record = session.commit(snapshot).await.unwrap();
    let source = repository.open(record.id).await.unwrap();
    Stored { repository, store, source }
}

fn delta(root: &Path) -> Extract {
    Extract::into_dir(root).with_existing(Existing::Delta)
}

/// Content of some blocks, each a hole or filled, and a rest.
fn content() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(0..4u8, 0..12), 0..BLOCK).prop_map(|(blocks, rest)| {
        let mut bytes = Vec::new();
        for (number, fill) in blocks.iter().enumerate() {
            let mut block = vec![0; BLOCK];
            if *fill > 0 {
                // Noise, so that segments are as long as what they hold.
                let seed = [number as u8, *fill];
                blake3::Hasher::new().update(&seed).finalize_xof().fill(&mut block);
            }
            bytes.extend(block);
        }
        let len = bytes.len().saturating_sub(rest);
        bytes.truncate(len);
        bytes
    })
}

/// A tree of folders `d0`, `d1` and so on, with files `f…` and links `l…` in them.
fn oracle() -> impl Strategy<Value = Oracle> {
    let folder = prop::sample::select(vec!["", "d0/", "d0/d1/", "d2/"]);
    let mode = prop::sample::select(vec![0o600, 0o640, 0o400, 0o755]);
    let files = prop::collection::vec((folder, 0..5u8, mode, content()), 0..10);
    (files, any::<[bool; 2]>()).prop_map(|(files, extras)| {
        let mut nodes = Oracle::new();
        for folder in ["d0", "d0/d1", "d2"] {
            nodes.insert(folder.to_owned(), Node::Folder(0o750));
        }
        for (folder, number, mode, bytes) in files {
            nodes.insert(format!("{folder}f{number}"), Node::File(bytes, mode));
        }
        if extras[0] {
            nodes.insert("d0/l".to_owned(), Node::Link(b"../d2/f0".to_vec()));
        }
        if extras[1] {
            nodes.insert("hollow".to_owned(), Node::Folder(0o500));
        }
        nodes
    })
}

/// Something that happened to a target.
#[derive(Debug, Clone)]
enum Mishap {
    Flip(prop::sample::Index),
    Cut(prop::sample::Index),
    Grow(Vec<u8>),
    Remove,
    BecomeLink,
    BecomeFolder,
    BecomeTwins,
    Stranger,
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        any::<prop::sample::Index>().prop_map(Mishap::Flip),
        any::<prop::sample::Index>().prop_map(Mishap::Cut),
        prop::collection::vec(any::<u8>(), 1..100).prop_map(Mishap::Grow),
        Just(Mishap::Remove),
        Just(Mishap::BecomeLink),
        Just(Mishap::BecomeFolder),
        Just(Mishap::BecomeTwins),
        Just(Mishap::Stranger),
    ]
}

fn happen(root: &Path, outside: &Path, names: &[String], which: prop::sample::Index, mishap: &Mishap) {
    if names.is_empty() {
        return;
    }
    let at = root.join(which.get(names));
    let Ok(facts) = fs::symlink_metadata(&at) else { return };
    if facts.is_file() {
        fs::set_permissions(&at, PermissionsExt::from_mode(0o600)).unwrap();
    }
    match mishap {
        Mishap::Flip(byte) if facts.is_file() && facts.len() > 0 => {
            let mut bytes = fs::read(&at).unwrap();
            let byte = byte.index(bytes.len());
            bytes[byte] ^= 1;
            fs::write(&at, bytes).unwrap();
        }
        Mishap::Cut(len) if facts.is_file() => {
            let bytes = fs::read(&at).unwrap();
            fs::write(&at, &bytes[..len.index(bytes.len() + 1)]).unwrap();
        }
        Mishap::Grow(more) if facts.is_file() => {
            let mut bytes = fs::read(&at).unwrap();
            bytes.extend(more);
            fs::write(&at, bytes).unwrap();
        }
        Mishap::Remove | Mishap::BecomeLink | Mishap::BecomeFolder => {
            if facts.is_dir() {
                fs::remove_dir_all(&at).unwrap();
            } else {
                fs::remove_file(&at).unwrap();
            }
            match mishap {
                Mishap::BecomeLink => symlink(outside, &at).unwrap(),
                Mishap::BecomeFolder => {
                    fs::create_dir_all(at.join("x/y")).unwrap();
                    fs::write(at.join("x/y/stranger"), b"x").unwrap();
                }
                _ => {}
            }
        }
        Mishap::BecomeTwins if facts.is_file() => {
            let _ = fs::hard_link(&at, outside.join("twin"));
        }
        Mishap::Stranger if facts.is_dir() => fs::write(at.join("stranger"), b"x").unwrap(),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]
    #[test]
    fn a_target_becomes_the_backup_whatever_happened_to_it(
        nodes in oracle(),
        mishaps in prop::collection::vec((any::<prop::sample::Index>(), mishap()), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let backup = stored(&nodes).await;
            let (target, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            fs::write(outside.path().join("precious"), b"precious").unwrap();
            let first = backup.source.extract(Extract::into_dir(target.path()), &Work::default()).await.unwrap();
            assert_eq!(found(target.path()), nodes);
            let bytes: u64 = nodes.values().map(|n| if let Node::File(b, _) = n { b.len() as u64 } else { 0 }).sum();
            assert_eq!((first.entries, first.bytes, first.removed), (nodes.len() as u64, bytes, 0));

            let names: Vec<String> = nodes.keys().cloned().collect();
            for (which, mishap) in &mishaps {
                happen(target.path(), outside.path(), &names, *which, mishap);
            }
            let twin = fs::read(outside.path().join("twin")).ok();
            backup.source.extract(delta(target.path()), &Work::default()).await.unwrap();
            assert_eq!(found(target.path()), nodes, "after {mishaps:?}");
            assert_eq!(fs::read(outside.path().join("precious")).unwrap(), b"precious");
            assert_eq!(fs::read(outside.path().join("twin")).ok(), twin, "a file with a second name was changed");

            let again = backup.source.extract(delta(target.path()), &Work::default()).await.unwrap();
            assert_eq!((again.written_bytes, again.removed), (0, 0));
            assert_eq!(found(target.path()), nodes);
        });
    }
}

/// Cancels when so many bytes were written, and notes what is told.
#[derive(Debug)]
struct CancelAt {
    left: parking_lot::Mutex<i64>,
    cancel: CancellationToken,
    seen: parking_lot::Mutex<BTreeMap<&'static str, u64>>,
}

impl CancelAt {
    fn new(bytes: i64) -> Arc<Self> {
        Arc::new(Self { left: bytes.into(), cancel: CancellationToken::new(), seen: Default::default() })
    }

    fn work(self: &Arc<Self>) -> Work {
        Work::default().with_observer(Arc::clone(self) as _).with_cancel(self.cancel.clone())
    }
}

impl Observer for CancelAt {
    fn on(&self, progress: &Progress) {
        if let Progress::Advanced { phase, by } = progress {
            *self.seen.lock().entry(phase.name()).or_default() += by;
            if *phase == Phase::Write {
                let mut left = self.left.lock();
                *left -= *by as i64;
                if *left < 0 {
                    self.cancel.cancel();
                }
            }
        }
    }
}

fn many_files() -> Oracle {
    let mut nodes = Oracle::new();
    for number in 0..40 {
        let mut bytes = vec![0; 3 * BLOCK + number * 1000];
        blake3::Hasher::new().update(&[number as u8]).finalize_xof().fill(&mut bytes);
        nodes.insert(format!("f{number:02}"), Node::File(bytes, 0o600));
    }
    nodes.insert("z-control".to_owned(), Node::File(b"startable".to_vec(), 0o600));
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_extraction_stops_and_is_completed_by_what_is_missing() {
    let nodes = many_files();
    let backup = stored(&nodes).await;
    let total: u64 = nodes.values().map(|n| if let Node::File(b, _) = n { b.len() as u64 } else { 0 }).sum();
    for after in [0, 3 << 20, 9 << 20] {
        let target = tempfile::tempdir().unwrap();
        let cancel = CancelAt::new(after);
        let order = Extract::into_dir(target.path()).with_last([path("z-control")]);
        let error = backup.source.extract(order, &cancel.work()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        let stopped = found(target.path());
        assert!(!stopped.contains_key("z-control"));
        tokio::task::yield_now().await;
        assert!(found(target.path()) == stopped, "something went on writing");

        let seen = CancelAt::new(i64::MAX);
        let resumed = delta(target.path()).with_last([path("z-control")]);
        let before = backup.store.metrics().get.bytes;
        let done = backup.source.extract(resumed, &seen.work()).await.unwrap();
        let fetched = backup.store.metrics().get.bytes - before;
        assert!(found(target.path()) == nodes);
        let (Extracted { bytes, written_bytes, .. }, seen) = (done, seen.seen.lock().clone());
        assert_eq!((bytes, seen["compare"], seen["write"]), (total, total, written_bytes), "{seen:?}");
        // Segments are fetched whole, and packs of which most is missing.
        assert!(after == 0 || written_bytes < total - after as u64 / 2, "{written_bytes} of {total}");
        assert!(fetched < 2 * written_bytes + (2 << 20), "{fetched} bytes fetched for {written_bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_fetches_the_segments_that_differ() {
    let mut bytes = vec![0; 12 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let nodes = Oracle::from([("file".to_owned(), Node::File(bytes.clone(), 0o600))]);
    let backup = stored(&nodes).await;
    let target = tempfile::tempdir().unwrap();
    let seen = CancelAt::new(i64::MAX);
    backup.source.extract(Extract::into_dir(target.path()), &seen.work()).await.unwrap();
    assert_eq!(*seen.seen.lock(), BTreeMap::from([("write", bytes.len() as u64)]));
    let inode = fs::metadata(target.path().join("file")).unwrap().ino();
    let mut broken = bytes.clone();
    broken[5_000_000] ^= 1;
    fs::write(target.path().join("file"), broken).unwrap();
    // Another handle, so that nothing is remembered.
    let fresh = backup.repository.open(backup.source.record().id).await.unwrap();
    let before = backup.store.metrics().get.bytes;
    let done = fresh.extract(delta(target.path()), &Work::default()).await.unwrap();
    assert_eq!(done.written_bytes, BLOCK as u64);
    assert!(backup.store.metrics().get.bytes - before < 2 << 20);
    assert!(fs::read(target.path().join("file")).unwrap() == bytes);
    assert_eq!(fs::metadata(target.path().join("file")).unwrap().ino(), inode);
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_stay_holes() {
    let mut bytes = vec![0; 64 << 20];
    bytes[40 << 20] = 1;
    let nodes = Oracle::from([("sparse".to_owned(), Node::File(bytes, 0o600))]);
    let backup = stored(&nodes).await;
    let target = tempfile::tempdir().unwrap();
    backup.source.extract(Extract::into_dir(target.path()), &Work::default()).await.unwrap();
    assert!(found(target.path()) == nodes);
    let blocks = fs::metadata(target.path().join("sparse")).unwrap().blocks();
    assert!(blocks * 512 < 4 << 20, "{blocks} blocks are allocated");
}

#[test]
fn nothing_is_reached_through_a_link() {
    let (target, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(outside.path().join("x")).unwrap();
    fs::write(outside.path().join("x/file"), b"precious").unwrap();
    let place = |below: &str| Place { root: 0, below: below.as_bytes().to_vec() };
    let tree = |replace| {
        let places = Places::new(&Extract::into_dir(target.path())).unwrap();
        Tree::new(places, replace).unwrap()
    };
    symlink(outside.path(), target.path().join("a")).unwrap();
    let strict = tree(false);
    assert!(strict.stat(&place("a/x/file")).unwrap().is_none());
    assert_eq!(strict.obstacle(&place("a/x/file")).unwrap(), Some(place("a")));
    assert!(strict.names(&place("a")).unwrap().is_empty());
    for at in ["a/file", "a/x/file"] {
        assert_eq!(strict.create(&place(at)).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(strict.open(&place(at)).is_err() && strict.link(&place(at), b"t").is_err());
    }
    assert!(strict.open(&place("a")).is_err());
    // A folder that is replaced by a link while it is open keeps being the folder it was.
    let loose = tree(true);
    loose.make_folder(&place("b/x")).unwrap();
    fs::rename(target.path().join("b"), target.path().join("moved")).unwrap();
    symlink(outside.path(), target.path().join("b")).unwrap();
    drop(loose.create(&place("b/x/file2")).unwrap());
    assert!(target.path().join("moved/x/file2").exists());
    // Where replacing is allowed, the link goes and what it leads to stays.
    tree(true).clear(&place("a")).unwrap();
    drop(tree(true).create(&place("b/x/file")).unwrap());
    assert!(target.path().join("b").symlink_metadata().unwrap().is_dir());
    assert_eq!(fs::read(outside.path().join("x/file")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(outside.path().join("x")).unwrap().count(), 1);
}

#[tokio::test]
async fn orders_that_mix_directories_are_refused() {
    let nodes = Oracle::from([
        ("a/f".to_owned(), Node::File(b"a".to_vec(), 0o600)),
        ("inner/f".to_owned(), Node::File(b"b".to_vec(), 0o600)),
    ]);
    let backup = stored(&nodes).await;
    let target = tempfile::tempdir().unwrap();
    fs::create_dir(target.path().join("inner")).unwrap();
    let order = Extract::into_dir(target.path()).with_elsewhere(path("a"), target.path().join("inner"));
    let error = backup.source.extract(order, &Work::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let order = Extract::into_dir(target.path()).with_elsewhere(path("a"), target.path());
    assert_eq!(backup.source.extract(order, &Work::default()).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(found(target.path()), Oracle::from([("inner".to_owned(), found(target.path())["inner"].clone())]));
}
