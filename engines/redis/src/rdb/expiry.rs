//! What becomes of expiries: of whole keys, and of single fields of hashes.

use super::layout::ValueType;
use super::length::{self, INT8, INT16, INT32, LZF, Length};
use super::version::{Dialect, RdbVersion};
use super::{listpack, lzf};
use crate::error::{Error, Result};

/// What becomes of the moments at which keys and fields of hashes expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExpiryRule {
    /// They stay. What expired since the backup is gone soon after the restore.
    #[default]
    Keep,
    /// They come later by so many milliseconds, or earlier when it is negative: shifted by its age, a backup comes back with
    /// the time to live that every key had.
    Shift(i64),
    /// Nothing expires any more.
    Never,
}

/// The latest moment that servers take for a field.
const LATEST_FIELD: i64 = (1 << 46) - 1;

impl ExpiryRule {
    /// When a key expires by this rule.
    #[must_use]
    pub fn of_key(self, expires: Option<i64>) -> Option<i64> {
        match self {
            Self::Keep => expires,
            // Not below one: to the servers, nothing expires at or before the beginning of time.
            Self::Shift(by) => expires.map(|at| at.saturating_add(by).max(1)),
            Self::Never => None,
        }
    }

    fn of_field(at: i64, by: i64) -> i64 {
        at.saturating_add(by).clamp(1, LATEST_FIELD)
    }
}

/// Rewrites the value of a hash whose fields have expiries of their own, and says of which type it is then.
///
/// # Errors
/// [`Error::Unsupported`] for the forms of release candidates; [`Error::Corrupt`] at `offset` for a value that is none.
pub(crate) fn rewrite_fields(
    version: RdbVersion,
    value_type: ValueType,
    value: &[u8],
    rule: ExpiryRule,
    offset: u64,
) -> Result<(ValueType, Vec<u8>)> {
    let corrupt = |reason: &str| Error::Corrupt { offset, reason: format!("a hash with expiring fields: {reason}") };
    let mut reader = Reader(value);
    let outcome = match (value_type, version.dialect, rule) {
        (_, _, ExpiryRule::Keep) => Some((value_type, value.to_vec())),
        (ValueType::HASH_2, Dialect::Valkey, _) => triples(&mut reader, rule),
        (ValueType::HASH_METADATA, ..) => relative(&mut reader, rule),
        (ValueType::HASH_LISTPACK_EX, ..) => packed(&mut reader, rule),
        _ => {
            let text = format!("expiries of hash fields in the form of a release candidate (type {})", value_type.0);
            return Err(Error::Unsupported(text));
        }
    };
    outcome.filter(|_| rule == ExpiryRule::Keep || reader.0.is_empty()).ok_or_else(|| corrupt("it has another form"))
}

/// Valkey: each field, its value and its moment, -1 for none.
fn triples(reader: &mut Reader<'_>, rule: ExpiryRule) -> Option<(ValueType, Vec<u8>)> {
    let mut out = Vec::with_capacity(reader.0.len());
    let count = reader.number()?;
    length::write(count, &mut out);
    for _ in 0..count {
        out.extend_from_slice(reader.string()?);
        out.extend_from_slice(reader.string()?);
        let at = i64::from_le_bytes(reader.take(8)?.try_into().ok()?);
        if let ExpiryRule::Shift(by) = rule {
            let at = if at < 0 { at } else { ExpiryRule::of_field(at, by) };
            out.extend_from_slice(&at.to_le_bytes());
        }
    }
    Some((if rule == ExpiryRule::Never { ValueType::HASH } else { ValueType::HASH_2 }, out))
}

/// Redis: the earliest moment, then for each field how much later it is, plus one; zero for none.
fn relative(reader: &mut Reader<'_>, rule: ExpiryRule) -> Option<(ValueType, Vec<u8>)> {
    let mut out = Vec::with_capacity(reader.0.len());
    let earliest = i64::from_le_bytes(reader.take(8)?.try_into().ok()?);
    if let ExpiryRule::Shift(by) = rule {
        // Behind the latest moment stands a mark that there is none.
        let moved = if (0..=LATEST_FIELD).contains(&earliest) { ExpiryRule::of_field(earliest, by) } else { earliest };
        out.extend_from_slice(&moved.to_le_bytes());
        out.extend_from_slice(reader.0);
        reader.0 = &[];
        return Some((ValueType::HASH_METADATA, out));
    }
    let count = reader.number()?;
    length::write(count, &mut out);
    for _ in 0..count {
        reader.number()?;
        out.extend_from_slice(reader.string()?);
        out.extend_from_slice(reader.string()?);
    }
    Some((ValueType::HASH, out))
}

/// Redis: the earliest moment, then a listpack of fields, values and moments, zero for none.
fn packed(reader: &mut Reader<'_>, rule: ExpiryRule) -> Option<(ValueType, Vec<u8>)> {
    let earliest = i64::from_le_bytes(reader.take(8)?.try_into().ok()?);
    let pack = reader.plain()?;
    let mut out = Vec::with_capacity(pack.len() + 16);
    if let ExpiryRule::Shift(by) = rule {
        let moved = if (0..=LATEST_FIELD).contains(&earliest) { ExpiryRule::of_field(earliest, by) } else { earliest };
        out.extend_from_slice(&moved.to_le_bytes());
        let mut builder = listpack::Builder::new();
        for (index, element) in listpack::elements(&pack).enumerate() {
            match (index % 3, element.ok()?) {
                (2, (listpack::Element::Int(at), _)) if at > 0 => builder.int(ExpiryRule::of_field(at, by)),
                (_, (_, raw)) => builder.raw(raw),
            }
        }
        length::write_string(&builder.finish()?, &mut out);
        return Some((ValueType::HASH_LISTPACK_EX, out));
    }
    let mut strings = Vec::with_capacity(pack.len());
    let mut count = 0;
    for (index, element) in listpack::elements(&pack).enumerate() {
        let (element, _) = element.ok()?;
        if index % 3 < 2 {
            length::write_string(&element.text(), &mut strings);
        }
        count = index as u64 + 1;
    }
    length::write((count % 3 == 0).then_some(count / 3)?, &mut out);
    out.append(&mut strings);
    Some((ValueType::HASH, out))
}

/// Reads a value that is there as a whole.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn length(&mut self) -> Option<Length> {
        let width = length::width(*self.0.first()?)?;
        length::read(self.take(width)?)
    }

    fn number(&mut self) -> Option<u64> {
        match self.length()? {
            Length::Number(number) => Some(number),
            Length::Encoded(_) => None,
        }
    }

    /// A string as it stands, with what says how it is written.
    fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.0;
        let len = match self.length()? {
            Length::Number(len) => len,
            Length::Encoded(encoding @ (INT8 | INT16 | INT32)) => 1 << encoding,
            Length::Encoded(LZF) => {
                let packed = self.number()?;
                self.number()?;
                packed
            }
            Length::Encoded(_) => return None,
        };
        self.take(usize::try_from(len).ok()?)?;
        start.get(..start.len() - self.0.len())
    }

    /// The bytes of a string.
    fn plain(&mut self) -> Option<std::borrow::Cow<'a, [u8]>> {
        match self.length()? {
            Length::Number(len) => self.take(usize::try_from(len).ok()?).map(Into::into),
            Length::Encoded(LZF) => {
                let (packed, plain) = (self.number()?, self.number()?);
                let bytes = lzf::unpack(self.take(usize::try_from(packed).ok()?)?, plain)?;
                (bytes.len() as u64 == plain).then(|| bytes.into())
            }
            Length::Encoded(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIS: RdbVersion = RdbVersion::redis(12);
    const AT: i64 = 1_800_000_000_000;

    fn listpack(fields: &[(&[u8], i64)]) -> Vec<u8> {
        let mut builder = listpack::Builder::new();
        for (field, at) in fields {
            builder.short(field);
            builder.short(b"value");
            if *at == 0 { builder.raw(&[0, 1]) } else { builder.int(*at) }
        }
        builder.finish().unwrap()
    }

    fn packed_value(fields: &[(&[u8], i64)], earliest: i64) -> Vec<u8> {
        let mut value = earliest.to_le_bytes().to_vec();
        length::write_string(&listpack(fields), &mut value);
        value
    }

    #[test]
    fn packed_hashes() {
        let value = packed_value(&[(b"a", AT), (b"b", AT + 5), (b"c", 0)], AT);
        let shift = rewrite_fields(REDIS, ValueType(25), &value, ExpiryRule::Shift(1000), 0).unwrap();
        let later = packed_value(&[(b"a", AT + 1000), (b"b", AT + 1005), (b"c", 0)], AT + 1000);
        assert_eq!(shift, (ValueType(25), later));
        let never = rewrite_fields(REDIS, ValueType(25), &value, ExpiryRule::Never, 0).unwrap();
        assert_eq!(never, (ValueType(4), b"\x03\x01a\x05value\x01b\x05value\x01c\x05value".to_vec()));
    }

    #[test]
    fn relative_hashes() {
        let mut value = AT.to_le_bytes().to_vec();
        value.extend_from_slice(b"\x02\x06\x01a\x01x\x00\xc0\x05\x01y");
        let shift = rewrite_fields(REDIS, ValueType(24), &value, ExpiryRule::Shift(-1000), 0).unwrap();
        assert_eq!(shift.1[..8], (AT - 1000).to_le_bytes());
        assert_eq!(shift.1[8..], value[8..]);
        let never = rewrite_fields(REDIS, ValueType(24), &value, ExpiryRule::Never, 0).unwrap();
        assert_eq!(never, (ValueType(4), b"\x02\x01a\x01x\xc0\x05\x01y".to_vec()));
    }

    #[test]
    fn hashes_of_valkey() {
        let entry = |at: i64| [b"\x01a\x01x".as_slice(), &at.to_le_bytes()].concat();
        let value = [b"\x02".as_slice(), &entry(AT), &entry(-1)].concat();
        let valkey = RdbVersion::valkey(80);
        let shift = rewrite_fields(valkey, ValueType(22), &value, ExpiryRule::Shift(7), 0).unwrap();
        assert_eq!(shift, (ValueType(22), [b"\x02".as_slice(), &entry(AT + 7), &entry(-1)].concat()));
        let never = rewrite_fields(valkey, ValueType(22), &value, ExpiryRule::Never, 0).unwrap();
        assert_eq!(never, (ValueType(4), b"\x02\x01a\x01x\x01a\x01x".to_vec()));
        let candidate = rewrite_fields(REDIS, ValueType(22), &value, ExpiryRule::Never, 0);
        assert!(matches!(candidate, Err(Error::Unsupported(_))));
    }

    #[test]
    fn broken_hashes_are_refused() {
        let value = packed_value(&[(b"a", AT)], AT);
        for cut in 0..value.len() {
            for rule in [ExpiryRule::Shift(1), ExpiryRule::Never] {
                let outcome = rewrite_fields(REDIS, ValueType(25), &value[..cut], rule, 77);
                assert!(matches!(outcome, Err(Error::Corrupt { offset: 77, .. })), "{cut} {rule:?}");
            }
        }
    }
}
