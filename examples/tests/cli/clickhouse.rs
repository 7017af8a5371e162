//! ClickHouse from the command line: there and back, mistakes, and what a program that is killed leaves to the next one.

use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use backup_examples::cli::Terminals;
use backup_testkit::{ClickHouse, clickhouse_versions_under_test, require_or_skip, wait};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::Vault;
use crate::process::{backupctl, ended, send};

const SHOP: [&str; 5] = [
    "CREATE DATABASE shop",
    "CREATE TABLE shop.orders (id UInt64, what String) ENGINE = MergeTree PARTITION BY id % 3 ORDER BY id",
    "CREATE TABLE shop.others (id UInt64) ENGINE = Log",
    "INSERT INTO shop.orders SELECT number, hex(sipHash64(number)) FROM numbers(9000)",
    "INSERT INTO shop.others SELECT number FROM numbers(5)",
];

async fn run(server: &ClickHouse, statements: &[&str]) {
    for sql in statements {
        server.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// The address of a server for its user with this password, as it is written in a URL.
fn url(server: &ClickHouse, password: &str) -> String {
    format!("http://{}:{password}@127.0.0.1:{}", ClickHouse::USER, server.port())
}

/// The password of [`ClickHouse::USER`] in a URL.
const PASSWORD: &str = "s3cret%3C%26%22";

fn dir(server: &ClickHouse) -> &str {
    server.data_dir().to_str().unwrap()
}

/// What is frozen at a server.
fn frozen(data: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(data.join("shadow")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("backup_library_")).collect()
}

fn kill(child: Child) {
    send(&child, Signal::KILL);
    let output = ended(child);
    assert_eq!(output.status.code(), None, "it had not come to its end: {output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_goes_into_a_backup_and_comes_out_under_another_name() {
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(ClickHouse::builder(version).start().await);
        run(&server, &SHOP).await;
        let vault = Vault::created().await;
        let (url, dir) = (url(&server, PASSWORD), dir(&server));
        let from = ["backup", "clickhouse", "--url", &url, "--data-dir", dir];
        let full = vault.json(&from).await;
        assert_eq!(
            (&full["engine"], &full["kind"], &full["position"]),
            (&json!("clickhouse"), &json!("full"), &Value::Null)
        );
        run(&server, &["INSERT INTO shop.orders SELECT 3, 'one more'"]).await;
        let next = vault.json(&[&from[..], &["--no-verify", "--identity", "the shop"]].concat()).await;
        assert_eq!(next["kind"], "full", "of another identity");
        let next = vault.json(&from).await;
        assert_eq!((&next["kind"], &next["parent"]), (&json!("incremental"), &full["id"]));
        assert!(next["new_bytes"].as_u64() < full["new_bytes"].as_u64(), "{next}");
        assert_eq!(vault.json(&["list"]).await.as_array().unwrap().len(), 3);
        let id = full["id"].as_str().unwrap();
        let shown = vault.run(&["show", id]).await.out;
        for word in ["skew_ms", "rows", "data/shop/orders/", "data/shop/others/rows.native", "metadata/shop/orders"] {
            assert!(shown.contains(word), "{word} in {shown}");
        }
        let report = vault.json(&["verify", "--level", "engine"]).await;
        assert_eq!((&report["sound"], &report["backups"]), (&json!(true), &json!(3)));

        let into = ["restore", "clickhouse", "--into", &url, "--data-dir", dir, "--backup", id];
        let copy = ["--only", "data/shop/orders", "--rename", "shop.orders=shop.copy"];
        let way = [&into[..], &copy].concat();
        let plan = vault.json(&[&["plan"], &way[1..]].concat()).await;
        assert_eq!((&plan["refused"], &plan["findings"]), (&json!(false), &json!([])));
        let restored = vault.json(&way).await;
        assert!(restored["entries"].as_u64() > Some(0), "{restored}");
        assert_eq!(restored["into"], format!("http://backup:***@127.0.0.1:{}", server.port()));
        assert_eq!(restored["findings"], json!([]));
        let rows = |table: &str| {
            format!("SELECT count(), sum(id), sum(cityHash64(id, what)) FROM shop.{table} WHERE what != 'one more'")
        };
        assert_eq!(server.query(&rows("copy")).await.unwrap(), server.query(&rows("orders")).await.unwrap());
        assert_eq!(server.query("SELECT count() FROM shop.copy").await.unwrap(), "9000");
        assert_eq!(server.query("SELECT count() FROM shop.orders").await.unwrap(), "9001", "it is as it was");
        // There it is.
        assert!(vault.run(&way).await.failed(10).contains("shop.copy"));
        let again = vault.run(&[&way[..], &["--existing", "add"]].concat()).await;
        assert!(again.code == 0 && again.out.contains("http://backup:***@"), "{again:?}");
        assert_eq!(server.query("SELECT count() FROM shop.copy").await.unwrap(), "9000", "nothing is doubled");
        let bare = ["--rename", "shop=bare", "--structure-only", "--keep-access"];
        vault.json(&[&into[..], &bare].concat()).await;
        assert_eq!(server.query("SELECT count() FROM bare.orders").await.unwrap(), "0");
        mistakes(&vault, &server, &into).await;
    }
}

/// What is written wrongly changes nothing, and is told by its name.
async fn mistakes(vault: &Vault, server: &ClickHouse, into: &[&str]) {
    let tables = "SELECT groupArray(concat(database, '.', name)) FROM (SELECT database, name FROM system.tables WHERE database != 'system' ORDER BY database, name)";
    let before = server.query(tables).await.unwrap();
    for (args, code, word) in [
        (&["--exsting", "replace"][..], 2, "--exsting"),
        (&["--existing", "keep"], 2, "refuse, replace, add"),
        (&["--rename", "shop"], 2, "DATABASE=DATABASE"),
        (&["--rename", "shop=a", "--rename", "shop=b"], 10, "shop is renamed twice"),
        // With a typo the table that is there would be replaced.
        (&["--existing", "replace", "--rename", "shpo=copy"], 10, "shpo"),
        (&["--existing", "replace", "--rename", "shop.ordres=shop.copy"], 10, "shop.ordres"),
        (&["--existing", "replace", "--only", "data/shop/ordres"], 10, "matches nothing"),
        (&["--disk", "cold"], 2, "NAME=DIR"),
    ] {
        let ran = vault.run(&[into, args].concat()).await;
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{args:?}: {ran:?}");
        assert!(ran.err.contains(word), "{args:?}: {ran:?}");
    }
    let url = url(server, PASSWORD);
    let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let nobody = format!("http://127.0.0.1:{nobody}");
    let wrong = self::url(server, "hunter2");
    let other = vault.dir.path().to_str().unwrap();
    for (args, code, word) in [
        (&["backup", "clickhouse", "--url", &wrong][..], 11, "does not accept the user"),
        (&["restore", "clickhouse", "--into", &wrong], 11, "does not accept the user"),
        (&["backup", "clickhouse", "--url", &nobody], 12, &nobody[7..]),
        (&["restore", "clickhouse", "--into", &nobody], 12, &nobody[7..]),
        (&["backup", "clickhouse", "--url", &url, "--data-dir", other], 11, "is not the data directory"),
        (&["backup", "clickhouse", "--url", &url, "--data-dir", "/nowhere"], 11, "/nowhere"),
        (&["restore", "clickhouse", "--into", &url, "--data-dir", "/nowhere", "--rename", "shop=new"], 11, "/nowhere"),
        (&["restore", "clickhouse", "--into", "/srv/clickhouse"], 10, "a running server"),
        (&["restore", "clickhouse", "--into", "tcp://127.0.0.1:9000"], 10, "http://"),
        (&["log", "clickhouse", "--url", &url], 10, "no change log"),
        (&["restore", "clickhouse", "--into", &url, "--time", "2020-01-01T00:00:00Z"], 10, "time"),
        (&["restore", "clickhouse", "--into", &url, "--position", "7"], 10, "position"),
    ] {
        let ran = vault.run(args).await;
        let line = ran.failed(code);
        assert!(line.contains(word) && !line.contains("hunter2") && !line.contains(PASSWORD), "{args:?}: {line}");
    }
    assert_eq!(server.query(tables).await.unwrap(), before);
    assert_eq!(frozen(server.data_dir()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn small_backups_follow_one_another_until_they_are_ended() {
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(ClickHouse::builder(version).start().await);
        run(&server, &SHOP).await;
        let vault = Vault::created().await;
        let (url, dir) = (url(&server, PASSWORD), dir(&server));
        let series =
            ["--json", "backup", "clickhouse", "--url", &url, "--data-dir", dir, "--between", "--every", "50ms"];
        let cancel = CancellationToken::new();
        let driver = async {
            let deadline = wait::Deadline::after(Duration::from_secs(60));
            for wanted in [1, 3] {
                while vault.json(&["list"]).await.as_array().unwrap().len() < wanted {
                    assert!(!deadline.passed(), "there are no {wanted} backups");
                    backup_testkit::wait::pause().await;
                }
                run(&server, &["INSERT INTO shop.orders SELECT 7, 'more'", "OPTIMIZE TABLE shop.orders FINAL"]).await;
            }
            cancel.cancel();
        };
        let (ran, ()) = tokio::join!(vault.run_on(&series, Terminals::default(), cancel.clone()), driver);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
        let told = ran.json();
        let list = vault.json(&["list"]).await;
        assert_eq!((&told["taken"], &told["failed"]), (&json!(list.as_array().unwrap().len()), &json!(0)), "{told}");
        assert_eq!(told["newest"]["id"], list.as_array().unwrap().last().unwrap()["id"]);
        let shown = vault.run(&["show", told["newest"]["id"].as_str().unwrap()]).await.out;
        assert!(shown.contains("parts_stood_for") && shown.contains("tables_kept"), "{shown}");
        for (args, word) in [(["--every", "0s"], "longer than nothing"), (["--every", "often"], "duration")] {
            let ran = vault.run(&[&series[1..8], &args].concat()).await;
            assert!(ran.code == 2 && ran.err.contains(word), "{ran:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_becomes_a_file() {
    let version = clickhouse_versions_under_test()[0];
    let server = require_or_skip!(ClickHouse::builder(version).start().await);
    run(&server, &SHOP).await;
    let vault = Vault::created().await;
    let (url, dir) = (url(&server, PASSWORD), dir(&server));
    vault.json(&["backup", "clickhouse", "--url", &url, "--data-dir", dir]).await;
    run(&server, &["DROP TABLE shop.orders"]).await;
    let file = vault.dir.path().join("orders.csv");
    let way = ["export", "clickhouse", "--through", &url, "--data-dir", dir, "--output", file.to_str().unwrap()];
    let csv = ["--table", "shop.orders", "--format", "CSV"];
    let told = vault.json(&[&way[..], &csv].concat()).await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!((text.lines().count(), &told["bytes"]), (9000, &json!(text.len())));
    assert_eq!(told["through"], format!("http://backup:***@127.0.0.1:{}", server.port()));
    assert!(vault.run(&[&way[..], &csv].concat()).await.failed(10).contains("exists already"));
    std::fs::remove_file(&file).unwrap();
    assert!(vault.run(&[&way[..], &["--table", "shop.nowhere"]].concat()).await.failed(10).contains("matches nothing"));
    assert!(vault.run(&[&way[..], &["--table", "orders"]].concat()).await.err.contains("DATABASE.TABLE"));
    let names =
        std::fs::read_dir(vault.dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.contains("orders")), "nothing is left of an export that failed");
    assert_eq!(server.query("SELECT count() FROM system.databases WHERE name LIKE 'backup%'").await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_shards_are_one_backup() {
    let version = clickhouse_versions_under_test()[0];
    let one = require_or_skip!(ClickHouse::builder(version).start().await);
    let two = require_or_skip!(ClickHouse::builder(version).start().await);
    for server in [&one, &two] {
        run(server, &SHOP).await;
    }
    let vault = Vault::created().await;
    let member = |shard: u32, server: &ClickHouse| {
        [format!("{shard}/1={}", url(server, PASSWORD)), format!("{shard}/1={}", dir(server))]
    };
    let (first, second) = (member(1, &one), member(2, &two));
    let from = ["backup", "clickhouse-cluster", "--member", &first[0], "--data-dir", &first[1]];
    let backup = vault.json(&[&from[..], &["--member", &second[0], "--data-dir", &second[1]]].concat()).await;
    assert_eq!(backup["engine"], "clickhouse-cluster");
    assert_eq!(vault.json(&["verify", "--level", "engine"]).await["sound"], true);
    let into = url(&one, PASSWORD);
    let way = [
        "restore",
        "clickhouse-cluster",
        "--into",
        &into,
        "--data-dir",
        &first[1],
        "--rename",
        "shop=both",
        "--keep-access",
    ];
    let restored = vault.json(&way).await;
    assert_eq!(restored["into"], format!("http://backup:***@127.0.0.1:{}", one.port()));
    // Also parts that are alike, file by file: they are of two shards.
    assert_eq!(one.query("SELECT count() FROM both.orders").await.unwrap(), "18000");
    assert_eq!(one.query("SELECT count() FROM shop.orders").await.unwrap(), "9000");
    let stray = vault.run(&[&from[..], &["--data-dir", &second[1]]].concat()).await;
    assert!(stray.failed(10).contains("2/1 has a directory or disk and no address"));
    assert!(vault.run(&["backup", "clickhouse-cluster"]).await.failed(10).contains("which servers"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_backup_froze_is_removed_by_the_next() {
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(ClickHouse::builder(version).start().await);
        let table =
            "CREATE TABLE default.t (a UInt64, b UInt64, c UInt64, d UInt64) ENGINE = MergeTree ORDER BY tuple()";
        // What does not compress takes its time.
        let rows = "INSERT INTO default.t SELECT rand64(1), rand64(2), rand64(3), rand64(4) FROM numbers(400000)";
        run(&server, &[table, rows]).await;
        let vault = Vault::created().await;
        let (url, data) = (url(&server, PASSWORD), server.data_dir());
        let args = ["backup", "clickhouse", "--url", &url, "--data-dir", dir(&server)];
        let child = backupctl(&vault, &args).spawn().unwrap();
        let found = wait::until(Duration::from_secs(60), || (!frozen(data).is_empty()).then_some(()));
        found.expect("a snapshot");
        kill(child);
        let left = frozen(data);
        assert!(!left.is_empty(), "it was killed in the midst");
        assert_eq!(vault.json(&["list"]).await, json!([]), "nothing of it is visible");

        let next = vault.json(&args).await;
        assert_eq!(frozen(data), Vec::<String>::new());
        let shown = vault.run(&["show", next["id"].as_str().unwrap()]).await.out;
        for name in left {
            assert!(shown.contains(&format!("the snapshot {name} of a backup that was interrupted")), "{shown}");
        }
        assert_eq!(vault.json(&["verify", "--level", "engine"]).await["sound"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_restore_is_completed_by_the_same_command() {
    const PARTS: u64 = 60;
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(ClickHouse::builder(version).start().await);
        let table = "CREATE TABLE shop.orders (id UInt64, what UInt64) ENGINE = MergeTree ORDER BY id";
        run(&server, &["CREATE DATABASE shop", table, "SYSTEM STOP MERGES"]).await;
        for part in 0..PARTS {
            let sql = format!("INSERT INTO shop.orders SELECT {part} * 100 + number, rand64() FROM numbers(100)");
            run(&server, &[&sql]).await;
        }
        let vault = Vault::created().await;
        let (url, dir) = (url(&server, PASSWORD), dir(&server));
        vault.json(&["backup", "clickhouse", "--url", &url, "--data-dir", dir]).await;
        let way = ["restore", "clickhouse", "--into", &url, "--data-dir", dir, "--rename", "shop=copy"];
        let child = backupctl(&vault, &way).spawn().unwrap();
        let deadline = wait::Deadline::after(Duration::from_secs(60));
        // While there is no table, there is no answer either.
        let count = async || {
            server.query("SELECT count() FROM copy.orders").await.map_or(0, |text| text.parse::<u64>().unwrap())
        };
        while count().await == 0 {
            assert!(!deadline.passed(), "no part was attached");
            backup_testkit::wait::pause().await;
        }
        kill(child);
        let some = count().await;
        assert!(some > 0 && some < PARTS * 100, "it was killed in the midst: {some}");

        // Not by itself over what is there.
        assert!(vault.run(&way).await.failed(10).contains("copy.orders: exists already"));
        assert_eq!(count().await, some);
        vault.json(&[&way[..], &["--existing", "replace"]].concat()).await;
        let rows = |database: &str| format!("SELECT count(), sum(cityHash64(id, what)) FROM {database}.orders");
        assert_eq!(server.query(&rows("copy")).await.unwrap(), server.query(&rows("shop")).await.unwrap());
        assert_eq!(count().await, PARTS * 100);
        assert!(!server.data_dir().join("backup-library-restore").exists(), "what was extracted is gone");
    }
}
