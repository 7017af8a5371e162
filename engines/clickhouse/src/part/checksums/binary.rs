//! The list in its binary form: versions 3 and 4.

use super::{Checksum, Checksums, FileName, NAME, Uncompressed};
use crate::part::{Error, Hash128, Result};

/// The least that an entry can have: a name of one byte, lengths of one byte, a hash, a flag.
const LEAST_ENTRY: usize = 1 + 1 + 1 + 16 + 1;

/// Reads a list; `base` is where it begins, for messages.
pub(super) fn read(bytes: &[u8], base: usize) -> Result<Checksums> {
    let mut reader = Reader { bytes, position: 0, base };
    let count = reader.number()?;
    if count > (bytes.len() / LEAST_ENTRY) as u64 {
        return Err(reader.corrupt(format!("it cannot have {count} files")));
    }
    let mut list = Checksums::new();
    for _ in 0..count {
        let offset = base + reader.position;
        let length = reader.number()?;
        let name = FileName::from_bytes(reader.take(length)?)?;
        let (size, hash) = (reader.number()?, reader.hash()?);
        let uncompressed = match reader.byte()? {
            0 => None,
            1 => Some(Uncompressed { size: reader.number()?, hash: reader.hash()? }),
            flag => return Err(reader.corrupt(format!("whether {name} is compressed is said by {flag}"))),
        };
        list.insert_new(name, Checksum { size, hash, uncompressed }, offset)?;
    }
    if reader.position == bytes.len() { Ok(list) } else { Err(reader.corrupt("something follows the list")) }
}

/// Writes a list.
pub(super) fn write(list: &Checksums) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, list.len() as u64);
    for (name, checksum) in list.iter() {
        put_number(&mut out, name.as_str().len() as u64);
        out.extend_from_slice(name.as_str().as_bytes());
        put_number(&mut out, checksum.size);
        out.extend_from_slice(&checksum.hash.to_bytes());
        out.push(u8::from(checksum.uncompressed.is_some()));
        if let Some(inside) = checksum.uncompressed {
            put_number(&mut out, inside.size);
            out.extend_from_slice(&inside.hash.to_bytes());
        }
    }
    out
}

/// A number of seven bits a byte, the least first (`VarInt.h`).
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    base: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let end = usize::try_from(length).ok().and_then(|length| self.position.checked_add(length));
        match end.and_then(|end| Some((end, self.bytes.get(self.position..end)?))) {
            Some((end, taken)) => {
                self.position = end;
                Ok(taken)
            }
            None => Err(self.corrupt("it ends in the middle of an entry")),
        }
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    fn hash(&mut self) -> Result<Hash128> {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(self.take(16)?);
        Ok(Hash128::from_bytes(bytes))
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.corrupt("a number has more than 64 bits"))
    }

    fn corrupt(&self, reason: impl Into<String>) -> Error {
        Error::corrupt(NAME, self.base + self.position, reason)
    }
}
