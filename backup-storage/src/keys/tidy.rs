//! Deleting what must not be there any more, and completing what should be.

use std::collections::BTreeSet;

use backup_core::catalog::KeyState;
use backup_crypto::{EpochFingerprint, EpochId};
use futures::TryStreamExt;

use super::succession;
use crate::context::Context;
use crate::error::{ErrorKind, Result};
use crate::layout;
use crate::store::{Created, ObjectName};

/// An object that should be gone and is not.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct LeftObject {
    /// Its name in the repository.
    pub object: String,
    /// Why it is still there.
    pub reason: String,
}

/// What a tidying did.
#[derive(Debug, Default)]
pub(crate) struct Tidied {
    pub(crate) deleted: u64,
    pub(crate) left: Vec<LeftObject>,
}

/// Deletes wraps that are gone and the succession to epochs that never began, and writes the succession where it is lost.
///
/// # Errors
/// Those of the store, but for a refusal to delete: that is told.
pub(crate) async fn tidy(context: &Context, keys: &KeyState) -> Result<Tidied> {
    let gone: BTreeSet<&str> = keys.gone().map(|wrap| wrap.name.as_str()).collect();
    let mut doomed: Vec<ObjectName> = Vec::new();
    if !gone.is_empty() {
        let there: Vec<_> = context.store.list(layout::KEYS).try_collect().await?;
        doomed.extend(there.into_iter().map(|object| object.name).filter(|name| gone.contains(name.as_str())));
    }
    let mut missing = needed(keys);
    for object in context.store.list(layout::EPOCHS).try_collect::<Vec<_>>().await? {
        let Some(epoch) = layout::epoch_place(object.name.as_str()) else { continue };
        if missing.remove(&epoch) || keys.epochs().any(|(begun, _)| begun == epoch.0) {
            continue;
        }
        // Nobody will begin an epoch of a number that was passed, or for which nothing is announced.
        if !keys.is_announced(epoch.0) && keys.next().is_ok_and(|next| epoch.0 < next) {
            doomed.push(object.name);
        }
    }
    let mut tidied = Tidied::default();
    for name in doomed {
        match context.store.delete(&name).await {
            Ok(()) => tidied.deleted += 1,
            Err(e) if e.kind() == ErrorKind::Environment => {
                tidied.left.push(LeftObject { object: name.to_string(), reason: e.to_string() });
            }
            Err(e) => return Err(e),
        }
    }
    for epoch in missing {
        restore(context, keys, epoch).await?;
    }
    Ok(tidied)
}

/// The epochs that need somebody to vouch for them: all but the first.
pub(crate) fn needed(keys: &KeyState) -> BTreeSet<EpochId> {
    keys.epochs().skip(1).filter(|(_, fingerprint)| fingerprint.is_some()).map(|(epoch, _)| EpochId(epoch)).collect()
}

/// Writes what tells of `epoch` again.
async fn restore(context: &Context, keys: &KeyState, epoch: EpochId) -> Result<()> {
    let before = keys.epochs().take_while(|(number, _)| *number < epoch.0).last().map(|(number, _)| EpochId(number));
    let fingerprint = keys.epochs().find(|(number, _)| *number == epoch.0).and_then(|(_, known)| known);
    let (Some(before), Some(fingerprint)) = (before, fingerprint) else { return Ok(()) };
    let keyring = context.keyring.pinned_to(before);
    let fingerprint = EpochFingerprint::from_bytes(*fingerprint);
    let (name, object) = succession::seal(&keyring, epoch, fingerprint, context.env.now())?;
    match context.store.create(&name, object).await? {
        // Whoever else has written it meant the same.
        Created::New | Created::AlreadyOurs | Created::Conflict => Ok(()),
    }
}
