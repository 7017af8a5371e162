//! A server, and work that leaves every kind of record in its log.

use std::time::Duration;

use backup_testkit::pgbench::{Bank, Dataset};
use backup_testkit::tokio_postgres::Client;
use backup_testkit::{PgVersion, Postgres, PostgresBuilder, unprivileged};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that keeps all of its log, in segments of so many MiB.
pub(crate) fn builder(version: PgVersion, segment: u32) -> PostgresBuilder {
    Postgres::builder(version)
        .initdb_arg(format!("--wal-segsize={segment}"))
        .setting("wal_keep_size", "4GB")
        .setting("max_wal_size", "4GB")
        .setting("max_prepared_transactions", "8")
        .setting("wal_level", "logical")
}

/// Runs each statement by itself: many of these are not allowed inside a transaction.
pub(crate) async fn run(client: &Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

/// Tables of every kind of index, filled.
pub(crate) const TABLES: &[&str] = &[
    "create table things (id int primary key, words text, tags int[], place point, code text, at int) with (fillfactor = 70)",
    "create index on things using hash (code)",
    "create index on things using gin (tags)",
    "create index on things using gist (place)",
    "create index on things using spgist (words)",
    "create index on things using brin (at)",
    "create sequence numbers",
    "create unlogged table forgotten (id int primary key, t text)",
    "insert into things select i, md5(i::text), array[i, i % 7], point(i, i % 100), 'c' || i, i
         from generate_series(1, 4000) i",
    "insert into forgotten select i, md5(i::text) from generate_series(1, 3000) i",
    "create table large (id int, t text)",
    // Incompressible and out of line.
    "insert into large select 1, string_agg(md5(random()::text), '') from generate_series(1, 40000)",
    "create table doomed as select i, repeat('x', 200) as t from generate_series(1, 3000) i",
    "create table emptied as select i, repeat('x', 200) as t from generate_series(1, 3000) i",
    "create table shrunk as select i, repeat('x', 200) as t from generate_series(1, 3000) i",
];

/// Changes of all that.
pub(crate) const CHANGES: &[&str] = &[
    "update things set words = md5(words), tags = tags || id, at = at + 1 where id % 3 = 0",
    "delete from things where id % 5 = 0",
    "insert into things select i, md5(i::text), array[i], point(i, i), 'd' || i, i from generate_series(10001, 11000) i",
    "select nextval('numbers') from generate_series(1, 100)",
    "vacuum things",
    "vacuum freeze things",
    "truncate emptied",
    "insert into emptied values (1, 'again')",
    "drop table doomed",
    // The end of the table is cut off.
    "delete from shrunk where i > 50",
    "vacuum shrunk",
    "insert into shrunk select i, 'back' from generate_series(1, 100) i",
    "cluster things using things_pkey",
    "reindex table things",
    "vacuum full large",
    "alter table forgotten set logged",
    "insert into forgotten select i, 'kept' from generate_series(5001, 5100) i",
    "create unlogged table again (id int primary key)",
    "insert into again select generate_series(1, 500)",
    // System catalogs whose files are found through the relation map.
    "vacuum full pg_class",
    "reindex table pg_type",
    "begin; select 1 from things where id = 1 for key share; savepoint s; update things set at = 0 where id = 1; commit",
    "begin; insert into large values (7, 'gone'); rollback",
    "begin; create table undone as select generate_series(1, 1000); rollback",
    "do $$ begin for i in 1..100 loop
         begin insert into large values (i, 'sub'); exception when division_by_zero then null; end; end loop; end $$",
    "analyze",
];

/// All of it, and everything that is not about tables.
pub(crate) async fn everything(server: &Postgres, client: &Client) {
    let version = server.version();
    Dataset::realistic(4 << 20, 1).load(server, "postgres").await.unwrap();
    let bank = Bank::create(client, 2000).await.unwrap();
    run(client, TABLES).await;
    run(client, &["checkpoint"]).await;
    let work = bank.run(server, "postgres", 4).await.unwrap();
    run(client, CHANGES).await;
    assert!(work.wait_committed(200, PATIENCE).await);
    let report = work.stop().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    prepared(client).await;
    databases(server, client).await;
    tablespaces(server, client).await;
    run(
        client,
        &[
            "select pg_create_restore_point('between')",
            "select pg_switch_wal()",
            "select pg_logical_emit_message(false, 'test', repeat('y', 3000000))",
            "select pg_logical_emit_message(true, 'test', 'in a transaction')",
            "select pg_replication_origin_create('elsewhere')",
            "select pg_replication_origin_session_setup('elsewhere')",
            "insert into large values (8, 'from elsewhere')",
            "select pg_replication_origin_session_reset()",
        ],
    )
    .await;
    // Images of pages by every method that the server was built with.
    let methods: &[&str] = if version >= PgVersion::V15 { &["pglz", "lz4", "zstd", "off"] } else { &["on", "off"] };
    for method in methods {
        run(client, &["checkpoint"]).await;
        if client.batch_execute(&format!("set wal_compression = {method}")).await.is_ok() {
            run(client, &["update things set at = at + 1", "vacuum things"]).await;
        }
    }
}

pub(crate) async fn prepared(client: &Client) {
    run(
        client,
        &[
            "begin; insert into large values (2, 'prepared'); savepoint s; insert into large values (3, 'too');
             prepare transaction 'kept'",
            "begin; create table never (id int); prepare transaction 'lost'",
            "commit prepared 'kept'",
            "rollback prepared 'lost'",
        ],
    )
    .await;
}

/// Databases made in every way, with something in them, and dropped.
pub(crate) async fn databases(server: &Postgres, client: &Client) {
    let strategies: &[&str] =
        if server.version() >= PgVersion::V15 { &["strategy wal_log", "strategy file_copy"] } else { &[""] };
    for (index, strategy) in strategies.iter().enumerate() {
        run(client, &[&format!("create database copy{index} {strategy}")]).await;
        let other = server.connect(&format!("copy{index}")).await.unwrap();
        run(&other, &["create table inside as select generate_series(1, 2000) as i", "create index on inside (i)"])
            .await;
    }
    run(client, &["create database passing", "drop database passing"]).await;
}

/// A tablespace with relations of its own and some that were moved there.
pub(crate) async fn tablespaces(server: &Postgres, client: &Client) {
    for name in ["space", "passing_space"] {
        let dir = server.home().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        unprivileged().own(&dir).unwrap();
        run(client, &[&format!("create tablespace {name} location '{}'", dir.display())]).await;
    }
    run(
        client,
        &[
            "create table elsewhere tablespace space as select i, md5(i::text) from generate_series(1, 2000) i",
            "alter table things set tablespace space",
            "alter index things_pkey set tablespace space",
            "create database far tablespace space",
            "drop tablespace passing_space",
        ],
    )
    .await;
}
