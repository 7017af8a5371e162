//! Names of objects: short, lower case, the same on every store.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The name of one object, relative to its [`Store`](super::Store).
///
/// ASCII `[a-z0-9._-]` in components joined by `/`, at most [`ObjectName::MAX_LEN`] bytes, no empty component and none that
/// ends with a dot. Upper case is excluded because some file systems fold case, `#` because the local disk store
/// stages its files as `name#1`, a last dot because Azure and Windows take it off.
///
/// One rule cannot be seen in a single name: no name may be the folder of another (`a` and `a/b`), because a file system
/// cannot hold both. The layout of the repository keeps it; the write-once guard of `test-util` checks it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    /// The longest name, in bytes. With the longest prefix it stays far below the 1024 bytes of S3 and GCS and
    /// the 255 bytes per component of file systems.
    pub const MAX_LEN: usize = 200;

    /// Checks and wraps a name.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::error::ErrorKind::InvalidInput) that shows the name and the rule it breaks.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self> {
        let name = name.into();
        check(&name)?;
        Ok(Self(name))
    }

    /// This name with further components behind it.
    ///
    /// # Errors
    /// As [`ObjectName::new`].
    pub fn join(&self, rest: &str) -> Result<Self> {
        Self::new(format!("{self}/{rest}"))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, last)| last)
    }
}

/// Checks a name, or a folder of names, against the alphabet.
pub(super) fn check(name: &str) -> Result<()> {
    let refuse = |rule: &str| Err(Error::invalid(format!("object name {name:?} {rule}")));
    if name.len() > ObjectName::MAX_LEN {
        return refuse("is longer than 200 bytes");
    }
    if !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/')) {
        return refuse("has a character outside a-z 0-9 . _ - /");
    }
    if name.split('/').any(|part| part.is_empty() || part.ends_with('.')) {
        return refuse("has a component that is empty or ends with a dot");
    }
    Ok(())
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for ObjectName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<&str> for ObjectName {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<String> for ObjectName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_a_repository_is_made_of_valid_names() {
        for name in ["repository", "keys/0/a", "catalog/00000000000000000001", "packs/01j8.x_y-z/000001", "..a", "a..b"]
        {
            assert_eq!(ObjectName::new(name).unwrap().as_str(), name);
        }
        assert_eq!(ObjectName::new("a/b/c").unwrap().file_name(), "c");
        assert_eq!(ObjectName::new("a").unwrap().join("b/c").unwrap().as_str(), "a/b/c");
    }

    #[test]
    fn names_that_some_store_would_mangle_are_refused() {
        let long = "a".repeat(201);
        for name in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a.", "a./b", "a/../b", "A", "a#1", "a b", "ä", "a\\b", "a\0",
            &long,
        ] {
            let error = ObjectName::new(name).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::InvalidInput, "{name:?}");
        }
    }
}
