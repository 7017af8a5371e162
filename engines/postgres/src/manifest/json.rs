//! A push tokenizer for JSON (RFC 8259): bytes in, tokens out, memory bounded by the longest string.

use crate::error::{Error, Result};

/// A path has at most 1024 bytes; escaped that is six times as much.
const MAX_TEXT: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// One of `{ } [ ] : ,`.
    Punctuation(u8),
    String(String),
    /// A number's text, checked to be of digits only: a manifest has no others.
    Number(String),
}

#[derive(Debug)]
enum State {
    Between,
    String,
    Escape,
    Unicode(u8, u16),
    Number,
}

#[derive(Debug)]
pub(super) struct Tokenizer {
    state: State,
    text: Vec<u8>,
    /// The first half of a surrogate pair.
    high: Option<u16>,
}

pub(super) fn wrong(reason: impl Into<String>) -> Error {
    Error::malformed("backup_manifest", reason)
}

impl Tokenizer {
    pub(super) fn new() -> Self {
        Self { state: State::Between, text: Vec::new(), high: None }
    }

    /// Whether no token is half read.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.state, State::Between)
    }

    /// Takes `bytes` and hands every complete token to `each`.
    pub(super) fn push(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Token) -> Result<()>) -> Result<()> {
        while let [byte, rest @ ..] = bytes {
            match self.state {
                State::Between => match byte {
                    b' ' | b'\t' | b'\n' | b'\r' => {}
                    b'{' | b'}' | b'[' | b']' | b':' | b',' => each(Token::Punctuation(*byte))?,
                    b'"' => self.state = State::String,
                    b'0'..=b'9' => {
                        self.state = State::Number;
                        continue;
                    }
                    other => return Err(wrong(format!("unexpected byte {:?}", char::from(*other)))),
                },
                State::Number => match byte {
                    b'0'..=b'9' => self.text.push(*byte),
                    b'.' | b'e' | b'E' | b'-' | b'+' => return Err(wrong("a number is not whole")),
                    _ => {
                        each(Token::Number(self.take()?))?;
                        continue;
                    }
                },
                State::String => {
                    // Plain text in one step: almost all of a manifest is paths and digests.
                    let plain = bytes.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(bytes.len());
                    if plain > 0 {
                        self.no_half()?;
                        self.text.extend_from_slice(&bytes[..plain]);
                        self.check()?;
                        bytes = &bytes[plain..];
                        continue;
                    }
                    match byte {
                        b'"' => {
                            self.no_half()?;
                            each(Token::String(self.take()?))?;
                        }
                        b'\\' => self.state = State::Escape,
                        _ => return Err(wrong("a control character in a string")),
                    }
                }
                State::Escape => {
                    let plain = match byte {
                        b'"' | b'\\' | b'/' => *byte,
                        b'b' => 8,
                        b'f' => 12,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'u' => {
                            self.state = State::Unicode(4, 0);
                            bytes = rest;
                            continue;
                        }
                        _ => return Err(wrong("an unknown escape in a string")),
                    };
                    self.no_half()?;
                    self.text.push(plain);
                    self.state = State::String;
                }
                State::Unicode(left, value) => {
                    let digit = char::from(*byte).to_digit(16).ok_or_else(|| wrong("a wrong unicode escape"))?;
                    let value = value << 4 | digit as u16;
                    if left > 1 {
                        self.state = State::Unicode(left - 1, value);
                    } else {
                        self.unit(value)?;
                        self.state = State::String;
                    }
                }
            }
            self.check()?;
            bytes = rest;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.text.len() > MAX_TEXT { Err(wrong("a string or number is too long")) } else { Ok(()) }
    }

    fn no_half(&self) -> Result<()> {
        if self.high.is_some() { Err(wrong("half of a surrogate pair")) } else { Ok(()) }
    }

    /// Takes one UTF-16 code unit.
    fn unit(&mut self, unit: u16) -> Result<()> {
        let scalar = match (self.high.take(), unit) {
            (None, 0xD800..=0xDBFF) => {
                self.high = Some(unit);
                return Ok(());
            }
            (Some(high), 0xDC00..=0xDFFF) => 0x1_0000 + ((u32::from(high) - 0xD800) << 10) + (u32::from(unit) - 0xDC00),
            (None, _) => u32::from(unit),
            (Some(_), _) => return Err(wrong("half of a surrogate pair")),
        };
        let scalar = char::from_u32(scalar).ok_or_else(|| wrong("half of a surrogate pair"))?;
        self.text.extend_from_slice(scalar.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn take(&mut self) -> Result<String> {
        self.state = State::Between;
        String::from_utf8(std::mem::take(&mut self.text)).map_err(|_| wrong("a string is not utf-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(text: &[u8], chunk: usize) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        let mut tokenizer = Tokenizer::new();
        for part in text.chunks(chunk) {
            tokenizer.push(part, &mut |token| {
                tokens.push(token);
                Ok(())
            })?;
        }
        Ok(tokens)
    }

    #[test]
    fn tokens_in_any_pieces() {
        let text = br#"{"a\"\\\/\n\u00e9\uD83D\uDE00": [12, 0] }"#;
        let expected = [
            Token::Punctuation(b'{'),
            Token::String("a\"\\/\né😀".into()),
            Token::Punctuation(b':'),
            Token::Punctuation(b'['),
            Token::Number("12".into()),
            Token::Punctuation(b','),
            Token::Number("0".into()),
            Token::Punctuation(b']'),
            Token::Punctuation(b'}'),
        ];
        for chunk in 1..text.len() {
            assert_eq!(tokens(text, chunk).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            &b"x"[..],
            b"-1",
            b"1.5 ",
            b"\"\\x\"",
            b"\"\n\"",
            b"\"\\uD800\"",
            b"\"\\uD800x\"",
            b"\"\\uDC00\"",
            b"\"\xff\"",
        ] {
            assert!(tokens(text, 100).is_err(), "{text:?}");
        }
        assert!(tokens(&[b'1'; MAX_TEXT + 2], 1000).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text: Vec<u8>, chunk in 1_usize..50) {
            let _ = tokens(&text, chunk);
        }
    }
}
