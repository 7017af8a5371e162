//! The tree of histories, and the backups that lie on it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::claims::{Placed, Places};
use super::{Facts, LineageKey};

/// A good backup with a position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Base {
    pub(super) offset: u64,
    pub(super) ended: Timestamp,
    pub(super) place: usize,
    /// In the facts.
    pub(super) index: usize,
}

/// One history.
#[derive(Debug)]
pub(super) struct History {
    pub(super) key: LineageKey,
    /// Number and offset of the one that it was forked from.
    parent: Option<(usize, u64)>,
    /// Backups on it that count, by their ends.
    bases: Vec<Base>,
    /// Of the backups on it that claim to be of the future the one with the lowest offset.
    pub(super) refused: Option<Base>,
    /// Of the backups on it that are held with their log, good or not, the one with the lowest offset.
    pub(super) held: Option<Base>,
    /// The last moment that anything on it tells of, believed or not: the later, the longer it is kept.
    pub(super) last: Timestamp,
}

/// All histories, numbered.
pub(super) struct Histories {
    all: Vec<History>,
    numbers: BTreeMap<LineageKey, usize>,
    pub(super) following: Option<usize>,
}

impl Histories {
    pub(super) fn new<Id>(facts: &Facts<Id>, places: &Places) -> Self {
        let mut histories = Self { all: Vec::new(), numbers: BTreeMap::new(), following: None };
        histories.add_logs(facts);
        histories.following = facts.followed().map(|key| histories.number(key));
        let any = |(place, placed): (usize, &Placed)| {
            let position = facts.backups.get(placed.index)?.position?;
            Some((position.lineage, Base { offset: position.offset, ended: placed.ended, place, index: placed.index }))
        };
        let good = |(_, base): &(LineageKey, Base)| facts.backups[base.index].good;
        for (key, base) in places.counted().iter().enumerate().filter_map(any).filter(good) {
            histories.meet(key, base).bases.push(base);
        }
        for (key, base) in places.others().filter_map(any).filter(good) {
            lowest(&mut histories.meet(key, base).refused, base);
        }
        let with_log = |(_, base): &(LineageKey, Base)| facts.backups[base.index].hold_log;
        let all = places.counted().iter().enumerate().chain(places.others());
        for (key, base) in all.filter_map(any).filter(with_log) {
            let number = histories.number(key);
            lowest(&mut histories.all[number].held, base);
        }
        histories
    }

    fn meet(&mut self, key: LineageKey, base: Base) -> &mut History {
        let number = self.number(key);
        let history = &mut self.all[number];
        history.last = history.last.max(base.ended);
        history
    }

    fn add_logs<Id>(&mut self, facts: &Facts<Id>) {
        for log in &facts.logs {
            let number = self.number(log.lineage);
            if let (Some(fork), None) = (log.parent, self.all[number].parent) {
                let parent = self.number(fork.lineage);
                // A tree has no circles; a link that would close one is not believed.
                if !self.path(parent).any(|(ancestor, _)| ancestor == number) {
                    self.all[number].parent = Some((parent, fork.offset));
                }
            }
            let history = &mut self.all[number];
            history.last = log.last().map_or(history.last, |last| last.max(history.last));
        }
    }

    /// The number of a history; one that is not known gets one.
    fn number(&mut self, key: LineageKey) -> usize {
        *self.numbers.entry(key).or_insert_with(|| {
            self.all.push(History {
                key,
                parent: None,
                bases: Vec::new(),
                refused: None,
                held: None,
                last: Timestamp::MIN,
            });
            self.all.len() - 1
        })
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, number: usize) -> &History {
        &self.all[number]
    }

    pub(super) fn find(&self, key: LineageKey) -> Option<usize> {
        self.numbers.get(&key).copied()
    }

    /// The history and those it descends from, each with the offset at which the path leaves it.
    pub(super) fn path(&self, number: usize) -> impl Iterator<Item = (usize, u64)> + '_ {
        std::iter::successors(Some((number, u64::MAX)), |(number, _)| self.all[*number].parent)
    }

    /// The backups on a history that lie before `limit`, newest first.
    pub(super) fn bases(&self, number: usize, limit: u64) -> impl Iterator<Item = &Base> + '_ {
        self.all[number].bases.iter().rev().filter(move |base| base.offset <= limit)
    }

    /// The nearest backup from which the history can be reached, with its own history.
    pub(super) fn serving(&self, number: usize) -> Option<(usize, Base)> {
        self.path(number).find_map(|(on, limit)| Some((on, *self.bases(on, limit).next()?)))
    }
}

fn lowest(known: &mut Option<Base>, base: Base) {
    if known.is_none_or(|known| base.offset < known.offset) {
        *known = Some(base);
    }
}
