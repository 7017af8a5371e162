use std::sync::Arc;

use backup_core::engine::{BackupSinkExt, Work};
use backup_core::entry::{ContentIdentity, EntryMeta, EntryPath, Selector};
use backup_core::env::Env;
use backup_core::repository::{ParentChoice, Repository as _};
use backup_core::{BackupSource, Consistency, ServiceId, Snapshot};
use backup_crypto::RawKey;
use bytes::Bytes;
use futures::TryStreamExt;

use super::BackupReader;
use crate::error::ErrorKind;
use crate::fetch::{PackCache, Places};
use crate::manifest::total;
use crate::pack::BLOCK;
use crate::store::Store;
use crate::{CreateOptions, Repository, RepositorySettings};

fn path(name: &str) -> EntryPath {
    EntryPath::new(name).unwrap()
}

fn identity(number: u32) -> ContentIdentity {
    ContentIdentity::new(number.to_le_bytes()).unwrap()
}

/// A backup with one large file of alternating blocks and many small ones with identities.
async fn reader() -> BackupReader {
    let (store, env) = (Store::memory(), Env::seeded(3));
    let settings = RepositorySettings::default().workers(1);
    let recipients = vec![RawKey::take(&mut [1; 32]).into()];
    let service = ServiceId::new("s").unwrap();
    let made = Repository::create(&store, service, recipients, CreateOptions::default(), &settings, env.clone());
    let repository = made.await.unwrap();
    let session = repository.begin(ParentChoice::None, &Work::new(env.clone())).await.unwrap();
    let sink = session.sink();
    // Every other block is a hole: more extents and more hashes than stand in an entry.
    let mut large = vec![0; 2100 * BLOCK];
    large.chunks_mut(2 * BLOCK).for_each(|pair| pair[0] = 1);
    sink.put_bytes(EntryMeta::file(path("large")), Bytes::from(large)).await.unwrap();
    for number in 0..100 {
        let meta = EntryMeta::file(path(&format!("small/{number:03}"))).with_identity(identity(number));
        sink.put_bytes(meta, Bytes::from(format!("content {number}"))).await.unwrap();
    }
    drop(sink);
    let now = env.now();
    let snapshot = Snapshot::new("test", "1", "s", "none", Consistency::PointInTime, (now, now));
    let record = session.commit(snapshot).await.unwrap();
    let context = repository.context();
    let cache = Arc::new(PackCache::new(Arc::clone(context), Places::Written));
    BackupReader::open(Arc::clone(context), cache, record).await.unwrap()
}

#[tokio::test]
async fn long_lists_of_an_entry_are_resolved() {
    let reader = reader().await;
    let entry = reader.entry_full(&path("large")).await.unwrap().unwrap();
    assert!(matches!(entry.content, crate::manifest::Content::Stored(_)));
    let extents = reader.content(&entry).await.unwrap();
    assert_eq!((extents.len(), total(&extents)), (2100, entry.len));
    assert_eq!(reader.block_map(&entry).await.unwrap().len(), 2100);
    assert!(reader.entry_full(&path("largo")).await.unwrap().is_none());
    let read: Vec<Bytes> = reader.read(&path("large"), 0..entry.len).try_collect().await.unwrap();
    let read = read.concat();
    assert!(read.chunks(BLOCK).enumerate().all(|(n, block)| block[0] == u8::from(n % 2 == 0)));
    assert!(read.chunks(BLOCK).all(|block| block[1..].iter().all(|byte| *byte == 0)));
}

#[tokio::test]
async fn entries_are_found_by_their_identity() {
    let reader = reader().await;
    for number in [0, 41, 99] {
        let found = reader.find_identity(&identity(number)).await.unwrap().unwrap();
        assert_eq!(found.meta.path, path(&format!("small/{number:03}")));
    }
    assert!(reader.find_identity(&identity(100)).await.unwrap().is_none());
}

#[tokio::test]
async fn footprints_of_parts_are_smaller() {
    let reader = reader().await;
    let all = reader.footprint(&Selector::all()).await.unwrap();
    assert_eq!((all.entries, all.bytes), (101, reader.record().data_bytes));
    let part = reader.footprint(&Selector::within([path("small")])).await.unwrap();
    assert_eq!(part.entries, 100);
    assert!(part.stored_bytes <= all.stored_bytes && part.objects <= all.objects);
    assert!(reader.manifest().has_within(&path("small")).await.unwrap());
    for not in ["smal", "small/001", "large", "zzz", "a"] {
        assert!(!reader.manifest().has_within(&path(not)).await.unwrap(), "{not}");
    }
}

#[tokio::test]
async fn a_manifest_that_was_not_committed_is_refused() {
    let reader = reader().await;
    let open = |record| BackupReader::open(Arc::clone(reader.context()), Arc::clone(reader.cache()), record);
    let mut other = reader.record().clone();
    other.manifest.digest[0] ^= 1;
    assert_eq!(open(other).await.unwrap_err().kind(), ErrorKind::Damaged);
    let mut other = reader.record().clone();
    other.id = backup_core::BackupId::mint(&Env::seeded(99));
    assert_eq!(open(other).await.unwrap_err().kind(), ErrorKind::Damaged);
    let mut other = reader.record().clone();
    other.manifest.segment += 1;
    assert_eq!(open(other).await.unwrap_err().kind(), ErrorKind::Damaged);
}
