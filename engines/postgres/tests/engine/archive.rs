//! Stored log as segment files: what a stock server recovers from, and what an import takes.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use backup_core::engine::LogOptions;
use backup_core::{ErrorKind, Lineage, RecoveryTarget, run};
use backup_postgres::{LogExport, Lsn, Method, PostgresEngine, PostgresSettings, export_log};
use backup_testkit::{PgVersion, Postgres, require_or_skip, scratch_dir, unprivileged};

use crate::harness::{Capture, Tally, Target, Vault, digest, engine, flushed, value, work};

const VERSION: PgVersion = PgVersion::V17;

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_log_is_an_archive() {
    // Nothing is removed or used again while the test compares.
    let kept = Postgres::builder(VERSION).setting("wal_keep_size", "1GB").setting("wal_recycle", "off");
    let mut primary = require_or_skip!(kept.start().await);
    let client = primary.connect("postgres").await.unwrap();
    Tally::create(&client).await;
    let standby = Postgres::standby_of(&primary).await.unwrap();
    let vault = Vault::memory();
    let url = |server: &Postgres| PostgresSettings::default().url(server.conn_string("postgres"));
    let quick = LogOptions::default().flush_after(Duration::from_millis(20));
    let capture = Capture::start(&vault.0, url(&primary), quick.clone());
    let backup = vault.backup(&engine(&primary, Method::Local)).await;
    Tally::add(&client, 0..20).await;
    client.batch_execute("select pg_switch_wal()").await.unwrap();
    Tally::add(&client, 20..40).await;
    let shared = flushed(&client).await;
    standby.wait_replayed(shared, Duration::from_secs(60)).await.unwrap();
    capture.reaches(1, shared).await;
    capture.stop().await;
    primary.kill9().await;
    standby.promote().await.unwrap();
    standby.wait_writable(Duration::from_secs(60)).await.unwrap();
    let capture = Capture::start(&vault.0, url(&standby), quick);
    let client = standby.connect("postgres").await.unwrap();
    Tally::add(&client, 100..120).await;
    // The last segment is whole.
    client.batch_execute("select pg_switch_wal()").await.unwrap();
    let end = flushed(&client).await;
    capture.reaches(2, end).await;
    capture.stop().await;
    let expected = digest(&standby).await;

    let home = scratch_dir().unwrap();
    let archive = home.path().join("archive");
    let log = vault.0.log().await.unwrap();
    let done = export_log(log.as_ref(), &LogExport::default(), &archive, &work()).await.unwrap();
    let exported = files(&archive);
    assert_eq!(exported.len() as u64, done.segments + done.partial + done.histories, "{done:?}");
    assert_eq!((done.histories, done.findings.len()), (1, 0), "{done:?}");
    assert!(exported.contains_key("00000002.history"), "{:?}", exported.keys());
    // Byte for byte what the servers have.
    let servers: Vec<_> = [&primary, &standby].map(|server| files(&server.data_dir().join("pg_wal"))).into();
    let mut whole = 0;
    for (name, bytes) in exported.iter().filter(|(name, _)| name.len() == 24) {
        let same = servers.iter().filter_map(|server| server.get(name)).filter(|theirs| *theirs == bytes).count();
        assert!(same >= 1, "{name} is not what a server has");
        whole += 1;
    }
    assert!(whole >= 3, "{:?}", exported.keys());
    assert_eq!(whole, done.segments);

    // A server that knows nothing of this library reads them.
    let target = Target::new(VERSION);
    let only = RecoveryTarget::backup(backup.id);
    vault.recover(&target.engine(), only).await.unwrap();
    let data = target.data();
    std::fs::remove_file(data.join("standby.signal")).unwrap();
    std::fs::write(data.join("recovery.signal"), "").unwrap();
    let mut conf = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.auto.conf")).unwrap();
    writeln!(conf, "restore_command = 'cp {}/%f %p'", archive.display()).unwrap();
    unprivileged().own_tree(home.path()).unwrap();
    unprivileged().own_tree(data).unwrap();
    let server = target.open().await;
    assert_eq!(digest(&server).await, expected);
    let client = server.connect("postgres").await.unwrap();
    assert_eq!(value(&client, "select count(*) from tally").await, "60");

    // An import understands them.
    let other = Vault::memory();
    let importer = PostgresEngine::new(PostgresSettings::default()).unwrap();
    run::import(other.0.as_ref(), &importer, &archive, LogOptions::default(), &work()).await.unwrap();
    let (before, after) = (log.ledger(), other.0.log().await.unwrap().ledger());
    let second = Lineage::new("2");
    assert_eq!(after.covered(&second), before.covered(&second));
    let ends = [&before, &after].map(|ledger| ledger.ancestry(&second)[0].end);
    assert_eq!(ends[0], ends[1]);
    assert!(after.covered(&Lineage::new("1")).end() >= Some(ends[0]), "all that the second timeline stands on");

    // A part of it.
    let part = home.path().join("part");
    let wanted = LogExport::default().from(Lsn(u64::from(end) - 1));
    let done = export_log(log.as_ref(), &wanted, &part, &work()).await.unwrap();
    assert_eq!((done.segments + done.partial, done.histories), (1, 1), "{done:?}");
    // What is there already is nobody's to touch.
    let error = export_log(log.as_ref(), &wanted, &part, &work()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let nothing = LogExport::default().from(Lsn(u64::MAX >> 1));
    let error = export_log(log.as_ref(), &nothing, &home.path().join("none"), &work()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(!home.path().join("none").exists());
}
