//! The change stream of a service: what is captured continuously between and after backups.
//!
//! A log is bytes of *lineages*. A lineage is one unbroken history (PostgreSQL: a timeline) in which a byte offset means one
//! thing for ever; lineages fork from each other and form a tree. What is stored of a lineage is a set of intervals, and the
//! one question that matters is asked of them: from the end of *this* backup, how far does the log go without a hole, and
//! which moments lie on the way? [`Ledger`] answers it, purely, from the intervals; nothing here does I/O or reads a clock.
//!
//! Time, names and the like are an [index](LogIndex) over offsets. It is coarse on purpose: it tells an engine where to look,
//! and the engine, which can read its own log, finds the exact record.
//!
//! Capture has one writer at a time. Each gets the next [`LogEpoch`] by a commit to the journal, which *fences* its
//! predecessor: an acknowledgement is only given when the bytes are stored *and* no later writer had been opened after that.

mod epoch;
mod index;
mod intervals;
mod ledger;
mod lineage;
mod mark;
mod range;
mod state;
mod window;

pub use epoch::{LogEpoch, LogPurpose};
pub use index::{AsOf, IndexBuilder, LogIndex, NamedPoint, Note, TimeSample};
pub use intervals::Intervals;
pub use ledger::{Ledger, LogPath};
pub use lineage::{Fork, LineageRecord, Notation};
pub use mark::{Mark, MarkQueue};
pub use range::LogRange;
pub use state::{LogDamage, LogGap, LogState, LogWriter};
pub use window::{BackupPoint, Hole, Window};
