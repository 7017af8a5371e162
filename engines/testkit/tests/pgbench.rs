//! Workload, dataset and digests.

use std::time::Duration;

use backup_testkit::pgbench::{Bank, ChangeShape, Dataset, digest, digest_cluster};
use backup_testkit::wait::Stopwatch;
use backup_testkit::{PgVersion, Postgres, require_or_skip, versions_under_test};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_adds_up_under_load_and_after_a_crash() {
    for version in versions_under_test() {
        let mut server = require_or_skip!(Postgres::builder(version).start().await);
        let client = server.connect("postgres").await.unwrap();
        let bank = Bank::create(&client, 1000).await.unwrap();
        let load = bank.run(&server, "postgres", 4).await.unwrap();
        assert!(load.wait_committed(200, MINUTE).await);
        Bank::check(&client).await.unwrap();
        let report = load.stop().await;
        let state = Bank::check(&client).await.unwrap();
        assert!(report.failures.is_empty(), "{report:?}");
        assert_eq!(state.history_count.unsigned_abs(), report.committed);
        assert_eq!(state.last_by_client, report.acknowledged);
        assert!(report.last_commit_lsn.unwrap() <= server.current_lsn().await.unwrap());

        let load = bank.run(&server, "postgres", 4).await.unwrap();
        assert!(load.wait_committed(200, MINUTE).await);
        server.kill9().await;
        let stopwatch = Stopwatch::start();
        assert!(!load.wait_committed(u64::MAX, MINUTE).await, "clients end with their server");
        assert!(stopwatch.elapsed() < MINUTE);
        let report = load.stop().await;
        assert_eq!(report.failures.len(), 4, "{report:?}");
        assert_eq!(report.last_commit_lsn, None);
        server.start().await.unwrap();
        let state = Bank::check(&server.connect("postgres").await.unwrap()).await.unwrap();
        for ((client, seen), (same, acknowledged)) in state.last_by_client.iter().zip(&report.acknowledged) {
            assert_eq!(client, same);
            // The commit that was under way may have landed without its answer.
            assert!((*acknowledged..=acknowledged + 1).contains(seen), "{version}: {state:?} {report:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_that_lost_money_is_noticed() {
    let server = require_or_skip!(Postgres::builder(PgVersion::V17).start().await);
    let client = server.connect("postgres").await.unwrap();
    let bank = Bank::create(&client, 10).await.unwrap();
    let load = bank.run(&server, "postgres", 2).await.unwrap();
    assert!(load.wait_committed(50, MINUTE).await);
    load.stop().await;
    for damage in [
        "update bank.accounts set balance = balance + 1 where id = 1",
        "delete from bank.history where client = 1 and number = 3",
        "update bank.branches set moved = 0",
    ] {
        client.batch_execute("begin").await.unwrap();
        client.batch_execute(damage).await.unwrap();
        let error = Bank::check(&client).await.unwrap_err();
        assert!(error.to_string().contains("does not add up"), "{error}");
        client.batch_execute("rollback").await.unwrap();
    }
    Bank::check(&client).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dataset_has_its_size_and_changes_in_part() {
    const WANTED: u64 = 64 << 20;
    for version in versions_under_test() {
        let server = require_or_skip!(Postgres::builder(version).setting("max_wal_size", "4GB").start().await);
        let client = server.connect("postgres").await.unwrap();
        let size_of_empty = size(&client).await;
        let (dataset, watch) = (Dataset::realistic(WANTED, 1), Stopwatch::start());
        dataset.load(&server, "postgres").await.unwrap();
        let loaded = size(&client).await - size_of_empty;
        println!("postgresql {version}: {} MiB of {} in {:?}", loaded >> 20, WANTED >> 20, watch.elapsed());
        assert!((WANTED * 8 / 10..WANTED * 12 / 10).contains(&loaded), "{loaded} bytes, wanted {WANTED}");

        let before = digest(&client).await.unwrap();
        let spread = dataset.change_fraction(&client, 0.01, ChangeShape::Spread, 1).await.unwrap();
        let clustered = dataset.change_fraction(&client, 0.01, ChangeShape::Clustered, 2).await.unwrap();
        let after = digest(&client).await.unwrap();
        let rows: i64 = ["shop.customers", "shop.orders", "shop.documents"].iter().map(|t| before[*t].rows).sum();
        let percent = rows.unsigned_abs() / 100;
        for changed in [spread, clustered] {
            assert!((percent * 9 / 10..=percent * 11 / 10).contains(&changed), "{changed} of {rows}");
        }
        for (table, digest) in &before {
            assert_eq!(digest.rows, after[table].rows);
            assert_eq!(
                digest == &after[table],
                !["shop.customers", "shop.orders", "shop.documents"].contains(&&**table)
            );
        }
    }
}

async fn size(client: &tokio_postgres::Client) -> u64 {
    let row = client.query_one("select pg_database_size(current_database())", &[]).await.expect("the server answers");
    row.get::<_, i64>(0).unsigned_abs()
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_see_rows_not_their_order() {
    for version in versions_under_test() {
        let server = require_or_skip!(Postgres::builder(version).start().await);
        let client = server.connect("postgres").await.unwrap();
        client.batch_execute("create database other").await.unwrap();
        client
            .batch_execute(
                "create schema \"Odd Name\";
                 create table \"Odd Name\".\"T\" (a int, b text, c timestamptz);
                 insert into \"Odd Name\".\"T\" select i, md5(i::text), now() from generate_series(1, 100) i;
                 create unlogged table cache as select 1 as a;
                 create table empty ();
                 create materialized view m as select a from \"Odd Name\".\"T\";
                 select lo_from_bytea(0, 'large')",
            )
            .await
            .unwrap();
        let first = digest(&client).await.unwrap();
        assert_eq!(
            first.keys().collect::<Vec<_>>(),
            ["\"Odd Name\".\"T\"", "pg_catalog.pg_largeobject", "public.empty", "public.m"],
        );
        client
            .batch_execute(
                "create table copy as select * from \"Odd Name\".\"T\" order by b; set timezone = 'Asia/Tokyo'",
            )
            .await
            .unwrap();
        let second = digest(&client).await.unwrap();
        assert_eq!(second["public.copy"], first["\"Odd Name\".\"T\""]);
        client.batch_execute("update copy set a = a + 1 where a = 50").await.unwrap();
        assert_ne!(digest(&client).await.unwrap()["public.copy"], second["public.copy"]);

        let cluster = digest_cluster(&server.config("postgres")).await.unwrap();
        assert_eq!(cluster.keys().collect::<Vec<_>>(), ["other", "postgres", "template1"]);
        assert_eq!(cluster["postgres"]["public.m"], first["public.m"]);
    }
}
