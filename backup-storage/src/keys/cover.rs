//! Finding for each recipient the one who stands for it: wrapping for some needs their secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::catalog::{KeyState, Wrap};
use backup_crypto::{EpochId, Recipient, RecipientId, RecipientKind, RepositoryId, WrappedKey};

use super::holder::public_holder;
use super::{KeyHolder, stored};
use crate::error::{Error, Result};
use crate::store::Store;

/// Finds recipients in one repository.
pub(super) struct Cover<'a> {
    pub(super) store: &'a Store,
    pub(super) repository: RepositoryId,
    pub(super) keys: &'a KeyState,
}

impl Cover<'_> {
    /// Which recipient `holder` is, if it is one already. A passphrase is tried on all that there are.
    pub(super) async fn find(&self, holder: &KeyHolder) -> Result<Option<RecipientId>> {
        if let Some(id) = holder.stable_id() {
            return Ok(self.keys.recipient(id.as_str()).map(|_| id));
        }
        let KeyHolder::Recipient(recipient) = holder else { return Ok(None) };
        self.find_passphrase(recipient).await
    }

    async fn find_passphrase(&self, recipient: &Recipient) -> Result<Option<RecipientId>> {
        let Some(identity) = recipient.to_identity() else { return Ok(None) };
        let mut wraps: Vec<WrappedKey> = Vec::new();
        for (_, known) in self.keys.recipients() {
            let Some(wrap) = known.wraps.values().next_back() else { continue };
            match stored(self.store, wrap).await {
                Ok(wrap) if wrap.kind() == RecipientKind::Passphrase => wraps.push(wrap),
                Ok(_) => {}
                // A wrap that is lost or damaged can be nobody's.
                Err(e) if e.kind() == crate::error::ErrorKind::Damaged => {}
                Err(e) => return Err(e),
            }
        }
        let (identity, repository) = (Arc::new(identity), self.repository);
        tokio::task::spawn_blocking(move || {
            let opens = |wrap: &&WrappedKey| identity.unwrap(wrap, repository, wrap.epoch()).is_ok();
            wraps.iter().find(opens).map(|wrap| wrap.recipient().clone())
        })
        .await
        .map_err(|e| Error::internal("unwrapping a key panicked").with_source(e))
    }

    /// Who stands for each of `names`: one of `given`, or whose public key is known.
    ///
    /// # Errors
    /// InvalidInput, naming those for whom nobody stands, or one who was given and is no recipient.
    pub(super) async fn all(
        &self,
        names: &[RecipientId],
        own: Option<KeyHolder>,
        given: &[KeyHolder],
    ) -> Result<Vec<(RecipientId, KeyHolder)>> {
        let mut found: BTreeMap<RecipientId, KeyHolder> = BTreeMap::new();
        for holder in given {
            let id = self.find(holder).await?;
            let id = id.ok_or_else(|| Error::invalid(format!("{holder} is given and is not among the recipients")))?;
            found.insert(id, holder.clone());
        }
        for name in names.iter().filter(|name| !found.contains_key(*name)).cloned().collect::<Vec<_>>() {
            let public = self.keys.recipient(name.as_str()).and_then(|known| known.public);
            if let Some(holder) = public_holder(name.as_str(), public) {
                found.insert(name, holder);
            }
        }
        let is_missing = |found: &BTreeMap<RecipientId, KeyHolder>| names.iter().any(|name| !found.contains_key(name));
        if is_missing(&found)
            && let Some(own) = own
            && let Some(id) = self.find(&own).await?
        {
            found.entry(id).or_insert(own);
        }
        let missing: Vec<_> = names.iter().filter(|name| !found.contains_key(*name)).map(|n| self.called(n)).collect();
        if !missing.is_empty() {
            return Err(Error::invalid(format!(
                "keys cannot be wrapped for {} without being given: passphrases and raw keys themselves, public keys, services",
                missing.join(", ")
            )));
        }
        Ok(names.iter().filter_map(|name| Some((name.clone(), found.remove(name)?))).collect())
    }

    /// A recipient, for people.
    fn called(&self, name: &RecipientId) -> String {
        match self.keys.recipient(name.as_str()).and_then(|known| known.label.as_ref()) {
            Some(label) => format!("{name} ({label})"),
            None => name.to_string(),
        }
    }

    /// Whether `name` has a sound wrap of each of `epochs`.
    pub(super) async fn is_complete(&self, name: &RecipientId, epochs: &[EpochId]) -> Result<bool> {
        let Some(known) = self.keys.recipient(name.as_str()) else { return Ok(false) };
        for epoch in epochs {
            let Some(wrap): Option<&Wrap> = known.wraps.get(&epoch.0) else { return Ok(false) };
            match stored(self.store, wrap).await {
                Ok(_) => {}
                Err(e) if e.kind() == crate::error::ErrorKind::Damaged => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}
