//! Tables on object disks: their bytes come from the store and go back to one, or to a local disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_clickhouse::part::ObjectMetadata;
use backup_clickhouse::{ClickHouseSettings, ObjectDisk, OnExisting, RestoreSettings, engine::facts};
use backup_core::entry::Selector;
use backup_core::{ErrorKind, Finding, Severity};
use backup_testkit::{
    ClickHouse as Server, ClickHouseVersion, Minio, clickhouse::ClickHouseBuilder, clickhouse_versions_under_test,
    require_or_skip,
};
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::harness::{Vault, fact, frozen_on, run, settings};

const VERSION: ClickHouseVersion = ClickHouseVersion::V26;
const BUCKET: &str = "disks";

/// A server whose policy `objects` is a disk below `prefix` of the bucket.
fn on_objects(minio: &Minio, prefix: &str) -> ClickHouseBuilder {
    let disk = |what: &str| format!("storage_configuration/disks/far/{what}");
    Server::builder(VERSION)
        .config(&disk("type"), "s3")
        .config(&disk("endpoint"), &format!("{}/{BUCKET}/{prefix}/", minio.endpoint()))
        .config(&disk("access_key_id"), minio.access_key())
        .config(&disk("secret_access_key"), minio.secret_key())
        .config("storage_configuration/policies/objects/volumes/v0/disk", "far")
}

/// A server whose policy of the same name is a local disk.
fn on_files() -> ClickHouseBuilder {
    Server::builder(VERSION).config("storage_configuration/policies/objects/volumes/v0/disk", "default")
}

fn reached(minio: &Minio, prefix: &str) -> ObjectDisk {
    ObjectDisk::new(format!("s3://{BUCKET}/{prefix}/"))
        .option("endpoint", minio.endpoint())
        .option("allow_http", "true")
        .option("region", minio.region())
        .option("access_key_id", minio.access_key())
        .option("secret_access_key", minio.secret_key())
}

fn with_objects(server: &Server, minio: &Minio, prefix: &str) -> ClickHouseSettings {
    settings(server).object_disk("far", reached(minio, prefix))
}

fn store(minio: &Minio) -> Arc<dyn ObjectStore> {
    let builder = AmazonS3Builder::new().with_endpoint(minio.endpoint()).with_allow_http(true).with_bucket_name(BUCKET);
    let builder = builder.with_region(minio.region()).with_access_key_id(minio.access_key());
    Arc::new(builder.with_secret_access_key(minio.secret_key()).build().unwrap())
}

async fn keys(minio: &Minio, prefix: &str) -> BTreeSet<String> {
    let listed = store(minio).list(Some(&Key::from(prefix))).map_ok(|object| object.location.to_string());
    listed.try_collect().await.unwrap()
}

/// Where the server keeps what leads to objects.
async fn metadata_dir(server: &Server) -> PathBuf {
    server.query("SELECT path FROM system.disks WHERE name = 'far'").await.unwrap().into()
}

/// What leads to the objects of the files of active parts of a table, by their paths in the table.
async fn leading(server: &Server, table: &str) -> Vec<(PathBuf, ObjectMetadata)> {
    let sql = format!("SELECT path FROM system.parts WHERE active AND table = '{table}' ORDER BY name");
    let mut found = Vec::new();
    for part in server.query(&sql).await.unwrap().lines() {
        for entry in std::fs::read_dir(Path::new(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let metadata = ObjectMetadata::parse(&std::fs::read(&path).unwrap()).unwrap();
                found.push((path, metadata));
            }
        }
    }
    found
}

/// Files of a table to whose objects somebody else refers.
async fn held(server: &Server, table: &str) -> usize {
    leading(server, table).await.iter().filter(|(_, metadata)| metadata.references > 0).count()
}

const TABLE: [&str; 3] = [
    "CREATE TABLE default.t (id UInt64, day UInt8, what String, PROJECTION p (SELECT day, count() GROUP BY day))
     ENGINE = MergeTree PARTITION BY day ORDER BY id SETTINGS storage_policy = 'objects', min_bytes_for_wide_part = 0",
    "SYSTEM STOP MERGES default.t",
    "INSERT INTO default.t SELECT number, number % 3, hex(sipHash128(number)) FROM numbers(60000)",
];
const DIGEST: &str = "SELECT count(), sum(cityHash64(id, day, what)) FROM default.t";
const PLACES: &str = "SELECT DISTINCT disk_name FROM system.parts WHERE active AND table = 't'";

fn told<'a>(findings: &'a [Finding], code: &str) -> Vec<&'a Finding> {
    findings.iter().filter(|finding| finding.code == code).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_come_back_from_objects_to_objects_and_to_files() {
    if !clickhouse_versions_under_test().contains(&VERSION) {
        return;
    }
    let minio = require_or_skip!(Minio::start().await);
    minio.create_bucket(BUCKET).unwrap();
    let source = require_or_skip!(on_objects(&minio, "one").start().await);
    run(&source, &TABLE).await;
    run(
        &source,
        &[
            "CREATE TABLE default.near (id UInt64) ENGINE = MergeTree ORDER BY id",
            "INSERT INTO default.near SELECT number FROM numbers(10)",
        ],
    )
    .await;
    let wanted = source.query(DIGEST).await.unwrap();
    assert_eq!(source.query(PLACES).await.unwrap(), "far");
    let vault = Vault::memory();

    // Nothing says how objects are reached: what is missing is told.
    let without = Vault::memory().try_backup(settings(&source)).await.unwrap();
    let lossy: Vec<_> = without.snapshot.lossy.iter().map(|lossy| lossy.item.as_str()).collect();
    assert!(lossy.contains(&"parts of default.t"), "{lossy:?}");
    // A wrong place is an error, and no backup without content.
    minio.create_bucket("empty").unwrap();
    let mut wrong = reached(&minio, "one");
    wrong.url = "s3://empty/one/".to_owned();
    let error = Vault::memory().try_backup(settings(&source).object_disk("far", wrong)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error:?}");
    assert!(error.to_string().contains("s3://empty/one/"), "{error}");

    let before = keys(&minio, "one").await;
    let backup = vault.try_backup(with_objects(&source, &minio, "one")).await.unwrap();
    assert!(
        backup.snapshot.lossy.iter().all(|lossy| !lossy.item.starts_with("parts of")),
        "{:?}",
        backup.snapshot.lossy
    );
    assert!(told(&backup.snapshot.findings, "part-damaged").is_empty(), "{:?}", backup.snapshot.findings);
    assert_eq!(fact(&backup, facts::PARTS), 4);
    let report = vault.check(&backup).await;
    assert!(report.is_sound(), "{:?}", report.findings);
    // Nothing stays frozen, neither by name nor by count.
    assert_eq!(frozen_on(&metadata_dir(&source).await), Vec::<String>::new());
    assert_eq!(held(&source, "t").await, 0);
    assert_eq!(keys(&minio, "one").await, before);
    let second = vault.try_backup(with_objects(&source, &minio, "one")).await.unwrap();
    assert_eq!(fact(&second, facts::PARTS_KEPT), 4);

    // Onto a local disk, by a policy of the same name.
    let files = require_or_skip!(on_files().start().await);
    vault.restore(&backup, &files, RestoreSettings::default()).await.unwrap();
    assert_eq!(files.query(DIGEST).await.unwrap(), wanted);
    assert_eq!(files.query(PLACES).await.unwrap(), "default");

    // Onto an object disk. Not without being told how, and then nothing is touched.
    let mut target = require_or_skip!(on_objects(&minio, "two").start().await);
    let error = vault.restore(&backup, &target, RestoreSettings::default()).await.unwrap_err();
    assert!(error.to_string().contains("nothing says how their objects are reached"), "{error}");
    assert_eq!(target.query("SELECT count() FROM system.tables WHERE database = 'default'").await.unwrap(), "0");
    let engine = backup_clickhouse::ClickHouse::new(with_objects(&target, &minio, "two")).unwrap();
    vault.restore_by(&engine, &backup, Selector::parse(["data/default/t/1"]).unwrap()).await.unwrap();
    let adding = engine.with_restore(RestoreSettings::default().existing(OnExisting::Add));
    for _ in 0..2 {
        vault.restore_by(&adding, &backup, Selector::all()).await.unwrap();
        assert_eq!(target.query(DIGEST).await.unwrap(), wanted, "what is there is not added twice");
    }
    assert_eq!(target.query(PLACES).await.unwrap(), "far");
    target.restart().await.unwrap();
    assert_eq!(target.query(DIGEST).await.unwrap(), wanted);
    assert_eq!(target.query("CHECK TABLE default.t SETTINGS check_query_single_value_result = 1").await.unwrap(), "1");
    let again = vault.try_backup(with_objects(&target, &minio, "two")).await.unwrap();
    assert_eq!(fact(&again, facts::PARTS_KEPT), 4, "the same parts, wherever their objects are");
    // What was put is the server's: it goes with the table.
    assert!(!keys(&minio, "two").await.is_empty());
    run(&target, &["DROP TABLE default.t SYNC"]).await;
    assert_eq!(keys(&minio, "two").await, BTreeSet::new());
    assert_eq!(keys(&minio, "one").await, before);
    assert_eq!(source.query(DIGEST).await.unwrap(), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_objects_are_named_and_what_was_left_behind_is_released() {
    if !clickhouse_versions_under_test().contains(&VERSION) {
        return;
    }
    let minio = require_or_skip!(Minio::start().await);
    minio.create_bucket(BUCKET).unwrap();
    for allowed in ["1", "0"] {
        let prefix = format!("unfreeze-{allowed}");
        let builder = on_objects(&minio, &prefix).config("enable_system_unfreeze", allowed);
        let source = require_or_skip!(builder.start().await);
        run(&source, &TABLE).await;
        run(&source, &["ALTER TABLE default.t FREEZE WITH NAME 'backup_library_dead_0'"]).await;
        assert!(held(&source, "t").await > 0);
        let vault = Vault::memory();
        let good = vault.try_backup(with_objects(&source, &minio, &prefix)).await.unwrap();
        assert_eq!(told(&good.snapshot.findings, "shadow-removed").len(), 1, "{:?}", good.snapshot.findings);
        assert_eq!(frozen_on(&metadata_dir(&source).await), Vec::<String>::new());
        assert_eq!(held(&source, "t").await, 0);

        // One file has other bytes of the same length, another one is gone.
        let found = leading(&source, "t").await;
        let of = |part: &str, file: &str| {
            let found = found.iter().find(|(path, _)| path.ends_with(format!("{part}/{file}")));
            let (_, metadata) = found.unwrap_or_else(|| panic!("{part}/{file}: {found:?}"));
            Key::parse(metadata.key_of(&metadata.objects[0], &prefix)).unwrap()
        };
        let (other, gone) = (of("0_1_1_0", "what.bin"), of("1_2_2_0", "id.bin"));
        let mut bytes = store(&minio).get(&other).await.unwrap().bytes().await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        store(&minio).put(&other, bytes.into()).await.unwrap();
        store(&minio).delete(&gone).await.unwrap();
        let vault = Vault::memory();
        let damaged = vault.try_backup(with_objects(&source, &minio, &prefix)).await.unwrap();
        let findings = told(&damaged.snapshot.findings, "part-damaged");
        let names = |part: &str, file: &str| {
            findings.iter().any(|finding| finding.subject.contains(part) && finding.message.contains(file))
        };
        assert!(names("0_1_1_0", "what.bin is not what its list says"), "{findings:?}");
        assert!(names("1_2_2_0", "is not there"), "{findings:?}");
        let report = vault.check(&damaged).await;
        let checked: Vec<_> =
            told(&report.findings, "part-damaged").iter().map(|found| found.subject.clone()).collect();
        assert_eq!(checked, ["default.t 0_1_1_0", "default.t 1_2_2_0"]);
        let files = require_or_skip!(on_files().start().await);
        let error = vault.restore(&damaged, &files, RestoreSettings::default()).await.unwrap_err();
        assert!(error.to_string().contains("_0"), "{error}");
        let way = RestoreSettings::default().skip_damaged(true);
        vault.restore(&damaged, &files, way).await.unwrap();
        assert_eq!(files.query("SELECT count() FROM default.t").await.unwrap(), "20000");

        // Of a table that is gone only the server as a whole can let go.
        run(&source, &["ALTER TABLE default.t FREEZE WITH NAME 'backup_library_dead_1'", "DROP TABLE default.t SYNC"])
            .await;
        assert!(!keys(&minio, &prefix).await.is_empty());
        let last = vault.try_backup(with_objects(&source, &minio, &prefix)).await.unwrap();
        if allowed == "1" {
            assert_eq!(told(&last.snapshot.findings, "shadow-removed").len(), 1, "{:?}", last.snapshot.findings);
            assert_eq!(keys(&minio, &prefix).await, BTreeSet::new());
        } else {
            let left = told(&last.snapshot.findings, "shadow-left");
            assert!(left[0].message.contains("enable_system_unfreeze"), "{:?}", last.snapshot.findings);
            assert_eq!(frozen_on(&metadata_dir(&source).await), ["backup_library_dead_1"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_does_not_hold_is_not_held_behind_its_back() {
    if !clickhouse_versions_under_test().contains(&VERSION) {
        return;
    }
    let minio = require_or_skip!(Minio::start().await);
    minio.create_bucket(BUCKET).unwrap();
    let mut source = require_or_skip!(on_objects(&minio, "one").start().await);
    run(
        &source,
        &[
            "CREATE TABLE default.p (n UInt64, s String) ENGINE = MergeTree ORDER BY n
             SETTINGS storage_policy = 'objects', enable_block_number_column = 1, enable_block_offset_column = 1",
            "INSERT INTO default.p SELECT number, 'a' FROM numbers(10)",
            "SYSTEM STOP MERGES default.p",
            "UPDATE default.p SET s = 'b' WHERE n = 3 SETTINGS enable_lightweight_update = 1, allow_experimental_lightweight_update = 1",
            "CREATE TABLE default.m (n UInt64, s String) ENGINE = MergeTree ORDER BY n SETTINGS storage_policy = 'objects'",
            "INSERT INTO default.m SELECT number, 'a' FROM numbers(10)",
            "SYSTEM STOP MERGES default.m",
            "ALTER TABLE default.m UPDATE s = 'b' WHERE n = 3 SETTINGS mutations_sync = 0",
        ],
    )
    .await;
    let vault = Vault::memory();
    let backup = vault.try_backup(with_objects(&source, &minio, "one")).await.unwrap();
    let told = told(&backup.snapshot.findings, "patch-part");
    assert!(
        told.iter().any(|finding| finding.severity == Severity::Warning && finding.subject == "default.p"),
        "{told:?}"
    );
    // Its own part has all that it had.
    source.restart().await.unwrap();
    assert_eq!(source.query("SELECT s FROM default.p WHERE n = 3").await.unwrap(), "b");

    // A mutation goes on where it was.
    let target = require_or_skip!(on_objects(&minio, "two").start().await);
    let engine = backup_clickhouse::ClickHouse::new(with_objects(&target, &minio, "two")).unwrap();
    vault.restore_by(&engine, &backup, Selector::parse(["data/default/m"]).unwrap()).await.unwrap();
    let sql = "SELECT count() FROM default.m WHERE s = 'b' AND n = 3";
    crate::harness::wait_for("mutation", async || target.query(sql).await.unwrap() == "1").await;
    assert_eq!(target.query("SELECT count() FROM default.m").await.unwrap(), "10");
}
