//! The one error of this crate.
//!
//! A caller branches on [`Error::kind`] and on the two variants that carry a decision ([`Error::NotFound`],
//! [`Error::Truncated`]); everything else is a message for a person with its chain of causes. Types of `object_store`
//! appear only as opaque sources, so that its major versions are not ours.

use std::borrow::Cow;
use std::error::Error as StdError;

pub use backup_core::ErrorKind;

/// A boxed cause.
pub type Source = Box<dyn StdError + Send + Sync + 'static>;

/// The result of almost everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong in the repository or in the store beneath it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store has no object of this name. [`ErrorKind::Damaged`], because whoever asks for an object without expecting
    /// its absence was told by the repository that it is there.
    #[error("object {name} does not exist")]
    NotFound {
        /// The full name in the store, prefix included.
        name: String,
        /// What the store said.
        source: Option<Source>,
    },

    /// The object is shorter than the range that was asked for. [`ErrorKind::Damaged`].
    #[error("object {name} has {len} bytes, but bytes {start}..{end} were asked for")]
    Truncated {
        /// The full name in the store, prefix included.
        name: String,
        /// First byte asked for.
        start: u64,
        /// The byte after the last one asked for.
        end: u64,
        /// How long the object is.
        len: u64,
    },

    /// An error of the vocabulary crate, passed through unchanged.
    #[error(transparent)]
    Core(#[from] backup_core::Error),

    /// Everything else.
    #[error("{message}")]
    Other {
        /// What the caller has to do.
        kind: ErrorKind,
        /// Lower case, no full stop, the data included.
        message: Cow<'static, str>,
        /// What caused it.
        source: Option<Source>,
    },
}

impl Error {
    /// An error of `kind` that says `message` (lower case, no full stop, data included).
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Other { kind, message: message.into(), source: None }
    }

    /// The same error with what caused it. An [`Error::Core`] or [`Error::Truncated`] becomes the message of a wrapper.
    #[must_use]
    pub fn with_source(self, source: impl Into<Source>) -> Self {
        match self {
            Self::NotFound { name, .. } => Self::NotFound { name, source: Some(source.into()) },
            Self::Other { kind, message, .. } => Self::Other { kind, message, source: Some(source.into()) },
            other => Self::Other { kind: other.kind(), message: other.to_string().into(), source: Some(source.into()) },
        }
    }

    /// Wraps this error in a message that says what was being attempted; the kind stays.
    #[must_use]
    pub fn context(self, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Other { kind: self.kind(), message: message.into(), source: Some(Box::new(self)) }
    }

    /// What the caller has to do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::Truncated { .. } => ErrorKind::Damaged,
            Self::Core(error) => error.kind(),
            Self::Other { kind, .. } => *kind,
        }
    }

    /// Whether this says that an object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// An operating-system error met at `what` (a path, an address).
    #[must_use]
    pub fn io(what: impl std::fmt::Display, error: std::io::Error) -> Self {
        let kind = if io_is_environment(&error) { ErrorKind::Environment } else { ErrorKind::Unavailable };
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

impl From<Error> for backup_core::Error {
    /// Keeps kind, message and the chain of causes.
    fn from(error: Error) -> Self {
        match error {
            Error::Core(error) => error,
            Error::Other { kind, message, source } => match source {
                Some(source) => Self::new(kind, message).with_source(source),
                None => Self::new(kind, message),
            },
            other => Self::new(other.kind(), other.to_string()).with_source(other),
        }
    }
}

/// Whether waiting cannot cure an operating-system error: somebody has to free space or grant a permission.
fn io_is_environment(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Io;
    matches!(
        error.kind(),
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge | Io::ReadOnlyFilesystem | Io::PermissionDenied
    )
}

/// The first operating-system error in a chain of causes.
fn find_io<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a std::io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

/// What an error of the object store client means for the caller.
///
/// `object_store` hides the HTTP status; a refusal that it does not type arrives as `Generic` and counts as unavailable,
/// which costs a bounded number of retries and no correctness.
pub(crate) fn store_error_kind(error: &object_store::Error) -> ErrorKind {
    use object_store::Error as Client;
    match error {
        Client::NotFound { .. } => ErrorKind::Damaged,
        Client::AlreadyExists { .. } | Client::Precondition { .. } | Client::NotModified { .. } => ErrorKind::Conflict,
        Client::PermissionDenied { .. } | Client::Unauthenticated { .. } => ErrorKind::Environment,
        Client::NotSupported { .. } | Client::NotImplemented { .. } => ErrorKind::Environment,
        Client::InvalidPath { .. } | Client::UnknownConfigurationKey { .. } => ErrorKind::InvalidInput,
        Client::JoinError { source } if source.is_panic() => ErrorKind::Internal,
        Client::Generic { store: "HTTP", .. } if cannot_list(error) => ErrorKind::Environment,
        other => match find_io(other) {
            Some(io) if io_is_environment(io) => ErrorKind::Environment,
            _ => ErrorKind::Unavailable,
        },
    }
}

/// Whether a web server does not know how to list a folder (PROPFIND of WebDAV, RFC 4918), told by its refusal or by an answer that is
/// something else. The client has a type for neither.
fn cannot_list(error: &object_store::Error) -> bool {
    let said = error.to_string();
    let refused =
        ["405 Method Not Allowed", "501 Not Implemented", "501 Unsupported"].iter().any(|status| said.contains(status));
    said.contains("decoding PROPFIND") || (refused && said.contains("PROPFIND"))
}

/// An error of the object store client met while doing `action` on the object with the full name `name`.
pub(crate) fn store_error(action: &str, name: &str, error: object_store::Error) -> Error {
    use object_store::Error as Client;
    use std::io::ErrorKind as Io;
    let kind = store_error_kind(&error);
    let said = match &error {
        Client::NotFound { .. } if !error.to_string().contains("NoSuchBucket") => {
            return Error::NotFound { name: name.to_owned(), source: Some(Box::new(error)) };
        }
        Client::NotFound { .. } => {
            let message = format!("{action} {name}: the bucket does not exist");
            return Error::environment(message).with_source(error);
        }
        Client::PermissionDenied { .. } => "the store's credentials do not allow it".to_owned(),
        Client::Unauthenticated { .. } => "the store does not accept the credentials".to_owned(),
        Client::NotSupported { .. } | Client::NotImplemented { .. } => "the store cannot do this".to_owned(),
        Client::Generic { store: "HTTP", .. } if cannot_list(&error) => {
            "the web server does not list folders: it must answer PROPFIND (WebDAV)".to_owned()
        }
        other => match find_io(other).map(|io| (io.kind(), io)) {
            Some((Io::StorageFull, _)) => "no space is left on the disk".to_owned(),
            Some((Io::QuotaExceeded, _)) => "the disk quota is exhausted".to_owned(),
            Some((Io::FileTooLarge, _)) => "the file system does not take files of this size".to_owned(),
            Some((Io::ReadOnlyFilesystem, _)) => "the file system is read-only".to_owned(),
            Some((Io::PermissionDenied, _)) => "the file system does not permit it".to_owned(),
            Some((_, io)) => format!("the store failed: {io}"),
            None => "the store failed".to_owned(),
        },
    };
    Error::new(kind, format!("{action} {name}: {said}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(kind: std::io::ErrorKind) -> object_store::Error {
        object_store::Error::Generic { store: "test", source: Box::new(std::io::Error::new(kind, "from the system")) }
    }

    #[test]
    fn a_full_disk_says_so_and_asks_for_a_better_environment() {
        let error = store_error("create", "packs/a", generic(std::io::ErrorKind::StorageFull));
        assert_eq!(error.kind(), ErrorKind::Environment);
        assert_eq!(error.to_string(), "create packs/a: no space is left on the disk");
        let error = store_error("create", "packs/a", generic(std::io::ErrorKind::QuotaExceeded));
        assert_eq!(error.kind(), ErrorKind::Environment);
    }

    #[test]
    fn an_untyped_failure_is_worth_another_try() {
        let error = store_error("get", "packs/a", generic(std::io::ErrorKind::ConnectionReset));
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn not_found_is_typed_and_names_the_object() {
        let missing = object_store::Error::NotFound { path: "x".into(), source: "404".into() };
        match store_error("get", "catalog/7", missing) {
            Error::NotFound { name, .. } => assert_eq!(name, "catalog/7"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn crossing_into_the_core_error_keeps_kind_and_causes() {
        let error = store_error("create", "a", generic(std::io::ErrorKind::ReadOnlyFilesystem));
        let core = backup_core::Error::from(error);
        assert_eq!(core.kind(), ErrorKind::Environment);
        assert_eq!(core.message(), "create a: the file system is read-only");
        assert!(core.causes().iter().any(|cause| cause.contains("from the system")), "{:?}", core.causes());
    }
}
