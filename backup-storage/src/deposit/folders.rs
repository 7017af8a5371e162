//! Which sessions end with a deposit, and what is said of them.

use std::collections::BTreeSet;

use backup_core::SessionId;
use futures::TryStreamExt;

use crate::error::Result;
use crate::layout::{self, SessionObject};
use crate::store::Store;

/// What lies in the folders of sessions besides packs.
#[derive(Debug, Default)]
pub(super) struct Folders {
    pub(super) deposits: BTreeSet<SessionId>,
    pub(super) answers: BTreeSet<SessionId>,
    pub(super) witnesses: BTreeSet<SessionId>,
}

impl Folders {
    /// Lists all of them.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn read(store: &Store) -> Result<Self> {
        let mut folders = Self::default();
        let mut objects = store.list(layout::PACKS);
        while let Some(object) = objects.try_next().await? {
            let (session, set) = match layout::session_object(object.name.as_str()) {
                Some(SessionObject::Deposit(session)) => (session, &mut folders.deposits),
                Some(SessionObject::Answer(session)) => (session, &mut folders.answers),
                Some(SessionObject::Witness(session)) => (session, &mut folders.witnesses),
                Some(SessionObject::Pack(_) | SessionObject::Alive(_)) | None => continue,
            };
            set.insert(session);
        }
        Ok(folders)
    }
}
