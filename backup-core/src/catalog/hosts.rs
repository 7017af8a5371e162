//! Hosts that only write, and what they have deposited.
//!
//! Such a host has no key, so it cannot write here. What it has stored lies in its session's folder until somebody with the keys
//! has looked at it and says so: adopted, it is a backup like any other; refused, its session has ended.
//!
//! Who adopts has looked at a state that may have passed when the entry is written. So the entry says how many collections and reports of damage there
//! were by then ([`Deposit::collections`], [`Deposit::reports`]), and is refused when there are more. The last adopted backup of each host is pinned: the
//! host builds on it without being able to say so.
//!
//! A recipient who was removed has known the key from which the secrets of the hosts of that time follow. So nothing of such a host is adopted any more;
//! it has to be given another file.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use minicbor::{Decode, Encode};
use rpds::RedBlackTreeMapSync;

use super::{BackupRecord, Catalog, CloseReason, Rejected, SessionState};
use crate::id::{BackupId, HostId, SessionId};

/// What can happen to a host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum HostChange {
    /// It may deposit backups.
    #[n(0)]
    Added {
        /// The host.
        #[n(0)]
        host: HostId,
        /// What people call it. No other host has this name.
        #[n(1)]
        label: String,
        /// The epoch from whose key its secret follows.
        #[n(2)]
        epoch: u32,
    },
    /// It may not any more.
    #[n(1)]
    Removed {
        /// The host.
        #[n(0)]
        host: HostId,
    },
}

/// A host that may deposit backups.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct HostRecord {
    /// What people call it.
    pub label: String,
    /// The epoch from whose key its secret follows.
    pub epoch: u32,
    /// Since when.
    pub since: Timestamp,
    /// Its newest adopted backup, and the session that wrote it. Everything that it needs stays until there is a newer one.
    pub last: Option<(SessionId, BackupId)>,
}

/// What makes a deposit a backup.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
#[non_exhaustive]
pub struct Deposit {
    /// The backup.
    #[n(0)]
    pub record: BackupRecord,
    /// Who deposited it.
    #[n(1)]
    pub host: HostId,
    /// The key of the session, sealed. Nobody looks into it here.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub key: Vec<u8>,
    /// [`Catalog::next_collection`] of the state in which it was looked at.
    #[n(3)]
    pub collections: u64,
    /// [`Catalog::damage_reports`] of that state.
    #[n(4)]
    pub reports: u64,
}

impl Deposit {
    /// A deposit of `host` that was found good in the state `seen`.
    #[must_use]
    pub fn new(record: BackupRecord, host: HostId, key: Vec<u8>, seen: &Catalog) -> Self {
        Self { record, host, key, collections: seen.next_collection(), reports: seen.damage_reports() }
    }
}

/// Why a deposit is no backup and never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Refusal {
    /// The host was removed.
    #[n(0)]
    HostRemoved,
    /// A recipient was removed since the host was added, who could have written the same. The host needs another file.
    #[n(1)]
    HostOutdated,
    /// Its key is not the one that was used.
    #[n(2)]
    WrongKey,
    /// Its manifest is not what it must be.
    #[n(3)]
    BadManifest,
    /// Packs that it stored are not there as it says.
    #[n(4)]
    PacksMissing,
    /// It builds on what is gone, condemned or damaged, or was never adopted from the same host.
    #[n(5)]
    ParentGone,
    /// Its session was taken for dead before it had ended.
    #[n(6)]
    Collected,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostRemoved => "the host was removed",
            Self::HostOutdated => "a recipient was removed since the host was added: it needs another file",
            Self::WrongKey => "its key is not the one that was used",
            Self::BadManifest => "its manifest is not what it must be",
            Self::PacksMissing => "packs that it stored are not there as it says",
            Self::ParentGone => "it builds on what is not there any more",
            Self::Collected => "its session was taken for dead",
        })
    }
}

/// What the catalog knows of hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    hosts: Arc<BTreeMap<HostId, HostRecord>>,
    /// With the epochs from whose keys their secrets follow.
    removed: Arc<BTreeMap<HostId, u32>>,
    /// Who deposited what was adopted, by session.
    deposits: RedBlackTreeMapSync<SessionId, HostId>,
}

impl Catalog {
    /// The hosts that may deposit backups.
    pub fn hosts(&self) -> impl Iterator<Item = (HostId, &HostRecord)> {
        self.hosts.hosts.iter().map(|(id, host)| (*id, host))
    }

    /// One of them.
    #[must_use]
    pub fn host(&self, host: HostId) -> Option<&HostRecord> {
        self.hosts.hosts.get(&host)
    }

    /// Whether a host was removed.
    #[must_use]
    pub fn is_host_removed(&self, host: HostId) -> bool {
        self.hosts.removed.contains_key(&host)
    }

    /// Hosts of which nothing is adopted any more, with the epochs from whose keys their secrets follow: those that were removed, and those that were
    /// added before a recipient was removed.
    pub fn untrusted_hosts(&self) -> impl Iterator<Item = (HostId, u32, Refusal)> + '_ {
        let removed = self.hosts.removed.iter().map(|(host, epoch)| (*host, *epoch, Refusal::HostRemoved));
        let outdated = self.hosts().filter(|(_, known)| known.epoch < self.keys().since_removal());
        removed.chain(outdated.map(|(host, known)| (host, known.epoch, Refusal::HostOutdated)))
    }

    /// The host whose deposit the session was, if it was adopted.
    #[must_use]
    pub fn depositor(&self, session: SessionId) -> Option<HostId> {
        self.hosts.deposits.get(&session).copied()
    }

    /// The newest backup that nothing is known to harm and that no host has deposited that only writes: such a host may have been taken over, and who builds
    /// on a backup believes it.
    #[must_use]
    pub fn latest_own(&self) -> Option<&BackupRecord> {
        let own = self.backups().filter(|backup| self.depositor(backup.session).is_none());
        own.filter(|backup| self.is_sound(backup.id)).max_by_key(|backup| (backup.ended_at, backup.id))
    }

    /// The backups that hosts may build on.
    pub(super) fn pinned_by_hosts(&self) -> impl Iterator<Item = BackupId> + '_ {
        self.hosts.hosts.values().filter_map(|host| host.last.map(|(_, backup)| backup))
    }

    /// The host, if what it deposits may be adopted.
    ///
    /// # Errors
    /// [`Rejected::HostUnknown`], [`Rejected::HostRemoved`] or [`Rejected::HostOutdated`].
    pub fn trusted_host(&self, host: HostId) -> Result<&HostRecord, Rejected> {
        match self.host(host) {
            Some(known) if known.epoch < self.keys().since_removal() => Err(Rejected::HostOutdated(host)),
            Some(known) => Ok(known),
            None if self.is_host_removed(host) => Err(Rejected::HostRemoved(host)),
            None => Err(Rejected::HostUnknown(host)),
        }
    }

    pub(super) fn change_host(&mut self, change: &HostChange, at: Timestamp) -> Result<(), Rejected> {
        match change {
            HostChange::Added { host, label, epoch } => {
                if self.is_host_removed(*host) {
                    return Err(Rejected::HostRemoved(*host));
                }
                if let Some((_, known)) = self.hosts().find(|(id, known)| id == host || known.label == *label) {
                    return Err(Rejected::HostExists(known.label.clone()));
                }
                if *epoch < self.keys().since_removal() {
                    return Err(Rejected::HostOutdated(*host));
                }
                // What a rebuild of the catalog has found of it counts.
                let own = self.hosts.deposits.iter().filter(|(_, by)| *by == host).map(|(session, _)| *session);
                let last = own.filter_map(|session| match self.session(session) {
                    Some(SessionState::Committed(backup)) => Some((session, *backup)),
                    _ => None,
                });
                let record = HostRecord { label: label.clone(), epoch: *epoch, since: at, last: last.max() };
                let pins = record.last.is_some();
                Arc::make_mut(&mut self.hosts.hosts).insert(*host, record);
                if pins {
                    self.collect.pin();
                }
            }
            HostChange::Removed { host } => {
                let epoch = self.host(*host).ok_or(Rejected::HostUnknown(*host))?.epoch;
                Arc::make_mut(&mut self.hosts.hosts).remove(host);
                Arc::make_mut(&mut self.hosts.removed).insert(*host, epoch);
            }
        }
        Ok(())
    }

    pub(super) fn adopt_deposit(&mut self, deposit: &Deposit) -> Result<(), Rejected> {
        let Deposit { record, host, collections, reports, .. } = deposit;
        if self.session(record.session).is_some() {
            return Err(Rejected::SessionExists(record.session));
        }
        self.trusted_host(*host)?;
        if *collections != self.next_collection() || *reports != self.damage_reports() {
            return Err(Rejected::DepositStale(record.session));
        }
        // A host chooses the ids of its backups; it must not make others forget theirs.
        if self.expired.contains_key(&record.id) {
            return Err(Rejected::BackupExists(record.id));
        }
        if let Some(session) = record.reused.iter().find(|session| self.depositor(**session) != Some(*host)) {
            return Err(Rejected::ReuseUnknown { backup: record.id, session: *session });
        }
        self.insert(record)?;
        self.note_deposit(record.session, *host);
        if let Some(known) = Arc::make_mut(&mut self.hosts.hosts).get_mut(host) {
            known.last = known.last.max(Some((record.session, record.id)));
        }
        self.collect.pin();
        Ok(())
    }

    /// Notes whose deposit a session was.
    pub(super) fn note_deposit(&mut self, session: SessionId, host: HostId) {
        self.hosts.deposits.insert_mut(session, host);
    }

    pub(super) fn refuse_deposit(&mut self, session: SessionId, host: HostId) -> Result<(), Rejected> {
        self.host(host).ok_or(Rejected::HostUnknown(host))?;
        if self.session(session).is_some() {
            return Err(Rejected::SessionExists(session));
        }
        self.sessions.insert_mut(session, SessionState::Closed(CloseReason::Fenced));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
