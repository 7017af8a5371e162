//! The names of what a backup's header says. They are stored: none is ever given another meaning.

/// Fact: how many tables there are with parts.
pub const TABLES: &str = "tables";
/// Fact: how many parts.
pub const PARTS: &str = "parts";
/// Fact: how many of the parts were in the parent with the same content, whatever they were called there.
pub const PARTS_KEPT: &str = "parts_kept";
/// Fact: rows in all parts.
pub const ROWS: &str = "rows";
/// Fact: bytes of the parts' files.
pub const BYTES: &str = "bytes";
/// Fact: bytes of files that were in the parent already, and were not read.
pub const KEPT_BYTES: &str = "kept_bytes";
/// Fact: bytes of parts that hold rows which the parent has in other parts: what merges and mutations cost this backup.
pub const CHURN_BYTES: &str = "churn_bytes";
/// Fact: milliseconds from the first table's snapshot to the last one's: by so much tables may be apart.
pub const SKEW: &str = "skew_ms";
/// Fact of a backup that takes merged parts from its parent: how many tables had not changed and were neither frozen nor looked at.
pub const TABLES_KEPT: &str = "tables_kept";
/// Fact: how many parts of the server are not stored, because others of the parent stand for them.
pub const STOOD_FOR: &str = "parts_stood_for";
/// Fact: bytes of the parts that are not stored because others stand for them.
pub const SPARED_BYTES: &str = "spared_bytes";
/// Fact of a backup of several servers: how many there are.
pub const SERVERS: &str = "servers";
