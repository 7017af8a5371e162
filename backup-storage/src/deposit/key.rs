//! The key of a session of a host that only writes, as whoever has adopted it keeps it.
//!
//! A [small object](crate::envelope) of kind session under a name that no object has; it stands in an entry of the journal.

use std::fmt;

use backup_core::SessionId;
use backup_crypto::{EpochKey, HashKey, ObjectKind};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::envelope;
use crate::error::{Error, Result};
use crate::journal::keys::epoch_of;
use crate::keyring::{DEPOSITS, Keyring};
use crate::layout;

/// What opens everything of one session, and what its content is hashed with.
#[derive(Clone)]
pub(crate) struct SessionKey {
    pub(crate) key: EpochKey,
    /// The root of the host's hash key.
    pub(crate) hash_root: Zeroizing<[u8; HashKey::SECRET_LEN]>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Stored {
    #[cbor(n(0), with = "minicbor::bytes")]
    key: [u8; EpochKey::LEN],
    #[cbor(n(1), with = "minicbor::bytes")]
    hash_root: [u8; HashKey::SECRET_LEN],
}

impl SessionKey {
    /// The key of `session`, sealed in the present epoch of `keyring`.
    pub(crate) fn seal(&self, keyring: &Keyring, session: SessionId) -> Result<Vec<u8>> {
        let mut stored = Stored { key: *self.key.expose(), hash_root: *self.hash_root };
        let plaintext = minicbor::to_vec(&stored)
            .map_err(|e| Error::internal("the key of a session cannot be encoded").with_source(e));
        zeroize::Zeroize::zeroize(&mut stored.key);
        let plaintext = Zeroizing::new(plaintext?);
        envelope::seal(keyring, ObjectKind::Session, &layout::session_key(session)?, &plaintext)
    }

    /// The key of `session` from what [`seal`](Self::seal) has made.
    ///
    /// # Errors
    /// Damaged; Environment when this recipient has no key of the epoch.
    pub(crate) fn open(keyring: &Keyring, session: SessionId, sealed: &[u8]) -> Result<Self> {
        let name = layout::session_key(session)?;
        if epoch_of(&name, sealed)? == DEPOSITS {
            return Err(Error::damaged(format!("the key of session {session} is sealed with itself")));
        }
        let plaintext = Zeroizing::new(envelope::open(keyring, ObjectKind::Session, &name, sealed)?);
        let mut stored: Stored = minicbor::decode(&plaintext).map_err(|e| {
            let newer = format!("the key of session {session} was written by a newer version of this library");
            Error::environment(newer).with_source(e)
        })?;
        Ok(Self { key: EpochKey::take(&mut stored.key), hash_root: Zeroizing::new(stored.hash_root) })
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::keyring::tests::keyring;
    use backup_core::env::Env;
    use backup_crypto::{ObjectContext, ObjectSealer};

    fn key() -> SessionKey {
        SessionKey { key: EpochKey::take(&mut [1; 32]), hash_root: Zeroizing::new([2; 32]) }
    }

    #[test]
    fn it_belongs_to_its_session_and_opens_what_lies_in_its_folder() {
        let (keys, env) = (keyring(1), Env::seeded(2));
        let (session, other) = (SessionId::mint(&env), SessionId::mint(&env));
        let sealed = key().seal(&keys, session).unwrap();
        assert_eq!(SessionKey::open(&keys, session, &sealed).unwrap().key, key().key);
        assert_eq!(SessionKey::open(&keys, other, &sealed).unwrap_err().kind(), ErrorKind::Damaged);
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(SessionKey::open(&keys, session, &flipped).is_err(), "byte {at}");
        }

        let host = Keyring::of_session(keys.repository(), keys.suite(), (session, key()), env);
        let (here, there) = (layout::alive(session, 1).unwrap(), layout::alive(other, 1).unwrap());
        let object = envelope::seal(&host, ObjectKind::Session, &here, b"alive").unwrap();
        assert!(envelope::seal(&host, ObjectKind::Session, &there, b"alive").is_err(), "it has one key");
        let open = |keys: &Keyring| envelope::open(keys, ObjectKind::Session, &here, &object);
        assert_eq!(open(&keys).unwrap_err().kind(), ErrorKind::Environment, "nobody has adopted it");
        keys.add_sealed_session(session, &sealed);
        assert_eq!(open(&keys).unwrap(), b"alive");
        // The host has the key, and nobody takes what it seals for a witness.
        let witness = layout::witness(session).unwrap();
        assert!(envelope::seal(&host, ObjectKind::Session, &witness, b"committed").is_err());
        let context = ObjectContext {
            repository: keys.repository(),
            epoch: DEPOSITS,
            kind: ObjectKind::Session,
            name: witness.as_str(),
        };
        let sealer = ObjectSealer::new(keys.suite(), &key().key, &context, [3; 32]).unwrap();
        let refused = keys.opener(ObjectKind::Session, witness.as_str(), sealer.header()).map(drop);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Damaged);
        let name = layout::pack(backup_core::catalog::PackId { session, number: 0 }).unwrap();
        let hash = |keys: &Keyring| keys.hash_key_of(DEPOSITS, name.as_str()).unwrap().block(b"page");
        assert_eq!(hash(&keys), hash(&host));
        assert_ne!(hash(&keys), keys.hash_key(keys.current()).unwrap().block(b"page"));
    }

    #[test]
    fn a_key_that_is_sealed_with_itself_ends_nowhere() {
        let (keys, session) = (keyring(1), SessionId::mint(&Env::seeded(2)));
        let mut sealed = key().seal(&keys, session).unwrap();
        sealed[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        keys.add_sealed_session(session, &sealed);
        assert_eq!(keys.hash_key_in(DEPOSITS, session).unwrap_err().kind(), ErrorKind::Damaged);
    }
}
