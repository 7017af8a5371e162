//! Witnesses: the sealed object beside the packs of a session that says which journal entry made it a backup.
//!
//! It is written after the journal entry. A store that loses the end of the journal would otherwise bring back an earlier
//! state without a trace; the witnesses of the lost backups tell. They also tell a rebuild which of the complete manifests
//! that it finds had been committed.
//!
//! The object is a [small object](crate::envelope) of kind session whose plaintext is the CBOR of [`Witness`].

use backup_core::{BackupId, SessionId};
use backup_crypto::ObjectKind;
use minicbor::{Decode, Encode};

use crate::context::Context;
use crate::envelope;
use crate::error::{Error, Result};
use crate::journal::Place;
use crate::keyring::Keyring;
use crate::layout;
use crate::store::Created;

/// What a witness says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Witness {
    /// What the session became.
    #[n(0)]
    pub(crate) backup: BackupId,
    /// The entry that made it so.
    #[n(1)]
    pub(crate) place: Place,
}

/// The stored form of the witness of `session`.
///
/// # Errors
/// Internal only.
pub(crate) fn seal(keyring: &Keyring, session: SessionId, witness: &Witness) -> Result<Vec<u8>> {
    let plaintext =
        minicbor::to_vec(witness).map_err(|e| Error::internal("a witness cannot be encoded").with_source(e))?;
    envelope::seal(keyring, ObjectKind::Session, &layout::witness(session)?, &plaintext)
}

/// Reads the witness of `session`.
///
/// # Errors
/// Damaged; Environment when a newer version wrote it.
pub(crate) fn open(keyring: &Keyring, session: SessionId, object: &[u8]) -> Result<Witness> {
    let name = layout::witness(session)?;
    let plaintext = envelope::open(keyring, ObjectKind::Session, &name, object)?;
    minicbor::decode(&plaintext).map_err(|e| {
        Error::environment(format!("object {name} was written by a newer version of this library")).with_source(e)
    })
}

/// Stores the witness of `session`.
///
/// # Errors
/// Those of the store; Conflict when somebody else has written one.
pub(crate) async fn write(context: &Context, session: SessionId, witness: &Witness) -> Result<()> {
    let name = layout::witness(session)?;
    match context.store.create(&name, seal(&context.keyring, session, witness)?).await? {
        Created::New | Created::AlreadyOurs => Ok(()),
        Created::Conflict => Err(Error::conflict(format!("object {name} was written by somebody else"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::keyring::tests::keyring;
    use backup_core::env::Env;

    #[test]
    fn a_witness_belongs_to_its_session() {
        let (keys, env) = (keyring(1), Env::seeded(2));
        let (session, other) = (SessionId::mint(&env), SessionId::mint(&env));
        let place = Place { generation: 1, number: 7, digest: [9; 32] };
        let witness = Witness { backup: BackupId::mint(&env), place };
        let object = seal(&keys, session, &witness).unwrap();
        assert_eq!(open(&keys, session, &object).unwrap(), witness);
        assert_eq!(open(&keys, other, &object).unwrap_err().kind(), ErrorKind::Damaged);
        for at in 0..object.len() {
            let mut flipped = object.clone();
            flipped[at] ^= 1;
            assert!(open(&keys, session, &flipped).is_err(), "byte {at}");
        }
    }
}
