//! The end of a session of a host that only writes.

use std::sync::Arc;

use backup_core::catalog::BackupRecord;
use backup_crypto::{EpochKey, Recipient};
use tokio::task::spawn_blocking;

use super::file::HostFile;
use super::paper::{self, Deposit};
use super::state::{Noted, Notes, StateFolder};
use crate::error::{Error, Result};
use crate::keyring::DEPOSITS;
use crate::keys::{self, KeyHolder};
use crate::pipeline::Shared;
use crate::store::Created;

/// What a host needs besides the pipeline to end a session.
#[derive(Debug)]
pub(crate) struct Depositor {
    pub(crate) file: Arc<HostFile>,
    /// The key of the session. It is gone when this is dropped.
    pub(crate) key: EpochKey,
    pub(crate) state: Option<StateFolder>,
    pub(crate) notes: Option<Arc<Notes>>,
    /// What the parent's manifest is made of.
    pub(crate) before: Option<Arc<Noted>>,
}

impl Depositor {
    /// Says that everything of `record` is stored, and remembers it.
    ///
    /// # Errors
    /// Those of the store; Conflict when something else lies there. That it cannot be remembered is no error.
    pub(crate) async fn deposit(&self, shared: &Shared, record: &BackupRecord) -> Result<()> {
        let HostFile { repository, host, epoch, public, secret, .. } = &*self.file;
        let holder = KeyHolder::Recipient(Recipient::from(*public));
        let key = vec![(*epoch, self.key.clone())];
        let wraps = keys::wrap(&holder, None, key, *repository, &shared.context.env).await?;
        let wrap = wraps.first().ok_or_else(|| Error::internal("a key was not wrapped"))?;
        let said = Deposit {
            repository: *repository.as_bytes(),
            host: *host,
            epoch: epoch.0,
            session: record.session,
            fingerprint: *self.key.fingerprint(*repository, DEPOSITS).as_bytes(),
            wrap: wrap.encode(),
            backup: record.id,
            root: record.manifest,
            packs: shared.packs(),
            stored_bytes: record.stored_bytes,
            started_at: record.started_at,
            ended_at: record.ended_at,
        };
        let (name, object) = paper::write(secret, record.session, &said)?;
        if let Created::Conflict = shared.context.store.create(&name, object).await? {
            return Err(Error::conflict(format!("object {name} was written by somebody else")));
        }
        if let Err(error) = self.remember(shared, record).await {
            tracing::warn!(%error, "the host cannot remember this backup: the next one stores everything anew");
        }
        Ok(())
    }

    async fn remember(&self, shared: &Shared, record: &BackupRecord) -> Result<()> {
        let (Some(state), Some(notes)) = (self.state.clone(), self.notes.clone()) else { return Ok(()) };
        let (file, before, record) = (Arc::clone(&self.file), self.before.clone(), record.clone());
        let packs = shared.table.snapshot();
        spawn_blocking(move || {
            let digest = notes.finish(record.session, &packs, before.as_deref())?;
            state.remember(&file, &record, digest)
        })
        .await
        .map_err(|e| Error::internal("remembering a backup panicked").with_source(e))?
    }
}
