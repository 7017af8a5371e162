//! Servers of ClickHouse do what the testkit promises, in every version.

use std::path::{Path, PathBuf};

use backup_testkit::clickhouse::dataset::{self, TableKind};
use backup_testkit::clickhouse::{ClickHouseBinaries, digest, digests};
use backup_testkit::wait::Stopwatch;
use backup_testkit::{
    Cache, ClickHouse, ClickHouseVersion, Error, Versity, ZooKeeper, clickhouse_versions_under_test, require_or_skip,
    unprivileged,
};

const TABLE: &str = "CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree PARTITION BY a % 3 ORDER BY a";

#[tokio::test(flavor = "multi_thread")]
async fn every_version_takes_data_and_survives_kill_and_restart() {
    for version in clickhouse_versions_under_test() {
        let watch = Stopwatch::start();
        let mut server = require_or_skip!(ClickHouse::builder(version).setting("max_threads", "1").start().await);
        println!("{version}: {:?}", watch.elapsed());
        let said = server.query("SELECT version(), timezone()").await.unwrap();
        assert!(said.starts_with(&format!("{}.", version.line())) && said.ends_with("UTC"), "{said}");
        let threads = "SELECT value FROM system.settings WHERE name = 'max_threads'";
        assert_eq!(server.query(threads).await.unwrap(), "1");
        assert_eq!(server.query_with(threads, &[("max_threads", "3")]).await.unwrap(), "3");

        server.query(TABLE).await.unwrap();
        server.insert("t", "TabSeparated", "1\tone;\n2\ttw\\to\n").await.unwrap();
        server.insert("t (s, a)", "RowBinary", b"\x04\x00\xff;x\x03\0\0\0\0\0\0\0").await.unwrap();
        let rows = "SELECT a, hex(s) FROM t ORDER BY a";
        let before = "1\t6F6E653B\n2\t7477096F\n3\t00FF3B78";
        assert_eq!(server.query(rows).await.unwrap(), before);
        server.kill().await;
        assert!(!server.is_running());
        let port = server.port();
        server.start().await.unwrap();
        assert_eq!(server.query(rows).await.unwrap(), before, "{version} after a kill");
        let watch = Stopwatch::start();
        server.restart().await.unwrap();
        println!("{version}: stop and start {:?}", watch.elapsed());
        assert_eq!((server.port(), server.query(rows).await.unwrap().as_str()), (port, before), "{version}");

        server.query("ALTER TABLE t FREEZE WITH NAME 'a name'").await.unwrap();
        let shadow = server.data_dir().join("shadow/a%20name");
        assert_eq!(parts(&shadow).unwrap().len(), 3, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dataset_is_the_same_each_time_and_is_digested_as_it_is() {
    for version in clickhouse_versions_under_test() {
        let mut server = require_or_skip!(ClickHouse::builder(version).start().await);
        let watch = Stopwatch::start();
        dataset::fill(&server, 7, 300).await.unwrap();
        println!("{version}: filled in {:?}", watch.elapsed());
        let watch = Stopwatch::start();
        let before = digests(&server).await.unwrap();
        println!("{version}: digested in {:?}", watch.elapsed());
        if version == ClickHouseVersion::V18_16 {
            let other = ClickHouse::builder(version).start().await.unwrap();
            dataset::fill(&other, 7, 300).await.unwrap();
            assert_eq!(digests(&other).await.unwrap(), before);
            dataset::fill(&other, 8, 1).await.unwrap();
            let more = digests(&other).await.unwrap();
            let same: Vec<_> = before.iter().filter(|(name, digest)| more.get(*name) == Some(*digest)).collect();
            assert!(same.iter().all(|((_, table), _)| table == "empty"), "{same:?}");
        }
        let tables = dataset::tables(version);
        for table in &tables {
            let Some(digest) = before.get(&(table.database.to_owned(), table.name.to_owned())) else {
                assert!(["set_of", "null"].contains(&table.name), "{version}: {table:?}");
                continue;
            };
            assert!(digest.rows > 0 || table.name == "empty", "{version}: {table:?} {digest:?}");
        }
        // A server that stops cleanly would hand on what the table `buffer` holds.
        server.kill().await;
        server.start().await.unwrap();
        let after = digests(&server).await.unwrap();
        let kept = |name: &(String, String)| {
            !tables.iter().any(|t| (t.database, t.name) == (&name.0, &name.1) && t.kind == TableKind::Memory)
        };
        let changed: Vec<_> = before.iter().filter(|(name, digest)| after.get(*name) != Some(*digest)).collect();
        assert!(changed.iter().all(|(name, _)| !kept(name)), "{version}: {changed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_sees_what_is_there_and_not_how_it_lies() {
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(ClickHouse::builder(version).start().await);
        server.query("CREATE DATABASE `ö d`").await.unwrap();
        let table = "`ö d`.`t/x`";
        let create = format!(
            "CREATE TABLE {table} (a UInt64, s Nullable(String), x Array(String)) ENGINE = MergeTree ORDER BY a"
        );
        server.query(&create).await.unwrap();
        for row in ["(1, 'x', ['a', 'b'])", "(2, NULL, [])", "(3, '', ['a,b'])"] {
            server.query(&format!("INSERT INTO {table} VALUES {row}")).await.unwrap();
        }
        let read = async || digest(&server, "ö d", "t/x").await.unwrap();
        let before = read().await;
        assert_eq!(before.rows, 3);
        let parts = "SELECT name FROM system.parts WHERE active AND database = 'ö d' ORDER BY name";
        assert_eq!(server.query(parts).await.unwrap(), "all_1_1_0\nall_2_2_0\nall_3_3_0");
        match version {
            ClickHouseVersion::V18_16 => {
                server.query(&format!("ALTER TABLE {table} DETACH PARTITION tuple()")).await.unwrap();
                assert_eq!(read().await.rows, 0);
                for part in ["all_2_2_0", "all_1_1_0", "all_3_3_0"] {
                    server.query(&format!("ALTER TABLE {table} ATTACH PART '{part}'")).await.unwrap();
                }
            }
            _ => {
                server.query(&format!("ALTER TABLE {table} DETACH PART 'all_2_2_0'")).await.unwrap();
                assert_eq!(read().await.rows, 2);
                server.query(&format!("ALTER TABLE {table} ATTACH PART 'all_2_2_0'")).await.unwrap();
            }
        }
        assert_eq!(read().await, before, "{version}");
        server.query(&format!("OPTIMIZE TABLE {table} FINAL")).await.unwrap();
        assert_eq!(read().await, before, "{version}");

        // Rows that differ by little: nothing and an empty text, two items and one with the same letters, one row twice.
        for (from, to) in [("NULL", "''"), ("['a', 'b']", "['a,b']"), ("2, NULL", "3, NULL")] {
            let rows = "(1, 'x', ['a', 'b']), (2, NULL, []), (3, '', ['a,b'])".replace(from, to);
            server.query(&format!("DROP TABLE {table}")).await.unwrap();
            server.query(&create).await.unwrap();
            server.query(&format!("INSERT INTO {table} VALUES {rows}")).await.unwrap();
            assert_ne!(read().await, before, "{version}: {rows}");
        }
        let missing = digest(&server, "ö d", "t").await.unwrap_err();
        assert!(missing.to_string().contains("no table ö d.t"), "{missing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_old_servers_replicate_through_zookeeper() {
    let zookeeper = require_or_skip!(ZooKeeper::start().await);
    let builder = |replica: &str| {
        let builder = ClickHouse::builder(ClickHouseVersion::V18_16).zookeeper(&zookeeper);
        builder.macro_value("shard", "one").macro_value("replica", replica)
    };
    let one = require_or_skip!(builder("a").start().await);
    let mut two = builder("b").start().await.unwrap();
    let table = "CREATE TABLE r (n UInt64, s String) ENGINE = ReplicatedMergeTree('/tables/{shard}/r', '{replica}') \
                 PARTITION BY n % 2 ORDER BY n";
    for server in [&one, &two] {
        server.query(table).await.unwrap();
    }
    one.query("INSERT INTO r SELECT number, toString(number) FROM numbers(100)").await.unwrap();
    two.query("SYSTEM SYNC REPLICA r").await.unwrap();
    let before = digest(&one, "default", "r").await.unwrap();
    assert_eq!((before.rows, digest(&two, "default", "r").await.unwrap()), (100, before));
    let replicas = "SELECT total_replicas, active_replicas FROM system.replicas";
    assert_eq!(one.query(replicas).await.unwrap(), "2\t2");

    two.kill().await;
    one.query("INSERT INTO r VALUES (1000, 'more')").await.unwrap();
    two.start().await.unwrap();
    two.query("SYSTEM SYNC REPLICA r").await.unwrap();
    assert_eq!(digest(&two, "default", "r").await.unwrap(), digest(&one, "default", "r").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn http_is_as_a_server_speaks_it() {
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(ClickHouse::builder(version).user("reader", "pass").start().await);
        let ask = async |target: &str, headers: &[(&str, &str)], body: &str| {
            server.http("POST", target, headers, body.as_bytes()).await.unwrap()
        };
        assert_eq!(server.http("GET", "/ping", &[], b"").await.unwrap().text(), "Ok.\n");
        assert_eq!(server.http("GET", "/?query=SELECT%201", &[], b"").await.unwrap().text(), "1\n");
        let answer = server.http("GET", "/?query=CREATE%20DATABASE%20x", &[], b"").await.unwrap();
        assert!(answer.status == 500 && answer.text().contains("Code: 164"), "{version}: {}", answer.text());

        let backup = [("X-ClickHouse-User", ClickHouse::USER), ("X-ClickHouse-Key", ClickHouse::PASSWORD)];
        assert_eq!(ask("/", &backup, "SELECT 1").await.text(), "1\n");
        let key = ("X-ClickHouse-Key", "pass");
        let basic = ("Authorization", "Basic cmVhZGVyOnBhc3M=");
        assert_eq!(ask("/", &[("X-ClickHouse-User", "reader"), key], "SELECT 2").await.text(), "2\n");
        assert_eq!(ask("/", &[basic], "SELECT 2").await.text(), "2\n");
        for wrong in ["/?user=reader&password=no", "/?user=nobody&password=pass"] {
            let answer = ask(wrong, &[], "SELECT 3").await;
            assert!(answer.status >= 400 && answer.text().starts_with("Code: "), "{version}: {}", answer.text());
        }

        let answer = ask("/", &[], "SELECT * FROM nowhere.t").await;
        assert!(
            [404, 500].contains(&answer.status) && answer.text().contains("Code: 81"),
            "{version}: {}",
            answer.text()
        );
        let error = server.query("SELECT 1 +").await.unwrap_err();
        assert!(matches!(error, Error::ClickHouse { code: Some(62), .. }), "{version}: {error}");
        let two = server.query("CREATE DATABASE one; CREATE DATABASE two").await.unwrap_err();
        assert!(matches!(two, Error::ClickHouse { code: Some(62), .. }), "{version}: {two}");
        let unknown = ask("/?no_such_setting=1", &[], "SELECT 1").await;
        assert!(unknown.status != 200 && unknown.text().contains("Code: 115"), "{version}: {}", unknown.text());

        assert_eq!(ask("/?database=system", &[], "SELECT currentDatabase()").await.text(), "system\n");
        let json = [("X-ClickHouse-Format", "JSONEachRow")];
        let said = if version == ClickHouseVersion::V18_16 { "é\n" } else { "{\"a\":\"é\"}\n" };
        assert_eq!(ask("/", &json, "SELECT 'é' AS a").await.text(), said, "the old server does not know this header");
        assert_eq!(ask("/?default_format=CSV", &[], "SELECT 'a', 1").await.text(), "\"a\",1\n");
        let session = "/?session_id=one";
        ask(session, &[], "CREATE TEMPORARY TABLE kept (a UInt8)").await;
        ask("/?session_id=one&query=INSERT%20INTO%20kept%20FORMAT%20TabSeparated", &[], "7\n").await;
        assert_eq!(ask(session, &[], "SELECT a FROM kept").await.text(), "7\n");
        assert_ne!(ask("/?session_id=two", &[], "SELECT a FROM kept").await.status, 200);

        let long = ask("/", &[], "SELECT number, toString(number) FROM numbers(700000)").await;
        assert!(long.whole && long.text().ends_with("\n699999\t699999\n"), "{version}");
        let late = "SELECT throwIf(number = 1000000) FROM numbers(2000000)";
        let error = server.query(late).await.unwrap_err();
        assert!(matches!(error, Error::ClickHouse { code: Some(395), .. }), "{version}: {error}");
        let answer = ask("/", &[], late).await;
        let text = answer.text();
        assert!(answer.status == 200 && text.contains("\nCode: 395"), "{version}: {}", answer.status);
        assert_eq!(answer.whole, version == ClickHouseVersion::V18_16, "{version} ends it, the old one as a whole one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_run_side_by_side_and_several_servers_do() {
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(ClickHouse::builder(version).start().await);
        let another = ClickHouse::builder(version).start().await.unwrap();
        server.query("CREATE TABLE t (a UInt8) ENGINE = Memory").await.unwrap();
        // It sleeps for an hour if nobody ends it.
        let sleeping = server.query_with("SELECT sleepEachRow(1) FROM numbers(3600)", &[("max_block_size", "1")]);
        let watching = async {
            while server
                .query("SELECT count() FROM system.processes WHERE query LIKE '%sleep' || 'EachRow%'")
                .await
                .unwrap()
                == "0"
            {}
            another.query("SELECT 1 FROM t").await.unwrap_err();
        };
        tokio::select! {
            answer = sleeping => panic!("{version}: {answer:?}"),
            () = watching => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_goes_from_one_server_to_another_by_its_files() {
    for version in clickhouse_versions_under_test() {
        let (from, to) = (ClickHouse::builder(version).start().await, ClickHouse::builder(version).start().await);
        let (from, to) = (require_or_skip!(from), to.unwrap());
        for server in [&from, &to] {
            server.query(TABLE).await.unwrap();
        }
        from.query("INSERT INTO t SELECT number, toString(number) FROM numbers(30)").await.unwrap();
        from.query("ALTER TABLE t FREEZE WITH NAME 'x'").await.unwrap();
        let parts = parts(&from.data_dir().join("shadow/x")).unwrap();
        assert_eq!(parts.len(), 3, "{version}: {parts:?}");
        let detached = to.data_dir().join("data/default/t/detached");
        for part in &parts {
            let name = part.file_name().unwrap();
            let copy = detached.join(name);
            std::fs::create_dir(&copy).unwrap();
            for file in std::fs::read_dir(part).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
            }
            // A server renames the directory, which its owner alone may.
            unprivileged().own_tree(&copy).unwrap();
            to.query(&format!("ALTER TABLE t ATTACH PART '{}'", name.to_str().unwrap())).await.unwrap();
        }
        let expected = digest(&from, "default", "t").await.unwrap();
        assert_eq!(digest(&to, "default", "t").await.unwrap(), expected, "{version}");
        std::fs::remove_dir_all(from.data_dir().join("shadow/x")).unwrap();
    }
}

/// Directories of parts below `dir`.
fn parts(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    if dir.join("checksums.txt").exists() {
        return Ok(vec![dir.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(parts(&path)?);
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_server_has_its_own_backups_disks_and_directories() {
    let server = require_or_skip!(ClickHouse::builder(ClickHouseVersion::V26).disk("second").start().await);
    server.query("CREATE DATABASE d").await.unwrap();
    server
        .query("CREATE TABLE d.t (a UInt64) ENGINE = MergeTree ORDER BY a SETTINGS storage_policy = 'every'")
        .await
        .unwrap();
    server.query("INSERT INTO d.t SELECT number FROM numbers(10)").await.unwrap();
    let before = digest(&server, "d", "t").await.unwrap();
    let file = server.backups_dir().join("one");
    server.query(&format!("BACKUP TABLE d.t TO File('{}')", file.display())).await.unwrap();
    server.query("BACKUP DATABASE d TO Disk('backups', 'two')").await.unwrap();
    assert!(server.backups_dir().join("two/.backup").exists());
    let s3 = require_or_skip!(Versity::start().await);
    s3.create_bucket("bucket").unwrap();
    let target = format!("S3('{}/bucket/three', '{}', '{}')", s3.endpoint(), s3.access_key(), s3.secret_key());
    server.query(&format!("BACKUP TABLE d.t TO {target}")).await.unwrap();
    server.query(&format!("RESTORE TABLE d.t AS d.again FROM {target}")).await.unwrap();
    assert_eq!(digest(&server, "d", "again").await.unwrap(), before);
    server.query("DROP DATABASE d SYNC").await.unwrap();
    server.query("RESTORE DATABASE d FROM Disk('backups', 'two')").await.unwrap();
    assert_eq!(digest(&server, "d", "t").await.unwrap(), before);

    server.query("ALTER TABLE d.t MOVE PARTITION tuple() TO DISK 'second'").await.unwrap();
    server.query("ALTER TABLE d.t FREEZE WITH NAME 'f'").await.unwrap();
    let shadow = server.disk_dir("second").join("shadow/f");
    assert_eq!(parts(&shadow).unwrap().len(), 1);
    let part = "SELECT path, length(hash_of_all_files) FROM system.parts WHERE active AND database = 'd'";
    let part = server.query(part).await.unwrap();
    let (path, length) = part.split_once('\t').unwrap();
    assert_eq!(length, "32");
    assert!(path.starts_with(server.disk_dir("second").to_str().unwrap()), "{path}");
    server.query("SYSTEM UNFREEZE WITH NAME 'f'").await.unwrap();
    assert!(!shadow.exists());
}

#[tokio::test]
async fn what_can_not_be_is_said() {
    let two_disks = ClickHouse::builder(ClickHouseVersion::V18_16).disk("second").start().await.unwrap_err();
    assert!(two_disks.to_string().contains("one disk"), "{two_disks}");
    let cache = require_or_skip!(Cache::open());
    let binaries = require_or_skip!(ClickHouseBinaries::provision(ClickHouseVersion::V26, &cache));
    assert!(binaries.is_library());
    let library = cache.root().join("clickhouse").join(ClickHouseVersion::V26.pinned());
    ClickHouseBinaries::installed(ClickHouseVersion::V26, &library).unwrap();
    let wrong = ClickHouseBinaries::installed(ClickHouseVersion::V18_16, &library).unwrap_err();
    assert!(wrong.to_string().contains("is wanted as 18.16 but says \"version 26.9."), "{wrong}");

    let bad = ClickHouse::builder(ClickHouseVersion::V26).setting("max_threads", "many").start().await.unwrap_err();
    assert!(bad.to_string().contains("max_threads") || bad.to_string().contains("many"), "the log is shown: {bad}");
}
