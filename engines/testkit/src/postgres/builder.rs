//! How a test says which PostgreSQL it wants.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::clock::ServerClock;
use super::server::Postgres;
use super::version::PgVersion;
use super::{binaries::PgBinaries, standby, template};
use crate::error::{Error, Result};
use crate::offload::blocking;
use crate::scratch::{scratch_dir, scratch_dir_in};

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Auth {
    /// SCRAM-SHA-256, what current servers do by default.
    #[default]
    Scram,
    /// The older md5 challenge, with an md5 password verifier stored.
    Md5,
    /// No proof at all.
    Trust,
}

impl Auth {
    /// The method's name in `pg_hba.conf`.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Scram => "scram-sha-256",
            Self::Md5 => "md5",
            Self::Trust => "trust",
        }
    }
}

/// A server to be: what [`Postgres::builder`] starts and [`start`](PostgresBuilder::start) makes real.
#[derive(Clone, Debug)]
#[must_use = "a builder starts nothing by itself"]
pub struct PostgresBuilder {
    pub(super) version: PgVersion,
    pub(super) binaries: Option<PathBuf>,
    pub(super) checksums: bool,
    pub(super) settings: Vec<(String, String)>,
    pub(super) initdb: Vec<String>,
    pub(super) hba: Vec<String>,
    pub(super) auth: Auth,
    pub(super) tls: bool,
    pub(super) fsync: bool,
    pub(super) fresh: bool,
    pub(super) data: Option<PathBuf>,
    pub(super) base: Option<PathBuf>,
    pub(super) superuser: String,
    pub(super) password: String,
    pub(super) patience: Duration,
    pub(super) environment: Vec<(&'static str, PathBuf)>,
}

impl PostgresBuilder {
    pub(super) fn new(version: PgVersion) -> Self {
        Self {
            version,
            binaries: None,
            checksums: true,
            settings: Vec::new(),
            initdb: Vec::new(),
            hba: Vec::new(),
            auth: Auth::default(),
            tls: false,
            fsync: false,
            fresh: false,
            data: None,
            base: None,
            superuser: "postgres".to_owned(),
            password: "testkit-password".to_owned(),
            // A restored server may have minutes of WAL to replay before it accepts connections.
            patience: Duration::from_secs(120),
            environment: Vec::new(),
        }
    }

    /// Uses the programs in `dir` (an installation's root or its `bin`) instead of provisioned ones.
    pub fn binaries(mut self, dir: impl Into<PathBuf>) -> Self {
        self.binaries = Some(dir.into());
        self
    }

    /// Page checksums; on unless said otherwise, in every version.
    pub fn data_checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// A line of `postgresql.conf`. The value is quoted here. For a directory that is [opened](Self::open) the setting
    /// goes on the command line, so the directory stays as it is.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// A further argument of `initdb`, such as `--wal-segsize=1`. Clusters are UTF-8 with locale C unless said otherwise.
    pub fn initdb_arg(mut self, arg: impl Into<String>) -> Self {
        self.initdb.push(arg.into());
        self
    }

    /// A line of `pg_hba.conf`, before the lines that admit everyone from this machine by [`auth`](Self::auth).
    pub fn hba(mut self, line: impl Into<String>) -> Self {
        self.hba.push(line.into());
        self
    }

    /// How clients prove who they are; SCRAM unless said otherwise.
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// Offers TLS with a certificate for `localhost` and 127.0.0.1 from a throw-away authority ([`Postgres::tls_ca`]).
    pub fn tls(mut self, on: bool) -> Self {
        self.tls = on;
        self
    }

    /// Whether the server syncs its files; off unless said otherwise, because tests don't cut the power.
    pub fn fsync(mut self, on: bool) -> Self {
        self.fsync = on;
        self
    }

    /// Runs `initdb` for this very server, so that its system identifier differs from every other server's.
    pub fn fresh_identity(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// The data directory to create; must be absent or empty. It is the caller's and stays when the server is dropped.
    /// By default it lies in the server's own temporary directory.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data = Some(dir.into());
        self
    }

    /// Where the server's own temporary directory is made; where `scratch_dir` makes one by default.
    pub fn base_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.base = Some(dir.into());
        self
    }

    /// Name of the superuser; `postgres` by default.
    pub fn superuser(mut self, name: impl Into<String>) -> Self {
        self.superuser = name.into();
        self
    }

    /// Password of the superuser.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = password.into();
        self
    }

    /// How long the server may take until it accepts connections; two minutes by default.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.patience = timeout;
        self
    }

    /// The server sees the time of day that `clock` shows, which has to live as long as the server.
    pub fn clock(mut self, clock: &ServerClock) -> Self {
        self.environment = clock.environment();
        self
    }

    /// Makes the cluster, starts the server and waits until it accepts connections.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when this machine can't have the server; [`Error::Server`] with the end of the server's
    /// log when it does not come up.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started; provisioning that has begun goes on in the background and serves the
    /// next caller.
    pub async fn start(self) -> Result<Postgres> {
        let mut server = blocking(move || {
            let binaries = self.programs()?;
            let home = self.home()?;
            let data = self.data.clone().unwrap_or_else(|| home.path().join("data"));
            if let Ok(mut entries) = std::fs::read_dir(&data)
                && entries.next().is_some()
            {
                return Err(Error::invalid(format!("data directory {} is not empty", data.display())));
            }
            let ca = template::create_cluster(&self, &binaries, &data)?;
            Ok(Postgres::new(self, binaries, home, data, Vec::new(), ca))
        })
        .await?;
        server.start().await?;
        Ok(server)
    }

    /// Starts a server on an existing data directory, for example a restored one, and waits until it accepts connections.
    ///
    /// The directory is the caller's: nothing in it is changed but by the server itself, and it stays. The superuser and
    /// password are those of the cluster; say them if they are not the testkit's own. When the testkit runs as root the
    /// directory must belong to [`unprivileged()`](crate::unprivileged), see
    /// [`Identity::own_tree`](crate::Identity::own_tree).
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when it is no data directory of this version or the server's account can't enter it;
    /// otherwise as [`start`](Self::start).
    pub async fn open(self, data_dir: impl Into<PathBuf>) -> Result<Postgres> {
        let data = data_dir.into();
        let mut server = blocking(move || {
            check_version(&data, self.version)?;
            if let Some(blocked) = crate::unprivileged().blocked_at(&data) {
                return Err(Error::invalid(format!(
                    "servers run as uid {}, which may not enter {}",
                    crate::unprivileged().uid,
                    blocked.display()
                )));
            }
            let data = data.canonicalize().map_err(Error::io("resolve", &data))?;
            let (binaries, home) = (self.programs()?, self.home()?);
            let command_line = self.settings.clone();
            Ok(Postgres::new(self, binaries, home, data, command_line, None))
        })
        .await?;
        server.start().await?;
        Ok(server)
    }

    /// Starts a streaming standby of `primary`, from a copy taken while it runs.
    ///
    /// The primary keeps WAL for it in a physical replication slot that is named after the standby's port. Version,
    /// programs, superuser and password are the primary's; settings and directories are this builder's.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] when the primary has tablespaces (the copy would share them); otherwise as
    /// [`start`](Self::start).
    pub async fn standby_of(self, primary: &Postgres) -> Result<Postgres> {
        standby::start(self, primary).await
    }

    pub(super) fn programs(&self) -> Result<PgBinaries> {
        match &self.binaries {
            Some(dir) => PgBinaries::in_dir(self.version, dir),
            None => PgBinaries::get(self.version),
        }
    }

    pub(super) fn home(&self) -> Result<tempfile::TempDir> {
        match &self.base {
            Some(base) => scratch_dir_in(base),
            None => scratch_dir(),
        }
    }
}

fn check_version(data: &Path, version: PgVersion) -> Result<()> {
    let file = data.join("PG_VERSION");
    let found = std::fs::read_to_string(&file).map_err(|error| {
        Error::invalid(format!("{} is no postgresql data directory: PG_VERSION: {error}", data.display()))
    })?;
    if found.trim() != version.to_string() {
        return Err(Error::invalid(format!("{} is of postgresql {}, not {version}", data.display(), found.trim())));
    }
    Ok(())
}
