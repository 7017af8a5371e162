//! Which files of a data directory are not part of a backup: the server's own list, as pure functions.
//!
//! Source: `excludeDirContents`, `excludeFiles` and `sendDir` in `basebackup.c` of versions 13 to 18. The lists are the same
//! in all of them but for `pg_wal/summaries`, which exists from 17 on and vanishes with everything else in `pg_wal`.
//! `.DS_Store` is skipped from the minor releases of 2024 on, everywhere here. Names count at any depth, as at the server.

use std::collections::BTreeSet;

use crate::page::{Fork, RelationFile};
use crate::page::{is_database, is_global};

/// Directories whose content is left out; they themselves are kept, empty.
const EMPTY_DIRECTORIES: [&[u8]; 7] =
    [b"pg_stat_tmp", b"pg_replslot", b"pg_dynshmem", b"pg_notify", b"pg_serial", b"pg_snapshots", b"pg_subtrans"];

/// Files that are left out.
const FILES: [&[u8]; 8] = [
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
    b"backup_label",
    b"tablespace_map",
    b"backup_manifest",
    b"postmaster.pid",
    b"postmaster.opts",
    b".DS_Store",
];

/// What to do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// It is part of the backup; a directory is walked.
    Take,
    /// A directory that is part of the backup, without what is in it.
    Empty,
    /// It is no part of the backup.
    Skip,
}

/// The decision for one entry of a data directory.
///
/// `path` is relative to the data directory, without a leading `./`; what is in a tablespace is below `pg_tblspc/<oid>/`.
/// `directory` says whether it is one (or a link to one). The parts above `path` must have been decided to be taken.
/// `global/pg_control` is taken, but has to be read last. `pg_wal/archive_status` (and from 17 `pg_wal/summaries`) have to
/// be made empty beside an empty `pg_wal`. A tablespace inside the data directory is not known here.
#[must_use]
pub fn decide(path: &[u8], directory: bool) -> Decision {
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b""[..], path),
    };
    if name.starts_with(b"pgsql_tmp") || name.starts_with(b"pg_internal.init") || FILES.contains(&name) {
        return Decision::Skip;
    }
    if is_database(parent) && is_temporary_relation(name) {
        return Decision::Skip;
    }
    if directory && (EMPTY_DIRECTORIES.contains(&name) || path == b"pg_wal") {
        return Decision::Empty;
    }
    Decision::Take
}

/// Whether `name` is a file of a temporary relation: `t<backend>_<number>[_fork][.segment]`
/// (`looks_like_temp_rel_name`). Unlike other numbers these may have leading zeros.
#[must_use]
pub fn is_temporary_relation(name: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let Some(rest) = name.strip_prefix(b"t") else { return false };
    let backend = digits(rest);
    let Some(rest) = rest[backend..].strip_prefix(b"_") else { return false };
    let number = digits(rest);
    if backend == 0 || number == 0 {
        return false;
    }
    let rest = &rest[number..];
    let rest = [&b"_fsm"[..], b"_vm", b"_init"].iter().find_map(|fork| rest.strip_prefix(*fork)).unwrap_or(rest);
    match rest {
        [] => true,
        [b'.', segment @ ..] => !segment.is_empty() && digits(segment) == segment.len(),
        _ => false,
    }
}

/// The unlogged relations of one directory: those with an init fork, which is all that a backup keeps of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unlogged(BTreeSet<u32>);

impl Unlogged {
    /// Looks through the names in `directory` (a path relative to the data directory). Only directories of relations have
    /// any.
    pub fn new<'a>(directory: &[u8], names: impl IntoIterator<Item = &'a [u8]>) -> Self {
        if !is_database(directory) && !is_global(directory) {
            return Self::default();
        }
        let init = |name| RelationFile::parse_name(name).filter(|file| file.fork == Fork::Init && file.segment == 0);
        Self(names.into_iter().filter_map(init).map(|file| file.number).collect())
    }

    /// Whether the file `name` of that directory is left out because its relation is unlogged.
    #[must_use]
    pub fn skips(&self, name: &[u8]) -> bool {
        RelationFile::parse_name(name).is_some_and(|file| file.fork != Fork::Init && self.0.contains(&file.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_servers_list() {
        for path in [
            "postmaster.pid",
            "postmaster.opts",
            "backup_label",
            "tablespace_map",
            "backup_manifest",
            "postgresql.auto.conf.tmp",
            "current_logfiles.tmp",
            "global/pg_internal.init",
            "base/1/pg_internal.init.77",
            "base/pgsql_tmp",
            "base/1/pgsql_tmp1.2",
            "pg_tblspc/1/PG_15_1/pgsql_tmp",
            "base/1/t3_16384",
            "base/1/t3_16384_fsm.1",
            "pg_tblspc/1/PG_15_1/5/t12_1",
            "base/.DS_Store",
        ] {
            assert_eq!(decide(path.as_bytes(), false), Decision::Skip, "{path}");
        }
        for path in [
            "pg_wal",
            "pg_replslot",
            "pg_stat_tmp",
            "pg_dynshmem",
            "pg_notify",
            "pg_serial",
            "pg_snapshots",
            "pg_subtrans",
        ] {
            assert_eq!(decide(path.as_bytes(), true), Decision::Empty, "{path}");
        }
        for path in [
            "global/pg_control",
            "PG_VERSION",
            "backup_label.old",
            "tablespace_map.old",
            "postgresql.auto.conf",
            "base/1/16384",
            "t3_16384",
            "global/t3_16384",
            "base/1/t3",
            "base/1/t_1",
            "base/1/t3_1_x",
            "base/1/t3_1.",
            "current_logfiles",
            "pg_logical/replorigin_checkpoint",
            "postmaster.pid.x",
        ] {
            assert_eq!(decide(path.as_bytes(), false), Decision::Take, "{path}");
        }
        for path in ["base", "pg_xact", "log", "pg_logical/mappings", "x/pg_wal", "pg_tblspc"] {
            assert_eq!(decide(path.as_bytes(), true), Decision::Take, "{path}");
        }
    }

    #[test]
    fn unlogged_relations_keep_their_init_fork() {
        let names: [&[u8]; 7] =
            [b"16384", b"16384_init", b"16384_fsm", b"16384.1", b"16385", b"PG_VERSION", b"16386_init.1"];
        let unlogged = Unlogged::new(b"base/5", names);
        let skipped: Vec<_> = names.into_iter().filter(|name| unlogged.skips(name)).collect();
        assert_eq!(skipped, [&b"16384"[..], b"16384_fsm", b"16384.1"]);
        assert_eq!(Unlogged::new(b"pg_xact", names), Unlogged::default());
    }

    proptest! {
        #[test]
        fn any_path_is_decided(path: Vec<u8>, directory: bool) {
            let _ = decide(&path, directory);
            let _ = is_temporary_relation(&path);
        }
    }
}
