//! Objects: what they are bound to, how they are sealed and opened.
//!
//! An object is a plain 80-byte [`ObjectHeader`] followed by sealed segments; where in the object a segment lies, and in which order
//! the bytes are stored, is the affair of the storage. Here every segment is tied to its index, and the index to the object.

mod context;
mod header;
mod ledger;
mod opener;
mod sealer;
mod segment;

pub use crate::suite::TAG_LEN;
pub use context::{MAX_NAME, ObjectContext, ObjectKind};
pub use header::ObjectHeader;
pub use opener::ObjectOpener;
pub use sealer::ObjectSealer;
pub use segment::{MAX_SEGMENT, MAX_SEGMENTS, SegmentHeader};
