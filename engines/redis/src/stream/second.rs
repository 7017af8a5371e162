//! Where in a stream a second begins, for files that tell it. Pure.

use std::collections::VecDeque;

use super::framer::Framer;
use super::note::Moment;
use super::tracker::Tracker;
use crate::error::{Error, Result};

/// The changes from `offset` on came in this second or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Second {
    /// Where a command begins and no transaction is open.
    pub offset: u64,
    /// Seconds since 1970.
    pub second: i64,
}

/// Finds the beginnings of seconds. Keeps one entry for every second in which a change came.
#[derive(Debug, Clone)]
pub struct Seconds {
    framer: Framer,
    tracker: Tracker,
    /// Where the present change began.
    change: u64,
    /// The first moments of seconds that the stream has not come to.
    moments: VecDeque<Moment>,
    /// The second of the last moment that was told.
    told: i64,
    found: Vec<Second>,
}

impl Seconds {
    /// A search that begins at `from`, where a command begins and no transaction is open.
    #[must_use]
    pub fn new(from: u64, database: Option<u64>) -> Self {
        Self {
            framer: Framer::new(from),
            tracker: Tracker::new(database),
            change: from,
            moments: VecDeque::new(),
            told: i64::MIN,
            found: Vec::new(),
        }
    }

    /// Tells moments of the stream. They come before the bytes that they are about, and behind those told before.
    pub fn know(&mut self, mut moments: Vec<Moment>) {
        moments.sort_by_key(|moment| (moment.offset, moment.at));
        for moment in moments {
            if moment.at.as_second() > self.told {
                self.told = moment.at.as_second();
                self.moments.push_back(moment);
            }
        }
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// [`Error::Protocol`](crate::Error::Protocol) with the place where this is no stream of commands.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let Self { framer, tracker, change, moments, found, .. } = self;
        framer.push(bytes, |command| {
            if command.words == 0 {
                // A server that reads it out of a file takes it for damage.
                return Err(Error::Protocol(format!("an empty command at offset {}", command.start)));
            }
            if !tracker.in_transaction() {
                *change = command.start;
            }
            tracker.take(command);
            if tracker.in_transaction() {
                return Ok(());
            }
            let mut second = None;
            while let Some(moment) = moments.front().filter(|moment| moment.offset <= command.end) {
                second = Some(moment.at.as_second());
                moments.pop_front();
            }
            found.extend(second.map(|second| Second { offset: *change, second }));
            Ok(())
        })
    }

    /// The beginnings that were found, in order.
    #[must_use]
    pub fn finish(self) -> Vec<Second> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::sample::command;
    use jiff::Timestamp;

    #[test]
    fn a_second_begins_before_its_first_change() {
        let words: [&[&[u8]]; 6] = [
            &[b"SELECT", b"3"],
            &[b"SET", b"a", b"1"],
            &[b"MULTI"],
            &[b"SET", b"b", b"1"],
            &[b"EXEC"],
            &[b"SET", b"c", b"1"],
        ];
        let ends: Vec<u64> =
            (0..6).map(|last| 7 + words[..=last].iter().map(|w| command(w).len() as u64).sum::<u64>()).collect();
        let bytes: Vec<u8> = words.iter().flat_map(|words| command(words)).collect();
        let at = |millis| Timestamp::from_millisecond(millis).unwrap();
        let moments = [(ends[1], 1_900), (ends[4], 3_100), (ends[5], 3_900)];
        let moments: Vec<_> = moments.map(|(offset, millis)| Moment { offset, at: at(millis) }).into();
        for piece in [1, 5, 1000] {
            let mut seconds = Seconds::new(7, None);
            seconds.know(moments.clone());
            bytes.chunks(piece).for_each(|bytes| seconds.push(bytes).unwrap());
            // The transaction as a whole is of the second in which it ended, and so is what came later in it.
            let wanted = [Second { offset: ends[0], second: 1 }, Second { offset: ends[1], second: 3 }];
            assert_eq!(seconds.finish(), wanted);
        }
        Seconds::new(0, None).push(b"\r\n").unwrap_err();
    }
}
