//! The S3 gateway keeps the promises that a write-once repository stands on.

use std::sync::Arc;

use backup_testkit::{Versity, require_or_skip};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

fn client(server: &Versity, bucket: &str) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_region(server.region())
        .with_access_key_id(server.access_key())
        .with_secret_access_key(server.secret_key())
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .build()
        .expect("settings are complete")
}

fn create() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_create_of_one_name_is_refused() {
    let server = require_or_skip!(Versity::start().await);
    server.create_bucket("vault").unwrap();
    let store = client(&server, "vault");
    let name = Path::from("catalog/00000000000000000001");
    store.put_opts(&name, PutPayload::from_static(b"first"), create()).await.unwrap();
    let second = store.put_opts(&name, PutPayload::from_static(b"second"), create()).await.unwrap_err();
    assert!(matches!(second, Error::AlreadyExists { .. }), "{second}");
    assert!(format!("{second:?}").contains("412"), "{second:?}");
    assert_eq!(store.get(&name).await.unwrap().bytes().await.unwrap(), b"first".as_slice());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_creators_exactly_one_wins() {
    let server = require_or_skip!(Versity::start().await);
    server.create_bucket("vault").unwrap();
    let store = Arc::new(client(&server, "vault"));
    for round in 0..20 {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8_u8 {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                let body = PutPayload::from(vec![writer; 100_000]);
                store.put_opts(&Path::from(format!("commit/{round}")), body, create()).await.map(|_| writer).ok()
            });
        }
        let winners: Vec<u8> = writers.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        let body = store.get(&Path::from(format!("commit/{round}"))).await.unwrap().bytes().await.unwrap();
        assert_eq!(body, vec![winners[0]; 100_000]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_can_be_damaged_in_place() {
    let server = require_or_skip!(Versity::start().await);
    server.create_bucket("vault").unwrap();
    let store = client(&server, "vault");
    store.put(&Path::from("packs/one"), PutPayload::from_static(b"intact")).await.unwrap();
    let file = server.data_dir().join("vault/packs/one");
    assert_eq!(std::fs::read(&file).unwrap(), b"intact");
    // Over the same file, not by a new one: its metadata hangs on it.
    std::io::Write::write_all(&mut std::fs::File::options().write(true).open(&file).unwrap(), b"broken").unwrap();
    assert_eq!(store.get(&Path::from("packs/one")).await.unwrap().bytes().await.unwrap(), b"broken".as_slice());
}
