//! Claims on backups, and what follows from them.
//!
//! Everything is kept by *place*, the order in which backups ended, so that a million of them are gone through without jumping
//! about in memory.

use std::num::NonZeroU32;

use jiff::Timestamp;

use super::{Backup, ExpireReason, Kept, Reason, Verdict};
use crate::CLOCK_TOLERANCE;
use crate::profile::Profile;

/// A backup at its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) ended: Timestamp,
    /// Its start as far as it is believed.
    pub(super) began: Timestamp,
    /// In the facts.
    pub(super) index: usize,
}

/// All backups: first those that count, by the order of their ends, then the others.
pub(super) struct Places {
    all: Vec<Placed>,
    counted: usize,
}

impl Places {
    pub(super) fn new<Id: Copy + Ord>(now: Timestamp, backups: &[Backup<Id>]) -> Self {
        let horizon = horizon(now);
        let counts = |backup: &Backup<Id>| backup.good && backup.ended <= horizon;
        let indexed = || backups.iter().enumerate();
        let mut keys: Vec<(Timestamp, Id, usize)> = indexed()
            .filter(|(_, backup)| counts(backup))
            .map(|(index, backup)| (backup.ended, backup.id, index))
            .collect();
        if !keys.is_sorted() {
            keys.sort_unstable();
        }
        let others = indexed().filter(|(_, backup)| !counts(backup)).map(|(index, _)| index);
        let order = keys.iter().map(|(.., index)| *index).chain(others);
        let placed = |index: usize| {
            let Backup { started, ended, .. } = backups[index];
            Placed { ended, began: started.min(ended), index }
        };
        Self { all: order.map(placed).collect(), counted: keys.len() }
    }

    /// Those that count.
    pub(super) fn counted(&self) -> &[Placed] {
        &self.all[..self.counted]
    }

    /// All, with their places.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, &Placed)> {
        self.all.iter().enumerate()
    }

    /// Those that do not count, with their places.
    pub(super) fn others(&self) -> impl Iterator<Item = (usize, &Placed)> {
        self.all().skip(self.counted)
    }
}

/// A reason that claims are made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim(NonZeroU32);

/// The claims on each backup.
pub(super) struct Claims {
    now: Timestamp,
    reasons: Vec<Reason>,
    kept: Vec<Vec<Kept>>,
    /// Of the claims that have ended the one that ended last.
    ended: Vec<Option<(Claim, Timestamp)>>,
}

impl Claims {
    pub(super) fn new(now: Timestamp, places: &Places) -> Self {
        let count = places.all.len();
        Self { now, reasons: Vec::new(), kept: vec![Vec::new(); count], ended: vec![None; count] }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// A reason to claim backups for.
    pub(super) fn reason(&mut self, reason: Reason) -> Claim {
        self.reasons.push(reason);
        Claim(u32::try_from(self.reasons.len()).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX))
    }

    fn named(&self, claim: Claim) -> Option<Reason> {
        self.reasons.get(usize::try_from(claim.0.get()).ok()? - 1).copied()
    }

    /// Claims the backup at `place` until a moment, or for good.
    pub(super) fn add(&mut self, place: usize, claim: Claim, until: Option<Timestamp>) {
        match until {
            Some(end) if end <= self.now => {
                let latest = &mut self.ended[place];
                if latest.is_none_or(|(_, known)| end > known) {
                    *latest = Some((claim, end));
                }
            }
            _ => {
                if let Some(reason) = self.named(claim) {
                    self.kept[place].push(Kept { reason, until });
                }
            }
        }
    }

    /// The claims that do not depend on tiers and logs.
    pub(super) fn common<Id>(&mut self, profile: &Profile, backups: &[Backup<Id>], places: &Places) {
        let hold = self.reason(Reason::Hold);
        let young = self.reason(Reason::MinimumAge);
        for (place, placed) in places.all() {
            if backups[placed.index].hold {
                self.add(place, hold, None);
            }
            if let Some(age) = profile.minimum_age {
                self.add(place, young, Some(age.after(placed.ended)));
            }
        }
        for (place, placed) in places.others().filter(|(_, placed)| backups[placed.index].good) {
            let believed_at = placed.ended.checked_sub(CLOCK_TOLERANCE).unwrap_or(Timestamp::MIN);
            let future = self.reason(Reason::FutureTimestamp { believed_at });
            self.add(place, future, None);
        }
        self.newest(profile, places.counted());
        if places.counted().is_empty() {
            let nothing_better = self.reason(Reason::NothingBetter);
            let bad = places.others().filter(|(_, placed)| !backups[placed.index].good);
            bad.for_each(|(place, _)| self.add(place, nothing_better, None));
        }
    }

    fn newest(&mut self, profile: &Profile, counted: &[Placed]) {
        let last_good = self.reason(Reason::LastGood);
        let minimum_count = self.reason(Reason::MinimumCount);
        let minimum = usize::try_from(profile.minimum_count).unwrap_or(usize::MAX);
        let now = self.now;
        for place in 0..counted.len() {
            // What comes later ends a claim when it comes, though its clock may be a little ahead.
            let after = |count: usize| counted.get(place.saturating_add(count)).map(|placed| placed.ended.min(now));
            self.add(place, last_good, after(1));
            if minimum > 1 {
                self.add(place, minimum_count, after(minimum));
            }
        }
    }

    /// What follows, in the order of the facts.
    pub(super) fn verdicts<Id>(mut self, backups: &[Backup<Id>], places: &Places) -> Vec<Verdict> {
        let mut place_of = vec![0; backups.len()];
        places.all().for_each(|(place, placed)| place_of[placed.index] = place);
        let verdict = |(backup, place): (&Backup<Id>, usize)| self.verdict(backup, place);
        backups.iter().zip(place_of).map(verdict).collect()
    }

    fn verdict<Id>(&mut self, backup: &Backup<Id>, place: usize) -> Verdict {
        let reasons = std::mem::take(&mut self.kept[place]);
        if !reasons.is_empty() {
            return Verdict::Keep { expires_at: last(&reasons), reasons };
        }
        let ended = self.ended[place].and_then(|(claim, since)| Some((self.named(claim)?, since)));
        match ended {
            Some((reason, since)) if backup.good => Verdict::Expire { reason: ExpireReason::NoLonger(reason), since },
            // A bad one only ever waited for its minimum age.
            ended => {
                let since = ended.map_or(backup.ended, |(_, since)| since).min(self.now);
                Verdict::Expire { reason: ExpireReason::ProvenBad, since }
            }
        }
    }
}

/// The latest moment that is not taken for the future.
fn horizon(now: Timestamp) -> Timestamp {
    now.checked_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX)
}

/// When the last of the reasons ends, if all of them do.
fn last(reasons: &[Kept]) -> Option<Timestamp> {
    let ends = reasons.iter().map(|kept| kept.until);
    ends.reduce(|one, other| Some(one?.max(other?))).flatten()
}
