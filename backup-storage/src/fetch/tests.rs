use super::*;
use crate::keyring::tests::keyring;
use crate::pack::{Codec, PackBuilder, Role, SEGMENT, content_id_of};
use crate::settings::RepositorySettings;
use crate::store::Store;
use backup_core::env::Env;
use backup_core::{ServiceId, SessionId};

async fn cache(segments: &[Vec<u8>]) -> (PackCache, PackId, Store) {
    let (store, env, keyring) = (Store::memory(), Env::seeded(1), keyring(1));
    let id = PackId { session: SessionId::mint(&env), number: 3 };
    let mut builder = PackBuilder::new(id, &keyring, Vec::new()).unwrap();
    let hash = &keyring.hash_key(keyring.current()).unwrap();
    for content in segments {
        builder.push(Role::Data, Codec::Raw, content, content.len(), content_id_of(hash, content)).unwrap();
    }
    let pack = builder.finish().unwrap();
    assert!(store.create(&pack.name, pack.object).await.unwrap().is_ours());
    let shape = RepositorySettings::default().shape();
    let service = ServiceId::new("s").unwrap();
    let context = Context { service, store: store.clone(), keyring, env, shape };
    (PackCache::new(Arc::new(context), Places::Written), id, store)
}

#[tokio::test]
async fn many_who_ask_at_once_cost_one_request_each_for_index_and_segment() {
    let (cache, id, store) = cache(&[b"first".to_vec(), b"second".to_vec()]).await;
    let asks = (0..20).map(|n| cache.segment(id, n % 2));
    let contents = futures::future::try_join_all(asks).await.unwrap();
    assert_eq!((&contents[0][..], &contents[19][..]), (&b"first"[..], &b"second"[..]));
    // A small pack comes with its end: one request. Then one for each segment.
    assert_eq!(store.metrics().get.requests, 3);
    assert_eq!(cache.fetched(), store.metrics().get.bytes);
    assert!(cache.segment(id, 2).await.is_err());
}

#[tokio::test]
async fn an_index_of_any_size_is_found() {
    // Some 1000 rows of 28 bytes: more than the usual tail.
    let mut segments = vec![b"x".to_vec(); 1000];
    segments.push(vec![7; SEGMENT]);
    let (cache, id, store) = cache(&segments).await;
    let index = cache.index(id).await.unwrap();
    assert_eq!(index.segments().len(), 1001);
    assert_eq!(store.metrics().get.requests, 3, "the usual tail, the header, the whole tail");
    assert_eq!(cache.segment(id, 1000).await.unwrap().len(), SEGMENT);
    let missing = PackId { number: 4, ..id };
    assert_eq!(cache.index(missing).await.unwrap_err().kind(), crate::error::ErrorKind::Damaged);
}
