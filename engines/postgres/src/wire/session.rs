//! A session: simple queries, replication commands and COPY in its three directions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postgres_protocol::message::frontend;

use super::channel::Channel;
use super::connect;
use super::copy::{CopyBoth, CopyIn, CopyOut};
use super::message::Message;
use super::row::{ResultSet, Row};
use crate::conn::Settings;
use crate::error::{Error, Result, ServerError};
use crate::lsn::{Lsn, TimelineId};
use crate::version::ServerVersion;

/// Notices beyond this number are dropped: a server could send them without end.
const MAX_NOTICES: usize = 1000;

/// What a session is opened for (startup parameter `replication`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionKind {
    /// Ordinary SQL.
    Sql,
    /// Physical replication: replication commands and `SHOW`, no SQL, no database. Needs the `REPLICATION` attribute and
    /// a line for the database `replication` in `pg_hba.conf`.
    Replication,
    /// Replication commands and SQL in one session with a database; needs the attribute and a line for that database.
    ReplicationDatabase,
}

/// A connection to a server after authentication.
///
/// One thing happens at a time. When a future of this type is dropped before it is done, the session cannot know what the
/// server will still send for it: every later call fails with [`Error::Closed`]. Dropping the session closes the
/// connection, which makes the server give up whatever it was doing for it, a base backup included.
#[derive(Debug)]
pub struct Session {
    pub(crate) channel: Channel,
    kind: SessionKind,
    parameters: BTreeMap<String, String>,
    notices: Vec<ServerError>,
    version: ServerVersion,
    busy: bool,
}

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemIdentity {
    /// The identifier that `initdb` gave the cluster; equal on all its standbys.
    pub system_id: u64,
    /// The timeline the server is on.
    pub timeline: TimelineId,
    /// The end of its write-ahead log; on a standby, of what it has replayed.
    pub position: Lsn,
    /// The database of the session, if any.
    pub database: Option<String>,
}

impl Session {
    /// Opens a session with the first host that will do.
    ///
    /// # Errors
    /// [`Error::Connect`] when none can be reached, [`Error::Tls`], [`Error::Authentication`], [`Error::NotPermitted`],
    /// [`Error::Version`] for a server outside the supported range, [`Error::Server`] for whatever else a server says.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect(settings: &Settings, kind: SessionKind) -> Result<Self> {
        connect::connect(settings, kind).await
    }

    pub(super) fn new(
        channel: Channel,
        kind: SessionKind,
        parameters: BTreeMap<String, String>,
        notices: Vec<ServerError>,
    ) -> Result<Self> {
        let version = parameters
            .get("server_version")
            .ok_or_else(|| Error::protocol("the server does not tell its version"))
            .and_then(|text| ServerVersion::from_parameter(text))?;
        Ok(Self { channel, kind, parameters, notices, version, busy: false })
    }

    /// What the session was opened for.
    #[must_use]
    pub fn kind(&self) -> SessionKind {
        self.kind
    }

    /// The server's version.
    #[must_use]
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// A parameter that the server reports by itself (`server_encoding`, `in_hot_standby`, …), as last reported.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.channel.transport().is_tls()
    }

    /// Changes how long the server may stay silent while an answer is expected; `None` waits for ever.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.channel.read_timeout = timeout;
    }

    /// Takes the warnings and notices that came since the last call, at most 1000.
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        std::mem::take(&mut self.notices)
    }

    /// Runs `sql` (one statement or several) by the simple query protocol and returns the rows of the last statement.
    ///
    /// Everything is inside one implicit transaction unless `sql` says otherwise.
    ///
    /// # Errors
    /// [`Error::Server`] with the SQLSTATE; the session stays usable then.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>> {
        Ok(self.query_all(sql).await?.pop().map(|set| set.rows).unwrap_or_default())
    }

    /// As [`Session::query`], with what every statement returned.
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn query_all(&mut self, sql: &str) -> Result<Vec<ResultSet>> {
        self.begin(sql).await?;
        self.collect().await
    }

    /// The only row of the answer to `sql`.
    ///
    /// # Errors
    /// As [`Session::query`], and [`Error::Protocol`] when there is not exactly one row.
    pub async fn query_one(&mut self, sql: &str) -> Result<Row> {
        let mut rows = self.query(sql).await?;
        match (rows.pop(), rows.len()) {
            (Some(row), 0) => Ok(row),
            (_, count) => Err(Error::protocol(format!("{} rows where one was expected", count + 1))),
        }
    }

    /// The value of a server setting, as `SHOW` prints it (with its unit).
    ///
    /// # Errors
    /// As [`Session::query`], and [`Error::Settings`] for a name that is not one.
    pub async fn show(&mut self, name: &str) -> Result<String> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.') {
            return Err(Error::settings(format!("{name:?} is not the name of a server setting")));
        }
        let row = self.query_one(&format!("SHOW {name}")).await?;
        let value = row.bytes(0)?.ok_or_else(|| Error::protocol(format!("{name} is null")))?;
        Ok(String::from_utf8_lossy(value).into_owned())
    }

    /// `IDENTIFY_SYSTEM`. Only in a replication session.
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn identify_system(&mut self) -> Result<SystemIdentity> {
        let row = self.query_one("IDENTIFY_SYSTEM").await?;
        Ok(SystemIdentity {
            system_id: row.parse("systemid")?,
            timeline: row.parse("timeline")?,
            position: row.parse("xlogpos")?,
            database: row.text("dbname")?.map(str::to_owned),
        })
    }

    /// `TIMELINE_HISTORY`: the file name and content of the history of `timeline`. Only in a replication session.
    ///
    /// # Errors
    /// As [`Session::query`]; 58P01 for the first timeline, which has no history.
    pub async fn timeline_history(&mut self, timeline: TimelineId) -> Result<(String, Bytes)> {
        let row = self.query_one(&format!("TIMELINE_HISTORY {timeline}")).await?;
        let content = row.bytes(1)?.cloned().ok_or_else(|| Error::protocol("a timeline history is null"))?;
        Ok((row.required("filename")?.to_owned(), content))
    }

    /// Starts a command that answers with `CopyBothResponse`: `START_REPLICATION`.
    ///
    /// # Errors
    /// As [`Session::query`]. A start beyond the end of the log is *not* an error here: the server begins first and
    /// complains then, so that it comes from the first [`CopyBoth::receive`].
    pub async fn copy_both(&mut self, command: &str) -> Result<CopyBoth<'_>> {
        self.begin(command).await?;
        loop {
            match self.receive(|| "the start of replication").await? {
                Message::CopyBoth => return Ok(CopyBoth::new(self)),
                other => self.refuse(other).await?,
            }
        }
    }

    /// Starts a command that answers with `CopyInResponse`: `UPLOAD_MANIFEST` (servers from 17).
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn copy_in(&mut self, command: &str) -> Result<CopyIn<'_>> {
        self.begin(command).await?;
        loop {
            match self.receive(|| "the start of an upload").await? {
                Message::CopyIn => return Ok(CopyIn::new(self)),
                other => self.refuse(other).await?,
            }
        }
    }

    /// Starts a command that answers with `CopyOutResponse`: `COPY … TO STDOUT`.
    ///
    /// # Errors
    /// As [`Session::query`].
    pub async fn copy_out(&mut self, command: &str) -> Result<CopyOut<'_>> {
        self.begin(command).await?;
        loop {
            match self.receive(|| "the start of a copy").await? {
                Message::CopyOut => return Ok(CopyOut::new(self)),
                other => self.refuse(other).await?,
            }
        }
    }

    /// Ends the session politely.
    pub async fn close(self) {
        self.channel.close().await;
    }

    /// Sends a query; from here to [`Session::ready`] the session is busy.
    pub(crate) async fn begin(&mut self, sql: &str) -> Result<()> {
        if self.busy {
            return Err(Error::Closed("an earlier call on this session was not finished".to_owned()));
        }
        // A zero byte in the text is refused by the builder, before anything is sent.
        self.channel.queue(|out| frontend::query(sql, out))?;
        self.busy = true;
        self.channel.flush().await
    }

    /// The next message that is not about the session itself.
    pub(crate) async fn receive(&mut self, what: impl Fn() -> &'static str) -> Result<Message> {
        loop {
            match self.channel.receive(what()).await? {
                Message::Notice(notice) => self.note(notice),
                Message::ParameterStatus(name, value) => {
                    self.parameters.insert(name, value);
                }
                Message::Notification => {}
                // The server says FATAL and hangs up; there is no ReadyForQuery to wait for.
                Message::Error(error) if error.severity == "FATAL" || error.severity == "PANIC" => {
                    return Err(Error::Server(Box::new(error)));
                }
                message => return Ok(message),
            }
        }
    }

    fn note(&mut self, notice: ServerError) {
        tracing::debug!(%notice, "the server says");
        if self.notices.len() < MAX_NOTICES {
            self.notices.push(notice);
        }
    }

    /// Reads until `ReadyForQuery`, collecting rows. The first error of the server is returned after it.
    pub(crate) async fn collect(&mut self) -> Result<Vec<ResultSet>> {
        let mut sets = Vec::new();
        let mut failure = None;
        let mut columns: Arc<[String]> = Arc::default();
        let mut rows = Vec::new();
        loop {
            match self.receive(|| "the answer to a query").await? {
                Message::RowDescription(names) => columns = names.into(),
                Message::DataRow(values) => rows.push(Row::new(Arc::clone(&columns), values)?),
                Message::CommandComplete(tag) => {
                    sets.push(ResultSet {
                        columns: std::mem::take(&mut columns),
                        rows: std::mem::take(&mut rows),
                        tag,
                    });
                }
                Message::EmptyQuery => {}
                Message::Error(error) => failure = failure.or(Some(error)),
                Message::ReadyForQuery(_) => {
                    self.busy = false;
                    return failure.map_or(Ok(sets), |error| Err(Error::Server(Box::new(error))));
                }
                other => return Err(Error::protocol(format!("unexpected {} in an answer", name(&other)))),
            }
        }
    }

    /// One result set of a command that goes on after it; `None` when the command is over instead.
    pub(crate) async fn result_set(&mut self) -> Result<Option<ResultSet>> {
        let mut set = ResultSet::default();
        loop {
            match self.receive(|| "the answer to a command").await? {
                Message::RowDescription(names) => set.columns = names.into(),
                Message::DataRow(values) => set.rows.push(Row::new(Arc::clone(&set.columns), values)?),
                Message::CommandComplete(tag) => {
                    set.tag = tag;
                    return Ok(Some(set));
                }
                Message::Error(error) => return Err(self.fail(error).await),
                Message::ReadyForQuery(_) => {
                    self.busy = false;
                    return Ok(None);
                }
                other => return Err(Error::protocol(format!("unexpected {} in an answer", name(&other)))),
            }
        }
    }

    /// Whether the last command is over, so that another can be sent.
    pub(crate) fn is_idle(&self) -> bool {
        !self.busy
    }

    /// Marks the current command as over, for a caller that has read `ReadyForQuery` itself.
    pub(crate) fn idle(&mut self) {
        self.busy = false;
    }

    /// Handles a message that came instead of a copy response: an error is returned, all else is a violation.
    async fn refuse(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Error(error) => Err(self.fail(error).await),
            other => Err(Error::protocol(format!("unexpected {} where copying was to begin", name(&other)))),
        }
    }

    /// After an error: reads on to `ReadyForQuery`, so that the session is usable again, and returns the error.
    pub(crate) async fn fail(&mut self, error: ServerError) -> Error {
        loop {
            match self.receive(|| "the end of a failed command").await {
                Ok(Message::ReadyForQuery(_)) => {
                    self.busy = false;
                    break;
                }
                Ok(_) => {}
                // The session is dead; what the server said first is what matters.
                Err(_) => break,
            }
        }
        Error::Server(Box::new(error))
    }
}

/// A message's name for an error, without its content.
pub(crate) fn name(message: &Message) -> &'static str {
    match message {
        Message::Authentication(_) => "authentication request",
        Message::ReadyForQuery(_) => "end of command",
        Message::RowDescription(_) => "row description",
        Message::DataRow(_) => "row",
        Message::CommandComplete(_) => "command tag",
        Message::CopyOut => "start of copy out",
        Message::CopyIn => "start of copy in",
        Message::CopyBoth => "start of copy both",
        Message::CopyData(_) => "copy data",
        Message::CopyDone => "end of copy",
        Message::Error(_) => "error",
        _ => "message",
    }
}
