//! The PostgreSQL versions that the project supports, and exactly which builds of them are tested.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A major version of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PgVersion {
    /// PostgreSQL 13, the oldest with a backup manifest.
    V13,
    /// PostgreSQL 14.
    V14,
    /// PostgreSQL 15: `BASE_BACKUP` in one copy stream, `pg_backup_start` instead of `pg_start_backup`.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17: WAL summaries and server-side incremental backups.
    V17,
    /// PostgreSQL 18: page checksums by default.
    V18,
}

/// A pinned build.
pub(crate) struct Build {
    /// `major.minor.revision` of the artifact.
    pub(crate) version: &'static str,
    /// SHA-256 of the artifact for Linux on x86-64. Other platforms rely on the digest published beside the artifact.
    pub(crate) sha256: &'static str,
}

impl PgVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 6] = [Self::V13, Self::V14, Self::V15, Self::V16, Self::V17, Self::V18];

    /// The major version as PostgreSQL writes it into `PG_VERSION`.
    #[must_use]
    pub fn major(self) -> u32 {
        match self {
            Self::V13 => 13,
            Self::V14 => 14,
            Self::V15 => 15,
            Self::V16 => 16,
            Self::V17 => 17,
            Self::V18 => 18,
        }
    }

    pub(crate) fn build(self) -> Build {
        let (version, sha256) = match self {
            Self::V13 => ("13.23.0", "0713b8a6dbe13440718ea789eefca6ae562b004bc0541d9c21d20300529c1db2"),
            Self::V14 => ("14.24.0", "2722d05eb22c671104c9918d59d8ba9f5656898f5452a0207bb4cce21eef5dc4"),
            Self::V15 => ("15.19.0", "95f0b66fe72d4ca66c815773c44cb1196ea38552463e89a35f18114b3ed1565f"),
            Self::V16 => ("16.15.0", "653abc065c682b85d3da50168fb95dc524bd85426cdec9ce3695a550ef431df2"),
            Self::V17 => ("17.11.0", "0dd7b72b6f335b8ecfb355fa24c5781e8a93edd09880bb77eb52ebbf29b3e96d"),
            Self::V18 => ("18.6.0", "008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1"),
        };
        Build { version, sha256 }
    }
}

impl fmt::Display for PgVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.major())
    }
}

impl FromStr for PgVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        Self::ALL
            .into_iter()
            .find(|version| version.to_string() == text)
            .ok_or_else(|| Error::invalid(format!("{text:?} is not a supported postgresql version (13 to 18)")))
    }
}

/// The versions that a test suite should run against: all, or those listed in `BACKUP_TESTKIT_POSTGRES`
/// (for example `15,17`) to shorten a developer's loop.
///
/// # Panics
/// When the variable names something that is not a supported version: a typo must not turn into a shorter test run.
#[must_use]
pub fn versions_under_test() -> Vec<PgVersion> {
    match std::env::var("BACKUP_TESTKIT_POSTGRES") {
        Ok(list) if !list.trim().is_empty() => parse_list(&list).unwrap_or_else(|error| panic!("{error}")),
        _ => PgVersion::ALL.to_vec(),
    }
}

fn parse_list(list: &str) -> Result<Vec<PgVersion>, Error> {
    list.split(',').map(str::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_exact_or_an_error() {
        assert_eq!(parse_list("15, 17").unwrap(), [PgVersion::V15, PgVersion::V17]);
        assert!(parse_list("15,12").is_err());
        assert!(parse_list("17.2").is_err());
    }

    #[test]
    fn pinned_builds_belong_to_their_major_version() {
        for version in PgVersion::ALL {
            assert!(version.build().version.starts_with(&format!("{version}.")));
            assert_eq!(version.build().sha256.len(), 64);
        }
    }
}
