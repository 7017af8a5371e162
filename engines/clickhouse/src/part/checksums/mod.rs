//! `checksums.txt`: the list of a part's files, with the length and hash of each.
//!
//! Source: `MergeTreeDataPartChecksum.cpp`. A line of text says the version. Version 2 is text, 3 is binary, 4 is 3 in
//! compressed blocks; every server since 2013 reads these three and writes 4. Version 5 is a digest of the list that lives
//! in Keeper only. A projection is one entry, `name.proj`, whose length and hash are those of its own list.

mod binary;
mod block;
mod file_name;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

pub use block::Codec;
pub use file_name::FileName;

use super::hash::{Hash128, SipHasher128};
use super::{Error, Result};

/// What the file is called.
pub const NAME: &str = "checksums.txt";
/// A list with a million files has about as many bytes; it is what may be held in memory, compressed or not.
pub const MAX_LIST: usize = 64 << 20;
const HEADER: &[u8] = b"checksums format version: ";

/// What is known of one file of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// How many bytes the file has; for a projection the sum over its files.
    pub size: u64,
    /// The hash of the file's bytes ([`FileHasher`](super::hash::FileHasher)); for a projection the hash of its list.
    pub hash: Hash128,
    /// What is in the file, if it consists of compressed blocks.
    pub uncompressed: Option<Uncompressed>,
}

/// What a file has behind decompression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncompressed {
    /// How many bytes.
    pub size: u64,
    /// Their hash.
    pub hash: Hash128,
}

/// The list of a part's files.
///
/// ```
/// use backup_clickhouse::part::{Checksum, Checksums, Codec, FileName, Hash128};
///
/// # fn main() -> backup_clickhouse::part::Result<()> {
/// let mut list = Checksums::new();
/// let checksum = Checksum { size: 4, hash: Hash128::new(1, 2), uncompressed: None };
/// list.insert(FileName::new("count.txt")?, checksum);
/// assert_eq!(Checksums::parse(&list.to_bytes(Codec::Lz4)?)?, list);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checksums {
    files: BTreeMap<FileName, Checksum>,
}

impl Checksums {
    /// A list of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a whole `checksums.txt`.
    ///
    /// What it needs of memory is in proportion to the list, and at most a few times [`MAX_LIST`].
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is not what the format says, or a block's checksum does not fit; [`Error::FileName`] if a
    /// name in it could leave the part; [`Error::Unsupported`] for versions and compressions that no part has on disk;
    /// [`Error::TooLarge`] above [`MAX_LIST`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_LIST {
            return Err(Error::TooLarge { file: NAME, limit: MAX_LIST as u64 });
        }
        let (version, start) = version(bytes)?;
        let body = bytes.get(start..).unwrap_or_default();
        match version {
            2 => text::read(body, start),
            3 => binary::read(body, start),
            4 => binary::read(&block::decompress_all(body, start)?, 0),
            5 => Err(unsupported("version 5 is the digest that lives in keeper, not the list of a part")),
            _ => Err(unsupported(format!("version {version} is not known"))),
        }
    }

    /// The list as a server writes it: version 4.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the compression library refuses.
    pub fn to_bytes(&self, codec: Codec) -> Result<Vec<u8>> {
        let mut bytes = [HEADER, b"4\n"].concat();
        block::compress_all(&binary::write(self), codec, &mut bytes)?;
        Ok(bytes)
    }

    /// Adds a file and gives back what was said of it before.
    pub fn insert(&mut self, name: FileName, checksum: Checksum) -> Option<Checksum> {
        self.files.insert(name, checksum)
    }

    /// What is said of a file.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Checksum> {
        self.files.get(name)
    }

    /// All files, in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&FileName, &Checksum)> {
        self.files.iter()
    }

    /// How many files are listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The sum of all lengths: what a projection's entry says of it.
    #[must_use]
    pub fn total_size(&self) -> u64 {
        self.files.values().fold(0, |sum, checksum| sum.saturating_add(checksum.size))
    }

    /// `hash_of_all_files` of `system.parts`: names and hashes of all files.
    #[must_use]
    pub fn hash_of_all_files(&self) -> Hash128 {
        self.digest(|checksum| Some(checksum.hash))
    }

    /// `hash_of_uncompressed_files`: names and hashes of the files without compressed blocks.
    #[must_use]
    pub fn hash_of_uncompressed_files(&self) -> Hash128 {
        self.digest(|checksum| checksum.uncompressed.is_none().then_some(checksum.hash))
    }

    /// `uncompressed_hash_of_compressed_files`: names of the compressed files, and hashes of what is in them. It is the
    /// same for parts with the same data, however they were compressed.
    #[must_use]
    pub fn uncompressed_hash_of_compressed_files(&self) -> Hash128 {
        self.digest(|checksum| checksum.uncompressed.map(|inside| inside.hash))
    }

    fn digest(&self, hash_of: impl Fn(&Checksum) -> Option<Hash128>) -> Hash128 {
        let mut hasher = SipHasher128::new();
        for (name, checksum) in &self.files {
            if let Some(hash) = hash_of(checksum) {
                hasher.update_string(name.as_str());
                hasher.update(&hash.to_bytes());
            }
        }
        hasher.finish()
    }

    /// Adds what was read; a server never writes a name twice.
    fn insert_new(&mut self, name: FileName, checksum: Checksum, offset: usize) -> Result<()> {
        match self.files.entry(name) {
            Entry::Vacant(place) => {
                place.insert(checksum);
                Ok(())
            }
            Entry::Occupied(place) => {
                Err(Error::corrupt(NAME, offset, format!("{:?} is listed twice", place.key().as_str())))
            }
        }
    }
}

/// The version of a list, and where its body begins.
fn version(bytes: &[u8]) -> Result<(u64, usize)> {
    let Some(rest) = bytes.strip_prefix(HEADER) else {
        return Err(Error::corrupt(NAME, 0, "it does not begin with its version"));
    };
    let digits = rest.iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = rest.split_at(digits);
    let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
    match (number, rest.first()) {
        (Some(version), Some(b'\n')) => Ok((version, HEADER.len() + digits + 1)),
        _ => Err(Error::corrupt(NAME, HEADER.len(), "its version is no number in a line")),
    }
}

fn unsupported(reason: impl Into<String>) -> Error {
    Error::Unsupported { file: NAME, reason: reason.into() }
}
