//! What a stream of commands has come to: the database it is in, and whether a transaction is open.

use super::framer::Command;

/// Follows a stream from command to command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracker {
    database: Option<u64>,
    open: bool,
}

impl Tracker {
    /// A tracker of a stream that is in `database`, outside of a transaction. A server that begins to send a stream says which database
    /// it is in before the first change; one that goes on assumes that this is known.
    #[must_use]
    pub fn new(database: Option<u64>) -> Self {
        Self { database, open: false }
    }

    /// The database that the next command is about, as far as it is known.
    #[must_use]
    pub fn database(&self) -> Option<u64> {
        self.database
    }

    /// Whether a transaction has begun and not ended.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.open
    }

    /// Takes the next command. Whether a change was complete with it: a command by itself, or the end of a transaction.
    pub fn take(&mut self, command: &Command<'_>) -> bool {
        match command.name {
            b"SELECT" => {
                let number = std::str::from_utf8(command.argument).ok().and_then(|text| text.parse().ok());
                self.database = number;
                false
            }
            b"MULTI" => {
                self.open = true;
                false
            }
            b"EXEC" | b"DISCARD" => std::mem::take(&mut self.open) && command.name == b"EXEC",
            b"PING" | b"REPLCONF" => false,
            _ => !self.open && command.words > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Framer;
    use crate::stream::sample::command;

    #[test]
    fn changes_are_complete_outside_of_transactions_only() {
        let words: [&[&[u8]]; 12] = [
            &[b"SELECT", b"3"],
            &[b"SET", b"a", b"1"],
            &[b"PING"],
            &[b"MULTI"],
            &[b"SET", b"b", b"1"],
            &[b"SELECT", b"0"],
            &[b"DEL", b"b"],
            &[b"EXEC"],
            &[b"REPLCONF", b"GETACK", b"*"],
            &[b"MULTI"],
            &[b"DISCARD"],
            &[b"flushall"],
        ];
        let bytes: Vec<u8> = words.iter().flat_map(|words| command(words)).collect();
        let (mut tracker, mut seen) = (Tracker::new(None), Vec::new());
        Framer::new(0)
            .push(&bytes, |command| {
                let complete = tracker.take(command);
                seen.push((complete, tracker.in_transaction(), tracker.database()));
                Ok(())
            })
            .unwrap();
        let complete: Vec<_> = seen.iter().map(|(complete, ..)| *complete).collect();
        assert_eq!(complete, [false, true, false, false, false, false, false, true, false, false, false, true]);
        assert_eq!(seen[3..8].iter().filter(|(_, open, _)| *open).count(), 4);
        assert_eq!((seen[0].2, seen[11].2), (Some(3), Some(0)));
    }
}
