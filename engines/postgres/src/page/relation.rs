//! The names of relation files.
//!
//! Source: `src/common/relpath.c`, `parse_filename_for_nontemp_relation` in `storage/file/reinit.c`, `sendDir` in
//! `basebackup.c`. A relation is `<number>[_fork][.segment]` in a database's directory or in `global`; numbers have no
//! leading zeros. `pg_control`, `pg_filenode.map`, `PG_VERSION` and `pg_internal.init` have no such name and therefore no
//! pages.

/// One of a relation's forks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fork {
    /// The data.
    Main,
    /// The free space map.
    FreeSpace,
    /// The visibility map.
    Visibility,
    /// What an unlogged relation is reset to.
    Init,
}

/// A file of a relation that is not temporary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RelationFile {
    /// The number in its name.
    pub number: u32,
    /// Its fork.
    pub fork: Fork,
    /// Which piece of the fork it is.
    pub segment: u32,
}

impl RelationFile {
    /// Reads a bare file name.
    #[must_use]
    pub fn parse_name(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        let (stem, segment) = match name.split_once('.') {
            Some((stem, segment)) => (stem, number(segment).filter(|segment| *segment > 0)?),
            None => (name, 0),
        };
        let (digits, fork) = match stem.split_once('_') {
            None => (stem, Fork::Main),
            Some((digits, "fsm")) => (digits, Fork::FreeSpace),
            Some((digits, "vm")) => (digits, Fork::Visibility),
            Some((digits, "init")) => (digits, Fork::Init),
            Some(_) => return None,
        };
        Some(Self { number: number(digits).filter(|number| *number != 0)?, fork, segment })
    }

    /// Reads a path below the data directory: only files in `global`, `base/<db>` and
    /// `pg_tblspc/<oid>/PG_<version>/<db>` are relations.
    #[must_use]
    pub fn parse_path(path: &[u8]) -> Option<Self> {
        let at = path.iter().rposition(|byte| *byte == b'/')?;
        let (directory, name) = (&path[..at], &path[at + 1..]);
        (is_global(directory) || is_database(directory)).then(|| Self::parse_name(name)).flatten()
    }

    /// The relation's block number at the start of this file, with `per_segment` blocks in every full one (131072 unless
    /// the server was built otherwise). `None` when no relation could be so long.
    #[must_use]
    pub fn first_block(self, per_segment: u32) -> Option<u32> {
        self.segment.checked_mul(per_segment)
    }
}

fn number(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    plain.then(|| digits.parse().ok()).flatten()
}

/// Whether `directory`, below the data directory, is the one of shared relations.
pub(crate) fn is_global(directory: &[u8]) -> bool {
    directory == b"global"
}

/// Whether `directory`, below the data directory, holds the relations of one database.
pub(crate) fn is_database(directory: &[u8]) -> bool {
    let digits = |part: Option<&[u8]>| part.is_some_and(|p| !p.is_empty() && p.iter().all(u8::is_ascii_digit));
    let mut parts = directory.split(|byte| *byte == b'/');
    let inside = match parts.next() {
        Some(b"base") => true,
        Some(b"pg_tblspc") => digits(parts.next()) && parts.next().is_some_and(|part| part.starts_with(b"PG_")),
        _ => false,
    };
    inside && digits(parts.next()) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        let file = |number, fork, segment| Some(RelationFile { number, fork, segment });
        assert_eq!(RelationFile::parse_name(b"16384"), file(16384, Fork::Main, 0));
        assert_eq!(RelationFile::parse_name(b"16384.3"), file(16384, Fork::Main, 3));
        assert_eq!(RelationFile::parse_name(b"16384_vm.1"), file(16384, Fork::Visibility, 1));
        assert_eq!(RelationFile::parse_name(b"1_fsm"), file(1, Fork::FreeSpace, 0));
        assert_eq!(RelationFile::parse_name(b"1_init"), file(1, Fork::Init, 0));
        for name in [
            "",
            "0",
            "01",
            "1.0",
            "1.01",
            "1.",
            "1_",
            "1_x",
            "t3_16384",
            "+1",
            "4294967296",
            "1_fsm_vm",
            "1.1.1",
            "PG_VERSION",
            "pg_filenode.map",
            "pg_control",
            "pg_internal.init",
            "16384 ",
        ] {
            assert_eq!(RelationFile::parse_name(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn places() {
        for path in ["global/1262", "base/1/1259", "pg_tblspc/16384/PG_15_202209061/5/1259"] {
            assert!(RelationFile::parse_path(path.as_bytes()).is_some(), "{path}");
        }
        for path in [
            "1259",
            "base/1259",
            "base/1/x/1259",
            "pg_tblspc/1/2/3/1259",
            "pg_tblspc/16384/PG_15_202209061/1259",
            "pg_xact/0000",
            "pg_multixact/members/1234",
            "base/pgsql_tmp/1",
            "./base/1/2",
        ] {
            assert!(RelationFile::parse_path(path.as_bytes()).is_none(), "{path}");
        }
        let file = RelationFile::parse_path(b"base/1/1259.2").unwrap();
        assert_eq!(file.first_block(131_072), Some(262_144));
        assert_eq!(RelationFile::parse_name(b"1.4000000000").unwrap().first_block(131_072), None);
    }

    proptest! {
        #[test]
        fn any_path_is_read(path: Vec<u8>) {
            let _ = RelationFile::parse_path(&path);
        }
    }
}
