//! How a test says which server it wants.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::binaries::RedisBinaries;
use super::server::Redis;
use super::version::RedisVersion;
use crate::certificate::Certificate;
use crate::error::{Error, Result};
use crate::offload::blocking;
use crate::scratch::{scratch_dir, scratch_dir_in, write_private};
use crate::unprivileged;

/// How a server keeps its data over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisPersistence {
    /// Not at all.
    #[default]
    Off,
    /// By snapshots: when it is stopped, and after this many seconds in which a key has changed.
    Snapshots(u32),
    /// By its append-only log, synced at once.
    AppendOnly,
}

/// A server to be: what [`Redis::builder`] starts and [`start`](RedisBuilder::start) makes real.
#[derive(Clone, Debug)]
#[must_use = "a builder starts nothing by itself"]
pub struct RedisBuilder {
    pub(super) version: RedisVersion,
    program: Option<PathBuf>,
    settings: Vec<(String, String)>,
    users: Vec<String>,
    pub(super) password: Option<String>,
    persistence: RedisPersistence,
    replica_of: Option<(u16, Option<String>)>,
    pub(super) cluster: bool,
    pub(super) tls: bool,
    module: bool,
    data: Option<PathBuf>,
    base: Option<PathBuf>,
    pub(super) patience: Duration,
}

impl RedisBuilder {
    pub(super) fn new(version: RedisVersion) -> Self {
        Self {
            version,
            program: None,
            settings: Vec::new(),
            users: Vec::new(),
            password: None,
            persistence: RedisPersistence::default(),
            replica_of: None,
            cluster: false,
            tls: false,
            module: false,
            data: None,
            base: None,
            // A server answers in milliseconds; one that loads a large file takes longer.
            patience: Duration::from_secs(60),
        }
    }

    /// Uses this program (the file, or the directory that it is in) instead of a provisioned one.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// A line of the configuration file, which wins over those of the testkit. The value is quoted here, so it is one word; what
    /// takes several words is said with [`raw`](Self::raw).
    pub fn setting(self, name: &str, value: &str) -> Self {
        let value = quoted(value);
        self.raw(name, &value)
    }

    /// A line of the configuration file as it is: `raw("client-output-buffer-limit", "replica 1mb 1mb 0")`.
    pub fn raw(mut self, name: &str, words: &str) -> Self {
        self.settings.push((name.to_owned(), words.to_owned()));
        self
    }

    /// A user: its name and rules, as `ACL SETUSER` takes them, for example `backup on >secret ~* +@all`.
    pub fn user(mut self, rules: impl Into<String>) -> Self {
        self.users.push(rules.into());
        self
    }

    /// The password of the default user; none unless said.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// How data is kept over a restart; not at all unless said.
    pub fn persistence(mut self, persistence: RedisPersistence) -> Self {
        self.persistence = persistence;
        self
    }

    /// Makes it a replica of `primary`, of the same default password.
    pub fn replica_of(mut self, primary: &Redis) -> Self {
        self.replica_of = Some((primary.port(), primary.password().map(str::to_owned)));
        self.password = self.password.or_else(|| primary.password().map(str::to_owned));
        self
    }

    /// Makes it a member of a cluster that is to be; see [`RedisCluster`](super::RedisCluster) for a whole one.
    pub fn cluster_mode(mut self) -> Self {
        self.cluster = true;
        self
    }

    /// Offers TLS on a second port, with a certificate for `localhost` and 127.0.0.1 from a throw-away authority
    /// ([`Redis::tls_ca`]). Clients need no certificate. Only builds that [can](RedisBinaries::has_tls).
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Loads the module that some pinned builds [have](RedisBinaries::module).
    pub fn module(mut self) -> Self {
        self.module = true;
        self
    }

    /// The directory for the server's files, which may have some already: then they are loaded. It is the caller's and stays
    /// when the server is dropped. When the testkit runs as root it is given to the servers' account, with all that is in it.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data = Some(dir.into());
        self
    }

    /// Where the server's own temporary directory is made; where `scratch_dir` makes one by default.
    pub fn base_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.base = Some(dir.into());
        self
    }

    /// How long the server may take until it answers; a minute by default.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.patience = timeout;
        self
    }

    /// Starts the server and waits until it answers and has loaded what there was.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when this machine can't have the server, also when its build lacks what was asked for (TLS, the
    /// module); [`Error::Server`] with the end of its log when it does not come up.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started; provisioning that has begun goes on in the background and serves the
    /// next caller.
    pub async fn start(self) -> Result<Redis> {
        let mut server = blocking(move || self.prepare()).await?;
        server.start().await?;
        Ok(server)
    }

    fn prepare(self) -> Result<Redis> {
        let binaries = match &self.program {
            Some(program) => RedisBinaries::installed(self.version, program)?,
            None => RedisBinaries::get(self.version)?,
        };
        if self.tls && !binaries.has_tls() {
            return Err(Error::unavailable(self.version.name(), "the pinned build cannot speak tls"));
        }
        if self.module && binaries.module().is_none() {
            return Err(Error::unavailable(self.version.name(), "the pinned build has no module"));
        }
        let home = self.base.as_deref().map_or_else(scratch_dir, scratch_dir_in)?;
        let data = self.data.clone().unwrap_or_else(|| home.path().join("data"));
        std::fs::create_dir_all(&data).map_err(Error::io("create", &data))?;
        unprivileged().own_tree(&data)?;
        let certificate = self.tls.then(Certificate::new).transpose()?;
        if let Some(made) = &certificate {
            write_private(&home.path().join("server.crt"), &made.certificate)?;
            write_private(&home.path().join("server.key"), &made.key)?;
            write_private(&home.path().join("ca.crt"), &made.authority)?;
        }
        Ok(Redis::new(self, binaries, home, data, certificate.map(|made| made.authority)))
    }

    /// The configuration file, but for the port and the places.
    pub(super) fn configuration(&self, binaries: &RedisBinaries) -> String {
        let mut text = String::new();
        let mut line = |name: &str, words: &str| {
            let _ = writeln!(text, "{name} {words}");
        };
        let (save, append) = match self.persistence {
            RedisPersistence::Off => (quoted(""), "no"),
            RedisPersistence::Snapshots(seconds) => (format!("{seconds} 1"), "no"),
            RedisPersistence::AppendOnly => (quoted(""), "yes"),
        };
        line("save", &save);
        line("appendonly", append);
        line("appendfsync", "always");
        // Newer servers do so by themselves, and none of them need make a test wait for more replicas.
        line("repl-diskless-sync", "yes");
        line("repl-diskless-sync-delay", "0");
        if self.version.since_7() {
            line("enable-debug-command", "local");
            // A primary would wait for replicas of tests that have been stopped.
            line("shutdown-timeout", "0");
        }
        if let Some(password) = &self.password {
            line("requirepass", &quoted(password));
        }
        for user in &self.users {
            line("user", user);
        }
        if let Some((port, password)) = &self.replica_of {
            line("replicaof", &format!("127.0.0.1 {port}"));
            if let Some(password) = password {
                line("masterauth", &quoted(password));
            }
        } else if let Some(password) = self.password.as_ref().filter(|_| !self.cluster) {
            // For the day when it follows another one.
            line("masterauth", &quoted(password));
        }
        if self.cluster {
            line("cluster-enabled", "yes");
            // Long enough for a machine that is busy with other things, short enough for a failover in a test.
            line("cluster-node-timeout", "5000");
        }
        if let Some(module) = binaries.module().filter(|_| self.module) {
            line("loadmodule", &quoted(&module.display().to_string()));
        }
        for (name, words) in &self.settings {
            line(name, words);
        }
        text
    }
}

/// A word of a configuration file (`sdssplitargs` in `src/sds.c`): in double quotes, with quotes and backslashes escaped.
pub(super) fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}
