//! What the catalog knows of the log: a part of its fold.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{LineageRecord, LogEpoch, LogPurpose, LogRange};
use crate::position::Lineage;

/// A log writer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogWriter {
    /// What it does.
    pub purpose: LogPurpose,
    /// When it was opened, by its own clock.
    pub at: Timestamp,
    /// Where its log ended on each lineage that it wrote when it was sealed; nothing of it beyond counts. None while it may
    /// still write.
    pub ends: Option<BTreeMap<Lineage, u64>>,
}

/// A part of a lineage that was lost before it could be stored, or a place where the history of the source was cut and
/// does not go on: then it is empty.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct LogGap {
    /// What is missing.
    pub range: LogRange,
    /// Why, for people.
    pub reason: String,
    /// When it was noticed.
    pub at: Timestamp,
}

/// A stored object of the log that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct LogDamage {
    /// The object's name inside the repository.
    pub object: String,
    /// What it held.
    pub range: LogRange,
    /// What is wrong with it.
    pub problem: String,
    /// When it was noticed.
    pub at: Timestamp,
}

/// The log, as far as the journal tells. Which bytes are stored is told by the stored objects themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogState {
    pub(crate) writers: BTreeMap<LogEpoch, LogWriter>,
    pub(crate) lineages: Vec<LineageRecord>,
    pub(crate) gaps: Vec<LogGap>,
    pub(crate) damages: BTreeMap<String, LogDamage>,
    pub(crate) expired: BTreeMap<Lineage, u64>,
}

impl LogState {
    /// The writers, oldest first.
    pub fn writers(&self) -> impl DoubleEndedIterator<Item = (LogEpoch, &LogWriter)> {
        self.writers.iter().map(|(epoch, writer)| (*epoch, writer))
    }

    /// One writer.
    #[must_use]
    pub fn writer(&self, epoch: LogEpoch) -> Option<&LogWriter> {
        self.writers.get(&epoch)
    }

    /// The number that the next writer gets.
    #[must_use]
    pub fn next_epoch(&self) -> LogEpoch {
        LogEpoch(self.writers.keys().next_back().map_or(1, |last| last.0.saturating_add(1)))
    }

    /// The writer that fenced `epoch`: a later one that follows the stream as it did. None when it may acknowledge.
    #[must_use]
    pub fn fenced_by(&self, epoch: LogEpoch) -> Option<LogEpoch> {
        let purpose = self.writers.get(&epoch)?.purpose;
        let later = self.writers.range(LogEpoch(epoch.0.saturating_add(1))..);
        (purpose == LogPurpose::Stream)
            .then(|| later.filter(|(_, w)| w.purpose == LogPurpose::Stream).map(|(epoch, _)| *epoch).next())
            .flatten()
    }

    /// The lineages, in the order in which they were met: the last one is the one that the source follows.
    #[must_use]
    pub fn lineages(&self) -> &[LineageRecord] {
        &self.lineages
    }

    /// One lineage.
    #[must_use]
    pub fn lineage(&self, lineage: &Lineage) -> Option<&LineageRecord> {
        self.lineages.iter().find(|record| record.lineage == *lineage)
    }

    /// What was lost before it was stored, oldest report first.
    #[must_use]
    pub fn gaps(&self) -> &[LogGap] {
        &self.gaps
    }

    /// Where the history of `lineage` was cut.
    #[must_use]
    pub fn breaks(&self, lineage: &Lineage) -> BTreeSet<u64> {
        let of = |gap: &&LogGap| gap.range.lineage == *lineage && gap.range.is_empty();
        self.gaps.iter().filter(of).map(|gap| gap.range.start).collect()
    }

    /// The stored objects that are known to be damaged, by name.
    #[must_use]
    pub fn damages(&self) -> &BTreeMap<String, LogDamage> {
        &self.damages
    }

    /// Offsets of `lineage` before this are no longer kept.
    #[must_use]
    pub fn expired_before(&self, lineage: &Lineage) -> u64 {
        self.expired.get(lineage).copied().unwrap_or(0)
    }

    /// Whether what writer `epoch` stored of `lineage` up to `end` counts.
    #[must_use]
    pub fn counts(&self, epoch: LogEpoch, lineage: &Lineage, end: u64) -> bool {
        match self.writers.get(&epoch).map(|writer| &writer.ends) {
            Some(Some(ends)) => ends.get(lineage).is_some_and(|sealed| end <= *sealed),
            Some(None) => true,
            None => false,
        }
    }
}
