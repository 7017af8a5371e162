//! How thoroughly stored content is checked, and what a check says.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::id::BackupId;

/// How thoroughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyLevel {
    /// The chain of the catalog and the manifests of all backups.
    Catalog,
    /// Also: every object that a backup needs exists and has its size.
    Objects,
    /// Also: this share of the objects, in percent (1 to 100), is read and decoded.
    Sample(u8),
    /// Also: so many stored bytes are read and decoded, from where the last verification of this level ended, and after the last object from the
    /// first one again. So what was read longest ago comes first, and a budget a day reads everything in turn. At least one object is read.
    Budget(u64),
    /// Also: every object is read and every byte decoded and compared with its digest.
    Full,
}

impl VerifyLevel {
    /// Its name: `catalog`, `objects`, `sample`, `budget`, `full`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Objects => "objects",
            Self::Sample(_) => "sample",
            Self::Budget(_) => "budget",
            Self::Full => "full",
        }
    }

    /// Whether content is read.
    #[must_use]
    pub fn reads(self) -> bool {
        matches!(self, Self::Sample(_) | Self::Budget(_) | Self::Full)
    }
}

impl fmt::Display for VerifyLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sample(percent) => write!(f, "sample ({percent} %)"),
            Self::Budget(bytes) => write!(f, "budget ({bytes} bytes)"),
            other => f.write_str(other.name()),
        }
    }
}

impl FromStr for VerifyLevel {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "catalog" => Ok(Self::Catalog),
            "objects" => Ok(Self::Objects),
            // One object in ten: a month of daily samples reads everything about three times.
            "sample" => Ok(Self::Sample(10)),
            "full" => Ok(Self::Full),
            _ => Err(Error::invalid(format!("verify level {s:?} is none of catalog, objects, sample, full"))),
        }
    }
}

/// Something stored that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Damage {
    /// The object's name inside the repository.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// The backups that cannot be fully restored because of it.
    pub backups: Vec<BackupId>,
}

impl Damage {
    /// `problem` of `object` harms `backups`.
    pub fn new(object: impl Into<String>, problem: impl Into<String>, backups: Vec<BackupId>) -> Self {
        Self { object: object.into(), problem: problem.into(), backups }
    }
}

/// What a check saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Backups that were checked.
    pub backups: u64,
    /// Objects that were checked.
    pub objects: u64,
    /// Stored bytes that were read.
    pub read_bytes: u64,
    /// What is wrong.
    pub damages: Vec<Damage>,
    /// Objects that no backup needs and no open session owns: known garbage, harmless.
    pub garbage_objects: u64,
    /// Their size in bytes.
    pub garbage_bytes: u64,
    /// Everything that was needed at this moment, and still is, was read since, by this verification and those before it.
    pub read_since: Option<Timestamp>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damages.is_empty()
    }

    /// The backups that are harmed, in order.
    #[must_use]
    pub fn harmed(&self) -> Vec<BackupId> {
        let mut harmed: Vec<_> = self.damages.iter().flat_map(|d| d.backups.iter().copied()).collect();
        harmed.sort_unstable();
        harmed.dedup();
        harmed
    }
}
