//! What an engine says about a backup that it has just written.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use minicbor::{Decode, Encode};

use crate::error::{Error, ErrorKind};
use crate::member::Group;
use crate::position::LogPosition;

/// How serious a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Severity {
    /// Worth knowing.
    #[n(0)]
    Note,
    /// Something that a person should look at; the work goes on.
    #[n(1)]
    Warning,
    /// The work cannot be done, or its result cannot be trusted.
    #[n(2)]
    Blocker,
}

/// Something that an engine noticed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct Finding {
    /// How serious it is.
    #[n(0)]
    pub severity: Severity,
    /// Stable name of the kind of finding, in kebab case, e.g. `page-checksum`.
    #[n(1)]
    pub code: String,
    /// What it is about: a file, a setting; may be empty.
    #[n(2)]
    pub subject: String,
    /// What was seen, lower case, for people.
    #[n(3)]
    pub message: String,
    /// Whether it is about the surroundings (a full disk, a permission, a running server) and not about what was asked for. Not
    /// stored: it only decides what kind of error a blocker becomes.
    #[cbor(skip)]
    #[serde(skip)]
    pub surroundings: bool,
}

impl Finding {
    /// A finding with an empty subject.
    pub fn new(severity: Severity, code: &str, message: impl Into<String>) -> Self {
        Self { severity, code: code.to_owned(), subject: String::new(), message: message.into(), surroundings: false }
    }

    /// Says that the surroundings are to be mended, not what was asked for.
    #[must_use]
    pub fn in_surroundings(mut self) -> Self {
        self.surroundings = true;
        self
    }

    /// The error of refusing `what` because of it.
    #[must_use]
    pub fn refusal(&self, what: impl fmt::Display) -> Error {
        let kind = if self.surroundings { ErrorKind::Environment } else { ErrorKind::InvalidInput };
        Error::new(kind, format!("{what} is refused: {self}"))
    }

    /// Sets what it is about.
    #[must_use]
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subject.is_empty() {
            write!(f, "{}: {}", self.code, self.message)
        } else {
            write!(f, "{}: {}: {}", self.code, self.subject, self.message)
        }
    }
}

/// How well the parts of a backup belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Consistency {
    /// Everything is of one moment, or becomes so by the log that the backup itself contains.
    #[n(0)]
    PointInTime,
    /// Each part is whole, but parts may be of different moments; the snapshot's facts say how far apart.
    #[n(1)]
    PerPart,
    /// Copied while changing, by a method without a snapshot.
    #[n(2)]
    Fuzzy,
}

/// Something of the source that the backup does not contain.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct LossyItem {
    /// What is missing.
    #[n(0)]
    pub item: String,
    /// Why.
    #[n(1)]
    pub reason: String,
}

impl LossyItem {
    /// `item` is missing because of `reason`.
    pub fn new(item: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { item: item.into(), reason: reason.into() }
    }
}

/// The header of a backup: what an engine knows about it as a whole. Engines make it, everything else only carries it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[cbor(map)]
#[non_exhaustive]
pub struct Snapshot {
    /// Engine name, e.g. `postgres`.
    #[n(0)]
    pub engine: String,
    /// Version of the server that was backed up, e.g. `17.6`.
    #[n(1)]
    pub version: String,
    /// Identity of the source that two deployments never share (PostgreSQL: the system identifier).
    #[n(2)]
    pub source: String,
    /// How it was read, e.g. `local` or `protocol`.
    #[n(3)]
    pub method: String,
    /// How its parts belong together.
    #[n(4)]
    pub consistency: Consistency,
    /// When the engine began, by the clock of this library's host.
    #[cbor(n(5), with = "crate::cbor::timestamp")]
    pub started_at: Timestamp,
    /// When the engine had read everything.
    #[cbor(n(6), with = "crate::cbor::timestamp")]
    pub ended_at: Timestamp,
    /// First log position that a restore needs.
    #[n(7)]
    pub start: Option<LogPosition>,
    /// The position from which the restored data is consistent: no earlier target can be reached from this backup.
    #[n(8)]
    pub stop: Option<LogPosition>,
    /// What was noticed.
    #[n(9)]
    pub findings: Vec<Finding>,
    /// What is missing on purpose.
    #[n(10)]
    pub lossy: Vec<LossyItem>,
    /// Facts that only the engine itself reads back, by stable names.
    #[n(11)]
    pub facts: BTreeMap<String, String>,
    /// The moment of `stop`, by the clock of the source, where it tells: everything in the backup was committed by then. In whole
    /// microseconds since 1970.
    #[n(12)]
    pub stopped_at: Option<i64>,
    /// The members that it is of, where it is of several: the entries of each lie in a folder of its name.
    #[n(13)]
    pub group: Option<Group>,
}

impl Snapshot {
    /// A header with what every engine knows; the rest is empty.
    pub fn new(
        engine: impl Into<String>,
        version: impl Into<String>,
        source: impl Into<String>,
        method: impl Into<String>,
        consistency: Consistency,
        (started_at, ended_at): (Timestamp, Timestamp),
    ) -> Self {
        Self {
            engine: engine.into(),
            version: version.into(),
            source: source.into(),
            method: method.into(),
            consistency,
            started_at,
            ended_at,
            start: None,
            stop: None,
            findings: Vec::new(),
            lossy: Vec::new(),
            facts: BTreeMap::new(),
            stopped_at: None,
            group: None,
        }
    }

    /// The header of a backup of a group: everything that follows from its members.
    ///
    /// Its moment is that by which everything in it was committed, where all members tell theirs. It has no position: no single one
    /// would be true.
    pub fn of_group(
        engine: impl Into<String>,
        source: impl Into<String>,
        method: impl Into<String>,
        times: (Timestamp, Timestamp),
        group: Group,
    ) -> Self {
        let mut snapshot = Self::new(engine, group.version(), source, method, Consistency::PerPart, times);
        let moments: Option<Vec<i64>> = group.members.iter().map(|member| member.stopped_at).collect();
        snapshot.stopped_at = moments.and_then(|moments| moments.into_iter().max());
        snapshot.findings = group.findings();
        snapshot.lossy = group.lossy();
        snapshot.group = Some(group);
        snapshot
    }

    /// Sets the moment of the stop position by the source's clock.
    #[must_use]
    pub fn with_stopped_at(mut self, at: Timestamp) -> Self {
        self.stopped_at = Some(at.as_microsecond());
        self
    }

    /// The moment from which the restored data is consistent: by the source's clock where it is known, by that of this library's
    /// host otherwise.
    #[must_use]
    pub fn consistent_at(&self) -> Timestamp {
        self.stopped_at.and_then(|at| Timestamp::from_microsecond(at).ok()).unwrap_or(self.ended_at)
    }

    /// Sets the first needed and the first consistent log position.
    #[must_use]
    pub fn with_positions(mut self, start: LogPosition, stop: LogPosition) -> Self {
        self.start = Some(start);
        self.stop = Some(stop);
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn with_fact(mut self, name: &str, value: impl Into<String>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Adds findings.
    #[must_use]
    pub fn with_findings(mut self, findings: impl IntoIterator<Item = Finding>) -> Self {
        self.findings.extend(findings);
        self
    }

    /// Adds a missing item.
    #[must_use]
    pub fn with_lossy(mut self, item: LossyItem) -> Self {
        self.lossy.push(item);
        self
    }

    /// A fact by name.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }
}
