//! Claims on backups, and what follows from them.

use jiff::Timestamp;

use super::{Backup, ExpireReason, Kept, Reason, Verdict};
use crate::CLOCK_TOLERANCE;
use crate::profile::Profile;

/// The claims on each backup, by its index in the facts.
pub(super) struct Claims {
    now: Timestamp,
    kept: Vec<Vec<Kept>>,
    /// Of the claims that have ended the one that ended last.
    ended: Vec<Option<(Reason, Timestamp)>>,
}

impl Claims {
    pub(super) fn new<Id>(now: Timestamp, backups: &[Backup<Id>]) -> Self {
        Self { now, kept: vec![Vec::new(); backups.len()], ended: vec![None; backups.len()] }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Claims a backup until a moment, or for good.
    pub(super) fn add(&mut self, index: usize, reason: Reason, until: Option<Timestamp>) {
        match until {
            Some(end) if end <= self.now => {
                let latest = &mut self.ended[index];
                if latest.is_none_or(|(_, known)| end > known) {
                    *latest = Some((reason, end));
                }
            }
            _ => self.kept[index].push(Kept { reason, until }),
        }
    }

    /// As [`add`](Self::add), for a claim that was ended by the coming of another backup: not later than now, even if that one's
    /// clock is a little ahead.
    pub(super) fn add_until_superseded(&mut self, index: usize, reason: Reason, by: Option<Timestamp>) {
        self.add(index, reason, by.map(|end| end.min(self.now)));
    }

    /// The claims that do not depend on tiers and logs. Returns the indices of the backups that count, by the order in which
    /// they ended.
    pub(super) fn common<Id: Copy + Ord>(&mut self, profile: &Profile, backups: &[Backup<Id>]) -> Vec<usize> {
        let horizon = horizon(self.now);
        let mut order: Vec<usize> = Vec::with_capacity(backups.len());
        for (index, backup) in backups.iter().enumerate() {
            if backup.hold {
                self.add(index, Reason::Hold, None);
            }
            if let Some(age) = profile.minimum_age {
                self.add(index, Reason::MinimumAge, Some(age.after(backup.ended)));
            }
            if !backup.good {
                continue;
            }
            if backup.ended <= horizon {
                order.push(index);
            } else {
                let believed_at = backup.ended.checked_sub(CLOCK_TOLERANCE).unwrap_or(Timestamp::MIN);
                self.add(index, Reason::FutureTimestamp { believed_at }, None);
            }
        }
        order.sort_by_key(|index| (backups[*index].ended, backups[*index].id));
        self.newest(profile, backups, &order);
        order
    }

    fn newest<Id>(&mut self, profile: &Profile, backups: &[Backup<Id>], order: &[usize]) {
        let minimum = usize::try_from(profile.minimum_count).unwrap_or(usize::MAX);
        for (place, index) in order.iter().enumerate() {
            let after = |count: usize| order.get(place.saturating_add(count)).map(|index| backups[*index].ended);
            self.add_until_superseded(*index, Reason::LastGood, after(1));
            if minimum > 1 {
                self.add_until_superseded(*index, Reason::MinimumCount, after(minimum));
            }
        }
        if order.is_empty() {
            let bad = backups.iter().enumerate().filter(|(_, backup)| !backup.good);
            bad.for_each(|(index, _)| self.add(index, Reason::NothingBetter, None));
        }
    }

    /// What follows, in the order of the facts.
    pub(super) fn verdicts<Id>(self, backups: &[Backup<Id>]) -> impl Iterator<Item = Verdict> {
        let Self { now, kept, ended } = self;
        let claims = kept.into_iter().zip(ended).zip(backups);
        claims.map(move |((reasons, ended), backup)| match (reasons.is_empty(), ended) {
            (false, _) => Verdict::Keep { expires_at: last(&reasons), reasons },
            (true, Some((reason, since))) if backup.good => {
                Verdict::Expire { reason: ExpireReason::NoLonger(reason), since }
            }
            // A bad one only ever waited for its minimum age.
            (true, ended) => {
                let since = ended.map_or(backup.ended, |(_, since)| since).min(now);
                Verdict::Expire { reason: ExpireReason::ProvenBad, since }
            }
        })
    }
}

/// The latest moment that is not taken for the future.
pub(super) fn horizon(now: Timestamp) -> Timestamp {
    now.checked_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX)
}

/// When the last of the reasons ends, if all of them do.
fn last(reasons: &[Kept]) -> Option<Timestamp> {
    let ends = reasons.iter().map(|kept| kept.until);
    ends.reduce(|one, other| Some(one?.max(other?))).flatten()
}
