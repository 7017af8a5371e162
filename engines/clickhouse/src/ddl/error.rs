//! What is wrong with a definition.

use backup_core::ErrorKind;

/// The result of whatever reads a definition.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a definition cannot be read, or changed as was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not the statement it has to be.
    #[error("statement at byte {offset}: {reason}")]
    Syntax {
        /// Where the first doubtful byte is.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The text is longer than any definition.
    #[error("a statement of {length} bytes, more than {limit}")]
    TooLong {
        /// How long it is.
        length: usize,
        /// What is taken at most.
        limit: usize,
    },
    /// The statement is sound, but what was asked for does not fit it.
    #[error("not possible with this statement: {0}")]
    Unsupported(&'static str),
}

impl Error {
    /// What the caller has to do.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Syntax { .. } | Self::TooLong { .. } => ErrorKind::Damaged,
            Self::Unsupported(_) => ErrorKind::InvalidInput,
        }
    }

    pub(super) const fn syntax(offset: usize, reason: &'static str) -> Self {
        Self::Syntax { offset, reason }
    }
}

impl From<Error> for backup_core::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string()).with_source(error)
    }
}
