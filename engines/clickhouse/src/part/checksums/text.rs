//! The list as text: version 2.

use super::{Checksum, Checksums, FileName, NAME, Uncompressed};
use crate::part::{Error, Hash128, Result};

/// Reads a list; `base` is where it begins, for messages.
pub(super) fn read(bytes: &[u8], base: usize) -> Result<Checksums> {
    let mut reader = Reader { bytes, position: 0, base };
    let count = reader.number(b" files:\n")?;
    let mut list = Checksums::new();
    for _ in 0..count {
        let offset = base + reader.position;
        let name = FileName::from_bytes(reader.line()?)?;
        reader.expect(b"\tsize: ")?;
        let size = reader.number(b"\n")?;
        reader.expect(b"\thash: ")?;
        let hash = reader.hash()?;
        reader.expect(b"\tcompressed: ")?;
        let uncompressed = match reader.line()? {
            b"0" => None,
            b"1" => Some(reader.uncompressed()?),
            _ => return Err(reader.corrupt("whether a file is compressed is said by neither 0 nor 1")),
        };
        list.insert_new(name, Checksum { size, hash, uncompressed }, offset)?;
    }
    if reader.position == bytes.len() { Ok(list) } else { Err(reader.corrupt("something follows the list")) }
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    base: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    fn expect(&mut self, text: &[u8]) -> Result<()> {
        if !self.rest().starts_with(text) {
            return Err(self.corrupt(format!("{:?} is not there", String::from_utf8_lossy(text))));
        }
        self.position += text.len();
        Ok(())
    }

    fn number(&mut self, end: &[u8]) -> Result<u64> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = self.rest().get(..digits).and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(number) = number.and_then(|digits| digits.parse().ok()) else {
            return Err(self.corrupt("a number is not there, or has more than 64 bits"));
        };
        self.position += digits;
        self.expect(end)?;
        Ok(number)
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        let Some(length) = self.rest().iter().position(|byte| *byte == b'\n') else {
            return Err(self.corrupt("it ends in the middle of an entry"));
        };
        let line = self.rest().get(..length).unwrap_or_default();
        self.position += length + 1;
        Ok(line)
    }

    fn hash(&mut self) -> Result<Hash128> {
        Ok(Hash128::new(self.number(b" ")?, self.number(b"\n")?))
    }

    fn uncompressed(&mut self) -> Result<Uncompressed> {
        self.expect(b"\tuncompressed size: ")?;
        let size = self.number(b"\n")?;
        self.expect(b"\tuncompressed hash: ")?;
        Ok(Uncompressed { size, hash: self.hash()? })
    }

    fn corrupt(&self, reason: impl Into<String>) -> Error {
        Error::corrupt(NAME, self.base + self.position, reason)
    }
}
