//! Answers of a server, read as they come.
//!
//! Both versions of the protocol are understood (RESP2 and RESP3, the documents of redis.io under "protocol specification"). The rules:
//! lengths are checked before anything is reserved for them, so memory is bounded by what has really arrived; an answer over the
//! limit is refused; whatever is no answer ends the connection, because nothing behind it could be trusted.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::{Error, Result};

/// Lines that are no payload are short. What the server may put into one is an error message.
const LONGEST_LINE: usize = 64 << 10;
/// Answers are not nested deeper by any command.
const DEEPEST: usize = 32;
/// So many items are reserved before they have come.
const RESERVED: usize = 1024;

/// What a server answers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// A short text such as `OK`.
    Status(String),
    /// An error; its first word is the code.
    Error(String),
    /// A number.
    Int(i64),
    /// A number with a fraction.
    Double(f64),
    /// Yes or no.
    Bool(bool),
    /// Bytes. Also text that says of what kind it is, and numbers too large for 64 bits.
    Bulk(Bytes),
    /// Nothing.
    Nil,
    /// Several answers; of a map, keys and values in turn.
    Array(Vec<Self>),
}

impl Reply {
    /// The bytes of a string, also of a short one.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bulk(bytes) => Some(bytes),
            Self::Status(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// The text of a string; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        self.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// A number, also one that came as text.
    #[must_use]
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            other => std::str::from_utf8(other.bytes()?).ok()?.parse().ok(),
        }
    }

    /// The items of an array; nothing for anything else.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            _ => &[],
        }
    }

    /// The pairs of an array or map.
    pub fn pairs(&self) -> impl Iterator<Item = (&Self, &Self)> {
        self.items().chunks_exact(2).map(|pair| (&pair[0], &pair[1]))
    }
}

/// Reads answers out of bytes that come in any pieces.
#[derive(Debug)]
pub struct Decoder {
    /// Arrays that are not complete yet, outermost first.
    open: Vec<Open>,
    /// Of which answer what has been read so far.
    size: usize,
    /// An answer may have so many bytes.
    limit: usize,
}

#[derive(Debug)]
struct Open {
    items: Vec<Reply>,
    missing: usize,
    /// Whether somebody asked for it. Attributes and pushed messages are passed over.
    wanted: bool,
}

/// The beginning of an answer, or all of it.
enum Part {
    Whole(Reply),
    Begun { missing: usize, wanted: bool },
}

impl Decoder {
    /// A decoder that refuses answers of more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { open: Vec::new(), size: 0, limit }
    }

    /// Takes the next answer off `buffer`, if all of it is there. Otherwise what is there already may have been taken, and is
    /// remembered.
    ///
    /// # Errors
    /// [`Error::Protocol`] for what is no answer, and for one that is too large. Nothing behind it can be read.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Reply>> {
        loop {
            let before = buffer.len();
            let Some(part) = self.part(buffer)? else { return Ok(None) };
            self.size = self.size.saturating_add(before - buffer.len());
            if self.size > self.limit {
                return Err(Error::Protocol(format!("an answer has more than {} bytes", self.limit)));
            }
            let mut whole = match part {
                Part::Begun { missing: 0, wanted: true } => Reply::Array(Vec::new()),
                Part::Begun { missing: 0, wanted: false } => continue,
                Part::Begun { missing, wanted } => {
                    if self.open.len() == DEEPEST {
                        return Err(Error::Protocol(format!("an answer is nested deeper than {DEEPEST}")));
                    }
                    self.open.push(Open { items: Vec::with_capacity(missing.min(RESERVED)), missing, wanted });
                    continue;
                }
                Part::Whole(reply) => reply,
            };
            // What is complete may complete what it is part of.
            loop {
                let Some(outer) = self.open.last_mut() else {
                    self.size = 0;
                    return Ok(Some(whole));
                };
                outer.items.push(whole);
                outer.missing -= 1;
                if outer.missing > 0 {
                    break;
                }
                match self.open.pop() {
                    Some(Open { items, wanted: true, .. }) => whole = Reply::Array(items),
                    _ => break,
                }
            }
        }
    }

    fn part(&self, buffer: &mut BytesMut) -> Result<Option<Part>> {
        let Some(end) = line_end(buffer)? else { return Ok(None) };
        let line = &buffer[..end];
        let (kind, text) = line.split_first().ok_or_else(|| bad("an empty line"))?;
        let number = || number(text);
        let part = match kind {
            b'+' => Part::Whole(Reply::Status(lossy(text))),
            b'-' => Part::Whole(Reply::Error(lossy(text))),
            b':' => Part::Whole(Reply::Int(number()?)),
            b'_' => Part::Whole(Reply::Nil),
            b'(' => Part::Whole(Reply::Bulk(Bytes::copy_from_slice(text))),
            b'#' => Part::Whole(Reply::Bool(text == b"t")),
            b',' => Part::Whole(Reply::Double(lossy(text).parse().map_err(|_| bad("a fraction that is none"))?)),
            b'$' | b'!' | b'=' => return self.string(buffer, *kind, end),
            b'*' | b'~' | b'%' | b'>' | b'|' => {
                let count = number()?;
                let each = if matches!(kind, b'%' | b'|') { 2 } else { 1 };
                match usize::try_from(count) {
                    // An item has three bytes at least.
                    Ok(count) if count > self.limit / 3 => return Err(bad("too many items")),
                    Ok(count) => Part::Begun { missing: count * each, wanted: !matches!(kind, b'>' | b'|') },
                    Err(_) if count == -1 => Part::Whole(Reply::Nil),
                    Err(_) => return Err(bad("a negative count")),
                }
            }
            other => return Err(bad(&format!("an answer that begins with byte {other:#04x}"))),
        };
        buffer.advance(end + 2);
        Ok(Some(part))
    }

    fn string(&self, buffer: &mut BytesMut, kind: u8, end: usize) -> Result<Option<Part>> {
        let length = number(&buffer[1..end])?;
        let Ok(length) = usize::try_from(length) else {
            if length != -1 {
                return Err(bad("a negative length"));
            }
            buffer.advance(end + 2);
            return Ok(Some(Part::Whole(Reply::Nil)));
        };
        if length > self.limit {
            return Err(Error::Protocol(format!("a string of {length} bytes is over the limit of {}", self.limit)));
        }
        let start = end + 2;
        if buffer.len() < start + length + 2 {
            return Ok(None);
        }
        if &buffer[start + length..start + length + 2] != b"\r\n" {
            return Err(bad("a string that does not end where it says"));
        }
        buffer.advance(start);
        let bytes = buffer.split_to(length).freeze();
        buffer.advance(2);
        Ok(Some(Part::Whole(match kind {
            b'!' => Reply::Error(lossy(&bytes)),
            // Text of a stated kind: `txt:` comes first.
            b'=' => Reply::Bulk(bytes.slice(4.min(bytes.len())..)),
            _ => Reply::Bulk(bytes),
        })))
    }
}

/// Where the line ends that `buffer` begins with, without the line break.
pub(super) fn line_end(buffer: &[u8]) -> Result<Option<usize>> {
    let near = &buffer[..buffer.len().min(LONGEST_LINE)];
    match near.iter().position(|byte| *byte == b'\n') {
        Some(at) if at > 0 && near[at - 1] == b'\r' => Ok(Some(at - 1)),
        Some(_) => Err(bad("a line without its carriage return")),
        None if near.len() == LONGEST_LINE => Err(bad("a line without an end")),
        None => Ok(None),
    }
}

fn number(text: &[u8]) -> Result<i64> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| bad("a number that is none"))
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn bad(what: &str) -> Error {
    Error::Protocol(format!("the server sent {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1 << 20;

    fn all(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Reply>> {
        let mut decoder = Decoder::new(LIMIT);
        let (mut buffer, mut found, mut at) = (BytesMut::new(), Vec::new(), 0);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        for end in cuts.into_iter().chain([bytes.len()]) {
            buffer.extend_from_slice(&bytes[at..end]);
            at = end;
            while let Some(reply) = decoder.next(&mut buffer)? {
                found.push(reply);
            }
        }
        Ok(found)
    }

    #[test]
    fn every_kind_of_answer_is_understood() {
        let bytes = b"+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n*2\r\n$0\r\n\r\n*1\r\n:1\r\n_\r\n#t\r\n,1.5\r\n(123\r\n\
            !7\r\nERR bad\r\n=7\r\ntxt:abc\r\n%1\r\n+k\r\n:2\r\n~1\r\n:3\r\n>2\r\n+news\r\n:1\r\n|1\r\n+ttl\r\n:4\r\n*0\r\n";
        let bulk = |text: &'static str| Reply::Bulk(Bytes::from_static(text.as_bytes()));
        let expected = vec![
            Reply::Status("OK".into()),
            Reply::Error("ERR no".into()),
            Reply::Int(-7),
            bulk("a\r\n"),
            Reply::Nil,
            Reply::Nil,
            Reply::Array(vec![bulk(""), Reply::Array(vec![Reply::Int(1)])]),
            Reply::Nil,
            Reply::Bool(true),
            Reply::Double(1.5),
            bulk("123"),
            Reply::Error("ERR bad".into()),
            bulk("abc"),
            Reply::Array(vec![Reply::Status("k".into()), Reply::Int(2)]),
            Reply::Array(vec![Reply::Int(3)]),
            Reply::Array(vec![]),
        ];
        assert_eq!(all(bytes, &[]).unwrap(), expected);
        let every: Vec<_> = (0..bytes.len()).collect();
        assert_eq!(all(bytes, &every).unwrap(), expected);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let deep = "*1\r\n".repeat(40);
        let long = format!("+{}", "x".repeat(70_000));
        for bytes in [
            "OK\r\n",
            "\r\n",
            "+OK\n",
            ":x\r\n",
            "$5\r\nabcdefg\r\n",
            "$-2\r\n",
            "*-2\r\n",
            "$9999999\r\n",
            ",x\r\n",
            "%9223372036854775807\r\n",
            &deep,
            &long,
        ] {
            let error = all(bytes.as_bytes(), &[]).unwrap_err();
            assert!(matches!(error, Error::Protocol(_)), "{bytes}");
        }
        // Many small items are as large as one that is large.
        let many = format!("*300000\r\n{}", ":1\r\n".repeat(300_000));
        assert!(all(many.as_bytes(), &[]).is_err());
    }

    proptest! {
        #[test]
        fn cuts_change_nothing_and_nothing_panics(bytes in "[-+:$*_#,!%0-9a\r\n]{0,200}", cuts in prop::collection::vec(any::<usize>(), 0..10)) {
            let whole = all(bytes.as_bytes(), &[]).map_err(|error| error.to_string());
            let parts = all(bytes.as_bytes(), &cuts).map_err(|error| error.to_string());
            prop_assert_eq!(whole, parts);
        }
    }
}
