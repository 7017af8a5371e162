//! A piece of a lineage.

use std::fmt;
use std::ops::Range;

use crate::position::Lineage;

/// Bytes of one lineage, from `start` to before `end`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct LogRange {
    /// The history.
    pub lineage: Lineage,
    /// Offset of the first byte.
    pub start: u64,
    /// Offset behind the last byte. Never before `start`.
    pub end: u64,
}

impl LogRange {
    /// The bytes `range` of `lineage`. An end before the start makes it empty.
    #[must_use]
    pub fn new(lineage: Lineage, range: Range<u64>) -> Self {
        Self { lineage, start: range.start, end: range.end.max(range.start) }
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its offsets.
    #[must_use]
    pub fn offsets(&self) -> Range<u64> {
        self.start..self.end
    }
}

impl fmt::Display for LogRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{} of lineage {}", self.start, self.end, self.lineage)
    }
}
