//! An entry of which only the changed parts are known.

use std::ops::Range;
use std::sync::Arc;

use super::sink::{BlockInspector, Changes};
use crate::entry::EntryMeta;
use crate::error::{Error, Result};

/// An entry that is the parent's entry of the same path with other bytes in some places.
///
/// For sources that tell what changed and give nothing else, so that nothing can be read beside it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Patch {
    /// How the entry is called and what it is.
    pub meta: EntryMeta,
    /// Its length in bytes.
    pub len: u64,
    /// The places with other bytes, all of them inside of the length. [Verified](Changes::verified) ones come with the whole content,
    /// which is compared with the parent's.
    pub changes: Changes,
    /// Looks at the bytes as they pass.
    pub inspector: Option<Arc<dyn BlockInspector>>,
}

impl Patch {
    /// The parent's entry of `meta`'s path, made `len` bytes long, with other bytes at `changes`.
    #[must_use]
    pub fn new(meta: EntryMeta, len: u64, changes: Changes) -> Self {
        Self { meta, len, changes, inspector: None }
    }

    /// Sets the inspector.
    #[must_use]
    pub fn with_inspector(mut self, inspector: Option<Arc<dyn BlockInspector>>) -> Self {
        self.inspector = inspector;
        self
    }

    /// How many bytes come with it.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        if self.changes.is_verified() { self.len } else { self.changes.ranges().iter().map(width).sum() }
    }

    /// Whether it can be laid over an entry of `parent_len` bytes.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when a place lies outside of the entry, or when the entry has become longer
    /// and nothing is said of what it has there.
    pub fn check(&self, parent_len: u64) -> Result<()> {
        let ranges = self.changes.ranges();
        let Self { meta, len, .. } = self;
        if self.changes.is_verified() {
            return Ok(());
        }
        if let Some(last) = ranges.last().filter(|last| last.end > *len) {
            return Err(Error::invalid(format!("a patch of {} reaches to {} of {len} bytes", meta.path, last.end)));
        }
        // Ranges never touch, so one of them holds all that is new.
        let covered = ranges.last().is_some_and(|last| last.start <= parent_len && last.end == *len);
        if *len > parent_len && !covered {
            let text =
                format!("{} grew from {parent_len} to {len} bytes, and a patch does not say all of it", meta.path);
            return Err(Error::invalid(text));
        }
        Ok(())
    }

    /// The error for a body of another length.
    #[must_use]
    pub fn wrong_body(&self, more: bool) -> Error {
        let which = if more { "more" } else { "fewer" };
        Error::invalid(format!("a patch of {} came with {which} than its {} bytes", self.meta.path, self.body_len()))
    }
}

fn width(range: &Range<u64>) -> u64 {
    range.end - range.start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryPath;

    #[test]
    fn a_patch_says_all_that_is_new() {
        let patch = |len, ranges: &[(u64, u64)]| {
            let meta = EntryMeta::file(EntryPath::new("table").unwrap());
            Patch::new(meta, len, Changes::new(ranges.iter().map(|range| range.0..range.1)))
        };
        for (len, ranges) in
            [(100, &[][..]), (100, &[(0, 1), (99, 100)]), (60, &[]), (150, &[(100, 150)]), (150, &[(3, 4), (90, 150)])]
        {
            patch(len, ranges).check(100).unwrap();
        }
        for (len, ranges) in
            [(100, &[(99, 101)][..]), (150, &[]), (150, &[(101, 150)]), (150, &[(100, 149)]), (0, &[(0, 1)])]
        {
            assert!(patch(len, ranges).check(100).is_err(), "{len} {ranges:?}");
        }
        assert_eq!(patch(100, &[(0, 10), (20, 30)]).body_len(), 20);
        let verified = Patch { changes: Changes::new([Range { start: 0, end: 200 }]).verified(), ..patch(100, &[]) };
        verified.check(50).unwrap();
        assert_eq!(verified.body_len(), 100);
    }
}
