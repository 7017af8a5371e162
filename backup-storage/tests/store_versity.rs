//! `Store` over a real S3 gateway with exact create-only puts.

#![allow(clippy::unwrap_used, reason = "also in the helpers of tests")]

use backup_storage::conformance::{Capabilities, run};
use backup_storage::error::ErrorKind;
use backup_storage::store::{ObjectName, Store, StoreSettings};
use backup_testkit::{Versity, or_skip};

fn settings(server: &Versity) -> StoreSettings {
    StoreSettings::default()
        .option("aws_endpoint", server.endpoint())
        .option("aws_allow_http", "true")
        .option("aws_region", server.region())
        .option("aws_access_key_id", server.access_key())
        .option("aws_secret_access_key", server.secret_key())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_versity_gateway_conforms() {
    let Some(server) = or_skip(Versity::start().await) else { return };
    server.create_bucket("vault").unwrap();
    let store = Store::open("s3://vault/region-1", &settings(&server)).unwrap();
    run(&store, Capabilities::default()).await;
}

#[tokio::test]
async fn a_missing_bucket_is_the_environments_fault() {
    let Some(server) = or_skip(Versity::start().await) else { return };
    let store = Store::open("s3://nowhere/x", &settings(&server).retries(1)).unwrap();
    let error = store.create(&ObjectName::new("a").unwrap(), "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
    let error = store.get(&ObjectName::new("a").unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
}
