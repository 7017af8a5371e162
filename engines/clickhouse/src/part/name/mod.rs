//! Names of parts: which partition, which blocks, how often merged, up to which mutation.
//!
//! Source: `MergeTreePartInfo.cpp`. Servers are lenient with what they read; here only names are taken that a server
//! could have written, so that a name is shown again as it was read and no two names mean one part.

mod detached;
mod digits;
#[cfg(test)]
mod tests;

use std::fmt;

pub use detached::{DetachReason, DetachedName};
use digits::{month_of, number};

use super::{Error, Result};

/// The level of parts that stand for a dropped range, and no data.
const MAX_LEVEL: u32 = 999_999_999;
/// The same, as some servers before 21.6 wrote it.
const LEGACY_MAX_LEVEL: u32 = u32::MAX;
/// What a file system takes as one name.
const MAX_NAME: usize = 255;

/// How a table names its parts. It stands in the table's `format_version.txt`: 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Syntax {
    /// `202401_1_5_2_7`, `all_1_1_0`: tables with `PARTITION BY` and tables without partitions.
    Custom,
    /// `20240101_20240131_1_1_0`: tables of the old syntax, `MergeTree(date, key, 8192)`, by month.
    Monthly,
}

/// The name of a part, taken apart.
///
/// The order of names is the order in which parts have to be attached: by partition, then by first block. Engines that
/// replace or collapse rows go by the order of blocks, and a server gives new ones in the order of attaching.
///
/// ```
/// use backup_clickhouse::part::{PartName, Syntax};
///
/// # fn main() -> backup_clickhouse::part::Result<()> {
/// let merged = PartName::parse("202401_1_5_2_7", Syntax::Custom)?;
/// assert_eq!((merged.partition(), merged.min_block(), merged.level()), ("202401", 1, 2));
/// assert!(merged.covers(&PartName::parse("202401_3_3_0", Syntax::Custom)?));
/// assert_eq!(merged.to_string(), "202401_1_5_2_7");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartName {
    partition: String,
    min_block: u64,
    max_block: u64,
    level: u32,
    mutation: u64,
    /// First and last day of a part of the old syntax.
    days: Option<(u32, u32)>,
}

impl PartName {
    /// Reads a name of a table whose syntax is known.
    ///
    /// # Errors
    /// [`Error::Name`] if it is not a name that a server gives to a part of such a table.
    pub fn parse(name: &str, syntax: Syntax) -> Result<Self> {
        Self::read(name, syntax).map_err(|reason| Error::name(name, reason))
    }

    /// Reads a name of a table whose syntax is not known. Two days of the same month in front are taken for the old
    /// syntax; a table with a partition for each day would need twenty million inserts to get a name like that.
    ///
    /// # Errors
    /// [`Error::Name`] if it is a name in neither syntax.
    pub fn guess(name: &str) -> Result<Self> {
        Self::parse(name, Syntax::Monthly).or_else(|_| Self::parse(name, Syntax::Custom))
    }

    fn read(name: &str, syntax: Syntax) -> Result<Self, &'static str> {
        if name.len() > MAX_NAME {
            return Err("it is longer than a file system allows");
        }
        let mut fields = name.split('_');
        let first = fields.next().unwrap_or_default();
        let (partition, days) = match syntax {
            Syntax::Custom => (partition(first)?.to_owned(), None),
            Syntax::Monthly => {
                let (month, days) = days(first, fields.next().unwrap_or_default())?;
                (month, Some(days))
            }
        };
        let mut block = || fields.next().and_then(number).ok_or("a block is no number");
        let (min_block, max_block) = (block()?, block()?);
        if min_block > max_block {
            return Err("its first block is behind its last");
        }
        let level = fields.next().and_then(number).and_then(|level| u32::try_from(level).ok());
        let mutation = match fields.next() {
            None => 0,
            Some(field) => number(field).filter(|number| *number > 0).ok_or("its mutation is no number")?,
        };
        match (level, fields.next()) {
            (None, _) => Err("its level is no number"),
            (_, Some(_)) => Err("something follows"),
            (Some(level), None) => Ok(Self { partition, min_block, max_block, level, mutation, days }),
        }
    }

    /// The partition's id, for `PARTITION ID '…'`; for the old syntax the month, `202401`.
    #[must_use]
    pub fn partition(&self) -> &str {
        &self.partition
    }

    /// The first block of rows in the part.
    #[must_use]
    pub const fn min_block(&self) -> u64 {
        self.min_block
    }

    /// The last block of rows in the part.
    #[must_use]
    pub const fn max_block(&self) -> u64 {
        self.max_block
    }

    /// How many merges deep the part is.
    #[must_use]
    pub const fn level(&self) -> u32 {
        self.level
    }

    /// The last mutation that is applied in the part; 0 if none is.
    #[must_use]
    pub const fn mutation(&self) -> u64 {
        self.mutation
    }

    /// All mutations up to this number are applied in the part, or came before its rows.
    #[must_use]
    pub const fn data_version(&self) -> u64 {
        if self.mutation == 0 { self.min_block } else { self.mutation }
    }

    /// The syntax of the name.
    #[must_use]
    pub const fn syntax(&self) -> Syntax {
        if self.days.is_some() { Syntax::Monthly } else { Syntax::Custom }
    }

    /// Whether the part is as an insert wrote it: not merged, not mutated. Replacing and similar engines give level 1 to
    /// inserts whose rows they folded already.
    #[must_use]
    pub const fn is_as_inserted(&self) -> bool {
        self.level == 0 && self.mutation == 0
    }

    /// Whether the part is a patch of a lightweight update (25.7 and later): rows that change those of other parts, of no
    /// use without them. It cannot be attached.
    #[must_use]
    pub fn is_patch(&self) -> bool {
        self.partition.starts_with("patch-")
    }

    /// Whether the name stands for a dropped range of blocks, and not for data.
    #[must_use]
    pub const fn is_dropped_range(&self) -> bool {
        matches!(self.level, MAX_LEVEL | LEGACY_MAX_LEVEL)
    }

    /// Whether the rows of `other` are in this part: by merges, mutations, or because it is the same part.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let blocks = (self.min_block, self.max_block);
        let may_contain = blocks == (other.min_block, other.max_block)
            || self.effective_level() > other.effective_level()
            || self.is_dropped_range();
        may_contain
            && self.partition == other.partition
            && self.min_block <= other.min_block
            && self.max_block >= other.max_block
            && self.effective_level() >= other.effective_level()
            && self.mutation >= other.mutation
    }

    /// Whether both parts may be active at the same time: no block is in both.
    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.partition != other.partition || self.min_block > other.max_block || self.max_block < other.min_block
    }

    const fn effective_level(&self) -> u32 {
        if self.is_dropped_range() { MAX_LEVEL } else { self.level }
    }
}

/// The name as it was read.
impl fmt::Display for PartName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.days {
            Some((first, last)) => write!(formatter, "{first}_{last}")?,
            None => formatter.write_str(&self.partition)?,
        }
        write!(formatter, "_{}_{}_{}", self.min_block, self.max_block, self.level)?;
        match self.mutation {
            0 => Ok(()),
            mutation => write!(formatter, "_{mutation}"),
        }
    }
}

/// What a partition's id may consist of (`MergeTreePartInfo::validatePartitionID`).
fn partition(field: &str) -> Result<&str, &'static str> {
    match field {
        "" => Err("its partition is empty"),
        _ if !field.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') => {
            Err("its partition has something else than letters, digits and minus signs")
        }
        _ => Ok(field),
    }
}

/// The month of two days, and the days.
fn days(first: &str, last: &str) -> Result<(String, (u32, u32)), &'static str> {
    let (Some(month), Some(other)) = (month_of(first), month_of(last)) else {
        return Err("it has no two days in front");
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else { return Err("it has no two days in front") };
    if month != other || first > last {
        return Err("its two days are not of one month");
    }
    match (u32::try_from(first), u32::try_from(last)) {
        (Ok(first), Ok(last)) => Ok((month.to_owned(), (first, last))),
        _ => Err("it has no two days in front"),
    }
}
