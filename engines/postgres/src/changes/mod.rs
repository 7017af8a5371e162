//! Which blocks may have changed, learned from the log that passes.
//!
//! A backup that follows another one need not read what did not change in between. The log knows: a record names every block
//! that it changes, with the exceptions that are written down here and in [`ChangeMap`]. So whoever keeps the log anyway gets
//! the map of changes for nothing, on every version, as the server's own summarizer would write it from 17 on.
//!
//! The rule of this room: *too much costs a little reading, too little loses data*. What is not understood makes the map say
//! so ([`ChangeMap::doubt`]), and a map in doubt calls everything changed.
//!
//! Source: `walsummarizer.c` and `blkreftable.c` of PostgreSQL 17 for which records matter, `storage.c`, `dbcommands_xlog.h`,
//! `xact.h` for what they hold, `visibilitymap.c` for what the summarizer leaves out.
//!
//! # How it is used
//! A page of the earlier backup is as good as the present one if no record from the *redo position* of the earlier backup to the
//! redo position of the new one names it; what changes later is brought by the log of the new backup itself. That holds if both
//! backups are of the same cluster and the earlier one's positions lie in the history of the present timeline. The caller
//! looks after four things that no log tells:
//! - *Ends of files.* A relation grows by zero pages without a record. Whatever lies beyond the length that the file had in the
//!   earlier backup has to be read.
//! - *Checksums.* Turning them on or off offline rewrites every page without a record: compare the setting.
//! - *Hints.* Bits that only remember what can be found out again are changed without a record, unless the cluster has
//!   checksums or `wal_log_hints`. Pages that differ only so are not in the map: the older page is as good. With either, they
//!   are in it, if the map starts at a redo position, because the first such change after it logs the whole page.
//! - *Unlogged relations.* Their main forks are in no log, and in no backup either.

mod blocks;
mod doubt;
mod file;
mod map;
mod stored;
mod summary;
#[cfg(test)]
mod tests;

pub use self::doubt::Doubt;
pub use self::file::Changed;
pub use self::map::ChangeMap;
pub use self::summary::{Summarized, summarizes_visibility};
