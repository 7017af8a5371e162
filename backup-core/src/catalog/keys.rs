//! Who can open what is stored: the epochs of the repository's key, and the recipients for whom their keys are wrapped.
//!
//! A wrapped key is a plain object, so nothing but the journal says whether it is one that counts. It is announced before it is stored
//! and counts from the event that makes it so: whatever lies among the keys and was never announced was put there by somebody else, and
//! what was given up or removed can be told from what is missing.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

/// A wrapped key, as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct Wrap {
    /// The epoch whose key it holds.
    #[n(0)]
    pub epoch: u32,
    /// For whom: the recipient's public name.
    #[n(1)]
    pub recipient: String,
    /// The name of its object.
    #[n(2)]
    pub name: String,
    /// BLAKE3 of its object.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub digest: [u8; 32],
}

/// What can happen to the keys of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum KeyChange {
    /// These wrapped keys are about to be stored. They do not count yet.
    #[n(0)]
    Announced {
        /// The wraps.
        #[n(0)]
        wraps: Vec<Wrap>,
        /// The number of the epoch that is to begin with them. Nobody else may take it.
        #[n(1)]
        epoch: Option<u32>,
    },
    /// Announced wraps of one recipient count. They replace those that it had in the same epochs.
    #[n(1)]
    Added {
        /// The recipient.
        #[n(0)]
        recipient: String,
        /// What people call it; what it was called stays when absent.
        #[n(1)]
        label: Option<String>,
        /// Its public key, where it has one, so that later epochs can be wrapped for it.
        #[cbor(n(2), with = "minicbor::bytes")]
        public: Option<[u8; 32]>,
        /// The names of its wraps.
        #[n(3)]
        wraps: Vec<String>,
    },
    /// An epoch begins: everything behind this entry of the journal is sealed in it.
    #[n(2)]
    EpochBegun {
        /// Its number.
        #[n(0)]
        epoch: u32,
        /// The fingerprint of its key.
        #[cbor(n(1), with = "minicbor::bytes")]
        fingerprint: [u8; 16],
        /// The names of its wraps: one for each recipient of the epoch before, but for those that are removed.
        #[n(2)]
        wraps: Vec<String>,
        /// Recipients that are none any more, in any epoch.
        #[n(3)]
        removed: Vec<String>,
    },
    /// Something is known of a recipient besides its wraps.
    #[n(3)]
    Described {
        /// The recipient.
        #[n(0)]
        recipient: String,
        /// What people call it; what it was called stays when absent.
        #[n(1)]
        label: Option<String>,
        /// Its public key, where it has one.
        #[cbor(n(2), with = "minicbor::bytes")]
        public: Option<[u8; 32]>,
    },
    /// Announced wraps that will not count.
    #[n(4)]
    Abandoned {
        /// Their names.
        #[n(0)]
        wraps: Vec<String>,
    },
}

/// Why a change of the keys does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRejected {
    /// Nothing is known of the repository's keys.
    #[error("the keys of the repository are not known")]
    Unknown,
    /// An epoch of this number, or a later one, was begun or announced by somebody else.
    #[error("epoch {0} was taken in the meantime")]
    EpochTaken(u32),
    /// The name of a wrap was used before.
    #[error("object {0} was announced before")]
    Repeated(String),
    /// A wrap was not announced, was given up by a later change, or is another's.
    #[error("object {0} is not announced")]
    NotAnnounced(String),
    /// Somebody would have no key of the epoch that is the present one.
    #[error("recipient {recipient} would have no key of epoch {epoch}")]
    Uncovered {
        /// The recipient.
        recipient: String,
        /// The epoch.
        epoch: u32,
    },
    /// There is no such recipient.
    #[error("{0} is not a recipient")]
    NoRecipient(String),
    /// Nobody would be left.
    #[error("the last recipient cannot be removed: nobody could open the repository any more")]
    LastRecipient,
}

/// One for whom keys are wrapped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRecipient {
    /// What people call it.
    pub label: Option<String>,
    /// Its public key, where it has one and that is known.
    pub public: Option<[u8; 32]>,
    /// Its wraps, by epoch.
    pub wraps: BTreeMap<u32, Wrap>,
}

/// The keys of a repository after some events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyState {
    current: u32,
    /// The first epoch of those that began since somebody was removed.
    since_removal: u32,
    /// The highest number that an epoch ever had, begun or not.
    highest: u32,
    epochs: BTreeMap<u32, Option<[u8; 16]>>,
    recipients: BTreeMap<String, KeyRecipient>,
    announced: BTreeMap<String, Wrap>,
    gone: BTreeMap<String, Wrap>,
}

impl KeyState {
    /// The state that a journal begins with: in the epoch `current`, with these `epochs`, their fingerprints where they are known, and the
    /// wraps that are there.
    ///
    /// Wraps of later epochs than the present one belong to one that never began.
    #[must_use]
    pub fn begin(
        current: u32,
        epochs: impl IntoIterator<Item = (u32, Option<[u8; 16]>)>,
        wraps: impl IntoIterator<Item = Wrap>,
    ) -> Self {
        let epochs = epochs.into_iter().filter(|(epoch, _)| *epoch <= current).collect();
        // Who was removed before is not known any more.
        let mut state = Self { current, since_removal: current, highest: current, epochs, ..Self::default() };
        state.epochs.entry(current).or_insert(None);
        for wrap in wraps {
            state.highest = state.highest.max(wrap.epoch);
            if wrap.epoch > current {
                state.gone.insert(wrap.name.clone(), wrap);
            } else {
                state.put(wrap);
            }
        }
        state
    }

    /// The number of the present epoch; 0 when nothing is known.
    #[must_use]
    pub fn current(&self) -> u32 {
        self.current
    }

    /// The number of the first epoch since somebody was removed: all who know the key of this one, or of a later one, are recipients. The present one at
    /// the beginning of a catalog that was rebuilt, as nothing else is known then.
    #[must_use]
    pub fn since_removal(&self) -> u32 {
        self.since_removal
    }

    /// The number that the next epoch gets.
    ///
    /// # Errors
    /// [`KeyRejected::EpochTaken`] behind the last number.
    pub fn next(&self) -> Result<u32, KeyRejected> {
        // The last number is that of no epoch: it stands for the keys of sessions.
        let next = self.highest.checked_add(1).filter(|next| *next < u32::MAX);
        next.ok_or(KeyRejected::EpochTaken(self.highest))
    }

    /// The epochs that were begun, with the fingerprints of their keys where they are known.
    pub fn epochs(&self) -> impl DoubleEndedIterator<Item = (u32, Option<&[u8; 16]>)> {
        self.epochs.iter().map(|(epoch, fingerprint)| (*epoch, fingerprint.as_ref()))
    }

    /// Whether somebody is about to begin `epoch`.
    #[must_use]
    pub fn is_announced(&self, epoch: u32) -> bool {
        epoch > self.current && self.announced.values().any(|wrap| wrap.epoch == epoch)
    }

    /// The recipients, by name.
    pub fn recipients(&self) -> impl Iterator<Item = (&str, &KeyRecipient)> {
        self.recipients.iter().map(|(name, recipient)| (name.as_str(), recipient))
    }

    /// One recipient.
    #[must_use]
    pub fn recipient(&self, name: &str) -> Option<&KeyRecipient> {
        self.recipients.get(name)
    }

    /// Those who can open what is written at present, by name.
    pub fn present(&self) -> impl Iterator<Item = &str> {
        self.recipients().filter(|(_, known)| known.wraps.contains_key(&self.current)).map(|(name, _)| name)
    }

    /// The wraps that count, whosever they are.
    pub fn wraps(&self) -> impl Iterator<Item = &Wrap> {
        self.recipients.values().flat_map(|recipient| recipient.wraps.values())
    }

    /// The wraps that may be there and do not count yet.
    pub fn announced(&self) -> impl Iterator<Item = &Wrap> {
        self.announced.values()
    }

    /// The wraps that counted or were to count, and must not be there any more.
    pub fn gone(&self) -> impl Iterator<Item = &Wrap> {
        self.gone.values()
    }

    fn put(&mut self, wrap: Wrap) {
        let recipient = self.recipients.entry(wrap.recipient.clone()).or_default();
        if let Some(before) = recipient.wraps.insert(wrap.epoch, wrap) {
            self.gone.insert(before.name.clone(), before);
        }
    }

    /// Takes announced wraps out. They have been looked at.
    fn take(&mut self, names: &[String]) -> Vec<Wrap> {
        names.iter().filter_map(|name| self.announced.remove(name)).collect()
    }

    fn give_up(&mut self, is_given_up: impl Fn(&Wrap) -> bool) {
        let names: Vec<_> = self.announced.values().filter(|wrap| is_given_up(wrap)).map(|w| w.name.clone()).collect();
        for wrap in self.take(&names) {
            self.gone.insert(wrap.name.clone(), wrap);
        }
    }

    fn announced_of(&self, names: &[String]) -> Result<Vec<&Wrap>, KeyRejected> {
        let wrap = |name: &String| self.announced.get(name).ok_or_else(|| KeyRejected::NotAnnounced(name.clone()));
        names.iter().map(wrap).collect()
    }

    /// The state after `change`; unchanged when it is refused.
    pub(super) fn apply(&mut self, change: &KeyChange) -> Result<(), KeyRejected> {
        if self.current == 0 {
            return Err(KeyRejected::Unknown);
        }
        match change {
            KeyChange::Announced { wraps, epoch } => self.announce(wraps, *epoch),
            KeyChange::Added { recipient, label, public, wraps } => {
                self.add(recipient, wraps)?;
                self.describe(recipient, label.as_ref(), *public)
            }
            KeyChange::EpochBegun { epoch, fingerprint, wraps, removed } => {
                self.advance((*epoch, *fingerprint), wraps, removed)
            }
            KeyChange::Described { recipient, label, public } => self.describe(recipient, label.as_ref(), *public),
            KeyChange::Abandoned { wraps } => {
                self.announced_of(wraps)?;
                self.give_up(|wrap| wraps.contains(&wrap.name));
                Ok(())
            }
        }
    }

    fn announce(&mut self, wraps: &[Wrap], epoch: Option<u32>) -> Result<(), KeyRejected> {
        if let Some(taken) = epoch.filter(|epoch| *epoch <= self.highest) {
            return Err(KeyRejected::EpochTaken(taken));
        }
        for wrap in wraps {
            let known = self.announced.contains_key(&wrap.name) || self.gone.contains_key(&wrap.name);
            if known || self.wraps().any(|other| other.name == wrap.name) {
                return Err(KeyRejected::Repeated(wrap.name.clone()));
            }
        }
        self.highest = epoch.unwrap_or(self.highest);
        self.announced.extend(wraps.iter().map(|wrap| (wrap.name.clone(), wrap.clone())));
        Ok(())
    }

    fn add(&mut self, recipient: &str, names: &[String]) -> Result<(), KeyRejected> {
        let wraps = self.announced_of(names)?;
        if let Some(foreign) = wraps.iter().find(|wrap| wrap.recipient != recipient || wrap.epoch > self.current) {
            return Err(KeyRejected::NotAnnounced(foreign.name.clone()));
        }
        let has = self.recipients.get(recipient).is_some_and(|known| known.wraps.contains_key(&self.current));
        if !has && !wraps.iter().any(|wrap| wrap.epoch == self.current) {
            return Err(KeyRejected::Uncovered { recipient: recipient.to_owned(), epoch: self.current });
        }
        for wrap in self.take(names) {
            self.put(wrap);
        }
        // What an earlier attempt has left behind for the same recipient.
        self.give_up(|wrap| wrap.recipient == recipient);
        Ok(())
    }

    fn advance(
        &mut self,
        (epoch, fingerprint): (u32, [u8; 16]),
        names: &[String],
        removed: &[String],
    ) -> Result<(), KeyRejected> {
        let wraps = self.announced_of(names)?;
        if epoch <= self.current {
            return Err(KeyRejected::EpochTaken(epoch));
        }
        if let Some(unknown) = removed.iter().find(|name| !self.recipients.contains_key(*name)) {
            return Err(KeyRejected::NoRecipient(unknown.clone()));
        }
        let stays = |name: &str| !removed.iter().any(|gone| gone == name);
        if !self.present().any(stays) {
            return Err(KeyRejected::LastRecipient);
        }
        if let Some(left) = self.present().find(|name| stays(name) && !wraps.iter().any(|w| w.recipient == **name)) {
            return Err(KeyRejected::Uncovered { recipient: left.to_owned(), epoch });
        }
        let fits =
            |wrap: &&Wrap| wrap.epoch == epoch && stays(&wrap.recipient) && self.present().any(|p| p == wrap.recipient);
        if let Some(foreign) = wraps.iter().find(|wrap| !fits(wrap)) {
            return Err(KeyRejected::NotAnnounced(foreign.name.clone()));
        }
        for name in removed {
            let wraps = self.recipients.remove(name).unwrap_or_default().wraps;
            self.gone.extend(wraps.into_values().map(|wrap| (wrap.name.clone(), wrap)));
        }
        for wrap in self.take(names) {
            self.put(wrap);
        }
        // Whoever was about to add or to begin something did not know of this epoch.
        self.give_up(|_| true);
        self.highest = self.highest.max(epoch);
        if !removed.is_empty() {
            self.since_removal = epoch;
        }
        self.current = epoch;
        self.epochs.insert(epoch, Some(fingerprint));
        Ok(())
    }

    fn describe(
        &mut self,
        recipient: &str,
        label: Option<&String>,
        public: Option<[u8; 32]>,
    ) -> Result<(), KeyRejected> {
        let known = self.recipients.get_mut(recipient);
        let known = known.ok_or_else(|| KeyRejected::NoRecipient(recipient.to_owned()))?;
        known.label = label.cloned().or_else(|| known.label.take());
        known.public = public.or(known.public);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
