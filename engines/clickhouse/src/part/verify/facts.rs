//! What is known of a part that was verified.

use std::fmt;

use super::Column;
use crate::part::{Error, Hash128};

/// What is known of a part that was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartFacts {
    /// `hash_of_all_files` of `system.parts`, computed from the list; `None` without a list that can be read. Shown, it is
    /// what servers show.
    pub hash_of_all_files: Option<Hash128>,
    /// How many rows the part says it has; `None` if it does not, as parts of the old syntax.
    pub rows: Option<u64>,
    /// How many bytes all files have together.
    pub bytes: u64,
    /// How many bytes the list says that its files have together: `bytes_on_disk` of newer servers.
    pub listed_bytes: u64,
    /// How many files there were on the disk.
    pub files: u64,
    /// How columns are stored; `None` if it cannot be said.
    pub format: Option<PartFormat>,
    /// Whether all files are in one, `data.packed`, for small parts of newer servers.
    pub packed: bool,
    /// The columns, in the order of `columns.txt`.
    pub columns: Vec<Column>,
    /// The projections that are in the part.
    pub projections: Vec<String>,
    /// Files for whose bytes no server vouches: those that no list has, and inverted indexes of 23.x and 24.x. Only a
    /// hash of one's own finds damage in them.
    pub unhashed: Vec<String>,
    /// Everything that is not as it should be, each with its file.
    pub findings: Vec<Finding>,
}

impl PartFacts {
    /// Whether everything is as the list says. A part that is not sound must not be attached, and not be called a backup.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// How a part stores its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PartFormat {
    /// Each column has files of its own.
    Wide,
    /// All columns are in `data.bin`.
    Compact,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the part.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
}

impl Finding {
    pub(super) fn new(path: &str, problem: Problem) -> Self {
        Self { path: path.to_owned(), problem }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.path, self.problem)
    }
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It has to be there and is not.
    #[error("it is missing")]
    Missing,
    /// It is there, and neither listed nor one of those that never are.
    #[error("it is not listed")]
    Unlisted,
    /// It came a second time.
    #[error("it is there twice")]
    Twice,
    /// Fewer or more bytes came than it was said to have.
    #[error("{found} of {announced} bytes came")]
    CutOff {
        /// How many bytes it was said to have when it began.
        announced: u64,
        /// How many came.
        found: u64,
    },
    /// Its length is not that of the list.
    #[error("it has {found} bytes, the list says {listed}")]
    Size {
        /// What the list says.
        listed: u64,
        /// How many came.
        found: u64,
    },
    /// Its bytes are not those of the list.
    #[error("its hash is {found}, the list says {listed}")]
    Hash {
        /// What the list says.
        listed: Hash128,
        /// What its bytes give.
        found: Hash128,
    },
    /// It cannot be read as what it has to be, or its name is not one.
    #[error("{0}")]
    Unreadable(Error),
    /// It names a column of which no file is listed.
    #[error("column {0:?} has no file")]
    ColumnWithoutFile(String),
}
