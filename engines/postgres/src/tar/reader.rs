//! The push parser.

use bytes::Bytes;

use super::header::{BLOCK, Header, Overrides, wrong};
use crate::error::Result;

/// Long names and pax headers over this size are refused: paths are at most 1024 bytes for a server.
const MAX_EXTENSION: u64 = 64 << 10;

/// The kinds of entry that a base backup can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; only `pg_tblspc/<oid>`, and only when no `tablespace_map` was asked for.
    Symlink,
}

/// One entry's description.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The path below the archive's root: relative, without `.`, `..`, empty parts, zero bytes or a slash at its end.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// How many bytes of data follow; 0 unless a file.
    pub size: u64,
    /// The permission bits.
    pub mode: u32,
    /// The modification time in seconds since 1970.
    pub mtime: i64,
    /// Where a link points, in bytes as they stand: usually absolute, never empty for a link. Empty for all else.
    pub link: Vec<u8>,
}

/// What [`Reader::next`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An entry begins.
    Entry(Entry),
    /// The next bytes of the current file.
    Data(Bytes),
    /// The current entry is complete; comes for every entry, also for those without data.
    End,
}

#[derive(Debug)]
enum State {
    /// Collecting a header block.
    Header,
    /// Inside a file, this many bytes before its end.
    Data(u64),
    /// Telling that an entry is complete.
    End,
    /// Inside padding.
    Padding(u64),
    /// Inside a pax header or a long name: its kind, and how many bytes are missing.
    Extension(u8, u64),
    /// After the first block of zeros; only zeros may follow.
    Trailer,
}

/// Reads one archive that is pushed in as it comes.
///
/// ```
/// use backup_postgres::tar::{Event, Reader};
/// let mut reader = Reader::new();
/// reader.push(bytes::Bytes::from(vec![0; 1024]));
/// assert_eq!(reader.next()?, None);
/// reader.finish()?;
/// # Ok::<(), backup_postgres::Error>(())
/// ```
#[derive(Debug)]
pub struct Reader {
    state: State,
    input: Bytes,
    block: Box<[u8; BLOCK]>,
    filled: usize,
    extension: Vec<u8>,
    overrides: Overrides,
    /// How much follows the current entry or extension up to the next header.
    padding: u64,
    failed: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// A reader at the start of an archive.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Header,
            input: Bytes::new(),
            block: Box::new([0; BLOCK]),
            filled: 0,
            extension: Vec::new(),
            overrides: Overrides::default(),
            padding: 0,
            failed: false,
        }
    }

    /// Gives the next bytes of the archive. Call [`Reader::next`] until it has nothing more before pushing again; bytes
    /// that were not consumed are kept, at the price of a copy.
    pub fn push(&mut self, bytes: Bytes) {
        self.input = if self.input.is_empty() { bytes } else { [&self.input[..], &bytes[..]].concat().into() };
    }

    /// The next event, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] for whatever is not an archive of the accepted form; from then on every call fails.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator's None would mean the end, here it means: push more"
    )]
    pub fn next(&mut self) -> Result<Option<Event>> {
        if self.failed {
            return Err(wrong("the archive was refused before"));
        }
        let event = self.advance();
        self.failed = event.is_err();
        event
    }

    /// Declares the end of the archive.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] when it ends inside an entry or a header.
    pub fn finish(&self) -> Result<()> {
        let complete =
            matches!(self.state, State::Header | State::Trailer) && self.filled == 0 && self.input.is_empty();
        if self.failed || !complete || self.overrides != Overrides::default() {
            return Err(wrong("the archive ends before its end"));
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Event>> {
        loop {
            match self.state {
                State::Data(0) => self.state = State::End,
                State::End => {
                    self.state = State::Padding(self.padding);
                    return Ok(Some(Event::End));
                }
                State::Padding(0) => self.state = State::Header,
                State::Extension(kind, 0) => self.extended(kind)?,
                _ if self.input.is_empty() => return Ok(None),
                State::Data(left) => return Ok(Some(self.data(left))),
                State::Padding(left) => {
                    let skipped = self.take(left).len() as u64;
                    self.state = State::Padding(left - skipped);
                }
                State::Extension(kind, left) => {
                    let part = self.take(left);
                    self.extension.extend_from_slice(&part);
                    self.state = State::Extension(kind, left - part.len() as u64);
                }
                State::Trailer => {
                    if self.input.iter().any(|byte| *byte != 0) {
                        return Err(wrong("there is something after the archive's end"));
                    }
                    self.input.clear();
                }
                State::Header => {
                    let part = self.take((BLOCK - self.filled) as u64);
                    self.block[self.filled..self.filled + part.len()].copy_from_slice(&part);
                    self.filled += part.len();
                    if self.filled == BLOCK {
                        self.filled = 0;
                        if let Some(entry) = self.header()? {
                            return Ok(Some(Event::Entry(entry)));
                        }
                    }
                }
            }
        }
    }

    fn take(&mut self, limit: u64) -> Bytes {
        let count = usize::try_from(limit).unwrap_or(usize::MAX).min(self.input.len());
        self.input.split_to(count)
    }

    fn data(&mut self, left: u64) -> Event {
        let part = self.take(left);
        self.state = State::Data(left - part.len() as u64);
        Event::Data(part)
    }

    fn header(&mut self) -> Result<Option<Entry>> {
        if self.block.iter().all(|byte| *byte == 0) {
            if self.overrides != Overrides::default() {
                return Err(wrong("the archive ends after a header for a next entry"));
            }
            self.state = State::Trailer;
            return Ok(None);
        }
        let header = Header::parse(&self.block)?;
        if !matches!(header.kind, b'x' | b'g' | b'L' | b'K') {
            return self.entry(header).map(Some);
        }
        if header.size > MAX_EXTENSION {
            return Err(wrong(format!("a header extension of {} bytes", header.size)));
        }
        self.extension.clear();
        self.padding = padding(header.size);
        self.state = State::Extension(header.kind, header.size);
        Ok(None)
    }

    /// A pax header or a long name is complete.
    fn extended(&mut self, kind: u8) -> Result<()> {
        self.state = State::Padding(self.padding);
        let long_name = |bytes: &[u8]| bytes.strip_suffix(b"\0").unwrap_or(bytes).to_vec();
        match kind {
            b'x' => self.overrides.read_pax(&self.extension)?,
            // Global headers carry comments; values that would apply to every entry are not believed.
            b'g' => {
                let mut global = Overrides::default();
                global.read_pax(&self.extension)?;
                if global != Overrides::default() {
                    return Err(wrong("a global header overrides what belongs to single entries"));
                }
            }
            b'L' => self.overrides.name = Some(long_name(&self.extension)),
            _ => self.overrides.link = Some(long_name(&self.extension)),
        }
        Ok(())
    }

    fn entry(&mut self, header: Header) -> Result<Entry> {
        let overrides = std::mem::take(&mut self.overrides);
        let path = clean(&overrides.name.unwrap_or(header.name))?;
        let size = overrides.size.unwrap_or(header.size);
        let link = overrides.link.unwrap_or(header.link);
        let shown = String::from_utf8_lossy(&path).into_owned();
        let kind = match header.kind {
            b'0' | 0 => EntryKind::File,
            b'5' => EntryKind::Directory,
            b'2' => EntryKind::Symlink,
            other => return Err(wrong(format!("{shown} is of type {:?}", char::from(other)))),
        };
        if kind != EntryKind::File && size != 0 {
            return Err(wrong(format!("{shown} is no file but has {size} bytes")));
        }
        match kind {
            EntryKind::Symlink if link.is_empty() || link.contains(&0) => {
                return Err(wrong(format!("the link {shown} points nowhere")));
            }
            EntryKind::File | EntryKind::Directory if !link.is_empty() => {
                return Err(wrong(format!("{shown} is no link but points somewhere")));
            }
            _ => {}
        }
        self.padding = padding(size);
        self.state = State::Data(size);
        Ok(Entry { path, kind, size, mode: header.mode, mtime: overrides.mtime.unwrap_or(header.mtime), link })
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// The path without leading `./` and trailing `/`, refused when it could lead anywhere else.
fn clean(name: &[u8]) -> Result<Vec<u8>> {
    let refused = |why: &str| wrong(format!("the name {:?} {why}", String::from_utf8_lossy(name)));
    if name.contains(&0) {
        return Err(refused("holds a zero byte"));
    }
    if name.starts_with(b"/") {
        return Err(refused("is absolute"));
    }
    let body = name.strip_prefix(b"./").unwrap_or(name);
    let body = body.strip_suffix(b"/").unwrap_or(body);
    for part in body.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => return Err(refused("has an empty part")),
            b".." => return Err(refused("leads upwards")),
            _ => {}
        }
    }
    Ok(body.to_vec())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
