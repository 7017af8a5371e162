//! The plain header in front of every object.

use crate::epoch::EpochId;
use crate::error::{Error, Result};
use crate::object::ObjectKind;
use crate::suite::Suite;

/// First bytes of every object. The high bit, CR and LF betray a transfer that changed bytes.
const MAGIC: [u8; 8] = *b"\x89BKOBJ\r\n";
/// Version of the layout of header and segments.
pub(super) const VERSION: u8 = 1;

/// The 80 plain bytes in front of every object: enough to find the epoch key and to reject a wrong one.
///
/// # Layout
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 8 | magic `89 42 4b 4f 42 4a 0d 0a` |
/// | 8 | 1 | version, 1 |
/// | 9 | 1 | [`Suite`] |
/// | 10 | 1 | [`ObjectKind`] |
/// | 11 | 1 | flags, none defined: anything but 0 is refused |
/// | 12 | 4 | epoch, u32 LE |
/// | 16 | 32 | salt |
/// | 48 | 32 | commitment |
///
/// It is not secret and not trusted: every field is either checked against what the reader expects or bound into the
/// object's key, so a changed bit is an error at the latest when [`ObjectOpener::new`](crate::ObjectOpener::new)
/// compares commitments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectHeader {
    /// Version of the format.
    pub version: u8,
    /// The cipher.
    pub suite: Suite,
    /// What the object is.
    pub kind: ObjectKind,
    /// The epoch whose key seals it.
    pub epoch: EpochId,
    /// What makes its key unique.
    pub salt: [u8; 32],
    /// What its key must derive.
    pub commitment: [u8; 32],
}

impl ObjectHeader {
    /// Length in bytes.
    pub const LEN: usize = 80;

    /// The header as it is stored.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&[self.version, self.suite as u8, self.kind as u8, 0]);
        bytes[12..16].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[16..48].copy_from_slice(&self.salt);
        bytes[48..].copy_from_slice(&self.commitment);
        bytes
    }

    /// Reads the header at the start of `bytes`; what follows is not looked at.
    ///
    /// # Errors
    /// [`Damaged`](crate::ErrorKind::Damaged) when the bytes are too short, no header, or from a later format. Success says
    /// nothing about authenticity.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let what = "the object header";
        let truncated = Error::Truncated { what, needed: Self::LEN, found: bytes.len() };
        let header: &[u8; Self::LEN] = bytes.first_chunk().ok_or(truncated)?;
        if header[..8] != MAGIC {
            return Err(Error::BadMagic { what: "a backup object" });
        }
        let [version, suite, kind, flags] = [header[8], header[9], header[10], header[11]];
        if version != VERSION {
            return Err(Error::Unsupported { what, field: "version", found: version.into() });
        }
        if flags != 0 {
            return Err(Error::Unsupported { what, field: "flags", found: flags.into() });
        }
        let mut parsed = Self {
            version,
            suite: Suite::try_from(suite)?,
            kind: ObjectKind::try_from(kind)?,
            epoch: EpochId(u32::from_le_bytes([header[12], header[13], header[14], header[15]])),
            salt: [0; 32],
            commitment: [0; 32],
        };
        parsed.salt.copy_from_slice(&header[16..48]);
        parsed.commitment.copy_from_slice(&header[48..]);
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_what_parses_encodes_back(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = ObjectHeader::parse(&bytes);
            let mut plausible = MAGIC.to_vec();
            plausible.extend_from_slice(&[VERSION, 1 + (bytes.len() % 2) as u8, 1, 0]);
            plausible.extend_from_slice(&bytes);
            if let Ok(header) = ObjectHeader::parse(&plausible) {
                prop_assert_eq!(&header.encode()[..], &plausible[..ObjectHeader::LEN]);
            }
        }
    }

    #[test]
    fn unknown_versions_and_flags_are_refused() {
        let header = ObjectHeader {
            version: VERSION,
            suite: Suite::Aes256Gcm,
            kind: ObjectKind::Log,
            epoch: EpochId(7),
            salt: [1; 32],
            commitment: [2; 32],
        };
        for offset in [8, 9, 10, 11] {
            let mut bytes = header.encode();
            bytes[offset] = 0x40;
            assert!(matches!(ObjectHeader::parse(&bytes), Err(Error::Unsupported { found: 0x40, .. })), "{offset}");
        }
        assert!(matches!(
            ObjectHeader::parse(&header.encode()[..79]),
            Err(Error::Truncated { needed: 80, found: 79, .. })
        ));
    }
}
