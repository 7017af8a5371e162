//! What is merged, and what others hold already: pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use backup_core::Lineage;
use backup_core::log::{LogEpoch, LogPurpose};
use jiff::Timestamp;

use crate::log::name::Piece;
use crate::log::pieces::Pieces;
use crate::log::stored::{Listed, Stored};
use crate::log::writer::WINDOW;

/// Which pieces may be merged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Bytes of log of a new piece, at most. Pieces of half of it stay as they are.
    pub(super) target: u64,
    /// Pieces that were stored later stay as they are.
    pub(super) before: Timestamp,
}

impl Rules {
    /// A piece of this length is worth reading again only together with as many bytes of others, so that no byte is written more often
    /// than its piece doubles.
    fn is_light(&self, len: u64) -> bool {
        len <= self.target / 64
    }
}

/// Pieces that become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Merge {
    pub(super) lineage: Lineage,
    /// What is read, in order. Pieces of bytes meet or overlap; words lie in them or at their ends.
    pub(super) sources: Vec<Listed>,
    /// What is not needed afterwards: the sources, and what else lies in their range.
    pub(super) replaced: Vec<Piece>,
}

impl Merge {
    /// The range of the new piece.
    pub(super) fn range(&self) -> std::ops::Range<u64> {
        let start = self.sources.iter().map(|listed| listed.piece.start).min().unwrap_or(0);
        start..self.sources.iter().map(|listed| listed.piece.end).max().unwrap_or(start)
    }

    /// Bytes of the objects that are read.
    pub(super) fn weight(&self) -> u64 {
        self.sources.iter().map(|listed| listed.size).sum()
    }

    /// The same without source `number`: what lies before it, and what lies behind. Parts of less than two sources are left out.
    pub(super) fn without(&self, number: usize) -> Vec<Self> {
        self.parts([&self.sources[..number], self.sources.get(number + 1..).unwrap_or_default()])
    }

    /// The same in two, cut before source `number`.
    pub(super) fn cut(&self, number: usize) -> Vec<Self> {
        self.parts([&self.sources[..number], &self.sources[number..]])
    }

    /// As many of the first sources as have at most `bytes`, if these are worth merging, and what is left.
    pub(super) fn head(self, bytes: u64) -> (Option<Self>, Vec<Self>) {
        let mut sum = 0_u64;
        let fits = self.sources.iter().take_while(|listed| {
            sum = sum.saturating_add(listed.size);
            sum <= bytes
        });
        let count = fits.count();
        if count < 2 {
            return (None, vec![self]);
        }
        let mut parts = self.cut(count).into_iter();
        (parts.next(), parts.collect())
    }

    fn parts(&self, parts: [&[Listed]; 2]) -> Vec<Self> {
        let parts = parts.into_iter().filter(|sources| sources.len() > 1).map(|sources| {
            // What else lies in the range is left for the next time.
            let replaced = sources.iter().map(|listed| listed.piece).collect();
            Self { lineage: self.lineage.clone(), sources: sources.to_vec(), replaced }
        });
        parts.collect()
    }
}

/// A piece that another one makes unnecessary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spare {
    pub(super) lineage: Lineage,
    pub(super) listed: Listed,
    /// The piece that holds the same.
    pub(super) by: Listed,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) merges: Vec<Merge>,
    /// By the piece that holds the same.
    pub(super) spares: Vec<Spare>,
}

/// Plans the compaction of `stored`.
pub(super) fn plan(stored: &Stored, rules: Rules) -> Plan {
    let settled = settled(stored, rules.before);
    let pieces = Pieces::of(&settled);
    let mut plan = Plan::default();
    for (lineage, all) in &settled.pieces {
        let told = pieces.telling(lineage, &(0..u64::MAX));
        let mut line =
            Line { rules, lineage, barriers: barriers(stored, lineage), run: Vec::new(), merges: Vec::new() };
        told.iter().for_each(|listed| line.take(*listed));
        line.close();
        let mut merges = line.merges;
        let replaced = replace(&mut merges, all);
        plan.spares.extend(spares(stored, lineage, (all, &told), &replaced));
        plan.merges.append(&mut merges);
    }
    plan.spares.sort_by_key(|spare| (spare.by.piece.epoch, spare.by.piece.sequence));
    plan
}

/// The pieces that count and that nobody will ask about any more. Of a writer that may still write, the last ones tell a successor how
/// far it has come.
fn settled(stored: &Stored, before: Timestamp) -> Stored {
    let mut tops: BTreeMap<LogEpoch, u64> = BTreeMap::new();
    for piece in stored.pieces.values().flatten().map(|listed| listed.piece) {
        let top = tops.entry(piece.epoch).or_default();
        *top = (*top).max(piece.sequence);
    }
    let open = |piece: &Piece| {
        let writer = stored.state().writer(piece.epoch);
        writer.is_some_and(|writer| writer.purpose == LogPurpose::Stream && writer.ends.is_none())
    };
    let asked = |piece: &Piece| open(piece) && piece.sequence.saturating_add(WINDOW) > tops[&piece.epoch];
    let mut pieces: BTreeMap<Lineage, Vec<Listed>> = BTreeMap::new();
    for (lineage, listed) in stored.counting() {
        if listed.at <= before && !asked(&listed.piece) {
            pieces.entry(lineage.clone()).or_default().push(*listed);
        }
    }
    Stored { generation: stored.generation, catalog: Arc::clone(&stored.catalog), pieces }
}

/// Where ways through the log may end or begin: a new piece lies on one side. What is known of the moment of such an end is known of
/// pieces that end there.
fn barriers(stored: &Stored, lineage: &Lineage) -> BTreeSet<u64> {
    let forks = stored.state().lineages().iter().filter_map(|record| record.fork.as_ref());
    let forks = forks.filter(|fork| fork.lineage == *lineage).map(|fork| fork.offset);
    let mut barriers = stored.state().breaks(lineage);
    barriers.extend(forks);
    barriers
}

/// The pieces of a lineage, taken in order.
struct Line<'a> {
    rules: Rules,
    lineage: &'a Lineage,
    barriers: BTreeSet<u64>,
    /// Pieces that can be merged.
    run: Vec<Listed>,
    merges: Vec<Merge>,
}

impl Line<'_> {
    fn range(&self) -> Option<std::ops::Range<u64>> {
        let start = self.run.first()?.piece.start;
        Some(start..self.run.iter().map(|listed| listed.piece.end).max()?)
    }

    fn take(&mut self, listed: Listed) {
        let Piece { start, end, .. } = listed.piece;
        let range = self.range();
        let meets = range.as_ref().is_some_and(|range| start <= range.end);
        if listed.piece.is_empty() {
            // A word goes to what lies before it; without that to what comes, unless there a way ends that the word is about.
            if !meets {
                self.close();
            }
            if meets || !self.barriers.contains(&start) {
                self.run.push(listed);
            }
            return;
        }
        if end - start >= self.rules.target / 2 || self.parts(start, end) {
            self.close();
            return;
        }
        if let Some(range) = range {
            let whole = range.end.max(end) - range.start;
            if !meets || whole > self.rules.target || self.parts(range.start, end) {
                self.close();
            }
        }
        self.run.push(listed);
    }

    /// Whether a barrier lies between `start` and `end`.
    fn parts(&self, start: u64, end: u64) -> bool {
        start < end && self.barriers.range(start + 1..end.max(start + 1)).next().is_some()
    }

    fn close(&mut self) {
        let mut run = std::mem::take(&mut self.run);
        let len = |listed: &Listed| listed.piece.end - listed.piece.start;
        let mut total: u64 = run.iter().map(len).sum();
        let heavy =
            |listed: &Listed, total: u64| !self.rules.is_light(len(listed)) && len(listed) > total - len(listed);
        while let Some(first) = run.first().filter(|first| heavy(first, total)) {
            let end = first.piece.end;
            total -= len(first);
            run.remove(0);
            // Words about places in it stay with it.
            let within = run.iter().take_while(|listed| listed.piece.is_empty() && listed.piece.start < end).count();
            run.drain(..within);
        }
        while let Some(last) = run.last().filter(|last| heavy(last, total)) {
            total -= len(last);
            run.pop();
        }
        if run.len() > 1 {
            self.merges.push(Merge { lineage: self.lineage.clone(), sources: run, replaced: Vec::new() });
        }
    }
}

/// Finds what of `all` the merges replace.
fn replace(merges: &mut [Merge], all: &[Listed]) -> HashSet<Piece> {
    let mut sorted: Vec<Piece> = all.iter().map(|listed| listed.piece).collect();
    sorted.sort_unstable_by_key(|piece| (piece.start, piece.end));
    let mut taken = HashSet::new();
    for merge in merges {
        let range = merge.range();
        // At its ends there may be words of others.
        let words: BTreeSet<u64> =
            merge.sources.iter().filter(|l| l.piece.is_empty()).map(|listed| listed.piece.start).collect();
        let from = sorted.partition_point(|piece| piece.start < range.start);
        let inside = sorted[from..].iter().take_while(|piece| piece.start <= range.end);
        let inside = inside.filter(|piece| match piece.is_empty() {
            true => words.contains(&piece.start),
            false => piece.end <= range.end,
        });
        merge.replaced = inside.copied().filter(|piece| taken.insert(*piece)).collect();
    }
    taken
}

/// The pieces of `all`, besides those that are `replaced`, that others hold.
///
/// Whatever two processes see of the log, following this at the same time they leave every byte: a piece goes only for one that holds
/// all of it and comes later in an order that is the same for everyone.
fn spares(
    stored: &Stored,
    lineage: &Lineage,
    (all, told): (&[Listed], &[Listed]),
    replaced: &HashSet<Piece>,
) -> Vec<Spare> {
    let compacted =
        |piece: &Piece| stored.state().writer(piece.epoch).is_some_and(|writer| writer.purpose == LogPurpose::Compact);
    let holders: Vec<Listed> = told.iter().filter(|l| !l.piece.is_empty() && compacted(&l.piece)).copied().collect();
    let words: BTreeMap<u64, Listed> =
        told.iter().filter(|l| l.piece.is_empty()).map(|listed| (listed.piece.start, *listed)).collect();
    // Those of a cover grow at both ends.
    let at =
        |offset: u64| holders.partition_point(|holder| holder.piece.start <= offset).checked_sub(1).map(|n| holders[n]);
    let mut spares = Vec::new();
    for listed in all.iter().filter(|listed| !replaced.contains(&listed.piece)) {
        let Piece { start, end, .. } = listed.piece;
        let last = words.get(&start).filter(|_| listed.piece.is_empty()).copied();
        let by = match last {
            Some(last) if last.piece != listed.piece => Some(last),
            // A word at the end of a piece belongs to it, one at its start to the piece before.
            Some(_) => holders[..holders.partition_point(|holder| holder.piece.start < start)].last().copied(),
            None => at(start),
        };
        let order = |piece: &Piece| (piece.end - piece.start, piece.epoch, piece.sequence);
        let holds = |by: &Listed| by.piece.start <= start && end <= by.piece.end;
        if let Some(by) = by.filter(|by| holds(by) && order(&listed.piece) < order(&by.piece)) {
            spares.push(Spare { lineage: lineage.clone(), listed: *listed, by });
        }
    }
    spares
}

#[cfg(test)]
mod tests;
