//! What lies in the store, by one listing.

use std::collections::BTreeMap;

use backup_core::{Lineage, SessionId};
use futures::TryStreamExt;
use jiff::Timestamp;

use crate::error::Result;
use crate::layout::{self, SessionObject};
use crate::log::name;
use crate::log::stored::Listed;
use crate::store::Store;

/// The folder of one session.
#[derive(Debug, Clone, Default)]
pub(super) struct Folder {
    /// Packs by their numbers, with their lengths in bytes.
    pub(super) packs: BTreeMap<u32, u64>,
    /// Bytes of what else lies there.
    pub(super) other_bytes: u64,
    /// When the newest of its objects was stored, by the store's clock.
    pub(super) last: Option<Timestamp>,
    /// Whether something has the name of a witness.
    pub(super) witnessed: bool,
    /// Whether something has the name of a deposit.
    pub(super) deposited: bool,
}

/// What was listed.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) folders: BTreeMap<SessionId, Folder>,
    pub(super) log: BTreeMap<Lineage, Vec<Listed>>,
    /// Generations and numbers of entries of the journal, and when the store took them.
    pub(super) entries: Vec<(u32, u64, Timestamp)>,
    /// When the newest of all objects was stored: it is that late at least, by the store's clock.
    pub(super) newest: Option<Timestamp>,
}

impl Survey {
    /// Lists everything.
    pub(super) async fn read(store: &Store) -> Result<Self> {
        let mut survey = Self::default();
        let mut objects = store.list("");
        while let Some(object) = objects.try_next().await? {
            let (name, at) = (object.name.as_str(), object.last_modified);
            survey.newest = survey.newest.max(Some(at));
            if let Some(found) = layout::session_object(name) {
                let folder = survey.folders.entry(found.session()).or_default();
                folder.last = folder.last.max(Some(at));
                match found {
                    SessionObject::Pack(id) => {
                        folder.packs.insert(id.number, object.size);
                    }
                    SessionObject::Witness(_) => {
                        folder.witnessed = true;
                        folder.other_bytes += object.size;
                    }
                    SessionObject::Deposit(_) => {
                        folder.deposited = true;
                        folder.other_bytes += object.size;
                    }
                    SessionObject::Alive(_) | SessionObject::Answer(_) => folder.other_bytes += object.size,
                }
            } else if let Some((generation, number)) = layout::entry_place(name) {
                survey.entries.push((generation, number, at));
            } else if let Some((lineage, piece)) = name::parse(name) {
                let listed = Listed { piece, size: object.size, spooled: false, at };
                survey.log.entry(lineage).or_default().push(listed);
            }
        }
        Ok(survey)
    }

    /// How long ago `then` was, at least, by the store's clock.
    pub(super) fn since(&self, then: Timestamp) -> jiff::SignedDuration {
        self.newest.map_or(jiff::SignedDuration::ZERO, |newest| newest.duration_since(then))
    }
}
