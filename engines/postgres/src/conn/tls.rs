//! What is asked of TLS: the `ssl…` parameters of libpq.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// `sslmode`: how much protection the connection needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only if the server refuses without.
    Allow,
    /// TLS if the server has it; its certificate is not judged.
    #[default]
    Prefer,
    /// TLS or nothing; the certificate is judged only when root certificates are given (libpq's rule).
    Require,
    /// TLS, with a certificate that a trusted root issued.
    VerifyCa,
    /// TLS, with such a certificate for the very host that was asked for.
    VerifyFull,
}

/// `sslrootcert`: whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootCertificates {
    /// A PEM file.
    File(PathBuf),
    /// The store of the operating system (feature `native-certs`); forces `verify-full`.
    System,
}

/// `channel_binding`: whether the authentication must be tied to the TLS channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When both sides can.
    #[default]
    Prefer,
    /// Always, and only authentication methods that can: a server in the middle gets nothing.
    Require,
}

/// All settings of TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TlsSettings {
    /// `sslmode`.
    pub mode: SslMode,
    /// `sslrootcert`.
    pub roots: Option<RootCertificates>,
    /// `sslcert` with `sslkey`: PEM files by which the client proves itself. The key must be readable by its owner only.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// `channel_binding`.
    pub channel_binding: ChannelBinding,
    /// `sslnegotiation=direct` (servers from 17): TLS from the first byte, without asking.
    pub direct: bool,
    /// `ssl_min_protocol_version=TLSv1.3`. TLS 1.2 is always the minimum.
    pub only_tls13: bool,
}

impl SslMode {
    pub(super) fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return Err(Error::settings(format!("sslmode {text:?} is unknown"))),
        })
    }
}

impl ChannelBinding {
    pub(super) fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            _ => return Err(Error::settings(format!("channel_binding {text:?} is unknown"))),
        })
    }
}
