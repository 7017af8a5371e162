//! The write-ahead log: names and headers of its files, histories of timelines, and the records in it.
//!
//! A log is a sequence of bytes that is cut into segments and pages for storage; records lie in it without regard to either.
//! [`WalReader`] takes the bytes as they come and gives out the records, each of them whole and checked; [`Record::event`]
//! tells what one means to those who look for a moment, [`Record::decode`] which blocks it touches. Nothing here does any I/O,
//! never panics, and holds no more than what it was given.

mod event;
mod header;
mod history;
mod input;
mod page;
mod reader;
mod record;
#[cfg(any(test, feature = "test-util"))]
mod sample;
mod segment;
#[cfg(test)]
mod tests;

pub(crate) use self::event::dropped;
pub use self::event::{Checkpoint, Event, TransactionEnd, WalLevel};
pub use self::header::{LongPageHeader, page_magic};
pub use self::history::{TimelineHistory, TimelineSwitch};
pub use self::page::WalFormat;
#[cfg(test)]
use self::page::{Joint, PageHeader};
pub use self::reader::{EndKind, WalEnd, WalReader};
pub(crate) use self::record::Cursor;
pub use self::record::{BlockImage, BlockRef, Compression, Decoded, Record, RelationId, Rmgr};
#[cfg(any(test, feature = "test-util"))]
pub use self::sample::{SampleLog, SampleRecord};
pub use self::segment::{SegmentName, SegmentSize};
