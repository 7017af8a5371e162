//! Who can open what, for people and programs. Never a secret.

use backup_core::catalog::KeyState;

use super::stored;
use crate::error::{ErrorKind, Result};
use crate::store::Store;

/// Who can open a repository.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct KeyReport {
    /// The epoch in which everything is sealed at present.
    pub current: u32,
    /// All epochs, oldest first.
    pub epochs: Vec<EpochInfo>,
    /// The recipients, by name.
    pub recipients: Vec<RecipientInfo>,
    /// Wraps that somebody was about to make count: a change that is under way, or one that died and may be repeated.
    pub unfinished: Vec<String>,
}

/// A generation of the repository's key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct EpochInfo {
    /// Its number.
    pub epoch: u32,
    /// The fingerprint of its key, in hexadecimal digits. Not known of the first one of older repositories.
    pub fingerprint: Option<String>,
}

/// One who can open keys.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct RecipientInfo {
    /// Its public name: a fingerprint of its key; random for a passphrase.
    pub recipient: String,
    /// What kind it is; none when its wrap is lost or damaged.
    pub kind: Option<String>,
    /// What people call it.
    pub label: Option<String>,
    /// The epochs whose keys are wrapped for it.
    pub epochs: Vec<u32>,
    /// Whether it can open what is written at present.
    pub present: bool,
}

/// What `keys` say, with the kinds that the wraps tell.
///
/// # Errors
/// Those of the store.
pub(crate) async fn report(store: &Store, keys: &KeyState) -> Result<KeyReport> {
    let epochs = keys.epochs().map(|(epoch, fingerprint)| EpochInfo {
        epoch,
        fingerprint: fingerprint.map(|bytes| backup_crypto::EpochFingerprint::from_bytes(*bytes).to_string()),
    });
    let epochs = epochs.collect();
    let mut recipients = Vec::new();
    for (name, known) in keys.recipients() {
        let mut kind = None;
        for wrap in known.wraps.values().rev() {
            match stored(store, wrap).await {
                Ok(wrap) => {
                    kind = Some(wrap.kind().to_string());
                    break;
                }
                Err(e) if e.kind() == ErrorKind::Damaged => {}
                Err(e) => return Err(e),
            }
        }
        recipients.push(RecipientInfo {
            recipient: name.to_owned(),
            kind,
            label: known.label.clone(),
            epochs: known.wraps.keys().copied().collect(),
            present: known.wraps.contains_key(&keys.current()),
        });
    }
    let unfinished = keys.announced().map(|wrap| wrap.name.clone()).collect();
    Ok(KeyReport { current: keys.current(), epochs, recipients, unfinished })
}
