//! Keys added up: by type, by size, the biggest ones, and by the beginnings of their names. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::entry::KeyEntry;
use super::prefixes::{PrefixTotal, Prefixes};
use crate::rdb::{Counted, Kind};

/// So many bytes of a key are kept of the biggest ones.
const SHOWN: usize = 1024;

/// What is wanted to be known. Data, not components.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ProfileSettings {
    /// What stands between the parts of a key's name. A colon, as most people write; nothing for no beginnings at all.
    pub separator: String,
    /// How many beginnings a key has at most. Two: the part of an application, and what is in it.
    pub depth: usize,
    /// How many of the largest beginnings are told. 100; up to twice as many are kept meanwhile.
    pub prefixes: usize,
    /// How many of the biggest keys are told. 20.
    pub biggest: usize,
}

impl Default for ProfileSettings {
    fn default() -> Self {
        Self { separator: ":".to_owned(), depth: 2, prefixes: 100, biggest: 20 }
    }
}

impl ProfileSettings {
    /// Sets what stands between the parts of a name.
    #[must_use]
    pub fn separator(mut self, separator: impl Into<String>) -> Self {
        self.separator = separator.into();
        self
    }

    /// Sets how many beginnings a key has at most.
    #[must_use]
    pub fn depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// Sets how many beginnings are told.
    #[must_use]
    pub fn prefixes(mut self, most: usize) -> Self {
        self.prefixes = most;
        self
    }

    /// Sets how many of the biggest keys are told.
    #[must_use]
    pub fn biggest(mut self, most: usize) -> Self {
        self.biggest = most;
        self
    }
}

/// Keys, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// How many.
    pub keys: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// How many of them expire.
    pub expiring: u64,
}

impl Totals {
    fn add(&mut self, entry: &KeyEntry) {
        self.keys += 1;
        self.bytes = self.bytes.saturating_add(entry.bytes);
        self.expiring += u64::from(entry.expires.is_some());
    }
}

/// Keys whose values have from `from` to `to` bytes, both included. Each class is twice as wide as the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SizeClass {
    /// The smallest size.
    pub from: u64,
    /// The largest size.
    pub to: u64,
    /// The keys.
    pub totals: Totals,
}

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Profile {
    /// How far the snapshot could be seen into.
    pub counted: Counted,
    /// All keys.
    pub all: Totals,
    /// The keys of each database.
    pub databases: BTreeMap<u64, Totals>,
    /// The keys of each type that there is.
    pub kinds: BTreeMap<Kind, Totals>,
    /// The keys by size, from the smallest class that has any to the largest.
    pub sizes: Vec<SizeClass>,
    /// The biggest keys, the biggest first. Of their names at most 1 KiB is kept.
    pub biggest: Vec<KeyEntry>,
    /// The largest beginnings, the largest first.
    pub prefixes: Vec<PrefixTotal>,
    /// A beginning that is not told has at most so many bytes; zero when all are told.
    pub prefix_floor: u64,
    /// Keys without a beginning.
    pub unprefixed: Totals,
}

/// Adds keys up.
///
/// Memory: the biggest keys, twice the beginnings that are asked for (see [`Prefixes`]), and a few numbers for each database.
#[derive(Debug)]
pub struct Profiler {
    profile: Profile,
    prefixes: Prefixes,
    /// The biggest keys, the smallest of them on top.
    biggest: BinaryHeap<Reverse<Big>>,
    most: usize,
    classes: [Totals; CLASSES],
}

/// A size has from 0 to 64 bits.
const CLASSES: usize = 65;

#[derive(Debug, PartialEq, Eq)]
struct Big(KeyEntry);

impl Big {
    fn rank(&self) -> (u64, Reverse<(u64, &[u8])>) {
        (self.0.bytes, Reverse((self.0.database, &self.0.key)))
    }
}

impl Ord for Big {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Big {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Profiler {
    /// No keys yet.
    #[must_use]
    pub fn new(settings: ProfileSettings) -> Self {
        let profile = Profile {
            counted: Counted::All,
            all: Totals::default(),
            databases: BTreeMap::new(),
            kinds: BTreeMap::new(),
            sizes: Vec::new(),
            biggest: Vec::new(),
            prefixes: Vec::new(),
            prefix_floor: 0,
            unprefixed: Totals::default(),
        };
        let ProfileSettings { separator, depth, prefixes, biggest } = settings;
        Self {
            profile,
            prefixes: Prefixes::new(separator, depth, prefixes),
            biggest: BinaryHeap::new(),
            most: biggest,
            classes: [Totals::default(); CLASSES],
        }
    }

    /// Adds a key.
    pub fn add(&mut self, entry: &KeyEntry) {
        self.profile.all.add(entry);
        self.profile.databases.entry(entry.database).or_default().add(entry);
        self.profile.kinds.entry(entry.kind).or_default().add(entry);
        if let Some(class) = self.classes.get_mut((u64::BITS - entry.bytes.leading_zeros()) as usize) {
            class.add(entry);
        }
        if !self.prefixes.add(entry.database, &entry.key, entry.bytes) {
            self.profile.unprefixed.add(entry);
        }
        let is_big = self.biggest.peek().is_none_or(|Reverse(least)| entry.bytes >= least.0.bytes);
        if self.biggest.len() < self.most || (is_big && self.most > 0) {
            let mut big = entry.clone();
            big.whole &= big.key.len() <= SHOWN;
            big.key.truncate(SHOWN);
            self.biggest.push(Reverse(Big(big)));
            if self.biggest.len() > self.most {
                self.biggest.pop();
            }
        }
    }

    /// The sums. `counted` says how far the snapshot could be seen into.
    #[must_use]
    pub fn finish(self, counted: Counted) -> Profile {
        let mut profile = self.profile;
        profile.counted = counted;
        let bounds = |bits: usize| match bits {
            0 => (0, 0),
            bits => (1 << (bits - 1), u64::MAX >> (CLASSES - 1 - bits)),
        };
        let used = |totals: &Totals| totals.keys > 0;
        let first = self.classes.iter().position(used);
        let last = self.classes.iter().rposition(used);
        if let (Some(first), Some(last)) = (first, last) {
            let classes = self.classes.iter().enumerate().take(last + 1).skip(first);
            profile.sizes = classes
                .map(|(bits, totals)| {
                    let (from, to) = bounds(bits);
                    SizeClass { from, to, totals: *totals }
                })
                .collect();
        }
        // Of what is told in reverse the biggest one comes first.
        profile.biggest = self.biggest.into_sorted_vec().into_iter().map(|Reverse(Big(entry))| entry).collect();
        (profile.prefixes, profile.prefix_floor) = self.prefixes.finish();
        profile
    }
}
