//! Short strings that are kept: keys, and names of what is no key.

use std::borrow::Cow;

use super::length::{self, INT8, INT16, INT32, LZF};
use super::lzf;

/// A string as it stands in the file, perhaps cut off.
///
/// Only the first [`LIMIT`](Self::LIMIT) bytes are kept, so that memory does not grow with what a file claims.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Name {
    pub(super) raw: Vec<u8>,
    /// None for plain bytes.
    pub(super) encoding: Option<u8>,
    /// How long it is in the file.
    pub(super) stored: u64,
    /// How long it is.
    pub(super) plain: u64,
}

impl Clone for Name {
    fn clone(&self) -> Self {
        Self { raw: self.raw.clone(), ..*self }
    }

    /// Without an allocation where there is room: it is done for every key.
    fn clone_from(&mut self, source: &Self) {
        self.raw.clone_from(&source.raw);
        (self.encoding, self.stored, self.plain) = (source.encoding, source.stored, source.plain);
    }
}

impl Name {
    /// So many bytes are kept. Keys may be longer, but nobody who filters keys has such ones.
    pub const LIMIT: usize = 1 << 20;

    /// Whether all of it is kept.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.raw.len() as u64 == self.stored
    }

    /// The bytes. None when they are compressed in a way that nothing unpacks. Shorter than the string when it is not
    /// [whole](Self::is_whole).
    #[must_use]
    pub fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        let text = |number: i32| Some(Cow::Owned(number.to_string().into_bytes()));
        match (self.encoding, self.raw.as_slice()) {
            (None, raw) => Some(Cow::Borrowed(raw)),
            (Some(INT8), &[a]) => text(i8::from_le_bytes([a]).into()),
            (Some(INT16), &[a, b]) => text(i16::from_le_bytes([a, b]).into()),
            (Some(INT32), &[a, b, c, d]) => text(i32::from_le_bytes([a, b, c, d])),
            (Some(LZF), raw) => {
                let plain = lzf::unpack(raw, self.plain)?;
                (!self.is_whole() || plain.len() as u64 == self.plain).then_some(Cow::Owned(plain))
            }
            _ => None,
        }
    }

    /// Appends it as it stood in the file. It must be whole.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self.encoding {
            None => length::write(self.stored, out),
            Some(encoding) => {
                out.push(0xc0 | encoding);
                if encoding == LZF {
                    length::write(self.stored, out);
                    length::write(self.plain, out);
                }
            }
        }
        out.extend_from_slice(&self.raw);
    }

    /// The bytes as text, with a mark for what is none.
    #[must_use]
    pub fn text(&self) -> String {
        self.bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}
