//! Where in a service's change stream something stands.

use std::fmt;

use minicbor::{Decode, Encode};

/// One unbroken history of changes: a PostgreSQL timeline, a Redis replication id, a MySQL binary-log chain.
///
/// Lineages form a tree; positions of different lineages are not ordered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, serde::Serialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Lineage(#[n(0)] String);

impl Lineage {
    /// A lineage of the engine's own name for it.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Whether the name can be part of an object's name: 1 to 80 of `a-z 0-9 . _ -`, the first a letter or digit, the last no dot.
    #[must_use]
    pub fn is_storable(&self) -> bool {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let first = self.0.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        first && self.0.len() <= 80 && self.0.bytes().all(fits) && !self.0.ends_with('.')
    }

    /// The engine's own name for it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A point in the change stream: bytes from the origin of a lineage, as the engine counts them (PostgreSQL: the LSN).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize)]
pub struct LogPosition {
    /// The history that the offset counts in.
    #[n(0)]
    pub lineage: Lineage,
    /// Engine-defined, totally ordered inside its lineage.
    #[n(1)]
    pub offset: u64,
    /// The same point in the engine's own notation, e.g. `0/16B3740`. For people; never compared.
    #[n(2)]
    pub text: String,
}

impl LogPosition {
    /// A position with the engine's own notation of it.
    pub fn new(lineage: Lineage, offset: u64, text: impl Into<String>) -> Self {
        Self { lineage, offset, text: text.into() }
    }
}

impl PartialOrd for LogPosition {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self.lineage == other.lineage).then(|| self.offset.cmp(&other.offset))
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}
