//! Entries that are taken from the parent by their identities: all of them are there, whoever is dropped meanwhile.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use backup_core::engine::{BackupSinkExt, Work};
use backup_core::entry::{ContentIdentity, EntryMeta, EntryPath, Selector};
use backup_core::env::Env;
use backup_core::repository::{BackupSession, ParentChoice, Repository as _};
use backup_core::{Consistency, ServiceId, Snapshot};
use backup_crypto::RawKey;
use backup_storage::store::Store;
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

/// Several times as many as go to the manifest together, and some.
const ENTRIES: usize = 1000;

fn meta(folder: &str, number: usize) -> EntryMeta {
    let path = EntryPath::new(format!("{folder}/{number:04}")).unwrap();
    EntryMeta::file(path).with_identity(ContentIdentity::new(format!("content {number}").into_bytes()).unwrap())
}

fn content(number: usize) -> Bytes {
    Bytes::from(format!("the content with number {number}"))
}

async fn commit(session: Box<dyn BackupSession>, env: &Env) -> backup_core::catalog::BackupRecord {
    let now = env.now();
    let snapshot = Snapshot::new("test", "1", "source", "local", Consistency::PerPart, (now, now));
    session.commit(snapshot).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn none_is_lost() {
    let (env, work) = (Env::seeded(3), Work::new(Env::seeded(4)));
    let recipients = vec![RawKey::take(&mut [9; 32]).into()];
    let (service, settings) = (ServiceId::new("s").unwrap(), RepositorySettings::default().workers(2));
    let store = Store::memory();
    let made = Repository::create(&store, service, recipients, CreateOptions::default(), &settings, env.clone());
    let repository = made.await.unwrap();

    let session = repository.begin(ParentChoice::None, &work).await.unwrap();
    let sink = session.sink();
    for number in 0..ENTRIES {
        sink.put_bytes(meta("old", number), content(number)).await.unwrap();
    }
    drop(sink);
    let base = commit(session, &env).await;

    let session = repository.begin(ParentChoice::Backup(base.id), &work).await.unwrap();
    let sink = session.sink();
    let taken: Vec<usize> = stream::iter(0..ENTRIES)
        .map(|number| {
            let sink = &sink;
            async move {
                let reuse = sink.reuse(meta("new", number));
                // Some are asked once, and dropped if they are not ready.
                let stored = if number % 7 == 0 { reuse.now_or_never() } else { Some(reuse.await) };
                stored.map(|stored| {
                    assert_eq!(stored.unwrap().unwrap().len, content(number).len() as u64);
                    number
                })
            }
        })
        .buffer_unordered(64)
        .filter_map(std::future::ready)
        .collect()
        .await;
    drop(sink);
    let second = commit(session, &env).await;
    assert_eq!((second.new_bytes, second.parent), (0, Some(base.id)));

    let source = repository.open(second.id).await.unwrap();
    let found: Vec<_> = source.entries(Selector::all()).try_collect().await.unwrap();
    let found: BTreeMap<_, _> = found.into_iter().map(|entry| (entry.meta.path.clone(), entry)).collect();
    assert!(taken.len() >= ENTRIES * 6 / 7);
    for number in taken {
        assert!(found.contains_key(&meta("new", number).path), "{number} was taken and is not there");
    }
    let last = meta("new", ENTRIES - 1).path;
    let bytes: Vec<Bytes> = source.read(&last, 0..content(ENTRIES - 1).len() as u64).try_collect().await.unwrap();
    assert_eq!(bytes.concat(), content(ENTRIES - 1));
}
