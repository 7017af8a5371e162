//! Redis and Valkey: every key of a backup is in the instance, also one that has expired since.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use backup_examples::cli::{Terminals, exit};
use backup_testkit::{Redis, RedisVersion, require_or_skip, scratch_dir};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{Range, check, figure};
use crate::harness::damage;
use crate::redis::noise;

async fn server(version: RedisVersion) -> backup_testkit::Result<Redis> {
    let server = Redis::builder(version).start().await?;
    let mut client = server.connect().await?;
    for number in 0..500 {
        client.run(&format!("SET key:{number} value:{number}")).await?;
    }
    for line in [
        "RPUSH list a b c",
        "HSET hash f v g w",
        "SADD set 1 2 3",
        "SADD words one two three",
        "ZADD sorted 1 a 2 b",
        "XADD stream 1-1 f v",
        "SELECT 3",
        "SET elsewhere x",
    ] {
        client.run(line).await?;
    }
    Ok(server)
}

/// The server's program, with the libraries that this system may lack.
struct Program {
    argument: String,
    _dir: TempDir,
}

impl Program {
    fn of(server: &Redis) -> Self {
        let dir = scratch_dir().unwrap();
        let (script, program) = (dir.path().join("redis-server"), server.binaries().program().display());
        let libraries =
            server.binaries().libraries().map(|dir| format!("export LD_LIBRARY_PATH='{}'\n", dir.display()));
        let text = format!("#!/bin/sh\n{}exec '{program}' \"$@\"\n", libraries.unwrap_or_default());
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        Self { argument: format!("--server={}", script.display()), _dir: dir }
    }
}

async fn pause() {
    tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_is_proven_also_one_that_has_expired_since() {
    for version in RedisVersion::ALL {
        let server = require_or_skip!(server(version).await);
        let (range, url, program) = (Range::open().await, server.url(), Program::of(&server));
        let mut client = server.connect().await.unwrap();
        client.run("SET brief x PX 3000").await.unwrap();
        let backup = range.vault.json(&["backup", "redis", "--url", &url]).await;
        while client.run("EXISTS brief").await.unwrap().number() == Some(1) {
            pause().await;
        }
        let record = range.passes("redis", &[&program.argument]).await;
        assert_eq!((&record["backup"], &record["position"]["text"]), (&backup["id"], &backup["position"]));
        assert_eq!(
            (figure(&record, "keys", "keys"), figure(&record, "keys", "databases")),
            (508, 2),
            "{version}: {record}"
        );
        assert_eq!((figure(&record, "snapshot", "keys"), figure(&record, "values", "same")), (508, 508), "{record}");
        assert_eq!(check(&record, "values")["digest"], check(&record, "snapshot")["digest"]);
        let again = range.passes("redis", &[&program.argument, "--random"]).await;
        assert_eq!(check(&again, "values")["digest"], check(&record, "values")["digest"], "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_behind_the_snapshot_is_replayed() {
    let server = require_or_skip!(server(RedisVersion::Redis72).await);
    let (range, url, program) = (Range::open().await, server.url(), Program::of(&server));
    let cancel = CancellationToken::new();
    let arguments = ["log", "redis", "--url", &url, "--flush-after", "100ms"];
    let capture = range.vault.run_on(&arguments, Terminals::default(), cancel.clone());
    let reach = |windows: &Value| {
        let ends = windows["windows"].as_array().unwrap().iter().filter_map(|window| window["to"]["offset"].as_u64());
        ends.max().unwrap_or_default()
    };
    let work = async {
        // What is captured is behind a backup that was made while it was.
        let mut client = server.connect().await.unwrap();
        while server.info("replication", "connected_slaves").await.unwrap().as_deref() != Some("1") {
            pause().await;
        }
        range.vault.json(&["backup", "redis", "--url", &url]).await;
        client.run("SET later x").await.unwrap();
        client.run("DEL key:7 key:8").await.unwrap();
        let offset = server.info("replication", "master_repl_offset").await.unwrap().unwrap().parse::<u64>().unwrap();
        while reach(&range.vault.json(&["windows"]).await) < offset {
            pause().await;
        }
        cancel.cancel();
    };
    let (captured, ()) = tokio::join!(capture, work);
    assert_eq!(captured.code, exit::DONE, "{captured:?}");
    let record = range.passes("redis", &[&program.argument]).await;
    assert_eq!(figure(&record, "keys", "keys"), 506, "{record}");
    assert_eq!(check(&record, "values")["outcome"], "skipped");
    assert!(check(&record, "snapshot")["digest"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_and_a_server_that_is_too_old_are_told_apart() {
    let server = require_or_skip!(server(RedisVersion::Redis72).await);
    let old = require_or_skip!(Redis::builder(RedisVersion::ALL[0]).start().await);
    let range = Range::open().await;
    // What is damaged below is in the middle of what a restore reads.
    let mut client = server.connect().await.unwrap();
    client.run(&format!("SET large {}", noise(400_000))).await.unwrap();
    range.vault.json(&["backup", "redis", "--url", &server.url()]).await;
    let refused = range.run("redis", &[&Program::of(&old).argument]).await;
    let error = refused.failed_json(exit::ENVIRONMENT);
    assert!(error["message"].as_str().unwrap().contains("the replay of the drill failed"), "{error}");
    assert_eq!(refused.json()["outcome"], "failed");
    let packs = range.vault.objects("packs");
    damage(packs.iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap());
    let damaged = range.run("redis", &[&Program::of(&server).argument]).await;
    assert_eq!(damaged.failed_json(exit::DAMAGED)["kind"], json!("damaged"));
}
