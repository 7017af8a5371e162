//! Over the encrypted repository: what is stored, and what a restore reads.

use std::path::Path;
use std::sync::Arc;

use backup_clickhouse::{RestoreSettings, engine::facts};
use backup_core::entry::Selector;
use backup_core::env::Env;
use backup_core::{RecoveryTarget, ServiceId, run};
use backup_crypto::RawKey;
use backup_storage::store::{Store, StoreSettings};
use backup_storage::{CreateOptions, Repository, RepositorySettings};
use backup_testkit::{ClickHouse as Server, clickhouse_versions_under_test, require_or_skip};

use crate::harness::{Vault, engine, fact, run as statements, work};

pub(crate) async fn create(store: &Store) -> Vault {
    // Small packs: what is read of a backup of megabytes is then in the proportion of one of gigabytes.
    create_with(store, 1 << 20).await
}

async fn create_with(store: &Store, pack: u64) -> Vault {
    let service = ServiceId::new("analytics").unwrap();
    let key = RawKey::take(&mut [7; 32]);
    let (options, settings) = (CreateOptions::default(), RepositorySettings::default().pack_size(pack));
    let made = Repository::create(store, service, vec![key.into()], options, &settings, Env::system()).await;
    Vault(Arc::new(made.unwrap()))
}

pub(crate) fn on_disk(dir: &Path) -> Store {
    Store::open(&format!("file://{}", dir.display()), &StoreSettings::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn little_is_stored_and_little_is_read() {
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(Server::builder(version).start().await);
        statements(
            &server,
            &[
                "CREATE TABLE default.t (day UInt16, id UInt64, what String) ENGINE = MergeTree PARTITION BY day ORDER BY id",
                "SYSTEM STOP MERGES",
                "INSERT INTO default.t SELECT number % 90, number, hex(sipHash64(number)) FROM numbers(3000000)",
            ],
        )
        .await;
        let home = tempfile::tempdir().unwrap();
        let vault = create(&on_disk(home.path())).await;
        let first = vault.backup(&server).await;
        let more = "INSERT INTO default.t SELECT number % 4, number, hex(sipHash64(number)) FROM numbers(30000)";
        statements(&server, &[more]).await;
        let second = vault.backup(&server).await;
        let (stored, all) = (second.stored_bytes, first.stored_bytes);
        assert!(stored * 1000 < all * 15, "1 % more rows: {stored} bytes after {all}");
        assert_eq!(fact(&second, facts::PARTS_KEPT), fact(&first, facts::PARTS));

        // One of 90 days.
        let selector = Selector::parse(["data/default/t/36"]).unwrap();
        let target = require_or_skip!(Server::builder(version).start().await);
        let engine = engine(&target).with_restore(RestoreSettings::default());
        let goal = RecoveryTarget::backup(second.id);
        let plan = run::plan_restore(vault.0.as_ref(), &engine, goal, selector, &work()).await.unwrap();
        let (read, all) = (plan.footprint.stored_bytes, all + stored);
        // Packs are counted whole, and here there are only seven: one with what all parts have in common, those that were open when the part
        // was read, that of the records.
        assert!(read * 4 < all * 3, "{read} of {all} bytes for one of 90 days");
        run::restore(&engine, &plan, &work()).await.unwrap();
        let sql = "SELECT count(), sum(cityHash64(day, id, what)) FROM default.t WHERE day = 36";
        assert_eq!(target.query(sql).await.unwrap(), server.query(sql).await.unwrap());
        assert_eq!(target.query("SELECT uniq(day) FROM default.t").await.unwrap(), "1");
    }
}

/// MiB of rows; a few by default, and as many as are wanted when somebody wants to know what it is like with much.
const MIB: &str = "BACKUP_CLICKHOUSE_MIB";
/// Partitions of the table.
const PARTITIONS: u64 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_costs_the_reading_of_its_own_bytes() {
    let given = std::env::var(MIB).ok();
    let mib: u64 = given.as_deref().map_or(64, |mib| mib.parse().unwrap());
    // With much the packs are as large as they are by default.
    let pack = if given.is_some() { 16 << 20 } else { 1 << 20 };
    for version in clickhouse_versions_under_test() {
        let server = require_or_skip!(Server::builder(version).start().await);
        // A kilobyte of hashes, of which nothing can be compressed: what is read is in proportion to the rows.
        let rows = mib * 1024;
        let fill = format!(
            "INSERT INTO default.t SELECT intDiv(number * {PARTITIONS}, {rows}), number,
             arrayMap(x -> sipHash64(number, x), range(128)) FROM numbers({rows})"
        );
        statements(
            &server,
            &[
                "CREATE TABLE default.t (part UInt16, id UInt64, what Array(UInt64)) ENGINE = MergeTree PARTITION BY part ORDER BY id",
                "SYSTEM STOP MERGES",
                &fill,
            ],
        )
        .await;
        let home = tempfile::tempdir().unwrap();
        let store = on_disk(home.path());
        let vault = create_with(&store, pack).await;
        let backup = vault.backup(&server).await;

        let target = require_or_skip!(Server::builder(version).start().await);
        let engine = engine(&target).with_restore(RestoreSettings::default());
        let selector = Selector::parse(["data/default/t/33"]).unwrap();
        let before = store.metrics().get.bytes;
        let goal = RecoveryTarget::backup(backup.id);
        let plan = run::plan_restore(vault.0.as_ref(), &engine, goal, selector, &work()).await.unwrap();
        run::restore(&engine, &plan, &work()).await.unwrap();
        let read = store.metrics().get.bytes - before;
        let sql =
            "SELECT toUInt64(sum(bytes_on_disk)) FROM system.parts WHERE active AND table = 't' AND partition = '33'";
        let own: u64 = server.query(sql).await.unwrap().parse().unwrap();
        let (all, packs) = (backup.stored_bytes, plan.footprint.stored_bytes);
        println!(
            "{version}: {all} bytes stored, a partition of {own}: {read} read, its {} packs have {packs}",
            plan.footprint.objects
        );
        // A pack of which half is wanted comes whole. Beside it there are the records and the ends of packs.
        assert!(read < own * 2 + (2 << 20), "{read} of {all} bytes for {own}");
        assert!(read * 10 < all, "{read} of {all} bytes for one of {PARTITIONS} partitions");
        let sql = "SELECT count(), sum(cityHash64(part, id, what)) FROM default.t WHERE part = 33";
        assert_eq!(target.query(sql).await.unwrap(), server.query(sql).await.unwrap());
        assert_eq!(target.query("SELECT uniq(part) FROM default.t").await.unwrap(), "1");
    }
}
