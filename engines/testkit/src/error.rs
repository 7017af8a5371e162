//! What can go wrong between "I want a server" and a server.
//!
//! One line divides the variants: [`Error::Unavailable`] means *this machine cannot have that server* (no network, no
//! toolchain, unsupported platform), which a test may skip over; everything else means the server was had and
//! misbehaved, which is always a failure.

use std::path::{Path, PathBuf};

/// Result of the testkit's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the testkit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server can't be had on this machine: a test may skip, unless `BACKUP_TESTKIT=require`.
    #[error("{server} cannot be had here: {reason}")]
    Unavailable {
        /// The server and version that was asked for.
        server: String,
        /// Why not, and what would help.
        reason: String,
        /// The error underneath, where there was one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The server was started and did not become ready, or ended by itself.
    #[error("{server} {what}; the end of its log:\n{log}")]
    Server {
        /// The server and version.
        server: String,
        /// What happened.
        what: String,
        /// The last lines of the server's log.
        log: String,
    },
    /// The caller asked for something that makes no sense, such as opening a directory of another major version.
    #[error("{what}")]
    InvalidInput {
        /// What is wrong with the request.
        what: String,
    },
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done, as a verb: `create`, `copy`, ….
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A statement or connection failed.
    #[error("postgresql client: {}", sql_message(.0))]
    Sql(#[from] tokio_postgres::Error),
    /// A command was answered with an error.
    #[error("{command}: {said}")]
    Redis {
        /// The command's name.
        command: String,
        /// What the server said.
        said: String,
    },
    /// A statement was answered with an error.
    #[error("{said}, to: {statement}")]
    ClickHouse {
        /// The statement.
        statement: String,
        /// The server's number for the error.
        code: Option<i32>,
        /// What the server said.
        said: String,
    },
}

impl Error {
    /// Whether the server can't be had here, so that a test may be skipped.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// The message with those of all errors underneath, on one line each.
    #[must_use]
    pub fn full(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }

    pub(crate) fn unavailable(server: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unavailable { server: server.into(), reason: reason.into(), source: None }
    }

    pub(crate) fn unavailable_because(
        server: impl Into<String>,
        reason: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unavailable { server: server.into(), reason: reason.into(), source: Some(source.into()) }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::InvalidInput { what: what.into() }
    }
}

/// `tokio_postgres` prints only "db error"; what a reader needs is the server's own message.
fn sql_message(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{}: {} ({})", db.severity(), db.message(), db.code().code()),
        None => {
            let mut text = error.to_string();
            let mut next = std::error::Error::source(error);
            while let Some(cause) = next {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                next = cause.source();
            }
            text
        }
    }
}
