//! The keys of an open repository.

use backup_core::catalog::{Actor, Catalog};
use backup_core::engine::Work;
use backup_crypto::RecipientId;
use futures::TryStreamExt;

use super::Repository;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{self, AddRecipient, ChangedKeys, Changes, KeyHolder, KeyReport, succession};
use crate::layout;
use crate::store::ObjectName;

impl Repository {
    /// Who can open what. Never a secret.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Errors
    /// Those of the catalog and of the store.
    pub async fn keys(&self) -> Result<KeyReport> {
        let catalog = self.journal.refresh().await?;
        keys::report(&self.context.store, catalog.keys()).await
    }

    /// Wraps the keys of all epochs for `new`. One who is a recipient already gets what it lacks, or everything anew where that is asked for.
    ///
    /// # Cancel safety
    /// When dropped, it is a recipient or not; wraps may be left that do not count, though `new` could open them. Repeated, it is completed.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) when others change the keys again and again; what a key service says;
    /// [`Unavailable`](ErrorKind::Unavailable).
    #[tracing::instrument(skip_all, fields(service = %self.context.service))]
    pub async fn add_recipient(
        &self,
        new: &KeyHolder,
        options: &AddRecipient,
        by: &Actor,
        work: &Work,
    ) -> Result<ChangedKeys> {
        uncancelled(work, self.changes(by).add(new, options)).await
    }

    /// Begins a new epoch without `recipient` and deletes its wraps of all epochs.
    ///
    /// It opens nothing that is written afterwards; sessions that are open go on in the epoch in which they began. **What was written before can
    /// still be read by whoever has kept the key of an old epoch**: no rotation takes back what somebody knows.
    ///
    /// `given` are those who stay and for whom nothing can be wrapped otherwise: passphrases, raw keys, services, public keys that the repository does
    /// not know. The one as whom it was opened need not be given.
    ///
    /// # Cancel safety
    /// When dropped, it is a recipient or not. Repeated, it is completed, also when it is none any more.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput), before anything is written, for the last recipient, for one that there is not, and when somebody who stays is not given, who is
    /// named. [`Conflict`](ErrorKind::Conflict) when others change the keys again and again.
    /// [`Unavailable`](ErrorKind::Unavailable). Where the store refuses to delete, what is left is told and no error.
    ///
    /// What hosts that only write have deposited is adopted before, as far as that is possible; then they need other files, as it knew their secrets.
    #[tracing::instrument(skip_all, fields(service = %self.context.service))]
    pub async fn remove_recipient(
        &self,
        recipient: &RecipientId,
        given: &[KeyHolder],
        by: &Actor,
        work: &Work,
    ) -> Result<ChangedKeys> {
        // What is deposited later could be by the one who is removed. That it cannot be adopted now is no reason to let him stay.
        if let Err(error) = self.adopt_deposits(work).await {
            tracing::warn!(%error, "what hosts have deposited was not adopted before a recipient is removed");
        }
        let changed = uncancelled(work, self.changes(by).remove(recipient, given)).await?;
        self.tell_hosts().await;
        Ok(changed)
    }

    /// Begins a new epoch for all present recipients. Only keys are stored, whatever the size of the repository.
    ///
    /// # Cancel safety
    /// When dropped, the epoch has begun or not.
    ///
    /// # Errors
    /// As [`remove_recipient`](Self::remove_recipient).
    #[tracing::instrument(skip_all, fields(service = %self.context.service))]
    pub async fn rotate_keys(&self, given: &[KeyHolder], by: &Actor, work: &Work) -> Result<ChangedKeys> {
        uncancelled(work, self.changes(by).rotate(given)).await
    }

    /// Deletes what earlier changes of the keys have left behind, and changes nothing.
    ///
    /// # Cancel safety
    /// Safe.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable).
    pub async fn tidy_keys(&self, by: &Actor, work: &Work) -> Result<ChangedKeys> {
        uncancelled(work, self.changes(by).finish(None, 0)).await
    }

    /// Whether an epoch has begun of whose key nothing is left, so that the catalog cannot be read any more.
    pub(crate) async fn has_lost_an_epoch(&self) -> Result<bool> {
        match self.journal.refresh().await {
            Ok(_) => return Ok(false),
            Err(e) if e.kind() == ErrorKind::Unavailable => return Err(e),
            Err(_) => {}
        }
        let store = &self.context.store;
        for epoch in succession::follow(&self.context.keyring, store).await? {
            if store.list(&layout::keys_of(epoch)).try_next().await?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The wraps of the one as whom it was opened, newest epoch first.
    pub(crate) async fn own_keys(&self, catalog: &Catalog) -> Result<Vec<ObjectName>> {
        let keys = catalog.keys();
        let Some(unlocker) = self.context.keyring.unlocker() else { return Ok(Vec::new()) };
        let own = keys::recipient(&self.context, keys, &unlocker.unlock().holder()).await?;
        let known = own.and_then(|own| keys.recipient(own.as_str()));
        let wraps = known.into_iter().flat_map(|known| known.wraps.values().rev());
        wraps.map(|wrap| ObjectName::new(wrap.name.as_str())).collect()
    }

    fn changes<'a>(&'a self, by: &'a Actor) -> Changes<'a> {
        Changes { context: &self.context, journal: &self.journal, by }
    }
}

async fn uncancelled<T>(work: &Work, change: impl Future<Output = Result<T>>) -> Result<T> {
    work.cancel().run_until_cancelled(change).await.unwrap_or_else(|| Err(Error::cancelled()))
}
