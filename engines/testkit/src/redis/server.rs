//! A running server of the Redis family.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::binaries::RedisBinaries;
use super::builder::{RedisBuilder, quoted};
use super::client::{RedisClient, Reply};
use super::version::RedisVersion;
use crate::error::{Error, Result};
use crate::process::{ServerProcess, free_port, tail};
use crate::scratch::{scratch_dir_in, write_private};
use crate::wait;

/// Lines of the log that an error shows.
const LOG_LINES: usize = 60;
/// A server that takes longer to stop, or to catch up with another one, is a failure of the test.
const PATIENCE: Duration = Duration::from_secs(60);
/// Members of a cluster talk to each other on a port that is this much higher.
const BUS: u16 = 10_000;

/// A server that ends with this value, or with the test process.
///
/// It listens on 127.0.0.1 and on a Unix socket. The ports stay the same over [`restart`](Self::restart).
pub struct Redis {
    builder: RedisBuilder,
    binaries: RedisBinaries,
    data: PathBuf,
    port: u16,
    tls_port: u16,
    ca: Option<String>,
    // Fields are dropped in this order: the process ends before its directories go.
    process: Option<ServerProcess>,
    sockets: Option<TempDir>,
    home: TempDir,
}

impl Redis {
    /// Describes a server to start.
    pub fn builder(version: RedisVersion) -> RedisBuilder {
        RedisBuilder::new(version)
    }

    /// Starts a replica of `primary`, of the same version, and waits until it has caught up.
    ///
    /// # Errors
    /// As [`RedisBuilder::start`] and [`wait_for_replica`](Self::wait_for_replica).
    pub async fn replica_of(primary: &Self) -> Result<Self> {
        let replica = Self::builder(primary.version()).replica_of(primary).start().await?;
        replica.wait_linked().await?;
        Ok(replica)
    }

    pub(super) fn new(
        builder: RedisBuilder,
        binaries: RedisBinaries,
        home: TempDir,
        data: PathBuf,
        ca: Option<String>,
    ) -> Self {
        Self { builder, binaries, data, port: 0, tls_port: 0, ca, process: None, sockets: None, home }
    }

    /// Starts the server if it is not running, and waits until it answers and has loaded what there was.
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
                self.port = if self.builder.cluster { cluster_port()? } else { free_port()? };
                self.tls_port = if self.builder.tls { free_port()? } else { 0 };
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
        let file = self.home.path().join("server.conf");
        // What the server itself has written into it (`CONFIG REWRITE`) stays over a restart.
        if !rewritten(&file) {
            write_private(&file, &self.configuration()?)?;
        }
        let mut command = self.binaries.command();
        command.arg(&file);
        let mut owned = vec![self.home.path().to_owned()];
        owned.extend(self.sockets.as_ref().map(|dir| dir.path().to_owned()));
        // Killed when the test is done with it: a clean end would save data that nobody wants.
        self.process = Some(ServerProcess::spawn(&mut command, &self.log_path(), Signal::KILL, &owned)?);
        let deadline = wait::Deadline::after(self.builder.patience);
        loop {
            if let Some(exit) = self.process.as_mut().and_then(ServerProcess::ended) {
                self.process = None;
                return Err(self.failed(format!("ended while starting ({exit})")));
            }
            if self.is_ready().await {
                return Ok(());
            }
            if deadline.passed() {
                self.process = None;
                return Err(self.failed(format!("did not answer within {:?}", self.builder.patience)));
            }
            wait::pause().await;
        }
    }

    fn configuration(&mut self) -> Result<String> {
        let socket = self.prepare_socket()?;
        let mut text = self.builder.configuration(&self.binaries);
        let mut line = |name: &str, value: &str| text.push_str(&format!("{name} {}\n", quoted(value)));
        line("port", &self.port.to_string());
        line("bind", "127.0.0.1");
        line("dir", &self.data.display().to_string());
        line("unixsocket", &socket.display().to_string());
        line("unixsocketperm", "777");
        line("daemonize", "no");
        line("logfile", "");
        if self.builder.tls {
            line("tls-port", &self.tls_port.to_string());
            line("tls-auth-clients", "optional");
            for (name, file) in
                [("tls-cert-file", "server.crt"), ("tls-key-file", "server.key"), ("tls-ca-cert-file", "ca.crt")]
            {
                line(name, &self.home.path().join(file).display().to_string());
            }
        }
        Ok(text)
    }

    /// Unix socket paths are limited to 107 bytes (`sun_path`), so a deep temporary directory can't hold them.
    fn prepare_socket(&mut self) -> Result<PathBuf> {
        if self.sockets.is_none() && self.home.path().as_os_str().len() + "/sock".len() > 100 {
            self.sockets = Some(scratch_dir_in(Path::new("/tmp"))?);
        }
        Ok(self.socket())
    }

    async fn is_ready(&self) -> bool {
        let Ok(mut client) = self.connect().await else { return false };
        // While a file is being loaded the answer is an error.
        matches!(client.run("PING").await, Ok(Reply::Status(_)))
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

    /// Stops the server as an administrator would, so that it saves what it is set up to save, and waits until it is gone.
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
    pub async fn kill9(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(Signal::KILL);
        wait::until_async(PATIENCE, || process.ended()).await;
    }

    /// Stops the server's process without ending it, until [`resume`](Self::resume): a server that hangs.
    pub fn pause(&mut self) {
        if let Some(process) = self.process.as_mut() {
            process.signal(Signal::STOP);
        }
    }

    /// Lets a paused server go on.
    pub fn resume(&mut self) {
        if let Some(process) = self.process.as_mut() {
            process.signal(Signal::CONT);
        }
    }

    /// Stops and starts again, on the same ports.
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

    /// Waits until the server has ended by itself.
    ///
    /// # Errors
    /// [`Error::Server`] when it has not after `timeout`.
    pub async fn wait_ended(&mut self, timeout: Duration) -> Result<()> {
        let ended = || self.process.as_mut().is_none_or(|p| p.ended().is_some()).then_some(());
        if wait::until_async(timeout, ended).await.is_none() {
            return Err(self.failed(format!("did not end within {timeout:?}")));
        }
        self.process = None;
        Ok(())
    }

    /// Makes a replica a primary.
    ///
    /// # Errors
    /// [`Error::Redis`], [`Error::Io`].
    pub async fn promote(&self) -> Result<()> {
        self.connect().await?.run("REPLICAOF NO ONE").await.map(drop)
    }

    /// Makes this server a replica of `primary`, and waits until it has caught up.
    ///
    /// # Errors
    /// [`Error::Redis`], [`Error::Io`], [`Error::Server`] when it does not catch up.
    pub async fn follow(&self, primary: &Self) -> Result<()> {
        self.connect().await?.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port())).await?;
        self.wait_linked().await
    }

    /// Hands the role of this primary over to `replica` without losing a write (the server's own `FAILOVER`), and waits until
    /// both have their roles.
    ///
    /// # Errors
    /// [`Error::Redis`], [`Error::Io`], [`Error::Server`] when they don't come to it.
    pub async fn failover_to(&self, replica: &Self) -> Result<()> {
        self.connect().await?.run(&format!("FAILOVER TO 127.0.0.1 {}", replica.port())).await?;
        replica.wait_info("replication", "role", |value| value == "master").await?;
        self.wait_info("replication", "role", |value| value == "slave").await?;
        self.wait_linked().await
    }

    /// Waits until this replica's link is up, which it is when it has the whole snapshot.
    ///
    /// # Errors
    /// [`Error::Server`] when it is not after a minute.
    pub async fn wait_linked(&self) -> Result<()> {
        self.wait_info("replication", "master_link_status", |value| value == "up").await
    }

    /// Waits until `replica` has everything that this primary has written by then.
    ///
    /// # Errors
    /// [`Error::Server`] when it has not after a minute.
    pub async fn wait_for_replica(&self, replica: &Self) -> Result<()> {
        let offset = self.info("replication", "master_repl_offset").await?.and_then(|text| text.parse::<u64>().ok());
        let reached = |value: &str| value.parse::<u64>().ok() >= offset;
        replica.wait_info("replication", "slave_repl_offset", reached).await
    }

    /// Waits until a field of `INFO` is what `wanted` says.
    ///
    /// # Errors
    /// [`Error::Server`] with its log when it is not after a minute.
    pub async fn wait_info(&self, section: &str, field: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = wait::Deadline::after(PATIENCE);
        loop {
            let value = self.info(section, field).await?;
            if value.as_deref().is_some_and(&wanted) {
                return Ok(());
            }
            if deadline.passed() {
                return Err(self.failed(format!("has {field} = {value:?} after {PATIENCE:?}")));
            }
            wait::pause().await;
        }
    }

    /// A field of `INFO`.
    ///
    /// # Errors
    /// [`Error::Redis`], [`Error::Io`].
    pub async fn info(&self, section: &str, field: &str) -> Result<Option<String>> {
        let text = self.connect().await?.call(&["INFO", section]).await?.text();
        let values = text.lines().filter_map(|line| line.split_once(':'));
        Ok(values.into_iter().find(|(name, _)| *name == field).map(|(_, value)| value.trim().to_owned()))
    }

    /// The release line.
    #[must_use]
    pub fn version(&self) -> RedisVersion {
        self.builder.version
    }

    /// The program that it runs.
    #[must_use]
    pub fn binaries(&self) -> &RedisBinaries {
        &self.binaries
    }

    /// TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// TCP port for TLS on 127.0.0.1, if TLS is on.
    #[must_use]
    pub fn tls_port(&self) -> Option<u16> {
        (self.tls_port != 0).then_some(self.tls_port)
    }

    /// PEM certificate of the authority that signed the server's, if TLS is on.
    #[must_use]
    pub fn tls_ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// The Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.sockets.as_ref().unwrap_or(&self.home).path().join("sock")
    }

    /// The server's working directory: snapshot, append-only log, cluster configuration.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The server's own temporary directory: belongs to the server's account, goes with the server.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Password of the default user.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.builder.password.as_deref()
    }

    /// Address for clients: `redis://127.0.0.1:<port>`, without the password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(ServerProcess::pid)
    }

    /// Connects as the default user over the Unix socket.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Redis`].
    pub async fn connect(&self) -> Result<RedisClient> {
        RedisClient::connect(&self.socket(), self.password()).await
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

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("version", &self.version())
            .field("port", &self.port)
            .field("data", &self.data)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

/// Whether the server has written the configuration file itself (`rewriteConfig` in `src/config.c` leaves this remark).
fn rewritten(file: &Path) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.contains("# Generated by CONFIG REWRITE"))
}

/// A free port whose companion, which members of a cluster talk on, is free as well.
fn cluster_port() -> Result<u16> {
    for _ in 0..100 {
        let port = free_port()?;
        let Some(bus) = port.checked_add(BUS) else { continue };
        if std::net::TcpListener::bind(("127.0.0.1", bus)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::invalid("no free port whose companion is free as well"))
}
