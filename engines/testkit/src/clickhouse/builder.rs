//! How a test says which server it wants.

use std::path::PathBuf;
use std::time::Duration;

use super::binaries::ClickHouseBinaries;
use super::config::Wanted;
use super::server::ClickHouse;
use super::version::ClickHouseVersion;
use crate::error::{Error, Result};
use crate::offload::blocking;
use crate::scratch::{scratch_dir, scratch_dir_in};
use crate::unprivileged;
use crate::zookeeper::ZooKeeper;

/// A server to be: what [`ClickHouse::builder`] starts and [`start`](ClickHouseBuilder::start) makes real.
#[derive(Clone, Debug)]
#[must_use = "a builder starts nothing by itself"]
pub struct ClickHouseBuilder {
    pub(super) version: ClickHouseVersion,
    pub(super) wanted: Wanted,
    program: Option<PathBuf>,
    data: Option<PathBuf>,
    base: Option<PathBuf>,
    pub(super) patience: Duration,
}

impl ClickHouseBuilder {
    pub(super) fn new(version: ClickHouseVersion) -> Self {
        let users = vec![(ClickHouse::USER.to_owned(), ClickHouse::PASSWORD.to_owned())];
        Self {
            version,
            wanted: Wanted { users, ..Wanted::default() },
            program: None,
            data: None,
            base: None,
            // A server answers in a second; one that loads many tables, or is read from a cold disk, takes longer.
            patience: Duration::from_secs(120),
        }
    }

    /// Uses this installation instead of a provisioned one; see [`ClickHouseBinaries::installed`].
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// A setting of the profile that all users have, for example `max_threads`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.wanted.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// An element of the configuration file: `config("merge_tree/min_bytes_for_wide_part", "0")`.
    pub fn config(mut self, path: &str, value: &str) -> Self {
        self.wanted.elements.push((path.to_owned(), value.to_owned()));
        self
    }

    /// Text of the configuration file as it is, below its root element.
    pub fn raw_config(mut self, xml: impl Into<String>) -> Self {
        self.wanted.raw.push(xml.into());
        self
    }

    /// Lets it agree with other servers through `zookeeper`, for `ReplicatedMergeTree` and (26) `KeeperMap` tables. Of the
    /// engine as a [library](ClickHouseBinaries::is_library) replicated tables stay read-only: nothing listens for replicas.
    pub fn zookeeper(self, zookeeper: &ZooKeeper) -> Self {
        self.config("zookeeper/node/host", "127.0.0.1")
            .config("zookeeper/node/port", &zookeeper.port().to_string())
            // A server that was killed is missed after this, not after half a minute.
            .config("zookeeper/session_timeout_ms", "5000")
            .config("keeper_map_path_prefix", "/keeper_map")
    }

    /// A value that statements have for `{name}`, for example of `shard` and `replica`.
    pub fn macro_value(self, name: &str, value: &str) -> Self {
        self.config(&format!("macros/{name}"), value)
    }

    /// A user with a password, beside `default` and [`ClickHouse::USER`]. The name is one of an element of XML.
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.wanted.users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// A second disk, in [a directory](ClickHouse::disk_dir) of its own. Tables with `storage_policy = 'every'` use
    /// `default` and all of these, in this order. ClickHouse 26 only.
    pub fn disk(mut self, name: &str) -> Self {
        self.wanted.disks.push(name.to_owned());
        self
    }

    /// The directory for the server's data, which may have some already. It is the caller's and stays when the server is
    /// dropped. When the testkit runs as root it is given to the servers' account, with all that is in it.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data = Some(dir.into());
        self
    }

    /// Where the server's own temporary directory is made; where `scratch_dir` makes one by default.
    pub fn base_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.base = Some(dir.into());
        self
    }

    /// How long the server may take until it answers; two minutes by default.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.patience = timeout;
        self
    }

    /// Starts the server and waits until it answers and has loaded what there was.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when this machine can't have the server; [`Error::Server`] with the end of its log when it
    /// does not come up; [`Error::InvalidInput`] for a disk of a version that has one only, or when it is of another version.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started; provisioning that has begun goes on in the background and serves the
    /// next caller.
    pub async fn start(self) -> Result<ClickHouse> {
        let mut server = blocking(move || self.prepare()).await?;
        server.start().await?;
        Ok(server)
    }

    fn prepare(self) -> Result<ClickHouse> {
        if !self.wanted.disks.is_empty() && self.version == ClickHouseVersion::V18_16 {
            return Err(Error::invalid("clickhouse 18.16 has one disk only"));
        }
        let binaries = match &self.program {
            Some(program) => ClickHouseBinaries::installed(self.version, program)?,
            None => ClickHouseBinaries::get(self.version)?,
        };
        let home = self.base.as_deref().map_or_else(scratch_dir, scratch_dir_in)?;
        let data = self.data.clone().unwrap_or_else(|| home.path().join("data"));
        let disks = self.wanted.disks.iter().map(|disk| home.path().join("disks").join(disk));
        for dir in disks.chain([data.clone(), home.path().join("backups")]) {
            std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        }
        unprivileged().own_tree(home.path())?;
        unprivileged().own_tree(&data)?;
        Ok(ClickHouse::new(self, binaries, home, data))
    }
}
