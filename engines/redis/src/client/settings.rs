//! What a connection needs to know. Data, not components.

use std::path::PathBuf;
use std::time::Duration;

use super::address::Address;

/// How much a server's certificate is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trust {
    /// A trusted root issued it, for the very host that was asked for.
    #[default]
    Full,
    /// A trusted root issued it, for whomever: many servers have certificates that name no address.
    Issuer,
    /// Not at all: this protects against listeners, not against a server in the middle.
    Nobody,
}

/// How TLS is spoken.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TlsSettings {
    /// A PEM file of the roots that are trusted. None: the store of the operating system (feature `native-certs`).
    pub roots: Option<PathBuf>,
    /// How much the certificate is judged.
    pub trust: Trust,
    /// PEM files by which the client proves itself: certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsSettings {
    /// Sets the file of trusted roots.
    #[must_use]
    pub fn roots(mut self, file: impl Into<PathBuf>) -> Self {
        self.roots = Some(file.into());
        self
    }

    /// Sets how much the certificate is judged.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Sets certificate and key of the client.
    #[must_use]
    pub fn identity(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }
}

/// How a server is talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientSettings {
    /// Where it is, and who we are there.
    pub address: Address,
    /// How TLS is spoken, where the address asks for it.
    pub tls: TlsSettings,
    /// A connection that is not ready after so long is given up. Ten seconds.
    pub connect_timeout: Duration,
    /// A server that says nothing for so long while something is expected is not there any more. One minute: a server that waits
    /// with a snapshot sends a sign of life every ten seconds, and one that works on a large command says nothing.
    pub silence: Duration,
    /// An answer may have so many bytes. 1 GiB: twice the largest value that servers take by default.
    pub max_reply: usize,
}

impl ClientSettings {
    /// Settings for `address`; everything else as said at the fields.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self {
            address,
            tls: TlsSettings::default(),
            connect_timeout: Duration::from_secs(10),
            silence: Duration::from_secs(60),
            max_reply: 1 << 30,
        }
    }

    /// Sets how TLS is spoken.
    #[must_use]
    pub fn tls(mut self, tls: TlsSettings) -> Self {
        self.tls = tls;
        self
    }

    /// Sets how long a connection may take to become ready.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Sets how long a server may say nothing.
    #[must_use]
    pub fn silence(mut self, limit: Duration) -> Self {
        self.silence = limit;
        self
    }

    /// Sets how large an answer may be.
    #[must_use]
    pub fn max_reply(mut self, bytes: usize) -> Self {
        self.max_reply = bytes;
        self
    }
}
