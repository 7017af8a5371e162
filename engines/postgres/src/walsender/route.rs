//! The way of a log through its timelines, as its newest one sees it.

use std::ops::Range;

use bytes::Bytes;

use super::feed::LogEnd;
use crate::error::{Error, Result};
use crate::lsn::{Lsn, TimelineId};
use crate::wal::TimelineHistory;

/// The newest timeline with its ancestors, and how far it reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    end: LogEnd,
    history: TimelineHistory,
}

/// Where a timeline was left for which other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fork {
    pub(super) at: Lsn,
    pub(super) next: TimelineId,
}

impl Route {
    /// The way to `end`; `history` is the content of the history file of its timeline.
    pub(super) fn new(end: LogEnd, history: Option<&Bytes>) -> Result<Self> {
        let history = match history {
            Some(content) => TimelineHistory::parse(end.timeline, content)?,
            None if end.timeline == TimelineId::FIRST => {
                TimelineHistory { timeline: end.timeline, ancestors: Vec::new() }
            }
            None => {
                return Err(Error::malformed(
                    "timeline history",
                    format!("{} is missing", TimelineHistory::file_name(end.timeline)),
                ));
            }
        };
        if let Some(last) = history.ancestors.last()
            && last.end > end.position
        {
            return Err(Error::malformed("log", format!("ends at {end}, before that timeline began at {}", last.end)));
        }
        Ok(Self { end, history })
    }

    /// The same way, followed further on its newest timeline. `None` when `end` lies on another one or is not further.
    pub(super) fn further(&self, end: LogEnd) -> Option<Self> {
        let further = end.timeline == self.end.timeline && end.position > self.end.position;
        further.then(|| Self { end, history: self.history.clone() })
    }

    pub(super) fn end(&self) -> LogEnd {
        self.end
    }

    /// Whether `timeline` is on the way.
    pub(super) fn has(&self, timeline: TimelineId) -> bool {
        timeline == self.end.timeline || self.history.ancestors.iter().any(|a| a.timeline == timeline)
    }

    /// Where `timeline`, which is on the way, was left; `None` for the newest one.
    pub(super) fn fork(&self, timeline: TimelineId) -> Option<Fork> {
        let index = self.history.ancestors.iter().position(|a| a.timeline == timeline)?;
        let next = self.history.ancestors.get(index + 1).map_or(self.end.timeline, |a| a.timeline);
        Some(Fork { at: self.history.ancestors[index].end, next })
    }

    /// How far the log of `timeline` reaches.
    pub(super) fn limit(&self, timeline: TimelineId) -> Lsn {
        self.fork(timeline).map_or(self.end.position, |fork| fork.at)
    }

    /// Cuts `range` where timelines meet: each part with the timeline that its bytes were written on. A timeline's first
    /// segment begins with a copy of its ancestor's bytes; they are the ancestor's.
    pub(super) fn legs(&self, range: Range<Lsn>) -> Vec<(TimelineId, Range<Lsn>)> {
        let mut legs = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let timeline = self.history.timeline_at(at);
            let end = self.fork(timeline).map_or(range.end, |fork| fork.at.min(range.end));
            legs.push((timeline, at..end));
            at = end;
        }
        legs
    }

    /// The timelines whose segments may hold the bytes of `timeline` in the segment that ends at `segment_end`, newest
    /// first: the first segment of a timeline begins with a copy of its ancestors' part of it, and the file of the
    /// ancestor may not exist (`WalSndSegmentOpen`).
    pub(super) fn holders(&self, timeline: TimelineId, segment_end: Lsn) -> Vec<TimelineId> {
        let mut holders = vec![timeline];
        let mut current = timeline;
        while let Some(fork) = self.fork(current).filter(|fork| fork.at < segment_end) {
            holders.push(fork.next);
            current = fork.next;
        }
        holders.reverse();
        holders
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn route(number: u32, position: u64, history: &str) -> Result<Route> {
        let end = LogEnd { timeline: timeline(number), position: Lsn(position) };
        Route::new(end, (!history.is_empty()).then(|| Bytes::copy_from_slice(history.as_bytes())).as_ref())
    }

    #[test]
    fn a_way_over_three_timelines() {
        let route = route(5, 0x900, "1\t0/100\tx\n3\t0/500\tx\n").unwrap();
        assert!(route.has(timeline(1)) && route.has(timeline(3)) && route.has(timeline(5)));
        assert!(!route.has(timeline(2)) && !route.has(timeline(6)));
        assert_eq!(route.fork(timeline(1)), Some(Fork { at: Lsn(0x100), next: timeline(3) }));
        assert_eq!(route.fork(timeline(3)), Some(Fork { at: Lsn(0x500), next: timeline(5) }));
        assert_eq!(route.fork(timeline(5)), None);
        assert_eq!((route.limit(timeline(3)), route.limit(timeline(5))), (Lsn(0x500), Lsn(0x900)));
        let legs = route.legs(Lsn(0x80)..Lsn(0x600));
        assert_eq!(
            legs,
            [
                (timeline(1), Lsn(0x80)..Lsn(0x100)),
                (timeline(3), Lsn(0x100)..Lsn(0x500)),
                (timeline(5), Lsn(0x500)..Lsn(0x600))
            ]
        );
        assert_eq!(route.holders(timeline(1), Lsn(0x100)), [timeline(1)]);
        assert_eq!(route.holders(timeline(1), Lsn(0x400)), [timeline(3), timeline(1)]);
        assert_eq!(route.holders(timeline(1), Lsn(0x800)), [timeline(5), timeline(3), timeline(1)]);
    }

    #[test]
    fn a_way_is_followed_further_and_never_back() {
        let route = route(2, 0x900, "1\t0/100\tx\n").unwrap();
        let to = |number, position| route.further(LogEnd { timeline: timeline(number), position: Lsn(position) });
        assert_eq!(to(2, 0xa00).unwrap().limit(timeline(2)), Lsn(0xa00));
        assert_eq!(to(2, 0xa00).unwrap().limit(timeline(1)), Lsn(0x100));
        assert!(to(2, 0x900).is_none() && to(2, 0x800).is_none() && to(3, 0xa00).is_none() && to(1, 0xa00).is_none());
    }

    #[test]
    fn a_timeline_without_its_history_is_no_way() {
        assert!(route(1, 0x100, "").is_ok());
        assert!(route(2, 0x100, "").is_err());
        assert!(route(2, 0x100, "1\t0/200\tx\n").is_err(), "a log that ends before its timeline began");
    }

    proptest! {
        #[test]
        fn legs_meet_and_cover(ends in prop::collection::vec(1_u64..1000, 0..6), from in 0_u64..1500, len in 0_u64..1500) {
            let mut ends = ends;
            ends.sort_unstable();
            let text: String = ends.iter().enumerate().map(|(i, end)| format!("{}\t0/{end:X}\tx\n", i + 1)).collect();
            let route = route(ends.len() as u32 + 1, 5000, &text).unwrap();
            let range = Lsn(from)..Lsn(from + len);
            let legs = route.legs(range.clone());
            let mut at = range.start;
            for (timeline, leg) in &legs {
                prop_assert_eq!(leg.start, at);
                prop_assert!(leg.end > leg.start && route.has(*timeline) && leg.end <= route.limit(*timeline));
                at = leg.end;
            }
            prop_assert_eq!(at, range.end);
        }
    }
}
