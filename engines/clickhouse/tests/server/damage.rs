//! What is damaged, left behind, or changes in the middle.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backup_clickhouse::{OnExisting, RestoreSettings};
use backup_core::{ErrorKind, Severity};
use backup_testkit::{ClickHouse as Server, clickhouse_versions_under_test, require_or_skip};

use crate::harness::{Vault, shadows};

const TABLE: [&str; 3] = [
    "CREATE DATABASE shop",
    "CREATE TABLE shop.orders (id UInt64, what String) ENGINE = MergeTree PARTITION BY id % 3 ORDER BY id",
    "INSERT INTO shop.orders SELECT number, hex(sipHash64(number)) FROM numbers(30000)",
];

async fn filled(server: &Server) {
    for sql in TABLE {
        server.query(sql).await.unwrap();
    }
}

/// A file of the part `part`, with the greatest length.
fn largest(dir: &Path, part: &str) -> PathBuf {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false if entry.path().parent().unwrap().file_name().unwrap() == part => {
                    found.push((entry.metadata().unwrap().len(), entry.path()));
                }
                false => {}
            }
        }
    }
    found.into_iter().max().unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_named_and_its_part_is_not_attached() {
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(Server::builder(version).start().await);
        filled(&server).await;
        let good = Vault::memory();
        good.backup(&server).await;
        let path = largest(server.data_dir(), "1_2_2_0");
        // In place: it stays the server's file.
        let damaged = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let (mut byte, middle) = ([0], damaged.metadata().unwrap().len() / 2);
        damaged.read_exact_at(&mut byte, middle).unwrap();
        damaged.write_all_at(&[byte[0] ^ 1], middle).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();

        // What is known from before is good, and is taken.
        let kept = good.backup(&server).await;
        assert!(good.check(&kept).await.is_sound());
        // Whoever reads it first finds it.
        let vault = Vault::memory();
        let damaged = vault.backup(&server).await;
        let named = |finding: &&backup_core::Finding| {
            finding.code == "part-damaged" && finding.message.contains(file) && finding.subject.contains("1_2_2_0")
        };
        assert!(damaged.snapshot.findings.iter().any(|finding| named(&finding)), "{:?}", damaged.snapshot.findings);
        let report = vault.check(&damaged).await;
        assert!(report.findings.iter().any(|finding| named(&finding)), "{:?}", report.findings);

        let target = require_or_skip!(Server::builder(version).start().await);
        let error = vault.restore(&damaged, &target, RestoreSettings::default()).await.unwrap_err();
        assert!(error.to_string().contains("1_2_2_0"), "{error}");
        assert_eq!(target.query("EXISTS TABLE shop.orders").await.unwrap(), "0", "refused before anything was made");
        let restored = vault.restore(&damaged, &target, RestoreSettings::default().skip_damaged(true)).await.unwrap();
        assert!(restored.findings.iter().any(|finding| named(&finding)), "{:?}", restored.findings);
        assert_eq!(target.query("SELECT count() FROM shop.orders").await.unwrap(), "20000");
        let way = RestoreSettings::default().existing(OnExisting::Replace);
        good.restore(&kept, &target, way).await.unwrap();
        assert_eq!(target.query("SELECT count() FROM shop.orders").await.unwrap(), "30000");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_frozen() {
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(Server::builder(version).start().await);
        filled(&server).await;
        // As somebody leaves it who was killed, and what is somebody else's.
        for name in ["backup_library_0123_0", "mine"] {
            server.query(&format!("ALTER TABLE shop.orders FREEZE WITH NAME '{name}'")).await.unwrap();
        }
        let vault = Vault::memory();
        let backup = vault.backup(&server).await;
        assert!(backup.snapshot.findings.iter().any(|finding| finding.code == "shadow-removed"));
        assert_eq!(shadows(&server), ["mine"]);
        let next = vault.backup(&server).await;
        assert!(next.snapshot.findings.iter().all(|finding| finding.severity == Severity::Note), "{:?}", next.snapshot);
        assert!(next.snapshot.findings.iter().all(|finding| finding.code != "shadow-removed"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_backup_of_a_server_at_a_time() {
    let version = clickhouse_versions_under_test()[0];
    let server = require_or_skip!(Server::builder(version).start().await);
    filled(&server).await;
    let held = std::fs::File::open(server.data_dir()).unwrap();
    held.lock().unwrap();
    let error = Vault::memory().try_backup(crate::harness::settings(&server)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    drop(held);
    Vault::memory().backup(&server).await;
}
