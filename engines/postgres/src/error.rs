//! The one error of this crate: it says which party refused what, so that an operator knows whom to ask.

use std::fmt;
use std::io;
use std::time::Duration;

use backup_core::ErrorKind;

/// The result of almost everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong between this library and a PostgreSQL server or its files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A connection string, environment variable or option is wrong. The text never contains a password.
    #[error("invalid connection setting: {0}")]
    Settings(String),
    /// No server answered at any of the addresses; `addresses` names each with its own failure.
    #[error("cannot connect to {addresses}")]
    Connect {
        /// Every address that was tried, each with what happened there.
        addresses: String,
        /// The last failure.
        #[source]
        source: io::Error,
    },
    /// TLS could not be set up: the server has none, its certificate was refused, or a local key file is unusable.
    #[error("tls with {address}: {reason}")]
    Tls {
        /// The address that was being connected to.
        address: String,
        /// What was refused, by whom.
        reason: String,
    },
    /// The server did not accept who we say we are, or we did not accept the server's proof.
    #[error("authentication failed for user {user}: {reason}")]
    Authentication {
        /// The role name.
        user: String,
        /// The server's message or the local reason.
        reason: String,
    },
    /// The role exists but may not open a replication session here: it lacks the `REPLICATION` attribute, or
    /// `pg_hba.conf` has no line for it (a replication session needs a line with the database `replication`).
    #[error("user {user} may not open this session: {server}")]
    NotPermitted {
        /// The role name.
        user: String,
        /// What the server said.
        server: Box<ServerError>,
    },
    /// The peer broke the protocol or speaks another one.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// The server answered with an error.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// Nothing came from the server for `after` while waiting for `what`.
    #[error("no answer within {after:?} while waiting for {what}")]
    Timeout {
        /// What was being waited for.
        what: &'static str,
        /// The limit that passed.
        after: Duration,
    },
    /// The connection is gone, or an earlier call on it was dropped half-way.
    #[error("connection closed: {0}")]
    Closed(String),
    /// The server is older or newer than what this crate has been proven with.
    #[error("postgresql {found} is not supported, only versions {oldest} to {newest}")]
    Version {
        /// The server's version as a number, for example 120014.
        found: u32,
        /// The oldest supported major version.
        oldest: u32,
        /// The newest supported major version.
        newest: u32,
    },
    /// A file or stream written by a PostgreSQL server is not what the format says.
    #[error("{what}: {reason}")]
    Malformed {
        /// Which format: `backup_label`, `pg_control`, `tar`, …
        what: &'static str,
        /// What is wrong, with the data.
        reason: String,
    },
}

impl Error {
    /// What the caller has to do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Settings(_) => ErrorKind::InvalidInput,
            Self::Connect { .. } | Self::Timeout { .. } | Self::Closed(_) => ErrorKind::Unavailable,
            Self::Tls { .. } | Self::Authentication { .. } | Self::NotPermitted { .. } | Self::Version { .. } => {
                ErrorKind::Environment
            }
            Self::Protocol(_) | Self::Malformed { .. } => ErrorKind::Damaged,
            Self::Server(error) => error.kind(),
        }
    }

    /// The SQLSTATE, when a server sent one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) | Self::NotPermitted { server: error, .. } => Some(&error.sqlstate),
            _ => None,
        }
    }

    pub(crate) fn malformed(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Malformed { what, reason: reason.into() }
    }

    pub(crate) fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol(reason.into())
    }

    pub(crate) fn settings(reason: impl Into<String>) -> Self {
        Self::Settings(reason.into())
    }
}

impl From<Error> for backup_core::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string()).with_source(error)
    }
}

/// An `ErrorResponse` or `NoticeResponse` of the server.
///
/// Fields as in the manual, "Error and Notice Message Fields"; those that nobody acts on are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, `NOTICE`, …; never translated.
    pub severity: String,
    /// The five-character code, for example `58P01`.
    pub sqlstate: String,
    /// The message, in the server's language.
    pub message: String,
    /// The secondary message, if any.
    pub detail: Option<String>,
    /// The hint, if any.
    pub hint: Option<String>,
    /// The routine of the server's source that reported it; not translated, unlike the message.
    pub routine: Option<String>,
}

impl ServerError {
    /// What the caller has to do about it, from the SQLSTATE class (manual, appendix "PostgreSQL Error Codes").
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.sqlstate.as_str() {
            // out of connections, starting up or shutting down, admin shutdown, crash of another backend
            "53300" | "57P01" | "57P02" | "57P03" | "55006" => ErrorKind::Unavailable,
            "57014" => ErrorKind::Cancelled,
            "XX001" | "XX002" => ErrorKind::Damaged,
            state => match state.get(..2) {
                Some("08" | "40" | "53") => ErrorKind::Unavailable,
                Some("22" | "42") if state != "42501" => ErrorKind::InvalidInput,
                _ => ErrorKind::Environment,
            },
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity.to_ascii_lowercase(), self.sqlstate, self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}
