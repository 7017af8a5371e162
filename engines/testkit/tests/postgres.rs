//! PostgreSQL servers do what the testkit promises, in every version.

use std::time::Duration;

use backup_testkit::wait::Stopwatch;
use backup_testkit::{
    Auth, Error, PgVersion, Postgres, StopMode, pgbench, require_or_skip, scratch_dir, unprivileged,
    versions_under_test,
};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn every_version_starts_and_answers() {
    for version in versions_under_test() {
        let first = Stopwatch::start();
        let server = require_or_skip!(Postgres::builder(version).start().await);
        let (first, again) = (first.elapsed(), Stopwatch::start());
        let second = Postgres::builder(version).start().await.unwrap();
        println!("postgresql {version}: {first:?}, with everything in the cache {:?}", again.elapsed());

        let client = server.connect("postgres").await.unwrap();
        let row = client
            .query_one(
                "select current_setting('server_version_num')::int / 10000, current_setting('data_checksums')",
                &[],
            )
            .await
            .unwrap();
        assert_eq!(row.get::<_, i32>(0), i32::try_from(version.major()).unwrap());
        assert_eq!(row.get::<_, String>(1), "on");
        assert_ne!(server.port(), second.port());
        // Copies of one template are the same cluster to PostgreSQL.
        assert_eq!(server.system_identifier().await.unwrap(), second.system_identifier().await.unwrap());
        for string in [server.conn_string("postgres"), server.unix_conn_string("postgres")] {
            let (client, connection) = tokio_postgres::connect(&string, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            assert_eq!(client.query_one("select 1", &[]).await.unwrap().get::<_, i32>(0), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_reach_the_cluster() {
    for version in versions_under_test() {
        let builder = Postgres::builder(version)
            .data_checksums(false)
            .initdb_arg("--wal-segsize=1")
            .setting("wal_level", "logical")
            .setting("cluster_name", "it's mine")
            .hba("host all stranger 127.0.0.1/32 reject")
            .auth(Auth::Md5)
            .tls(true);
        let server = require_or_skip!(builder.start().await);
        let client = server.connect("postgres").await.unwrap();
        for (setting, wanted) in [
            ("data_checksums", "off"),
            ("wal_segment_size", "1MB"),
            ("wal_level", "logical"),
            ("cluster_name", "it's mine"),
            ("ssl", "on"),
            ("fsync", "off"),
        ] {
            let row = client.query_one("select current_setting($1)", &[&setting]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), wanted, "{version}: {setting}");
        }
        let verifier: String =
            client.query_one("select rolpassword from pg_authid where rolname = 'postgres'", &[]).await.unwrap().get(0);
        assert!(verifier.starts_with("md5"), "{verifier}");
        client.batch_execute("create role stranger login password 'x'").await.unwrap();
        let stranger = server.conn_string("postgres").replace("'postgres' password", "'stranger' password");
        let refused = tokio_postgres::connect(&stranger, tokio_postgres::NoTls).await.err().unwrap();
        assert!(refused.as_db_error().unwrap().message().contains("pg_hba.conf rejects"), "{refused:?}");
        assert!(server.tls_ca().unwrap().contains("BEGIN CERTIFICATE"));
        assert_eq!(answer_to_ssl_request(server.port()), b'S');
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_identity_differs_from_the_template() {
    let shared = require_or_skip!(Postgres::builder(PgVersion::V17).start().await);
    let own = Postgres::builder(PgVersion::V17).fresh_identity().start().await.unwrap();
    assert_ne!(shared.system_identifier().await.unwrap(), own.system_identifier().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_survives_every_way_to_stop() {
    let mut server = require_or_skip!(Postgres::builder(PgVersion::V17).start().await);
    let port = server.port();
    let client = server.connect("postgres").await.unwrap();
    client.batch_execute("create table t as select i, md5(i::text) from generate_series(1, 10000) i").await.unwrap();
    let before = pgbench::digest(&client).await.unwrap();
    assert_eq!(before["public.t"].rows, 10_000);
    drop(client);

    for mode in [StopMode::Smart, StopMode::Fast, StopMode::Immediate] {
        server.stop(mode).await.unwrap();
        assert!(!server.is_running());
        assert_eq!(server.pid(), None);
        server.start().await.unwrap();
        assert_eq!(pgbench::digest(&server.connect("postgres").await.unwrap()).await.unwrap(), before);
    }
    server.kill9().await;
    server.start().await.unwrap();
    assert_eq!(pgbench::digest(&server.connect("postgres").await.unwrap()).await.unwrap(), before);
    server.restart().await.unwrap();
    assert_eq!(server.port(), port);
    assert!(server.log().contains("database system is ready to accept connections"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_directory_is_opened_as_it_is() {
    let scratch = scratch_dir().unwrap();
    let data = scratch.path().join("cluster");
    let mut first = require_or_skip!(Postgres::builder(PgVersion::V16).data_dir(&data).start().await);
    first.connect("postgres").await.unwrap().batch_execute("create table t as select 1 as a").await.unwrap();
    first.stop(StopMode::Fast).await.unwrap();
    drop(first);
    let conf = std::fs::read(data.join("postgresql.conf")).unwrap();

    let second = Postgres::builder(PgVersion::V16).setting("work_mem", "5MB").open(&data).await.unwrap();
    let client = second.connect("postgres").await.unwrap();
    assert_eq!(pgbench::digest(&client).await.unwrap()["public.t"].rows, 1);
    let work_mem: String = client.query_one("show work_mem", &[]).await.unwrap().get(0);
    assert_eq!(work_mem, "5MB");
    drop(second);
    assert_eq!(std::fs::read(data.join("postgresql.conf")).unwrap(), conf, "configuration was left alone");

    let wrong = Postgres::open(PgVersion::V17, &data).await.unwrap_err();
    assert!(wrong.to_string().contains("is of postgresql 16, not 17"), "{wrong}");
    let taken = Postgres::builder(PgVersion::V16).data_dir(&data).start().await.unwrap_err();
    assert!(taken.to_string().contains("is not empty"), "{taken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_start_shows_the_log() {
    let broken = Postgres::builder(PgVersion::V17).setting("shared_buffers", "many").start().await;
    let error = match broken {
        Err(error) if error.is_unavailable() => {
            require_or_skip!(Err(error));
            return;
        }
        other => other.unwrap_err(),
    };
    assert!(matches!(error, Error::Server { .. }));
    assert!(error.to_string().contains("invalid value for parameter \"shared_buffers\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_owner_is_refused_with_the_servers_words() {
    if !unprivileged().drops_root() {
        return;
    }
    let scratch = scratch_dir().unwrap();
    let data = scratch.path().join("cluster");
    let mut server = require_or_skip!(Postgres::builder(PgVersion::V17).data_dir(&data).start().await);
    server.stop(StopMode::Fast).await.unwrap();
    std::os::unix::fs::chown(&data, Some(0), Some(0)).unwrap();
    let error = Postgres::open(PgVersion::V17, &data).await.unwrap_err();
    assert!(error.to_string().contains("may not enter") || error.to_string().contains("wrong ownership"), "{error}");
    unprivileged().own_tree(&data).unwrap();
    Postgres::open(PgVersion::V17, &data).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_follows_and_takes_over() {
    for version in versions_under_test() {
        let primary = require_or_skip!(Postgres::builder(version).start().await);
        let client = primary.connect("postgres").await.unwrap();
        client.batch_execute("create table t as select generate_series(1, 1000) as i").await.unwrap();
        let standby = Postgres::standby_of(&primary).await.unwrap();
        client.batch_execute("insert into t select generate_series(1001, 5000)").await.unwrap();
        standby.wait_replayed(primary.current_lsn().await.unwrap(), MINUTE).await.unwrap();

        let (here, there) = (pgbench::digest(&client).await.unwrap(), standby.connect("postgres").await.unwrap());
        assert_eq!(here, pgbench::digest(&there).await.unwrap(), "{version}");
        assert_eq!(here["public.t"].rows, 5000);
        assert!(there.batch_execute("insert into t values (0)").await.is_err());
        standby.promote().await.unwrap();
        there.batch_execute("insert into t values (0)").await.unwrap();
    }
}

/// The server's one-byte answer to an SSLRequest (the manual's "Message Formats"): `S` is ready for TLS, `N` is not.
fn answer_to_ssl_request(port: u16) -> u8 {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).expect("the server reads");
    let mut answer = [0];
    stream.read_exact(&mut answer).expect("the server answers");
    answer[0]
}
