//! The servers of ClickHouse that the project supports, and exactly which builds of them are tested.

use std::fmt;
use std::str::FromStr;

use crate::debian::Packages;
use crate::error::Error;
use crate::wheel::Wheel;

/// A release line of ClickHouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ClickHouseVersion {
    /// ClickHouse 18.16, of Debian 12: databases in plain directories, users in a file, no `hash_of_all_files`.
    V18_16,
    /// ClickHouse 26: databases by identifier, compact parts, projections, `BACKUP` and `RESTORE`.
    V26,
}

/// Debian's package of the old one; what it depends on comes with it.
pub(crate) const PACKAGES: Packages = Packages { suite: "bookworm", names: &["clickhouse-server"] };

/// The engine of the new one. The glue for the Python versions is loaded by the library, next to which it has to lie.
pub(crate) const ENGINE: (Wheel, &[(&str, &str)]) = (
    Wheel {
        package: "chdb-core",
        version: "26.9.0",
        platform: "manylinux_2_17_x86_64",
        sha256: "707e2ec3fe0f7953bac97942eaeb7a1ed1d66b1e56ecef3f0aa2130f61f6e735",
    },
    &[
        ("chdb/_chdb.abi3.so", ENGINE_FILE),
        ("chdb/libpybind11nonlimitedapi_stubs.so", "chdb/libpybind11nonlimitedapi_stubs.so"),
        ("chdb/libpybind11nonlimitedapi_chdb_3.9.so", "chdb/libpybind11nonlimitedapi_chdb_3.9.so"),
        ("chdb/libpybind11nonlimitedapi_chdb_3.10.so", "chdb/libpybind11nonlimitedapi_chdb_3.10.so"),
        ("chdb/libpybind11nonlimitedapi_chdb_3.11.so", "chdb/libpybind11nonlimitedapi_chdb_3.11.so"),
        ("chdb/libpybind11nonlimitedapi_chdb_3.12.so", "chdb/libpybind11nonlimitedapi_chdb_3.12.so"),
        ("chdb/libpybind11nonlimitedapi_chdb_3.13.so", "chdb/libpybind11nonlimitedapi_chdb_3.13.so"),
        ("chdb/libpybind11nonlimitedapi_chdb_3.14.so", "chdb/libpybind11nonlimitedapi_chdb_3.14.so"),
        (
            "chdb_core.libs/libpybind11nonlimitedapi_stubs-12ef79b5.so",
            "chdb_core.libs/libpybind11nonlimitedapi_stubs-12ef79b5.so",
        ),
    ],
);

/// By this file an engine as a library is told from a server.
pub(crate) const ENGINE_FILE: &str = "chdb/_chdb.abi3.so";

impl ClickHouseVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 2] = [Self::V18_16, Self::V26];

    /// The release line: `18.16`, `26`.
    #[must_use]
    pub fn line(self) -> &'static str {
        match self {
            Self::V18_16 => "18.16",
            Self::V26 => "26",
        }
    }

    /// Its name: `clickhouse-18.16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V18_16 => "clickhouse-18.16",
            Self::V26 => "clickhouse-26",
        }
    }

    /// What the pinned build calls itself.
    #[must_use]
    pub fn pinned(self) -> &'static str {
        match self {
            Self::V18_16 => "18.16.1",
            Self::V26 => "26.9.2.1",
        }
    }

    /// The variable that names another installation of it: `BACKUP_TESTKIT_CLICKHOUSE_18_16`.
    #[must_use]
    pub fn variable(self) -> String {
        format!("BACKUP_TESTKIT_CLICKHOUSE_{}", self.line().replace('.', "_"))
    }
}

impl fmt::Display for ClickHouseVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.line())
    }
}

impl FromStr for ClickHouseVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        Self::ALL.into_iter().find(|version| version.line() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::line).join(", ");
            Error::invalid(format!("{text:?} is none of {known}"))
        })
    }
}

/// The versions that a test suite should run against: all, or those listed in `BACKUP_TESTKIT_CLICKHOUSE`
/// (for example `18.16`) to shorten a developer's loop.
///
/// # Panics
/// When the variable names something that is not supported: a typo must not turn into a shorter test run.
#[must_use]
pub fn clickhouse_versions_under_test() -> Vec<ClickHouseVersion> {
    match std::env::var("BACKUP_TESTKIT_CLICKHOUSE") {
        Ok(list) if !list.trim().is_empty() => parse_list(&list).unwrap_or_else(|error| panic!("{error}")),
        _ => ClickHouseVersion::ALL.to_vec(),
    }
}

fn parse_list(list: &str) -> Result<Vec<ClickHouseVersion>, Error> {
    list.split(',').map(str::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_exact_or_an_error() {
        assert_eq!(parse_list("18.16, 26").unwrap(), ClickHouseVersion::ALL);
        assert!(parse_list("18.16,25").is_err());
    }

    #[test]
    fn pinned_builds_belong_to_their_line() {
        for version in ClickHouseVersion::ALL {
            assert!(version.pinned().starts_with(&format!("{}.", version.line())));
        }
        assert_eq!(ClickHouseVersion::V18_16.variable(), "BACKUP_TESTKIT_CLICKHOUSE_18_16");
        assert_eq!(ENGINE.0.sha256.len(), 64);
    }
}
