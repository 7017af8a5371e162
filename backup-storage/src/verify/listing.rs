//! What the store says is there.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::SessionId;
use backup_core::catalog::PackId;
use futures::TryStreamExt;

use crate::error::Result;
use crate::layout::{self, SessionObject};
use crate::store::{ObjectName, Store};

/// Every object below a repository's prefix, by what its name says.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Packs with their lengths in bytes.
    pub(crate) packs: BTreeMap<PackId, u64>,
    /// Sessions that have a witness.
    pub(crate) witnesses: BTreeSet<SessionId>,
    /// Sessions that end with a deposit.
    pub(crate) deposits: BTreeSet<SessionId>,
    pub(crate) keys: Vec<ObjectName>,
    /// What tells of the succession of epochs.
    pub(crate) epochs: Vec<ObjectName>,
    /// Objects whose names mean nothing here.
    pub(crate) foreign_objects: u64,
    pub(crate) foreign_bytes: u64,
}

impl Listing {
    /// The length of a pack in bytes; 0 when it is not there.
    pub(crate) fn len(&self, pack: PackId) -> u64 {
        self.packs.get(&pack).copied().unwrap_or(0)
    }

    /// Lists everything.
    pub(crate) async fn read(store: &Store) -> Result<Self> {
        let mut listing = Self::default();
        let mut objects = store.list("");
        while let Some(object) = objects.try_next().await? {
            let name = object.name.as_str();
            match layout::session_object(name) {
                Some(SessionObject::Pack(id)) => {
                    listing.packs.insert(id, object.size);
                }
                Some(SessionObject::Witness(session)) => {
                    listing.witnesses.insert(session);
                }
                Some(SessionObject::Deposit(session)) => {
                    listing.deposits.insert(session);
                }
                Some(SessionObject::Alive(_) | SessionObject::Answer(_)) => {}
                None if name.strip_prefix(layout::KEYS).is_some_and(|rest| rest.starts_with('/')) => {
                    listing.keys.push(object.name);
                }
                None if layout::epoch_place(name).is_some() => listing.epochs.push(object.name),
                None if name == layout::repository()?.as_str() || layout::entry_place(name).is_some() => {}
                // Whoever opens the journal finds out what they are worth.
                None if layout::checkpoint_place(name).is_some() || name == layout::REGION => {}
                // Nothing depends on what it says.
                None if layout::noticed(name).is_some() => {}
                // The log has a verification of its own.
                None if crate::log::name::parse(name).is_some() => {}
                None => {
                    listing.foreign_objects += 1;
                    listing.foreign_bytes += object.size;
                }
            }
        }
        Ok(listing)
    }
}
