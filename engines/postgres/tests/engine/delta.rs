//! Restoring into a data directory that is there already.

use backup_postgres::{PostgresEngine, PostgresSettings};
use backup_testkit::{PgVersion, Postgres, StopMode, require_or_skip, unprivileged};

use crate::harness::{METHODS, PATIENCE, Vault, beside, digest, engine, value};

const VERSION: PgVersion = PgVersion::V16;

#[tokio::test(flavor = "multi_thread")]
async fn only_what_differs_is_written() {
    for method in METHODS {
        let mut server = require_or_skip!(Postgres::builder(VERSION).start().await);
        let space = beside(&server, "space");
        let client = server.connect("postgres").await.unwrap();
        client.batch_execute(&format!("create tablespace space location '{}'", space.display())).await.unwrap();
        for sql in [
            "create table a as select i, md5(i::text) from generate_series(1, 200000) i",
            "create table b tablespace space as select i, md5(i::text) from generate_series(1, 200000) i",
            "alter system set work_mem = '5MB'",
        ] {
            client.batch_execute(sql).await.unwrap();
        }
        let before = digest(&server).await;
        let vault = Vault::memory();
        let record = vault.backup(&engine(&server, method)).await;

        // It goes on: rows change, tables come and go, settings change, foreign files appear.
        for sql in [
            "update a set md5 = 'changed' where i = 77",
            "insert into b values (0, 'new')",
            "create table c as select generate_series(1, 1000)",
            "create table d tablespace space as select generate_series(1, 1000)",
            "alter system set work_mem = '6MB'",
        ] {
            client.batch_execute(sql).await.unwrap();
        }
        drop(client);
        for path in [server.data_dir().join("base/foreign"), space.join("PG_16_202307071/foreign")] {
            std::fs::write(&path, "x").unwrap();
            unprivileged().own(&path).unwrap();
        }
        server.stop(StopMode::Fast).await.unwrap();
        std::fs::write(server.data_dir().join("postmaster.pid"), "999999999\n").unwrap();
        let into_source =
            PostgresEngine::new(PostgresSettings::default().data_dir(server.data_dir()).delta(true)).unwrap();
        let restored = vault.restore(&into_source, &record).await.unwrap().extracted;
        assert!(restored.bytes > 50 << 20, "{restored:?}");
        // The log was written anew on the way; of the rest little has changed.
        let log = 2 * (16 << 20);
        assert!(restored.written_bytes < log + (8 << 20), "{method}: {restored:?}");
        assert!(restored.removed >= 4, "{restored:?}");
        assert!(!server.data_dir().join("base/foreign").exists() && !space.join("PG_16_202307071/foreign").exists());
        server.start().await.unwrap_or_else(|e| panic!("{}", e.full()));
        server.wait_writable(PATIENCE).await.unwrap();
        assert_eq!(digest(&server).await, before);
        let client = server.connect("postgres").await.unwrap();
        assert_eq!(value(&client, "select current_setting('work_mem')").await, "5MB");
        assert_eq!(
            std::fs::read_link(server.data_dir().join("pg_tblspc").read_dir().unwrap().next().unwrap().unwrap().path())
                .unwrap(),
            space
        );

        // Backed up again and restored over itself: from a backup of a restored cluster, which is on another timeline.
        let again = vault.backup(&engine(&server, method)).await;
        assert_ne!(again.snapshot.stop.as_ref().unwrap().lineage, record.snapshot.stop.as_ref().unwrap().lineage);
        drop(client);
        server.stop(StopMode::Fast).await.unwrap();
        vault.restore(&into_source, &again).await.unwrap();
        let conf = std::fs::read_to_string(server.data_dir().join("postgresql.auto.conf")).unwrap();
        assert_eq!(conf.matches("include_if_exists").count(), 1, "{conf}");
        server.start().await.unwrap_or_else(|e| panic!("{}", e.full()));
        server.wait_writable(PATIENCE).await.unwrap();
        assert_eq!(digest(&server).await, before);
    }
}
