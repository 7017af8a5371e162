//! Which log is kept.
//!
//! Backups are complete without log, so log is only kept for what it leads to: the moments of the window, and the present.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::claims::{Claims, Placed};
use super::history::{Base, Histories, History};
use super::{Facts, LogKept, LogPlan, LogReason, Reason};
use crate::age::Age;

/// What is needed of each history's log.
pub(super) struct Needs<'a, Id> {
    histories: &'a Histories,
    facts: &'a Facts<Id>,
    /// By the histories' numbers.
    kept: Vec<Vec<LogKept<Id>>>,
}

impl<'a, Id: Copy + Ord + fmt::Display> Needs<'a, Id> {
    pub(super) fn new(histories: &'a Histories, facts: &'a Facts<Id>) -> Self {
        Self { histories, facts, kept: vec![Vec::new(); histories.len()] }
    }

    /// Keeps what leads to the present: from the newest good backup, and from the one that the followed log is replayed from,
    /// which is another one if the newest lies on what a failed primary had and its successor has not.
    pub(super) fn replay(&mut self, counted: &[Placed], claims: &mut Claims) {
        if let Some(following) = self.histories.following {
            match self.histories.serving(following) {
                Some((on, base)) => {
                    let lineage = self.histories.get(following).key;
                    let replay = claims.reason(Reason::Replay { lineage });
                    claims.add(base.place, replay, None);
                    self.path(following, on, base, LogReason::Replay { base: self.id(base) }, None);
                }
                None => self.whole(following, LogReason::NoBackupYet, None),
            }
        }
        let newest = counted.last().map(|placed| &self.facts.backups[placed.index]);
        let place = newest.and_then(|backup| Some((backup.id, backup.position?)));
        if let Some((base, position)) = place
            && let Some(on) = self.histories.find(position.lineage)
        {
            self.add(on, LogReason::Replay { base }, position.offset, None);
        }
        for number in 0..self.histories.len() {
            if counted.is_empty() {
                self.whole(number, LogReason::NoBackupYet, None);
            }
            // What follows a backup whose time lies in the future is kept until it is known what that is.
            if let Some((on, base)) = self.furthest(number, |history| history.refused) {
                self.path(number, on, base, LogReason::FutureTimestamp { base: self.id(base) }, None);
            }
            if let Some((on, base)) = self.furthest(number, |history| history.held) {
                self.path(number, on, base, LogReason::Hold { base: self.id(base) }, None);
            }
        }
    }

    /// Of the backups that `of` tells of, the one furthest back from which history `number` is reached, with its own history.
    fn furthest(&self, number: usize, of: impl Fn(&History) -> Option<Base>) -> Option<(usize, Base)> {
        let reaching =
            |(on, limit): (usize, u64)| Some((on, of(self.histories.get(on)).filter(|base| base.offset <= limit)?));
        self.histories.path(number).filter_map(reaching).last()
    }

    /// Keeps what leads to the moments of the last `length`.
    pub(super) fn window(&mut self, length: Age, claims: &mut Claims) {
        let start = length.before(claims.now());
        for number in 0..self.histories.len() {
            let last = self.histories.get(number).last;
            // The last moment itself is in the window as long as the window begins at it.
            let over = length.after(last).checked_add(SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MAX);
            let oldest = self.window_bases(number, length, over, claims);
            if last < start {
                continue;
            }
            match oldest {
                Some((on, base, until)) => {
                    self.path(number, on, base, LogReason::Window { base: self.id(base) }, Some(until));
                }
                None => self.whole(number, LogReason::NoBackupYet, Some(over)),
            }
        }
    }

    /// Claims the backups from which moments of history `number` in the window are reached: every one in it, and the one
    /// before. Returns where the needed log begins.
    ///
    /// Those further back are told when they were needed last, so that it is known since when they are not: on other
    /// histories the nearest one is enough, since the others were needed last by their own history.
    fn window_bases(
        &self,
        number: usize,
        length: Age,
        over: Timestamp,
        claims: &mut Claims,
    ) -> Option<(usize, Base, Timestamp)> {
        let claim = claims.reason(Reason::Window { lineage: self.histories.get(number).key });
        let now = claims.now();
        let (mut until, mut oldest) = (over, None);
        for (on, limit) in self.histories.path(number) {
            for (place, base) in self.histories.bases(on, limit).enumerate() {
                if until <= now && on != number && place > 0 {
                    break;
                }
                claims.add(base.place, claim, Some(until));
                // On one history the lowest offset counts, should offsets and times disagree.
                let lower = |(known, lowest, _): (usize, Base, Timestamp)| known != on || base.offset < lowest.offset;
                if until > now && oldest.is_none_or(lower) {
                    oldest = Some((on, *base, until));
                }
                until = until.min(length.after(base.ended));
            }
        }
        oldest
    }

    /// Needs the log from `base`, which lies on history `on`, to the end of history `to`.
    fn path(&mut self, to: usize, on: usize, base: Base, reason: LogReason<Id>, until: Option<Timestamp>) {
        let histories = self.histories;
        for (number, _) in histories.path(to) {
            if number == on {
                self.add(number, reason, base.offset, until);
                break;
            }
            self.whole(number, reason, until);
        }
    }

    fn whole(&mut self, number: usize, reason: LogReason<Id>, until: Option<Timestamp>) {
        self.add(number, reason, 0, until);
    }

    /// Of each kind of reason the one that reaches back furthest is enough; of those that reach back equally, the one that
    /// lasts longest.
    fn add(&mut self, number: usize, reason: LogReason<Id>, from: u64, until: Option<Timestamp>) {
        let kept = &mut self.kept[number];
        let rank = |kept: &LogKept<Id>| (std::cmp::Reverse(kept.from), kept.until.is_none(), kept.until);
        let new = LogKept { reason, from, until };
        let alike = |kept: &&mut LogKept<Id>| std::mem::discriminant(&kept.reason) == std::mem::discriminant(&reason);
        match kept.iter_mut().find(alike) {
            Some(known) if rank(known) < rank(&new) => *known = new,
            Some(_) => {}
            None => kept.push(new),
        }
    }

    fn id(&self, base: Base) -> Id {
        self.facts.backups[base.index].id
    }

    /// What follows, in the order of the facts.
    pub(super) fn plan(self) -> Vec<LogPlan<Id>> {
        let plan = |log: &super::Log| {
            let reasons = self.histories.find(log.lineage).map_or_else(Vec::new, |number| self.kept[number].clone());
            let keep_from = reasons.iter().map(|kept| kept.from).min();
            let mut plan = LogPlan { lineage: log.lineage, keep_from, reasons, kept_bytes: 0, expired_bytes: 0 };
            for range in &log.ranges {
                let bytes = if plan.keeps(range) { &mut plan.kept_bytes } else { &mut plan.expired_bytes };
                *bytes = bytes.saturating_add(range.bytes);
            }
            plan
        };
        self.facts.logs.iter().map(plan).collect()
    }
}
