//! Finding the log again: its writers and its lineages, from what pieces of log say about themselves.
//!
//! Every piece tells what its writer does, and the first one of a writer in a lineage repeats what is known of the lineage. Which log
//! there is stands in the names. What only the journal knew is gone: gaps, of which an empty one leaves no trace, and which pieces
//! were damaged, expired or beyond the end of their writer.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::Lineage;
use backup_core::catalog::{Catalog, Event};
use backup_core::log::{LineageRecord, LogEpoch, LogPurpose, LogState};
use futures::stream::{self, StreamExt};
use jiff::Timestamp;

use super::{Skipped, find};
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::layout;
use crate::log::LogCache;
use crate::log::object::LogSheet;
use crate::log::stored::Listed;

/// So many numbers beyond the last one that is known are used up: of writers that never stored anything nothing tells, and they
/// may still run.
const MARGIN: u32 = 16;
/// Numbers of writers of which no piece can be read count if they are at most so far behind one that is known. A name proves nothing,
/// and one of a very high number would use up all.
const FARTHEST: u32 = 4096;
/// Encoded descriptions of lineages per entry of the journal, in bytes, about.
const ENTRY: usize = 4 << 20;

/// The pieces of log that were listed, by lineage and writer.
type Parts = BTreeMap<(Lineage, LogEpoch), Vec<Listed>>;

/// What pieces say. Pieces do not change, so what was learned from one listing is true at the next.
#[derive(Debug, Default)]
pub(super) struct FoundLog {
    purposes: BTreeMap<LogEpoch, LogPurpose>,
    lineages: BTreeMap<Lineage, Met>,
    seen: BTreeSet<(Lineage, LogEpoch)>,
    skipped: BTreeMap<String, Skipped>,
}

/// A lineage, and the first piece that told of it.
#[derive(Debug)]
struct Met {
    record: LineageRecord,
    first: (LogEpoch, u64),
}

impl FoundLog {
    /// Reads the first readable piece of every writer in every lineage.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn look(&mut self, cache: &LogCache, pieces: &BTreeMap<Lineage, Vec<Listed>>) -> Result<Parts> {
        let mut parts = Parts::new();
        for (lineage, listed) in pieces.iter().flat_map(|(lineage, all)| all.iter().map(move |l| (lineage, l))) {
            parts.entry((lineage.clone(), listed.piece.epoch)).or_default().push(*listed);
        }
        parts.values_mut().for_each(|part| part.sort_unstable_by_key(|listed| listed.piece.sequence));
        let unseen: Vec<_> = parts.iter().filter(|(key, _)| !self.seen.contains(key)).collect();
        let mut looks = stream::iter(unseen)
            .map(|((lineage, epoch), part)| async move { (lineage, *epoch, first_of(cache, lineage, part).await) })
            .buffered(cache.context().shape.transfers * 4)
            .boxed();
        while let Some((lineage, epoch, looked)) = looks.next().await {
            let (told, skipped) = looked?;
            self.skipped.extend(skipped.into_iter().map(|skipped| (skipped.object.clone(), skipped)));
            self.seen.insert((lineage.clone(), epoch));
            let Some((sequence, sheet)) = told else { continue };
            self.purposes.insert(epoch, sheet.purpose);
            let first = (epoch, sequence);
            if let Some(record) = sheet.record
                && self.lineages.get(lineage).is_none_or(|met| first < met.first)
            {
                self.lineages.insert(lineage.clone(), Met { record, first });
            }
        }
        drop(looks);
        Ok(parts)
    }

    /// The lineages, in the order in which they were met.
    pub(super) fn lineages(&self) -> Vec<LineageRecord> {
        let mut met: Vec<_> = self.lineages.values().collect();
        met.sort_by_key(|met| (met.record.at, met.first));
        met.into_iter().map(|met| met.record.clone()).collect()
    }

    /// The writers that are known.
    pub(super) fn writers(&self) -> u64 {
        self.purposes.len() as u64
    }

    /// What could not be read, and the lineages of which nothing tells.
    pub(super) fn skipped(self, parts: &Parts) -> Vec<Skipped> {
        let lineages: BTreeSet<&Lineage> = parts.keys().map(|(lineage, _)| lineage).collect();
        let unknown = lineages.into_iter().filter(|lineage| !self.lineages.contains_key(lineage));
        let unknown = unknown.map(|lineage| Skipped {
            object: format!("{}/{lineage}", layout::LOG),
            reason: "no piece of log that can be read says what is known of this lineage".to_owned(),
        });
        let unknown: Vec<_> = unknown.collect();
        self.skipped.into_values().chain(unknown).collect()
    }

    /// The events that make the writers of `parts` known, each sealed where its log ends.
    fn enrolled(&self, parts: &Parts, at: Timestamp) -> Vec<Event> {
        let mut ends: BTreeMap<LogEpoch, BTreeMap<Lineage, u64>> = BTreeMap::new();
        for ((lineage, epoch), part) in parts {
            // Writers of which no piece can be read do not count: nothing says that they ever were.
            if let Some(end) = part.iter().map(|listed| listed.piece.end).max()
                && self.purposes.contains_key(epoch)
            {
                ends.entry(*epoch).or_default().insert(lineage.clone(), end);
            }
        }
        let known = self.purposes.last_key_value().map_or(0, |(last, _)| last.0);
        let named = parts.keys().map(|(_, epoch)| epoch.0).filter(|epoch| *epoch <= known.saturating_add(FARTHEST));
        let last = if parts.is_empty() { 0 } else { named.max().unwrap_or(0).max(known).saturating_add(MARGIN) };
        let events = (1..=last).map(LogEpoch).flat_map(|epoch| {
            // What is not known fences nobody.
            let purpose = self.purposes.get(&epoch).copied().unwrap_or(LogPurpose::Import);
            let ends = ends.remove(&epoch).unwrap_or_default();
            [Event::LogOpened { epoch, purpose, at }, Event::LogSealed { epoch, ends, at }]
        });
        events.collect()
    }

    /// Commits what was found to `generation`, which knows nothing of the log. False when somebody has opened a log writer in it
    /// before: its number is one that was used already.
    ///
    /// # Errors
    /// Conflict, when another generation was begun meanwhile. Those of the store.
    pub(super) async fn commit(
        &self,
        journal: &Journal<Catalog>,
        generation: u32,
        parts: &Parts,
        at: Timestamp,
    ) -> Result<bool> {
        let (enrolled, mut free) = (self.enrolled(parts, at), true);
        let ours = |found: u32| {
            let another =
                || Error::conflict(format!("the catalog was rebuilt after generation {generation} was begun"));
            (found == generation).then_some(()).ok_or_else(another)
        };
        journal
            .commit_by(|found, catalog| {
                ours(found)?;
                free = *catalog.log() == LogState::default();
                Ok(if free { enrolled.clone() } else { Vec::new() })
            })
            .await?;
        let mut lineages = self.lineages().into_iter().peekable();
        while free && lineages.peek().is_some() {
            let (mut entry, mut room) = (Vec::new(), ENTRY);
            while let Some(record) = lineages.next_if(|_| room > 0) {
                let len = minicbor::to_vec(&record).map_err(|e| Error::internal("no lineage").with_source(e))?.len();
                room = room.saturating_sub(len);
                entry.push(record);
            }
            journal
                .commit_by(|found, catalog| {
                    ours(found)?;
                    // A writer that was opened meanwhile may have met the same lineage.
                    let unknown = entry.iter().filter(|record| catalog.log().lineage(&record.lineage).is_none());
                    Ok(unknown.map(|record| Event::LineageAdded { record: Box::new(record.clone()) }).collect())
                })
                .await?;
        }
        Ok(free)
    }
}

/// What the first readable piece of `part`, and its number, say; and the pieces before it that cannot be read.
async fn first_of(
    cache: &LogCache,
    lineage: &Lineage,
    part: &[Listed],
) -> Result<(Option<(u64, LogSheet)>, Vec<Skipped>)> {
    let mut skipped = Vec::new();
    for listed in part {
        match cache.object(&cache.context().store, lineage, listed).await {
            Ok(object) => return Ok((Some((listed.piece.sequence, object.sheet().clone())), skipped)),
            // Compacted since it was listed.
            Err(error) if error.is_not_found() => {}
            Err(error) => skipped.push(find::skipped(listed.piece.name(lineage)?.as_str(), error)?),
        }
    }
    Ok((None, skipped))
}
