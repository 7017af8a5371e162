//! One client: from its first packet to its last command.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};

use super::command::{Command, error};
use super::feed::LogEnd;
use super::link::{Inlet, Outlet, Stop};
use super::reply::{INT4, INT8, Reply, TEXT};
use super::request::Request;
use super::route::Route;
use super::scram::{MECHANISM, ScramError};
use super::server::Shared;
use super::startup::{Startup, StartupPacket};
use super::stream;
use crate::error::ServerError;
use crate::lsn::{Lsn, TimelineId};
use crate::version::ServerVersion;
use crate::wal::{SegmentSize, TimelineHistory};

/// How long a client may take to hear that it is over.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a command was not carried out.
pub(super) enum Failed {
    /// The client is told, and may send another one.
    Command(Box<ServerError>),
    /// The session is over.
    Session(Stop),
}

impl From<Stop> for Failed {
    fn from(stop: Stop) -> Self {
        Self::Session(stop)
    }
}

impl From<Box<ServerError>> for Failed {
    fn from(error: Box<ServerError>) -> Self {
        Self::Command(error)
    }
}

/// A client.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) inlet: Inlet,
    pub(super) outlet: Outlet,
    pub(super) reply: Reply,
    /// Its number, by which slots know it.
    pub(super) number: u64,
    pub(super) application: String,
}

/// Serves a client until it goes, is refused, or the server is shut down.
pub(super) async fn serve(shared: Arc<Shared>, inlet: Inlet, outlet: Outlet, stranger: OwnedSemaphorePermit) {
    let number = shared.number();
    let slots = Arc::clone(&shared.slots);
    let cancel = shared.cancel.clone();
    let mut session = Session { shared, inlet, outlet, reply: Reply::new(), number, application: String::new() };
    let stop = tokio::select! {
        stop = session.run(stranger) => stop,
        () = cancel.cancelled() => Stop::fatal("57P01", "terminating connection due to administrator command"),
    };
    slots.leave(number);
    match stop {
        Stop::Gone(reason) => tracing::debug!(session = number, reason, "a client is gone"),
        Stop::Fatal(error) => {
            tracing::debug!(session = number, %error, "a client is sent away");
            session.reply.error(&error);
            session.send();
            // It may have gone already; then nobody is left to be told.
            if session.outlet.flush(FAREWELL).await.is_ok() {
                let _ = session.outlet.close().await;
            }
        }
    }
}

impl Session {
    async fn run(&mut self, stranger: OwnedSemaphorePermit) -> Stop {
        let shared = Arc::clone(&self.shared);
        let limit = shared.options.handshake_timeout;
        match tokio::time::timeout(limit, self.begin(&shared)).await {
            Ok(Ok(_permit)) => {
                drop(stranger);
                match self.commands().await {
                    Err(stop) => stop,
                    Ok(never) => match never {},
                }
            }
            Ok(Err(stop)) => stop,
            Err(_) => Stop::Gone(format!("no session within {limit:?}")),
        }
    }

    /// Queues what has been written.
    pub(super) fn send(&mut self) {
        let bytes = self.reply.take();
        self.outlet.push(bytes);
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        self.send();
        self.outlet.flush(self.shared.options.client_timeout).await
    }

    async fn begin<'a>(&mut self, shared: &'a Shared) -> Result<SemaphorePermit<'a>, Stop> {
        let startup = self.startup().await?;
        if startup.major != 3 {
            let (major, minor) = (startup.major, startup.minor);
            let text = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0");
            return Err(Stop::fatal("0A000", text));
        }
        let extensions = startup.extensions();
        if startup.minor > 0 || !extensions.is_empty() {
            self.reply.negotiate(&extensions);
        }
        let user = match startup.get("user") {
            Some(user) if !user.is_empty() => user,
            _ => return Err(Stop::fatal("28000", "no PostgreSQL user name specified in startup packet")),
        };
        self.authenticate(user).await?;
        // Only who has proven itself hears what there is not.
        match startup.get("replication") {
            Some("true" | "on" | "yes" | "1") => {}
            Some("database") => {
                let database = startup.get("database").unwrap_or(user);
                return Err(Stop::fatal("3D000", format!("database \"{database}\" does not exist")));
            }
            _ => return Err(Stop::fatal("0A000", "only physical replication is served here")),
        }
        let permit =
            shared.sessions.try_acquire().map_err(|_| Stop::fatal("53300", "sorry, too many clients already"))?;
        startup.get("application_name").unwrap_or_default().clone_into(&mut self.application);
        self.reply.authenticated();
        for (name, value) in parameters(shared) {
            self.reply.parameter(name, &value);
        }
        // Nothing is ever cancelled: the key is as good as any.
        self.reply.backend_key(u32::try_from(self.number).unwrap_or(u32::MAX), u32::from_be_bytes(shared.env.random()));
        self.reply.ready();
        self.flush().await?;
        Ok(permit)
    }

    async fn startup(&mut self) -> Result<Startup, Stop> {
        // One question about each kind of encryption.
        for _ in 0..3 {
            match self.inlet.startup().await? {
                StartupPacket::Start(startup) => return Ok(startup),
                StartupPacket::Ssl | StartupPacket::Gss => self.outlet.answer(b'N').await?,
                StartupPacket::Cancel => return Err(Stop::Gone("a request to cancel".to_owned())),
            }
        }
        Err(Stop::fatal("08P01", "no session after several requests for encryption"))
    }

    async fn authenticate(&mut self, user: &str) -> Result<(), Stop> {
        let shared = Arc::clone(&self.shared);
        let wrong = || {
            let mut error = error("28P01", format!("password authentication failed for user \"{user}\""));
            "FATAL".clone_into(&mut error.severity);
            error.routine = Some("auth_failed".to_owned());
            Stop::Fatal(error)
        };
        let told = |error| match error {
            ScramError::WrongProof => wrong(),
            ScramError::Malformed(what) => Stop::fatal("08P01", format!("malformed SCRAM message: {what}")),
        };
        self.reply.sasl(MECHANISM);
        self.flush().await?;
        let initial = self.password().await?;
        let first = initial_response(&initial).map_err(told)?;
        let nonce: String = shared.env.random::<18>().iter().map(|byte| format!("{byte:02x}")).collect();
        let exchange = shared.verifier.begin(first, &nonce).map_err(told)?;
        self.reply.sasl_continue(exchange.message());
        self.flush().await?;
        let last = self.password().await?;
        // Another name is refused as late as a wrong password, so that names cannot be tried out.
        let last = exchange.finish(&last).map_err(told)?;
        if user != shared.options.user {
            return Err(wrong());
        }
        self.reply.sasl_final(&last);
        Ok(())
    }

    async fn password(&mut self) -> Result<bytes::Bytes, Stop> {
        match self.inlet.request().await? {
            Request::Password(data) => Ok(data),
            // A client without a password hangs up politely.
            Request::Terminate => Err(Stop::Gone("the client gave no password".to_owned())),
            _ => Err(Stop::fatal("08P01", "expected SASL response")),
        }
    }

    async fn commands(&mut self) -> Result<std::convert::Infallible, Stop> {
        loop {
            let limit = self.shared.options.idle_timeout;
            let request = tokio::time::timeout(limit, self.inlet.request())
                .await
                .map_err(|_| Stop::fatal("57P05", format!("terminating connection: idle for {limit:?}")))??;
            let text = match request {
                Request::Query(text) => text,
                Request::Terminate => return Err(Stop::Gone("the client ended the session".to_owned())),
                // What was under way when a stream ended.
                Request::CopyData(_) | Request::CopyDone | Request::CopyFail(_) => continue,
                Request::Extended(_) => {
                    let text = "extended query protocol not supported in a replication connection";
                    return Err(Stop::fatal("08P01", text));
                }
                Request::Password(_) => return Err(Stop::fatal("08P01", "invalid frontend message type 112")),
            };
            tracing::debug!(session = self.number, command = text, "received");
            match self.command(&text).await {
                Ok(()) => {}
                Err(Failed::Command(error)) => {
                    tracing::debug!(session = self.number, %error, "refused");
                    self.reply.error(&error);
                }
                Err(Failed::Session(stop)) => return Err(stop),
            }
            self.reply.ready();
            self.flush().await?;
        }
    }

    async fn command(&mut self, text: &str) -> Result<(), Failed> {
        match Command::parse(text)? {
            Command::IdentifySystem => {
                let system = self.shared.feed.identity().system_id.to_string();
                let LogEnd { timeline, position } = self.end().await?;
                // `int4` up to version 15; receivers of all versions read the text.
                let kind = if self.major().is_some_and(|major| major < 16) { INT4 } else { INT8 };
                self.reply.row(&[
                    ("systemid", TEXT, Some(system.as_bytes())),
                    ("timeline", kind, Some(timeline.to_string().as_bytes())),
                    ("xlogpos", TEXT, Some(position.to_string().as_bytes())),
                    ("dbname", TEXT, None),
                ]);
                self.reply.complete("IDENTIFY_SYSTEM");
            }
            Command::Show(name) => {
                let settings = settings(&self.shared);
                let (name, value) = settings
                    .iter()
                    .find(|(known, _)| known.eq_ignore_ascii_case(&name))
                    .ok_or_else(|| error("42704", format!("unrecognized configuration parameter \"{name}\"")))?;
                self.reply.row(&[(name, TEXT, Some(value.as_bytes()))]).complete("SHOW");
            }
            Command::TimelineHistory(timeline) => {
                let name = TimelineHistory::file_name(timeline);
                let content = self.history(timeline).await?.ok_or_else(|| {
                    error("58P01", format!("could not open file \"pg_wal/{name}\": No such file or directory"))
                })?;
                self.reply.row(&[("filename", TEXT, Some(name.as_bytes())), ("content", TEXT, Some(&content))]);
                self.reply.complete("TIMELINE_HISTORY");
            }
            Command::StartReplication { slot, start, timeline } => {
                stream::serve(self, slot, start, timeline).await?;
            }
            Command::CreateSlot { name, temporary, reserve } => {
                let restart = if reserve { Some(self.end().await?.position) } else { None };
                self.shared.slots.create(&name, temporary.then_some(self.number), restart)?;
                self.reply.row(&[
                    ("slot_name", TEXT, Some(name.as_bytes())),
                    ("consistent_point", TEXT, Some(Lsn::INVALID.to_string().as_bytes())),
                    ("snapshot_name", TEXT, None),
                    ("output_plugin", TEXT, None),
                ]);
                self.reply.complete("CREATE_REPLICATION_SLOT");
            }
            Command::ReadSlot(name) => {
                let restart = self.shared.slots.read(&name);
                let kind = restart.map(|_| "physical".as_bytes());
                let (position, timeline) = match restart.flatten() {
                    Some(position) => {
                        let route = self.route().await?;
                        let legs = route.legs(position..Lsn(position.0.saturating_add(1)));
                        let timeline = legs.first().map_or(route.end().timeline, |(timeline, _)| *timeline);
                        (Some(position.to_string()), Some(timeline.to_string()))
                    }
                    None => (None, None),
                };
                self.reply.row(&[
                    ("slot_type", TEXT, kind),
                    ("restart_lsn", TEXT, position.as_ref().map(String::as_bytes)),
                    ("restart_tli", INT8, timeline.as_ref().map(String::as_bytes)),
                ]);
                self.reply.complete("READ_REPLICATION_SLOT");
            }
            Command::DropSlot { name, wait } => {
                let limit = self.shared.options.idle_timeout;
                match tokio::time::timeout(limit, self.shared.slots.remove(&name, wait)).await {
                    Ok(removed) => removed?,
                    Err(_) => return Err(error("55006", format!("\"{name}\" is still in use after {limit:?}")).into()),
                }
                self.reply.complete("DROP_REPLICATION_SLOT");
            }
            Command::Unsupported(what) => {
                return Err(error("0A000", format!("{what} is not supported: only a log is served here")).into());
            }
        }
        Ok(())
    }

    fn major(&self) -> Option<u32> {
        ServerVersion::from_parameter(&self.shared.feed.identity().server_version).ok().map(ServerVersion::major)
    }

    /// How far the log reaches.
    pub(super) async fn end(&self) -> Result<LogEnd, Failed> {
        let shared = &self.shared;
        shared.ask("its end", shared.feed.end()).await.map_err(|failure| shared.failed(failure).into())
    }

    async fn history(&self, timeline: TimelineId) -> Result<Option<bytes::Bytes>, Failed> {
        let shared = &self.shared;
        shared.ask("a history", shared.feed.history(timeline)).await.map_err(|failure| shared.failed(failure).into())
    }

    /// The way to the end of the log.
    async fn route(&self) -> Result<Route, Failed> {
        let end = self.end().await?;
        self.route_to(end).await
    }

    /// The way to `end`.
    pub(super) async fn route_to(&self, end: LogEnd) -> Result<Route, Failed> {
        let history = if end.timeline == TimelineId::FIRST { None } else { self.history(end.timeline).await? };
        Route::new(end, history.as_ref()).map_err(|failure| self.shared.failed(failure.into()).into())
    }
}

/// The data of a client's first SASL message.
fn initial_response(message: &[u8]) -> Result<&[u8], ScramError> {
    let malformed = ScramError::Malformed("no initial response");
    let end = message.iter().position(|byte| *byte == 0).ok_or(malformed)?;
    let (mechanism, rest) = (&message[..end], &message[end + 1..]);
    if mechanism != MECHANISM.as_bytes() {
        return Err(ScramError::Malformed("a mechanism that was not offered"));
    }
    let (length, data) = rest.split_first_chunk::<4>().ok_or(malformed)?;
    // -1 is "no data yet", which this mechanism does not have.
    if u32::from_be_bytes(*length) as usize != data.len() {
        return Err(malformed);
    }
    Ok(data)
}

/// What every session is told at its start: what clients look at before they do anything.
fn parameters(shared: &Shared) -> Vec<(&'static str, String)> {
    vec![
        ("server_version", shared.feed.identity().server_version.clone()),
        ("server_encoding", "SQL_ASCII".to_owned()),
        ("client_encoding", "SQL_ASCII".to_owned()),
        ("application_name", String::new()),
        ("in_hot_standby", "off".to_owned()),
        ("default_transaction_read_only", "off".to_owned()),
        ("is_superuser", "off".to_owned()),
        ("session_authorization", shared.options.user.clone()),
        ("DateStyle", "ISO, MDY".to_owned()),
        ("IntervalStyle", "postgres".to_owned()),
        ("TimeZone", "UTC".to_owned()),
        // `pg_receivewal` refuses a server without it.
        ("integer_datetimes", "on".to_owned()),
        ("standard_conforming_strings", "on".to_owned()),
    ]
}

/// What `SHOW` knows: what is reported anyway, and what receivers ask for.
fn settings(shared: &Shared) -> Vec<(&'static str, String)> {
    let identity = shared.feed.identity();
    let mut settings = parameters(shared);
    let number = ServerVersion::from_parameter(&identity.server_version).map(|version| version.number().to_string());
    settings.extend(number.ok().map(|number| ("server_version_num", number)));
    settings.extend([
        ("wal_segment_size", shown(identity.segment_size)),
        ("wal_block_size", "8192".to_owned()),
        ("data_directory_mode", "0700".to_owned()),
        ("transaction_read_only", "off".to_owned()),
    ]);
    settings
}

/// A size as `SHOW` prints it: in the largest unit that leaves a whole number (`convert_int_from_base_unit`, guc.c).
fn shown(size: SegmentSize) -> String {
    match size.bytes() {
        gigabytes if gigabytes % (1 << 30) == 0 => format!("{}GB", gigabytes >> 30),
        bytes => format!("{}MB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_as_they_are_read() {
        for power in 20..=30 {
            let size = SegmentSize::new(1 << power).unwrap();
            assert_eq!(shown(size).parse::<SegmentSize>().unwrap(), size);
        }
        assert_eq!(shown(SegmentSize::DEFAULT), "16MB");
    }

    #[test]
    fn an_initial_response_has_a_mechanism_and_its_data() {
        assert_eq!(initial_response(b"SCRAM-SHA-256\0\0\0\0\x02ab").unwrap(), b"ab");
        for bytes in [
            &b""[..],
            b"SCRAM-SHA-256",
            b"SCRAM-SHA-256\0",
            b"SCRAM-SHA-256\0\0\0\0\x03ab",
            b"SCRAM-SHA-256\0\0\0\0\x01ab",
            b"SCRAM-SHA-256\0\xff\xff\xff\xff",
            b"SCRAM-SHA-256-PLUS\0\0\0\0\x02ab",
        ] {
            assert!(initial_response(bytes).is_err(), "{bytes:?}");
        }
    }
}
