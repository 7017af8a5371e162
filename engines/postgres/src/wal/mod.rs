//! Files of the write-ahead log: their names, the header each begins with, and the histories of timelines.

mod header;
mod history;
mod segment;

pub use self::header::{LongPageHeader, page_magic};
pub use self::history::{TimelineHistory, TimelineSwitch};
pub use self::segment::{SegmentName, SegmentSize};
