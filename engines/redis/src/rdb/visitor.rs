//! Who is told what a snapshot file holds.

use std::borrow::Cow;
use std::ops::Range;

use super::layout::{Kind, ValueType};
use super::name::Name;
use super::version::RdbVersion;
use crate::error::{Error, Result};

/// What is known of a key before its value comes.
#[derive(Debug)]
#[non_exhaustive]
pub struct KeyHead<'a> {
    /// The database.
    pub database: u64,
    /// How the value is written.
    pub value_type: ValueType,
    /// What a user calls that.
    pub kind: Kind,
    /// The key.
    pub key: &'a Name,
    /// When it expires, in milliseconds since 1970.
    pub expires: Option<i64>,
    /// For how many seconds nobody had used it, where the server evicts by that.
    pub idle: Option<u64>,
    /// How often it was used, on the server's scale, where the server evicts by that.
    pub frequency: Option<u8>,
    /// Where its value begins in the file.
    pub value_start: u64,
}

impl KeyHead<'_> {
    /// The key, when all of it is there.
    pub(super) fn whole_key(&self) -> Result<&Name> {
        if self.key.is_whole() {
            return Ok(self.key);
        }
        let (len, at) = (self.key.stored, self.value_start);
        Err(Error::Unsupported(format!("the key that ends at byte {at} has {len} bytes, more than {}", Name::LIMIT)))
    }

    /// The bytes of the key.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a key that is too long to be kept; [`Error::Corrupt`] for one that nothing unpacks.
    pub fn name(&self) -> Result<Cow<'_, [u8]>> {
        let corrupt = || Error::Corrupt { offset: self.value_start, reason: "a key that cannot be unpacked".into() };
        self.whole_key()?.bytes().ok_or_else(corrupt)
    }
}

/// To what raw bytes belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// To the value of the last key.
    Value,
    /// To metadata of modules about the next key.
    KeyMeta,
    /// To what is no key: the opcode came before, these are the bytes behind it.
    Record(u8),
}

/// Is told what a [`Scanner`](super::Scanner) meets, in the order of the file. Every method does nothing by itself.
///
/// An error ends the scan.
#[allow(unused_variables)]
pub trait Visitor {
    /// The file is of this version.
    fn version(&mut self, version: RdbVersion) -> Result<()> {
        Ok(())
    }

    /// A named field about the file.
    fn aux(&mut self, name: &Name, value: &Name) -> Result<()> {
        Ok(())
    }

    /// What follows is in this database.
    fn database(&mut self, database: u64) -> Result<()> {
        Ok(())
    }

    /// The server's word of how many keys follow in this database, and how many of them expire.
    fn sizes(&mut self, keys: u64, expires: u64) -> Result<()> {
        Ok(())
    }

    /// The server's word of how many keys follow in a slot of a cluster.
    fn slot(&mut self, slot: u64, keys: u64, expires: u64) -> Result<()> {
        Ok(())
    }

    /// A library of functions. The code may be cut off, as a name is.
    fn function(&mut self, code: &Name) -> Result<()> {
        Ok(())
    }

    /// Data of the module with this identity that belongs to no key.
    fn module_aux(&mut self, module: u64) -> Result<()> {
        Ok(())
    }

    /// A key. Its value follows in pieces.
    fn key(&mut self, head: &KeyHead<'_>) -> Result<()> {
        Ok(())
    }

    /// The last key's value is of the module with this identity.
    fn module_key(&mut self, module: u64) -> Result<()> {
        Ok(())
    }

    /// Raw bytes, as large as they came.
    fn piece(&mut self, part: Part, bytes: &[u8]) -> Result<()> {
        Ok(())
    }

    /// The value is complete; it stands there in the file.
    fn value_end(&mut self, range: Range<u64>) -> Result<()> {
        Ok(())
    }

    /// From here on nothing is counted: `what` is not known. No other call follows.
    fn unknown(&mut self, offset: u64, what: u8) -> Result<()> {
        Ok(())
    }

    /// The last key and the last record have come.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Visitor for () {}
