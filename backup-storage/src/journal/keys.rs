//! The journal and the epochs of its own keys: each entry is sealed in the epoch that was the present one before it.
//!
//! That is checked, because who has kept the key of an epoch that is over could otherwise go on with the journal: entries are also
//! authentic in old epochs, but nobody who follows the journal writes them.

use backup_core::catalog::{KeyState, Wrap};
use backup_crypto::{EpochFingerprint, EpochId, ObjectHeader};

use super::{Fold, Genesis};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::Keyring;
use crate::layout;
use crate::store::ObjectName;

/// What a journal that begins with `genesis` in `epoch` knows of the keys.
pub(super) fn begin(genesis: &Genesis, epoch: EpochId) -> KeyState {
    let epochs = genesis.epochs.iter().flatten().map(|known| (known.epoch, Some(known.fingerprint)));
    let wraps = genesis.objects.iter().filter_map(|object| {
        let (epoch, recipient) = layout::key_place(&object.name)?;
        let (name, recipient) = (object.name.clone(), recipient.to_owned());
        Some(Wrap { epoch: epoch.0, recipient, name, digest: object.digest })
    });
    KeyState::begin(epoch.0, epochs, wraps)
}

/// The epoch in which the stored object `name` is sealed.
///
/// # Errors
/// Damaged.
pub(crate) fn epoch_of(name: &ObjectName, object: &[u8]) -> Result<EpochId> {
    let header = ObjectHeader::parse(object.get(..ObjectHeader::LEN).unwrap_or(object));
    let damaged = |e| Error::damaged(format!("object {name} is damaged: its header is unreadable")).with_source(e);
    Ok(header.map_err(damaged)?.epoch)
}

/// The keyring that seals the next entry.
pub(super) fn sealing(keyring: &Keyring, keys: Option<&KeyState>) -> Keyring {
    keys.map_or_else(|| keyring.clone(), |keys| keyring.pinned_to(EpochId(keys.current())))
}

/// Makes sure that the key of the present epoch is there.
///
/// # Errors
/// InvalidInput when it is not wrapped for this recipient. Those of the store.
pub(super) async fn learn(keyring: &Keyring, keys: Option<&KeyState>) -> Result<()> {
    let Some(keys) = keys else { return Ok(()) };
    match keys.epochs().next_back() {
        Some((epoch, Some(fingerprint))) => {
            keyring.learn(EpochId(epoch), EpochFingerprint::from_bytes(*fingerprint)).await
        }
        _ => Ok(()),
    }
}

/// As [`learn`], and seals in that epoch from here on.
///
/// # Errors
/// As [`learn`].
pub(super) async fn follow(keyring: &Keyring, keys: Option<&KeyState>) -> Result<()> {
    learn(keyring, keys).await?;
    if let Some(keys) = keys.filter(|keys| keyring.current().0 != keys.current()) {
        keyring.set_current(EpochId(keys.current()));
    }
    Ok(())
}

/// Adds the keys of sessions that `events` tell of.
pub(crate) fn note_sessions<F: Fold>(keyring: &Keyring, events: &[F::Event]) {
    for (session, key) in events.iter().filter_map(F::session_key) {
        keyring.add_sealed_session(session, key);
    }
}

/// Tells the keys of all epochs from what was planted.
pub(super) fn recognise(keyring: &Keyring, keys: Option<&KeyState>) {
    for (epoch, fingerprint) in keys.into_iter().flat_map(KeyState::epochs) {
        if let Some(fingerprint) = fingerprint {
            keyring.confirm(EpochId(epoch), EpochFingerprint::from_bytes(*fingerprint));
        }
    }
}

/// As [`learn`] for every epoch, for whoever looks at what is stored and writes nothing: a key that cannot be had shows where something is to be opened.
///
/// # Errors
/// When the store or a service cannot be asked.
pub(crate) async fn look(keyring: &Keyring, keys: &KeyState) -> Result<()> {
    for (epoch, fingerprint) in keys.epochs() {
        let Some(fingerprint) = fingerprint else { continue };
        match keyring.learn(EpochId(epoch), EpochFingerprint::from_bytes(*fingerprint)).await {
            Err(e) if e.kind() == ErrorKind::Unavailable => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
