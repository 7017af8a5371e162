//! Servers that are not there, never answer, or lie: what a real one cannot be made to show.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use backup_postgres::Error;
use backup_postgres::conn::Settings;
use backup_postgres::wire::{Session, SessionKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that takes the startup message of each client and then says `answer`, and keeps the connection open.
async fn server(answer: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let length = stream.read_u32().await.unwrap();
            let mut startup = vec![0; length as usize - 4];
            stream.read_exact(&mut startup).await.unwrap();
            stream.write_all(&answer).await.unwrap();
            kept.push(stream);
        }
    });
    port
}

async fn connect(port: u16, rest: &str) -> Result<Session, Error> {
    let text = format!("host=127.0.0.1 port={port} user=u sslmode=disable {rest}");
    Session::connect(&Settings::parse(&text, |_| None).unwrap(), SessionKind::Replication).await
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend((body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    message
}

fn welcome(version: &str) -> Vec<u8> {
    [
        message(b'R', &[0, 0, 0, 0]),
        message(b'S', format!("server_version\0{version}\0").as_bytes()),
        message(b'Z', b"I"),
    ]
    .concat()
}

#[tokio::test]
async fn nobody_there() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let error = connect(port, "").await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert_eq!(error.kind(), backup_core::ErrorKind::Unavailable);
    let text = "host=/nowhere/at/all,name.invalid user=u connect_timeout=5";
    let error = Session::connect(&Settings::parse(text, |_| None).unwrap(), SessionKind::Sql).await.unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all") && error.to_string().contains("name.invalid"), "{error}");
}

#[tokio::test]
async fn a_silent_server_is_left_in_time_and_the_next_one_taken() {
    let silent = server(Vec::new()).await;
    let error = connect(silent, "connect_timeout=1").await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    let good = server(welcome("16.1")).await;
    let text = format!("host=127.0.0.1,127.0.0.1 port={silent},{good} user=u sslmode=disable connect_timeout=1");
    let session = Session::connect(&Settings::parse(&text, |_| None).unwrap(), SessionKind::Replication).await.unwrap();
    assert_eq!(session.version().number(), 160_001);
}

#[tokio::test]
async fn versions_outside_the_range_are_named() {
    for (version, found) in [("12.22", 120_022), ("19.1", 190_001)] {
        let error = connect(server(welcome(version)).await, "").await.unwrap_err();
        assert!(matches!(error, Error::Version { found: f, .. } if f == found), "{error:?}");
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_before_it_comes() {
    let error = connect(server(vec![b'S', 0x7f, 0xff, 0xff, 0xff]).await, "").await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error:?}");
}

#[tokio::test]
async fn a_server_that_skips_its_proof_is_not_believed() {
    let sasl = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let port = server([sasl, welcome("16.1")].concat()).await;
    let error = connect(port, "password=secret").await.unwrap_err();
    assert!(matches!(error, Error::Authentication { .. }), "{error:?}");

    // With a required channel binding nothing but SCRAM-PLUS over TLS is answered.
    for request in
        [&b"\0\0\0\0"[..], b"\0\0\0\x03", b"\0\0\0\x05salt", b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"]
    {
        let port = server([message(b'R', request), welcome("16.1")].concat()).await;
        let error = connect(port, "password=secret channel_binding=require").await.unwrap_err();
        assert!(matches!(error, Error::Authentication { .. }), "{request:?}: {error:?}");
        assert!(!format!("{error:?}").contains("secret"));
    }
}

#[tokio::test]
async fn an_endless_scram_is_not_computed() {
    let sasl = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let first = message(b'R', b"\0\0\0\x0br=x,s=c2FsdA==,i=4000000000");
    let port = server([sasl, first].concat()).await;
    let attempt = tokio::time::timeout(Duration::from_secs(5), connect(port, "password=secret")).await.unwrap();
    assert!(matches!(attempt, Err(Error::Authentication { .. })));
}

#[tokio::test]
async fn methods_that_are_not_supported_are_named() {
    let port = server(message(b'R', b"\0\0\0\x07")).await;
    let error = connect(port, "").await.unwrap_err();
    assert!(error.to_string().contains("method 7"), "{error}");
}
