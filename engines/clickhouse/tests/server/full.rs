//! A server whose disk has no room left.

use backup_clickhouse::RestoreSettings;
use backup_core::ErrorKind;
use backup_testkit::{ClickHouse as Server, SmallDisk, clickhouse_versions_under_test, require_or_skip};

use crate::harness::{Vault, frozen_on, run, settings, shadows};

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_a_snapshot_nothing_is_stored_and_nothing_is_left() {
    for version in clickhouse_versions_under_test() {
        let Some(disk) = SmallDisk::mount(256 << 20).unwrap() else { return };
        let server = require_or_skip!(Server::builder(version).data_dir(disk.path().join("data")).start().await);
        run(
            &server,
            &[
                "CREATE TABLE default.small (id UInt64) ENGINE = MergeTree ORDER BY id",
                "INSERT INTO default.small SELECT number FROM numbers(100)",
                "CREATE TABLE default.large (id UInt64) ENGINE = MergeTree PARTITION BY id % 50 ORDER BY id",
                "SYSTEM STOP MERGES default.large",
                "INSERT INTO default.large SELECT number FROM numbers(5000)",
            ],
        )
        .await;
        let count = "SELECT (SELECT count() FROM default.small), (SELECT count() FROM default.large)";
        let vault = Vault::memory();
        let first = vault.backup(&server).await;

        // A snapshot of the large table takes 50 folders with several links each.
        for time in 1..=5 {
            disk.leave_room_for(100).unwrap();
            let error = vault.try_backup(settings(&server)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Environment, "{time}: {error:?}");
            let told = error.to_string();
            assert!(told.contains("a snapshot of default.") && told.contains("was refused"), "{time}: {told}");
            assert!(told.to_lowercase().contains("no space left on device"), "{time}: {told}");
            assert_eq!(shadows(&server), Vec::<String>::new(), "{time}");
            assert_eq!(vault.0.catalog().await.unwrap().backups().count(), 1, "{time}");
            assert_eq!(server.query(count).await.unwrap(), "100\t5000", "{time}");
        }

        // What somebody has left who was killed when the disk was full is removed, too, and that needs no room.
        disk.leave_room_for(100).unwrap();
        let freeze = "ALTER TABLE default.large FREEZE WITH NAME 'backup_library_dead_0'";
        server.query(freeze).await.unwrap_err();
        assert_eq!(shadows(&server), ["backup_library_dead_0"]);
        let error = vault.try_backup(settings(&server)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Environment, "{error:?}");
        assert_eq!(frozen_on(server.data_dir()), Vec::<String>::new());

        disk.leave_room_for(100_000).unwrap();
        run(&server, &["INSERT INTO default.small SELECT number FROM numbers(10)"]).await;
        let backup = vault.backup(&server).await;
        assert_eq!(backup.parent, Some(first.id));
        assert!(vault.check(&backup).await.is_sound());
        assert_eq!(shadows(&server), Vec::<String>::new());
        let target = require_or_skip!(Server::builder(version).start().await);
        vault.restore(&backup, &target, RestoreSettings::default()).await.unwrap();
        assert_eq!(target.query(count).await.unwrap(), "110\t5000");
    }
}
