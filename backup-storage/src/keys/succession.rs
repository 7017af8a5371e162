//! Which key follows: an object beside the keys, sealed in the epoch before, for each epoch but the first.
//!
//! The journal says the same, but a journal can be lost. Then this is what tells the keys of later epochs from keys that somebody has
//! planted for a public recipient. It is stored before the epoch begins, so that no epoch is ever without.

use backup_crypto::{EpochFingerprint, EpochId, ObjectHeader, ObjectKind};
use futures::TryStreamExt;
use jiff::Timestamp;
use minicbor::{Decode, Encode};

use crate::envelope;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::Keyring;
use crate::layout;
use crate::store::{ObjectName, Store};

/// What the object says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Succession {
    /// The epoch that follows.
    #[n(0)]
    pub(crate) epoch: u32,
    /// The fingerprint of its key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) fingerprint: [u8; 16],
    /// When it was written.
    #[cbor(n(2), with = "backup_core::cbor::timestamp")]
    pub(crate) at: Timestamp,
}

/// The object that tells of `epoch`, sealed in the keyring's present one.
pub(crate) fn seal(
    keyring: &Keyring,
    epoch: EpochId,
    fingerprint: EpochFingerprint,
    at: Timestamp,
) -> Result<(ObjectName, Vec<u8>)> {
    let name = layout::epoch(epoch)?;
    let said = Succession { epoch: epoch.0, fingerprint: *fingerprint.as_bytes(), at };
    let said = minicbor::to_vec(&said).map_err(|e| Error::internal("a succession cannot be encoded").with_source(e))?;
    let object = envelope::seal(keyring, ObjectKind::Repository, &name, &said)?;
    Ok((name, object))
}

/// Reads the object that tells of `epoch`.
///
/// # Errors
/// Damaged when it is not what a holder of an earlier epoch's key wrote; Environment when that key is not there.
pub(crate) fn open(keyring: &Keyring, epoch: EpochId, object: &[u8]) -> Result<EpochFingerprint> {
    let name = layout::epoch(epoch)?;
    let header = object.get(..ObjectHeader::LEN).unwrap_or_default();
    let sealed_in = ObjectHeader::parse(header)
        .map_err(|e| Error::damaged(format!("object {name} is damaged: its header is unreadable")).with_source(e))?;
    if sealed_in.epoch >= epoch {
        return Err(Error::damaged(format!("object {name} is sealed in epoch {}", sealed_in.epoch)));
    }
    let plaintext = envelope::open(keyring, ObjectKind::Repository, &name, object)?;
    let said: Succession = minicbor::decode(&plaintext).map_err(|e| {
        Error::environment(format!("object {name} was written by a newer version of this library")).with_source(e)
    })?;
    if said.epoch != epoch.0 {
        return Err(Error::damaged(format!("object {name} tells of epoch {}", said.epoch)));
    }
    Ok(EpochFingerprint::from_bytes(said.fingerprint))
}

/// Trusts every key that is vouched for by one that is trusted. Returns the epochs that are told of.
///
/// # Errors
/// Those of the store.
pub(crate) async fn follow(keyring: &Keyring, store: &Store) -> Result<Vec<EpochId>> {
    let objects: Vec<_> = store.list(layout::EPOCHS).try_collect().await?;
    let mut epochs: Vec<_> = objects.iter().filter_map(|object| layout::epoch_place(object.name.as_str())).collect();
    epochs.sort_unstable();
    let mut told = Vec::new();
    for epoch in epochs {
        let read = match store.get(&layout::epoch(epoch)?).await {
            Ok(object) => open(keyring, epoch, &object),
            Err(e) => Err(e),
        };
        match read {
            Ok(fingerprint) => {
                keyring.confirm(epoch, fingerprint);
                told.push(epoch);
            }
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Environment) => {
                tracing::warn!(%error, "the succession of epochs is not whole");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::tests::keyring;

    #[test]
    fn it_speaks_only_of_the_epoch_whose_name_it_bears_and_only_forwards() {
        let keys = keyring(1);
        let of = EpochFingerprint::from_bytes([7; 16]);
        let at = Timestamp::from_second(1).unwrap();
        let (name, object) = seal(&keys, EpochId(2), of, at).unwrap();
        assert_eq!(name.as_str(), "epochs/0002");
        assert_eq!(open(&keys, EpochId(2), &object).unwrap(), of);
        assert_eq!(open(&keys, EpochId(3), &object).unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(open(&keyring(2), EpochId(2), &object).unwrap_err().kind(), ErrorKind::Damaged);
        // Its own key would vouch for itself.
        let (_, own) = seal(&keys, EpochId(1), of, at).unwrap();
        assert_eq!(open(&keys, EpochId(1), &own).unwrap_err().kind(), ErrorKind::Damaged);
        for at in 0..object.len() {
            let mut flipped = object.clone();
            flipped[at] ^= 1;
            assert!(open(&keys, EpochId(2), &flipped).is_err(), "byte {at}");
        }
    }
}
