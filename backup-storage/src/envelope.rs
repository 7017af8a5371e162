//! Small sealed objects: a header and one segment.
//!
//! ```text
//! object header (80 bytes) | segment 0 (ciphertext and tag; last = 1, codec = 0, role = 0)
//! ```
//! Used for journal entries and witnesses. The plaintext's length follows from the object's.

use backup_crypto::{MAX_SEGMENT, ObjectHeader, ObjectKind, SegmentHeader, TAG_LEN};

use crate::error::{Error, Result};
use crate::keyring::Keyring;
use crate::store::ObjectName;

/// Bytes that sealing adds.
pub(crate) const OVERHEAD: usize = ObjectHeader::LEN + TAG_LEN;

fn only_segment(plain_len: usize) -> Result<SegmentHeader> {
    let plain_len = u32::try_from(plain_len).ok().filter(|len| *len as usize <= MAX_SEGMENT);
    let plain_len = plain_len.ok_or_else(|| Error::internal("a small object is larger than a segment"))?;
    Ok(SegmentHeader { index: 0, last: true, plain_len, codec: 0, role: 0 })
}

/// Seals `plaintext` as the object `name`.
pub(crate) fn seal(keyring: &Keyring, kind: ObjectKind, name: &ObjectName, plaintext: &[u8]) -> Result<Vec<u8>> {
    let sealer = keyring.sealer(kind, name.as_str())?;
    let mut object = Vec::with_capacity(plaintext.len() + OVERHEAD);
    object.extend_from_slice(&sealer.header().encode());
    sealer.seal(only_segment(plaintext.len())?, plaintext, &mut object)?;
    Ok(object)
}

/// Opens the object `name`.
///
/// # Errors
/// Damaged, when it is not exactly what was sealed under this name.
pub(crate) fn open(keyring: &Keyring, kind: ObjectKind, name: &ObjectName, object: &[u8]) -> Result<Vec<u8>> {
    let damaged = |why: &str| Error::damaged(format!("object {name} is damaged: {why}"));
    let Some(plain_len) = object.len().checked_sub(OVERHEAD) else {
        return Err(damaged("it is too short"));
    };
    let (header, sealed) = object.split_at(ObjectHeader::LEN);
    let header = ObjectHeader::parse(header).map_err(|e| damaged("its header is unreadable").with_source(e))?;
    let opener = keyring.opener(kind, name.as_str(), &header).map_err(|e| e.context(format!("object {name}")))?;
    let segment = only_segment(plain_len).map_err(|_| damaged("it is too long"))?;
    let mut plaintext = Vec::new();
    opener.open(segment, sealed, &mut plaintext).map_err(|e| damaged("it does not authenticate").with_source(e))?;
    Ok(plaintext)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::keyring::tests::keyring;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_the_untouched_object_opens(plaintext in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, bit in 0..8u8) {
            let keyring = keyring(1);
            let name = ObjectName::new("catalog/0001/1").unwrap();
            let mut object = seal(&keyring, ObjectKind::Journal, &name, &plaintext).unwrap();
            prop_assert_eq!(&open(&keyring, ObjectKind::Journal, &name, &object).unwrap(), &plaintext);

            let other = ObjectName::new("catalog/0001/2").unwrap();
            prop_assert_eq!(open(&keyring, ObjectKind::Journal, &other, &object).unwrap_err().kind(), ErrorKind::Damaged);
            prop_assert!(open(&keyring, ObjectKind::Session, &name, &object).is_err());

            let at = at.index(object.len());
            prop_assert!(open(&keyring, ObjectKind::Journal, &name, &object[..at]).is_err());
            object[at] ^= 1 << bit;
            prop_assert!(open(&keyring, ObjectKind::Journal, &name, &object).is_err());
        }
    }
}
