//! What was found damaged, what was mended, and how far what is stored has been read.
//!
//! Damage is marked and nothing is deleted for it. A backup that is harmed can still be restored in part, but counts for little: it is no
//! parent of others, keeps no sound one from being kept, and no moment behind it is called restorable. So the first backup after a
//! report stores again what was lost, from the source. A session that was open when damage was reported cannot commit if it reuses
//! anything of a session that was hit: it would be harmed from its first day, and nobody would have looked.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use minicbor::{Decode, Encode};
use rpds::RedBlackTreeMapSync;

use super::{BackupRecord, Catalog, PackId, Rejected, SessionPacks, SessionState};
use crate::id::{BackupId, SessionId};
use crate::log::LogEpoch;

/// What is wrong with a pack.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct PackDamage {
    /// The pack, as it lies in the store: a copy, where its segments were moved.
    #[n(0)]
    pub pack: PackId,
    /// What is wrong, for people.
    #[n(1)]
    pub problem: String,
    /// The backups that cannot be restored completely because of it.
    #[n(2)]
    pub backups: Vec<BackupId>,
}

/// What harms a backup.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Harm {
    /// What is wrong, for people.
    pub problem: String,
    /// The backups that are harmed.
    pub backups: BTreeSet<BackupId>,
    /// When it was first noticed.
    pub since: Timestamp,
}

/// Something that a verification reads.
///
/// They are in the order in which they are read: packs as they were written, then the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyPlace {
    /// A pack.
    #[n(0)]
    Pack(#[n(0)] PackId),
    /// An object of the log.
    #[n(1)]
    Log {
        /// Its writer.
        #[n(0)]
        epoch: LogEpoch,
        /// Its number among those of the writer.
        #[n(1)]
        sequence: u64,
    },
}

/// Reading everything that is stored, a part at a time.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct VerifyPass {
    /// When its first part began.
    #[cbor(n(0), with = "crate::cbor::timestamp")]
    pub began: Timestamp,
    /// The last thing that was read. None when nothing is left.
    #[n(1)]
    pub through: Option<VerifyPlace>,
}

/// What a verification has read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct Verification {
    /// Its level, e.g. `full`.
    #[n(0)]
    pub level: String,
    /// When it began.
    #[cbor(n(1), with = "crate::cbor::timestamp")]
    pub began: Timestamp,
    /// When it ended.
    #[cbor(n(2), with = "crate::cbor::timestamp")]
    pub ended: Timestamp,
    /// Objects that it looked at.
    #[n(3)]
    pub objects: u64,
    /// Stored bytes that it read.
    #[n(4)]
    pub read_bytes: u64,
    /// Objects that it found damaged.
    #[n(5)]
    pub problems: u64,
    /// The pass that it was a part of, if it went through everything in order.
    #[n(6)]
    pub pass: Option<VerifyPass>,
}

impl Verification {
    /// One of `level`, from `began` to `ended`, that has read nothing yet.
    pub fn new(level: impl Into<String>, began: Timestamp, ended: Timestamp) -> Self {
        Self { level: level.into(), began, ended, objects: 0, read_bytes: 0, problems: 0, pass: None }
    }
}

/// What the catalog knows of damage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    /// How often damage was reported.
    reports: u64,
    packs: RedBlackTreeMapSync<PackId, Harm>,
    /// By which report sessions were last hit.
    sessions: RedBlackTreeMapSync<SessionId, u64>,
    verifications: BTreeMap<String, Verification>,
    pass: Option<VerifyPass>,
    read_since: Option<Timestamp>,
}

impl State {
    pub(super) fn reports(&self) -> u64 {
        self.reports
    }

    pub(super) fn is_touched(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    pub(super) fn mend(&mut self, packs: &[PackId]) {
        for pack in packs {
            self.packs.remove_mut(pack);
        }
    }

    pub(super) fn forget(&mut self, condemned: &[SessionPacks]) {
        if self.packs.is_empty() {
            return;
        }
        for packs in condemned {
            let within = |pack: &PackId| {
                let inside = |(first, last): &(u32, u32)| (*first..=*last).contains(&pack.number);
                pack.session == packs.session && (packs.whole || packs.numbers.iter().any(inside))
            };
            let gone: Vec<_> = self.packs.keys().filter(|pack| within(pack)).copied().collect();
            self.mend(&gone);
        }
    }

    pub(super) fn verified(&mut self, verification: &Verification) {
        if let Some(pass) = &verification.pass {
            if pass.through.is_none() {
                self.read_since = self.read_since.max(Some(pass.began));
            }
            self.pass = Some(pass.clone());
        }
        self.verifications.insert(verification.level.clone(), verification.clone());
    }
}

impl Catalog {
    /// What harms `backup`, if anything is known to.
    pub fn harm(&self, backup: BackupId) -> impl Iterator<Item = (PackId, &Harm)> {
        self.damaged_packs().filter(move |(_, harm)| harm.backups.contains(&backup))
    }

    /// Whether nothing is known to harm `backup`.
    #[must_use]
    pub fn is_sound(&self, backup: BackupId) -> bool {
        self.harm(backup).next().is_none()
    }

    /// The packs that were found missing or damaged, in order.
    pub fn damaged_packs(&self) -> impl Iterator<Item = (PackId, &Harm)> {
        self.damage.packs.iter().map(|(pack, harm)| (*pack, harm))
    }

    /// Whether something of `session` was ever found damaged.
    #[must_use]
    pub fn is_damaged(&self, session: SessionId) -> bool {
        self.damage.is_touched(session)
    }

    /// How often damage was reported.
    #[must_use]
    pub fn damage_reports(&self) -> u64 {
        self.damage.reports()
    }

    /// The last verification of each level that read content, by level.
    pub fn verifications(&self) -> impl Iterator<Item = &Verification> {
        self.damage.verifications.values()
    }

    /// How far the present pass through everything has come, or that the last one is through.
    #[must_use]
    pub fn verify_pass(&self) -> Option<&VerifyPass> {
        self.damage.pass.as_ref()
    }

    /// Everything that was needed at this moment, and still is, was read since.
    #[must_use]
    pub fn read_since(&self) -> Option<Timestamp> {
        self.damage.read_since
    }

    /// The backup, if nothing is known to harm it.
    ///
    /// # Errors
    /// [`Rejected::BackupDamaged`].
    pub fn sound(&self, backup: BackupId) -> Result<(), Rejected> {
        match self.harm(backup).next() {
            None => Ok(()),
            Some((_, harm)) => Err(Rejected::BackupDamaged { backup, problem: harm.problem.clone() }),
        }
    }

    /// The newest backup that nothing is known to harm.
    #[must_use]
    pub fn latest_sound(&self) -> Option<&BackupRecord> {
        self.backups().filter(|backup| self.is_sound(backup.id)).max_by_key(|b| (b.ended_at, b.id))
    }

    pub(super) fn reuses_nothing_damaged(&self, record: &BackupRecord) -> Result<(), Rejected> {
        let Some(SessionState::Open { reports, .. }) = self.sessions.get(&record.session) else { return Ok(()) };
        let since = |session: &&SessionId| self.damage.sessions.get(session).is_some_and(|hit| hit > reports);
        match record.reused.iter().find(since) {
            None => Ok(()),
            Some(session) => Err(Rejected::ReuseDamaged { backup: record.id, session: *session }),
        }
    }

    pub(super) fn report_damage(&mut self, packs: &[PackDamage], at: Timestamp) {
        self.damage.reports += 1;
        let report = self.damage.reports;
        for PackDamage { pack, problem, backups } in packs {
            let known = self.damage.packs.get(pack);
            // Who began after the same was said took care.
            let is_new = known.is_none_or(|known| known.problem != *problem);
            let since = known.map_or(at, |known| known.since);
            let harm = Harm { problem: problem.clone(), backups: backups.iter().copied().collect(), since };
            self.damage.packs.insert_mut(*pack, harm);
            if !is_new {
                continue;
            }
            self.damage.sessions.insert_mut(pack.session, report);
            // Manifests name the pack whose segments these were.
            let moved: Vec<_> = self
                .moves()
                .filter(|moved| self.locate(moved.from).is_some_and(|found| found.to == *pack))
                .map(|moved| moved.from.session)
                .collect();
            for session in moved {
                self.damage.sessions.insert_mut(session, report);
            }
        }
    }
}

#[cfg(test)]
mod tests;
