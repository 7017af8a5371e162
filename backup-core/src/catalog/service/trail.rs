//! Everything that was decided about a service.

use rpds::VectorSync;

use super::Audited;

/// The audit trail of a service, oldest first. Clones share it, since it never ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail(VectorSync<Audited>);

impl Trail {
    /// Its lines, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Audited> + ExactSizeIterator {
        self.0.iter()
    }

    /// The lines behind the first `known` ones, with their numbers, counted from one.
    pub fn behind(&self, known: usize) -> impl Iterator<Item = (u64, &Audited)> {
        (known..self.len()).filter_map(|at| Some((at as u64 + 1, self.0.get(at)?)))
    }

    /// How many lines it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest line.
    #[must_use]
    pub fn last(&self) -> Option<&Audited> {
        self.0.last()
    }

    pub(super) fn push(&mut self, line: Audited) {
        self.0.push_back_mut(line);
    }
}
