//! What is known of a lineage.

use std::collections::BTreeMap;

use jiff::Timestamp;
use minicbor::{Decode, Encode};

use crate::position::{Lineage, LogPosition};

/// How offsets of a lineage are written for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Notation {
    /// As a number.
    #[default]
    #[n(0)]
    Decimal,
    /// As two halves of 32 bits in upper-case hexadecimal, `16/B374D848`: PostgreSQL's LSN.
    #[n(1)]
    HexHalves,
}

impl Notation {
    /// `offset` in this notation.
    #[must_use]
    pub fn text(self, offset: u64) -> String {
        match self {
            Self::Decimal => offset.to_string(),
            Self::HexHalves => format!("{:X}/{:X}", offset >> 32, offset & 0xffff_ffff),
        }
    }
}

/// Where a lineage begins in another one: bytes before the offset are those of the parent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize)]
#[cbor(map)]
pub struct Fork {
    /// The parent.
    #[n(0)]
    pub lineage: Lineage,
    /// Where it was left.
    #[n(1)]
    pub offset: u64,
}

/// A lineage, as the writer that met it first described it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct LineageRecord {
    /// Its name.
    #[n(0)]
    pub lineage: Lineage,
    /// Identity of the source; equal to [`Snapshot::source`](crate::Snapshot::source) of its backups.
    #[n(1)]
    pub source: String,
    /// Where it was forked; none for one whose origin is not known or that has none.
    #[n(2)]
    pub fork: Option<Fork>,
    /// How its offsets are written.
    #[n(3)]
    pub notation: Notation,
    /// What only the engine reads back, by stable names.
    #[n(4)]
    pub facts: BTreeMap<String, String>,
    /// When it was met, by the writer's clock.
    #[cbor(n(5), with = "crate::cbor::timestamp")]
    pub at: Timestamp,
}

impl LineageRecord {
    /// A lineage of `source` without an origin and without facts.
    #[must_use]
    pub fn new(lineage: Lineage, source: impl Into<String>, notation: Notation, at: Timestamp) -> Self {
        Self { lineage, source: source.into(), fork: None, notation, facts: BTreeMap::new(), at }
    }

    /// Sets where it was forked.
    #[must_use]
    pub fn with_fork(mut self, lineage: Lineage, offset: u64) -> Self {
        self.fork = Some(Fork { lineage, offset });
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn with_fact(mut self, name: &str, value: impl Into<String>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// A fact by name.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// The position `offset` of this lineage.
    #[must_use]
    pub fn position(&self, offset: u64) -> LogPosition {
        LogPosition::new(self.lineage.clone(), offset, self.notation.text(offset))
    }

    /// Whether `other` says the same of the same lineage, whenever it was said.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        (&self.lineage, &self.source, &self.fork) == (&other.lineage, &other.source, &other.fork)
    }
}
