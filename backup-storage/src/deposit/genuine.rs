//! Whose a deposit is, and its key.

use backup_core::SessionId;
use backup_core::catalog::Refusal;
use backup_crypto::{EpochId, HostSecret, Identity, WrappedKey};

use super::key::SessionKey;
use super::paper::{self, Deposit};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{DEPOSITS, Keyring};
use crate::layout;

/// A deposit that its host wrote, or somebody who had the keys.
#[derive(Debug)]
pub(crate) struct Genuine {
    pub(crate) said: Deposit,
    pub(crate) secret: HostSecret,
}

/// What lies in the place of a deposit.
#[derive(Debug)]
pub(crate) enum Found {
    /// A deposit.
    Genuine(Box<Genuine>),
    /// Something that somebody without keys has put there, or what is left of a deposit. Why it is none.
    Foreign(String),
    /// It cannot be told: this recipient has no key of the epoch.
    Untold(Error),
    /// Nothing any more.
    Nothing,
}

/// Looks at the deposit of `session`.
///
/// # Errors
/// Those of the store. Environment for a deposit of a later version.
pub(crate) async fn look(context: &Context, session: SessionId) -> Result<Found> {
    match context.store.get(&layout::deposit(session)?).await {
        Ok(object) => judge(&context.keyring, session, &object),
        Err(error) if error.is_not_found() => Ok(Found::Nothing),
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(Found::Foreign(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Says what `object` is in the place of the deposit of `session`.
///
/// # Errors
/// Internal only.
pub(crate) fn judge(keyring: &Keyring, session: SessionId, object: &[u8]) -> Result<Found> {
    let said: Deposit = match paper::parse(session, object) {
        Ok(said) => said,
        // What a later version has written cannot be told from what nobody has.
        Err(error) if error.kind() == ErrorKind::Environment => return Ok(Found::Untold(error)),
        Err(error) => return Ok(Found::Foreign(error.to_string())),
    };
    if said.session != session || &said.repository != keyring.repository().as_bytes() {
        return Ok(Found::Foreign("it is of another session or repository".to_owned()));
    }
    let epoch = EpochId(said.epoch);
    let key = match keyring.key(epoch) {
        Ok(key) => key,
        Err(error) => return Ok(Found::Untold(error)),
    };
    let secret = HostSecret::derive(&key, keyring.repository(), epoch, &said.host.to_bytes());
    if !paper::is_genuine::<Deposit>(&secret, session, object)? {
        return Ok(Found::Foreign("neither the host that it names nor anybody with the keys wrote it".to_owned()));
    }
    Ok(Found::Genuine(Box::new(Genuine { said, secret })))
}

impl Genuine {
    /// The key of the session. Or why it can never be had.
    ///
    /// # Errors
    /// Those of the keyring.
    pub(crate) fn unwrap(&self, keyring: &Keyring) -> Result<std::result::Result<SessionKey, Refusal>> {
        let (repository, epoch) = (keyring.repository(), EpochId(self.said.epoch));
        let own = Identity::from(keyring.key(epoch)?.deposit_key(repository, epoch));
        let key = WrappedKey::parse(&self.said.wrap).and_then(|wrap| own.unwrap(&wrap, repository, epoch));
        Ok(match key {
            Ok(key) if key.fingerprint(repository, DEPOSITS).as_bytes() == &self.said.fingerprint => {
                Ok(SessionKey { key, hash_root: self.secret.hash_root() })
            }
            Ok(_) | Err(_) => Err(Refusal::WrongKey),
        })
    }
}
