//! What an engine is told about its deployment.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use backup_core::Error;

use crate::client::{Address, ClientSettings, TlsSettings};
use crate::node::Prefer;

/// How the data are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Method {
    /// As a replica, over the connection. From anywhere, nothing is written at the server.
    Replication,
    /// The server saves its file (`BGSAVE`), which is read from its data directory. For servers that no one may replicate from.
    File,
    /// Every key is asked for (`SCAN` and `DUMP`). For servers that allow neither of the others, as providers offer them. It is not of
    /// one moment: keys are read one after the other, so it is only taken when it is asked for.
    Scan,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Replication => "replication",
            Self::File => "file",
            Self::Scan => "scan",
        })
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "replication" => Ok(Self::Replication),
            "file" => Ok(Self::File),
            "scan" => Ok(Self::Scan),
            _ => Err(Error::invalid(format!("method {text:?} is none of replication, file and scan"))),
        }
    }
}

/// What the owner of the deployment wants of its data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Persistence {
    /// They are kept.
    #[default]
    Rdb,
    /// They are not: the deployment is a cache. Then it is never backed up, and nothing is made from its backups.
    Off,
}

/// One deployment of Redis or Valkey. Data, not components.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RedisSettings {
    /// Where it is: `redis://user:password@host:port/`, `rediss://…`, `unix://…`; several hosts are nodes of one deployment.
    pub url: Option<String>,
    /// By what the deployment is known, whatever its address. None: by its address without user and password.
    pub identity: Option<String>,
    /// How TLS is spoken.
    pub tls: TlsSettings,
    /// Which node is asked.
    pub prefer: Prefer,
    /// How the data are read. None: as a replica, and where nobody may, from the file if the data directory is known.
    pub method: Option<Method>,
    /// By [`Method::Scan`], the memory in bytes by which keys are told apart: servers may name a key twice. 256 MiB, which is enough for
    /// four million keys; where there are more, the names of all keys are gone through as often as needed.
    pub scan_memory: usize,
    /// The server's data directory on this machine.
    pub data_dir: Option<PathBuf>,
    /// What the owner wants of the data.
    pub persistence: Persistence,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: None,
            identity: None,
            tls: TlsSettings::default(),
            prefer: Prefer::default(),
            method: None,
            scan_memory: 256 << 20,
            data_dir: None,
            persistence: Persistence::default(),
        }
    }
}

impl fmt::Debug for RedisSettings {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("url", &self.url.as_ref().map(|_| format_args!("..")))
            .field("identity", &self.identity)
            .field("tls", &self.tls)
            .field("prefer", &self.prefer)
            .field("method", &self.method)
            .field("scan_memory", &self.scan_memory)
            .field("data_dir", &self.data_dir)
            .field("persistence", &self.persistence)
            .finish()
    }
}

impl RedisSettings {
    /// Sets where it is.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Sets by what it is known.
    #[must_use]
    pub fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// Sets how TLS is spoken.
    #[must_use]
    pub fn tls(mut self, tls: TlsSettings) -> Self {
        self.tls = tls;
        self
    }

    /// Sets which node is asked.
    #[must_use]
    pub fn prefer(mut self, prefer: Prefer) -> Self {
        self.prefer = prefer;
        self
    }

    /// Sets how the data are read.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// Sets the memory by which a scan tells keys apart.
    #[must_use]
    pub fn scan_memory(mut self, bytes: usize) -> Self {
        self.scan_memory = bytes;
        self
    }

    /// Sets the data directory.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Sets what the owner wants of the data.
    #[must_use]
    pub fn persistence(mut self, persistence: Persistence) -> Self {
        self.persistence = persistence;
        self
    }

    /// How the deployment is talked to.
    ///
    /// # Errors
    /// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when there is no URL, or it is none.
    pub fn client(&self) -> Result<ClientSettings, Error> {
        let url = self.url.as_deref().ok_or_else(|| Error::invalid("no url says where the redis server is"))?;
        Ok(ClientSettings::new(url.parse()?).tls(self.tls.clone()))
    }

    /// By what the deployment is known.
    pub(crate) fn source(&self, address: &Address) -> String {
        self.identity.clone().unwrap_or_else(|| address.to_string())
    }
}
