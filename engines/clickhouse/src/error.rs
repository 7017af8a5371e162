//! The one error of this crate: it says which party refused what, so that an operator knows whom to ask.

use std::time::Duration;

use backup_core::ErrorKind;

/// The result of almost everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong between this library and a ClickHouse server or its files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting or option is wrong. The text never contains a password.
    #[error("invalid setting: {0}")]
    Settings(String),
    /// No server answered at the address.
    #[error("no answer from {address}: {reason}")]
    Connect {
        /// The address that was tried.
        address: String,
        /// What happened there.
        reason: String,
    },
    /// The server did not accept who asked.
    #[error("{address} does not accept the user {user}: {message}")]
    Authentication {
        /// The address that was asked.
        address: String,
        /// The name of the user.
        user: String,
        /// What the server said.
        message: String,
    },
    /// The server refused a statement.
    #[error("{what} was refused with code {code}: {message}")]
    Server {
        /// What was asked for; never the statement itself, which may hold secrets.
        what: String,
        /// The server's number of the error (`src/Common/ErrorCodes.cpp`); 0 when it gave none.
        code: u32,
        /// What the server said.
        message: String,
    },
    /// The server answered something that is no answer to what it was asked.
    #[error("the server's answer to {what} cannot be understood: {reason}")]
    Protocol {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// Nothing came from the server for `after` while waiting for `what`.
    #[error("no answer within {after:?} while waiting for {what}")]
    Timeout {
        /// What was being waited for.
        what: String,
        /// The limit that passed.
        after: Duration,
    },
}

/// Numbers of errors of the server, as `src/Common/ErrorCodes.cpp` has them.
pub(crate) mod code {
    /// `UNKNOWN_TABLE`
    pub(crate) const UNKNOWN_TABLE: u32 = 60;
    /// `UNKNOWN_DATABASE`
    pub(crate) const UNKNOWN_DATABASE: u32 = 81;
    /// `TABLE_IS_DROPPED`
    pub(crate) const TABLE_IS_DROPPED: u32 = 218;
    /// `AUTHENTICATION_FAILED`, and what older servers say: `UNKNOWN_USER`, `WRONG_PASSWORD`, `REQUIRED_PASSWORD`
    pub(crate) const AUTHENTICATION: [u32; 4] = [516, 192, 193, 194];
    /// `TIMEOUT_EXCEEDED`, `SOCKET_TIMEOUT`, `NETWORK_ERROR`, `TOO_MANY_SIMULTANEOUS_QUERIES`, `TABLE_IS_READ_ONLY`, `KEEPER_EXCEPTION`
    pub(crate) const PASSING: [u32; 6] = [159, 209, 210, 202, 242, 999];
}

impl Error {
    /// What the caller has to do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Settings(_) => ErrorKind::InvalidInput,
            Self::Connect { .. } | Self::Timeout { .. } => ErrorKind::Unavailable,
            Self::Server { code, .. } if code::PASSING.contains(code) => ErrorKind::Unavailable,
            Self::Server { .. } | Self::Authentication { .. } => ErrorKind::Environment,
            Self::Protocol { .. } => ErrorKind::Damaged,
        }
    }

    /// Whether the server said that a table, or its database, does not exist (any more).
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let gone = [code::UNKNOWN_TABLE, code::UNKNOWN_DATABASE, code::TABLE_IS_DROPPED];
        matches!(self, Self::Server { code, .. } if gone.contains(code))
    }
}

impl From<Error> for backup_core::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string()).with_source(error)
    }
}
