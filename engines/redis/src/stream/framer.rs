//! Where commands begin and end in a replication stream, without keeping what is in them.
//!
//! The stream is what a replica executes: commands as arrays of strings, one after the other. Only the name and the first argument are
//! looked at, and only as far as they are short; a value of any size passes without being kept.

use crate::error::{Error, Result};

/// Names of commands and numbers of databases are not longer.
const SHORT: usize = 24;
/// More words or bytes are in no command: the server's own limits are far below.
const MOST: u64 = 1 << 48;

/// A command of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command<'a> {
    /// Where it begins.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// How many words it has. A lone line break is a command without any.
    pub words: u64,
    /// Its name in upper case; empty when it is longer than any that matters.
    pub name: &'a [u8],
    /// Its first argument; empty when there is none, or a long one.
    pub argument: &'a [u8],
}

impl Command<'_> {
    /// Whether it says nothing but that the server is there, or that it wants to hear from us.
    #[must_use]
    pub fn is_sign_of_life(&self) -> bool {
        self.words == 0 || matches!(self.name, b"PING" | b"REPLCONF")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a command.
    Between,
    /// In the number behind `*`, `$`; whether a digit has come.
    Count {
        number: u64,
        digits: bool,
    },
    Head,
    Length {
        number: u64,
        digits: bool,
    },
    /// In a word, of which so many bytes are missing.
    Body {
        missing: u64,
    },
    /// Before the line break behind a number of words, a length, or a word.
    Break {
        after: After,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Count(u64),
    Length(u64),
    Body,
    Nothing,
}

/// Finds the commands of a stream that comes in pieces of any size.
#[derive(Debug, Clone)]
pub struct Framer {
    at: u64,
    start: u64,
    state: State,
    words: u64,
    /// Words of the present command that have not come.
    missing: u64,
    name: Short,
    argument: Short,
}

/// The beginning of a word, if it is short.
#[derive(Debug, Clone, Copy, Default)]
struct Short {
    bytes: [u8; SHORT],
    len: usize,
    long: bool,
}

impl Short {
    fn add(&mut self, bytes: &[u8]) {
        match self.bytes.get_mut(self.len..self.len + bytes.len()) {
            Some(room) if !self.long => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            _ => self.long = true,
        }
    }

    fn get(&self) -> &[u8] {
        if self.long { &[] } else { &self.bytes[..self.len] }
    }
}

impl Framer {
    /// A framer whose first byte is at `offset`, where a command begins.
    #[must_use]
    pub fn new(offset: u64) -> Self {
        Self {
            at: offset,
            start: offset,
            state: State::Between,
            words: 0,
            missing: 0,
            name: Short::default(),
            argument: Short::default(),
        }
    }

    /// Where the next byte stands.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// Whether the next byte begins a command.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.state == State::Between
    }

    /// Takes the next bytes, and calls `each` for every command that ends in them.
    ///
    /// # Errors
    /// [`Error::Protocol`] with the place where this is no stream of commands, and what `each` returns. The framer is of no use then.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&Command<'_>) -> Result<()>) -> Result<()> {
        while let Some(first) = bytes.first() {
            if let State::Body { missing } = self.state {
                let here = usize::try_from(missing).unwrap_or(usize::MAX).min(bytes.len());
                self.keep(&bytes[..here]);
                bytes = &bytes[here..];
                self.at += here as u64;
                let missing = missing - here as u64;
                self.state = if missing == 0 { State::Break { after: After::Body } } else { State::Body { missing } };
                continue;
            }
            bytes = &bytes[1..];
            if self.step(*first)? {
                each(&self.command())?;
            }
        }
        Ok(())
    }

    /// Takes a byte that is not of a word. Whether a command ended with it.
    fn step(&mut self, byte: u8) -> Result<bool> {
        if self.state == State::Between {
            self.start = self.at;
            (self.words, self.missing) = (0, 0);
            (self.name, self.argument) = (Short::default(), Short::default());
        }
        self.state = match (self.state, byte) {
            (State::Between, b'*') => State::Count { number: 0, digits: false },
            // A sign of life.
            (State::Between, b'\r') => State::Break { after: After::Nothing },
            (State::Between, b'\n') => return Ok(self.ended()),
            (State::Count { number, .. }, b'0'..=b'9') => {
                State::Count { number: self.digit(number, byte)?, digits: true }
            }
            (State::Count { number, digits: true }, b'\r') => State::Break { after: After::Count(number) },
            (State::Head, b'$') => State::Length { number: 0, digits: false },
            (State::Length { number, .. }, b'0'..=b'9') => {
                State::Length { number: self.digit(number, byte)?, digits: true }
            }
            (State::Length { number, digits: true }, b'\r') => State::Break { after: After::Length(number) },
            (State::Break { after: After::Body }, b'\r') => State::Break { after: After::Nothing },
            (State::Break { after: After::Count(words) }, b'\n') => {
                (self.words, self.missing) = (words, words);
                if words == 0 {
                    return Ok(self.ended());
                }
                State::Head
            }
            (State::Break { after: After::Length(0) }, b'\n') => State::Break { after: After::Body },
            (State::Break { after: After::Length(missing) }, b'\n') => State::Body { missing },
            (State::Break { after: After::Nothing }, b'\n') => {
                self.missing = self.missing.saturating_sub(1);
                if self.missing == 0 {
                    return Ok(self.ended());
                }
                State::Head
            }
            _ => return Err(self.broken(&format!("byte {byte:#04x} where it cannot stand"))),
        };
        self.at += 1;
        Ok(false)
    }

    fn ended(&mut self) -> bool {
        self.at += 1;
        self.state = State::Between;
        true
    }

    fn digit(&self, number: u64, byte: u8) -> Result<u64> {
        let number = number * 10 + u64::from(byte - b'0');
        if number > MOST { Err(self.broken("a number that is too large")) } else { Ok(number) }
    }

    fn keep(&mut self, bytes: &[u8]) {
        match self.words - self.missing {
            0 => self.name.add(&bytes.to_ascii_uppercase()[..bytes.len().min(SHORT + 1)]),
            1 => self.argument.add(&bytes[..bytes.len().min(SHORT + 1)]),
            _ => {}
        }
    }

    fn command(&self) -> Command<'_> {
        Command {
            start: self.start,
            end: self.at,
            words: self.words,
            name: self.name.get(),
            argument: self.argument.get(),
        }
    }

    fn broken(&self, what: &str) -> Error {
        Error::Protocol(format!("the replication stream has {what}, at offset {}", self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::sample::command;
    use proptest::prelude::*;

    type Found = (u64, u64, u64, Vec<u8>, Vec<u8>);

    fn frame(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Found>> {
        let mut framer = Framer::new(100);
        let mut found = Vec::new();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut at = 0;
        for end in cuts.into_iter().chain([bytes.len()]) {
            framer.push(&bytes[at..end], |c| {
                found.push((c.start, c.end, c.words, c.name.to_vec(), c.argument.to_vec()));
                Ok(())
            })?;
            at = end;
        }
        assert_eq!(framer.offset(), 100 + bytes.len() as u64);
        Ok(found)
    }

    #[test]
    fn commands_are_found_with_name_and_argument() {
        let long = vec![b'x'; 5000];
        let bytes = [
            command(&[b"select", b"15"]),
            b"\n".to_vec(),
            command(&[b"SET", &long, b""]),
            command(&[&long, b"a"]),
            command(&[b"PING"]),
            b"*0\r\n\r\n".to_vec(),
        ]
        .concat();
        let found = frame(&bytes, &[]).unwrap();
        let seen: Vec<_> =
            found.iter().map(|(_, _, words, name, argument)| (*words, &name[..], &argument[..])).collect();
        let expected: [(u64, &[u8], &[u8]); 7] = [
            (2, b"SELECT", b"15"),
            (0, b"", b""),
            (3, b"SET", b""),
            (2, b"", b"a"),
            (1, b"PING", b""),
            (0, b"", b""),
            (0, b"", b""),
        ];
        assert_eq!(seen, expected);
        assert!(found.windows(2).all(|pair| pair[0].1 == pair[1].0), "they meet");
        assert_eq!((found[0].0, found[6].1), (100, 100 + bytes.len() as u64));
    }

    #[test]
    fn what_is_no_stream_is_refused_with_its_place() {
        for (bytes, at) in [
            ("+OK\r\n", 100),
            ("*1\r\n:1\r\n", 104),
            ("*x\r\n", 101),
            ("*\r\n", 101),
            ("*-1\r\n", 101),
            ("*1\r\n$\r\n", 105),
            ("*1\r\n$1\r\nab\r\n", 109),
            ("*1\n", 102),
            ("*99999999999999999999\r\n", 115),
        ] {
            let error = frame(bytes.as_bytes(), &[]).unwrap_err().to_string();
            assert!(error.ends_with(&format!("at offset {at}")), "{bytes:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4), 0..8),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let bytes: Vec<u8> = commands.iter().flat_map(|words| {
                command(&words.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }).collect();
            let whole = frame(&bytes, &[]).unwrap();
            prop_assert_eq!(whole.len(), commands.len());
            prop_assert_eq!(whole, frame(&bytes, &cuts).unwrap());
        }

        #[test]
        fn nothing_panics(bytes in "[*$0-9a\r\n]{0,100}", cuts in prop::collection::vec(any::<usize>(), 0..5)) {
            let whole = frame_loosely(bytes.as_bytes(), &[]);
            prop_assert_eq!(whole, frame_loosely(bytes.as_bytes(), &cuts));
        }
    }

    fn frame_loosely(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Found>, String> {
        frame(bytes, cuts).map_err(|error| error.to_string())
    }
}
