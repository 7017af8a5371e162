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
    let service = ServiceId::new("analytics").unwrap();
    let key = RawKey::take(&mut [7; 32]);
    // Small packs: what is read of a backup of megabytes is then in the proportion of one of gigabytes.
    let (options, settings) = (CreateOptions::default(), RepositorySettings::default().pack_size(1 << 20));
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
