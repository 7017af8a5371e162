//! Where a restore stops: behind the last whole change at or before its target. Pure.

use jiff::Timestamp;

use super::framer::Framer;
use super::note::{Moment, StreamNote};
use super::tracker::Tracker;
use crate::error::Result;

/// Finds the last place at or before a limit where nothing is half done: no command is cut, no transaction is open.
///
/// ```
/// use backup_redis::stream::Cut;
///
/// # fn main() -> backup_redis::Result<()> {
/// let stream = b"*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\na\r\n*1\r\n$4\r\nEXEC\r\n";
/// let mut cut = Cut::new(1000, Some(0), 1040);
/// cut.push(stream)?;
/// assert_eq!(cut.stop(), 1000, "the transaction ends later");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Cut {
    framer: Framer,
    tracker: Tracker,
    limit: u64,
    stop: u64,
    database: Option<u64>,
}

impl Cut {
    /// A search that begins at `from`, where a command begins and no transaction is open, in `database` as far as that is known, and
    /// goes no further than `limit`.
    #[must_use]
    pub fn new(from: u64, database: Option<u64>, limit: u64) -> Self {
        Self { framer: Framer::new(from), tracker: Tracker::new(database), limit, stop: from, database }
    }

    /// Goes further, up to another limit.
    pub fn extend(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// Takes the next bytes of the stream. Whether more are needed: not when the limit has been passed.
    ///
    /// # Errors
    /// [`Error::Protocol`](crate::Error::Protocol) with the place where this is no stream of commands.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool> {
        let room = self.limit.saturating_sub(self.framer.offset());
        let here = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        let Self { framer, tracker, stop, database, .. } = self;
        framer.push(&bytes[..here], |command| {
            tracker.take(command);
            if !tracker.in_transaction() {
                *stop = command.end;
                *database = tracker.database();
            }
            Ok(())
        })?;
        Ok(self.framer.offset() < self.limit)
    }

    /// Where to stop, as far as the stream has come.
    #[must_use]
    pub fn stop(&self) -> u64 {
        self.stop
    }

    /// The database that the stream is in there, as far as it is known.
    #[must_use]
    pub fn database(&self) -> Option<u64> {
        self.database
    }
}

/// Where a restore of `stream`, whose first byte is at `from`, stops so that it goes no further than `limit`.
///
/// # Errors
/// [`Error::Protocol`](crate::Error::Protocol) with the place where this is no stream of commands.
pub fn cut(stream: &[u8], from: u64, limit: u64) -> Result<u64> {
    let mut cut = Cut::new(from, None, limit);
    cut.push(stream)?;
    Ok(cut.stop())
}

/// The limit of a restore to `time`, of the moments that `notes` tell in the order of the stream, from `from` on: the changes up to the
/// limit had come by then. None when no change is known to have come later.
///
/// With `inclusive` a change that came at exactly that time had come by then.
#[must_use]
pub fn limit_at<'a>(
    notes: impl IntoIterator<Item = &'a StreamNote>,
    from: u64,
    time: Timestamp,
    inclusive: bool,
) -> Option<u64> {
    let later = |moment: &&Moment| moment.offset > from && (moment.at > time || (!inclusive && moment.at == time));
    let first = notes.into_iter().flat_map(|note| &note.moments).find(later);
    // Whatever ends before the end of the later change had come before it.
    first.map(|moment| moment.offset - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::sample::command;
    use proptest::prelude::*;

    fn words(kind: u8) -> Vec<u8> {
        match kind {
            0 => command(&[b"SET", b"key", b"value"]),
            1 => command(&[b"MULTI"]),
            2 => command(&[b"EXEC"]),
            3 => command(&[b"SELECT", b"7"]),
            _ => command(&[b"PING"]),
        }
    }

    #[test]
    fn time_becomes_the_last_change_that_had_come() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let moment = |offset, second| Moment { offset, at: at(second) };
        let notes = [
            StreamNote { database: None, moments: vec![moment(10, 1), moment(20, 2)] },
            StreamNote::default(),
            StreamNote { database: None, moments: vec![moment(50, 4)] },
        ];
        let limit = |second, inclusive| limit_at(&notes, 0, at(second), inclusive);
        assert_eq!(limit(0, true), Some(9));
        assert_eq!(limit(1, true), Some(19));
        assert_eq!(limit(1, false), Some(9));
        assert_eq!(limit(3, true), Some(49));
        assert_eq!(limit(4, true), None);
        assert_eq!(limit_at(&notes, 30, at(0), true), Some(49), "earlier ones are part of the backup");
    }

    proptest! {
        #[test]
        fn a_cut_is_the_last_whole_change_before_the_limit(
            kinds in prop::collection::vec(0_u8..5, 0..30),
            limit in 0_u64..900,
            piece in 1_usize..50,
        ) {
            // Servers do not nest transactions.
            let (mut stream, mut open, mut whole) = (Vec::new(), false, vec![100_u64]);
            for kind in kinds {
                if (kind == 1 && open) || (kind == 2 && !open) {
                    continue;
                }
                open = (open || kind == 1) && kind != 2;
                stream.extend(words(kind));
                if !open {
                    whole.push(100 + stream.len() as u64);
                }
            }
            let limit = 100 + limit;
            let expected = whole.iter().rfind(|end| **end <= limit).copied().unwrap_or(100);
            prop_assert_eq!(cut(&stream, 100, limit).unwrap(), expected);
            let mut search = Cut::new(100, None, limit);
            for bytes in stream.chunks(piece) {
                if !search.push(bytes).unwrap() {
                    break;
                }
            }
            prop_assert_eq!(search.stop(), expected);
        }
    }
}
