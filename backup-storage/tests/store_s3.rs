//! `Store` over the real S3 client and a real socket.

#![allow(clippy::unwrap_used, reason = "also in the helpers of tests")]

mod s3;

use std::time::Duration;

use backup_storage::conformance::{Capabilities, run};
use backup_storage::error::ErrorKind;
use backup_storage::store::{Checksum, Created, ObjectName, Store};
use bytes::Bytes;
use futures::StreamExt as _;
use s3::{Requests, Server, Trick};

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms() {
    let server = Server::start().await;
    let store = server.store("vault-1", &server.settings());
    run(&store, Capabilities::default()).await;
    assert_eq!(server.keys(), Vec::<String>::new(), "the suite and the probe clean up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms_at_the_root_of_the_bucket_with_unsigned_payload_and_checksums() {
    let server = Server::start().await;
    for checksum in [Checksum::Crc64nvme, Checksum::Sha256] {
        let settings = server.settings().unsigned_payload(true).checksum(Some(checksum));
        run(&server.store("", &settings), Capabilities::default().large(1 << 20).races(2, 4)).await;
    }
}

#[tokio::test]
async fn a_service_that_ignores_conditions_is_refused() {
    let server = Server::ignoring_conditions().await;
    let error = server.store("vault", &server.settings()).probe_exclusive_create().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert!(error.to_string().contains("ignores create-only puts and must not be used"), "{error}");
    assert_eq!(server.keys(), Vec::<String>::new());
}

/// The client's own retry of a landed put meets its own object.
#[tokio::test]
async fn a_put_that_lands_and_says_503_is_ours() {
    let server = Server::start().await;
    let store = server.store("v", &server.settings());
    server.play(Trick::LandsAndSays503);
    assert_eq!(store.create(&name("a"), "body").await.unwrap(), Created::AlreadyOurs);
    server.play(Trick::LandsAndSays503);
    assert_eq!(store.create(&name("a"), "other").await.unwrap(), Created::Conflict);
    assert_eq!(store.get(&name("a")).await.unwrap(), "body");
}

#[tokio::test]
async fn a_409_with_nothing_written_is_put_again() {
    let server = Server::start().await;
    let store = server.store("v", &server.settings());
    for _ in 0..3 {
        server.play(Trick::Conflict);
    }
    assert_eq!(store.create(&name("a"), "body").await.unwrap(), Created::New);
    assert_eq!(server.tricks_left(), 0);
}

#[tokio::test]
async fn a_burst_of_503_is_outlasted() {
    let server = Server::start().await;
    let store = server.store("v", &server.settings());
    for _ in 0..8 {
        server.play(Trick::Says503);
    }
    assert_eq!(store.create(&name("a"), "body").await.unwrap(), Created::New);
    assert_eq!(server.tricks_left(), 0);
}

#[tokio::test]
async fn a_refusal_is_final_and_says_why() {
    let server = Server::start().await;
    let store = server.store("v", &server.settings());
    server.play(Trick::Denied);
    let error = store.create(&name("a"), "body").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert_eq!(error.to_string(), "create v/a: the store's credentials do not allow it");

    let settings = server.settings().option("aws_secret_access_key", "wrong");
    let error = server.store("v", &settings).create(&name("b"), "body").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
}

#[tokio::test]
async fn halted_and_broken_bodies_are_completed() {
    let server = Server::start().await;
    let store = server.store("v", &server.settings().stall_timeout(Duration::from_millis(300)));
    let body: Bytes = (0..=255u8).cycle().take(3 << 20).collect();
    assert!(store.create(&name("a"), body.clone()).await.unwrap().is_ours());
    for trick in [Trick::StallBody, Trick::CutBody] {
        server.play(trick);
        assert!(store.get(&name("a")).await.unwrap() == body, "{trick:?}");
        server.play(trick);
        assert!(store.get_range(&name("a"), 5..2_000_000).await.unwrap() == body[5..2_000_000], "{trick:?}");
        assert_eq!(server.tricks_left(), 0);
    }
}

/// What the metrics say is what a provider puts on the bill.
#[tokio::test]
async fn requests_are_counted_as_the_service_sees_them() {
    let server = Server::start().await;
    let store = server.store("v", &server.settings());
    let body: Bytes = (0..=255u8).cycle().take(6 << 20).collect();
    assert_eq!(store.create(&name("large"), body).await.unwrap(), Created::New);
    assert_eq!(store.create(&name("large"), "other").await.unwrap(), Created::Conflict);
    assert_eq!(store.create(&name("empty"), "").await.unwrap(), Created::New);
    store.get(&name("large")).await.unwrap();
    store.get_range(&name("large"), 1..9).await.unwrap();
    // Neighbours come together, and what is further away than a MiB comes alone.
    let mib = 1 << 20;
    store
        .get_ranges(&name("large"), &[4 * mib..4 * mib + 1, 0..9, 90..99, mib..mib + 5, 3 * mib..3 * mib])
        .await
        .unwrap();
    store.get_suffix(&name("large"), 10).await.unwrap();
    store.get_suffix(&name("empty"), 10).await.unwrap();
    store.get_range(&name("large"), 7 * mib..8 * mib).await.unwrap_err();
    assert!(store.get(&name("missing")).await.unwrap_err().is_not_found());
    store.head(&name("large")).await.unwrap().unwrap();
    assert_eq!(store.list("").count().await, 2);
    store.delete(&name("empty")).await.unwrap();
    store.delete_many(futures::stream::iter(["large", "a", "b"].map(name))).count().await;

    let (seen, counted) = (server.requests(), store.metrics());
    let counted = Requests {
        put: counted.create.requests,
        get: counted.get.requests,
        head: counted.head.requests,
        list: counted.list.requests,
        delete: counted.delete.requests,
    };
    assert_eq!(counted, seen);
    assert_eq!(seen.put, 3);
    assert_eq!(seen.delete, 2);
}

#[tokio::test]
async fn an_unreachable_service_is_unavailable() {
    let server = Server::start().await;
    let settings = server.settings().retries(2);
    drop(server);
    let store = Store::open("s3://bucket/v", &settings).unwrap();
    assert_eq!(store.create(&name("a"), "x").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.head(&name("a")).await.unwrap_err().kind(), ErrorKind::Unavailable);
}
