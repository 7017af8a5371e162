//! What a snapshot file holds, counted while it passes.

use std::ops::Range;

use super::layout::Kind;
use super::name::Name;
use super::scanner::{ChecksumState, Scanner};
use super::version::RdbVersion;
use super::visitor::{KeyHead, Visitor};
use crate::error::{Error, Result};

/// How much of a file was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// All of it.
    All,
    /// What comes before this place, where something stands that is not known here. The checksum was checked over all of it.
    Until {
        /// The place in the file.
        offset: u64,
        /// The type or opcode; zero when the whole version is not known.
        what: u8,
    },
}

/// One database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Database {
    /// Its number.
    pub number: u64,
    /// Keys that were counted.
    pub keys: u64,
    /// Keys with an expiry that were counted.
    pub expires: u64,
    /// How many of each the server said there would be.
    pub declared: Option<(u64, u64)>,
}

impl Database {
    /// Whether the server said something else than what was counted. A number of more than 32 bits is not said by old servers.
    #[must_use]
    pub fn differs(&self) -> bool {
        let said = |declared: u64, counted: u64| declared == counted || declared == u64::from(u32::MAX);
        self.declared.is_some_and(|(keys, expires)| !said(keys, self.keys) || !said(expires, self.expires))
    }
}

/// Keys of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct KindTotal {
    /// How many.
    pub keys: u64,
    /// Bytes of their values in the file.
    pub bytes: u64,
}

/// A key with a large value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LargeKey {
    /// The database.
    pub database: u64,
    /// What a user calls its type.
    pub kind: Kind,
    /// The key.
    pub key: Name,
    /// Bytes of its value in the file.
    pub bytes: u64,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The version of the format.
    pub version: RdbVersion,
    /// Bytes of the file.
    pub len: u64,
    /// What the checksum said.
    pub checksum: ChecksumState,
    /// How far it was counted.
    pub counted: Counted,
    /// The databases, in the order of the file.
    pub databases: Vec<Database>,
    /// The named fields about the file, in its order; at most 64, each at most 1 KiB.
    pub aux: Vec<(String, String)>,
    /// The names of the libraries of functions.
    pub functions: Vec<String>,
    /// The names of the types of modules that have data here, with keys or without.
    pub modules: Vec<String>,
    /// Slots of a cluster that were named.
    pub slots: u64,
    /// Hashes whose fields have expiries of their own.
    pub field_expiry: u64,
    /// The keys with the largest values, the largest first.
    pub largest: Vec<LargeKey>,
    kinds: [KindTotal; Kind::ALL.len()],
}

/// So many named fields and names of modules are kept.
const MANY: usize = 64;
/// So many of the largest keys are kept: enough to see who fills the memory.
const LARGEST: usize = 16;
/// So many bytes of a field are kept.
const FIELD: usize = 1024;

impl Summary {
    /// Keys in all databases.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.databases.iter().map(|database| database.keys).sum()
    }

    /// Keys with an expiry in all databases.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.databases.iter().map(|database| database.expires).sum()
    }

    /// Keys of one kind.
    #[must_use]
    pub fn kind(&self, kind: Kind) -> KindTotal {
        self.kinds[kind as usize]
    }

    /// A named field about the file.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.aux.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Where in the replication stream of its server the file stands: the replication id and the offset.
    #[must_use]
    pub fn replication(&self) -> Option<(&str, u64)> {
        Some((self.field("repl-id")?, self.field("repl-offset")?.parse().ok()?))
    }

    /// The database that the replication stream was in.
    #[must_use]
    pub fn stream_database(&self) -> Option<u64> {
        self.field("repl-stream-db")?.parse().ok()
    }

    /// The databases of which the server said something else than what was counted. Empty when not all was counted.
    pub fn differing(&self) -> impl Iterator<Item = &Database> {
        let all = self.counted == Counted::All;
        self.databases.iter().filter(move |database| all && database.differs())
    }
}

/// Counts a file that comes in chunks of any size.
#[derive(Debug, Default)]
pub struct Counter {
    scanner: Scanner,
    tally: Tally,
}

impl Counter {
    /// A counter before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and returns how many of them belong to the file: fewer than all only at its end.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the place. After an error the counter is of no use.
    pub fn push(&mut self, chunk: &[u8]) -> Result<usize> {
        self.scanner.push(chunk, &mut self.tally)
    }

    /// Whether the file is at its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.scanner.is_complete()
    }

    /// Whether something unknown came: then only somebody else knows where the file ends.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.scanner.is_blind()
    }

    /// The bytes that were taken.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.scanner.position()
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file is not at its end, or when the checksum does not fit.
    pub fn finish(mut self) -> Result<Summary> {
        let checksum = self.scanner.finish()?;
        let mut summary =
            self.tally.summary.ok_or_else(|| Error::Corrupt { offset: 0, reason: "no version".into() })?;
        (summary.len, summary.checksum) = (self.scanner.position(), checksum);
        summary.largest.sort_by_key(|large| std::cmp::Reverse(large.bytes));
        Ok(summary)
    }
}

/// The counting itself.
#[derive(Debug, Default)]
struct Tally {
    summary: Option<Summary>,
    /// The present database, as its place in the list.
    present: usize,
    /// The key whose value passes.
    key: Name,
    database: u64,
    kind: Option<Kind>,
    /// A value must be larger than this to be among the largest.
    bar: u64,
}

impl Tally {
    fn enter(&mut self, number: u64) {
        let Some(summary) = &mut self.summary else { return };
        // Databases come in order, so the search ends at once.
        self.present = summary.databases.iter().rposition(|known| known.number == number).unwrap_or_else(|| {
            summary.databases.push(Database { number, ..Database::default() });
            summary.databases.len() - 1
        });
    }

    fn here(&mut self) -> Option<&mut Database> {
        if self.summary.as_ref()?.databases.is_empty() {
            // A file may begin with keys: they are in the first database.
            self.enter(0);
        }
        self.summary.as_mut()?.databases.get_mut(self.present)
    }

    fn note_large(&mut self, bytes: u64) {
        let (Some(summary), Some(kind)) = (&mut self.summary, self.kind) else { return };
        let large = &mut summary.largest;
        if large.len() == LARGEST
            && let Some((index, _)) = large.iter().enumerate().min_by_key(|(_, known)| known.bytes)
        {
            large.swap_remove(index);
        }
        let mut key = self.key.clone();
        key.raw.truncate(FIELD);
        large.push(LargeKey { database: self.database, kind, key, bytes });
        if large.len() == LARGEST {
            self.bar = large.iter().map(|known| known.bytes).min().unwrap_or(0);
        }
    }
}

impl Visitor for Tally {
    fn version(&mut self, version: RdbVersion) -> Result<()> {
        self.summary = Some(Summary {
            version,
            len: 0,
            checksum: ChecksumState::Off,
            counted: Counted::All,
            databases: Vec::new(),
            aux: Vec::new(),
            functions: Vec::new(),
            modules: Vec::new(),
            slots: 0,
            field_expiry: 0,
            largest: Vec::new(),
            kinds: Default::default(),
        });
        Ok(())
    }

    fn aux(&mut self, name: &Name, value: &Name) -> Result<()> {
        if let Some(summary) = self.summary.as_mut().filter(|summary| summary.aux.len() < MANY) {
            let short = |name: &Name| name.text().chars().take(FIELD).collect();
            summary.aux.push((short(name), short(value)));
        }
        Ok(())
    }

    fn database(&mut self, database: u64) -> Result<()> {
        self.enter(database);
        Ok(())
    }

    fn sizes(&mut self, keys: u64, expires: u64) -> Result<()> {
        if let Some(database) = self.here() {
            database.declared = Some((keys, expires));
        }
        Ok(())
    }

    fn slot(&mut self, _slot: u64, _keys: u64, _expires: u64) -> Result<()> {
        if let Some(summary) = &mut self.summary {
            summary.slots += 1;
        }
        Ok(())
    }

    fn function(&mut self, code: &Name) -> Result<()> {
        if let Some(summary) = &mut self.summary {
            summary.functions.push(library_name(&code.text()));
        }
        Ok(())
    }

    fn module_aux(&mut self, module: u64) -> Result<()> {
        note_module(self.summary.as_mut(), module);
        Ok(())
    }

    fn module_key(&mut self, module: u64) -> Result<()> {
        note_module(self.summary.as_mut(), module);
        Ok(())
    }

    fn key(&mut self, head: &KeyHead<'_>) -> Result<()> {
        self.key.clone_from(head.key);
        (self.database, self.kind) = (head.database, Some(head.kind));
        if let Some(database) = self.here() {
            database.keys += 1;
            database.expires += u64::from(head.expires.is_some());
        }
        if let Some(summary) = &mut self.summary {
            summary.field_expiry += u64::from(head.value_type.has_field_expiry());
        }
        Ok(())
    }

    fn value_end(&mut self, range: Range<u64>) -> Result<()> {
        let bytes = range.end - range.start;
        if let (Some(summary), Some(kind)) = (&mut self.summary, self.kind) {
            let total = &mut summary.kinds[kind as usize];
            total.keys += 1;
            total.bytes += bytes;
        }
        if bytes > self.bar {
            self.note_large(bytes);
        }
        Ok(())
    }

    fn unknown(&mut self, offset: u64, what: u8) -> Result<()> {
        if let Some(summary) = &mut self.summary {
            summary.counted = Counted::Until { offset, what };
        }
        Ok(())
    }
}

fn note_module(summary: Option<&mut Summary>, module: u64) {
    let name = module_name(module);
    if let Some(summary) = summary.filter(|known| known.modules.len() < MANY && !known.modules.contains(&name)) {
        summary.modules.push(name);
    }
}

/// The name in the identity of a type of a module: nine characters of six bits each, before ten bits of a version.
fn module_name(module: u64) -> String {
    const SET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9).map(|index| char::from(SET[(module >> (10 + 6 * (8 - index)) & 63) as usize])).collect()
}

/// The name in the first line of a library: `#!lua name=NAME`.
fn library_name(code: &str) -> String {
    let first = code.lines().next().unwrap_or_default();
    let name = first.split_ascii_whitespace().find_map(|word| word.strip_prefix("name="));
    name.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_modules_and_libraries() {
        // "ReJSON-RL" with version 3, as `moduleTypeEncodeId` packs it.
        let set = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let packed = "ReJSON-RL".chars().fold(0, |id: u64, c| id << 6 | set.find(c).unwrap() as u64);
        assert_eq!(module_name(packed << 10 | 3), "ReJSON-RL");
        assert_eq!(library_name("#!lua name=mylib\nredis.register_function()"), "mylib");
        assert_eq!(library_name("#!js engine=v8 name=\"other\""), "other");
        assert_eq!(library_name(""), "");
    }

    #[test]
    fn declared_numbers_are_compared() {
        let database = |declared| Database { number: 0, keys: 5, expires: 2, declared };
        assert!(!database(None).differs());
        assert!(!database(Some((5, 2))).differs());
        assert!(!database(Some((u64::from(u32::MAX), 2))).differs());
        assert!(database(Some((5, 1))).differs());
        assert!(database(Some((6, 2))).differs());
    }
}
