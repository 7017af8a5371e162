//! A streaming reader for the tar archives of `BASE_BACKUP`.
//!
//! Bytes are pushed in as they come and entries come out with slices of the same buffers: no copy, no file, memory bounded
//! by one header. The format is ustar as the server writes it (`src/port/tar.c`): names up to 99 bytes, sizes over 8 GiB
//! in base 256, no prefix; long names by pax or GNU headers are understood because patched servers and other tools write
//! them. Up to version 14 the two blocks of zeros at the end are missing, so the end of the stream is an end too.
//!
//! What could write outside of a target directory is refused here, before anybody sees it: absolute paths, `..`, zero
//! bytes, hard links, devices, types that nobody knows.

mod header;
mod reader;

pub use self::reader::{Entry, EntryKind, Event, Reader};
