//! Which servers this crate works with.
//!
//! A version outside the range is refused before anything is read: file formats and the replication grammar change with
//! major versions, and a backup that nobody has proven restorable is worse than none.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The version of a server as `server_version_num`: major × 10000 + minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion(u32);

impl ServerVersion {
    /// The oldest supported major version.
    pub const OLDEST: u32 = 13;
    /// The newest supported major version.
    pub const NEWEST: u32 = 18;

    /// Takes a `server_version_num`.
    ///
    /// # Errors
    /// [`Error::Version`] outside of [`Self::OLDEST`]..=[`Self::NEWEST`].
    pub fn new(number: u32) -> Result<Self> {
        if (Self::OLDEST..=Self::NEWEST).contains(&(number / 10_000)) {
            Ok(Self(number))
        } else {
            Err(Error::Version { found: number, oldest: Self::OLDEST, newest: Self::NEWEST })
        }
    }

    /// The major version, 13 to 18.
    #[must_use]
    pub fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// The whole number, for example 150018.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    /// Reads the parameter `server_version` that every session reports, for example `15.18 (Debian 15.18-0+deb12u1)`,
    /// `18beta3` or `17devel`.
    ///
    /// # Errors
    /// [`Error::Malformed`] without a leading number, [`Error::Version`] outside the supported range.
    pub fn from_parameter(text: &str) -> Result<Self> {
        let number = |text: &str| {
            let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
            (text[..end].parse::<u32>().ok(), end)
        };
        let (major, end) = number(text);
        let major = major
            .filter(|major| *major < 100_000)
            .ok_or_else(|| Error::malformed("server_version", format!("{text:?} has no major version")))?;
        let minor = match text[end..].strip_prefix('.') {
            Some(rest) => number(rest).0.filter(|minor| *minor < 10_000).unwrap_or(0),
            None => 0,
        };
        Self::new(major * 10_000 + minor)
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.0 % 10_000)
    }
}

impl FromStr for ServerVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text.parse().map_err(|_| Error::malformed("server_version_num", format!("{text:?}")))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_servers_report() {
        let version = |text| ServerVersion::from_parameter(text).unwrap().number();
        assert_eq!(version("15.18 (Debian 15.18-0+deb12u1)"), 150_018);
        assert_eq!(version("13.23"), 130_023);
        assert_eq!(version("18beta3"), 180_000);
        assert_eq!(version("17devel"), 170_000);
        assert_eq!("160004".parse::<ServerVersion>().unwrap().to_string(), "16.4");
    }

    #[test]
    fn too_old_and_too_new_are_named() {
        assert!(matches!(ServerVersion::from_parameter("12.22"), Err(Error::Version { found: 120_022, .. })));
        assert!(matches!(ServerVersion::from_parameter("9.6.24"), Err(Error::Version { found: 90_006, .. })));
        assert!(matches!("190000".parse::<ServerVersion>(), Err(Error::Version { newest: 18, .. })));
        for text in ["", "devel", "99999999999.1", "."] {
            assert!(ServerVersion::from_parameter(text).is_err(), "{text:?}");
        }
    }
}
