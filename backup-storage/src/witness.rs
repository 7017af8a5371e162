//! Witnesses: small sealed objects beside a session's packs that say which journal entry made it a backup.
//!
//! A journal whose last entries were removed looks like an older journal. The witness of a commit is stored in another
//! place, so verification notices that an entry is missing, and which backup it made.
//!
//! A [small object](crate::envelope) of kind `session` with the CBOR of [`Witness`].

use backup_core::{BackupId, SessionId};
use backup_crypto::ObjectKind;
use minicbor::{Decode, Encode};

use crate::context::Context;
use crate::envelope;
use crate::error::{Error, Result};
use crate::journal::Place;
use crate::keyring::Keyring;
use crate::layout;
use crate::store::{Created, ObjectName};

/// What a witness says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Witness {
    /// The backup that the session became.
    #[n(0)]
    pub(crate) backup: BackupId,
    /// The journal entry.
    #[n(1)]
    pub(crate) place: Place,
}

/// Stores the witness of `session`.
pub(crate) async fn write(context: &Context, session: SessionId, witness: &Witness) -> Result<()> {
    let name = layout::witness(session)?;
    let bytes = minicbor::to_vec(witness).map_err(|e| Error::internal("a witness cannot be encoded").with_source(e))?;
    let object = envelope::seal(&context.keyring, ObjectKind::Session, &name, &bytes)?;
    match context.store.create(&name, object).await? {
        Created::New | Created::AlreadyOurs => Ok(()),
        Created::Conflict => Err(Error::conflict(format!("object {name} already exists"))),
    }
}

/// Opens the witness `name`.
///
/// # Errors
/// Damaged.
pub(crate) fn open(keyring: &Keyring, name: &ObjectName, object: &[u8]) -> Result<Witness> {
    let bytes = envelope::open(keyring, ObjectKind::Session, name, object)?;
    minicbor::decode(&bytes).map_err(|e| Error::damaged(format!("object {name} is not readable")).with_source(e))
}
