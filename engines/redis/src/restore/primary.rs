//! We as a primary: what a server needs to see to take a snapshot from us.
//!
//! The server comes, says who it is, and asks for everything. It gets the snapshot with its length said before, and says
//! with an acknowledgement that it has loaded it. Nobody gets a byte of it who does not show the password of this restore.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use backup_core::engine::Work;
use backup_core::observe::Phase;
use backup_core::{Error as CoreError, Result as CoreResult};
use bytes::{Buf as _, BytesMut};
use futures::stream::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::feed::Feed;
use super::tail::Tail;
use crate::client::{Decoder, Reply, Secret, Stream};
use crate::error::{Error, Result};

/// Requests of a replica are short.
const LONGEST: usize = 64 << 10;
/// A stranger that says nothing is sent away after so long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The offset at which our history begins.
const START: u64 = 1;
/// Asks for an acknowledgement at once; without it one comes every second. It is part of the stream.
const ASK: &[u8] = b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n";

/// Listens for the one server that is to come.
pub(super) struct Primary {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    token: Option<Secret>,
    /// The name of our history.
    id: String,
}

/// A server that has loaded the snapshot. While this is kept it follows us.
#[derive(Debug)]
pub(super) struct Loaded(Replica);

impl Loaded {
    /// Gives it what happened behind the snapshot, and waits until it has done all of it.
    pub(super) async fn follow(&mut self, tail: &Tail, work: &Work) -> CoreResult<()> {
        let mut pieces = tail.read();
        let mut given = 0;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            given += piece.len() as u64;
            self.0.send(&piece).await?;
            work.advanced(Phase::Replay, piece.len() as u64);
        }
        if given != tail.len() {
            return Err(CoreError::internal(format!("a stream of {} bytes has become {given} bytes", tail.len())));
        }
        self.0.offset += given;
        Ok(self.0.acknowledged().await?)
    }
}

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Primary")
            .field("listener", &self.listener)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl Primary {
    /// Listens on a port of `address` that the system chooses.
    pub(super) async fn listen(address: IpAddr, token: Option<Secret>, id: String) -> Result<Self> {
        let address = SocketAddr::new(address, 0);
        let failed = |source| Error::Connect { address: address.to_string(), source };
        Ok(Self { listener: TcpListener::bind(address).await.map_err(failed)?, tls: None, token, id })
    }

    /// Talks to visitors over TLS only.
    pub(super) fn with_tls(mut self, tls: TlsAcceptor) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Where it listens.
    pub(super) fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|error| Error::Closed(format!("our own listener: {error}")))
    }

    /// Waits for the server, at most `patience`.
    pub(super) async fn wait(&self, patience: Duration, silence: Duration) -> Result<Replica> {
        let mut refused = None;
        let coming = async {
            loop {
                let (stream, peer) = self
                    .listener
                    .accept()
                    .await
                    .map_err(|error| Error::Closed(format!("our own listener: {error}")))?;
                match tokio::time::timeout(HANDSHAKE, self.greet(stream, silence)).await {
                    Ok(Ok(replica)) => return Ok(replica),
                    Ok(Err(error)) => {
                        tracing::warn!(%peer, %error, "a visitor was sent away");
                        refused = Some(error);
                    }
                    Err(_) => tracing::warn!(%peer, "a visitor said nothing and was sent away"),
                }
            }
        };
        let what = "the server to come for the snapshot";
        match tokio::time::timeout(patience, coming).await {
            Ok(outcome) => outcome,
            // Whoever came and did not like our certificate was most likely the one that was waited for.
            Err(_) => Err(refused
                .filter(|error| matches!(error, Error::Tls { .. }))
                .unwrap_or(Error::Timeout { what, after: patience })),
        }
    }

    /// Encrypts what is said to a visitor, where that is wanted.
    async fn protect(&self, stream: TcpStream) -> Result<Box<dyn Stream>> {
        let address = stream.peer_addr().map_or_else(|_| "a visitor".to_owned(), |peer| peer.to_string());
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => {
                    let reason = error.get_ref().map_or_else(|| error.to_string(), ToString::to_string);
                    let reason = format!("who came for the snapshot did not agree on TLS with us: {reason}");
                    Err(Error::Tls { address, reason })
                }
            },
        }
    }

    /// Talks to a visitor until it asks for everything.
    async fn greet(&self, stream: TcpStream, silence: Duration) -> Result<Replica> {
        let _ = stream.set_nodelay(true);
        let stream = self.protect(stream).await?;
        let mut replica =
            Replica { stream, incoming: BytesMut::new(), decoder: Decoder::new(LONGEST), silence, offset: START };
        let mut known = self.token.is_none();
        loop {
            let request = replica.request().await?;
            let words: Vec<&[u8]> = request.items().iter().filter_map(Reply::bytes).collect();
            let name = words.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
            match (name.as_slice(), words.as_slice()) {
                (b"AUTH", [_, .., password]) => {
                    known = self.token.as_ref().is_none_or(|token| same(token.reveal().as_bytes(), password));
                    replica
                        .send(if known { b"+OK\r\n" } else { b"-WRONGPASS this restore has another password\r\n" })
                        .await?;
                }
                (b"PING", _) if !known => replica.send(b"-NOAUTH Authentication required.\r\n").await?,
                (b"PING", _) => replica.send(b"+PONG\r\n").await?,
                _ if !known => {
                    return Err(Error::Authentication { user: "replica".into(), reason: "no password".into() });
                }
                (b"REPLCONF", _) => replica.send(b"+OK\r\n").await?,
                (b"PSYNC", _) => {
                    replica.send(format!("+FULLRESYNC {} {START}\r\n", self.id).as_bytes()).await?;
                    return Ok(replica);
                }
                _ => replica.send(b"-ERR this is a restore, it knows no such command\r\n").await?,
            }
        }
    }
}

/// Compares in the same time whatever the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// A server that has asked for everything.
#[derive(Debug)]
pub(super) struct Replica {
    stream: Box<dyn Stream>,
    incoming: BytesMut,
    decoder: Decoder,
    silence: Duration,
    /// The end of what it was given.
    offset: u64,
}

impl Replica {
    /// Gives it the snapshot of `len` bytes, and waits until it has loaded it.
    pub(super) async fn give(mut self, mut feed: Feed<'_>, len: u64, work: &Work) -> CoreResult<Loaded> {
        self.send(format!("${len}\r\n").as_bytes()).await?;
        let mut given = 0;
        while let Some(piece) = feed.next().await? {
            given += piece.len() as u64;
            if given > len {
                return Err(CoreError::internal(format!("a snapshot of {len} bytes has become longer")));
            }
            self.send(&piece).await?;
            work.advanced(Phase::Write, piece.len() as u64);
        }
        if given < len {
            return Err(CoreError::internal(format!("a snapshot of {len} bytes has become {given} bytes")));
        }
        self.acknowledged().await?;
        Ok(Loaded(self))
    }

    /// Waits until the server has everything that it was given.
    async fn acknowledged(&mut self) -> Result<()> {
        let goal = self.offset;
        self.send(ASK).await?;
        self.offset += ASK.len() as u64;
        loop {
            let request = self.request().await?;
            let words: Vec<&[u8]> = request.items().iter().filter_map(Reply::bytes).collect();
            if let [name, ack, number, ..] = words.as_slice()
                && name.eq_ignore_ascii_case(b"REPLCONF")
                && ack.eq_ignore_ascii_case(b"ACK")
            {
                let text = String::from_utf8_lossy(number);
                let reached: u64 =
                    text.parse().map_err(|_| Error::Protocol(format!("an acknowledgement of {text:?}")))?;
                if reached >= goal {
                    return Ok(());
                }
            }
        }
    }

    /// The next request. Bare line breaks are signs of life.
    async fn request(&mut self) -> Result<Reply> {
        loop {
            while self.incoming.first().is_some_and(|byte| *byte == b'\n') {
                self.incoming.advance(1);
            }
            if let Some(request) = self.decoder.next(&mut self.incoming)? {
                return Ok(request);
            }
            let reading = self.stream.read_buf(&mut self.incoming);
            let read = tokio::time::timeout(self.silence, reading).await;
            match read.map_err(|_| Error::Timeout { what: "the server that is restored into", after: self.silence })? {
                Ok(0) => return Err(Error::Closed("the server that is restored into has hung up".into())),
                Ok(_) => {}
                Err(error) => return Err(Error::Closed(format!("the server that is restored into: {error}"))),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let sending = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let sent = tokio::time::timeout(self.silence, sending).await;
        sent.map_err(|_| Error::Timeout { what: "the server to take the snapshot", after: self.silence })?
            .map_err(|error| Error::Closed(format!("the server that is restored into: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(visitor: &mut TcpStream, request: &[u8]) -> String {
        visitor.write_all(request).await.unwrap();
        let mut answer = vec![0; 1024];
        let len = visitor.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..len]).into_owned()
    }

    const PSYNC: &[u8] = b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n";

    #[tokio::test]
    async fn only_who_knows_the_password_gets_the_data() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let token = Secret::new("right");
        let primary = Primary::listen(here, Some(token), "f".repeat(40)).await.unwrap();
        let address = primary.address().unwrap();
        let minute = Duration::from_secs(60);
        let waiting = tokio::spawn(async move { primary.wait(minute, minute).await });

        let mut stranger = TcpStream::connect(address).await.unwrap();
        assert!(ask(&mut stranger, b"*1\r\n$4\r\nPING\r\n").await.starts_with("-NOAUTH"));
        let wrong = ask(&mut stranger, b"*2\r\n$4\r\nAUTH\r\n$5\r\nwrong\r\n").await;
        assert!(wrong.starts_with("-WRONGPASS"), "{wrong}");
        assert_eq!(ask(&mut stranger, PSYNC).await, "", "the connection is closed");
        assert!(!waiting.is_finished());

        let mut server = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut server, b"*2\r\n$4\r\nAUTH\r\n$5\r\nright\r\n").await, "+OK\r\n");
        assert_eq!(ask(&mut server, b"*1\r\n$4\r\nPING\r\n").await, "+PONG\r\n");
        let capa = b"*3\r\n$8\r\nREPLCONF\r\n$4\r\ncapa\r\n$3\r\neof\r\n";
        assert_eq!(ask(&mut server, capa).await, "+OK\r\n");
        assert_eq!(ask(&mut server, PSYNC).await, format!("+FULLRESYNC {} 1\r\n", "f".repeat(40)));
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_without_end() {
        let primary = Primary::listen(IpAddr::from([127, 0, 0, 1]), None, String::new()).await.unwrap();
        let error = primary.wait(Duration::from_secs(60), Duration::from_secs(60)).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }
}
