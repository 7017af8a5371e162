//! A slow planner that follows the sentences of the documentation one backup at a time, comparing each with all others.
//! It shares nothing with the library: no order, no walk, no numbers of periods.

use std::collections::{BTreeMap, BTreeSet};

use backup_policy::retention::{Backup, Facts, LineageKey, Log};
use backup_policy::{Period, Profile};
use jiff::{SignedDuration, Timestamp};

/// The backups that stay, and from where the log of each history stays.
pub(crate) struct Kept {
    pub(crate) backups: BTreeSet<u32>,
    pub(crate) logs: BTreeMap<LineageKey, Option<u64>>,
}

pub(crate) fn plan(profile: &Profile, now: Timestamp, facts: &Facts<u32>) -> Kept {
    let oracle = Oracle { profile, now, facts };
    let backups = facts.backups.iter().filter(|backup| oracle.keeps(backup)).map(|backup| backup.id).collect();
    let logs = facts.logs.iter().map(|log| (log.lineage, oracle.keep_from(log.lineage))).collect();
    Kept { backups, logs }
}

struct Oracle<'a> {
    profile: &'a Profile,
    now: Timestamp,
    facts: &'a Facts<u32>,
}

impl Oracle<'_> {
    fn counts(&self, backup: &Backup<u32>) -> bool {
        backup.good && backup.ended.duration_since(self.now) <= SignedDuration::from_mins(10)
    }

    fn counting(&self) -> impl Iterator<Item = &Backup<u32>> {
        self.facts.backups.iter().filter(|backup| self.counts(backup))
    }

    fn newer_than(&self, backup: &Backup<u32>) -> usize {
        self.counting().filter(|other| (other.ended, other.id) > (backup.ended, backup.id)).count()
    }

    fn keeps(&self, backup: &Backup<u32>) -> bool {
        let older_than = |age: backup_policy::Age| self.now.duration_since(backup.ended) >= age.duration();
        if backup.hold || self.profile.minimum_age().is_some_and(|age| !older_than(age)) {
            return true;
        }
        if !backup.good {
            return self.counting().next().is_none();
        }
        if !self.counts(backup) || self.newer_than(backup) < self.profile.minimum_count() as usize {
            return true;
        }
        let kept_by_tier = self.profile.tiers().iter().any(|tier| {
            let label = |other: &Backup<u32>| label(tier.period(), other);
            let alike = self.counting().filter(|other| label(other) == label(backup));
            let first = alike.map(|other| (other.ended, other.id)).min();
            let later: BTreeSet<_> = self.counting().map(label).filter(|other| *other > label(backup)).collect();
            let aged = tier.age().is_some_and(|age| !older_than(age));
            let counted = tier.count().is_some_and(|count| later.len() < count as usize);
            first == Some((backup.ended, backup.id)) && (aged || counted)
        });
        kept_by_tier
            || self.lineages().iter().any(|lineage| self.window_needs(*lineage, backup))
            || self.followed().is_some_and(|lineage| self.replayed_from(lineage) == Some(backup))
    }

    /// All histories that anything tells of.
    fn lineages(&self) -> BTreeSet<LineageKey> {
        let logs = self.facts.logs.iter().map(|log| log.lineage);
        let parents = self.facts.logs.iter().filter_map(|log| Some(log.parent?.lineage));
        let positions = self.facts.backups.iter().filter_map(|backup| Some(backup.position?.lineage));
        logs.chain(parents).chain(positions).chain(self.facts.following).collect()
    }

    fn log(&self, lineage: LineageKey) -> Option<&Log> {
        self.facts.logs.iter().find(|log| log.lineage == lineage)
    }

    /// How many forks lie between history `lineage` and the place of `backup`, if it can be reached from there.
    fn distance(&self, lineage: LineageKey, backup: &Backup<u32>) -> Option<usize> {
        let position = backup.position?;
        let (mut on, mut limit, mut distance) = (lineage, u64::MAX, 0);
        while on != position.lineage {
            let fork = self.log(on)?.parent?;
            (on, limit, distance) = (fork.lineage, fork.offset, distance + 1);
        }
        (position.offset <= limit).then_some(distance)
    }

    /// Those from which history `lineage` can be reached.
    fn serving(&self, lineage: LineageKey) -> impl Iterator<Item = &Backup<u32>> {
        self.counting().filter(move |backup| self.distance(lineage, backup).is_some())
    }

    fn nearer(&self, lineage: LineageKey, one: &Backup<u32>, other: &Backup<u32>) -> bool {
        let rank =
            |backup: &Backup<u32>| (self.distance(lineage, backup), std::cmp::Reverse((backup.ended, backup.id)));
        rank(one) < rank(other)
    }

    /// The last moment of a history, believed or not.
    fn last(&self, lineage: LineageKey) -> Timestamp {
        let log = self.log(lineage).into_iter().flat_map(|log| &log.ranges).map(|range| range.last);
        let own = self.facts.backups.iter().filter(|b| b.good && b.position.is_some_and(|p| p.lineage == lineage));
        log.chain(own.map(|backup| backup.ended)).max().unwrap_or(Timestamp::MIN)
    }

    fn in_window(&self, lineage: LineageKey) -> Option<Timestamp> {
        let start = self.now - self.profile.pitr()?.duration();
        (self.last(lineage) >= start).then_some(start)
    }

    /// Needed for the window: reaches the history, and each nearer backup ended inside of the window.
    fn window_needs(&self, lineage: LineageKey, backup: &Backup<u32>) -> bool {
        let Some(start) = self.in_window(lineage) else { return false };
        self.counts(backup)
            && self.distance(lineage, backup).is_some()
            && self
                .serving(lineage)
                .filter(|other| self.nearer(lineage, other, backup))
                .all(|other| other.ended > start)
    }

    fn followed(&self) -> Option<LineageKey> {
        self.facts.following.or_else(|| {
            let is_parent =
                |lineage| self.facts.logs.iter().any(|log| log.parent.is_some_and(|p| p.lineage == lineage));
            let leaves = self.facts.logs.iter().filter(|log| !is_parent(log.lineage));
            let last = |log: &&Log| (log.ranges.iter().map(|range| range.last).max(), log.lineage);
            leaves.max_by_key(last).map(|log| log.lineage)
        })
    }

    fn replayed_from(&self, lineage: LineageKey) -> Option<&Backup<u32>> {
        self.serving(lineage).find(|backup| !self.serving(lineage).any(|other| self.nearer(lineage, other, backup)))
    }

    /// From where the log of a history stays: the lowest offset that anything needs.
    fn keep_from(&self, lineage: LineageKey) -> Option<u64> {
        let mut needed = Vec::new();
        for to in self.lineages() {
            let mut bases: Vec<&Backup<u32>> =
                self.serving(to).filter(|backup| self.window_needs(to, backup)).collect();
            let refused =
                |backup: &&Backup<u32>| backup.good && !self.counts(backup) && self.distance(to, backup).is_some();
            bases.extend(self.facts.backups.iter().filter(refused));
            let held = |backup: &&Backup<u32>| backup.hold_log && self.distance(to, backup).is_some();
            bases.extend(self.facts.backups.iter().filter(held));
            if self.followed() == Some(to) {
                bases.extend(self.replayed_from(to));
            }
            let unreached =
                self.serving(to).next().is_none() && (self.in_window(to).is_some() || self.followed() == Some(to));
            if to == lineage && (unreached || self.counting().next().is_none()) {
                needed.push(0);
            }
            needed.extend(bases.into_iter().filter_map(|base| self.needed_of(lineage, to, base)));
        }
        let newest = self.counting().max_by_key(|backup| (backup.ended, backup.id));
        let place = newest.and_then(|backup| backup.position);
        needed.extend(place.filter(|place| place.lineage == lineage).map(|place| place.offset));
        needed.into_iter().min()
    }

    /// From where `lineage` is read when `base` is replayed to the end of `to`.
    fn needed_of(&self, lineage: LineageKey, to: LineageKey, base: &Backup<u32>) -> Option<u64> {
        let position = base.position?;
        if position.lineage == lineage {
            return Some(position.offset);
        }
        let mut on = to;
        while on != position.lineage {
            if on == lineage {
                return Some(0);
            }
            on = self.log(on)?.parent?.lineage;
        }
        None
    }
}

/// The calendar's name of the period in which a backup began, in an alphabet that sorts by time.
pub(crate) fn label(period: Period, backup: &Backup<u32>) -> String {
    let began = backup.started.min(backup.ended);
    match period {
        Period::Every => format!("{:?} {:010}", backup.ended, backup.id),
        Period::Hourly => began.strftime("%Y-%m-%dT%H").to_string(),
        Period::Daily => began.strftime("%Y-%m-%d").to_string(),
        Period::Weekly => began.strftime("%G-W%V").to_string(),
        Period::Monthly => began.strftime("%Y-%m").to_string(),
        Period::Yearly => began.strftime("%Y").to_string(),
        _ => unreachable!("a period that the oracle does not know"),
    }
}
