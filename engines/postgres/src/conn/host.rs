//! Where a server may be found: a list of addresses that are tried in order.

use std::fmt;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// One address.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Host {
    /// A name or IP address, and the port.
    Tcp {
        /// The name that certificates and password files are checked against.
        name: String,
        /// The address to connect to instead of resolving the name (`hostaddr`).
        address: Option<String>,
        /// The port.
        port: u16,
    },
    /// The directory of a Unix socket, and the port that is part of the socket's file name.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// The port.
        port: u16,
    },
}

impl Host {
    pub(super) fn new(name: &str, address: &str, port: u16) -> Result<Self> {
        if address.is_empty() && name.starts_with('/') {
            return Ok(Self::Unix { directory: name.into(), port });
        }
        if address.is_empty() && name.starts_with('@') {
            return Err(Error::settings(format!("host {name}: sockets in the abstract namespace are not supported")));
        }
        let name = if name.is_empty() { address } else { name };
        Ok(Self::Tcp {
            name: if name.is_empty() { "localhost" } else { name }.to_owned(),
            address: (!address.is_empty()).then(|| address.to_owned()),
            port,
        })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp { port, .. } | Self::Unix { port, .. } => *port,
        }
    }

    /// The name by which a password file knows this host.
    pub(super) fn passfile_name(&self) -> String {
        match self {
            Self::Tcp { name, .. } => name.clone(),
            Self::Unix { directory, .. } if default_directories().contains(directory) => "localhost".to_owned(),
            Self::Unix { directory, .. } => directory.display().to_string(),
        }
    }

    /// The file of a Unix socket.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        match self {
            Self::Unix { directory, port } => Some(directory.join(format!(".s.PGSQL.{port}"))),
            Self::Tcp { .. } => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { name, port, .. } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp { name, port, .. } => write!(f, "{name}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}

/// Where servers put their socket by default: distributions' packages, and the build without their patch.
pub(super) fn default_directories() -> [PathBuf; 2] {
    ["/var/run/postgresql".into(), "/tmp".into()]
}
