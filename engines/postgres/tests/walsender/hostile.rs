//! Clients that know no token, speak something else, or get stuck.

use std::time::Duration;

use backup_postgres::Lsn;
use backup_postgres::walsender::{Endpoint, WalServer, WalServerOptions};
use backup_postgres::wire::{Session, SessionKind};
use backup_testkit::{PgVersion, StopMode, require_or_skip};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{
    Archive, PATIENCE, connect, create_ledger, options, serve, settings, source, wait_for, write_ledger,
};

async fn archive() -> Option<Archive> {
    let mut server = require_or_skip!(source(PgVersion::V17).start().await, None);
    let client = server.connect("postgres").await.unwrap();
    create_ledger(&client).await;
    // More than sockets hold, so that a client that takes nothing is noticed.
    client
        .batch_execute("insert into ledger (filler) select repeat(md5(i::text), 30) from generate_series(1, 40000) i")
        .await
        .unwrap();
    write_ledger(&client, 1).await;
    server.stop(StopMode::Fast).await.unwrap();
    let archive = Archive::new();
    archive.copy(&server, |_| true);
    Some(archive)
}

async fn raw(wal: &WalServer) -> TcpStream {
    let Endpoint::Tcp(address) = wal.endpoint() else { panic!("no port") };
    TcpStream::connect(address).await.unwrap()
}

/// What the server says until it hangs up.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server hangs up");
    // What was not read by the server makes the system reset the connection.
    drop(read);
    bytes
}

async fn serve_with(archive: &Archive, change: impl FnOnce(WalServerOptions) -> WalServerOptions) -> WalServer {
    serve(archive.feed().await, change(options())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn other_protocols_are_sent_away() {
    let Some(archive) = archive().await else { return };
    let wal = archive.serve().await;
    for (bytes, said) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "08P01"),
        (b"\0\0\0\x04", "08P01"),
        (b"\0\0\0\x08\0\x02\0\0", "0A000"),
        (b"\0\0\0\x09\0\x03\0\0\0", "28000"),
        (b"\0\0\0\x0a\0\x03\0\0ab", "08P01"),
    ] {
        let mut stream = raw(&wal).await;
        stream.write_all(bytes).await.unwrap();
        let answer = rest(stream).await;
        assert!(answer.starts_with(b"E") && String::from_utf8_lossy(&answer).contains(said), "{bytes:?} {answer:?}");
    }
    // A request to cancel is not answered.
    let mut stream = raw(&wal).await;
    stream.write_all(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02").await.unwrap();
    assert!(rest(stream).await.is_empty());
    // Encryption may be asked for once of each kind.
    let mut stream = raw(&wal).await;
    for _ in 0..3 {
        stream.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").await.unwrap();
    }
    assert!(rest(stream).await.starts_with(b"NNN"));
    // Who has not proven itself is told nothing of the log.
    let start = b"\0\0\0\x1f\0\x03\0\0user\0walreceiver\0\0\0\0";
    for message in [&b"Q\0\0\0\x14IDENTIFY_SYSTEM\0"[..], b"p\0\0\0\x04", b"p\x00\xff\xff\xff", b"d\0\0\0\x04", b"?"] {
        let mut stream = raw(&wal).await;
        let mut packet = start[..25].to_vec();
        packet[3] = 25;
        stream.write_all(&packet).await.unwrap();
        stream.write_all(message).await.unwrap();
        let answer = String::from_utf8_lossy(&rest(stream).await).into_owned();
        assert!(answer.contains("08P01") && !answer.contains("systemid"), "{message:?} {answer}");
    }
    assert!(connect(&wal).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn later_protocols_are_talked_down() {
    let Some(archive) = archive().await else { return };
    let wal = archive.serve().await;
    let body = b"\0\x03\0\x02user\0walreceiver\0_pq_.grease\0on\0\0";
    let mut stream = raw(&wal).await;
    stream.write_all(&[&(body.len() as u32 + 4).to_be_bytes()[..], body].concat()).await.unwrap();
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, *b"v\0\0\0\x18\0\x03\0\0\0\0\0\x01_pq_.grease\0");
    assert_eq!(stream.read_u8().await.unwrap(), b'R');
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_an_end_to_connections() {
    let Some(archive) = archive().await else { return };
    let wal = serve_with(&archive, |options| options.max_connections(2)).await;
    // Strangers do not count.
    let mut strangers = Vec::new();
    for _ in 0..20 {
        strangers.push(raw(&wal).await);
    }
    let first = connect(&wal).await.unwrap();
    let _second = connect(&wal).await.unwrap();
    assert_eq!(connect(&wal).await.unwrap_err().sqlstate(), Some("53300"));
    first.close().await;
    let third = loop {
        match connect(&wal).await {
            Ok(session) => break session,
            Err(error) => assert_eq!(error.sqlstate(), Some("53300")),
        }
    };
    drop(third);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_nothing_is_left() {
    let Some(archive) = archive().await else { return };
    let mut impatient = options();
    impatient.handshake_timeout = Duration::from_millis(100);
    let wal = serve(archive.feed().await, impatient).await;
    assert!(rest(raw(&wal).await).await.is_empty());

    let mut impatient = options();
    impatient.idle_timeout = Duration::from_millis(300);
    let wal = serve(archive.feed().await, impatient).await;
    let mut session = connect(&wal).await.unwrap();
    let error = loop {
        // Each command is in time or not; between two there is nothing to wait for but time.
        match session.query("SHOW server_version").await {
            Ok(_) => {
                let pause = tokio::time::timeout(Duration::from_millis(400), std::future::pending::<()>());
                assert!(pause.await.is_err());
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.sqlstate(), Some("57P05"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_nothing_is_left() {
    let Some(archive) = archive().await else { return };
    let wal = serve_with(&archive, |options| options.client_timeout(Duration::from_millis(500))).await;
    let mut session = connect(&wal).await.unwrap();
    let _untouched = session.copy_both("START_REPLICATION 0/1000000").await.unwrap();
    let progress = wait_for(&wal, |progress| progress.replicas.iter().any(|replica| !replica.active)).await;
    let end = { connect(&wal).await.unwrap().identify_system().await.unwrap().position };
    assert!(progress.replicas[0].sent < end, "{progress:?} {end}");

    // It takes everything, and never says a word: asked for a sign of life half-way.
    let mut session = connect(&wal).await.unwrap();
    let mut stream = session.copy_both("START_REPLICATION 0/1000000").await.unwrap();
    let mut asked = false;
    let error = loop {
        match stream.receive().await {
            Ok(message) => {
                let message = message.expect("no end of the stream");
                asked |= message[0] == b'k' && message[17] == 1;
            }
            Err(error) => break error,
        }
    };
    assert!(asked && error.sqlstate().is_none(), "{error}");

    // It says only that it wants to hear from us, and takes nothing: nothing is collected for it.
    let mut session = connect(&wal).await.unwrap();
    let mut stream = session.copy_both("START_REPLICATION 0/1000000").await.unwrap();
    let mut status = vec![b'r'];
    status.extend([0; 32]);
    status.push(1);
    while stream.send(&status).await.is_ok() {
        tokio::task::yield_now().await;
    }
    wait_for(&wal, |progress| !progress.is_active()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_understands_only_what_belongs_there() {
    let Some(archive) = archive().await else { return };
    let wal = archive.serve().await;
    for data in [&b"x"[..], b"", b"r", b"h\0"] {
        let mut session = connect(&wal).await.unwrap();
        let mut stream = session.copy_both("START_REPLICATION 0/1000000").await.unwrap();
        stream.send(data).await.unwrap();
        let error = loop {
            match stream.receive().await {
                Ok(message) => assert!(message.is_some()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.sqlstate(), Some("08P01"), "{data:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_dropped_takes_its_connections_along() {
    let Some(archive) = archive().await else { return };
    let wal = archive.serve().await;
    let to = settings(&wal, "");
    let mut session = Session::connect(&to, SessionKind::Replication).await.unwrap();
    let mut stream = session.copy_both("START_REPLICATION 0/1000000").await.unwrap();
    assert!(stream.receive().await.unwrap().is_some());
    drop(wal);
    let error = loop {
        match stream.receive().await {
            // Never an end of the stream, as if the log were complete.
            Ok(message) => assert!(message.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, backup_postgres::Error::Closed(_)), "{error}");
    assert!(Session::connect(&to, SessionKind::Replication).await.is_err());

    // Told to end, it says why.
    let wal = archive.serve().await;
    let mut session = connect(&wal).await.unwrap();
    let end = session.identify_system().await.unwrap().position;
    let mut stream = session.copy_both(&format!("START_REPLICATION {}", Lsn(end.0 >> 24 << 24))).await.unwrap();
    assert!(stream.receive().await.unwrap().is_some());
    wal.shutdown().await;
    let error = loop {
        match stream.receive().await {
            Ok(message) => assert!(message.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.sqlstate(), Some("57P01"), "{error}");
}
