//! The source's clock, as far as we know it: ours, and how far the source's is ahead. Nothing here reads a clock.

use jiff::{SignedDuration, Timestamp};

/// Translates moments of our clock into moments of the source's, which never go backwards.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceClock {
    ahead: SignedDuration,
    last: Option<Timestamp>,
}

impl SourceClock {
    /// The source said `theirs` after it was asked at the moment `asked` of our clock.
    ///
    /// It may have said so any time until we heard it. Taken is the earliest, so that a moment is told too late, by a round trip at
    /// most, and never too early: a restore to it holds nothing that had not happened by then.
    pub(super) fn learn(&mut self, theirs: Timestamp, asked: Timestamp) {
        self.ahead = theirs.duration_since(asked);
    }

    /// The moment `ours` by the source's clock, or the last one that was told, if that is later.
    pub(super) fn at(&mut self, ours: Timestamp) -> Timestamp {
        let theirs = ours.checked_add(self.ahead).unwrap_or(ours);
        // What is stored has microseconds.
        let theirs = Timestamp::from_microsecond(theirs.as_microsecond()).unwrap_or(theirs);
        let theirs = self.last.map_or(theirs, |last| last.max(theirs));
        self.last = Some(theirs);
        theirs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_the_sources_and_never_go_back() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut clock = SourceClock::default();
        assert_eq!(clock.at(at(10)), at(10));
        // Whenever it was said between 20 and 40, what happened at 131 of the source came at 21 or later.
        clock.learn(at(130), at(20));
        assert_eq!(clock.at(at(41)), at(151));
        clock.learn(at(50), at(42));
        assert_eq!(clock.at(at(43)), at(151), "the source's clock was put back");
        assert_eq!(clock.at(at(200)), at(208));
    }
}
