//! What is in no table.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;

use backup_clickhouse::RestoreSettings;
use backup_testkit::{
    ClickHouse as Server, ClickHouseVersion, ZooKeeper, clickhouse_versions_under_test, require_or_skip,
};

use crate::harness::{Vault, run, settings};

/// What `DiskAccessStorage.cpp` writes for a user with a password and a grant. No server with users that are made by statements is at hand.
const USER: (&str, &str) = (
    "0b5a1c6e-2d0c-4c39-8f56-8d7f4c2f1a55",
    "ATTACH USER alice IDENTIFIED WITH sha256_hash BY '5E88' SALT 'AB';\nATTACH GRANT SELECT ON shop.* TO alice;\n",
);

#[tokio::test(flavor = "multi_thread")]
async fn users_are_files_that_the_server_reads_when_it_starts() {
    for version in clickhouse_versions_under_test() {
        let source = require_or_skip!(Server::builder(version).start().await);
        run(&source, &["CREATE TABLE default.t (id UInt64) ENGINE = MergeTree ORDER BY id"]).await;
        let dir = source.data_dir().join("access");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("{}.sql", USER.0)), USER.1).unwrap();
        std::fs::write(dir.join("users.list"), "not read").unwrap();
        let vault = Vault::memory();
        let backup = vault.backup(&source).await;

        let target = require_or_skip!(Server::builder(version).start().await);
        let keeping = RestoreSettings::default().keep_access(true).structure_only(true);
        vault.restore(&backup, &target, keeping).await.unwrap();
        let dir = target.data_dir().join("access");
        let file = dir.join(format!("{}.sql", USER.0));
        assert!(!file.exists());
        run(&target, &["DROP TABLE default.t"]).await;
        let restored = vault.restore(&backup, &target, RestoreSettings::default()).await.unwrap();
        assert!(restored.findings.iter().any(|finding| finding.code == "restart-needed"), "{:?}", restored.findings);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), USER.1);
        assert!(dir.join("need_rebuild_lists.mark").exists() && !dir.join("users.list").exists());
        let owner = std::fs::metadata(target.data_dir()).unwrap().uid();
        assert_eq!(std::fs::metadata(&file).unwrap().uid(), owner);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_in_keeper_come_back_as_files() {
    // It keeps no users there itself: the nodes are made as `ReplicatedAccessStorage.cpp` makes them.
    if !clickhouse_versions_under_test().contains(&ClickHouseVersion::V18_16) {
        return;
    }
    let zookeeper = require_or_skip!(ZooKeeper::start().await);
    let access = "/clickhouse/access";
    let port = zookeeper.port();
    let nodes = tokio::task::spawn_blocking(move || {
        let mut keeper = Keeper::connect(port);
        for folder in ["/clickhouse", access, "/clickhouse/access/uuid", "/clickhouse/access/U"] {
            keeper.create(folder, "");
        }
        keeper.create(&format!("{access}/uuid/{}", USER.0), USER.1);
        keeper.create(&format!("{access}/U/alice"), USER.0);
        keeper.create("/empty", "");
    });
    nodes.await.unwrap();
    let builder = Server::builder(ClickHouseVersion::V18_16);
    let source = require_or_skip!(builder.zookeeper(&zookeeper).start().await);
    run(&source, &["CREATE TABLE default.t (id UInt64) ENGINE = MergeTree ORDER BY id"]).await;
    let vault = Vault::memory();
    let backup = vault.try_backup(settings(&source).access_in_keeper("/clickhouse/access/")).await.unwrap();
    assert_eq!(backup.snapshot.lossy, []);
    let target = require_or_skip!(Server::builder(ClickHouseVersion::V18_16).start().await);
    vault.restore(&backup, &target, RestoreSettings::default()).await.unwrap();
    let file = target.data_dir().join("access").join(format!("{}.sql", USER.0));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), USER.1);

    for path in ["/empty", "/nowhere"] {
        let without = vault.try_backup(settings(&source).access_in_keeper(path)).await.unwrap();
        let missing = |what: &backup_core::LossyItem| what.item.contains("keeper") && what.reason.contains(path);
        assert!(without.snapshot.lossy.iter().any(missing), "{:?}", without.snapshot.lossy);
    }
}

/// As much of a client of ZooKeeper as makes nodes. Messages: `zookeeper.jute` of its sources.
struct Keeper(TcpStream);

impl Keeper {
    fn connect(port: u16) -> Self {
        let mut keeper = Self(TcpStream::connect(("127.0.0.1", port)).unwrap());
        // Version, last change seen, timeout in milliseconds, no session of before.
        let mut hello = [0_i32.to_be_bytes().as_slice(), &0_i64.to_be_bytes(), &10_000_i32.to_be_bytes()].concat();
        hello.extend(0_i64.to_be_bytes());
        hello.extend(text(&[0; 16]));
        keeper.ask(&hello);
        keeper
    }

    fn ask(&mut self, message: &[u8]) -> Vec<u8> {
        self.0.write_all(&text(message)).unwrap();
        let mut len = [0; 4];
        self.0.read_exact(&mut len).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(len) as usize];
        self.0.read_exact(&mut answer).unwrap();
        answer
    }

    fn create(&mut self, path: &str, value: &str) {
        // Number and kind of the request; everybody may do everything; the node stays.
        let head = [1_i32.to_be_bytes(), 1_i32.to_be_bytes()].concat();
        let everybody = [1_i32.to_be_bytes(), 31_i32.to_be_bytes()].concat();
        let who = [text(b"world"), text(b"anyone"), 0_i32.to_be_bytes().to_vec()].concat();
        let message = [head, text(path.as_bytes()), text(value.as_bytes()), everybody, who].concat();
        // Number, number of the change, error.
        assert_eq!(self.ask(&message)[12..16], [0; 4], "{path}");
    }
}

/// Bytes behind their number.
fn text(bytes: &[u8]) -> Vec<u8> {
    [&i32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_and_named_collections_come_back() {
    let version = ClickHouseVersion::V26;
    if !clickhouse_versions_under_test().contains(&version) {
        return;
    }
    let source = require_or_skip!(Server::builder(version).start().await);
    run(
        &source,
        &[
            "CREATE FUNCTION twice AS x -> x * 2",
            "CREATE FUNCTION four AS x -> twice(twice(x))",
            "CREATE NAMED COLLECTION place AS url = 'http://127.0.0.1:1/', password = 'secret'",
            "CREATE TABLE default.t (id UInt64, four UInt64 DEFAULT four(id)) ENGINE = MergeTree ORDER BY id",
            "INSERT INTO default.t (id) SELECT number FROM numbers(10)",
        ],
    )
    .await;
    let vault = Vault::memory();
    let backup = vault.backup(&source).await;
    let mut target = require_or_skip!(Server::builder(version).start().await);
    run(&target, &["CREATE FUNCTION twice AS x -> x * 2"]).await;
    let restored = vault.restore(&backup, &target, RestoreSettings::default()).await.unwrap();
    assert!(restored.findings.iter().any(|finding| finding.code == "function-exists"), "{:?}", restored.findings);
    assert_eq!(target.query("SELECT four(3), sum(four) FROM default.t").await.unwrap(), "12\t180");
    target.restart().await.unwrap();
    assert_eq!(target.query("SELECT name FROM system.named_collections").await.unwrap(), "place");
}

/// A cluster of one server that is never there.
const AWAY: &str = "<remote_servers><away><shard><replica><host>127.0.0.1</host><port>1</port></replica></shard></away></remote_servers>";

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_not_sent_yet_are_told() {
    for version in clickhouse_versions_under_test() {
        let source = require_or_skip!(Server::builder(version).raw_config(AWAY).start().await);
        run(
            &source,
            &[
                "CREATE TABLE default.t (id UInt64) ENGINE = MergeTree ORDER BY id",
                "CREATE TABLE default.sends AS default.t ENGINE = Distributed(away, default, t, id)",
                "CREATE TABLE default.idle AS default.t ENGINE = Distributed(away, default, t, id)",
            ],
        )
        .await;
        let vault = Vault::memory();
        let waits = |backup: &backup_core::catalog::BackupRecord| {
            let lossy = backup.snapshot.lossy.iter().filter(|lossy| lossy.item.contains("not sent"));
            lossy.map(|lossy| format!("{}: {}", lossy.item, lossy.reason)).collect::<Vec<_>>()
        };
        assert_eq!(waits(&vault.backup(&source).await), Vec::<String>::new(), "{version}");
        run(&source, &["INSERT INTO default.sends SELECT number FROM numbers(10)"]).await;
        let told = waits(&vault.backup(&source).await);
        assert_eq!(told.len(), 1, "{version}: {told:?}");
        assert!(told[0].contains("default.sends") && told[0].contains("1 blocks of"), "{version}: {told:?}");
    }
}
