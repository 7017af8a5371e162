//! Who writes the log.

use std::fmt;

use minicbor::{Decode, Encode};

/// The number of a log writer of one repository. Each new writer gets the next number by a commit, so of two writers the one
/// with the lower number is the older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, serde::Serialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct LogEpoch(#[n(0)] pub u32);

impl fmt::Display for LogEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a log writer does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum LogPurpose {
    /// Follows the change stream. There is one at a time: opening it fences the one before.
    #[default]
    #[n(0)]
    Stream,
    /// Stores complete pieces that somebody else collected, in any order. Fences nobody: the same piece twice is the same
    /// piece.
    #[n(1)]
    Import,
    /// Writes many small objects again as few large ones. Fences nobody.
    #[n(2)]
    Compact,
}
