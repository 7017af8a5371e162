//! Data pages: their checksum, the rule by which a page read from a running server is judged, and the names of the files
//! that consist of pages.

mod check;
mod checksum;
mod relation;

pub use self::check::{PageCheck, PageFault, Verdict};
pub use self::checksum::{PAGE_SIZE, checksum};
pub use self::relation::{Fork, RelationFile};
pub(crate) use self::relation::{is_database, is_global};
