//! Which of what is needed is read.

use backup_core::catalog::{Catalog, VerifyPass, VerifyPlace};
use backup_core::repository::VerifyLevel;
use jiff::Timestamp;

/// Chooses what is read, first among the packs, then in the log.
#[derive(Debug)]
pub(crate) enum Choice {
    Nothing,
    Share { percent: u64, seed: [u8; 32] },
    Budget(Budget),
    All { began: Timestamp },
}

/// A part of a pass through everything.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u64,
    pass: VerifyPass,
    /// Whether something was left for the next one.
    rest: bool,
}

impl Choice {
    /// What `level` says, and for a pass, where the one before has ended as `catalog` knows it.
    pub(crate) fn of(level: VerifyLevel, catalog: &Catalog, now: Timestamp, seed: [u8; 32]) -> Self {
        match level {
            VerifyLevel::Full => Self::All { began: now },
            VerifyLevel::Sample(percent) => Self::Share { percent: u64::from(percent.clamp(1, 100)), seed },
            VerifyLevel::Budget(bytes) => {
                let open = catalog.verify_pass().filter(|pass| pass.through.is_some());
                let pass = open.cloned().unwrap_or(VerifyPass { began: now, through: None });
                Self::Budget(Budget { left: bytes.max(1), pass, rest: false })
            }
            _ => Self::Nothing,
        }
    }

    /// Which of `items`, each with its place and its length in bytes, are read. The places are in order, and behind those of earlier calls.
    pub(crate) fn take<T>(&mut self, items: Vec<(VerifyPlace, u64, T)>) -> Vec<T> {
        match self {
            Self::Nothing => Vec::new(),
            Self::All { .. } => items.into_iter().map(|(_, _, item)| item).collect(),
            Self::Share { percent, seed } => {
                let mut drawn: Vec<_> =
                    items.into_iter().map(|(place, _, item)| (ticket(seed, place), place, item)).collect();
                drawn.sort_unstable_by_key(|(ticket, place, _)| (*ticket, *place));
                // Rounded up: a repository of one pack is not sampled by not looking at it.
                let count = (drawn.len() as u64 * *percent).div_ceil(100);
                drawn.truncate(usize::try_from(count).unwrap_or(usize::MAX));
                drawn.sort_unstable_by_key(|(_, place, _)| *place);
                drawn.into_iter().map(|(_, _, item)| item).collect()
            }
            Self::Budget(budget) => budget.take(items),
        }
    }

    /// What the catalog is told of the pass, after all was taken.
    pub(crate) fn pass(self) -> Option<VerifyPass> {
        match self {
            Self::All { began } => Some(VerifyPass { began, through: None }),
            Self::Budget(Budget { pass, rest, .. }) => {
                Some(VerifyPass { through: pass.through.filter(|_| rest), ..pass })
            }
            _ => None,
        }
    }
}

impl Budget {
    fn take<T>(&mut self, items: Vec<(VerifyPlace, u64, T)>) -> Vec<T> {
        let mut taken = Vec::new();
        let begin = self.pass.through;
        for (place, len, item) in items.into_iter().filter(|(place, ..)| begin.is_none_or(|begin| *place > begin)) {
            if self.left == 0 {
                self.rest = true;
                break;
            }
            self.left = self.left.saturating_sub(len);
            self.pass.through = Some(place);
            taken.push(item);
        }
        taken
    }
}

fn ticket(seed: &[u8; 32], place: VerifyPlace) -> u64 {
    let mut hasher = blake3::Hasher::new_keyed(seed);
    match place {
        VerifyPlace::Pack(id) => hasher.update(&id.session.to_bytes()).update(&id.number.to_le_bytes()),
        VerifyPlace::Log { epoch, sequence } => hasher.update(&epoch.0.to_le_bytes()).update(&sequence.to_le_bytes()),
    };
    let mut number = [0; 8];
    number.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::SessionId;
    use backup_core::catalog::{Event, PackId, Verification};
    use backup_core::log::LogEpoch;
    use proptest::prelude::*;

    fn packs(count: u32) -> Vec<(VerifyPlace, u64, VerifyPlace)> {
        let place = |number| VerifyPlace::Pack(PackId { session: SessionId::from_bytes([1; 16]), number });
        (0..count).map(|n| (place(n), 10, place(n))).collect()
    }

    fn log(count: u64) -> Vec<(VerifyPlace, u64, VerifyPlace)> {
        let place = |sequence| VerifyPlace::Log { epoch: LogEpoch(1), sequence };
        (0..count).map(|n| (place(n), 3, place(n))).collect()
    }

    #[test]
    fn a_share_is_rounded_up() {
        let mut choice = Choice::of(VerifyLevel::Sample(1), &Catalog::new(), Timestamp::UNIX_EPOCH, [7; 32]);
        assert_eq!(choice.take(packs(3)).len(), 1);
        assert_eq!(choice.take(log(101)).len(), 2);
        assert_eq!(choice.pass(), None);
    }

    proptest! {
        /// Whatever the budgets are, nothing is read again before everything else was.
        #[test]
        fn what_was_read_longest_ago_is_read_first(
            (count, pieces) in (0_u32..20, 0_u64..20),
            budgets in prop::collection::vec(0_u64..60, 1..60),
        ) {
            let mut catalog = Catalog::new();
            let mut read: Vec<VerifyPlace> = Vec::new();
            let all: Vec<_> = packs(count).into_iter().chain(log(pieces)).map(|(place, ..)| place).collect();
            let mut began = Vec::new();
            for (second, budget) in (0..).zip(budgets) {
                let now = Timestamp::from_second(second).unwrap();
                let mut choice = Choice::of(VerifyLevel::Budget(budget), &catalog, now, [0; 32]);
                let mut taken = choice.take(packs(count));
                taken.extend(choice.take(log(pieces)));
                let bytes: u64 = taken.iter().map(|place| if matches!(place, VerifyPlace::Pack(_)) { 10 } else { 3 }).sum();
                prop_assert!(bytes < budget.max(1) + 10);
                began.extend(taken.iter().map(|_| second));
                read.extend(taken);
                let mut verification = Verification::new("budget", now, now);
                verification.pass = choice.pass();
                catalog.apply(&Event::Verified { verification: Box::new(verification) }).unwrap();
            }
            for (at, place) in read.iter().enumerate() {
                prop_assert_eq!(*place, all[at % all.len()]);
            }
            // The pass that is through began when its first object was read.
            let passes = read.len() / all.len().max(1);
            if let Some(since) = catalog.read_since().filter(|_| !all.is_empty()) {
                prop_assert!(passes > 0);
                prop_assert!(since.as_second() <= began[(passes - 1) * all.len()]);
            }
        }
    }
}
