//! Timeline history files (`00000002.history`): from where to where each ancestor was followed.
//!
//! Source: `readTimeLineHistory` in `src/backend/access/transam/timeline.c`: lines `tli⇥X/X⇥reason`, oldest first; comments
//! begin with `#`; the reason is for people.

use crate::error::{Error, Result};
use crate::lsn::{Lsn, TimelineId};

/// A line has some hundred bytes and a cluster some hundred promotions.
const MAX_LENGTH: usize = 16 << 20;

/// One ancestor and where it was left.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimelineSwitch {
    /// The ancestor.
    pub timeline: TimelineId,
    /// Where it was left for the next one.
    pub end: Lsn,
    /// Why, as the server put it.
    pub reason: String,
}

/// The ancestors of a timeline, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimelineHistory {
    /// The timeline whose history this is.
    pub timeline: TimelineId,
    /// Its ancestors.
    pub ancestors: Vec<TimelineSwitch>,
}

impl TimelineHistory {
    /// Reads the history file of `timeline`. Never panics.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a line of another form, or timelines or positions that do not increase.
    pub fn parse(timeline: TimelineId, content: &[u8]) -> Result<Self> {
        let wrong = |reason: String| Error::malformed("timeline history", reason);
        if content.len() > MAX_LENGTH {
            return Err(wrong(format!("{} bytes", content.len())));
        }
        let text = String::from_utf8_lossy(content);
        let mut ancestors: Vec<TimelineSwitch> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut fields = line.splitn(3, char::is_whitespace);
            let ancestor: TimelineId = fields.next().unwrap_or_default().parse()?;
            let end: Lsn = fields.next().ok_or_else(|| wrong(format!("line {line:?} has no position")))?.parse()?;
            if ancestors.last().is_some_and(|last| last.timeline >= ancestor || last.end > end) || ancestor >= timeline
            {
                return Err(wrong(format!("timeline {ancestor} up to {end} is out of order")));
            }
            let reason = fields.next().unwrap_or_default().trim().to_owned();
            ancestors.push(TimelineSwitch { timeline: ancestor, end, reason });
        }
        Ok(Self { timeline, ancestors })
    }

    /// The timeline on which the byte at `position` lies, seen from this timeline.
    #[must_use]
    pub fn timeline_at(&self, position: Lsn) -> TimelineId {
        self.ancestors
            .iter()
            .find(|ancestor| position < ancestor.end)
            .map_or(self.timeline, |ancestor| ancestor.timeline)
    }

    /// Whether `timeline` is this one or one of its ancestors.
    #[must_use]
    pub fn contains(&self, timeline: TimelineId) -> bool {
        self.timeline == timeline || self.ancestors.iter().any(|ancestor| ancestor.timeline == timeline)
    }

    /// The name of the file.
    #[must_use]
    pub fn file_name(timeline: TimelineId) -> String {
        format!("{:08X}.history", timeline.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn three() -> TimelineId {
        TimelineId::new(3).unwrap()
    }

    #[test]
    fn a_history_of_two_promotions() {
        let text =
            b"# comment\n1\t0/30455E8\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-11-24 00:00:00+00\n";
        let history = TimelineHistory::parse(three(), text).unwrap();
        assert_eq!(history.ancestors.len(), 2);
        assert_eq!(history.ancestors[0].reason, "no recovery target specified");
        assert_eq!(history.timeline_at(Lsn(0x0304_55e7)).get(), 1);
        assert_eq!(history.timeline_at(Lsn(0x0304_55e8)).get(), 2);
        assert_eq!(history.timeline_at(Lsn(0x0500_0000)).get(), 3);
        assert_eq!(TimelineHistory::file_name(three()), "00000003.history");
    }

    #[test]
    fn disorder_is_refused() {
        for text in ["1", "x\t0/1", "1\t1", "2\t0/2\n1\t0/3", "1\t0/2\n2\t0/1", "3\t0/1", "1\t0/1\n1\t0/2"] {
            assert!(TimelineHistory::parse(three(), text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = TimelineHistory::parse(three(), &bytes);
        }
    }
}
