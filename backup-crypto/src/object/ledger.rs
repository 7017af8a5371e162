//! Which indices of an object were sealed: the guard against nonce reuse.
//!
//! Exact, in any order, from any thread. Sealers work mostly in increasing order, so the ledger is a watermark and the
//! few indices beyond it; one uncontended lock per segment costs nanoseconds beside the sealing of it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::object::SegmentHeader;

#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Claims>);

#[derive(Debug, Default)]
struct Claims {
    /// Every index below it is claimed.
    below: u32,
    /// Claimed indices above the watermark.
    beyond: BTreeSet<u32>,
    last: Option<u32>,
}

impl Claims {
    fn highest(&self) -> Option<u32> {
        self.beyond.last().copied().or(self.below.checked_sub(1))
    }
}

impl Ledger {
    /// Claims the index of `segment` for good, also if sealing fails afterwards.
    pub(super) fn claim(&self, segment: &SegmentHeader, name: &str) -> Result<()> {
        let index = segment.index;
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if index < claims.below || claims.beyond.contains(&index) {
            return Err(Error::SegmentRepeated { name: name.into(), index });
        }
        let highest = claims.highest().filter(|highest| segment.last && *highest > index);
        let end = claims.last.filter(|last| segment.last || index > *last);
        if let Some(other) = highest.or(end) {
            return Err(Error::SegmentOrder { name: name.into(), index, other });
        }
        if segment.last {
            claims.last = Some(index);
        }
        if index == claims.below {
            claims.below += 1;
            while claims.beyond.first() == Some(&claims.below) {
                claims.beyond.pop_first();
                claims.below += 1;
            }
        } else {
            claims.beyond.insert(index);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(index: u32, last: bool) -> SegmentHeader {
        SegmentHeader { index, last, plain_len: 0, codec: 0, role: 0 }
    }

    proptest! {
        #[test]
        fn every_index_is_granted_once(order in proptest::collection::vec(0_u32..64, 0..200)) {
            let ledger = Ledger::default();
            let mut granted = BTreeSet::new();
            for index in order {
                prop_assert_eq!(ledger.claim(&segment(index, false), "a").is_ok(), granted.insert(index));
            }
        }
    }

    #[test]
    fn the_last_segment_ends_the_object() {
        let ledger = Ledger::default();
        for index in [0, 2] {
            ledger.claim(&segment(index, false), "a").unwrap();
        }
        assert!(matches!(ledger.claim(&segment(1, true), "a"), Err(Error::SegmentOrder { index: 1, other: 2, .. })));
        ledger.claim(&segment(4, true), "a").unwrap();
        assert!(matches!(ledger.claim(&segment(5, false), "a"), Err(Error::SegmentOrder { other: 4, .. })));
        assert!(matches!(ledger.claim(&segment(3, true), "a"), Err(Error::SegmentOrder { other: 4, .. })));
        assert!(matches!(ledger.claim(&segment(4, true), "a"), Err(Error::SegmentRepeated { .. })));
        // A slower worker may still deliver a segment before the end.
        ledger.claim(&segment(3, false), "a").unwrap();
    }

    #[test]
    fn many_threads_share_every_index_once() {
        let ledger = Ledger::default();
        let granted: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|i| ledger.claim(&segment(*i, false), "a").is_ok()).count()))
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(granted, 1000);
    }
}
