//! Names in the list.

use std::borrow::Borrow;
use std::fmt;

use crate::part::{Error, Result};

/// The name of a file, or of a projection's folder, directly in a part.
///
/// Names come from `checksums.txt`, which anybody may have written, and become paths: so none has a slash, none is `.` or
/// `..`. Servers escape names of columns, but names of indexes only since 25.x, so other characters are taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(Box<str>);

impl FileName {
    /// Takes a name that stays in its part.
    ///
    /// # Errors
    /// [`Error::FileName`] if it does not.
    pub fn new(name: &str) -> Result<Self> {
        let reason = match name {
            "" => "it is empty",
            "." | ".." => "it is not a file",
            _ if name.len() > 255 => "it is longer than a file system allows",
            _ if name.contains(['/', '\\', '\0']) => "it has a separator or a nought",
            _ => return Ok(Self(name.into())),
        };
        Err(Error::file_name(name, reason))
    }

    /// Takes a name as bytes.
    ///
    /// # Errors
    /// [`Error::FileName`] if it does not stay in its part, or is not UTF-8.
    pub fn from_bytes(name: &[u8]) -> Result<Self> {
        match std::str::from_utf8(name) {
            Ok(name) => Self::new(name),
            Err(_) => Err(Error::file_name(&String::from_utf8_lossy(name), "it is not utf-8")),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The projection whose folder it is.
    #[must_use]
    pub fn projection(&self) -> Option<&str> {
        self.0.strip_suffix(".proj").filter(|name| !name.is_empty())
    }
}

impl Borrow<str> for FileName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
