//! What lies where entries of the journal belong and is none.
//!
//! Whoever may add objects can put something under the name of the next entry, of one far behind it, or of a generation that nobody has
//! begun. Without a key it cannot be an entry: the commitment in the header of an object follows from an epoch's key and the object's name.
//! So such objects are *passed over*: they count as entries without events. The digest of one stands in the entry behind it like that of
//! any other, by which a writer who has the key says that it was no entry when it was met; a true entry that became unreadable later breaks
//! the chain as ever. An object whose header is the right one and whose body is not was an entry, and is damaged.
//!
//! The last entry of all has nobody behind it who could vouch for it. When its header is destroyed it is passed over too, and what tells of
//! it are the witnesses: verification reports them, and collection keeps what they speak of.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use backup_core::catalog::KeyState;
use backup_crypto::{ObjectHeader, ObjectKind};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::{FETCH_AHEAD, Fold, Journal};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::Keyring;
use crate::keys::succession;
use crate::layout;
use crate::store::ObjectName;

/// How many entries of a generation are looked at before nobody is believed to have begun it.
const LOOKED_AT: usize = 16;

/// Whether the stored object `name` cannot have been written by somebody who follows the journal, whose keys are `keys` before it.
pub(crate) fn is_foreign(keyring: &Keyring, keys: Option<&KeyState>, name: &ObjectName, object: &[u8]) -> bool {
    let header = object.get(..ObjectHeader::LEN).and_then(|header| ObjectHeader::parse(header).ok());
    let Some(header) = header else { return true };
    // Who has kept the key of an epoch that is over can still make entries that open.
    if keys.is_some_and(|keys| keys.current() != header.epoch.0) {
        return true;
    }
    let opener = keyring.opener(ObjectKind::Journal, name.as_str(), &header);
    opener.is_err_and(|error| error.kind() == ErrorKind::Damaged)
}

impl<F: Fold> Journal<F> {
    /// Whether somebody who had a key of this repository has written the stored entry `name`, whole or not.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn is_vouched(&self, name: &ObjectName, object: &[u8]) -> Result<bool> {
        let header = object.get(..ObjectHeader::LEN).and_then(|header| ObjectHeader::parse(header).ok());
        let Some(header) = header else { return Ok(false) };
        match self.keyring.opener(ObjectKind::Journal, name.as_str(), &header) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(false),
            // No key of that epoch: it has begun, if an earlier one tells of it.
            Err(_) => match self.store.get(&layout::epoch(header.epoch)?).await {
                Ok(told) => Ok(succession::open(&self.keyring, header.epoch, &told).is_ok()),
                Err(error) if error.is_not_found() || error.kind() == ErrorKind::Damaged => Ok(false),
                Err(error) => Err(error),
            },
        }
    }

    /// Whether entry `number` is there and vouched for.
    async fn is_entry(&self, generation: u32, number: u64) -> Result<bool> {
        let name = layout::entry(generation, number)?;
        match self.store.get(&name).await {
            Ok(object) => self.is_vouched(&name, &object).await,
            Err(error) if error.is_not_found() || error.kind() == ErrorKind::Damaged => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a later generation than this one has been begun.
    ///
    /// A rebuild takes the first number behind its predecessor under which nothing lies, so whoever goes from one to the next finds it.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn is_succeeded(&self, generation: u32) -> Result<bool> {
        let mut before = generation.max(self.planted.load(Relaxed));
        while let Some(next) = before.checked_add(1) {
            if self.store.head(&layout::entry(next, 1)?).await?.is_none() {
                return Ok(false);
            }
            if self.is_entry(next, 1).await? {
                return Ok(true);
            }
            tracing::warn!(
                generation = next,
                "somebody has put something where a generation of the catalog would begin"
            );
            self.planted.fetch_max(next, Relaxed);
            before = next;
        }
        Ok(false)
    }

    /// The number of the generation that a rebuild begins after `generation`.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn next_generation(&self, generation: u32) -> Result<u32> {
        let mut next = generation;
        loop {
            next = next.checked_add(1).ok_or_else(|| Error::internal("the catalog cannot have another generation"))?;
            // One that somebody else has begun meanwhile is met when it is to be begun again.
            if self.store.head(&layout::entry(next, 1)?).await?.is_none() || self.is_entry(next, 1).await? {
                return Ok(next);
            }
        }
    }

    /// A listing without the generations that nobody has begun, and without what lies alone behind the end of the last one.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn believed(&self, mut listing: BTreeMap<u32, Vec<u64>>) -> Result<BTreeMap<u32, Vec<u64>>> {
        if listing.len() > 1 {
            let mut begun = Vec::new();
            for (generation, numbers) in &listing {
                for number in numbers.iter().take(LOOKED_AT) {
                    if self.is_entry(*generation, *number).await? {
                        begun.push(*generation);
                        break;
                    }
                }
            }
            let first = listing.keys().next().copied();
            listing.retain(|generation, _| match begun.is_empty() {
                // Nothing can be read; what is wrong with the first one is what is told.
                true => Some(*generation) == first,
                false => begun.contains(generation),
            });
        }
        if let Some(mut last) = listing.last_entry() {
            let generation = *last.key();
            let numbers = std::mem::take(last.get_mut());
            *last.get_mut() = self.without_islands(generation, 1, numbers).await?;
        }
        Ok(listing)
    }

    /// The numbers, from `next` on, without those behind a missing one if none of them is an entry.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn without_islands(&self, generation: u32, next: u64, numbers: Vec<u64>) -> Result<Vec<u64>> {
        let together = (next..=u64::MAX).zip(&numbers).take_while(|(expected, found)| expected == *found).count();
        let (whole, islands) = numbers.split_at(together);
        let mut entries = stream::iter(islands.iter().copied())
            .map(|number| self.is_entry(generation, number))
            .buffered(FETCH_AHEAD)
            .boxed();
        while let Some(is_entry) = entries.try_next().await? {
            if is_entry {
                drop(entries);
                return Ok(numbers);
            }
        }
        drop(entries);
        if !islands.is_empty() {
            let objects = islands.len();
            tracing::warn!(objects, "somebody has put something behind the end of the catalog");
        }
        Ok(whole.to_vec())
    }
}
