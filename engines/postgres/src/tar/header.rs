//! One header block, and the records of a pax header.

use crate::error::{Error, Result};

pub(super) const BLOCK: usize = 512;

/// A decoded header block; the name is as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: u8,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) mtime: i64,
}

pub(super) fn wrong(reason: impl Into<String>) -> Error {
    Error::malformed("tar", reason)
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self> {
        let sum: u64 =
            block.iter().enumerate().map(|(at, b)| u64::from(if (148..156).contains(&at) { b' ' } else { *b })).sum();
        if number(&block[148..156]) != Some(sum) {
            return Err(wrong("a header has a wrong checksum"));
        }
        let posix = &block[257..265] == b"ustar\x0000";
        if !posix && &block[257..265] != b"ustar  \0" {
            return Err(wrong("a header is neither of posix nor of gnu form"));
        }
        let mut name = text(&block[..100]).to_vec();
        let prefix = text(&block[345..500]);
        if posix && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        let field = |range: std::ops::Range<usize>, what: &str| {
            number(&block[range]).ok_or_else(|| wrong(format!("the {what} in a header is not a number")))
        };
        let size = field(124..136, "size")?;
        if i64::try_from(size).is_err() {
            return Err(wrong(format!("an entry of {size} bytes")));
        }
        Ok(Self {
            name,
            link: text(&block[157..257]).to_vec(),
            kind: block[156],
            size,
            mode: (field(100..108, "mode")? & 0o7777) as u32,
            mtime: i64::try_from(field(136..148, "time")?).map_err(|_| wrong("the time in a header is too large"))?,
        })
    }
}

/// The bytes before the first zero.
fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

/// Octal digits ended by space or zero, or `\x80` and big-endian bytes. Spaces may lead; an empty field is zero.
fn number(field: &[u8]) -> Option<u64> {
    if let [0x80, rest @ ..] = field {
        return rest.iter().try_fold(0_u64, |sum, byte| sum.checked_mul(256).map(|sum| sum | u64::from(*byte)));
    }
    let start = field.iter().position(|b| *b != b' ').unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|b| matches!(b, b' ' | 0)).unwrap_or(digits.len());
    if digits[end..].iter().any(|b| !matches!(b, b' ' | 0)) {
        return None;
    }
    digits[..end].iter().try_fold(0_u64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8).map(|sum| sum | u64::from(digit - b'0')),
        _ => None,
    })
}

/// What a pax header overrides in the entry that follows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Overrides {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) mtime: Option<i64>,
}

impl Overrides {
    /// Reads the records `<length> <keyword>=<value>\n` of a pax header (POSIX.1-2008, `pax` "Extended Header").
    pub(super) fn read_pax(&mut self, mut data: &[u8]) -> Result<()> {
        let bad = || wrong("a pax header is not of its form");
        let decimal = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
        while !data.is_empty() {
            let space = data.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
            let length = decimal(&data[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(bad)?;
            if length <= space + 1 || length > data.len() {
                return Err(bad());
            }
            let record = data[space + 1..length].strip_suffix(b"\n").ok_or_else(bad)?;
            data = &data[length..];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            let (keyword, value) = (&record[..equals], &record[equals + 1..]);
            match keyword {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value).filter(|n| i64::try_from(*n).is_ok()).ok_or_else(bad)?),
                b"mtime" => {
                    // Fractions of a second are dropped.
                    let whole = value.split(|b| *b == b'.').next().unwrap_or_default();
                    let text = std::str::from_utf8(whole).map_err(|_| bad())?;
                    self.mtime = Some(text.parse().map_err(|_| bad())?);
                }
                // A sparse file's data is not its content.
                _ if keyword.starts_with(b"GNU.sparse") => return Err(wrong("sparse files are not understood")),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_in_both_forms() {
        assert_eq!(number(b"0000644 "), Some(0o644));
        assert_eq!(number(b"00000001234\0"), Some(0o1234));
        assert_eq!(number(b"     17 "), Some(0o17));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Some(8 << 30));
        assert_eq!(number(b"\x80\x01\0\0\0\0\0\0\0\0\0\0"), None);
        assert_eq!(number(b"12a4567 "), None);
        assert_eq!(number(b"12 4567 "), None);
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }

    proptest! {
        #[test]
        fn any_pax_is_read_or_refused(data: Vec<u8>) {
            let _ = Overrides::default().read_pax(&data);
        }
    }
}
