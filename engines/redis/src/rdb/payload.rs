//! What `DUMP` gives and `RESTORE` takes: type, value, version, checksum.

use super::crc64::Crc64;
use super::layout::ValueType;
use super::version::RdbVersion;
use crate::error::{Error, Result};

/// Bytes behind the value: the version and the checksum.
const TAIL: usize = 10;

/// A payload that is put together while its value passes. Its length is the value's and [`OVERHEAD`](Self::OVERHEAD).
#[derive(Debug)]
pub struct Payload {
    version: u16,
    crc: Crc64,
}

impl Payload {
    /// Bytes of a payload that are not the value.
    pub const OVERHEAD: u64 = 1 + TAIL as u64;

    /// Begins the payload of a value of `value_type` out of a file of `version`, and gives its first byte.
    ///
    /// The payload claims the oldest version that has the type, so that every server takes it that can read it.
    #[must_use]
    pub fn begin(version: RdbVersion, value_type: ValueType) -> (Self, [u8; 1]) {
        let head = [value_type.0];
        let mut crc = Crc64::new();
        crc.update(&head);
        (Self { version: value_type.since(version), crc }, head)
    }

    /// Takes in bytes of the value. They follow unchanged.
    pub fn value(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
    }

    /// What follows the value.
    #[must_use]
    pub fn finish(mut self) -> [u8; TAIL] {
        let version = self.version.to_le_bytes();
        self.crc.update(&version);
        let [a, b] = version;
        let [c, d, e, f, g, h, i, j] = self.crc.value().to_le_bytes();
        [a, b, c, d, e, f, g, h, i, j]
    }

    /// The whole payload of a value that is there.
    #[must_use]
    pub fn of(version: RdbVersion, value_type: ValueType, value: &[u8]) -> Vec<u8> {
        let (mut payload, head) = Self::begin(version, value_type);
        payload.value(value);
        [&head[..], value, &payload.finish()].concat()
    }
}

/// A payload that a server gave, without its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened<'a> {
    /// The version that the server writes.
    pub(crate) version: u16,
    pub(crate) value_type: ValueType,
    pub(crate) value: &'a [u8],
}

impl<'a> Opened<'a> {
    /// Opens `payload`.
    ///
    /// # Errors
    /// [`Error::Protocol`] when it is too short, or its checksum does not fit.
    pub(crate) fn of(payload: &'a [u8]) -> Result<Self> {
        let (version, body) = unframe(payload)?;
        let (value_type, value) =
            body.split_first().ok_or_else(|| Error::Protocol("the server dumped a value without a type".into()))?;
        Ok(Self { version, value_type: ValueType(*value_type), value })
    }
}

/// What stands before version and checksum, when these fit.
pub(super) fn unframe(payload: &[u8]) -> Result<(u16, &[u8])> {
    let wrong = |what: &str| Error::Protocol(format!("the server dumped {} bytes {what}", payload.len()));
    let summed = payload.len().checked_sub(8).and_then(|at| payload.split_at_checked(at));
    let (summed, stored) = summed.ok_or_else(|| wrong("where a version and a checksum must stand"))?;
    if Crc64::of(summed).to_le_bytes() != stored {
        return Err(wrong("whose checksum does not fit"));
    }
    let (body, version) =
        summed.split_last_chunk::<2>().ok_or_else(|| wrong("where a version and a checksum must stand"))?;
    Ok((u16::from_le_bytes(*version), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_what_a_server_dumps() {
        // `DUMP` of the string "10" on Redis 2.6 is in the manual; the frame is the same, with another version.
        let payload = Payload::of(RdbVersion::redis(11), ValueType(0), &[0xc0, 0x0a]);
        assert_eq!(payload[..5], [0x00, 0xc0, 0x0a, 9, 0]);
        assert_eq!(payload[5..], Crc64::of(&payload[..5]).to_le_bytes());
        assert_eq!(payload.len() as u64, 2 + Payload::OVERHEAD);
        let opened = Opened { version: 9, value_type: ValueType(0), value: &[0xc0, 0x0a] };
        assert_eq!(Opened::of(&payload).unwrap(), opened);
    }

    #[test]
    fn it_claims_the_oldest_version_that_has_the_type() {
        let since = |value_type, version| ValueType(value_type).since(version);
        assert_eq!(since(0, RdbVersion::redis(12)), 9);
        assert_eq!(since(17, RdbVersion::redis(12)), 10);
        assert_eq!(since(21, RdbVersion::valkey(80)), 11);
        assert_eq!(since(22, RdbVersion::valkey(80)), 80);
        assert_eq!(since(25, RdbVersion::redis(16)), 12);
    }
}
