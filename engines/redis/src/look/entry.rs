//! Keys of what passes. Pure.

use std::collections::VecDeque;
use std::ops::Range;

use super::digest::ValueDigest;
use crate::error::Result;
use crate::rdb::{Counted, KeyFilter, KeyHead, Kind, Part, RdbVersion, Scanner, Visitor};

/// A key in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyEntry {
    /// The database.
    pub database: u64,
    /// The key; of one that is longer than [`Name::LIMIT`](crate::rdb::Name::LIMIT) the beginning.
    pub key: Vec<u8>,
    /// Whether all of the key is there.
    pub whole: bool,
    /// What a user calls its type.
    pub kind: Kind,
    /// Bytes of the value as it stands in the snapshot.
    pub bytes: u64,
    /// When it expires, in milliseconds since 1970.
    pub expires: Option<i64>,
    /// What tells its value from others, where that was asked for.
    pub(super) digest: u64,
}

impl KeyEntry {
    #[cfg(test)]
    pub(super) fn new(database: u64, key: &[u8], kind: Kind, bytes: u64) -> Self {
        Self { database, key: key.to_vec(), whole: true, kind, bytes, expires: None, digest: 0 }
    }
}

/// Reads a snapshot that comes in chunks of any size.
#[derive(Debug)]
pub(super) struct Reading {
    scanner: Scanner,
    collector: Collector,
}

impl Reading {
    /// A reading before the first byte, of the keys that `filter` wants.
    pub(super) fn new(filter: KeyFilter) -> Self {
        let collector = Collector {
            filter,
            version: RdbVersion::redis(0),
            digest: None,
            present: None,
            ready: VecDeque::new(),
            counted: Counted::All,
        };
        Self { scanner: Scanner::new(), collector }
    }

    /// Makes digests of the values, too.
    pub(super) fn with_digests(mut self) -> Self {
        self.collector.digest = Some(Box::default());
        self
    }

    /// Takes the next bytes and appends the keys whose values end in them. Returns how many bytes belong to the snapshot.
    pub(super) fn push(&mut self, chunk: &[u8], ready: &mut VecDeque<KeyEntry>) -> Result<usize> {
        let taken = self.scanner.push(chunk, &mut self.collector)?;
        ready.append(&mut self.collector.ready);
        Ok(taken)
    }

    /// Says that no more bytes come.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.scanner.finish().map(drop)
    }

    pub(super) fn counted(&self) -> Counted {
        self.collector.counted
    }

    pub(super) fn version(&self) -> Option<RdbVersion> {
        self.scanner.version()
    }
}

#[derive(Debug)]
struct Collector {
    filter: KeyFilter,
    version: RdbVersion,
    /// Where digests are made: of what passes of the present value.
    digest: Option<Box<ValueDigest>>,
    /// The key whose value passes, if it is wanted.
    present: Option<KeyEntry>,
    ready: VecDeque<KeyEntry>,
    counted: Counted,
}

impl Visitor for Collector {
    fn version(&mut self, version: RdbVersion) -> Result<()> {
        self.version = version;
        Ok(())
    }

    fn key(&mut self, head: &KeyHead<'_>) -> Result<()> {
        self.present = None;
        if !self.filter.wants_kind(head.database, head.kind) {
            return Ok(());
        }
        let whole = head.key.is_whole();
        // What is not whole is shown as far as it is kept; whoever needs all of it says so.
        let key = if whole { head.name()? } else { head.key.bytes().unwrap_or_default() };
        if !self.filter.wants_name(&key) {
            return Ok(());
        }
        if let Some(digest) = &mut self.digest {
            digest.begin(self.version, head.value_type);
        }
        self.present = Some(KeyEntry {
            database: head.database,
            key: key.into_owned(),
            whole,
            kind: head.kind,
            bytes: 0,
            expires: head.expires,
            digest: 0,
        });
        Ok(())
    }

    fn piece(&mut self, part: Part, bytes: &[u8]) -> Result<()> {
        match (&mut self.digest, part) {
            // It comes before the key, of which nobody knows then whether it is wanted.
            (Some(digest), Part::KeyMeta) => digest.before(bytes),
            (Some(digest), Part::Value) if self.present.is_some() => digest.push(bytes),
            _ => {}
        }
        Ok(())
    }

    fn value_end(&mut self, range: Range<u64>) -> Result<()> {
        let digest = self.digest.as_mut().map_or(0, |digest| digest.finish());
        if let Some(entry) = self.present.take() {
            self.ready.push_back(KeyEntry { bytes: range.end - range.start, digest, ..entry });
        }
        Ok(())
    }

    fn unknown(&mut self, offset: u64, what: u8) -> Result<()> {
        self.counted = Counted::Until { offset, what };
        Ok(())
    }
}
