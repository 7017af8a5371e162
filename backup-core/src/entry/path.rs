//! Paths inside a backup.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::error::{Error, Result};

/// The longest path that a backup may contain, in bytes (PATH_MAX of Linux).
const MAX_LEN: usize = 4096;

/// A path inside a backup: bytes (file names need not be UTF-8), relative, separated by `/`, at most 4096 bytes.
///
/// No component is empty, `.` or `..`, and there is no NUL: joining it to a directory never leaves that directory
/// lexically. It is checked when it is made and again when it is decoded, so a hostile backup cannot bring another kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Checks `bytes` against the rules above.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that names the path and the rule.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = bytes.into();
        let problem = if bytes.is_empty() || bytes.len() > MAX_LEN {
            "must have 1 to 4096 bytes"
        } else if bytes.contains(&0) {
            "must not contain NUL"
        } else if bytes.split(|b| *b == b'/').any(|c| matches!(c, b"" | b"." | b"..")) {
            "must be relative, without empty, `.` or `..` components"
        } else {
            return Ok(Self(bytes));
        };
        Err(Error::invalid(format!("entry path {:?} {problem}", String::from_utf8_lossy(&bytes))))
    }

    /// The path of `file` as seen from `root`.
    ///
    /// # Errors
    /// When `file` is not below `root`, or breaks a rule.
    pub fn relative(root: &Path, file: &Path) -> Result<Self> {
        let below = file
            .strip_prefix(root)
            .map_err(|_| Error::invalid(format!("{} is not below {}", file.display(), root.display())))?;
        Self::new(below.as_os_str().as_bytes())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as text where it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The path as a relative path of the operating system.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// This path below `root`.
    #[must_use]
    pub fn under(&self, root: &Path) -> PathBuf {
        root.join(self.as_path())
    }

    /// Whether this is `folder` itself or lies inside of it.
    #[must_use]
    pub fn is_within(&self, folder: &[u8]) -> bool {
        match self.0.strip_prefix(folder) {
            Some(rest) => folder.is_empty() || rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }

    /// This path as one below `folder`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) when it becomes too long.
    pub fn below(&self, folder: &Self) -> Result<Self> {
        Self::new([folder.as_bytes(), b"/", self.as_bytes()].concat())
    }

    /// What of this path is below `folder`; none for the folder itself and for what lies outside.
    #[must_use]
    pub fn inside(&self, folder: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(folder.as_bytes())?.strip_prefix(b"/")?;
        Some(Self(rest.to_vec()))
    }

    /// The last component.
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or(&self.0)
    }

    /// The path without its last component, unless that was the only one.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0[..slash].to_vec()))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) if !text.contains(char::is_control) => f.pad(text),
            _ => f.pad(&self.0.escape_ascii().to_string()),
        }
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryPath({self})")
    }
}

impl std::str::FromStr for EntryPath {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::new(s)
    }
}

impl serde::Serialize for EntryPath {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<C> Encode<C> for EntryPath {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> std::result::Result<(), EncodeError<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for EntryPath {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> std::result::Result<Self, DecodeError> {
        Self::new(d.bytes()?).map_err(DecodeError::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_that_could_leave_the_target_are_refused() {
        for bad in ["", "/", "/etc/passwd", "..", "a/../b", "a/..", "./a", "a//b", "a/", "a\0b"] {
            assert!(EntryPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(EntryPath::new(vec![b'a'; 4097]).is_err());
    }

    #[test]
    fn names_need_not_be_utf8() {
        let path = EntryPath::new(b"base/\xff\xfe".to_vec()).unwrap();
        assert_eq!(path.as_str(), None);
        assert_eq!(path.to_string(), r"base/\xff\xfe");
        assert_eq!(path.file_name(), b"\xff\xfe");
        assert_eq!(path.parent().unwrap().as_bytes(), b"base");
    }

    #[test]
    fn paths_go_into_folders_and_come_out_again() {
        let [path, folder] = ["base/1", "a"].map(|path| EntryPath::new(path).unwrap());
        let below = path.below(&folder).unwrap();
        assert_eq!(below.as_str(), Some("a/base/1"));
        assert_eq!(below.inside(&folder), Some(path));
        for outside in ["a", "ab/c", "b/a/c"] {
            assert_eq!(EntryPath::new(outside).unwrap().inside(&folder), None, "{outside}");
        }
        assert!(EntryPath::new(vec![b'x'; 4096]).unwrap().below(&folder).is_err());
    }

    #[test]
    fn within_respects_component_boundaries() {
        let path = EntryPath::new("base/16384/1").unwrap();
        for (folder, inside) in [("", true), ("base", true), ("base/1", false), ("base/16384", true), ("other", false)]
        {
            assert_eq!(path.is_within(folder.as_bytes()), inside, "{folder}");
        }
    }

    proptest! {
        #[test]
        fn joined_paths_stay_below_the_root(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(path) = EntryPath::new(bytes) {
                let joined = path.under(Path::new("/target/dir"));
                prop_assert!(joined.starts_with("/target/dir"));
                prop_assert!(joined.components().all(|c| !matches!(c, std::path::Component::ParentDir)));
            }
        }
    }
}
