//! A running PostgreSQL server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::NoTls;
use tokio_postgres::types::PgLsn;

use super::binaries::PgBinaries;
use super::builder::PostgresBuilder;
use super::standby::quote;
use super::version::PgVersion;
use crate::error::{Error, Result};
use crate::process::{ServerProcess, free_port, tail};
use crate::{unprivileged, wait};

/// Lines of the log that an error shows.
const LOG_LINES: usize = 60;
/// A stop that takes longer than this is a failure of the test.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// How a server is told to stop (the manual's "Shutting Down the Server").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopMode {
    /// Waits until all clients have gone.
    Smart,
    /// Ends the clients, then shuts down cleanly with a checkpoint.
    Fast,
    /// Aborts; the next start recovers from WAL.
    Immediate,
}

/// A PostgreSQL server that ends with this value, or with the test process.
///
/// It listens on 127.0.0.1 and on a Unix socket. The port stays the same over [`restart`](Self::restart).
pub struct Postgres {
    builder: PostgresBuilder,
    binaries: PgBinaries,
    data: PathBuf,
    port: u16,
    command_line: Vec<(String, String)>,
    ca: Option<String>,
    // Fields are dropped in this order: the process ends before its directories go.
    process: Option<ServerProcess>,
    sockets: Option<TempDir>,
    home: TempDir,
}

impl Postgres {
    /// Describes a server to start.
    pub fn builder(version: PgVersion) -> PostgresBuilder {
        PostgresBuilder::new(version)
    }

    /// Starts a server on an existing data directory; see [`PostgresBuilder::open`] for one with settings.
    ///
    /// # Errors
    /// As [`PostgresBuilder::open`].
    pub async fn open(version: PgVersion, data_dir: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(version).open(data_dir).await
    }

    /// Starts a streaming standby of `primary`; see [`PostgresBuilder::standby_of`] for one with settings.
    ///
    /// # Errors
    /// As [`PostgresBuilder::standby_of`].
    pub async fn standby_of(primary: &Self) -> Result<Self> {
        Self::builder(primary.version()).standby_of(primary).await
    }

    pub(super) fn new(
        builder: PostgresBuilder,
        binaries: PgBinaries,
        home: TempDir,
        data: PathBuf,
        command_line: Vec<(String, String)>,
        ca: Option<String>,
    ) -> Self {
        Self { builder, binaries, data, port: 0, command_line, ca, process: None, sockets: None, home }
    }

    /// Starts the server if it is not running, and waits until it accepts connections.
    ///
    /// # Errors
    /// [`Error::Server`] with the end of the log when it does not come up.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the server starting; the handle still owns it.
    pub async fn start(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let fixed = self.port != 0;
        for attempt in 0.. {
            if !fixed {
                self.port = free_port()?;
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
        let sockets = self.prepare_socket_dir()?;
        let mut command = self.binaries.command("postgres");
        command.arg("-D").arg(&self.data);
        command.envs(self.builder.environment.iter().cloned());
        let mut options = vec![
            ("port".to_owned(), self.port.to_string()),
            ("listen_addresses".to_owned(), "127.0.0.1".to_owned()),
            ("unix_socket_directories".to_owned(), sockets.display().to_string()),
            ("fsync".to_owned(), if self.builder.fsync { "on" } else { "off" }.to_owned()),
            // In the data directory: what lies in `/dev/shm` stays there when a test kills a server.
            ("dynamic_shared_memory_type".to_owned(), "mmap".to_owned()),
            // The log goes where a failing test can show it, whatever the configuration says.
            ("logging_collector".to_owned(), "off".to_owned()),
            ("log_destination".to_owned(), "stderr".to_owned()),
        ];
        options.extend(self.command_line.iter().cloned());
        for (name, value) in options {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let mut owned = vec![self.home.path().to_owned()];
        owned.extend(self.sockets.as_ref().map(|dir| dir.path().to_owned()));
        let process = ServerProcess::spawn(&mut command, &self.log_path(), Signal::QUIT, &owned)?;
        let pid = process.pid();
        self.process = Some(process);

        let status = self.data.join("postmaster.pid");
        let patience = self.builder.patience;
        let outcome = wait::until_async(patience, || {
            if let Some(exit) = self.process.as_mut()?.ended() {
                return Some(Err(exit));
            }
            is_ready(&std::fs::read_to_string(&status).ok()?, pid).then_some(Ok(()))
        })
        .await;
        let what = match outcome {
            Some(Ok(())) => return Ok(()),
            Some(Err(exit)) => format!("ended while starting ({exit})"),
            None => format!("did not accept connections within {patience:?}"),
        };
        self.process = None;
        Err(self.failed(what))
    }

    /// Unix socket paths are limited to 107 bytes (`sun_path`), so a deep temporary directory can't hold them.
    fn prepare_socket_dir(&mut self) -> Result<PathBuf> {
        let usual = self.home.path().join("sock");
        if usual.as_os_str().len() + "/.s.PGSQL.65535.lock".len() < 100 {
            if !usual.exists() {
                std::fs::create_dir(&usual).map_err(Error::io("create", &usual))?;
                unprivileged().own(&usual)?;
            }
        } else if self.sockets.is_none() {
            self.sockets = Some(crate::scratch::scratch_dir_in(Path::new("/tmp"))?);
        }
        Ok(self.socket_dir().to_owned())
    }

    fn failed(&self, what: impl Into<String>) -> Error {
        Error::Server { server: format!("postgresql {}", self.version()), what: what.into(), log: self.log() }
    }

    fn port_was_taken(&self, before: u64) -> bool {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        let fresh = log.get(usize::try_from(before).unwrap_or(usize::MAX)..).unwrap_or_default();
        String::from_utf8_lossy(fresh).contains("Address already in use")
    }

    fn log_len(&self) -> u64 {
        self.log_path().metadata().map_or(0, |meta| meta.len())
    }

    /// Stops the server and waits until it is gone. A server that is not running is left alone.
    ///
    /// # Errors
    /// [`Error::Server`] when it is still there after a minute.
    pub async fn stop(&mut self, mode: StopMode) -> Result<()> {
        let Some(process) = self.process.as_mut() else { return Ok(()) };
        process.signal(match mode {
            StopMode::Smart => Signal::TERM,
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        });
        if wait::until_async(STOP_PATIENCE, || process.ended()).await.is_none() {
            return Err(self.failed(format!("did not stop ({mode:?}) within {STOP_PATIENCE:?}")));
        }
        self.process = None;
        Ok(())
    }

    /// Ends the server's main process by SIGKILL, as the kernel would on memory shortage, and waits until its children
    /// have noticed and let go of the data directory.
    pub async fn kill9(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(Signal::KILL);
        wait::until_async(STOP_PATIENCE, || process.ended()).await;
        // The children hold the shared memory; a start would be refused until the last one has gone.
        let marker = self.data.join("postmaster.pid");
        let segment = std::fs::read_to_string(&marker).ok().and_then(|text| shared_memory_id(&text));
        if let Some(id) = segment {
            wait::until_async(STOP_PATIENCE, || (attached(id) == 0).then_some(())).await;
        }
    }

    /// Stops fast and starts again, on the same port.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<()> {
        self.stop(StopMode::Fast).await?;
        self.start().await
    }

    /// Whether the main process is there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
    }

    /// Waits until the server has ended by itself, for example at a recovery target with the action `shutdown`.
    ///
    /// # Errors
    /// [`Error::Server`] when it has not after `timeout`.
    pub async fn wait_ended(&mut self, timeout: Duration) -> Result<()> {
        match wait::until_async(timeout, || self.process.as_mut().is_none_or(|p| p.ended().is_some()).then_some(()))
            .await
        {
            Some(()) => {
                self.process = None;
                Ok(())
            }
            None => Err(self.failed(format!("did not end within {timeout:?}"))),
        }
    }

    /// Major version.
    #[must_use]
    pub fn version(&self) -> PgVersion {
        self.builder.version
    }

    /// The programs that it runs.
    #[must_use]
    pub fn binaries(&self) -> &PgBinaries {
        &self.binaries
    }

    /// TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Directory of the Unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> PathBuf {
        self.sockets.as_ref().map_or_else(|| self.home.path().join("sock"), |dir| dir.path().to_owned())
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The server's own temporary directory: belongs to the server's account, goes with the server. A place for
    /// tablespaces, archived WAL and the like.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Name of the superuser.
    #[must_use]
    pub fn superuser(&self) -> &str {
        &self.builder.superuser
    }

    /// Password of the superuser.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.builder.password
    }

    /// PEM certificate of the authority that signed the server's, if TLS is on.
    #[must_use]
    pub fn tls_ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// Process id of the main process while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(ServerProcess::pid)
    }

    /// Connection string in libpq's keyword form, over TCP.
    #[must_use]
    pub fn conn_string(&self, database: &str) -> String {
        self.keywords("127.0.0.1", database)
    }

    /// Connection string in libpq's keyword form, over the Unix socket.
    #[must_use]
    pub fn unix_conn_string(&self, database: &str) -> String {
        self.keywords(&self.socket_dir().display().to_string(), database)
    }

    fn keywords(&self, host: &str, database: &str) -> String {
        format!(
            "host={} port={} user={} password={} dbname={}",
            quote(host),
            self.port,
            quote(self.superuser()),
            quote(self.password()),
            quote(database)
        )
    }

    /// Client configuration for the superuser over the Unix socket.
    #[must_use]
    pub fn config(&self, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.socket_dir())
            .port(self.port)
            .user(self.superuser())
            .password(self.password())
            .dbname(database);
        config
    }

    /// Connects as superuser over the Unix socket. The connection's task ends when the client is dropped or the server goes.
    ///
    /// # Errors
    /// [`Error::Sql`].
    pub async fn connect(&self, database: &str) -> Result<tokio_postgres::Client> {
        connect(&self.config(database)).await
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

    /// The cluster's system identifier.
    ///
    /// # Errors
    /// [`Error::Sql`].
    pub async fn system_identifier(&self) -> Result<u64> {
        let client = self.connect("postgres").await?;
        let id: i64 = client.query_one("select system_identifier from pg_control_system()", &[]).await?.try_get(0)?;
        // SQL has no unsigned integers: the server shows the 64 bits as signed.
        Ok(id.cast_unsigned())
    }

    /// The position of the last WAL record inserted on a primary, or replayed on a standby.
    ///
    /// # Errors
    /// [`Error::Sql`].
    pub async fn current_lsn(&self) -> Result<PgLsn> {
        let client = self.connect("postgres").await?;
        let sql =
            "select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end";
        Ok(client.query_one(sql, &[]).await?.try_get(0)?)
    }

    /// Waits until a standby has replayed WAL up to `lsn`.
    ///
    /// # Errors
    /// [`Error::Server`] with its log when it has not after `timeout`.
    pub async fn wait_replayed(&self, lsn: PgLsn, timeout: Duration) -> Result<()> {
        self.wait_for(&format!("select pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn"), timeout).await
    }

    /// Waits until recovery has ended and the server takes writes.
    ///
    /// # Errors
    /// [`Error::Server`] with its log when it does not after `timeout`.
    pub async fn wait_writable(&self, timeout: Duration) -> Result<()> {
        self.wait_for("select not pg_is_in_recovery()", timeout).await
    }

    /// Makes a standby a primary and waits until it takes writes.
    ///
    /// # Errors
    /// [`Error::Sql`], or [`Error::Server`] when it takes longer than a minute.
    pub async fn promote(&self) -> Result<()> {
        self.connect("postgres").await?.execute("select pg_promote(true, 60)", &[]).await?;
        self.wait_writable(Duration::from_secs(60)).await
    }

    /// Waits until a query with one boolean answers true.
    async fn wait_for(&self, sql: &str, timeout: Duration) -> Result<()> {
        let client = self.connect("postgres").await?;
        let deadline = wait::Deadline::after(timeout);
        loop {
            let answer: Option<bool> = client.query_one(sql, &[]).await?.try_get(0)?;
            if answer == Some(true) {
                return Ok(());
            }
            if deadline.passed() {
                return Err(self.failed(format!("did not come to {sql:?} within {timeout:?}")));
            }
            wait::pause().await;
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("version", &self.version())
            .field("port", &self.port)
            .field("data", &self.data)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

/// Connects without TLS and lets the connection run until the client is dropped.
pub(crate) async fn connect(config: &tokio_postgres::Config) -> Result<tokio_postgres::Client> {
    let (client, connection) = config.connect(NoTls).await?;
    // The one detached task of this crate: it owns nothing but the socket and ends with the client.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    });
    Ok(client)
}

/// Whether `postmaster.pid` belongs to process `pid` and says that it accepts connections.
///
/// Line 1 is the process id, line 8 the status, padded with blanks. `standby` is what a server in recovery with
/// `hot_standby = off` reaches: as ready as it gets.
fn is_ready(pid_file: &str, pid: u32) -> bool {
    let mut lines = pid_file.lines();
    lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid)
        && lines.nth(6).is_some_and(|status| matches!(status.trim(), "ready" | "standby"))
}

/// The System V shared memory id in `postmaster.pid`: the second number of line 7.
fn shared_memory_id(pid_file: &str) -> Option<i64> {
    pid_file.lines().nth(6)?.split_whitespace().nth(1)?.parse().ok()
}

/// How many processes have the segment attached; 0 when it is gone or the system does not tell (proc(5), sysvipc/shm:
/// shmid is the second column, nattch the seventh).
fn attached(id: i64) -> u64 {
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    table
        .lines()
        .find_map(|line| {
            let mut columns = line.split_whitespace();
            (columns.nth(1)?.parse() == Ok(id)).then(|| columns.nth(4)?.parse().ok()).flatten()
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_tells_readiness_of_this_process_only() {
        let file = |status: &str| format!("42\n/data\n1700000000\n5433\n/sock\n127.0.0.1\n  1234 7\n{status}\n");
        assert!(is_ready(&file("ready   "), 42));
        assert!(!is_ready(&file("ready   "), 43));
        assert!(!is_ready(&file("starting"), 42));
        assert!(!is_ready("42\n/data\n", 42));
        assert_eq!(shared_memory_id(&file("ready")), Some(7));
    }
}
