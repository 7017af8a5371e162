//! One error for everything that crosses a trait of this crate, with a kind that says what the caller must do.

use std::borrow::Cow;
use std::error::Error as StdError;

/// What the caller has to do about an [`Error`]. Coarse on purpose: a caller branches on this, a person reads the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// A service or store did not answer in time or is overloaded: try the same call again later.
    Unavailable,
    /// The request itself is wrong: a name, an option, a target that does not exist. Retrying changes nothing.
    InvalidInput,
    /// The surroundings are wrong: a missing permission, a full disk, a server that is too new. Fix them and retry.
    Environment,
    /// Stored or read data is not what it must be. Never retried silently, never returned as data.
    Damaged,
    /// Somebody else changed the same thing first. Look again and decide again.
    Conflict,
    /// The caller asked to stop.
    Cancelled,
    /// A rule of this library was broken by itself: a bug worth reporting.
    Internal,
}

impl ErrorKind {
    /// The kind's name in snake case, as it stands in JSON output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::InvalidInput => "invalid_input",
            Self::Environment => "environment",
            Self::Damaged => "damaged",
            Self::Conflict => "conflict",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}

impl std::fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An error of the backup library: a [kind](ErrorKind), a lower-case message with the data in it, and the chain of causes.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync + 'static>>,
}

/// The result of almost everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says `message` (lower case, no full stop, data included).
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync + 'static>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Wraps this error in a message that says what was being attempted; the kind stays.
    #[must_use]
    pub fn context(self, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: self.kind, message: message.into(), source: Some(Box::new(self)) }
    }

    /// What the caller has to do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without its causes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The causes, outermost first, as text.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = StdError::source(self);
        while let Some(error) = next {
            causes.push(error.to_string());
            next = error.source();
        }
        causes
    }

    /// An operating-system error met at `what` (a path, an address). Missing permission, full disk and the like are
    /// [`ErrorKind::Environment`].
    #[must_use]
    pub fn io(what: impl std::fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::TimedOut | Io::Interrupted | Io::ConnectionRefused | Io::ConnectionReset | Io::ConnectionAborted => {
                ErrorKind::Unavailable
            }
            Io::InvalidInput => ErrorKind::InvalidInput,
            _ => ErrorKind::Environment,
        };
        Self::new(kind, format!("{what}: {error}")).with_source(error)
    }

    /// [`ErrorKind::InvalidInput`] with `message`.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// [`ErrorKind::Environment`] with `message`.
    pub fn environment(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Environment, message)
    }

    /// [`ErrorKind::Damaged`] with `message`.
    pub fn damaged(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }

    /// [`ErrorKind::Conflict`] with `message`.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// [`ErrorKind::Unavailable`] with `message`.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::Internal`] with `message`.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// [`ErrorKind::Cancelled`].
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled by the caller")
    }
}
