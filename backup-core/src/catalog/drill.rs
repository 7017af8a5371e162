//! What drills have shown: backups that were restored into a scratch instance and looked at there.
//!
//! A record is written once, when the drill is over, also when it failed. It stands in the journal, whose entries are sealed and chained under
//! the keys of the repository: without a key nobody can write one, and none can be changed or taken away unseen by whoever knows a later head.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use minicbor::{Decode, Encode};

use super::{Actor, Rejected};
use crate::id::{BackupId, DrillId};
use crate::position::LogPosition;
use crate::snapshot::Finding;

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum DrillOutcome {
    /// The target was reached and every check that was made passed.
    #[n(0)]
    Passed,
    /// What is stored, or what was backed up, is damaged.
    #[n(1)]
    Damaged,
    /// It failed for a reason that says nothing about what is stored: a full disk, a server that does not start, a missing library.
    #[n(2)]
    Failed,
}

/// What became of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum CheckOutcome {
    /// Nothing was wrong.
    #[n(0)]
    Passed,
    /// Something was wrong.
    #[n(1)]
    Failed,
    /// It could not be made; [`DrillCheck::problem`] says why.
    #[n(2)]
    Skipped,
}

/// One thing that was looked at in the scratch instance.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct DrillCheck {
    /// Its name, in kebab case, e.g. `tables`.
    #[n(0)]
    pub name: String,
    /// What became of it.
    #[n(1)]
    pub outcome: CheckOutcome,
    /// What was counted: `rows`, `bytes`, `relations`.
    #[n(2)]
    pub figures: BTreeMap<String, u64>,
    /// BLAKE3 of what was read, in hex, where two drills of the same target give the same.
    #[n(3)]
    pub digest: Option<String>,
    /// What was wrong, or why it was not made.
    #[n(4)]
    pub problem: Option<String>,
}

impl DrillCheck {
    /// A check that passed.
    pub fn passed(name: impl Into<String>) -> Self {
        let (figures, digest, problem) = (BTreeMap::new(), None, None);
        Self { name: name.into(), outcome: CheckOutcome::Passed, figures, digest, problem }
    }

    /// A check that could not be made.
    pub fn skipped(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { outcome: CheckOutcome::Skipped, problem: Some(why.into()), ..Self::passed(name) }
    }

    /// Adds something that was counted.
    #[must_use]
    pub fn counted(mut self, what: &str, count: u64) -> Self {
        self.figures.insert(what.to_owned(), count);
        self
    }

    /// Sets the digest of what was read.
    #[must_use]
    pub fn with_digest(mut self, digest: impl Into<String>) -> Self {
        self.digest = Some(digest.into());
        self
    }

    /// Says that it failed. The first problem is the one that is told.
    #[must_use]
    pub fn failed(mut self, problem: impl Into<String>) -> Self {
        self.outcome = CheckOutcome::Failed;
        self.problem.get_or_insert(problem.into());
        self
    }
}

/// How long a step of a drill took.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[non_exhaustive]
pub struct DrillStep {
    /// `restore`, `start`, `replay` or `check`.
    #[n(0)]
    pub name: String,
    /// How long, in milliseconds.
    #[n(1)]
    pub ms: u64,
}

impl DrillStep {
    /// A step that took so many milliseconds.
    pub fn new(name: impl Into<String>, ms: u64) -> Self {
        Self { name: name.into(), ms }
    }
}

/// What a drill did and what it has shown.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct DrillRecord {
    /// Which drill.
    #[n(0)]
    pub id: DrillId,
    /// The engine, e.g. `postgres`.
    #[n(1)]
    pub engine: String,
    /// What was to be reached, for people.
    #[n(2)]
    pub target: String,
    /// The backup that was restored.
    #[n(3)]
    pub backup: BackupId,
    /// The position that was reached, as the instance told it.
    #[n(4)]
    pub position: Option<LogPosition>,
    /// The moment of the last change that was reached, where the instance told one.
    #[cbor(n(5), with = "crate::cbor::optional_timestamp")]
    pub time: Option<Timestamp>,
    /// When it began.
    #[cbor(n(6), with = "crate::cbor::timestamp")]
    pub began: Timestamp,
    /// When it was over.
    #[cbor(n(7), with = "crate::cbor::timestamp")]
    pub ended: Timestamp,
    /// How long each step took, in order. Those that were not reached are missing.
    #[n(8)]
    pub steps: Vec<DrillStep>,
    /// Bytes of content that were read from the repository and restored, the log among them.
    #[n(9)]
    pub restored_bytes: u64,
    /// What was looked at.
    #[n(10)]
    pub checks: Vec<DrillCheck>,
    /// What was noticed.
    #[n(11)]
    pub findings: Vec<Finding>,
    /// How it ended.
    #[n(12)]
    pub outcome: DrillOutcome,
    /// Why it did not pass.
    #[n(13)]
    pub problem: Option<String>,
    /// The program that did it, with its version.
    #[n(14)]
    pub program: String,
    /// The server that was started, with its version, if it came to that.
    #[n(15)]
    pub server: Option<String>,
    /// Who wanted it.
    #[n(16)]
    pub by: Actor,
}

impl DrillRecord {
    /// A drill that has just begun, and counts as passed until something else is said.
    pub fn new(
        id: DrillId,
        (engine, target): (impl Into<String>, impl Into<String>),
        backup: BackupId,
        began: Timestamp,
        by: Actor,
    ) -> Self {
        Self {
            id,
            engine: engine.into(),
            target: target.into(),
            backup,
            position: None,
            time: None,
            began,
            ended: began,
            steps: Vec::new(),
            restored_bytes: 0,
            checks: Vec::new(),
            findings: Vec::new(),
            outcome: DrillOutcome::Passed,
            problem: None,
            program: String::new(),
            server: None,
            by,
        }
    }

    /// Whether the backup was proven.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.outcome == DrillOutcome::Passed
    }

    /// How long it took until the instance served, in milliseconds: restore, start and replay without the checks. What a real restore
    /// would have taken here.
    #[must_use]
    pub fn recovery_ms(&self) -> u64 {
        self.steps.iter().filter(|step| step.name != "check").map(|step| step.ms).sum()
    }
}

/// A drill that is under way, as the one who does it has said.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct DrillUnderWay {
    /// Which.
    pub drill: DrillId,
    /// Who does it.
    pub by: Actor,
    /// When it was begun.
    pub began: Timestamp,
    /// From here on it counts as given up.
    pub until: Timestamp,
}

/// What is known of the drills of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drills {
    history: VecDeque<Arc<DrillRecord>>,
    last_passed: Option<Arc<DrillRecord>>,
    under_way: Option<DrillUnderWay>,
}

impl Drills {
    /// So many of the newest records are remembered. Monthly drills fill that in eight years; all of them stay in the journal.
    pub const REMEMBERED: usize = 100;

    /// The records that are remembered, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &DrillRecord> {
        self.history.iter().map(|record| &**record)
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<&DrillRecord> {
        self.history.back().map(|record| &**record)
    }

    /// The last one that passed, however long ago.
    #[must_use]
    pub fn last_passed(&self) -> Option<&DrillRecord> {
        self.last_passed.as_deref()
    }

    /// The last one that passed and began with `backup`.
    #[must_use]
    pub fn proof_of(&self, backup: BackupId) -> Option<&DrillRecord> {
        let known = self.history().rfind(|record| record.backup == backup && record.has_passed());
        known.or_else(|| self.last_passed().filter(|record| record.backup == backup))
    }

    /// The one that is under way at `now`.
    #[must_use]
    pub fn under_way(&self, now: Timestamp) -> Option<&DrillUnderWay> {
        self.under_way.as_ref().filter(|drill| now < drill.until)
    }

    pub(super) fn begin(
        &mut self,
        drill: DrillId,
        by: &Actor,
        (at, until): (Timestamp, Timestamp),
    ) -> Result<(), Rejected> {
        if self.history.iter().any(|record| record.id == drill) {
            return Err(Rejected::DrillOver(drill));
        }
        match self.under_way.as_mut().filter(|other| other.drill == drill || at < other.until) {
            Some(own) if own.drill == drill => own.until = until,
            Some(other) => {
                return Err(Rejected::DrillUnderWay { by: other.by.clone(), until: other.until });
            }
            None => self.under_way = Some(DrillUnderWay { drill, by: by.clone(), began: at, until }),
        }
        Ok(())
    }

    pub(super) fn end(&mut self, record: &DrillRecord) -> Result<(), Rejected> {
        if self.history.iter().any(|known| known.id == record.id) {
            return Err(Rejected::DrillOver(record.id));
        }
        self.under_way.take_if(|drill| drill.drill == record.id);
        let record = Arc::new(record.clone());
        if record.has_passed() {
            self.last_passed = Some(Arc::clone(&record));
        }
        if self.history.len() == Self::REMEMBERED {
            self.history.pop_front();
        }
        self.history.push_back(record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, Event, Role};
    use crate::env::Env;

    fn by() -> Actor {
        Actor::new(Role::Platform, "runner")
    }

    fn record(env: &Env, outcome: DrillOutcome) -> DrillRecord {
        let backup = BackupId::from_bytes([7; 16]);
        let mut record = DrillRecord::new(DrillId::mint(env), ("postgres", "latest"), backup, env.now(), by());
        record.outcome = outcome;
        record
    }

    fn drilled(record: &DrillRecord) -> Event {
        Event::Drilled { record: Box::new(record.clone()) }
    }

    #[test]
    fn the_last_proof_outlives_what_is_remembered() {
        let (env, mut catalog) = (Env::seeded(1), Catalog::new());
        let proof = record(&env, DrillOutcome::Passed);
        catalog.apply(&drilled(&proof)).unwrap();
        for _ in 0..Drills::REMEMBERED {
            catalog.apply(&drilled(&record(&env, DrillOutcome::Failed))).unwrap();
        }
        let drills = catalog.drills();
        assert_eq!((drills.history().count(), drills.last_passed()), (Drills::REMEMBERED, Some(&proof)));
        assert!(!drills.last().unwrap().has_passed());
        assert_eq!(drills.proof_of(proof.backup), Some(&proof));
        assert_eq!(drills.proof_of(BackupId::from_bytes([8; 16])), None);
    }

    #[test]
    fn a_record_is_written_once() {
        let (env, mut catalog) = (Env::seeded(2), Catalog::new());
        let record = record(&env, DrillOutcome::Damaged);
        catalog.apply(&drilled(&record)).unwrap();
        assert_eq!(catalog.apply(&drilled(&record)), Err(Rejected::DrillOver(record.id)));
    }

    #[test]
    fn one_drill_at_a_time_until_it_gives_no_sign_of_life() {
        let (env, mut catalog) = (Env::seeded(3), Catalog::new());
        let (first, second) = (DrillId::mint(&env), DrillId::mint(&env));
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let begun = |drill, from, until| Event::DrillBegun { drill, by: by(), at: at(from), until: at(until) };
        catalog.apply(&begun(first, 0, 10)).unwrap();
        let refused = catalog.apply(&begun(second, 9, 20)).unwrap_err();
        assert!(matches!(refused, Rejected::DrillUnderWay { .. }), "{refused}");
        catalog.apply(&begun(first, 9, 19)).unwrap();
        assert_eq!(catalog.drills().under_way(at(18)).map(|drill| (drill.drill, drill.began)), Some((first, at(0))));
        catalog.apply(&begun(second, 19, 30)).unwrap();
        // Whoever was slow still says what it has seen; the other one goes on.
        let mut late = record(&env, DrillOutcome::Passed);
        late.id = first;
        catalog.apply(&drilled(&late)).unwrap();
        assert_eq!(catalog.drills().under_way(at(20)).map(|drill| drill.drill), Some(second));
        late.id = second;
        catalog.apply(&drilled(&late)).unwrap();
        assert_eq!(catalog.drills().under_way(at(20)), None);
        assert_eq!(catalog.apply(&begun(second, 21, 30)), Err(Rejected::DrillOver(second)));
    }

    #[test]
    fn what_a_newer_program_adds_is_passed_over() {
        let env = Env::seeded(4);
        let mut told = record(&env, DrillOutcome::Passed);
        told.checks.push(DrillCheck::passed("tables").counted("rows", 7).with_digest("ab"));
        told.steps.push(DrillStep::new("restore", 12));
        told.time = Some(env.now());
        let bytes = minicbor::to_vec(&told).unwrap();
        assert_eq!(minicbor::decode::<DrillRecord>(&bytes).unwrap(), told);
        // A map with one more field.
        let mut more = bytes.clone();
        assert_eq!(more[0] & 0xe0, 0xa0, "a short map");
        more[0] += 1;
        more.extend([0x18, 99, 0x01]);
        assert_eq!(minicbor::decode::<DrillRecord>(&more).unwrap(), told);
    }
}
