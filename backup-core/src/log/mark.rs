//! What an engine notices in the bytes that it appends.

use jiff::Timestamp;

/// Something about a place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mark {
    /// A change was committed by a record that ends at `offset`.
    Commit {
        /// End of the record.
        offset: u64,
        /// When, by the source's clock. Clocks may go backwards, and so may these.
        at: Timestamp,
    },
    /// A place was named by a record that ends at `offset` (PostgreSQL: a restore point).
    Name {
        /// End of the record.
        offset: u64,
        /// The name.
        name: String,
        /// When, by the source's clock.
        at: Timestamp,
    },
    /// At this moment of the source's clock its log ended at `offset` or before: whoever has the log up to there has everything
    /// that was committed by then.
    AsOf {
        /// Where the log ended.
        offset: u64,
        /// The moment.
        at: Timestamp,
    },
}
