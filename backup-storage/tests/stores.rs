//! Every object store of the list, as a real server: the conformance suite, and a whole life of a repository.
//!
//! The same two bodies run on all of them; what differs is how a server is started and addressed, which is all that is here.

#![allow(clippy::unwrap_used, reason = "also in the helpers of tests")]

#[path = "../../backup-core/tests/directory_engine/mod.rs"]
#[allow(dead_code, reason = "the engine's faults are for the suite of engines")]
mod directory_engine;
#[path = "stores/locked.rs"]
mod locked;
#[path = "stores/published.rs"]
mod published;
#[path = "stores/whole_way.rs"]
mod whole_way;

use backup_storage::conformance::{Capabilities, run};
use backup_storage::error::ErrorKind;
use backup_storage::store::{ObjectName, Store, StoreSettings};
use backup_testkit::{Azurite, FakeGcs, Minio, Versity, require_or_skip};
use whole_way::whole_way;

fn s3(endpoint: String, region: &str, key: (&str, &str)) -> StoreSettings {
    StoreSettings::default()
        .option("aws_endpoint", endpoint)
        .option("aws_allow_http", "true")
        .option("aws_region", region)
        .option("aws_access_key_id", key.0)
        .option("aws_secret_access_key", key.1)
}

fn versity(server: &Versity) -> StoreSettings {
    s3(server.endpoint(), server.region(), (server.access_key(), server.secret_key()))
}

fn minio(server: &Minio) -> StoreSettings {
    s3(server.endpoint(), server.region(), (server.access_key(), server.secret_key()))
}

/// Not as the client's "emulator", so that addresses, signatures and listings are those of real accounts.
fn azurite(server: &Azurite) -> StoreSettings {
    StoreSettings::default()
        .option("azure_storage_endpoint", server.endpoint())
        .option("azure_allow_http", "true")
        .option("azure_storage_account_name", server.account())
        .option("azure_storage_account_key", server.key())
}

fn gcs(server: &FakeGcs) -> StoreSettings {
    StoreSettings::default().option("google_base_url", server.endpoint()).option("google_bearer_token", "any")
}

fn open(url: &str, settings: &StoreSettings) -> Store {
    Store::open(url, settings).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_versity_gateway_conforms() {
    let server = require_or_skip!(Versity::start().await);
    server.create_bucket("vault").unwrap();
    run(&open("s3://vault/region-1", &versity(&server)), Capabilities::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn minio_conforms() {
    let server = require_or_skip!(Minio::start().await);
    server.create_bucket("vault").unwrap();
    run(&open("s3://vault/region-1", &minio(&server)), Capabilities::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn azurite_conforms() {
    let server = require_or_skip!(Azurite::start().await);
    server.create_container("vault").unwrap();
    run(&open("az://vault/region-1", &azurite(&server)), Capabilities::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fake_gcs_conforms() {
    let server = require_or_skip!(FakeGcs::start().await);
    server.create_bucket("vault").unwrap();
    run(&open("gs://vault/region-1", &gcs(&server)), Capabilities::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_way_in_memory() {
    whole_way(&Store::memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_way_on_local_disk() {
    let dir = tempfile::tempdir().unwrap();
    whole_way(&Store::local(dir.path()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_way_on_the_versity_gateway() {
    let server = require_or_skip!(Versity::start().await);
    server.create_bucket("vault").unwrap();
    whole_way(&open("s3://vault/region-1", &versity(&server))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_way_on_minio() {
    let server = require_or_skip!(Minio::start().await);
    server.create_bucket("vault").unwrap();
    whole_way(&open("s3://vault/region-1", &minio(&server))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_way_on_azurite() {
    let server = require_or_skip!(Azurite::start().await);
    server.create_container("vault").unwrap();
    whole_way(&open("az://vault/region-1", &azurite(&server))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_way_on_fake_gcs() {
    let server = require_or_skip!(FakeGcs::start().await);
    server.create_bucket("vault").unwrap();
    whole_way(&open("gs://vault/region-1", &gcs(&server))).await;
}

/// On each store, nothing can be put into a bucket that is not there, and waiting does not help.
async fn a_missing_bucket_is_the_environments_fault(url: &str, settings: &StoreSettings) {
    let store = open(url, &settings.clone().retries(1));
    let name = ObjectName::new("a").unwrap();
    let error = store.create(&name, "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{url}: {error}");
    let error = store.probe_exclusive_create().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{url}: {error}");
}

#[tokio::test]
async fn a_missing_bucket_of_the_versity_gateway() {
    let server = require_or_skip!(Versity::start().await);
    a_missing_bucket_is_the_environments_fault("s3://nowhere/x", &versity(&server)).await;
    let store = open("s3://nowhere/x", &versity(&server).retries(1));
    let error = store.get(&ObjectName::new("a").unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
}

#[tokio::test]
async fn a_missing_container_of_azurite() {
    let server = require_or_skip!(Azurite::start().await);
    a_missing_bucket_is_the_environments_fault("az://nowhere/x", &azurite(&server)).await;
}

#[tokio::test]
async fn a_missing_bucket_of_fake_gcs() {
    let server = require_or_skip!(FakeGcs::start().await);
    a_missing_bucket_is_the_environments_fault("gs://nowhere/x", &gcs(&server)).await;
}

/// A key that does not fit is told as such, at once, and is not in what is told.
#[tokio::test]
async fn wrong_credentials_are_the_environments_fault() {
    let server = require_or_skip!(Azurite::start().await);
    server.create_container("vault").unwrap();
    let settings = azurite(&server).option("azure_storage_account_key", "aHVudGVyMg==");
    let error = open("az://vault/x", &settings).create(&ObjectName::new("a").unwrap(), "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
    assert!(!format!("{error:?}").contains("aHVudGVyMg"), "{error:?}");
}
