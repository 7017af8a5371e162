//! What makes a part, or a file of one, not what it has to be.

use backup_core::ErrorKind;

/// The result of whatever reads a part.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something of a part cannot be read. What is found when a whole part is verified is a
/// [`Finding`](super::Finding), not an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name is not one that a server gives to a part.
    #[error("{name:?} is no name of a part: {reason}")]
    Name {
        /// The name, cut if it was long.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name of a file that could leave its part, or that no file system has.
    #[error("{name:?} cannot be the name of a file in a part: {reason}")]
    FileName {
        /// The name, cut if it was long.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file of a part that has a known structure does not have it.
    #[error("{file} at byte {offset}: {reason}")]
    Corrupt {
        /// Which file, by what it is called in a part.
        file: &'static str,
        /// Where in it the first doubtful byte is; behind decompression, if the file is compressed.
        offset: u64,
        /// What is wrong, with the data.
        reason: String,
    },
    /// The file is sound as far as can be seen, but of a kind that is not read here.
    #[error("{file}: {reason}")]
    Unsupported {
        /// Which file, by what it is called in a part.
        file: &'static str,
        /// What is not read.
        reason: String,
    },
    /// More than this library is willing to hold in memory.
    #[error("{file} has more than {limit} bytes")]
    TooLarge {
        /// Which file, by what it is called in a part.
        file: &'static str,
        /// The limit that was passed.
        limit: u64,
    },
}

impl Error {
    /// What the caller has to do.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Name { .. } | Self::Unsupported { .. } => ErrorKind::InvalidInput,
            Self::FileName { .. } | Self::Corrupt { .. } | Self::TooLarge { .. } => ErrorKind::Damaged,
        }
    }

    pub(crate) fn name(name: &str, reason: &'static str) -> Self {
        Self::Name { name: shortened(name), reason }
    }

    pub(crate) fn file_name(name: &str, reason: &'static str) -> Self {
        Self::FileName { name: shortened(name), reason }
    }

    pub(crate) fn corrupt(file: &'static str, offset: usize, reason: impl Into<String>) -> Self {
        Self::Corrupt { file, offset: offset as u64, reason: reason.into() }
    }
}

impl From<Error> for backup_core::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error.to_string()).with_source(error)
    }
}

/// A name as far as a message should show it.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}
