//! The one error of this crate: it says which party refused what, so that an operator knows whom to ask.

use std::io;
use std::time::Duration;

use backup_core::ErrorKind;

/// The result of almost everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong between this library and a Redis or Valkey server or its files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting or option is wrong. The text never contains a password.
    #[error("invalid setting: {0}")]
    Settings(String),
    /// No server answered at the address.
    #[error("cannot connect to {address}")]
    Connect {
        /// The address that was tried.
        address: String,
        /// What happened there.
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
    /// The server did not accept who we say we are.
    #[error("authentication failed for user {user}: {reason}")]
    Authentication {
        /// The name of the user.
        user: String,
        /// The server's message.
        reason: String,
    },
    /// The peer broke the protocol or speaks another one.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// The server answered a command with an error.
    #[error("{command} was refused: {message}")]
    Server {
        /// The command, without its arguments: they may hold secrets.
        command: String,
        /// What the server said; its first word is the code, for example `NOPERM`.
        message: String,
    },
    /// Nothing came from the server for `after` while waiting for `what`.
    #[error("no answer within {after:?} while waiting for {what}")]
    Timeout {
        /// What was being waited for.
        what: &'static str,
        /// The limit that passed.
        after: Duration,
    },
    /// A restore into a running server is over, and within `after` the server could not be made a primary again.
    #[error(
        "after {after:?} the server still says {said:?}, and follows a restore that is over: it has its old data, or the new \
         when it has loaded them, and takes no writes until it is restored into again or told REPLICAOF NO ONE"
    )]
    LeftBehind {
        /// How long it was tried.
        after: Duration,
        /// What the server answered at last.
        said: String,
    },
    /// The connection is gone, or an earlier call on it was dropped half-way.
    #[error("connection closed: {0}")]
    Closed(String),
    /// A snapshot file is not what the format says, or its checksum does not fit.
    #[error("snapshot file at byte {offset}: {reason}")]
    Corrupt {
        /// Where in the file the first doubtful byte is.
        offset: u64,
        /// What is wrong, with the data.
        reason: String,
    },
    /// The data is sound, but what was asked for cannot be done with it.
    #[error("not possible with this snapshot: {0}")]
    Unsupported(String),
}

impl Error {
    /// What the caller has to do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Settings(_) | Self::Unsupported(_) => ErrorKind::InvalidInput,
            Self::Connect { .. } | Self::Timeout { .. } | Self::Closed(_) | Self::LeftBehind { .. } => {
                ErrorKind::Unavailable
            }
            Self::Tls { .. } | Self::Authentication { .. } => ErrorKind::Environment,
            Self::Protocol(_) | Self::Corrupt { .. } => ErrorKind::Damaged,
            Self::Server { message, .. } => server_kind(message),
        }
    }
}

/// What the first word of an error reply asks of the caller.
fn server_kind(message: &str) -> ErrorKind {
    match message.split(' ').next() {
        Some("LOADING" | "BUSY" | "TRYAGAIN" | "MASTERDOWN" | "NOMASTERLINK" | "CLUSTERDOWN") => ErrorKind::Unavailable,
        _ => ErrorKind::Environment,
    }
}

impl From<Error> for backup_core::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string()).with_source(error)
    }
}
