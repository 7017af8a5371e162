//! Clusters of unusual shape.

use std::os::unix::fs::{FileExt, PermissionsExt};

use backup_postgres::page::{PAGE_SIZE, checksum};
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip, scratch_dir, unprivileged};

use crate::harness::{METHODS, PATIENCE, Target, Vault, digest, digest_of, engine, value};

/// A relation of more than one segment file, made cheaply: its first file is a gibibyte with a hole.
#[tokio::test(flavor = "multi_thread")]
async fn a_relation_of_two_segment_files() {
    const SEGMENT: u64 = 1 << 30;
    let mut server = require_or_skip!(Postgres::builder(PgVersion::V17).setting("autovacuum", "off").start().await);
    let client = server.connect("postgres").await.unwrap();
    // Rows that refer to no transaction: their pages may stand anywhere.
    client
        .batch_execute("create table small as select i, repeat('x', 500) as pad from generate_series(1, 300) i")
        .await
        .unwrap();
    client.batch_execute("vacuum (freeze) small").await.unwrap();
    client.batch_execute("create table large (i int, pad text)").await.unwrap();
    let path = async |table: &str| {
        server.data_dir().join(value(&client, &format!("select pg_relation_filepath('{table}')")).await)
    };
    let (small, large) = (path("small").await, path("large").await);
    drop(client);
    server.stop(StopMode::Fast).await.unwrap();

    let pages = std::fs::read(&small).unwrap();
    let first = std::fs::File::options().write(true).open(&large).unwrap();
    first.set_len(SEGMENT).unwrap();
    let name = format!("{}.1", large.display());
    let second = std::fs::File::create(&name).unwrap();
    second.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
    unprivileged().own(name.as_ref()).unwrap();
    for (index, page) in (0_u32..).zip(pages.as_chunks::<PAGE_SIZE>().0) {
        let per_segment = u32::try_from(SEGMENT / PAGE_SIZE as u64).unwrap();
        for (file, block) in [(&first, per_segment - 1 - index), (&second, per_segment + index)] {
            let mut page = *page;
            let sum = checksum(&page, block);
            page[8..10].copy_from_slice(&sum.to_le_bytes());
            file.write_all_at(&page, u64::from(block % per_segment) * PAGE_SIZE as u64).unwrap();
        }
    }
    server.start().await.unwrap();
    let client = server.connect("postgres").await.unwrap();
    assert_eq!(value(&client, "select count(*) from large").await, "600");
    let source = digest(&server).await;

    for method in METHODS {
        let vault = Vault::memory();
        let record = vault.backup(&engine(&server, method)).await;
        assert!(record.data_bytes > SEGMENT, "{record:?}");
        assert!(record.snapshot.findings.iter().all(|f| f.code != "page-checksum"), "{:?}", record.snapshot.findings);
        let report = vault.check(&engine(&server, method), &record).await;
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        let target = Target::new(PgVersion::V17);
        target.restore(&vault, &record).await.unwrap();
        assert_eq!(digest_of(&target).await, source);
    }
}

/// The log elsewhere, readable by the group, a tablespace in place, the newest version of everything.
#[tokio::test(flavor = "multi_thread")]
async fn links_modes_and_places() {
    for version in [PgVersion::V16, PgVersion::V18] {
        let elsewhere = scratch_dir().unwrap();
        let log = elsewhere.path().join("log");
        let mut built = Postgres::builder(version).initdb_arg("--allow-group-access");
        if version >= PgVersion::V17 {
            built = built.setting("summarize_wal", "on");
        }
        let mut server = require_or_skip!(built.start().await);
        server.stop(StopMode::Fast).await.unwrap();
        std::fs::rename(server.data_dir().join("pg_wal"), &log).unwrap();
        std::os::unix::fs::symlink(&log, server.data_dir().join("pg_wal")).unwrap();
        server.start().await.unwrap();
        let client = server.connect("postgres").await.unwrap();
        for sql in [
            "set allow_in_place_tablespaces = on; create tablespace here location ''",
            "create table t tablespace here as select i from generate_series(1, 1000) i",
        ] {
            for statement in sql.split("; ") {
                client.batch_execute(statement).await.unwrap();
            }
        }
        let source = digest(&server).await;
        for method in METHODS {
            let vault = Vault::memory();
            let record = vault.backup(&engine(&server, method)).await;
            assert!(
                record.snapshot.findings.iter().all(|f| f.code == "unsafe-setting"),
                "{:?}",
                record.snapshot.findings
            );
            let target = Target::new(version);
            target.restore(&vault, &record).await.unwrap();
            let mode = |name: &str| std::fs::metadata(target.data().join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!([mode("."), mode("base"), mode("global/pg_control")], [0o750, 0o750, 0o640], "{method}");
            assert!(target.data().join("pg_wal").symlink_metadata().unwrap().is_dir());
            assert_eq!(digest_of(&target).await, source, "{version} {method}");
        }

        // Rewriting the source's own directory makes the log a plain folder of it.
        let vault = Vault::memory();
        let record = vault.backup(&engine(&server, METHODS[0])).await;
        drop(client);
        server.stop(StopMode::Fast).await.unwrap();
        let own = backup_postgres::PostgresSettings::default().data_dir(server.data_dir()).delta(true);
        vault.restore(&backup_postgres::PostgresEngine::new(own).unwrap(), &record).await.unwrap();
        server.start().await.unwrap_or_else(|e| panic!("{}", e.full()));
        server.wait_writable(PATIENCE).await.unwrap();
        assert_eq!(digest(&server).await, source);
    }
}

/// A server whose configuration is not in its data directory is restored without one, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn configuration_elsewhere() {
    let mut server = require_or_skip!(Postgres::builder(PgVersion::V17).start().await);
    server.stop(StopMode::Fast).await.unwrap();
    let elsewhere = server.home().join("postgresql.conf");
    let own = server.data_dir().join("postgresql.conf");
    std::fs::rename(&own, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &own).unwrap();
    server.start().await.unwrap();
    for method in METHODS {
        let vault = Vault::memory();
        let record = vault.backup(&engine(&server, method)).await;
        assert!(
            record.snapshot.lossy.iter().any(|l| l.item.contains("postgresql.conf")),
            "{:?}",
            record.snapshot.lossy
        );
        let target = Target::new(PgVersion::V17);
        let restored = target.restore(&vault, &record).await.unwrap();
        assert!(restored.findings.iter().any(|f| f.code == "no-configuration"), "{:?}", restored.findings);
        std::fs::copy(&elsewhere, target.data().join("postgresql.conf")).unwrap();
        unprivileged().own_tree(target.data()).unwrap();
        assert_eq!(digest_of(&target).await, digest(&server).await);
    }
}

/// A server that ends whoever is slow or idle does not end a backup.
#[tokio::test(flavor = "multi_thread")]
async fn impatient_servers() {
    let built = Postgres::builder(PgVersion::V17).setting("idle_session_timeout", "50ms");
    let server = require_or_skip!(built.setting("statement_timeout", "200ms").start().await);
    for method in METHODS {
        let vault = Vault::memory();
        let record = vault.backup(&engine(&server, method)).await;
        let target = Target::new(PgVersion::V17);
        target.restore(&vault, &record).await.unwrap();
        target.open().await;
    }
}
