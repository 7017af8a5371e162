//! `data.packed`: all files of a small part in one.
//!
//! Source: `src/IO/PackedFilesIO.h`, `PackedFilesReader.cpp`, `PackedFilesWriter.cpp`. A version, 0 or 1; how many files;
//! for each its name, where it begins and how long it is, in version 1 also how long it is behind decompression; then the
//! files, one behind the other. Servers write it where `min_bytes_for_full_part_storage` is set.

use std::collections::VecDeque;

use super::checksums::FileName;
use super::{Error, Result};

/// What the file is called.
pub(super) const NAME: &str = "data.packed";
/// A part in one file is a small one; this is an index of a hundred thousand files.
const MAX_INDEX: usize = 8 << 20;
/// How much is taken at a time until the index has ended.
const STEP: usize = 64 << 10;

/// Something of a file in it.
pub(super) enum Piece<'a> {
    /// A file begins, and is as long as this.
    File(FileName, u64),
    /// Bytes of the file that began last.
    Bytes(&'a [u8]),
}

/// Takes such a file apart while it passes.
#[derive(Debug, Default)]
pub(super) struct Unpacker {
    /// What came of the index, until it has ended.
    index: Option<Index>,
    files: VecDeque<(FileName, u64)>,
    /// How many bytes of the file that began last are to come.
    left: u64,
}

impl Unpacker {
    pub(super) fn new() -> Self {
        Self { index: Some(Index::default()), ..Self::default() }
    }

    /// Takes the next bytes and tells what is in them.
    pub(super) fn push(&mut self, mut bytes: &[u8], tell: &mut dyn FnMut(Piece<'_>)) -> Result<()> {
        while let Some(mut index) = self.index.take() {
            let (now, later) = bytes.split_at(bytes.len().min(STEP));
            bytes = later;
            index.bytes.extend_from_slice(now);
            if index.read()? {
                self.files = index.files()?.into();
                self.data(index.bytes.get(index.position..).unwrap_or_default(), tell)?;
            } else {
                self.index = Some(index);
                if bytes.is_empty() {
                    return Ok(());
                }
            }
        }
        self.data(bytes, tell)
    }

    /// Whether it ended where it had to.
    pub(super) fn finish(&self) -> Result<()> {
        match &self.index {
            Some(index) => Err(Error::corrupt(NAME, index.bytes.len(), "it is cut off")),
            None if self.left > 0 || !self.files.is_empty() => Err(Error::corrupt(NAME, 0, "it is cut off")),
            None => Ok(()),
        }
    }

    fn data(&mut self, mut bytes: &[u8], tell: &mut dyn FnMut(Piece<'_>)) -> Result<()> {
        loop {
            let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(length);
            if !now.is_empty() {
                tell(Piece::Bytes(now));
                self.left -= now.len() as u64;
            }
            bytes = later;
            if self.left > 0 {
                return Ok(());
            }
            match self.files.pop_front() {
                Some((name, size)) => {
                    self.left = size;
                    tell(Piece::File(name, size));
                }
                None if bytes.is_empty() => return Ok(()),
                None => return Err(Error::corrupt(NAME, 0, "something follows its last file")),
            }
        }
    }
}

/// The index, as far as it came.
#[derive(Debug, Default)]
struct Index {
    bytes: Vec<u8>,
    /// Up to where it was read.
    position: usize,
    version: u8,
    /// How many entries there are, once that is known.
    count: Option<u64>,
    entries: Vec<(FileName, u64, u64)>,
}

impl Index {
    /// Reads on, and says whether it has ended.
    fn read(&mut self) -> Result<bool> {
        if self.count.is_none() {
            let Some((head, _)) = self.bytes.split_first_chunk::<9>() else { return Ok(false) };
            let [version, count @ ..] = *head;
            if version > 1 {
                return Err(Error::Unsupported { file: NAME, reason: format!("version {version} is not known") });
            }
            (self.version, self.count, self.position) = (version, Some(u64::from_le_bytes(count)), 9);
        }
        while Some(self.entries.len() as u64) < self.count {
            let rest = self.bytes.get(self.position..).unwrap_or_default();
            let Some((entry, length)) = entry(rest, self.version).map_err(|error| error.at(self.position))? else {
                let too_large = self.bytes.len() > MAX_INDEX;
                let error = Error::TooLarge { file: NAME, limit: MAX_INDEX as u64 };
                return if too_large { Err(error) } else { Ok(false) };
            };
            self.entries.push(entry);
            self.position += length;
        }
        Ok(true)
    }

    /// The files in the order of their bytes, which begin behind the index and have nothing between them.
    fn files(&mut self) -> Result<Vec<(FileName, u64)>> {
        self.entries.sort_by_key(|(_, offset, size)| (*offset, *size));
        let mut position = self.position as u64;
        let mut files = Vec::with_capacity(self.entries.len());
        for (name, offset, size) in self.entries.drain(..) {
            let end = offset.checked_add(size).filter(|_| offset == position);
            position = end.ok_or_else(|| Error::corrupt(NAME, 0, format!("{name} is not behind the file before")))?;
            files.push((name, size));
        }
        Ok(files)
    }
}

/// An entry, and how long it is; `None` if it has not come to its end.
type Entry = Option<((FileName, u64, u64), usize)>;

fn entry(bytes: &[u8], version: u8) -> Result<Entry, Broken> {
    // A name has at most 255 bytes, so its length has one byte or two.
    let (length, start) = match bytes {
        [length @ 0..0x80, ..] => (usize::from(*length), 1),
        [low, high @ 0..0x80, ..] => (usize::from(low & 0x7f) | usize::from(*high) << 7, 2),
        [] | [_] => return Ok(None),
        _ => return Err(Broken::Length),
    };
    if length > 255 {
        return Err(Broken::Length);
    }
    let numbers = start + length;
    let end = numbers + if version == 0 { 16 } else { 24 };
    let (Some(name), Some(rest)) = (bytes.get(start..numbers), bytes.get(numbers..end)) else { return Ok(None) };
    let name = FileName::from_bytes(name).map_err(Broken::Name)?;
    let mut numbers = rest.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number));
    Ok(Some(((name, numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()), end)))
}

/// Why an entry is none.
enum Broken {
    Length,
    Name(Error),
}

impl Broken {
    fn at(self, position: usize) -> Error {
        match self {
            Self::Length => Error::corrupt(NAME, position, "a name is longer than a file system allows"),
            Self::Name(error) => error,
        }
    }
}
