//! PostgreSQL: passed drills, moments, and what damage does to them.

use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use backup_examples::cli::{Terminals, exit};
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Range, check, figure};
use crate::harness::{Vault, damage};

async fn server(version: PgVersion) -> backup_testkit::Result<Postgres> {
    let server = Postgres::builder(version).setting("autovacuum", "off").start().await?;
    let client = server.connect("postgres").await?;
    client
        .batch_execute(
            "create table orders as select i, md5(i::text) as word from generate_series(1, 20000) i;
             create index orders_word on orders (word);
             create index orders_upper on orders (upper(word));
             create materialized view few as select * from orders where i < 10;
             create materialized view none as select * from orders with no data;
             create table \"odd \"\"name\" (a text default E'line\\nfeed\\\\');
             insert into \"odd \"\"name\" default values;
             create sequence numbers; select nextval('numbers');",
        )
        .await?;
    client.batch_execute("create database other").await?;
    Ok(server)
}

fn bin_dir(server: &Postgres) -> String {
    format!("--bin-dir={}", server.binaries().bin_dir().display())
}

/// Waits until the log is stored up to where the server is.
async fn stored(vault: &Vault, server: &Postgres) {
    let end = u64::from(server.current_lsn().await.unwrap());
    for _ in 0..600 {
        let windows = vault.json(&["windows"]).await;
        let ends = windows["windows"].as_array().unwrap().iter().filter_map(|window| window["to"]["offset"].as_u64());
        if ends.max() >= Some(end) {
            return;
        }
        tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await.unwrap_err();
    }
    panic!("the log is not stored up to {end:X}");
}

#[tokio::test(flavor = "multi_thread")]
async fn moments_and_backups_are_proven_on_the_oldest_and_the_newest() {
    for version in [PgVersion::V13, PgVersion::V18] {
        let server = require_or_skip!(server(version).await);
        let (range, url, bin_dir) = (Range::open().await, server.conn_string("postgres"), bin_dir(&server));
        let cancel = CancellationToken::new();
        let arguments = ["log", "postgres", "--url", &url, "--flush-after", "100ms"];
        let capture = range.vault.run_on(&arguments, Terminals::default(), cancel.clone());
        let work = async {
            let backup = range.vault.json(&["backup", "postgres", "--url", &url]).await;
            let client = server.connect("postgres").await.unwrap();
            client.batch_execute("create table counted as select generate_series(1, 10) as i").await.unwrap();
            client.batch_execute("select pg_create_restore_point('middle')").await.unwrap();
            client.batch_execute("delete from counted where i > 3").await.unwrap();
            stored(&range.vault, &server).await;
            cancel.cancel();
            backup
        };
        let (captured, backup) = tokio::join!(capture, work);
        assert_eq!(captured.code, exit::DONE, "{captured:?}");

        let middle = range.passes("postgres", &[&bin_dir, "--name", "middle"]).await;
        let again = range.passes("postgres", &[&bin_dir, "--name", "middle"]).await;
        let latest = range.passes("postgres", &[&bin_dir]).await;
        let id = backup["id"].as_str().unwrap();
        let alone = range.passes("postgres", &[&bin_dir, "--backup", id]).await;
        let rows = |record: &Value| figure(record, "tables", "rows");
        assert_eq!(rows(&middle) - rows(&latest), 7, "{version}: {middle} {latest}");
        let digest = |record: &Value| check(record, "tables")["digest"].as_str().unwrap().to_owned();
        assert_eq!(digest(&middle), digest(&again), "{version}: the same target has the same digest");
        assert_ne!(digest(&middle), digest(&latest));
        assert_eq!(alone["position"]["text"], backup["position"], "{version}: {alone}");
        assert!(middle["position"]["offset"].as_u64() < latest["position"]["offset"].as_u64(), "{middle} {latest}");
        assert!(latest["time"].is_string(), "{latest}");
        for record in [&middle, &latest, &alone] {
            assert_eq!((&record["backup"], &record["engine"]), (&backup["id"], &json!("postgres")));
            let steps: Vec<_> = record["steps"].as_array().unwrap().iter().map(|step| &step["name"]).collect();
            assert_eq!(steps, ["restore", "start", "replay", "check"]);
            assert!(
                figure(record, "tables", "tables") > 60 && figure(record, "relations", "databases") == 3,
                "{record}"
            );
            assert!(figure(record, "page-checksums", "pages") > 100, "{record}");
            assert!(figure(record, "amcheck", "indexes") > 100, "{record}");
            assert_eq!(figure(record, "amcheck", "tables") > 0, version >= PgVersion::V14, "{record}");
            assert!(record["server"].as_str().unwrap().contains(&format!(" {version}")), "{record}");
        }

        // What is known afterwards.
        let listed = range.vault.json(&["list"]).await;
        assert_eq!(listed[0]["proven_at"], alone["ended"]);
        let shown = range.vault.json(&["show", id]).await;
        assert_eq!((&shown["proof"]["id"], &shown["proof"]["head"]), (&alone["id"], &alone["head"]));
        let people = range.vault.run(&["list"]).await;
        assert!(people.out.lines().next().unwrap().ends_with(alone["ended"].as_str().unwrap()), "{people:?}");
        let random = range.passes("postgres", &[&bin_dir, "--random", "--no-amcheck"]).await;
        assert!(random["target"].as_str().unwrap().ends_with(", drawn"), "{random}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_wrong_fails_the_drill_and_names_its_relation() {
    let mut server = require_or_skip!(server(PgVersion::V17).await);
    let client = server.connect("postgres").await.unwrap();
    let mut paths = Vec::new();
    for relation in ["orders", "orders_word"] {
        let row = client.query_one(&format!("select pg_relation_filepath('{relation}')"), &[]).await.unwrap();
        paths.push(row.get::<_, String>(0));
    }
    drop(client);
    for (path, relation) in paths.iter().zip(["postgres.public.orders", "postgres.public.orders_word"]) {
        server.stop(StopMode::Fast).await.unwrap();
        let file = std::fs::File::options().read(true).write(true).open(server.data_dir().join(path)).unwrap();
        let flip = || {
            let mut byte = [0];
            file.read_exact_at(&mut byte, 7 * 8192 + 5000).unwrap();
            file.write_all_at(&[byte[0] ^ 1], 7 * 8192 + 5000).unwrap();
        };
        flip();
        server.start().await.unwrap();
        let range = Range::open().await;
        let url = server.conn_string("postgres");
        range.vault.json(&["backup", "postgres", "--url", &url]).await;
        let ran = range.run("postgres", &[&bin_dir(&server), "--no-amcheck"]).await;
        let error = ran.failed_json(exit::DAMAGED);
        assert!(error["message"].as_str().unwrap().contains(relation), "{error}");
        let record = ran.json();
        assert_eq!(record["outcome"], "damaged");
        let pages = check(&record, "page-checksums");
        assert_eq!(pages["outcome"], "failed");
        assert!(pages["problem"].as_str().unwrap().contains("first block 7"), "{pages}");
        let read = check(&record, "tables");
        let expected = if relation.ends_with("word") { "passed" } else { "failed" };
        assert_eq!(read["outcome"], expected, "an index is read by nobody: {read}");
        assert!(range.vault.json(&["list"]).await[0].get("proven_at").is_none(), "what has failed is no proof");
        let people = range.args("postgres", &[&bin_dir(&server), "--no-amcheck"]);
        let people = range.vault.run(&people.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(people.code == exit::DAMAGED && people.out.contains("verdict\tfailed"), "{people:?}");
        server.stop(StopMode::Fast).await.unwrap();
        flip();
        server.start().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_fails_the_drill_and_what_cannot_begin_is_none() {
    let server = require_or_skip!(server(PgVersion::V17).await);
    let (range, url, bin_dir) = (Range::open().await, server.conn_string("postgres"), bin_dir(&server));
    let nothing = range.run("postgres", &[&bin_dir]).await;
    assert_eq!(nothing.failed_json(exit::INVALID_INPUT)["kind"], "invalid_input");
    let backup = range.vault.json(&["backup", "postgres", "--url", &url]).await;
    let before = range.vault.objects("").len();
    let absent = range.run("postgres", &["--bin-dir=/nowhere"]).await;
    assert!(absent.failed_json(exit::ENVIRONMENT)["message"].as_str().unwrap().contains("/nowhere"));
    let role = range.run("postgres", &[&bin_dir, "--role=nobody_here"]).await;
    assert_eq!(role.code, exit::ENVIRONMENT, "{role:?}");
    let kind = range.run("clickhouse", &[]).await;
    assert_eq!(kind.code, exit::INVALID_INPUT, "{kind:?}");
    // A role that is not there was found out by the restored server: that was a drill.
    assert_eq!(range.vault.objects("").len(), before + 1);

    let packs = range.vault.objects("packs");
    let largest = packs.iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    damage(largest);
    let ran = range.run("postgres", &[&bin_dir]).await;
    assert_eq!(ran.failed_json(exit::DAMAGED)["kind"], "damaged");
    let record = ran.json();
    assert_eq!((&record["outcome"], &record["backup"]), (&json!("damaged"), &backup["id"]));
    assert_eq!(record["steps"].as_array().unwrap().len(), 1, "{record}");
    assert!(record["problem"].as_str().unwrap().contains("packs/"), "{record}");
    assert_eq!(range.vault.objects("").len(), before + 2, "a drill that fails is written down");
}
