//! What has changed between two snapshots, key by key.
//!
//! Keys are compared by a digest of their values as they stand in the snapshots, which is what `DUMP` gives, but for the order in
//! which sets and hashes stand there, which has no meaning. Nothing is written to
//! a disk: a table of digests is kept in memory ([`DiffSettings::memory`]), and where that is too small for all keys both
//! snapshots are read again, as often as needed.

use backup_core::engine::Work;
use backup_core::{Error, Result};

use super::entry::KeyEntry;
use super::table::{Table, Verdict};
use super::{Keys, Look};
use crate::rdb::{Counted, KeyFilter};

/// What a comparison is told. Data, not components.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiffSettings {
    /// Which keys are compared.
    pub filter: KeyFilter,
    /// The memory that the table takes at most, in bytes. 512 MiB, which is enough for 11 million keys at a time.
    pub memory: usize,
}

impl Default for DiffSettings {
    fn default() -> Self {
        Self { filter: KeyFilter::all(), memory: 512 << 20 }
    }
}

impl DiffSettings {
    /// Sets which keys are compared.
    #[must_use]
    pub fn filter(mut self, filter: KeyFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Sets the memory that the table takes at most.
    #[must_use]
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }
}

/// How a key has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Only the second backup has it.
    Added(KeyEntry),
    /// Only the first backup has it, as it is told here.
    Removed(KeyEntry),
    /// Both have it, the second one as it is told here.
    Changed {
        /// The key as it is in the second backup.
        now: KeyEntry,
        /// Whether its value is another one. Rarely it is the same to a client, and written in another way.
        value: bool,
        /// Whether it expires at another moment.
        expiry: bool,
    },
}

/// How two backups differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Difference {
    /// Keys that only the second one has.
    pub added: u64,
    /// Keys that only the first one has.
    pub removed: u64,
    /// Keys with another value.
    pub changed: u64,
    /// Keys with the same value that expire at another moment.
    pub expiry_only: u64,
    /// Keys that are the same in both.
    pub same: u64,
    /// Whether the snapshots are in different versions of the format: then values may be written in another way, and count as
    /// changed.
    pub formats_differ: bool,
    /// How many tables were needed: each of them takes two readings of the first snapshot and one of the second at most.
    pub tables: u64,
}

/// Compares `old` with `new` and gives every change to `each`, in no order that means anything.
///
/// # Errors
/// [`InvalidInput`](backup_core::ErrorKind::InvalidInput) when a snapshot has something that is not known here, or a key of more
/// than 1 MiB; [`Damaged`](backup_core::ErrorKind::Damaged) when one is not what it must be; what `each` returns.
///
/// # Cancel safety
/// Dropping the future leaves nothing behind.
pub async fn diff(
    old: &Look,
    new: &Look,
    settings: &DiffSettings,
    work: &Work,
    mut each: impl FnMut(Change) -> Result<()> + Send,
) -> Result<Difference> {
    let most = settings.memory / Table::bytes(8) * 8;
    let mut found = Difference::default();
    let mut from = Some(0);
    while let Some(start) = from {
        let mut table = Table::new(start, most);
        let mut keys = old.digested(settings.filter.clone());
        while let Some(entry) = next(&mut keys, work).await? {
            if !table.insert(&entry) {
                return Err(Error::invalid(format!("{} bytes are too few to compare keys in", settings.memory)));
            }
        }
        table.complete();
        let version = keys.version();
        let mut keys = new.digested(settings.filter.clone());
        while let Some(entry) = next(&mut keys, work).await? {
            found.take(table.compare(&entry), entry, &mut each)?;
        }
        found.formats_differ = version != keys.version();
        if table.unmet() > 0 {
            found.removed += table.unmet();
            // The table does not know the names.
            let mut keys = old.digested(settings.filter.clone());
            while let Some(entry) = next(&mut keys, work).await? {
                if table.lacks(&entry) {
                    each(Change::Removed(entry))?;
                }
            }
        }
        found.tables += 1;
        from = table.next();
    }
    Ok(found)
}

/// The next key, which has to be known as a whole.
async fn next(keys: &mut Keys<'_>, work: &Work) -> Result<Option<KeyEntry>> {
    let entry = keys.next(work).await?;
    match (&entry, keys.counted()) {
        (Some(entry), _) if !entry.whole => {
            Err(crate::Error::Unsupported("a key of more than 1 MiB, which is not compared".into()).into())
        }
        (None, Counted::Until { offset, what }) => {
            let text = format!("at byte {offset} stands the type {what}, which is not known here");
            Err(crate::Error::Unsupported(text).into())
        }
        _ => Ok(entry),
    }
}

impl Difference {
    fn take(
        &mut self,
        verdict: Verdict,
        entry: KeyEntry,
        each: &mut (impl FnMut(Change) -> Result<()> + Send),
    ) -> Result<()> {
        match verdict {
            Verdict::Elsewhere => Ok(()),
            Verdict::Same => {
                self.same += 1;
                Ok(())
            }
            Verdict::New => {
                self.added += 1;
                each(Change::Added(entry))
            }
            Verdict::Other { value, expiry } => {
                self.changed += u64::from(value);
                self.expiry_only += u64::from(!value);
                each(Change::Changed { now: entry, value, expiry })
            }
        }
    }
}
