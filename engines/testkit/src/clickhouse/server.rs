//! A running server of ClickHouse.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::binaries::ClickHouseBinaries;
use super::builder::ClickHouseBuilder;
use super::config::Ports;
use super::http::{self, HttpAnswer, percent};
use super::version::ClickHouseVersion;
use crate::error::{Error, Result};
use crate::process::{ServerProcess, free_port, tail};
use crate::scratch::write_private;
use crate::wait;

/// Lines of the log that an error shows.
const LOG_LINES: usize = 60;
/// A server that takes longer to stop is a failure of the test.
const PATIENCE: Duration = Duration::from_secs(60);
/// The HTTP interface of an engine that is a library.
const FRONT: &str = include_str!("front.py");

/// A server that ends with this value, or with the test process.
///
/// It listens on 127.0.0.1. The ports stay the same over [`restart`](Self::restart). Times are in UTC.
pub struct ClickHouse {
    builder: ClickHouseBuilder,
    binaries: ClickHouseBinaries,
    data: PathBuf,
    ports: Ports,
    // Fields are dropped in this order: the process ends before its directories go.
    process: Option<ServerProcess>,
    home: TempDir,
}

impl ClickHouse {
    /// A user with a password, who may do everything, beside `default`, who needs none.
    pub const USER: &str = "backup";
    /// The password of [`USER`](Self::USER).
    pub const PASSWORD: &str = "s3cret<&\"";

    /// Describes a server to start.
    pub fn builder(version: ClickHouseVersion) -> ClickHouseBuilder {
        ClickHouseBuilder::new(version)
    }

    pub(super) fn new(builder: ClickHouseBuilder, binaries: ClickHouseBinaries, home: TempDir, data: PathBuf) -> Self {
        Self { builder, binaries, data, ports: Ports::default(), process: None, home }
    }

    /// Starts the server if it is not running, and waits until it answers and has loaded what there was.
    ///
    /// # Errors
    /// [`Error::Server`] with the end of the log when it does not come up, [`Error::InvalidInput`] when it is of another
    /// version.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the server starting; the handle still owns it.
    pub async fn start(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let fixed = self.ports.http != 0;
        for attempt in 0.. {
            if !fixed {
                self.ports = Ports { http: free_port()?, native: free_port()?, interserver: free_port()? };
            }
            let before = self.log_len();
            match self.launch().await {
                // Between finding a free port and binding it somebody else may have taken it.
                Err(Error::Server { .. }) if !fixed && attempt < 5 && self.port_was_taken(before) => {}
                other => return other,
            }
        }
        Ok(())
    }

    async fn launch(&mut self) -> Result<()> {
        let (version, home) = (self.version(), self.home.path());
        let wanted = &self.builder.wanted;
        write_private(&home.join("config.xml"), &wanted.config(version, home, &self.data, self.ports))?;
        write_private(&home.join("users.xml"), &wanted.users(version))?;
        if self.binaries.is_library() {
            write_private(&home.join("users.json"), &wanted.passwords())?;
            write_private(&home.join("front.py"), FRONT)?;
        }
        let mut command = self.binaries.server(home, &self.data, self.ports.http);
        // Killed when the test is done with it: a clean end would wait for queries and merges that nobody wants.
        self.process = Some(ServerProcess::spawn(&mut command, &self.log_path(), Signal::KILL, &[home.to_owned()])?);
        let deadline = wait::Deadline::after(self.builder.patience);
        loop {
            if let Some(exit) = self.process.as_mut().and_then(ServerProcess::ended) {
                self.process = None;
                return Err(self.failed(format!("ended while starting ({exit})")));
            }
            if self.is_ready().await {
                return self.check_version().await;
            }
            if deadline.passed() {
                self.process = None;
                return Err(self.failed(format!("did not answer within {:?}", self.builder.patience)));
            }
            wait::pause().await;
        }
    }

    async fn is_ready(&self) -> bool {
        self.http("GET", "/ping", &[], b"").await.is_ok_and(|answer| answer.status == 200)
    }

    /// What the caller's installation says at last may not be what was asked for.
    async fn check_version(&self) -> Result<()> {
        let said = self.query("SELECT version()").await?;
        if said.starts_with(&format!("{}.", self.version().line())) {
            return Ok(());
        }
        Err(Error::invalid(format!("{} is wanted but the server says {said}", self.version().name())))
    }

    fn failed(&self, what: impl Into<String>) -> Error {
        Error::Server { server: self.version().name().to_owned(), what: what.into(), log: self.log() }
    }

    fn port_was_taken(&self, before: u64) -> bool {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        let fresh = log.get(usize::try_from(before).unwrap_or(usize::MAX)..).unwrap_or_default();
        String::from_utf8_lossy(fresh).contains("Address already in use")
    }

    fn log_len(&self) -> u64 {
        self.log_path().metadata().map_or(0, |meta| meta.len())
    }

    /// Stops the server as an administrator would, and waits until it is gone.
    ///
    /// # Errors
    /// [`Error::Server`] when it is still there after a minute.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(process) = self.process.as_mut() else { return Ok(()) };
        process.signal(Signal::TERM);
        if wait::until_async(PATIENCE, || process.ended()).await.is_none() {
            return Err(self.failed(format!("did not stop within {PATIENCE:?}")));
        }
        self.process = None;
        Ok(())
    }

    /// Ends the server by SIGKILL, as the kernel would on memory shortage, and waits until it is gone.
    pub async fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(Signal::KILL);
        wait::until_async(PATIENCE, || process.ended()).await;
    }

    /// Stops the server if it runs and starts it again, on the same ports and data.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// Runs one statement as the user `default` and returns its answer, tab-separated unless the statement says otherwise,
    /// without the end of its last line.
    ///
    /// # Errors
    /// [`Error::ClickHouse`] with what the server said when it is an error, [`Error::Io`] when the connection broke.
    pub async fn query(&self, sql: &str) -> Result<String> {
        self.query_with(sql, &[]).await
    }

    /// As [`query`](Self::query), with parameters of the address: settings, `database`, `session_id`, ….
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn query_with(&self, sql: &str, parameters: &[(&str, &str)]) -> Result<String> {
        // Otherwise the old server ends an answer in which an error comes late as if it were whole.
        let whole = [parameters, &[("wait_end_of_query", "1")]].concat();
        let answer = self.http("POST", &target(&whole), &[], sql.as_bytes()).await?;
        let mut text = checked(sql, &answer)?.text();
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(text)
    }

    /// Inserts `rows`, written in `format` (`TabSeparated`, `RowBinary`, …), into `table`, which is what stands behind
    /// `INSERT INTO`: a name that is quoted where it has to be, and columns.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn insert(&self, table: &str, format: &str, rows: impl AsRef<[u8]>) -> Result<()> {
        let statement = format!("INSERT INTO {table} FORMAT {format}");
        let answer = self.http("POST", &target(&[("query", &statement)]), &[], rows.as_ref()).await?;
        checked(&statement, &answer).map(drop)
    }

    /// Sends a request of HTTP as it is said: for tests of what is not a plain statement.
    ///
    /// # Errors
    /// [`Error::Io`] when the connection broke before there was an answer.
    pub async fn http(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<HttpAnswer> {
        http::send(self.ports.http, method, target, headers, body).await
    }

    /// The release line.
    #[must_use]
    pub fn version(&self) -> ClickHouseVersion {
        self.builder.version
    }

    /// What it runs.
    #[must_use]
    pub fn binaries(&self) -> &ClickHouseBinaries {
        &self.binaries
    }

    /// TCP port of HTTP on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.http
    }

    /// TCP port on 127.0.0.1 where replicas fetch parts from it.
    #[must_use]
    pub fn interserver_port(&self) -> u16 {
        self.ports.interserver
    }

    /// Address for clients: `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    /// The server's data: `data/`, `metadata/`, `shadow/`, and `store/` where databases are Atomic.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The directory of a [further disk](ClickHouseBuilder::disk).
    #[must_use]
    pub fn disk_dir(&self, name: &str) -> PathBuf {
        self.home.path().join("disks").join(name)
    }

    /// Where `BACKUP … TO File('<this>/…')` may write, which is also the disk `backups`. ClickHouse 26 only.
    #[must_use]
    pub fn backups_dir(&self) -> PathBuf {
        self.home.path().join("backups")
    }

    /// The server's own temporary directory: belongs to the server's account, goes with the server.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(ServerProcess::pid)
    }

    /// The end of the server's log.
    #[must_use]
    pub fn log(&self) -> String {
        tail(&self.log_path(), LOG_LINES)
    }

    /// The server's log file.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.home.path().join("log")
    }
}

impl fmt::Debug for ClickHouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClickHouse")
            .field("version", &self.version())
            .field("port", &self.ports.http)
            .field("data", &self.data)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

fn target(parameters: &[(&str, &str)]) -> String {
    let encoded = parameters.iter().map(|(name, value)| format!("{}={}", percent(name), percent(value)));
    format!("/?{}", encoded.collect::<Vec<_>>().join("&"))
}

/// The answer if it is one, and the error that it tells otherwise.
fn checked<'a>(statement: &str, answer: &'a HttpAnswer) -> Result<&'a HttpAnswer> {
    if answer.status == 200 && answer.whole {
        return Ok(answer);
    }
    // What came before a late error may be long, and is no part of it.
    let text = answer.text();
    let said = text.rfind("Code: ").map_or(text.as_str(), |at| &text[at..]).trim().to_owned();
    let number = said.strip_prefix("Code: ").and_then(|rest| rest.split(['.', ',']).next());
    Err(Error::ClickHouse {
        statement: statement.to_owned(),
        code: number.and_then(|number| number.parse().ok()),
        said,
    })
}
