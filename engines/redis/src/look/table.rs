//! The keys of one snapshot as a table that those of another one are compared with, in bounded memory. Pure.
//!
//! A row has 32 bytes, whatever the key and its value are: 16 of a digest of database and key, eight of a digest of the value,
//! and the moment of expiry. When there are more keys than rows, the table keeps only those whose digests are small, and says
//! where the next table has to begin; digests are evenly spread, so each table takes its share. Two of 10^7 keys have the same
//! digest with a probability of 10^-25, and a value that has changed the same one with 10^-19.

use super::entry::KeyEntry;

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    id: [u64; 2],
    digest: u64,
    expires: i64,
}

/// How a key differs from the one in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It belongs into another table.
    Elsewhere,
    /// The table has none.
    New,
    /// It is the same.
    Same,
    /// Its value or its expiry are others.
    Other { value: bool, expiry: bool },
}

/// Some of the keys of a snapshot.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Row>,
    most: usize,
    /// Keys whose digests begin with less are in tables before this one.
    from: u64,
    /// Keys whose digests begin with as much or more are in tables behind this one.
    until: Option<u64>,
    /// A bit for each row: whether the other snapshot has the key, too.
    met: Vec<u64>,
}

impl Table {
    /// An empty table of at most `most` rows, of the keys whose digests begin with `from` or more.
    pub(super) fn new(from: u64, most: usize) -> Self {
        Self { rows: Vec::new(), most: most.max(2), from, until: None, met: Vec::new() }
    }

    /// Bytes that a table of `most` rows takes at most: half of the rows once more, while it grows, and a bit for each.
    pub(super) const fn bytes(most: usize) -> usize {
        most * (size_of::<Row>() + size_of::<Row>() / 2) + most / 8
    }

    /// Where the next table begins. None when this is the last one.
    pub(super) fn next(&self) -> Option<u64> {
        self.until
    }

    fn takes(&self, id: [u64; 2]) -> bool {
        id[0] >= self.from && self.until.is_none_or(|until| id[0] < until)
    }

    /// Takes a key of the first snapshot. False when so many digests are the same that no table can hold them.
    #[must_use]
    pub(super) fn insert(&mut self, entry: &KeyEntry) -> bool {
        let row = row_of(entry);
        if !self.takes(row.id) {
            return true;
        }
        if self.rows.len() == self.most {
            let middle = self.rows.len() / 2;
            let (_, bar, _) = self.rows.select_nth_unstable(middle);
            let bar = bar.id[0];
            if bar == self.from {
                return false;
            }
            self.until = Some(bar);
            self.rows.retain(|row| row.id[0] < bar);
            if !self.takes(row.id) {
                return true;
            }
        }
        // Never more than was said, which doubling could be.
        if self.rows.len() == self.rows.capacity() {
            let more = self.rows.len().clamp(1024, usize::MAX).min(self.most - self.rows.len());
            self.rows.reserve_exact(more);
        }
        self.rows.push(row);
        true
    }

    /// Says that all keys of the first snapshot have come.
    pub(super) fn complete(&mut self) {
        self.rows.sort_unstable();
        self.met = vec![0; self.rows.len().div_ceil(64)];
    }

    /// Compares a key of the other snapshot.
    pub(super) fn compare(&mut self, entry: &KeyEntry) -> Verdict {
        let row = row_of(entry);
        if !self.takes(row.id) {
            return Verdict::Elsewhere;
        }
        let Some((index, known)) = self.find(row.id) else { return Verdict::New };
        if let Some(bits) = self.met.get_mut(index / 64) {
            *bits |= 1 << (index % 64);
        }
        match (known.digest != row.digest, known.expires != row.expires) {
            (false, false) => Verdict::Same,
            (value, expiry) => Verdict::Other { value, expiry },
        }
    }

    /// Whether a key of the first snapshot is here and was not met in the other one.
    pub(super) fn lacks(&self, entry: &KeyEntry) -> bool {
        let found = self.find(row_of(entry).id);
        found.is_some_and(|(index, _)| self.met.get(index / 64).is_some_and(|bits| bits >> (index % 64) & 1 == 0))
    }

    /// How many keys were not met.
    pub(super) fn unmet(&self) -> u64 {
        let met: u64 = self.met.iter().map(|bits| u64::from(bits.count_ones())).sum();
        self.rows.len() as u64 - met
    }

    fn find(&self, id: [u64; 2]) -> Option<(usize, Row)> {
        let index = self.rows.partition_point(|row| row.id < id);
        let row = self.rows.get(index).filter(|row| row.id == id)?;
        Some((index, *row))
    }
}

fn row_of(entry: &KeyEntry) -> Row {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&entry.database.to_le_bytes());
    hasher.update(&entry.key);
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = *hasher.finalize().as_bytes();
    let id = [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p])];
    // Nothing expires at the end of all numbers.
    Row { id, digest: entry.digest, expires: entry.expires.unwrap_or(i64::MAX) }
}
