//! Where a session says what became of it: in the journal, or, by a host that only writes, in its own folder.

use std::sync::Arc;

use backup_core::catalog::{BackupRecord, Catalog, CloseReason, Event};

use crate::deposit::state::Notes;
use crate::deposit::write::Depositor;
use crate::error::Result;
use crate::journal::Journal;
use crate::pipeline::Shared;
use crate::witness::{self, Witness};

/// Where it is said.
#[derive(Debug)]
pub(crate) enum Ledger {
    /// In the journal.
    Journal(Arc<Journal<Catalog>>),
    /// To whoever adopts it one day.
    Deposit(Box<Depositor>),
}

impl Ledger {
    /// Whether what is stored can be read.
    pub(super) fn reads(&self) -> bool {
        matches!(self, Self::Journal(_))
    }

    /// Where the manifest is noted.
    pub(super) fn notes(&self) -> Option<Arc<Notes>> {
        match self {
            Self::Journal(_) => None,
            Self::Deposit(depositor) => depositor.notes.clone(),
        }
    }

    /// Says that the session became this backup.
    pub(super) async fn commit(&self, shared: &Shared, record: &BackupRecord) -> Result<()> {
        let journal = match self {
            Self::Journal(journal) => journal,
            Self::Deposit(depositor) => return depositor.deposit(shared, record).await,
        };
        let place = journal.commit(vec![Event::BackupCommitted { record: Box::new(record.clone()) }]).await?;
        // The backup exists from here on. The witness only makes a later loss of the journal's end visible.
        let witness = Witness { backup: record.id, place };
        if let Err(error) = witness::write(&shared.context, shared.session, &witness).await {
            tracing::warn!(%error, backup = %record.id, "the witness of a commit could not be written");
        }
        journal.checkpoint_when_far().await;
        Ok(())
    }

    /// Says that it came to nothing. Of a session that nobody knows of there is nothing to say.
    pub(super) async fn give_up(&self, shared: &Shared) -> Result<()> {
        let Self::Journal(journal) = self else { return Ok(()) };
        let at = shared.context.env.now();
        let closed = Event::SessionClosed { session: shared.session, at, reason: CloseReason::Abandoned };
        journal.commit(vec![closed]).await.map(drop)
    }
}
