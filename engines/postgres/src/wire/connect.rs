//! Opening a session: every host and every address in turn, TLS as the mode asks, authentication, and the check that the
//! server is of the wanted role.

use std::io;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

use super::channel::Channel;
use super::session::{Session, SessionKind};
use super::startup;
use super::tls;
use super::transport::Transport;
use crate::conn::{ChannelBinding, Host, Settings, SslMode, TargetSession};
use crate::error::{Error, Result};

pub(super) async fn connect(settings: &Settings, kind: SessionKind) -> Result<Session> {
    if settings.target_session == TargetSession::PreferStandby {
        let standby = hosts(settings, kind, TargetSession::Standby).await;
        return match standby {
            Ok(session) => Ok(session),
            Err(_) => hosts(settings, kind, TargetSession::Any).await,
        };
    }
    hosts(settings, kind, settings.target_session).await
}

async fn hosts(settings: &Settings, kind: SessionKind, target: TargetSession) -> Result<Session> {
    let mut failures = Vec::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no host is given");
    for host in &settings.hosts {
        match one(settings, host, kind).await {
            Ok(mut session) => {
                if fits(&mut session, target).await? {
                    return Ok(session);
                }
                session.close().await;
                last = io::Error::new(io::ErrorKind::NotFound, format!("the server is not {target:?}"));
            }
            Err(Failure::Unreachable(error)) => last = error,
            // Another host may be a better one; libpq goes on for a server that cannot accept connections now (57P03).
            Err(Failure::Refused(Error::Server(error))) if error.kind() == backup_core::ErrorKind::Unavailable => {
                last = io::Error::new(io::ErrorKind::ConnectionRefused, error.to_string());
                if settings.hosts.len() == 1 {
                    return Err(Error::Server(error));
                }
            }
            Err(Failure::Refused(error)) => return Err(error),
        }
        failures.push(format!("{host}: {last}"));
    }
    Err(Error::Connect { addresses: failures.join("; "), source: last })
}

async fn fits(session: &mut Session, target: TargetSession) -> Result<bool> {
    let in_recovery = match target {
        TargetSession::Any | TargetSession::PreferStandby => return Ok(true),
        TargetSession::ReadWrite | TargetSession::ReadOnly => {
            // In recovery this is always on.
            let read_only = session.show("transaction_read_only").await? == "on";
            return Ok(read_only == (target == TargetSession::ReadOnly));
        }
        TargetSession::Primary | TargetSession::Standby => match session.parameter("in_hot_standby") {
            Some(value) => value == "on",
            // Version 13 does not report it. SHOW works in a physical session, where SQL does not.
            None => session.show("transaction_read_only").await? == "on",
        },
    };
    Ok(in_recovery == (target == TargetSession::Standby))
}

enum Failure {
    /// Nobody there: the next address may do.
    Unreachable(io::Error),
    /// A server is there and says no, or is not to be trusted: another host must not paper over that.
    Refused(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

async fn one(settings: &Settings, host: &Host, kind: SessionKind) -> Result<Session, Failure> {
    let Some(limit) = settings.connect_timeout else { return attempts(settings, host, kind).await };
    match tokio::time::timeout(limit, attempts(settings, host, kind)).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Unreachable(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no session within {} s", limit.as_secs_f32()),
        ))),
    }
}

/// `allow` and `prefer` are two attempts: the server's `pg_hba.conf` may want the other kind of connection.
async fn attempts(settings: &Settings, host: &Host, kind: SessionKind) -> Result<Session, Failure> {
    let (first, second) = match settings.tls.mode {
        _ if matches!(host, Host::Unix { .. }) => (false, None),
        SslMode::Disable => (false, None),
        SslMode::Allow => (false, Some(true)),
        SslMode::Prefer => (true, Some(false)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (true, None),
    };
    match (attempt(settings, host, kind, first).await, second) {
        (Err(Failure::Refused(Error::NotPermitted { user, server })), Some(second)) => {
            let other = attempt(settings, host, kind, second).await;
            match other {
                Ok(session) => Ok(session),
                Err(_) => Err(Failure::Refused(Error::NotPermitted { user, server })),
            }
        }
        // `prefer` also falls back when TLS itself cannot be agreed on, unless a binding to it was asked for.
        (Err(Failure::Refused(Error::Tls { .. })), Some(false))
            if settings.tls.channel_binding != ChannelBinding::Require =>
        {
            attempt(settings, host, kind, false).await
        }
        (result, _) => result,
    }
}

async fn attempt(settings: &Settings, host: &Host, kind: SessionKind, tls: bool) -> Result<Session, Failure> {
    let transport = match host {
        #[cfg(unix)]
        Host::Unix { .. } => {
            let path = host.socket().unwrap_or_default();
            Transport::Unix(UnixStream::connect(path).await.map_err(Failure::Unreachable)?)
        }
        #[cfg(not(unix))]
        Host::Unix { .. } => {
            return Err(Failure::Refused(Error::settings("this system has no unix sockets")));
        }
        Host::Tcp { name, address, port } => {
            let target = address.as_deref().unwrap_or(name);
            // Tries every address that the name resolves to.
            let stream = TcpStream::connect((target, *port)).await.map_err(Failure::Unreachable)?;
            stream.set_nodelay(true).map_err(Failure::Unreachable)?;
            if tls { secure(settings, stream, name, host).await? } else { Transport::Tcp(stream) }
        }
    };
    let mut channel = Channel::new(transport, settings.max_message, settings.read_timeout);
    let started = startup::start(&mut channel, settings, host, kind).await?;
    Ok(Session::new(channel, kind, started.parameters, started.notices)?)
}

/// Asks for TLS (`SSLRequest`) and upgrades; without TLS at the server the stream stays plain where the mode allows it.
async fn secure(settings: &Settings, mut stream: TcpStream, name: &str, host: &Host) -> Result<Transport, Failure> {
    if !settings.tls.direct {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        stream.write_all(&request).await.map_err(Failure::Unreachable)?;
        // Exactly one byte is read: anything that came with it was injected before encryption began (CVE-2021-23222).
        let answer = stream.read_u8().await.map_err(Failure::Unreachable)?;
        match answer {
            b'S' => {}
            b'N' if settings.tls.mode < SslMode::Require => return Ok(Transport::Tcp(stream)),
            b'N' => {
                let reason = "the server does not offer tls".to_owned();
                return Err(Failure::Refused(Error::Tls { address: host.to_string(), reason }));
            }
            // A server that is too busy to fork answers with an error before it has even looked at the request.
            b'E' => {
                return Err(Failure::Refused(Error::protocol("the server answered the request for tls with an error")));
            }
            other => {
                return Err(Failure::Refused(Error::protocol(format!("answer {other} to the request for tls"))));
            }
        }
    }
    Ok(tls::upgrade(&settings.tls, stream, name, &host.to_string()).await?)
}
