//! Which keys are wanted.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::glob;
use super::layout::Kind;
use super::slot::slot_of;

/// Which keys are wanted: those that fit every condition. A condition of several alternatives is met by any of them; one
/// of none is met by all keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyFilter {
    databases: BTreeSet<u64>,
    prefixes: Vec<Vec<u8>>,
    patterns: Vec<Vec<u8>>,
    kinds: BTreeSet<Kind>,
    slots: Vec<RangeInclusive<u16>>,
}

impl KeyFilter {
    /// All keys.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Or in this database.
    #[must_use]
    pub fn database(mut self, database: u64) -> Self {
        self.databases.insert(database);
        self
    }

    /// Or with this beginning.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Vec<u8>>) -> Self {
        self.prefixes.push(prefix.into());
        self
    }

    /// Or of this pattern, as `KEYS` reads it.
    #[must_use]
    pub fn pattern(mut self, pattern: impl Into<Vec<u8>>) -> Self {
        self.patterns.push(pattern.into());
        self
    }

    /// Or of this type.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kinds.insert(kind);
        self
    }

    /// Or in one of these slots of a cluster.
    #[must_use]
    pub fn slots(mut self, slots: RangeInclusive<u16>) -> Self {
        self.slots.push(slots);
        self
    }

    /// Whether it wants all keys.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.databases.is_empty() && self.takes_whole_databases()
    }

    /// Whether it wants all keys of the databases that it wants.
    #[must_use]
    pub fn takes_whole_databases(&self) -> bool {
        self.prefixes.is_empty() && self.patterns.is_empty() && self.kinds.is_empty() && self.slots.is_empty()
    }

    /// Whether it looks at the names of keys.
    #[must_use]
    pub fn needs_names(&self) -> bool {
        !(self.prefixes.is_empty() && self.patterns.is_empty() && self.slots.is_empty())
    }

    /// Whether it asks for types.
    #[must_use]
    pub fn names_kinds(&self) -> bool {
        !self.kinds.is_empty()
    }

    /// The one database whose keys it wants. None when it may be several.
    #[must_use]
    pub fn only_database(&self) -> Option<u64> {
        self.databases.first().copied().filter(|_| self.databases.len() == 1)
    }

    /// Whether a database may hold wanted keys.
    #[must_use]
    pub fn wants_database(&self, database: u64) -> bool {
        self.databases.is_empty() || self.databases.contains(&database)
    }

    /// Whether a key is wanted, as far as its place and its type say.
    #[must_use]
    pub fn wants_kind(&self, database: u64, kind: Kind) -> bool {
        self.wants_database(database) && (self.kinds.is_empty() || self.kinds.contains(&kind))
    }

    /// Whether a key is wanted, as far as its name says.
    #[must_use]
    pub fn wants_name(&self, key: &[u8]) -> bool {
        let slot = || slot_of(key);
        (self.prefixes.is_empty() || self.prefixes.iter().any(|prefix| key.starts_with(prefix)))
            && (self.patterns.is_empty() || self.patterns.iter().any(|pattern| glob::matches(pattern, key)))
            && (self.slots.is_empty() || self.slots.iter().any(|range| range.contains(&slot())))
    }

    /// Whether a key is wanted.
    #[must_use]
    pub fn wants(&self, database: u64, kind: Kind, key: &[u8]) -> bool {
        self.wants_kind(database, kind) && self.wants_name(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_met_together_alternatives_alone() {
        let filter = KeyFilter::all().database(0).database(2).prefix("user:").prefix("session:").kind(Kind::Hash);
        assert!(filter.wants(0, Kind::Hash, b"user:1") && filter.wants(2, Kind::Hash, b"session:1"));
        assert!(!filter.wants(1, Kind::Hash, b"user:1"));
        assert!(!filter.wants(0, Kind::Set, b"user:1"));
        assert!(!filter.wants(0, Kind::Hash, b"other:1"));
        assert!(!filter.is_all() && KeyFilter::all().is_all());
        let slots = KeyFilter::all().slots(0..=100).slots(12182..=12182);
        assert!(slots.wants(0, Kind::String, b"foo") && slots.wants(0, Kind::String, b"{foo}x"));
        assert!(!slots.wants(0, Kind::String, b"bar"));
        assert!(KeyFilter::all().pattern("*:1").wants(5, Kind::List, b"a:1"));
    }
}
