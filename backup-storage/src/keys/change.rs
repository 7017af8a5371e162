//! Changing who can open a repository.

use backup_core::catalog::{Actor, Catalog, Event, KeyChange, KeyState, Wrap};
use backup_crypto::{EpochId, EpochKey, RecipientId, WrappedKey};
use std::sync::Arc;

use super::cover::Cover;
use super::tidy::{LeftObject, Tidied, tidy};
use super::{KeyHolder, holder, succession};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::layout;
use crate::store::{Created, ObjectName};

/// How often a change is begun again because somebody else changed the keys meanwhile.
const TRIES: u32 = 5;

/// How a recipient is added.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AddRecipient {
    /// What people call it.
    pub label: Option<String>,
    /// Whether wraps that it has are replaced by new ones, as after its key service has got a new version of its key.
    pub rewrap: bool,
}

impl AddRecipient {
    /// Sets what people call it.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Replaces wraps that it has already.
    #[must_use]
    pub fn rewrap(mut self) -> Self {
        self.rewrap = true;
        self
    }
}

/// What a change of the keys has done.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct ChangedKeys {
    /// The epoch in which everything is sealed from here on.
    pub epoch: u32,
    /// The recipient who was added or removed.
    pub recipient: Option<String>,
    /// How many wraps were stored.
    pub stored: u64,
    /// How many objects were deleted that do not count any more.
    pub deleted: u64,
    /// What the store did not let be deleted. It does not count, but its recipient can still open it.
    pub left: Vec<LeftObject>,
}

/// A wrap on its way into the store.
struct Draft {
    wrap: Wrap,
    name: ObjectName,
    object: Vec<u8>,
}

/// Changes the keys of one repository on behalf of somebody.
pub(crate) struct Changes<'a> {
    pub(crate) context: &'a Arc<Context>,
    pub(crate) journal: &'a Journal<Catalog>,
    pub(crate) by: &'a Actor,
}

impl Changes<'_> {
    /// Adds `new` to every epoch.
    pub(crate) async fn add(&self, new: &KeyHolder, options: &AddRecipient) -> Result<ChangedKeys> {
        for _ in 0..TRIES {
            let catalog = self.journal.refresh().await?;
            let keys = catalog.keys();
            let known = self.cover(keys).find(new).await?;
            let epochs = self.epochs(keys)?;
            if let Some(id) = &known
                && !options.rewrap
                && self.cover(keys).is_complete(id, &epochs).await?
            {
                return self.describe(id, new, options).await;
            }
            let name = known.or_else(|| new.stable_id());
            let secrets = epochs.iter().map(|epoch| Ok((*epoch, self.context.keyring.key(*epoch)?)));
            let secrets = secrets.collect::<Result<Vec<_>>>()?;
            let repository = self.context.keyring.repository();
            let wraps = holder::wrap(new, name, secrets, repository, &self.context.env).await?;
            let drafts = wraps.iter().map(draft).collect::<Result<Vec<_>>>()?;
            let recipient = drafts.first().map(|draft| draft.wrap.recipient.clone()).unwrap_or_default();
            self.announce(&drafts, None).await?;
            self.store(&drafts).await?;
            let change = KeyChange::Added {
                recipient: recipient.clone(),
                label: options.label.clone(),
                public: new.public(),
                wraps: names(&drafts),
            };
            match self.commit(change).await {
                Ok(()) => return self.finish(Some(recipient), drafts.len()).await,
                // An epoch has begun meanwhile, for which there is no wrap yet.
                Err(e) if e.kind() == ErrorKind::Conflict => self.give_up(&drafts).await?,
                Err(e) => return Err(e),
            }
        }
        Err(busy())
    }

    /// Begins a new epoch for all recipients.
    pub(crate) async fn rotate(&self, given: &[KeyHolder]) -> Result<ChangedKeys> {
        self.advance(given, None).await
    }

    /// Removes `recipient` from every epoch, and begins a new one without it.
    pub(crate) async fn remove(&self, recipient: &RecipientId, given: &[KeyHolder]) -> Result<ChangedKeys> {
        let catalog = self.journal.refresh().await?;
        let (keys, name) = (catalog.keys(), recipient.as_str());
        if keys.recipient(name).is_some() {
            return self.advance(given, Some(recipient)).await;
        }
        // An earlier attempt has come this far, or one to add it has not come further.
        let announced = keys.announced().filter(|wrap| wrap.recipient == name).map(|wrap| wrap.name.clone());
        let announced: Vec<_> = announced.collect();
        if announced.is_empty() && !keys.gone().any(|wrap| wrap.recipient == name) {
            return Err(Error::invalid(format!("{recipient} is not among the recipients")));
        }
        if !announced.is_empty() {
            self.commit(KeyChange::Abandoned { wraps: announced }).await?;
        }
        self.finish(Some(name.to_owned()), 0).await
    }

    async fn advance(&self, given: &[KeyHolder], removed: Option<&RecipientId>) -> Result<ChangedKeys> {
        for _ in 0..TRIES {
            let catalog = self.journal.refresh().await?;
            let keys = catalog.keys();
            let gone = removed.map(RecipientId::as_str);
            if gone.is_some_and(|name| keys.recipient(name).is_none()) {
                return self.finish(gone.map(str::to_owned), 0).await;
            }
            let stay = keys.present().filter(|name| gone != Some(*name)).map(str::parse);
            let stay = stay.collect::<Result<Vec<RecipientId>, _>>()?;
            if stay.is_empty() {
                return Err(Error::invalid(
                    "the last recipient cannot be removed: nobody could open the repository any more",
                ));
            }
            let own = self.context.keyring.unlocker().map(|unlocker| unlocker.unlock().holder());
            let holders = self.cover(keys).all(&stay, own, given).await?;
            let epoch = EpochId(keys.next().map_err(|e| Error::conflict(e.to_string()).with_source(e))?);
            let key = EpochKey::take(&mut self.context.env.random());
            let mut drafts = Vec::new();
            for (name, holder) in holders {
                let secrets = vec![(epoch, key.clone())];
                let repository = self.context.keyring.repository();
                let wraps = holder::wrap(&holder, Some(name), secrets, repository, &self.context.env).await?;
                drafts.extend(wraps.iter().map(draft).collect::<Result<Vec<_>>>()?);
            }
            match self.begin(keys, epoch, &key, &drafts, gone).await {
                Ok(()) => return self.finish(gone.map(str::to_owned), drafts.len()).await,
                // Somebody else was faster.
                Err(e) if e.kind() == ErrorKind::Conflict => self.give_up(&drafts).await?,
                Err(e) => return Err(e),
            }
        }
        Err(busy())
    }

    async fn begin(
        &self,
        keys: &KeyState,
        epoch: EpochId,
        key: &EpochKey,
        drafts: &[Draft],
        removed: Option<&str>,
    ) -> Result<()> {
        self.announce(drafts, Some(epoch.0)).await?;
        self.store(drafts).await?;
        let fingerprint = key.fingerprint(self.context.keyring.repository(), epoch);
        let keyring = self.context.keyring.pinned_to(EpochId(keys.current()));
        let (name, object) = succession::seal(&keyring, epoch, fingerprint, self.context.env.now())?;
        if let Created::Conflict = self.context.store.create(&name, object).await? {
            return Err(Error::conflict(format!("object {name} was written by somebody else")));
        }
        // This handle goes on, whether it is a recipient of the new epoch or not: it has its key.
        self.context.keyring.offer(epoch, [key.clone()]);
        self.commit(KeyChange::EpochBegun {
            epoch: epoch.0,
            fingerprint: *fingerprint.as_bytes(),
            wraps: names(drafts),
            removed: removed.map(str::to_owned).into_iter().collect(),
        })
        .await
    }

    /// Deletes what does not count any more, whoever left it.
    pub(crate) async fn finish(&self, recipient: Option<String>, stored: usize) -> Result<ChangedKeys> {
        let catalog = self.journal.refresh().await?;
        let Tidied { deleted, left } = tidy(self.context, catalog.keys()).await?;
        Ok(ChangedKeys { epoch: catalog.keys().current(), recipient, stored: stored as u64, deleted, left })
    }

    /// A recipient that is there already may get another label, or its public key may be learned.
    async fn describe(&self, id: &RecipientId, new: &KeyHolder, options: &AddRecipient) -> Result<ChangedKeys> {
        let catalog = self.journal.refresh().await?;
        let known = catalog.keys().recipient(id.as_str());
        let is_news = known.is_some_and(|known| {
            (options.label.is_some() && options.label != known.label)
                || (new.public().is_some() && new.public() != known.public)
        });
        if is_news {
            let (label, public) = (options.label.clone(), new.public());
            self.commit(KeyChange::Described { recipient: id.to_string(), label, public }).await?;
        }
        self.finish(Some(id.to_string()), 0).await
    }

    fn cover<'a>(&'a self, keys: &'a KeyState) -> Cover<'a> {
        Cover { store: &self.context.store, repository: self.context.keyring.repository(), keys }
    }

    /// The epochs that this recipient has the keys of, of which the present one must be one.
    fn epochs(&self, keys: &KeyState) -> Result<Vec<EpochId>> {
        self.context.keyring.key(EpochId(keys.current()))?;
        let epochs = keys.epochs().map(|(epoch, _)| EpochId(epoch));
        Ok(epochs.filter(|epoch| self.context.keyring.key(*epoch).is_ok()).collect())
    }

    async fn announce(&self, drafts: &[Draft], epoch: Option<u32>) -> Result<()> {
        let wraps = drafts.iter().map(|draft| draft.wrap.clone()).collect();
        self.commit(KeyChange::Announced { wraps, epoch }).await
    }

    async fn store(&self, drafts: &[Draft]) -> Result<()> {
        for draft in drafts {
            if let Created::Conflict = self.context.store.create(&draft.name, draft.object.clone()).await? {
                return Err(Error::damaged(format!("object {} exists with other bytes", draft.name)));
            }
        }
        Ok(())
    }

    /// Says that these wraps will not count, unless a later epoch has said so already, and deletes them.
    async fn give_up(&self, drafts: &[Draft]) -> Result<()> {
        let (by, at) = (self.by, self.context.env.now());
        let abandoned = self.journal.commit_by(|_, catalog| {
            let announced = catalog.keys().announced().map(|wrap| &wrap.name);
            let wraps: Vec<_> =
                announced.filter(|name| drafts.iter().any(|d| d.wrap.name == **name)).cloned().collect();
            if wraps.is_empty() {
                return Ok(Vec::new());
            }
            Ok(vec![Event::Keys { change: KeyChange::Abandoned { wraps }, by: by.clone(), at }])
        });
        let (_, catalog) = abandoned.await?;
        tidy(self.context, catalog.keys()).await.map(drop)
    }

    async fn commit(&self, change: KeyChange) -> Result<()> {
        let event = Event::Keys { change, by: self.by.clone(), at: self.context.env.now() };
        self.journal.commit(vec![event]).await.map(drop)
    }
}

fn names(drafts: &[Draft]) -> Vec<String> {
    drafts.iter().map(|draft| draft.wrap.name.clone()).collect()
}

fn draft(wrapped: &WrappedKey) -> Result<Draft> {
    let object = wrapped.encode();
    let name = layout::later_key(wrapped.epoch(), wrapped.recipient(), &object)?;
    let wrap = Wrap {
        epoch: wrapped.epoch().0,
        recipient: wrapped.recipient().to_string(),
        name: name.to_string(),
        digest: *blake3::hash(&object).as_bytes(),
    };
    Ok(Draft { wrap, name, object })
}

fn busy() -> Error {
    Error::conflict("others change the repository's keys all the time")
}
