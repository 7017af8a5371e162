//! The source's clock, as far as we know it: ours, and how far the source's is ahead. Nothing here reads a clock.

use jiff::{SignedDuration, Timestamp};

/// Translates moments of our clock into moments of the source's, which never go backwards.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceClock {
    ahead: SignedDuration,
    last: Option<Timestamp>,
}

impl SourceClock {
    /// The source said `theirs` between the moments `asked` and `heard` of our clock.
    pub(super) fn learn(&mut self, theirs: Timestamp, asked: Timestamp, heard: Timestamp) {
        let halfway = asked.checked_add(heard.duration_since(asked) / 2).unwrap_or(asked);
        self.ahead = theirs.duration_since(halfway);
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
        clock.learn(at(130), at(20), at(40));
        assert_eq!(clock.at(at(41)), at(141));
        clock.learn(at(50), at(42), at(42));
        assert_eq!(clock.at(at(43)), at(141), "the source's clock was put back");
        assert_eq!(clock.at(at(200)), at(208));
    }
}
